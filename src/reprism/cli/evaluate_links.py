"""``reprism evaluate-links``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.console import Console
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.link import sightings_of
from reprism.cli.output import figures_table, progress_bars

if TYPE_CHECKING:
    from reprism.linking.link_scores import LinkScores


@dataclass
class Arguments:
    """Find people among the test images of a data set without a label, and compare them with the identities.

    Which images are of one person is told from how alike they look and from the times between cameras, both learned
    from the images themselves. B-cubed precision is the share of an image's group that is of its person, recall the
    share of its person that is in its group. The second table holds the probabilities of pairs beside the truth.
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
        main=("data", "network", "least", "json"),
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
    console.print(probability_table(found))
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
