"""The command line: a table of commands. What a command needs is imported when it is called."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from reprism._version import __version__

if TYPE_CHECKING:
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

    @dataclass
    class Arguments:
        """Rank a data set's gallery for its queries with a trained network.

        A gallery image of the query's person and camera is ignored for that query; a query that no other camera saw
        is lost, and counted. Every result states the protocol it was measured by.
        """

        checkpoint: tyro.conf.Positional[Path]
        """A model that reprism train wrote, or a state dict of the released SCR code."""
        data: tuple[str, ...]
        """NAME:DIR of one data set or of several, such as market1501:/data/Market-1501."""
        ap: Literal["step", "trapezoid"] = "step"
        """Average precision: mean of k/rank_k, or by trapezoids as the original MATLAB code has it."""
        lost: Literal["exclude", "zero"] = "exclude"
        """What a lost query counts for in the means: nothing, or zero."""
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

    arguments = tyro.cli(Arguments, args=list(argv), prog="reprism evaluate")

    from rich.console import Console

    from reprism.data import open_dataset
    from reprism.embedding import Embedder
    from reprism.evaluation.protocols import evaluate_samples

    sources = [_named_data(text) for text in arguments.data]
    datasets = [(name, open_dataset(name, root)) for name, root in sources]
    embedder = Embedder(
        arguments.checkpoint, arguments.batch_size, arguments.flip, arguments.precision, arguments.device
    )
    results = []
    for name, dataset in datasets:
        with _progress_bars() as progress:

            def report(what: str, name: str = name) -> Callable[[int, int], None]:
                return lambda done, total: progress(f"{name}: {what}", done, total)

            query = embedder.embed_samples(dataset.query, workers=arguments.workers, progress=report("query"))
            gallery = embedder.embed_samples(dataset.gallery, workers=arguments.workers, progress=report("gallery"))
            metrics = evaluate_samples(
                query,
                gallery,
                dataset.query,
                dataset.gallery,
                ap=arguments.ap,
                lost=arguments.lost,
                progress=report("ranking"),
            )
        results.append(
            {
                "data": name,
                "root": str(dataset.root),
                "checkpoint": str(arguments.checkpoint),
                **metrics.as_dict(),
                "num_gallery": len(dataset.gallery),
                "lost_queries": [str(dataset.query[place].path) for place in metrics.lost_queries],
                "flip": arguments.flip,
                "precision": embedder.precision,
                "protocol": _protocol(metrics, embedder),
            }
        )
    console = Console()
    console.print(_results_table(results))
    for result in results:
        console.print(f"[bold]{result['data']}[/bold]: {result['protocol']}", highlight=False)
        for path in result["lost_queries"][:10]:
            console.print(f"  lost (no other camera saw this person): {path}", highlight=False)
    _write_json(arguments.out, results[0] if len(results) == 1 else results)
    console.print(f"figures in {arguments.out}", highlight=False)
    return 0


def _named_data(text: str) -> tuple[str, str]:
    name, separator, root = text.partition(":")
    if not (name and separator and root):
        raise ValueError(f"--data {text!r}: wanted is NAME:DIR, such as market1501:/data/Market-1501")
    return name, root


def _protocol(metrics: "RankingMetrics", embedder: "Embedder") -> str:
    height, width = embedder.model.preprocessing.size
    means = "valid queries" if metrics.lost == "exclude" else "all queries, a lost one counting 0"
    return (
        "single query, same-camera matches ignored, Euclidean distance of L2-normalised descriptors, images at "
        f"{height}x{width}, {'with' if embedder.flip else 'without'} mirrored image, {embedder.precision}, "
        f"AP by {metrics.ap}, mean over {means}, {len(metrics.lost_queries)} of {metrics.num_queries} queries lost, "
        "not re-ranked"
    )


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


# --- data ------------------------------------------------------------------------------------------------------------


def _data(argv: Sequence[str]) -> int:
    """Draw data sets of rendered people, in the layouts of the real ones."""
    import tyro

    from reprism.data.rendered_layouts import render_cuhk03_np, render_market1501, render_mars

    @dataclass
    class Render:
        """Draw a data set of rendered people: no photograph of anyone is needed to try everything."""

        layout: tyro.conf.Positional[Literal["market1501", "cuhk03", "mars"]]
        """The layout it is written in."""
        folder: tyro.conf.Positional[Path]
        """Where to; must not exist or be empty."""
        train_identities: int = 32
        """People to train on."""
        test_identities: int = 32
        """Other people, to look for."""
        height: int = 128
        """Of the images, in pixels; they are half as wide."""
        seed: int = 0
        """The same seed draws the same people."""

    if not argv or argv[0] != "render":
        print("usage: reprism data render LAYOUT FOLDER [OPTIONS]    (--help explains them)", file=sys.stderr)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    arguments = tyro.cli(Render, args=list(argv[1:]), prog="reprism data render")
    layouts: dict[str, Callable[..., Path]] = {
        "market1501": render_market1501,
        "cuhk03": render_cuhk03_np,
        "mars": render_mars,
    }
    with _progress_bars() as progress:
        root = layouts[arguments.layout](
            arguments.folder,
            train_identities=arguments.train_identities,
            test_identities=arguments.test_identities,
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


def _write_json(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    aside.replace(path)
