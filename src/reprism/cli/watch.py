"""``reprism watch``."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from reprism.cli.arguments import parse
from reprism.cli.embedding import NetworkOptions, NetworkSettings, load_embedder
from reprism.cli.link_gallery import noted
from reprism.cli.watch_display import watch_display

if TYPE_CHECKING:
    from reprism.cameras.watching import View, Watched
    from reprism.gallery.table import Gallery
    from reprism.linking.live import LivePeople


@dataclass(kw_only=True)
class Arguments:
    """Watch videos and cameras, and put the people in them into a gallery.

    People are detected in the frames and tracked; each tracklet, one person from coming into view to leaving it,
    becomes a row with the times of the first and the last sight, the camera, pictures and the descriptor of its best
    crops.

    Files are read from their start. What is in the gallery already is skipped, so that the same command goes on where
    it was interrupted, even by a power cut, and every tracklet is in once. Live sources are watched until Ctrl-C, which
    puts in the people who are in view.
    """

    sources: tyro.conf.Positional[tuple[str, ...]]
    """Video files, folders of frames, streams (rtsp://…, http://…), or devices (/dev/video0)."""
    model: Path
    """Model: a file of reprism train, a folder of reprism export, an ONNX file with a YAML file beside it, or a state
    dict of the released SCR code."""
    gallery: str
    """Gallery folder, or an address in object storage (s3://…). Created if it does not exist."""
    camera: tuple[str, ...] = ()
    """Name of each source's camera, in their order (default: the file's name without its suffix)."""
    start: tuple[str, ...] = ()
    """Time of each source's first frame, such as 2026-03-01T09:30Z or with +01:00; file takes the one in the file
    (default: file)."""
    detector: tuple[str, ...] = ("motion",)
    """Detector of people: motion, onnx:FILE, rfdetr:NAME, torchvision:NAME, boxes:FILE, or package.module:name; one for
    all sources, or one for each."""
    ignore: tuple[str, ...] = ()
    """Picture of each source's view, white where people are left out, or none; one for each source (default:
    as reprism cameras set it)."""
    clock_ahead: tuple[float, ...] = ()
    """Seconds by which each source's clock is ahead of the true time; negative if it is behind (default: as
    reprism cameras set it)."""
    tracker: str = "bytetrack"
    """Tracker: bytetrack, ocsort, sort, botsort, cbiou, or package.module:name."""
    every: int = 1
    """Look at every Nth frame."""
    crops: int = 15
    """Maximum crops described of each tracklet: the best ones, spread over its time; fewer where others are worse."""
    min_seconds: float = 0.5
    """Leave out tracklets that are shorter than this."""
    lost_seconds: float = 1.0
    """End a tracklet after this long without a box."""
    longest_seconds: float = 120.0
    """Maximum length of a tracklet: somebody who stays for longer has several."""
    calibration: Path | None = None
    """calibration.json of the model (reprism calibrate MODEL --data NAME:DIR). Joins tracklets that break off and go
    on within seconds, near by and alike (default: none are joined)."""
    stitch_seconds: float = 5.0
    """Maximum gap between two tracklets that are joined; rows come into the gallery that much later,
    or when those have ended who may be the same."""
    stitch_fmr: float = 0.01
    """False match rate of the calibration at which two count as alike; smaller joins fewer, and fewer by mistake."""
    score: float = 0.1
    """Minimum score of a box, of detectors that are networks."""
    sure: float | None = None
    """Minimum score of a box that begins a track (default: 0.5; any for motion and boxes)."""
    fps: float | None = None
    """Frames per second of folders of images."""
    at_once: int = 1
    """Files watched at the same time. Live sources are all watched at once."""
    lines: Path | None = None
    """File to append a line of JSON to for each tracklet: first and last sight with time and box, and the crops.
    reprism erase does not change it."""
    boxes: Path | None = None
    """Folder to write each source's boxes to, in MOT-challenge's form, for reprism evaluate-tracks."""
    link: bool = False
    """Keep the gallery's people up to date while rows come in; linking must be switched on: reprism link enable."""
    link_every: float = 10.0
    """With --link: minimum seconds between two updates of the people; there is one more at the end."""
    audit: Path | None = None
    """With --link: audit log (default: GALLERY.audit.jsonl, beside the gallery)."""
    progress: bool = True
    """Show frames per second, tracklets and rows while it works."""
    thumbnails: bool = True
    """Keep small pictures of each tracklet: the best crop, and up to 8 in the order of time."""
    storage: Literal["float32", "float16"] = "float32"
    """Number format of descriptors in a new gallery; float16 takes half the disk space."""
    flip: bool = True
    """Add the mirrored image's descriptor, at twice the work. An existing gallery keeps its own setting."""
    batch_size: int = 64
    """Images per batch."""
    network: Annotated[NetworkOptions, tyro.conf.arg(name="")] = field(default_factory=NetworkSettings)


def run(argv: Sequence[str]) -> int:
    """Run ``reprism watch``; returns the exit status: 1 if a source ended with an error."""
    arguments = parse(
        Arguments,
        argv,
        "reprism watch",
        example="reprism watch street.mp4 --model runs/scr-market1501/model.safetensors --gallery gallery\n"
        "reprism watch rtsp://camera/1 --camera gate --detector onnx:yolox_nano.onnx --model model.onnx "
        "--gallery gallery",
        main=("model", "gallery", "camera", "start", "detector"),
    )
    if arguments.link_every <= 0:
        raise ValueError(f"--link-every {arguments.link_every:g}: expected more than 0 seconds")
    views = views_of(arguments)

    from reprism.cameras.describing import stitch_limits
    from reprism.cameras.opening import open_detector
    from reprism.cameras.tracks import open_tracker
    from reprism.cameras.watching import watch
    from reprism.evaluation.calibration import Calibration
    from reprism.gallery.permission import require_linking
    from reprism.gallery.table import Gallery
    from reprism.linking.live import LivePeople

    # Before a gallery is made, which a mistake in a name would leave empty.
    open_tracker(arguments.tracker, lost_seconds=arguments.lost_seconds, sure=arguments.sure or 0)
    for detector in dict.fromkeys(view.detector for view in views):
        open_detector(detector, score=arguments.score)
    calibration = None if arguments.calibration is None else Calibration.read(arguments.calibration)
    stitching = {
        "stitch_seconds": arguments.stitch_seconds,
        "stitch_fmr": arguments.stitch_fmr,
        "lost_seconds": arguments.lost_seconds,
        "longest_seconds": arguments.longest_seconds,
    }
    exists = Gallery.exists(arguments.gallery)
    if arguments.link and not exists:
        raise ValueError(
            f"--link: there is no gallery {arguments.gallery} for which linking is on. Watch without --link first, "
            f"then reprism link enable {arguments.gallery} --purpose TEXT --keep-days DAYS"
        )
    if arguments.link:
        require_linking(Gallery.open(arguments.gallery).store)
    live = LivePeople() if arguments.link else None
    flip = Gallery.open(arguments.gallery).flip if exists else arguments.flip
    embedder = load_embedder(arguments.model, arguments.network, batch_size=arguments.batch_size, flip=flip)
    if calibration is not None and not exists:
        stitch_limits(calibration, embedder.kind, **stitching)
    if exists:
        gallery = Gallery.open(arguments.gallery, embedder)
    else:
        gallery = Gallery.create(arguments.gallery, embedder, arguments.storage, arguments.model)
    with (
        stopped_by_signals() as (stop, signals),
        watch_display(shown=arguments.progress, live=live) as (progress, report),
        _linking(gallery, live, arguments, report),
    ):
        watched = watch(
            gallery,
            embedder,
            views,
            tracker=arguments.tracker,
            every=arguments.every,
            crops=arguments.crops,
            min_seconds=arguments.min_seconds,
            calibration=calibration,
            **stitching,
            score=arguments.score,
            sure=arguments.sure,
            at_once=arguments.at_once,
            thumbnails=arguments.thumbnails,
            lines=arguments.lines,
            boxes=arguments.boxes,
            stop=stop,
            progress=progress,
            report=report,
        )
    for one in watched:
        print(f"{one.view.camera}: {summary(one)}")
    people = "" if live is None or live.people is None else f"; {live.people:,} people"
    print(f"{arguments.gallery}: {sum(one.added for one in watched):,} added; {len(gallery):,} rows{people}")
    failed = [one for one in watched if one.error is not None]
    for one in failed:
        print(f"reprism watch: error: {one.error}", file=sys.stderr)
    if signals and not all(one.facts.is_live for one in watched):
        signal.raise_signal(signals[0])  # of files the rest is left to the next run, which is said as of any command
    return 1 if failed else 0


@contextmanager
def _linking(
    gallery: "Gallery", live: "LivePeople | None", given: Arguments, report: Callable[[str], None]
) -> Iterator[None]:
    """Keep people up to date, if they are to be, and note that in the gallery's audit log."""
    if live is None:
        yield
        return
    from reprism.gallery.permission import require_linking
    from reprism.linking.live import keep_people_live

    facts = {"purpose": require_linking(gallery.store).purpose, "sources": len(given.sources)}
    with noted(gallery.uri, given.audit, "watch", facts, via="reprism watch --link") as change:
        with keep_people_live(gallery.uri, live, every=given.link_every, report=report):
            yield
        change.outcome |= {"people": live.people, "updates": live.updates}


def views_of(given: Arguments) -> "list[View]":
    """Return the sources with their cameras, start times and detectors.

    Raises:
        ValueError: There are more or fewer of them than sources, a time cannot be read or has no zone, or two sources
            would be one camera for having the same name.
        SourceError: A source is not there, is no video, or its start time is not known.
    """
    from reprism.cameras.frames import describe_source, kind_of, shown, start_time
    from reprism.cameras.watching import View

    sources = given.sources
    if not sources:
        raise ValueError("nothing to watch: give video files, folders of frames, streams or devices")
    for name, values, may_be_one in (
        ("--camera", given.camera, False),
        ("--start", given.start, False),
        ("--detector", given.detector, True),
        ("--ignore", given.ignore, False),
        ("--clock-ahead", given.clock_ahead, False),
    ):
        if values and len(values) != len(sources) and not (may_be_one and len(values) == 1):
            raise ValueError(f"{name}: expected one for each of {len(sources)} sources, got {len(values)}")
    if len(given.detector) < len(sources) and given.detector[0].startswith("boxes:"):
        raise ValueError(f"--detector {given.detector[0]} holds the boxes of one source: give a file for each")
    for source in sources:
        describe_source(source, fps=given.fps)
    kinds = [kind_of(source) for source in sources]
    cameras = given.camera or tuple(
        Path(source).stem if kind == "file" else Path(source).name if kind == "folder" else shown(source)
        for source, kind in zip(sources, kinds, strict=True)
    )
    twice = {name for name in cameras if cameras.count(name) > 1}
    if twice and not given.camera:
        raise ValueError(f"several sources are called {', '.join(sorted(twice))}: name their cameras with --camera")
    starts = given.start or ("file",) * len(sources)
    detectors = given.detector * len(sources) if len(given.detector) == 1 else given.detector
    ignored = given.ignore or ("none",) * len(sources)
    ahead = given.clock_ahead or (None,) * len(sources)
    return [
        View(
            source=source,
            camera=camera,
            start=start_time(source, None if start == "file" else time_of(start)),
            detector=detector,
            fps=given.fps,
            clock_ahead=seconds,
            ignore=None if picture == "none" else picture,
        )
        for source, camera, start, detector, seconds, picture in zip(
            sources, cameras, starts, detectors, ahead, ignored, strict=True
        )
    ]


def time_of(text: str) -> datetime:
    """Read a time with its time zone.

    Raises:
        ValueError: It is none, or has no time zone.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"--start: expected a time such as 2026-03-01T09:30Z, got {text!r}") from error
    if moment.tzinfo is None:
        raise ValueError(f"--start {text} has no time zone: give one, such as {text}Z or {text}+01:00")
    return moment


def summary(one: "Watched") -> str:
    """Return what became of a source, in a line."""
    counts = one.counts
    said = [
        f"{counts.frames:,} frames ({counts.seconds:,.1f} s)",
        f"{counts.tracklets:,} tracklets: {one.added:,} added, {one.already:,} were there, {one.short:,} too short"
        + f", {one.joined:,} joined to earlier ones" * (one.joined > 0),
    ]
    if one.dropped:
        said.append(f"{one.dropped:,} frames dropped")
    return "; ".join(said)


@contextmanager
def stopped_by_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Give an event that the first Ctrl-C or SIGTERM sets, and the signals so far; the second one ends as usual."""
    stop, signals = threading.Event(), list[int]()
    if threading.current_thread() is not threading.main_thread():
        yield stop, signals
        return
    before: dict[int, Any] = {}

    def ask(signum: int, frame: FrameType | None) -> None:
        signals.append(signum)
        if stop.is_set() and callable(before[signum]):
            before[signum](signum, frame)
        stop.set()

    before.update({number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield stop, signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
