"""``reprism compare``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import tyro

from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings, embed_dataset, load_embedder
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Show the queries on which two networks differ most in average precision, ranked by each of them."""

    one: tyro.conf.Positional[Path]
    """A model."""
    other: tyro.conf.Positional[Path]
    """Another."""
    data: str
    """NAME:DIR, as in reprism evaluate."""
    shown: int = 10
    """How many queries."""
    top: int = 10
    """How many matches of each."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path = Path("compare")
    """Folder for the pictures and the page, index.html."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism compare``; returns the exit status."""
    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism compare")
    if min(arguments.shown, arguments.top) < 1:
        raise ValueError("--shown and --top must be 1 or more")

    from reprism.evaluation.protocols import evaluate_items
    from reprism.figures.lists_page import Ranked, most_different, write_lists

    ranked = []
    with progress_bars() as progress:
        dataset = open_named(arguments.data, progress)
        for path in (arguments.one, arguments.other):
            embedder = load_embedder(path, arguments.embedding)
            query, gallery = embed_dataset(embedder, dataset, arguments.embedding, progress, f"{path}: ")
            ranking = partial(progress, f"{path}: ranking")
            metrics = evaluate_items(query, gallery, dataset.query, dataset.gallery, progress=ranking)
            runs = arguments.embedding.video.runs if dataset.is_video else 1
            ranked.append(Ranked(str(path), query, gallery, metrics, embedder.model.partition, runs))
    one, other = (each.metrics for each in ranked)
    said = [f"{each.name}: mAP {each.metrics.mAP:.1%}, rank-1 {each.metrics.rank(1):.1%}" for each in ranked]
    page = write_lists(
        arguments.out,
        ranked,
        dataset,
        most_different(one, other, arguments.shown),
        arguments.top,
        title=f"Where {arguments.one} and {arguments.other} differ most",
        about=f"{dataset.name}. {'. '.join(said)}.",
    )
    print("\n".join([*said, str(page)]))
    return 0
