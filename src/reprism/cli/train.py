"""``reprism train``."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from reprism.cli.output import progress_bars
from reprism.training.recipes import RECIPES, Recipe, find_recipe


@dataclass
class Arguments:
    """A recipe's settings, and where the run goes."""

    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Path | None = None
    """The run folder; by custom runs/NAME."""
    resume: bool = False
    """Go on with the run in that folder, exactly where it stopped (or was killed)."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism train``; returns the exit status."""
    usage = (
        "reprism train RECIPE --data.root DIR [OPTIONS]\n\nRECIPE is a named recipe, a YAML or JSON file, or the "
        f"folder of an earlier run.\nNamed recipes: {', '.join(RECIPES)}.\nThe defaults below are those of RECIPE."
    )
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

    with progress_bars() as progress:
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
