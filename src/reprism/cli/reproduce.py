"""``reprism reproduce``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from reprism.cli.arguments import parse
from reprism.cli.output import progress_bars
from reprism.data import LOADERS
from reprism.data.joint import named_data
from reprism.paper.reproduce import QUOTED, Budget, needs, reproduce
from reprism.paper.tables import RESNET50, SENET, TABLES, TARGETS
from reprism.training.recipes import find_recipe
from reprism.training.stopping import TrainingInterrupted


@dataclass
class Arguments:
    """Measure a table of the paper here, beside the published figures.

    Writes TABLE.md, TABLE.html and TABLE.json. Each training has a folder below OUT/runs: an interrupted table
    goes on where it stopped, and tables share the trainings that they have in common. A row that fails is reported
    with its reason; the others are measured, and the exit status is 1.
    """

    table: tyro.conf.Positional[str] = ""
    """Table to measure: table1 to table9, or table10 (related networks, trained in the same way)."""
    list: bool = False
    """List every table and row, and the data that each needs."""
    data: tuple[str, ...] = ()
    """Data sets at hand as NAME:DIR, such as market1501:/data/Market-1501 mars:/data/MARS. Rows that need others are
    not run, and say so."""
    rows: tuple[str, ...] = ()
    """Texts; rows whose method contains one of them are measured (default: all rows)."""
    recipe: str = "scr-market1501"
    """Recipe (a name or a file) for everything that a row does not set itself."""
    epochs: int | None = None
    """Epochs of every training, with milestones in proportion (default: the recipe's; the paper trains 500)."""
    backbone: str = RESNET50
    """Backbone to use in place of ResNet-50."""
    attention_backbone: str = SENET
    """Backbone to use in place of SE-ResNet-50."""
    pretrained: tuple[str, ...] = ()
    """ImageNet weights in local files (timm's layout), as BACKBONE=FILE, one for each network: resnet50=resnet50.pth
    legacy_seresnet50=senet.pth (default: timm downloads them)."""
    seeds: int = 1
    """Runs of every training; the table gives mean and standard deviation."""
    out: Path = Path("reproduce")
    """Folder for runs and tables."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism reproduce``; returns the exit status."""
    arguments = parse(
        Arguments,
        argv,
        "reprism reproduce",
        example="reprism reproduce --list\nreprism reproduce table3 --data market1501:/data/Market-1501 --seeds 3",
        main=("data", "rows", "epochs", "seeds", "out"),
    )

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
        name, root, options = named_data(text, LOADERS)
        if options:
            raise ValueError(f"--data {text}: the table says which variant of {name} a row needs; give {name}:{root}")
        roots[name] = root
    recipe = find_recipe(arguments.recipe)
    if arguments.epochs is not None:
        share = arguments.epochs / recipe.optimizer.epochs
        milestones = tuple(milestone * share for milestone in recipe.optimizer.milestones)
        optimizer = recipe.optimizer.model_copy(update={"epochs": arguments.epochs, "milestones": milestones})
        recipe = recipe.model_copy(update={"optimizer": optimizer})
    budget = Budget(
        recipe, arguments.backbone, arguments.attention_backbone, arguments.seeds, _weights(arguments.pretrained)
    )
    with progress_bars() as progress:
        try:
            cells = reproduce(arguments.table, roots, arguments.out, budget, rows=arguments.rows, progress=progress)
        except TrainingInterrupted as stop:
            raise TrainingInterrupted(stop.signum, "The same command goes on from here.") from None
    print((arguments.out / f"{arguments.table}.md").read_text(encoding="utf-8"))
    failed = [cell for cell in cells if cell.failed]
    for cell in failed:
        print(f"reprism reproduce: {cell.method} on {TARGETS[cell.target].title} {cell.why_not}", file=sys.stderr)
    if failed:
        print("Run the same command again to retry: what is finished is kept.", file=sys.stderr)
    return 1 if failed else 0


def _weights(given: Sequence[str]) -> dict[str, Path]:
    """Files by backbone, from texts BACKBONE=FILE.

    Raises:
        ValueError: A text is not of that form, or there is no such file.
    """
    files = {}
    for text in given:
        backbone, separator, file = text.partition("=")
        if not (backbone and separator and file):
            raise ValueError(f"--pretrained: expected BACKBONE=FILE, such as resnet50=resnet50.pth, got {text!r}")
        if not Path(file).is_file():
            raise ValueError(f"--pretrained {text}: there is no such file")
        files[backbone] = Path(file)
    return files
