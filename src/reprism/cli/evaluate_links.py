"""``reprism evaluate-links``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.link import sightings_of
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.linking.link_scores import LinkScores, Ranks


@dataclass
class Arguments:
    """Find people among the test images of a data set without a label, and compare them with the identities.

    Which images are of one person is told from how alike they look and from the times between cameras, both learned
    from the images themselves. B-cubed precision is the share of an image's group that is of its person, recall the
    share of its person that is in its group; rank-1 and mAP are those of every image that searches all others. The
    second table holds the probabilities of pairs beside the truth, the third the same for every two cameras.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model: a file of reprism train, a folder of reprism export, or an ONNX file with a YAML file beside it."""
    data: str
    """Data set with cameras and times, as NAME:DIR, such as market1501:/data/Market-1501."""
    network: Path | None = None
    """Transit times that reprism link learn wrote (default: learned from the test images)."""
    least: float = 0.2
    """Least mean probability between two groups that become one person, 0 to 1; more makes more people, who are
    purer."""
    camera_normalize: bool = True
    """Normalize descriptors by camera before they are compared."""
    png: Path | None = None
    """Picture of the probabilities beside the truth, the reliability diagram (default: none drawn)."""
    json: Path | None = None
    """JSON file for the figures, as fractions (default: none written)."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism evaluate-links``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism evaluate-links",
        example="reprism evaluate-links model.safetensors --data market1501:/data/Market-1501",
        main=("data", "network", "least", "png", "json"),
    )

    from reprism.files import write_json
    from reprism.linking.link_scores import evaluate_links
    from reprism.linking.transit import CameraNetwork

    network = None if arguments.network is None else CameraNetwork.load(arguments.network)
    with progress_bars() as progress:
        rows, items = sightings_of(
            arguments.checkpoint,
            arguments.data,
            "test",
            arguments.embedding,
            camera_normalize=arguments.camera_normalize,
            progress=progress,
        )
        if network is None:
            network = CameraNetwork.learn(rows, items, progress=progress)
        found = evaluate_links(rows, items, network, least=arguments.least, progress=progress)
    console = Console(highlight=False)
    console.print(people_table(found))
    console.print(ranks_line(found), soft_wrap=True)
    console.print(probability_table(found))
    console.print(
        f"mean gap between probability and truth (expected calibration error), of pairs from a probability of 10 % on: "
        f"{100 * found.calibration_error:.1f} points", soft_wrap=True,
    )  # fmt: skip
    console.print(camera_table(found))
    if arguments.png is not None:
        from reprism.report.calibration import draw_links

        draw_links(found, arguments.png)
        console.print(f"diagram in {arguments.png}", markup=False, soft_wrap=True)
    if arguments.json is not None:
        write_json(arguments.json, found.as_dict())
        console.print(f"figures in {arguments.json}", markup=False, soft_wrap=True)
    return 0


def people_table(found: "LinkScores") -> Table:
    """Return how well people were found by looks alone, and with times."""
    title = f"{found.with_times.people:,} people in {found.with_times.items:,} images; percent"
    table = figures_table(title, ("B-cubed F1", "precision", "recall", "pairs F1", "people found"), label="")
    for name, scores in (("looks alone", found.by_looks), ("looks and times", found.with_times)):
        rates = (scores.f1, scores.precision, scores.recall, scores.pair_f1)
        table.add_row(name, *(f"{100 * rate:.1f}" for rate in rates), f"{scores.clusters:,}")
    return table


def ranks_line(found: "LinkScores") -> str:
    """Return how images of other cameras are ranked, by looks alone and with times."""
    looks, times = (" / ".join(_ranks(ranks)) for ranks in (found.ranks_by_looks, found.ranks_with_times))
    return f"rank-1 / mAP of each image among all others, percent: looks alone {looks}, looks and times {times}"


def camera_table(found: "LinkScores") -> Table:
    """Return of every two cameras the matches as told and in truth, and how well they are linked."""
    figures = ("pairs", "told", "in truth", "precision", "recall", "rank-1", "by looks")
    title = (
        "every two cameras: matches among their pairs, told and in truth; linked pairs; rank-1 with times and by "
        "looks alone; percent"
    )
    table = figures_table(title, figures, label="cameras")
    for cameras, each in found.camera_pairs.items():
        linked = each.with_times
        table.add_row(
            escape(", ".join(cameras)),
            f"{each.pairs:,}",
            *(f"{100 * share:.2f}" for share in (each.predicted, each.observed)),
            *(f"{100 * rate:.1f}" for rate in (linked.precision, linked.recall)),
            _ranks(each.ranks_with_times)[0],
            _ranks(each.ranks_by_looks)[0],
        )
    return table


def _ranks(found: "Ranks | None") -> tuple[str, str]:
    return ("–", "–") if found is None else (f"{100 * found.rank1:.1f}", f"{100 * found.mAP:.1f}")


def probability_table(found: "LinkScores") -> Table:
    """Return what probabilities say, beside the share of pairs that are of one person."""
    title = (
        f"pairs of two cameras by their probability; matches among all: {100 * found.odds.prior:.2f} % by the model, "
        f"{100 * found.true_share:.2f} % in truth"
    )
    table = figures_table(title, ("in truth", "pairs"), label="probability")
    for each in found.reliability:
        table.add_row(f"{100 * each.predicted:.1f} %", f"{100 * each.observed:.1f} %", f"{each.count:,}")
    return table
