"""``reprism train``."""

import logging
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from reprism.cli.arguments import parse
from reprism.cli.output import progress_bars
from reprism.imports import trust
from reprism.training.recipes import RECIPES, Recipe, code_of, find_recipe


@dataclass
class Arguments:
    """A recipe's settings, and the run folder."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path | None = None
    """Run folder (default: runs/NAME)."""
    resume: bool = False
    """Continue the run in that folder exactly where it stopped or was killed."""


_ABOUT = f"""Train a network as a recipe says.

RECIPE is a named recipe, a YAML or JSON file, or the folder of an earlier run. The defaults below are RECIPE's. Named
recipes: {", ".join(RECIPES)}.

The settings that matter most: --data.root (folder of the data set), --data.name (which data set it is),
--optimizer.epochs, --model.pretrained (a file of weights, or False) and --out (run folder). A run that was
stopped continues with --resume.
"""


@contextmanager
def _notes(wanted: Callable[[], bool]) -> Iterator[None]:
    """Print what the library notes, such as which weights a network starts from; of several processes, the first."""
    handler = logging.StreamHandler()
    handler.addFilter(lambda record: record.levelno >= logging.WARNING or wanted())
    ours = logging.getLogger("reprism")
    before = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(before)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism train``; returns the exit status."""
    named = bool(argv) and not argv[0].startswith("-")
    # A name may be a recipe's and a folder's: to resume is to mean the folder, and to train the recipe.
    folder = Path(argv[0]) if named and (argv[0] not in RECIPES or "--resume" in argv) else None
    if folder is not None and not (folder / "recipe.json").is_file():
        folder = None
    recipe = find_recipe(str(folder / "recipe.json") if folder else argv[0]) if named else RECIPES["scr-market1501"]
    arguments = parse(
        Arguments,
        argv[named:],
        "reprism train RECIPE",
        example="reprism train scr-market1501 --data.root /data/Market-1501\n"
        "reprism train runs/scr-market1501 --resume",
        main=("out", "resume"),
        default=Arguments(recipe, out=folder),
        about=_ABOUT,
    )
    if not named:
        print(
            "reprism train: name a recipe first, such as: reprism train scr-market1501 --data.root DIR",
            file=sys.stderr,
        )
        return 2

    from reprism.training.resuming import DivergedError
    from reprism.training.run import is_first_process, train
    from reprism.training.stopping import TrainingInterrupted

    # Code that the user typed is trusted; code named by a recipe's file or an earlier run needs --trust.
    typed = {
        path
        for path in code_of(arguments.recipe).values()
        if any(re.match(rf"{re.escape(path)}([:,]|$)", each) for each in argv)
    }
    trust(*(path.partition(":")[0] for path in typed))

    with progress_bars() as progress, _notes(is_first_process):
        try:
            result = train(
                arguments.recipe,
                arguments.out or Path("runs") / arguments.recipe.name,
                resume=arguments.resume,
                progress=progress if is_first_process() else None,
            )
        except (DivergedError, TrainingInterrupted):
            if is_first_process():
                raise
            return 0  # the first says it, and fails, for all
    if not is_first_process():
        return 0
    metrics = result.metrics
    for fault in metrics["unreadable"]:
        print(f"set aside: {fault['path']}: {fault['reason']}")
    print(f"mAP {metrics['mAP']:.1%}, rank-1 {metrics['rank1']:.1%} after {metrics['seconds']:.0f} s")
    print(f"{result.folder / 'model.safetensors'}")
    return 0
