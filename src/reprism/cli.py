"""The command line: a table of commands. What a command needs is imported when it is called."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from reprism._version import __version__

if TYPE_CHECKING:
    from reprism.data import ReIDDataset
    from reprism.embedding import Embedder
    from reprism.evaluation.ranking import RankingMetrics

_HELP = """\
usage: reprism COMMAND [OPTIONS]

Person re-identification with spatial and channel parts: given a picture of a person from one camera, find
the same person in what other cameras saw.

commands:
{commands}

  reprism COMMAND --help    explains a command and its options
  reprism --version         prints the version

First steps, without any data of your own:  reprism demo
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 for an error that is explained, 2 for wrong usage."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] == "--version":
        print(f"reprism {__version__}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<10} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items())
        print(_HELP.format(commands="\n".join(lines)), end="")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        print(
            f"reprism: no command {name!r}; there are {', '.join(COMMANDS)} (see reprism --help)",
            file=sys.stderr,
        )
        return 2
    try:
        return COMMANDS[name](rest)
    except (ValueError, OSError) as error:
        # What the user gave is at fault, and the message says how; REPRISM_TRACEBACK=1 shows where it was found.
        if os.environ.get("REPRISM_TRACEBACK"):
            raise
        print(f"reprism {name}: error: {error}", file=sys.stderr)
        return 1


# --- train -----------------------------------------------------------------------------------------------------------


def _train(argv: Sequence[str]) -> int:
    """Train a network as a recipe says."""
    import tyro

    from reprism.training.recipes import RECIPES, Recipe, find_recipe

    usage = (
        "reprism train RECIPE --data.root DIR [OPTIONS]\n\nRECIPE is a named recipe, a YAML or JSON file, or the "
        f"folder of an earlier run.\nNamed recipes: {', '.join(RECIPES)}.\nThe defaults below are those of RECIPE."
    )

    @dataclass
    class Arguments:
        recipe: Annotated[Recipe, tyro.conf.arg(name="")]
        out: Path | None = None
        """The run folder; by custom runs/NAME."""
        resume: bool = False
        """Go on with the run in that folder, exactly where it stopped (or was killed)."""

    named = bool(argv) and not argv[0].startswith("-")
    recipe = find_recipe(argv[0]) if named else RECIPES["scr-market1501"]
    # Resuming a run folder means that folder.
    folder = Path(argv[0]) if named and Path(argv[0]).is_dir() else None
    default = Arguments(recipe, out=folder)
    arguments = tyro.cli(
        Arguments,
        default=default,
        args=list(argv[named:]),
        prog="reprism train RECIPE",
        description=usage,
    )
    if not named:
        print(
            "reprism train: name a recipe first, such as: reprism train scr-market1501 --data.root DIR",
            file=sys.stderr,
        )
        return 2

    from reprism.training.run import train

    with _progress_bars() as progress:
        result = train(
            arguments.recipe,
            arguments.out or Path("runs") / arguments.recipe.name,
            resume=arguments.resume,
            progress=progress,
        )
    metrics = result.metrics
    if os.environ.get("LOCAL_RANK", "0") == "0":
        for fault in metrics["unreadable"]:
            print(f"set aside: {fault['path']}: {fault['reason']}")
        print(f"mAP {metrics['mAP']:.1%}, rank-1 {metrics['rank1']:.1%} after {metrics['seconds']:.0f} s")
        print(f"{result.folder / 'model.safetensors'}")
    return 0


# --- evaluate --------------------------------------------------------------------------------------------------------


def _evaluate(argv: Sequence[str]) -> int:
    """Rank a data set's gallery for its queries with a trained network: mAP, mINP, CMC."""
    import tyro

    from reprism.data.video import VideoSettings

    @dataclass
    class Arguments:
        """Rank a data set's gallery for its queries with a trained network.

        A gallery image of the query's person and camera is ignored for that query; a query that no other camera saw
        is lost, and counted. Every result states the protocol it was measured by. The network may have been trained
        on other data than it is tested on.
        """

        checkpoint: tyro.conf.Positional[Path]
        """A model that reprism train wrote, or a state dict of the released SCR code."""
        data: tuple[str, ...]
        """NAME:DIR of one data set or of several, such as market1501:/data/Market-1501; with the options of its
        loader, such as cuhk03,boxes=detected,protocol=classic:/data/cuhk03."""
        ap: Literal["step", "trapezoid"] = "step"
        """Average precision: mean of k/rank_k, or by trapezoids as the original MATLAB code has it."""
        lost: Literal["exclude", "zero"] = "exclude"
        """What a lost query counts for in the means: nothing, or zero."""
        multi_query: bool = False
        """Average the descriptors of one person in one camera before the search."""
        single_gallery_shot: int | None = None
        """Rank one gallery item of each identity, so many times over; by custom what the data set's protocol says
        (10 for the classic one of CUHK03, 0, that is the whole gallery, for others)."""
        split_by_identity: float | None = None
        """Data of your own without a split: the share of the identities that is left out, to train with."""
        seed: int = 0
        """Of that division, and of single-gallery-shot trials."""
        video: VideoSettings = field(default_factory=VideoSettings)
        """How tracklets are described."""
        comparison: Literal["concatenate", "all-pairs"] = "concatenate"
        """Of tracklets: one distance over their runs side by side (the paper's), or the sum of those between every
        run of the one and every run of the other (the released code's)."""
        rerank: bool = False
        """Re-rank by k-reciprocal neighbours (CVPR 2017)."""
        k1: int = 20
        """Of re-ranking: neighbours that reciprocity is asked of."""
        k2: int = 6
        """Of re-ranking: neighbours whose vectors are averaged."""
        lambda_value: float = 0.3
        """Of re-ranking: the weight of the original distance."""
        expand_queries: int = 0
        """Average query expansion: join each query with so many of its nearest gallery items before the search."""
        flip: bool = True
        """Whether the mirrored image's descriptor is added."""
        batch_size: int = 64
        """Images at a time."""
        workers: int = 1
        """Processes that decode images beside the network."""
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
        """auto: the fastest that the hardware has."""
        device: str | None = None
        """Such as cuda or cpu; by custom a GPU where there is one."""
        out: Path = Path("evaluation.json")
        """Where the figures go as JSON."""
        ranked_lists: Path | None = None
        """Folder for pictures of the hardest queries' ranked lists, and a page of them."""
        shown: int = 10
        """How many queries these show."""
        top: int = 10
        """How many matches of each."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism evaluate")
    if arguments.ranked_lists is not None and (arguments.rerank or min(arguments.shown, arguments.top) < 1):
        raise ValueError(
            "--ranked-lists shows searches as they are, not with --rerank; --shown and --top are 1 or more"
        )
    if arguments.single_gallery_shot is not None and arguments.single_gallery_shot < 0:
        raise ValueError(f"--single-gallery-shot {arguments.single_gallery_shot}: wanted is a number of trials, or 0")

    import numpy as np
    from rich.console import Console

    from reprism.data import open_dataset
    from reprism.embedding import Embedder
    from reprism.evaluation.protocols import average_queries, evaluate_items
    from reprism.evaluation.reranking import average_query_expansion
    from reprism.figures.lists_page import Ranked, hardest, write_lists
    from reprism.files import write_json

    division = {} if arguments.split_by_identity is None else _division(arguments.split_by_identity, arguments.seed)
    # All are opened before the first is embedded: a wrong folder should not cost an hour.
    with _progress_bars() as progress:
        datasets = [
            open_dataset(name, root, progress=progress, **(division | options))
            for name, root, options in map(_named_data, arguments.data)
        ]
    embedder = Embedder(
        arguments.checkpoint, arguments.batch_size, arguments.flip, arguments.precision, arguments.device
    )
    again = None
    if arguments.rerank:
        again = {"k1": arguments.k1, "k2": arguments.k2, "lambda_value": arguments.lambda_value}
    results = []
    for dataset in datasets:
        with _progress_bars() as progress:

            def report(what: str, name: str = dataset.name) -> Callable[[int, int], None]:
                return lambda done, total: progress(f"{name}: {what}", done, total)

            rows = {
                part: embedder.embed_items(items, arguments.video, workers=arguments.workers, progress=report(part))
                for part, items in (("query", dataset.query), ("gallery", dataset.gallery))
            }
            queries: Sequence[Any] = dataset.query
            asked: Any = rows["query"]
            if arguments.multi_query:
                asked, queries = average_queries(asked, queries)
            if arguments.expand_queries:
                asked = average_query_expansion(asked, rows["gallery"], arguments.expand_queries)
            all_pairs = dataset.is_video and arguments.comparison == "all-pairs"
            trials = arguments.single_gallery_shot
            trials = dataset.single_shot_trials if trials is None else trials
            if arguments.ranked_lists is not None and (trials or all_pairs):
                raise ValueError(
                    "--ranked-lists shows the whole gallery by one distance: not single shots or all pairs"
                )
            metrics = evaluate_items(
                asked,
                rows["gallery"],
                queries,
                dataset.gallery,
                single_shot_trials=trials,
                seed=arguments.seed,
                ap=arguments.ap,
                lost=arguments.lost,
                all_pairs_runs=arguments.video.runs if all_pairs else 1,
                rerank=again,
                progress=report("ranking"),
            )
        if arguments.ranked_lists is not None:
            name = arguments.checkpoint.stem
            runs = arguments.video.runs if dataset.is_video else 1
            folder = arguments.ranked_lists / dataset.name if len(datasets) > 1 else arguments.ranked_lists
            write_lists(
                folder,
                [Ranked(name, np.asarray(asked), rows["gallery"], metrics, embedder.model.partition, runs)],
                replace(dataset, query=tuple(queries)),
                hardest(metrics, arguments.shown),
                arguments.top,
                title=f"{name}: the hardest queries of {dataset.name}",
            )
        results.append(
            {
                "data": dataset.name,
                "root": str(dataset.root),
                "checkpoint": str(arguments.checkpoint),
                **metrics.as_dict(),
                "num_gallery": len(dataset.gallery),
                "lost_queries": [str(queries[place].path) for place in metrics.lost_queries],
                "flip": arguments.flip,
                "multi_query": arguments.multi_query,
                "rerank": again,
                "expand_queries": arguments.expand_queries,
                "precision": embedder.precision,
                "variant": dataset.protocol,
                "video": asdict(arguments.video) | {"comparison": arguments.comparison} if dataset.is_video else None,
                "protocol": _protocol(dataset, metrics, embedder, trials, arguments),
            }
        )
    console = Console()
    console.print(_results_table(results))
    for result in results:
        console.print(f"[bold]{result['data']}[/bold]: {result['protocol']}", highlight=False)
        for path in result["lost_queries"][:10]:
            console.print(f"  lost (no other camera saw this person): {path}", highlight=False, markup=False)
    write_json(arguments.out, results[0] if len(results) == 1 else results)
    console.print(f"figures in {arguments.out}", highlight=False)
    return 0


def _named_data(text: str) -> tuple[str, str, dict[str, str]]:
    """Name, folder and options from NAME,OPTION=VALUE,…:DIR."""
    before, separator, root = text.partition(":")
    name, *pairs = before.split(",")
    options = dict(pair.partition("=")[::2] for pair in pairs)
    if not (name and separator and root and all(options) and all(options.values())):
        raise ValueError(
            f"--data {text!r}: wanted is NAME:DIR, such as market1501:/data/Market-1501, or with options "
            "NAME,OPTION=VALUE:DIR, such as cuhk03,boxes=detected:/data/cuhk03"
        )
    return name, root, options


def _division(share: float, seed: int) -> dict[str, Any]:
    return {"split_by_identity": share, "seed": seed}


def _protocol(
    dataset: "ReIDDataset", metrics: "RankingMetrics", embedder: "Embedder", trials: int, arguments: Any
) -> str:
    """What a result was measured by, in words, nothing left out."""
    height, width = embedder.model.preprocessing.size
    said = [dataset.protocol] if dataset.protocol else []
    said.append("queries of one person and camera averaged" if arguments.multi_query else "single query")
    if trials:
        said.append(f"one gallery item of each identity by another camera, {trials} trials")
    known = dataset.query[0].camid is not None
    said.append("same-camera matches ignored" if known else "cameras unknown, no match ignored")
    if dataset.is_video:
        video = arguments.video
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


def _results_table(results: list[dict[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(title="percent")
    columns = {
        "mAP": "mAP",
        "mINP": "mINP",
        "rank1": "rank-1",
        "rank5": "rank-5",
        "rank10": "rank-10",
        "rank20": "rank-20",
    }
    table.add_column("data set")
    for title in (*columns.values(), "queries", "lost"):
        table.add_column(title, justify="right")
    for result in results:
        figures = [f"{100 * result[key]:.1f}" for key in columns]
        table.add_row(result["data"], *figures, str(result["num_queries"]), str(result["num_lost_queries"]))
    return table


# --- compare ---------------------------------------------------------------------------------------------------------


def _compare(argv: Sequence[str]) -> int:
    """Show the queries on which two networks differ most, ranked by each."""
    import tyro

    from reprism.data.video import VideoSettings

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
        video: VideoSettings = field(default_factory=VideoSettings)
        """How tracklets are described."""
        flip: bool = True
        """Whether the mirrored image's descriptor is added."""
        batch_size: int = 64
        """Images at a time."""
        workers: int = 1
        """Processes that decode images beside the network."""
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
        """auto: the fastest that the hardware has."""
        device: str | None = None
        """Such as cuda or cpu; by custom a GPU where there is one."""
        out: Path = Path("compare")
        """Folder for the pictures and the page, index.html."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism compare")
    if min(arguments.shown, arguments.top) < 1:
        raise ValueError("--shown and --top must be 1 or more")

    from reprism.data import open_dataset
    from reprism.embedding import Embedder
    from reprism.evaluation.protocols import evaluate_items
    from reprism.figures.lists_page import Ranked, most_different, write_lists

    name, root, options = _named_data(arguments.data)
    ranked = []
    with _progress_bars() as progress:
        dataset = open_dataset(name, root, progress=progress, **options)
        for path in (arguments.one, arguments.other):
            embedder = Embedder(path, arguments.batch_size, arguments.flip, arguments.precision, arguments.device)

            def report(what: str, path: Path = path) -> Callable[[int, int], None]:
                return lambda done, total: progress(f"{path}: {what}", done, total)

            query, gallery = (
                embedder.embed_items(items, arguments.video, workers=arguments.workers, progress=report(part))
                for part, items in (("query", dataset.query), ("gallery", dataset.gallery))
            )
            metrics = evaluate_items(query, gallery, dataset.query, dataset.gallery, progress=report("ranking"))
            runs = arguments.video.runs if dataset.is_video else 1
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


# --- calibrate -------------------------------------------------------------------------------------------------------


def _calibrate(argv: Sequence[str]) -> int:
    """Find the threshold for a wanted false match rate, and how probable a match is at a distance."""
    import tyro

    from reprism.data.video import VideoSettings

    @dataclass
    class Arguments:
        """Find what a distance means: error rates of thresholds, and the probability that a match is right.

        On a labelled data set whose people the network was not trained on, like those it will meet. Writes
        calibration.json, which reprism search reads, and a picture.
        """

        checkpoint: tyro.conf.Positional[Path]
        """A model that reprism train wrote, or a state dict of the released SCR code."""
        data: str
        """NAME:DIR, such as market1501:/data/Market-1501; options of its loader as in reprism evaluate."""
        fmr: tuple[float, ...] = (1e-2, 1e-3, 1e-4, 1e-5)
        """False match rates to give the thresholds of."""
        bootstrap: int = 500
        """Samples of the identities, for 95 % intervals."""
        seed: int = 0
        """Of these samples, and of the identities that the probability is checked on."""
        video: VideoSettings = field(default_factory=VideoSettings)
        """How tracklets are described."""
        flip: bool = True
        """Whether the mirrored image's descriptor is added; calibrate as you will search."""
        batch_size: int = 64
        """Images at a time."""
        workers: int = 1
        """Processes that decode images beside the network."""
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
        """auto: the fastest that the hardware has."""
        device: str | None = None
        """Such as cuda or cpu; by custom a GPU where there is one."""
        out: Path = Path("calibration.json")
        """Where the calibration goes; its picture lies beside it, as .png."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism calibrate")

    from rich.console import Console
    from rich.table import Table

    from reprism.data import open_dataset
    from reprism.embedding import Embedder
    from reprism.evaluation.calibration import calibrate
    from reprism.figures.calibration import draw_calibration

    name, root, options = _named_data(arguments.data)
    with _progress_bars() as progress:
        dataset = open_dataset(name, root, progress=progress, **options)
        embedder = Embedder(
            arguments.checkpoint, arguments.batch_size, arguments.flip, arguments.precision, arguments.device
        )

        def report(what: str) -> Callable[[int, int], None]:
            return lambda done, total: progress(what, done, total)

        query, gallery = (
            embedder.embed_items(items, arguments.video, workers=arguments.workers, progress=report(part))
            for part, items in (("query", dataset.query), ("gallery", dataset.gallery))
        )
        height, width = embedder.model.preprocessing.size
        found = calibrate(
            query,
            gallery,
            dataset.query,
            dataset.gallery,
            fmrs=arguments.fmr,
            bootstrap=arguments.bootstrap,
            seed=arguments.seed,
            about={
                "data": name,
                "root": str(dataset.root),
                "variant": dataset.protocol,
                "checkpoint": str(arguments.checkpoint),
                "flip": arguments.flip,
                "precision": embedder.precision,
                "size": [height, width],
                "video": asdict(arguments.video) if dataset.is_video else None,
                "protocol": "Euclidean distances of L2-normalised descriptors, no same-camera pairs, no junk",
            },
            progress=report("counting pairs"),
        )
    found.write(arguments.out)
    draw_calibration(found, arguments.out.with_suffix(".png"))
    table = Table(title=f"{found.counts['same_pairs']:,} pairs of the same person, "
                        f"{found.counts['different_pairs']:,} of different people; 95 % intervals")  # fmt: skip
    for title in ("false match rate wanted", "threshold", "false match rate", "true positive rate"):
        table.add_column(title, justify="right")
    for point in found.points:
        rates = [
            f"{rate:.2e} ({low:.2e} to {high:.2e})" if small else f"{rate:.1%} ({low:.1%} to {high:.1%})"
            for rate, (low, high), small in (
                (point.fmr, point.fmr_interval, True),
                (point.tpr, point.tpr_interval, False),
            )
        ]
        note = "" if point.reliable else " *"
        table.add_row(f"{point.wanted_fmr:g}{note}", f"{point.threshold:.4f}", *rates)
    console = Console(highlight=False)
    console.print(table)
    if not all(point.reliable for point in found.points):
        console.print("* fewer than 30 false matches were seen: too few pairs for so small a rate")
    for search in found.open_set:
        console.print(
            f"open set: answers up to a distance of {search.threshold:.4f} alarm falsely at "
            f"{search.false_alarm_rate:.1%} of strangers, "
            f"and identify {search.identification_rate:.1%} of those in the gallery"
        )
    console.print(f"probability of a match: mean gap {found.calibration_error:.3f} on people it was not fitted to")
    console.print(f"{arguments.out} and {arguments.out.with_suffix('.png')}")
    return 0


# --- reproduce -------------------------------------------------------------------------------------------------------


def _reproduce(argv: Sequence[str]) -> int:
    """Measure a table of the paper here, beside the published figures."""
    import tyro

    from reprism.paper.reproduce import QUOTED, Budget, needs, reproduce
    from reprism.paper.tables import RESNET50, SENET, TABLES
    from reprism.training.recipes import find_recipe

    @dataclass
    class Arguments:
        """Measure a table of the paper here, beside the published figures.

        Writes TABLE.md, TABLE.html and TABLE.json. Each training has a folder below OUT/runs: an interrupted table
        goes on where it stopped, and tables share the trainings that they have in common.
        """

        table: tyro.conf.Positional[str] = ""
        """table1 to table9, or table10: the network's relatives, trained alike."""
        list: bool = False
        """Print every table and row, and the data that each needs."""
        data: tuple[str, ...] = ()
        """NAME:DIR of the data sets at hand, such as market1501:/data/Market-1501 mars:/data/MARS. Rows that need
        others are not run, and say so."""
        rows: tuple[str, ...] = ()
        """Only the rows whose method contains one of these."""
        recipe: str = "scr-market1501"
        """Settings of everything that a row does not set itself: a named recipe, or a file."""
        epochs: int | None = None
        """Of every training, milestones in proportion; 500 in the paper."""
        backbone: str = RESNET50
        """In the place of ResNet-50."""
        attention_backbone: str = SENET
        """In the place of SE-ResNet-50."""
        seeds: int = 1
        """Runs of everything; the table gives mean and standard deviation."""
        out: Path = Path("reproduce")
        """Folder for runs and tables."""

    arguments = tyro.cli(Arguments, args=[*argv], prog="reprism reproduce")

    if arguments.list:
        for name, table in TABLES.items():
            print(f"{name}  {table.title}")
            for row in table.rows:
                wanted = dict.fromkeys(data for each in needs(row).values() for data in each)
                print(f"  {row.method}: {', '.join(wanted) or QUOTED}")
        return 0
    if not arguments.table:
        print("reprism reproduce: name a table, such as table3; --list shows them all", file=sys.stderr)
        return 2
    if arguments.seeds < 1 or (arguments.epochs or 1) < 1:
        raise ValueError("--seeds and --epochs must be 1 or more")
    roots = {}
    for text in arguments.data:
        name, root, options = _named_data(text)
        if options:
            raise ValueError(f"--data {text}: the table says which variant of {name} a row needs; give {name}:{root}")
        roots[name] = root
    recipe = find_recipe(arguments.recipe)
    if arguments.epochs is not None:
        share = arguments.epochs / recipe.optimizer.epochs
        milestones = tuple(milestone * share for milestone in recipe.optimizer.milestones)
        optimizer = recipe.optimizer.model_copy(update={"epochs": arguments.epochs, "milestones": milestones})
        recipe = recipe.model_copy(update={"optimizer": optimizer})
    budget = Budget(recipe, arguments.backbone, arguments.attention_backbone, arguments.seeds)
    with _progress_bars() as progress:
        reproduce(arguments.table, roots, arguments.out, budget, rows=arguments.rows, progress=progress)
    print((arguments.out / f"{arguments.table}.md").read_text(encoding="utf-8"))
    return 0


# --- explain ---------------------------------------------------------------------------------------------------------


def _explain(argv: Sequence[str]) -> int:
    """Show where in a picture each part of a network looked."""
    import tyro

    @dataclass
    class Arguments:
        """Show where in a picture each part of a network looked (Grad-CAM): one picture per part, and a grid of all."""

        checkpoint: tyro.conf.Positional[Path]
        """A model; with classifiers unless --against is given."""
        images: tyro.conf.Positional[tuple[Path, ...]]
        """Pictures of people, cropped as a detector does."""
        parts: tuple[str, ...] = ()
        """Such as p1 p2s1 p2c2; by custom all."""
        identity: int | None = None
        """Class to ask the classifiers about, counted from 0; by custom the one that each holds likeliest."""
        against: Path | None = None
        """A second picture: show what makes the two alike, part by part. Works for people never trained on."""
        out: Path = Path("explain")
        """Folder for the pictures: grid.png, and NUMBER-IMAGE-PART.png."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism explain")

    import io

    import torch
    from PIL import Image

    from reprism.data.images import read_image
    from reprism.data.transforms import eval_transform
    from reprism.figures.saliency import draw_saliency, overlay, saliency
    from reprism.files import write_whole
    from reprism.models.checkpoint import load

    def write(picture: Image.Image, name: str) -> None:
        buffer = io.BytesIO()
        picture.save(buffer, format="png")
        write_whole(arguments.out / name, buffer.getvalue())

    if not arguments.images:
        raise ValueError("give a picture to explain")
    model = load(arguments.checkpoint).eval()
    transform = eval_transform(model.preprocessing)
    images = [read_image(path) for path in arguments.images]
    batch = torch.stack([transform(image) for image in images])
    names = arguments.parts or tuple(part.name for part in model.partition.parts)
    asked: dict[str, Any] = {}
    if arguments.against is not None:
        asked["against"] = transform(read_image(arguments.against))[None]
    if arguments.identity is not None:
        asked["identities"] = torch.full((len(batch),), arguments.identity)
    heats = []
    with _progress_bars() as progress:
        for done, name in enumerate(names, 1):
            heats.append(saliency(model, batch, name, **asked))
            progress("looking at parts", done, len(names))
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    for place, (path, picture) in enumerate(zip(arguments.images, pictures, strict=True)):
        for name, heat in zip(names, heats, strict=True):
            # Numbered: two pictures may have one name.
            write(overlay(picture, heat[place]), f"{place + 1:03d}-{path.stem}-{name}.png")
    write(draw_saliency(pictures, [[heat[place] for heat in heats] for place in range(len(images))], names), "grid.png")
    print(arguments.out / "grid.png")
    return 0


# --- report ----------------------------------------------------------------------------------------------------------


def _report(argv: Sequence[str]) -> int:
    """Write a report of a finished run: results, data, curves, hardest queries, how to run it again."""
    import tyro

    @dataclass
    class Arguments:
        """Write a report of a finished run: one HTML file that loads nothing, and its figures as Markdown."""

        run: tyro.conf.Positional[Path]
        """The run folder."""
        data_root: Path | None = None
        """Folder of the data set, if it is no longer where the run found it."""
        shown: int = 5
        """How many of the hardest queries are shown."""
        device: str | None = None
        """Such as cuda or cpu; by custom a GPU where there is one."""
        workers: int = 1
        """Processes that decode images beside the network."""
        out: Path | None = None
        """The HTML file; by custom report.html in the run folder."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism report")

    from reprism.figures.run_report import write_report

    with _progress_bars() as progress:
        page = write_report(
            arguments.run,
            arguments.out,
            root=arguments.data_root,
            shown=arguments.shown,
            device=arguments.device,
            workers=arguments.workers,
            progress=progress,
        )
    print(page)
    return 0


# --- models ----------------------------------------------------------------------------------------------------------


def _backbones(argv: Sequence[str]) -> int:
    """Measure what part networks on different backbones cost."""
    import tyro

    from reprism.models.survey import BACKBONES
    from reprism.training.recipes import SCR

    @dataclass
    class Arguments:
        """Measure what part networks on different backbones cost: parameters, GFLOP, descriptor width, images/s."""

        names: tyro.conf.Positional[tuple[str, ...]] = BACKBONES
        """timm networks; by custom ten of different families."""
        partition: str = SCR
        """Of the network."""
        size: tuple[int, int] = (384, 192)
        """Height and width of the images."""
        batch: int = 8
        """Images at a time."""
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
        """auto: the fastest that the hardware has."""
        device: str | None = None
        """Such as cuda or cpu; by custom a GPU where there is one."""
        out: Path | None = None
        """Where the figures go as JSON."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism backbones")

    import torch
    from rich.console import Console
    from rich.table import Table

    from reprism.files import write_json
    from reprism.models.survey import measure
    from reprism.precision import DTYPES, fastest_precision

    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    precision = fastest_precision(device) if arguments.precision == "auto" else arguments.precision
    table = Table(title=f"{arguments.partition} at {arguments.size[0]}x{arguments.size[1]}, {precision}, {device}")
    for title in ("backbone", "parameters", "GFLOP", "descriptor", "images/s"):
        table.add_column(title, justify="left" if title == "backbone" else "right")
    found = []
    with _progress_bars() as progress:
        for done, name in enumerate(arguments.names, 1):
            cost = measure(
                name, arguments.partition, arguments.size, batch=arguments.batch, dtype=DTYPES[precision], device=device
            )
            found.append(asdict(cost))
            width, rate = str(cost.descriptor_dim), f"{cost.images_per_second:.1f}"
            table.add_row(name, f"{cost.parameters:,}", f"{cost.gflop:.1f}", width, rate)
            progress("measuring", done, len(arguments.names))
    Console().print(table)
    if arguments.out is not None:
        write_json(arguments.out, found)
    return 0


def _convert(argv: Sequence[str]) -> int:
    """Rewrite a state dict of the released SCR code as a model file."""
    import tyro

    @dataclass
    class Arguments:
        """Rewrite a state dict of the released SCR code (.pth) as a model file of ours; nothing in it is unpickled."""

        source: tyro.conf.Positional[Path]
        """The state dict."""
        target: tyro.conf.Positional[Path]
        """The model file to write (.safetensors)."""
        classifiers: bool = True
        """Whether the classifiers come along; for embedding they are of no use."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism convert")

    from reprism.models.checkpoint import load, save

    model = load(arguments.source, classifiers=arguments.classifiers)
    save(model, arguments.target)
    print(f"{arguments.target}: {model.partition} on {model.backbone}, {model.num_classes} classes")
    return 0


# --- data ------------------------------------------------------------------------------------------------------------


def _data(argv: Sequence[str]) -> int:
    """Check a data set on disk, or draw one of rendered people."""
    actions = {"check": _data_check, "render": _data_render}
    if not argv or argv[0] not in actions:
        lines = (f"  {name:<8} {(action.__doc__ or '').splitlines()[0]}" for name, action in actions.items())
        text = "usage: reprism data ACTION [OPTIONS]\n\nactions:\n" + "\n".join(lines)
        asked = bool(argv) and argv[0] in ("-h", "--help")
        print(text, file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    return actions[argv[0]](argv[1:])


def _data_check(argv: Sequence[str]) -> int:
    """Count what a data set holds, beside what was published, and say what will go wrong with it."""
    import tyro

    @dataclass
    class Check:
        """Count images, identities, cameras and tracklets of a data set's parts beside the published counts.

        Missing images are listed, and with --decode unreadable ones; people seen by one camera only or in few images;
        and the queries that will be lost, with the reason. Ends with status 1 if a count differs or an image is
        missing or unreadable.
        """

        name: tyro.conf.Positional[str]
        """The data set: market1501, dukemtmc, cuhk03, mars, csv or folder; options of its loader after commas, such as
        cuhk03,boxes=detected."""
        root: tyro.conf.Positional[str]
        """Its folder; of csv, the table."""
        decode: bool = False
        """Decode every image: minutes for the known data sets, where listing them takes seconds."""
        images_per_id: int = 4
        """K: list the people to train on with fewer images than a batch shows of each."""
        split_by_identity: float | None = None
        """Data of your own without a split: the share of the identities to train with."""
        seed: int = 0
        """Of that division."""
        json: bool = False
        """Print JSON."""

    arguments = tyro.cli(Check, args=list(argv), prog="reprism data check")

    from reprism.data import open_dataset
    from reprism.data.check import check_dataset

    name, root, options = _named_data(f"{arguments.name}:{arguments.root}")
    division = {} if arguments.split_by_identity is None else _division(arguments.split_by_identity, arguments.seed)
    with _progress_bars() as progress:
        dataset = open_dataset(name, root, progress=progress, **(division | options))
        found = check_dataset(
            dataset, decode=arguments.decode, images_per_id=arguments.images_per_id, progress=progress
        )
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        _print_check(found)
    return 0 if found["ok"] else 1


def _print_check(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    table = Table(
        title=f"{found['data']} in {found['root']}" + (f" ({found['protocol']})" if found["protocol"] else "")
    )
    kinds = [kind for kind in ("images", "tracklets", "identities", "cameras") if kind in found["parts"]["train"]]
    table.add_column("part")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for part, counts in found["parts"].items():
        cells = []
        for kind in kinds:
            here, published = counts.get(kind, 0), counts.get("published", {}).get(kind)
            differs = published is not None and published != here
            cells.append(f"[red]{here:,} (published: {published:,})[/red]" if differs else f"{here:,}")
        table.add_row(part, *cells)
    console.print(table)
    if not any("published" in counts for counts in found["parts"].values()):
        console.print("No counts were published to compare with.")
    listed = {
        "differences from the published counts": found["differences"],
        "missing images": found["missing"],
        "unreadable images": [f"{fault['path']}: {fault['reason']}" for fault in found["unreadable"]],
        "identities to train on seen by one camera only": list(map(str, found["one_camera"])),
        "identities to train on with fewer images than a batch shows": [
            f"{pid}: {images}" for pid, images in found["few_images"].items()
        ],
        "identities to test with seen by one camera only": list(map(str, found["unmatchable"])),
        "queries that will be lost": [f"{lost['path']}: {lost['reason']}" for lost in found["lost_queries"]],
    }
    for title, lines in listed.items():
        if lines:
            console.print(f"[bold]{len(lines)} {title}[/bold]")
            for line in lines[:10]:
                console.print(f"  {line}", markup=False)
            if len(lines) > 10:
                console.print(f"  and {len(lines) - 10} more (all of them: --json)")
    console.print("As it should be." if found["ok"] else "[red]Not as it should be.[/red]")


def _data_render(argv: Sequence[str]) -> int:
    """Draw a data set of rendered people, in the layout of a real one."""
    import tyro

    from reprism.data.rendered_cuhk03 import render_cuhk03, render_cuhk03_np
    from reprism.data.rendered_layouts import render_market1501, render_mars

    @dataclass
    class Render:
        """Draw a data set of rendered people: no photograph of anyone is needed to try everything."""

        layout: tyro.conf.Positional[Literal["market1501", "cuhk03", "cuhk03-np", "mars"]]
        """The layout it is written in; cuhk03 is the file cuhk-03.mat, cuhk03-np the folders made from it."""
        folder: tyro.conf.Positional[Path]
        """Where to; must not exist or be empty."""
        train_identities: int | None = None
        """People to train on; by custom 32, of mars 8."""
        test_identities: int | None = None
        """Other people, to look for; by custom 32, of mars 8."""
        height: int = 128
        """Of the images, in pixels; they are half as wide."""
        seed: int = 0
        """The same seed draws the same people."""

    arguments = tyro.cli(Render, args=list(argv), prog="reprism data render")
    layouts: dict[str, Callable[..., Path]] = {
        "market1501": render_market1501,
        "cuhk03": render_cuhk03,
        "cuhk03-np": render_cuhk03_np,
        "mars": render_mars,
    }
    people = {"train_identities": arguments.train_identities, "test_identities": arguments.test_identities}
    with _progress_bars() as progress:
        root = layouts[arguments.layout](
            arguments.folder,
            **{name: many for name, many in people.items() if many is not None},
            size=(arguments.height, arguments.height // 2),
            seed=arguments.seed,
            progress=lambda done, total: progress("drawing", done, total),
        )
    print(root)
    return 0


def _demo(argv: Sequence[str]) -> int:
    """Draw people, train on them, evaluate, and show what came out; five minutes, nothing else needed."""
    import tyro

    @dataclass
    class Arguments:
        """Draw a data set, train a small part network on it, evaluate before and after, and write a report."""

        out: Path = Path("reprism-demo")
        """Folder for the report, the figures, the data and the run; an earlier demo there is replaced."""
        seed: int = 0
        """Of the people drawn, and of the training."""

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism demo")

    from reprism.demo import run_demo

    with _progress_bars() as progress:
        metrics = run_demo(arguments.out, seed=arguments.seed, progress=progress)
    for when in ("before", "after"):
        print(f"{when:>6} training: rank-1 {metrics[when]['rank1']:.1%}, mAP {metrics[when]['mAP']:.1%}")
    print(f"{metrics['seconds']:.0f} seconds; open {arguments.out / 'report.html'} in a browser")
    return 0


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "compare": _compare,
    "calibrate": _calibrate,
    "reproduce": _reproduce,
    "explain": _explain,
    "report": _report,
    "backbones": _backbones,
    "convert": _convert,
    "data": _data,
}


@contextmanager
def _progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars by name: ``progress(what, done, total)`` moves one; off a terminal, it writes a line at its end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Shown only while something is under way, and nothing redirected: training draws a bar of its own meanwhile.
    bars = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    tasks: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in tasks:
            if not tasks:
                bars.start()
            tasks[what] = bars.add_task(what, total=total)
        bars.update(tasks[what], completed=done, total=total)
        if done >= total:
            bars.remove_task(tasks.pop(what))
            if not tasks:
                bars.stop()
            if not console.is_terminal:
                console.print(f"{what}: {total}", highlight=False)

    try:
        yield progress
    finally:
        bars.stop()
