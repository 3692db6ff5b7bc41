"""``reprism evaluate``."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape

from reprism.cli.arguments import parse
from reprism.cli.datasets import named_data, open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings, embed_dataset, load_embedder
from reprism.cli.output import metrics_table, progress_bars, unused
from reprism.data import ReIDDataset

if TYPE_CHECKING:
    from reprism.embedding import Embedder
    from reprism.evaluation.ranking import RankingMetrics


@dataclass
class Arguments:
    """Rank a data set's gallery for its queries with a trained network.

    A gallery image of the query's person and camera is ignored for that query. A query that no other camera saw is
    lost, and counted. Every result states its protocol. The network may have been trained on other data.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model file: written by reprism train, or a state dict of the released SCR code."""
    data: tuple[str, ...]
    """One or more data sets as NAME:DIR, such as market1501:/data/Market-1501. Options of the loader follow the name:
    cuhk03,boxes=detected,protocol=classic:/data/cuhk03."""
    ap: Literal["step", "trapezoid"] = "step"
    """Average precision: the mean of k/rank_k (step), or the original MATLAB code's trapezoids."""
    lost: Literal["exclude", "zero"] = "exclude"
    """Exclude lost queries from the means, or count them as zero."""
    multi_query: bool = False
    """Average the descriptors of one person in one camera before the search (Market-1501: those in gt_bbox)."""
    single_gallery_shot: int | None = None
    """Rank one random gallery item of each identity, this many times; 0 ranks the whole gallery (default: 10 for the
    classic protocol of CUHK03, 0 for others)."""
    split_by_identity: float | None = None
    """Share of the identities to leave out for training, in your own data without a split (default: none)."""
    seed: int = 0
    """Random seed of --split-by-identity and --single-gallery-shot."""
    comparison: Literal["concatenate", "all-pairs"] = "concatenate"
    """Compare tracklets by one distance over their segments side by side (the paper's way), or by the sum of the
    distances between every two segments (the released code's way)."""
    rerank: bool = False
    """Re-rank by k-reciprocal neighbours (Zhong et al., CVPR 2017)."""
    k1: int = 20
    """Neighbours tested for reciprocity in re-ranking."""
    k2: int = 6
    """Neighbours whose vectors are averaged in re-ranking."""
    lambda_value: float = 0.3
    """Weight of the original distance in re-ranking, 0 to 1."""
    expand_queries: int = 0
    """Average each query with this many of its nearest gallery items before the search; 0: off."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path | None = None
    """JSON file for the figures (default: evaluation-MODEL-DATA.json, with a number where that exists)."""
    overwrite: bool = False
    """Replace the file that --out names, if it exists."""
    ranked_lists: Path | None = None
    """Folder for pictures of the hardest queries' ranked lists, and a page of them (default: none written)."""
    shown: int = 10
    """Number of queries in --ranked-lists."""
    top: int = 10
    """Number of matches shown for each query in --ranked-lists."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism evaluate``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism evaluate",
        example="reprism evaluate runs/scr-market1501/model.safetensors --data market1501:people",
        main=("data", "rerank", "multi_query", "ranked_lists", "out"),
    )
    if arguments.ranked_lists is not None and (arguments.rerank or min(arguments.shown, arguments.top) < 1):
        raise ValueError(
            "--ranked-lists shows searches as they are, not with --rerank; --shown and --top are 1 or more"
        )
    if arguments.single_gallery_shot is not None and arguments.single_gallery_shot < 0:
        raise ValueError(f"--single-gallery-shot {arguments.single_gallery_shot}: wanted is a number of trials, or 0")

    if arguments.out is not None and arguments.out.exists() and not arguments.overwrite:
        raise ValueError(f"{arguments.out} exists: give --overwrite to replace it, or another --out")

    from reprism.data.check import require_evaluable
    from reprism.evaluation.protocols import require_multi_query
    from reprism.files import write_json

    # All are opened before the first is embedded: a wrong folder should not cost an hour.
    with progress_bars() as progress:
        datasets = [
            open_named(text, progress, split_by_identity=arguments.split_by_identity, seed=arguments.seed)
            for text in arguments.data
        ]
    for dataset in datasets:
        require_evaluable(dataset)
        if arguments.multi_query:
            require_multi_query(dataset)
    embedder = load_embedder(arguments.checkpoint, arguments.embedding)
    results = [_evaluate(dataset, embedder, arguments) for dataset in datasets]
    console = Console()
    names = _row_names(arguments.data)
    console.print(metrics_table(results, names, console.width))
    for name, result in zip(names, results, strict=True):
        console.print(f"[bold]{escape(name)}[/bold]: {escape(result['protocol'])}", highlight=False)
        for path in result["lost_queries"][:10]:
            console.print(f"  lost (no other camera saw this person): {path}", highlight=False, markup=False)
    out = arguments.out or unused(Path(_file_name(arguments.checkpoint, arguments.data)))
    write_json(out, results[0] if len(results) == 1 else results)
    console.print(f"figures in {out}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _row_names(data: Sequence[str]) -> list[str]:
    """Name each data set for a table: by its name alone, if no two have the same, or as it was given."""
    names = [named_data(text)[0] for text in data]
    return names if len(set(names)) == len(names) else list(data)


def _file_name(checkpoint: Path, data: Sequence[str]) -> str:
    """Name the file of figures after the model and the data: ``evaluation-cpu-minutes-market1501-people.json``.

    A run's model is named after its folder.
    """
    model = checkpoint.absolute().parent.name if checkpoint.name == "model.safetensors" else checkpoint.stem
    named = [(name, Path(root).absolute().stem) for name, root, _ in map(named_data, data)]
    parts = [model, *dict.fromkeys(part for pair in named for part in pair)]
    readable = re.sub(r"[^\w.-]+", "-", "-".join(parts))
    return f"evaluation-{readable[:120]}.json"


def _evaluate(dataset: ReIDDataset, embedder: "Embedder", arguments: Arguments) -> dict[str, Any]:
    """What is written about one data set; its ranked lists too, if they are wanted."""
    import numpy as np

    from reprism.evaluation.protocols import (
        average_boxes,
        average_queries,
        boxes_of_queries,
        evaluate_items,
        expand_queries,
    )
    from reprism.figures.lists_page import Ranked, hardest, write_lists

    video = arguments.embedding.video
    all_pairs = dataset.is_video and arguments.comparison == "all-pairs"
    trials = arguments.single_gallery_shot
    trials = dataset.single_shot_trials if trials is None else trials
    if arguments.ranked_lists is not None and (trials or all_pairs):
        raise ValueError("--ranked-lists shows the whole gallery by one distance: not single shots or all pairs")
    again = None
    if arguments.rerank:
        again = {"k1": arguments.k1, "k2": arguments.k2, "lambda_value": arguments.lambda_value}
    with progress_bars() as progress:
        asked: Any
        asked, gallery = embed_dataset(embedder, dataset, arguments.embedding, progress, f"{dataset.name}: ")
        queries: Sequence[Any] = dataset.query
        boxes = boxes_of_queries(dataset) if arguments.multi_query else []
        if boxes:
            report = partial(progress, f"{dataset.name}: boxes of the queries")
            described = embedder.embed_items(boxes, video, workers=arguments.embedding.workers, progress=report)
            asked = average_boxes(asked, queries, described, boxes)
        elif arguments.multi_query:
            asked, queries = average_queries(asked, queries)
        if arguments.expand_queries:
            asked = expand_queries(asked, gallery, queries, dataset.gallery, arguments.expand_queries)
        metrics = evaluate_items(
            asked,
            gallery,
            queries,
            dataset.gallery,
            single_shot_trials=trials,
            seed=arguments.seed,
            ap=arguments.ap,
            lost=arguments.lost,
            all_pairs_runs=video.runs if all_pairs else 1,
            rerank=again,
            progress=partial(progress, f"{dataset.name}: ranking"),
        )
    if arguments.ranked_lists is not None:
        name = arguments.checkpoint.stem
        runs = video.runs if dataset.is_video else 1
        shown = replace(dataset, query=tuple(queries))
        write_lists(
            arguments.ranked_lists / dataset.name if len(arguments.data) > 1 else arguments.ranked_lists,
            [Ranked(name, shown, np.asarray(asked), gallery, metrics, embedder.model.partition, runs)],
            hardest(metrics, arguments.shown),
            arguments.top,
            title=f"{name}: the hardest queries of {dataset.name}",
        )
    return {
        "data": dataset.name,
        "root": str(dataset.root),
        "checkpoint": str(arguments.checkpoint),
        **metrics.as_dict(),
        "num_gallery": len(dataset.gallery),
        "lost_queries": [str(queries[place].path) for place in metrics.lost_queries],
        "flip": embedder.flip,
        "multi_query": arguments.multi_query,
        "rerank": again,
        "expand_queries": arguments.expand_queries,
        "precision": embedder.precision,
        "variant": dataset.protocol,
        "video": asdict(video) | {"comparison": arguments.comparison} if dataset.is_video else None,
        "protocol": _protocol(dataset, metrics, embedder, trials, arguments),
    }


def _protocol(
    dataset: ReIDDataset, metrics: "RankingMetrics", embedder: "Embedder", trials: int, arguments: Arguments
) -> str:
    """What a result was measured by, in words, nothing left out."""
    from reprism.evaluation.protocols import boxes_of_queries

    height, width = embedder.model.preprocessing.size
    said = [dataset.protocol] if dataset.protocol else []
    if not arguments.multi_query:
        said.append("single query")
    elif boxes_of_queries(dataset):
        said.append("each query the mean of the hand-drawn boxes of its person and camera")
    else:
        said.append("queries of one person and camera averaged")
    if trials:
        said.append(f"one gallery item of each identity by another camera, {trials} trials")
    known = dataset.query[0].camid is not None
    said.append("same-camera matches ignored" if known else "cameras unknown, no match ignored")
    if dataset.is_video:
        video = arguments.embedding.video
        said.append(
            f"{video.frames} frames of a tracklet ({video.sampling}) in {video.runs} "
            f"run{'s' if video.runs > 1 else ''}, {video.pooling} of each, compared by {arguments.comparison}"
        )
    said.append("Euclidean distance of L2-normalised descriptors")
    said.append(f"images at {height}x{width}, {'with' if embedder.flip else 'without'} mirrored image")
    said.append(embedder.precision)
    means = "valid queries" if metrics.lost == "exclude" else "all queries, a lost one counting 0"
    said.append(f"AP by {metrics.ap}, mean over {means}")
    said.append(f"{len(metrics.lost_queries)} of {metrics.num_queries} queries lost")
    if arguments.expand_queries:
        said.append(f"queries expanded by their {arguments.expand_queries} nearest")
    by = f"k1 {arguments.k1}, k2 {arguments.k2}, lambda {arguments.lambda_value:g}"
    said.append(f"re-ranked ({by})" if arguments.rerank else "not re-ranked")
    return ", ".join(said)
