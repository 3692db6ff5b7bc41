"""``reprism evaluate``."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.output import figures_table, metrics_table, progress_bars, titled, unused
from reprism.data import LOADERS, ReIDDataset
from reprism.data.joint import named_data
from reprism.data.records import sorted_labels

if TYPE_CHECKING:
    from reprism.evaluation.protocol import Protocol
    from reprism.evaluator import Evaluation


@dataclass
class Arguments:
    """Rank a data set's gallery for its queries with a trained network.

    A gallery image of the query's person and camera is ignored for that query. A query that no other camera saw is
    lost, and counted. Every result states its protocol. The network may have been trained on other data.
    """

    checkpoint: tyro.conf.Positional[Path]
    """Model: a file of reprism train, a folder of reprism export, an ONNX file with a YAML file beside it, or a state
    dict of the released SCR code."""
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
    camera_normalize: bool = False
    """Normalize descriptors by the mean and deviation of each camera's query and gallery images; no label is used."""
    network: Path | None = None
    """Network of cameras that reprism link learn wrote: rank by the time between sightings too (default: by appearance
    alone)."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)
    out: Path | None = None
    """JSON file for the figures (default: evaluation-MODEL-DATA.json, with a number where that exists)."""
    overwrite: bool = False
    """Replace the file that --out names, if it exists."""
    by_camera_pair: bool = False
    """Also print rank-1 of each camera's queries in each other camera's gallery alone; mAP goes to the JSON file."""
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
    if arguments.ranked_lists is not None and arguments.network is not None:
        raise ValueError("--ranked-lists shows searches by appearance, not with --network")
    if arguments.ranked_lists is not None and (arguments.rerank or min(arguments.shown, arguments.top) < 1):
        raise ValueError(
            "--ranked-lists shows searches as they are, not with --rerank; --shown and --top are 1 or more"
        )
    if arguments.single_gallery_shot is not None and arguments.single_gallery_shot < 0:
        raise ValueError(f"--single-gallery-shot {arguments.single_gallery_shot}: expected a number of trials, or 0")

    if arguments.out is not None and arguments.out.exists() and not arguments.overwrite:
        raise ValueError(f"{arguments.out} exists: give --overwrite to replace it, or another --out")

    protocol = _protocol(arguments)

    from reprism.data.check import require_evaluable
    from reprism.evaluation.camera_statistics import require_cameras
    from reprism.evaluation.evidence import require_times
    from reprism.evaluation.items import require_multi_query
    from reprism.evaluator import evaluate_model
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
        if arguments.camera_normalize:
            require_cameras(dataset)
        if arguments.network is not None:
            require_times(dataset)
        if arguments.ranked_lists is not None:
            _require_ranked_lists(protocol, dataset)
    embedder = arguments.embedding.embedder_of(arguments.checkpoint)
    results = []
    for dataset in datasets:
        with progress_bars() as progress:
            found = evaluate_model(
                embedder,
                dataset,
                protocol,
                workers=arguments.embedding.workers,
                progress=titled(progress, dataset.name),
            )
        if arguments.ranked_lists is not None:
            _write_lists(found, arguments.ranked_lists, arguments)
        results.append({**found.as_dict(), "checkpoint": str(arguments.checkpoint)})
        if arguments.by_camera_pair:
            pairs = found.by_camera_pair()
            results[-1]["camera_pairs"] = [
                {"query": one, "gallery": other, **metrics.as_dict()} for (one, other), metrics in pairs.items()
            ]
    console = Console()
    names = _row_names(arguments.data)
    console.print(metrics_table(results, names, console.width))
    for name, result in zip(names, results, strict=True):
        console.print(f"[bold]{escape(name)}[/bold]: {escape(result['protocol'])}", highlight=False)
        for path in result["lost_queries"][:10]:
            console.print(f"  lost (no other camera saw this person): {path}", highlight=False, markup=False)
        if "camera_pairs" in result:
            console.print(_camera_table(result["camera_pairs"]))
    out = arguments.out or unused(Path(_file_name(arguments.checkpoint, arguments.data)))
    write_json(out, results[0] if len(results) == 1 else results)
    console.print(f"figures in {out}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _camera_table(pairs: Sequence[dict[str, Any]]) -> Table:
    """Return a row for each query camera, a column for each gallery camera."""
    cameras = sorted_labels(pair[side] for pair in pairs for side in ("query", "gallery"))
    title = "rank-1 in percent, by camera of the query (rows) and of the gallery; mAP and the rest in the JSON file"
    table = figures_table(title, [str(camera) for camera in cameras], "camera")
    cells = {(pair["query"], pair["gallery"]): f"{100 * pair['rank1']:.1f}" for pair in pairs}
    for camera in cameras:
        table.add_row(escape(str(camera)), *(cells.get((camera, other), "") for other in cameras))
    return table


def _require_ranked_lists(protocol: "Protocol", dataset: ReIDDataset) -> None:
    settled = protocol.settled(dataset, flip=True)
    if settled.single_shot_trials or (dataset.is_video and settled.comparison == "all-pairs"):
        raise ValueError("--ranked-lists shows the whole gallery by one distance: not single shots or all pairs")


def _row_names(data: Sequence[str]) -> list[str]:
    """Name each data set for a table: by its name alone, if no two have the same, or as it was given."""
    names = [named_data(text, LOADERS)[0] for text in data]
    return names if len(set(names)) == len(names) else list(data)


def _file_name(checkpoint: Path, data: Sequence[str]) -> str:
    """Name the file of figures after the model and the data: ``evaluation-cpu-minutes-market1501-people.json``.

    A run's model is named after its folder.
    """
    model = checkpoint.absolute().parent.name if checkpoint.name == "model.safetensors" else checkpoint.stem
    named = [(name, Path(root).absolute().stem) for name, root, _ in (named_data(text, LOADERS) for text in data)]
    parts = [model, *dict.fromkeys(part for pair in named for part in pair)]
    readable = re.sub(r"[^\w.-]+", "-", "-".join(parts))
    return f"evaluation-{readable[:120]}.json"


def _protocol(arguments: Arguments) -> "Protocol":
    from reprism.evaluation.protocol import Protocol, Reranking
    from reprism.linking.transit import CameraNetwork

    again = Reranking(arguments.k1, arguments.k2, arguments.lambda_value)
    return Protocol(
        ap=arguments.ap,
        lost=arguments.lost,
        multi_query=arguments.multi_query,
        expand_queries=arguments.expand_queries,
        rerank=again if arguments.rerank else None,
        single_shot_trials=arguments.single_gallery_shot,
        seed=arguments.seed,
        camera_normalize=arguments.camera_normalize,
        network=None if arguments.network is None else CameraNetwork.load(arguments.network),
        comparison=arguments.comparison,
        video=arguments.embedding.video,
    )


def _write_lists(found: "Evaluation", folder: Path, arguments: Arguments) -> None:
    """Write the hardest queries' ranked lists; of several data sets each in a folder of its own."""
    from reprism.report.lists_page import write_lists

    name, data = arguments.checkpoint.stem, found.dataset.name
    write_lists(
        folder / data if len(arguments.data) > 1 else folder,
        [replace(found, name=name)],
        found.hardest(arguments.shown),
        arguments.top,
        title=f"{name}: the hardest queries of {data}",
    )
