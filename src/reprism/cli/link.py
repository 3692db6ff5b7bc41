"""``reprism link``: transit times of a data set; for galleries ``link_gallery``, ``link_people``, ``link_review``."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.markup import escape

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.output import figures_table, progress_bars
from reprism.progress import Progress, step
from reprism.terminal import did_you_mean

if TYPE_CHECKING:
    from reprism.data.records import Item
    from reprism.linking.transit import CameraNetwork
    from reprism.linking.ways import Way


@dataclass
class Learn:
    """Learn the transit times between cameras, without a look at who is who.

    Sightings by two cameras that are each other's nearest are taken for one person, and the times between them counted;
    with these, matches are found again. Sightings need cameras and times.

    Of a gallery the transit times are kept with it, for reprism link run; linking must be switched on (reprism link
    enable). Of a data set they are written to a file, for reprism evaluate --network. It holds counts alone: no
    identity, no picture. Nothing erases from the file what is erased elsewhere.
    """

    source: tyro.conf.Positional[str]
    """A gallery; or with --data a model: a file of reprism train, a folder of reprism export, or an ONNX file with a
    YAML file beside it."""
    data: str | None = None
    """Data set with times, as NAME:DIR, such as market1501:/data/Market-1501."""
    split: Literal["train", "test"] = "train"
    """With --data: learn from the training images, or from query and gallery without junk."""
    camera_normalize: bool = True
    """With --data: normalize descriptors by camera before they are compared, as a gallery's always are."""
    rounds: int = 3
    """Most times that matches are found."""
    use_identities: bool = False
    """With --data: take matches from the identities of the training images instead of from looks and times."""
    hold_out: bool = True
    """Say how sure the network is, and leave out cameras whose times are doubtful. Learn from either half
    of the time too, and predict the other's matches."""
    out: Path | None = None
    """File to write (default: network.json with --data, none with a gallery)."""
    overwrite: bool = False
    """Replace the file that --out names, if it exists."""
    audit: Path | None = None
    """With a gallery: audit log (default: GALLERY.audit.jsonl, beside the gallery)."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)


@dataclass
class Show:
    """Show a network of cameras: a graph with the usual times, overlap, clocks, and how sure all of it is.

    Writes one page that loads nothing, and prints a table. The page shows no person and no picture of one.
    """

    network: tyro.conf.Positional[Path]
    """File that reprism link learn wrote."""
    out: Path = Path("network.html")
    """Page to write."""
    png: Path | None = None
    """Picture of the graph to write too."""
    overlap: tuple[str, ...] = ()
    """Cameras that are known to overlap, two each as ONE:OTHER: the gap between their matches is their clocks'."""


def run(argv: Sequence[str]) -> int:
    """Run ``reprism link ACTION``; returns the exit status."""
    from reprism.cli import link_gallery, link_people, link_review

    actions: dict[str, Callable[[Sequence[str]], int]] = {
        "enable": link_gallery.enable,
        "learn": _learn,
        "show": _show_network,
        "run": link_gallery.link,
        "update": link_people.update,
        "review": link_review.review,
        "answer": link_people.answer,
        "answers": link_people.answers,
        "changes": link_people.changes,
        "undo": link_people.undo,
        "export": link_review.export,
        "status": link_gallery.status,
        "disable": link_gallery.disable,
    }
    if argv and argv[0] in actions:
        return actions[argv[0]](argv[1:])
    if argv and (Path(argv[0]).is_dir() or "://" in argv[0]):  # reprism link GALLERY
        return link_gallery.link(argv)
    asked = bool(argv) and argv[0] in ("-h", "--help")
    lines = "\n".join(f"  {name:<15} {(action.__doc__ or '').strip()}" for name, action in actions.items())
    text = (
        f"usage: reprism link ACTION [OPTIONS]\n       reprism link GALLERY\n\nactions:\n{lines}\n\n"
        "reprism link GALLERY is reprism link run GALLERY. Linking is off until somebody switches it on for a gallery."
    )
    if argv and not asked:
        text = f"reprism link: no action and no gallery {argv[0]!r}.{did_you_mean(argv[0], actions)}\n\n{text}"
    print(text, file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _learn(argv: Sequence[str]) -> int:
    """Learn the transit times between the cameras of a gallery, or of a data set."""
    arguments = parse(
        Learn,
        argv,
        "reprism link learn",
        example="reprism link learn gallery\n"
        "reprism link learn model.safetensors --data market1501:/data/Market-1501 --out network.json",
        main=("data", "split", "camera_normalize", "out"),
    )
    if arguments.data is None and arguments.use_identities:
        raise ValueError(
            "--use-identities: expected --data, as a gallery's transit times are learned without identities"
        )
    if arguments.data is None and Path(arguments.source).is_file():
        raise ValueError(
            f"{arguments.source} is no gallery; of a model, expected the data to learn from: --data NAME:DIR"
        )
    out = arguments.out or (None if arguments.data is None else Path("network.json"))
    if out is not None and out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists: give --overwrite to replace it, or another --out")

    with progress_bars() as progress:
        network = _network_of(arguments, progress)
    if out is not None:
        network.save(out)
    _show(network)
    _advise(network, (), arguments.source if arguments.data is None else "GALLERY")
    print(arguments.source if out is None else out)
    return 0


def _show_network(argv: Sequence[str]) -> int:
    """Show a network of cameras as a page and a picture."""
    arguments = parse(
        Show,
        argv,
        "reprism link show",
        example="reprism link show network.json --out network.html --png network.png --overlap gate:hall",
        main=("out", "png", "overlap"),
    )
    overlapping = [_two_cameras(pair) for pair in arguments.overlap]

    from reprism.linking.transit import CameraNetwork
    from reprism.report.network_page import write_network_page, write_network_picture

    network = CameraNetwork.load(arguments.network)
    write_network_page(network, arguments.out, overlapping=overlapping)
    if arguments.png is not None:
        write_network_picture(network, arguments.png, overlapping=overlapping)
    _show(network)
    _advise(network, overlapping)
    print(arguments.out, *([] if arguments.png is None else [arguments.png]), sep="\n")
    return 0


def _two_cameras(pair: str) -> tuple[str, str]:
    one, _, other = pair.partition(":")
    if not one or not other or one == other or ":" in other:
        raise ValueError(f"--overlap: expected two cameras as ONE:OTHER, such as gate:hall, got {pair!r}")
    return one, other


def _network_of(arguments: Learn, progress: Progress) -> "CameraNetwork":
    from reprism.linking.held_out import hold_out
    from reprism.linking.transit import CameraNetwork

    if arguments.data is None:
        from reprism.cli.link_gallery import learn

        return learn(arguments.source, arguments.audit, arguments.rounds, arguments.hold_out, progress)
    rows, chosen = sightings_of(
        Path(arguments.source),
        arguments.data,
        arguments.split,
        arguments.embedding,
        camera_normalize=arguments.camera_normalize,
        progress=progress,
    )
    rounds, by_identity = arguments.rounds, arguments.use_identities
    network = CameraNetwork.learn(rows, chosen, rounds=rounds, use_identities=by_identity, progress=progress)
    if not arguments.hold_out:
        return network
    found = hold_out(rows, chosen, rounds=rounds, use_identities=by_identity, progress=progress)
    return replace(network, held_out=found)


def sightings_of(
    checkpoint: Path,
    data: str,
    split: Literal["train", "test"],
    options: EmbeddingSettings,
    *,
    camera_normalize: bool,
    progress: Progress,
) -> "tuple[np.ndarray, list[Item]]":
    """Describe the sightings of a data set that may be linked.

    Args:
        checkpoint: Model, as the user gave it.
        data: Data set, as NAME:DIR.
        split: The training images, or query and gallery without junk.
        options: How they are described.
        camera_normalize: Normalize by camera.
        progress: Called while images are described.

    Raises:
        CameraNetworkError: None has a camera and a time.
    """
    from reprism.data.records import JUNK
    from reprism.evaluation.camera_statistics import CameraStatistics
    from reprism.linking.transit import CameraNetworkError

    dataset = open_named(data, progress)
    items = dataset.train if split == "train" else (*dataset.query, *dataset.gallery)
    # An image that is a query and in the gallery too is one sighting.
    chosen = list({item.path: item for item in items if item.pid != JUNK}.values())
    if not any(item.time is not None and item.camid is not None for item in chosen):
        raise CameraNetworkError(
            f"no {split} image of {dataset.name} in {dataset.root} has a camera and a time: give the data columns "
            "camid and time"
        )
    embedder = options.embedder_of(checkpoint)
    rows = embedder.embed_items(chosen, options.video, workers=options.workers, progress=step(progress, split))
    if camera_normalize:
        cameras = [item.camid for item in chosen]
        return CameraStatistics.fit(rows, cameras).apply(rows, cameras), chosen
    # Tracklets have several descriptors side by side.
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), chosen


def _show(network: "CameraNetwork") -> None:
    """Print the matches and the usual gap of every two cameras, and what held-out matches gain."""
    gains = {} if network.held_out is None else network.held_out.cameras
    figures = ("matches", "median gap", "middle half", *(("held-out gain",) if gains else ()))
    table = figures_table(network.describe(), figures, "cameras")
    for (one, other), transit in network.transits().items():
        low, middle, high = (f"{seconds:,.0f} s" for seconds in transit.quartiles)
        told = f"{low} to {high}" if transit.known else "doubtful" if transit.doubtful else "too few matches"
        cells = [f"{transit.pairs:,}", middle, told]
        if gains:
            gain = gains.get((one, other))
            cells.append("" if gain is None else f"{gain.mean:+.2f} ({gain.low:+.2f} to {gain.high:+.2f})")
        table.add_row(escape(f"{one} to {other}"), *cells)
    title = "sightings that arrive at the other camera, and by when 99 % of these do"
    arrivals = figures_table(title, ("there", "back"), "cameras")
    for (one, other), transit in network.transits().items():
        if transit.known and (transit.there or transit.back):
            arrivals.add_row(escape(f"{one} to {other}"), _arrivals(transit.there), _arrivals(transit.back))
    console = Console(highlight=False)
    console.print(table)
    if arrivals.row_count:
        console.print(arrivals)


def _advise(network: "CameraNetwork", overlapping: Sequence[tuple[str, str]], gallery: str = "GALLERY") -> None:
    """Print whose clock is off, and what sets it right."""
    from reprism.linking.routes import clock_advice, clock_offsets, find_routes

    for sentence in clock_advice(clock_offsets(find_routes(network, overlapping=overlapping)), gallery):
        print(sentence)


def _arrivals(way: "Way | None") -> str:
    return "" if way is None else f"{way.rate:.0%} by {way.latest:,.0f} s"
