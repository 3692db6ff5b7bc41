"""``reprism compare``."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.output import progress_bars, titled


@dataclass
class Arguments:
    """Show the queries on which two networks differ most in average precision, as each network ranks them."""

    one: tyro.conf.Positional[Path]
    """First model file."""
    other: tyro.conf.Positional[Path]
    """Second model file."""
    data: str
    """Data set as NAME:DIR, such as market1501:/data/Market-1501."""
    shown: int = 10
    """Number of queries to show."""
    top: int = 10
    """Number of matches to show for each query."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path = Path("compare")
    """Folder for the pictures and the page index.html."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism compare``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism compare",
        example="reprism compare runs/a/model.safetensors runs/b/model.safetensors --data market1501:people",
        main=("data", "out", "shown", "top"),
    )
    if min(arguments.shown, arguments.top) < 1:
        raise ValueError("--shown and --top must be 1 or more")

    from reprism.evaluation.lists import most_different
    from reprism.evaluation.protocol import Protocol
    from reprism.evaluator import evaluate_model
    from reprism.report.lists_page import write_lists

    found = []
    with progress_bars() as progress:
        dataset = open_named(arguments.data, progress)
        for path in (arguments.one, arguments.other):
            embedder = arguments.embedding.embedder_of(path)
            protocol = Protocol(video=arguments.embedding.video)
            result = evaluate_model(
                embedder, dataset, protocol, workers=arguments.embedding.workers, progress=titled(progress, str(path))
            )
            found.append(replace(result, name=str(path)))
    one, other = (each.metrics for each in found)
    said = [f"{each.name}: mAP {each.metrics.mAP:.1%}, rank-1 {each.metrics.rank(1):.1%}" for each in found]
    page = write_lists(
        arguments.out,
        found,
        most_different(one, other, arguments.shown),
        arguments.top,
        title=f"Where {arguments.one} and {arguments.other} differ most",
        about=f"{dataset.name}. {'. '.join(said)}.",
    )
    print("\n".join([*said, str(page)]))
    return 0
