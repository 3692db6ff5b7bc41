"""``reprism demo``."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reprism.cli.arguments import parse
from reprism.cli.output import progress_bars


@dataclass
class Arguments:
    """Draw people, train a small network on them, evaluate it, watch drawn cameras, and write a report.

    The report ends with the people that the cameras saw. A search of a gallery has a page of its own. All of it takes
    about six minutes on two processor cores, and needs neither a photograph nor a GPU.
    """

    out: Path = Path("reprism-demo")
    """Folder for the report, figures, data and run. An earlier demo in it is replaced."""
    seed: int = 0
    """Random seed for drawing and training."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism demo``; returns the exit status."""
    arguments = parse(Arguments, argv, "reprism demo", example="reprism demo --out reprism-demo")

    from reprism.demo import run_demo, search_demo

    with progress_bars() as progress:
        metrics = run_demo(arguments.out, seed=arguments.seed, progress=progress)
        searched = find_spec("lancedb") is not None
        answers = search_demo(arguments.out, progress=progress) if searched else []
    for when in ("before", "after"):
        print(f"{when:>6} training: rank-1 {metrics[when]['rank1']:.1%}, mAP {metrics[when]['mAP']:.1%}")
    if site := metrics["site"]:
        print(
            f"cameras: {site['tracklets']} tracklets of {site['people']} people; {site['right']} of {site['asked']} "
            "found first in another camera"
        )
    else:
        print("to watch cameras too: pip install 'reprism[search,track,video]'")
    if searched:
        right = sum(matches[0].pid == str(query.pid) for query, matches in answers)
        print(f"search in {arguments.out / 'gallery'}: {right} of {len(answers)} people found first in another camera")
        print(f"the page of that search: {arguments.out / 'search.html'}")
    else:
        print("to search a gallery too: pip install 'reprism[search]'")
    print(f"{metrics['seconds']:.0f} seconds; open {arguments.out / 'report.html'} in a browser")
    return 0
