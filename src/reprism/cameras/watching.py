"""Watch cameras: find the people in their frames, and put a row for each tracklet into a gallery."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

from reprism.cameras.boxes import Detector
from reprism.cameras.describing import Found, Kept, Rows, keeper, stitch_limits
from reprism.cameras.frames import describe_source, read_frames
from reprism.cameras.pace import keep_up, note_silence
from reprism.cameras.records import Frame, Report, Timeouts
from reprism.cameras.track_boxes import Span, files_in, renumber_boxes, written_boxes
from reprism.cameras.tracklet_lines import TrackletLines
from reprism.cameras.tracklets import Tracklet, find_tracklets
from reprism.cameras.tracks import open_tracker
from reprism.cameras.views import View, Watched, check_view, open_view_detector, refuse_twins
from reprism.embedding import Embedder
from reprism.evaluation.calibration import Calibration
from reprism.gallery.camera_settings import CameraSettings
from reprism.gallery.indexing import Writer
from reprism.gallery.table import Gallery

__all__ = ["View", "Watched", "watch"]

_USUAL_RATE = 25.0  # frames per second, where a source does not say
_WAITING = 16  # tracklets that may wait to be described, before those who find them wait as well
_TICK = 0.2  # seconds between two looks at whether there is something to do
_SILENCE = 2.0  # seconds without a frame, at least, after which a live source has stalled: some come in bursts
_SOON = 5.0  # seconds that a tracklet waits for others to be described with it
_TIMEOUTS = Timeouts(longest_wait=10)  # so that a stream that is away hears soon that it is to stop


class _Event(NamedTuple):
    """Something that came to pass in a source: a tracklet began or ended, or the source ended or stalled.

    Attributes:
        one: The source.
        kind: What came to pass.
        until: Seconds of the last frame before it.
        tracklet: The tracklet.
    """

    one: Watched
    kind: Literal["began", "ended", "cut"]
    until: float
    tracklet: Tracklet[Kept] | None = None


def watch(
    gallery: Gallery,
    embedder: Embedder,
    views: Sequence[View],
    *,
    tracker: str | Callable[[], Any] = "bytetrack",
    every: int = 1,
    crops: int = 15,
    min_seconds: float = 0.5,
    lost_seconds: float = 1.0,
    longest_seconds: float = 120.0,
    calibration: Calibration | None = None,
    stitch_seconds: float = 5.0,
    stitch_fmr: float = 0.01,
    score: float = 0.1,
    sure: float | None = None,
    at_once: int = 1,
    thumbnails: bool = True,
    lines: str | PathLike[str] | None = None,
    boxes: str | PathLike[str] | None = None,
    stop: threading.Event | None = None,
    progress: Callable[[Sequence[Watched]], object] | None = None,
    report: Report | None = None,
) -> list[Watched]:
    """Put a row into a gallery for each tracklet that some sources show.

    A tracklet is one person from coming into view to leaving it. Its row has the camera, the times and boxes of the
    first and the last sight, some small pictures, the place in the video (``/site/gate.mp4#t=12.500,17.250``, in
    seconds), and the mean of its best crops' descriptors, brought to length 1. Files are read from their start; what is
    in the gallery already is not described again, so that the same call goes on where a process was killed, and every
    tracklet is in once. Memory holds the people in view and a few tracklets that wait, however long a stream is.

    Args:
        gallery: Gallery to add to.
        embedder: Embedder with the gallery's model and settings.
        views: Sources, of which each is named once.
        tracker: A name, or a class or function without arguments that makes a tracker for each source
            (:func:`reprism.cameras.open_tracker`).
        every: Look at each frame whose index is a multiple of this.
        crops: Maximum number of crops to describe of a tracklet.
        min_seconds: Tracklets that are shorter are left out.
        lost_seconds: Seconds without a box, after which a tracklet has ended.
        longest_seconds: Maximum length of a tracklet in seconds: somebody who stays for longer has several.
        calibration: Joins tracklets that are one (:mod:`reprism.cameras.stitching`): of images, by the gallery's model
            (``reprism calibrate MODEL --data NAME:DIR``; default: none are joined).
        stitch_seconds: Maximum time between two tracklets that are joined; more than ``lost_seconds``.
        stitch_fmr: Share of the calibration's strangers who look as much alike as two that are joined may, 0 … 1.
        score: Minimum score of a box, 0 … 1, of detectors that are networks.
        sure: Minimum score of a box that begins a track (default: 0.5; of ``motion`` and ``boxes`` any).
        at_once: Number of files and folders to watch at the same time. Live sources are all watched at once.
        thumbnails: Keep small pictures of each tracklet: the best crop, and up to 8 in the order of time.
        lines: File to append a line of JSON to for each tracklet: first and last sight, and crops (default: none).
        boxes: Folder to write each source's boxes to when it ends, in MOT-challenge's form, for
            :func:`reprism.cameras.evaluate_tracks`: ``cam1.txt`` for ``cam1.mp4``; for what is live, the camera's name.
        stop: Set it to end early. People in view of live sources are written; those of files are left to the next run.
        progress: Called several times a second with what became of each source so far.
        report: Called with a line of text about what goes wrong (default: a warning of the logger ``reprism``).

    Returns:
        What became of each source. One that ended early has its ``error``; the others go on.

    Raises:
        GalleryError: The embedder is of another model or of other settings than the gallery.
        CalibrationError: The calibration is of other distances, or has too few people to show ``stitch_fmr``.
        SourceError: A source is not there, or its start time is not known.
        DetectorError, TrackerError, CheckpointError: The detector or the tracker cannot be opened.
        ValueError: A number is out of range, or a source is given twice.
    """
    for name, value, least in (("every", every, 1), ("crops", crops, 1), ("at_once", at_once, 1)):
        if value < least:
            raise ValueError(f"{name}={value}: expected {least} or more")
    if min_seconds < 0:
        raise ValueError(f"min_seconds={min_seconds}: expected 0 or more")
    if longest_seconds <= max(min_seconds, lost_seconds):
        raise ValueError(
            f"longest_seconds={longest_seconds}: expected more than min_seconds={min_seconds} and "
            f"lost_seconds={lost_seconds}"
        )
    gallery.check(embedder)
    limits = None
    if calibration is not None:
        limits = stitch_limits(
            calibration,
            gallery.kind,
            stitch_seconds=stitch_seconds,
            stitch_fmr=stitch_fmr,
            lost_seconds=lost_seconds,
            longest_seconds=longest_seconds,
        )
    told = _told_once(report)
    settings = gallery.camera_settings()
    watched = [check_view(_as_set(view, settings.get(view.camera))) for view in views]
    refuse_twins([one.view for one in watched])
    names = [one.view.camera if one.facts.is_live else Path(one.view.name).stem for one in watched]
    boxes_files = [] if boxes is None else files_in(boxes, names)
    keep = keeper(embedder, thumbnails)
    stop, abandoned = stop or threading.Event(), threading.Event()
    found: queue.Queue[_Event | BaseException] = queue.Queue(_WAITING)
    device = embedder.device.type
    openers = [partial(open_view_detector, one.view, score=score, device=device) for one in watched]
    # Some are opened here, so that a mistake in a name ends the call at once.
    ready = {0: openers[0]()} if openers else {}
    open_tracker(tracker if isinstance(tracker, str) else tracker(), lost_seconds=lost_seconds, sure=sure or 0)

    def is_over() -> bool:
        return stop.is_set() or abandoned.is_set()

    def hand_over(one: _Event | BaseException) -> None:
        while not abandoned.is_set():
            try:
                found.put(one, timeout=_TICK)
            except queue.Full:
                continue
            return

    def tell(one: Watched, kind: Literal["began", "ended", "cut"], tracklet: Tracklet[Kept] | None = None) -> None:
        hand_over(_Event(one, kind, one.counts.seconds, tracklet))

    def follow(number: int) -> None:
        one = watched[number]
        fps = (one.facts.fps or _USUAL_RATE) / every
        certain = sure if sure is not None else _sure_of(one.view.detector)
        kind = tracker if isinstance(tracker, str) else tracker()
        following = open_tracker(kind, fps=fps, lost_seconds=lost_seconds, sure=certain)
        detector = ready.pop(number, None) or openers[number]()
        frames = _frames(one, every, lost_seconds, is_over, told)
        if limits is not None:
            frames = _cut_where_stalled(frames, lambda: tell(one, "cut"))
        with ExitStack() as writing:
            seen = None if boxes is None else writing.enter_context(written_boxes(boxes_files[number]))
            for tracklet in find_tracklets(
                frames,
                detector,
                following,
                keep,
                crops=crops,
                lost_seconds=lost_seconds,
                longest_seconds=longest_seconds,
                counts=one.counts,
                seen=seen,
                begun=None if limits is None else partial(tell, one, "began"),
            ):
                settle(one, tracklet)

    def settle(one: Watched, tracklet: Tracklet[Kept]) -> None:
        if tracklet.is_open and is_over() and not one.facts.is_live:
            return
        if limits is None and tracklet.seconds < min_seconds:
            one.short += 1
            return
        tell(one, "ended", tracklet)

    def follow_to_its_end(number: int) -> None:
        one = watched[number]
        try:
            follow(number)
        finally:
            if one.facts.is_live or not is_over():  # what waits of a file is left to the next run
                tell(one, "cut")

    merged: dict[Watched, list[list[Span]]] = {one: [] for one in watched}

    def note_joined(one: Watched, tracklets: Sequence[Tracklet[Any]]) -> None:
        if boxes is not None:
            merged[one].append([Span(each.number, each.first.index, each.last.index) for each in tracklets])

    with ExitStack() as opening:
        log = opening.enter_context(TrackletLines(lines)) if lines is not None else None
        writer = opening.enter_context(Writer(gallery))
        rows = Rows(gallery, embedder, writer, log, crops, min_seconds, limits, note_joined)
        threads = _start(watched, follow_to_its_end, hand_over, is_over, at_once)
        opening.callback(_end, threads, abandoned)  # whatever ends this
        waiting: list[Found] = []
        since = time.monotonic()
        while any(thread.is_alive() for thread in threads) or not found.empty():
            now = {one: one.counts.seconds for one in watched}  # read before the queue: what it says then is all of it
            try:
                event = found.get(timeout=_TICK)
            except queue.Empty:
                writer.write_if_due()
                is_cut = False
            else:
                if isinstance(event, BaseException):
                    raise event
                now, is_cut = {event.one: event.until}, event.kind == "cut"
                if event.tracklet is not None and event.kind == "began":
                    rows.begin(event.one, event.tracklet)
                elif event.tracklet is not None:
                    since = since if waiting else time.monotonic()
                    waiting.append((event.one, event.tracklet))
            frames_waiting = sum(len(tracklet.crops) for _, tracklet in waiting)
            if is_cut or frames_waiting >= embedder.batch_size or (waiting and time.monotonic() - since > _SOON):
                rows.add(waiting)
                waiting.clear()
            for one, seconds in now.items():
                rows.settle(one, seconds, is_cut=is_cut)
            if progress is not None:
                progress(watched)
        rows.add(waiting)
        for one in watched:
            rows.settle(one, one.counts.seconds)
    for one, path in zip(watched, boxes_files, strict=False):
        if merged[one] and path.exists():
            renumber_boxes(path, merged[one])
    gallery.optimize(build=False)
    return watched


# ---- before ----------------------------------------------------------------------------------------------


def _as_set(view: View, settings: CameraSettings | None) -> View:
    """Return a source as the gallery has its camera, where it is not said otherwise."""
    if settings is None:
        return view
    if view.clock_ahead is None and not describe_source(view.source, fps=view.fps).is_live:
        view = replace(view, clock_ahead=settings.clock_ahead)
    if view.ignore is None and settings.ignore is not None:
        view = replace(view, ignore=settings.ignore)
    return view


def _sure_of(detector: str | Detector) -> float:
    # These two say how much of a box moves, and that the user is sure.
    return 0.0 if isinstance(detector, str) and detector.partition(":")[0] in ("motion", "boxes") else 0.5


def _told_once(report: Report | None) -> Report:
    """Return the same report for several threads: one line at a time."""
    tell, lock = report or logging.getLogger("reprism").warning, threading.Lock()

    def told(line: str) -> None:
        with lock:
            tell(line)

    return told


# ---- finding, in a thread for each source ----------------------------------------------------------------


class _StopError(Exception):
    """Ends a stream that waits to be connected again."""


def _frames(
    one: Watched, every: int, lost_seconds: float, is_over: Callable[[], bool], told: Report
) -> Iterator[Frame | None]:
    """Yield a source's frames until it ends or is to stop; None where a live one has stalled."""
    view = one.view

    def tell(line: str) -> None:
        told(line)
        if is_over():
            raise _StopError

    frames: Iterator[Frame | None]
    frames = read_frames(view.source, start=view.start, fps=view.fps, every=every, timeouts=_TIMEOUTS, report=tell)
    if one.facts.is_live:

        def dropped(count: int) -> None:
            if not one.dropped:
                told(f"{view.name}: frames come faster than they are looked at; some are dropped. --every 2 looks at "
                     "every second one")  # fmt: skip
            one.dropped += count

        frames = note_silence(keep_up(frames, dropped), max(lost_seconds, _SILENCE))
    try:
        for frame in frames:
            yield frame
            if is_over():
                return
    except _StopError:
        return


def _cut_where_stalled(frames: Iterator[Frame | None], cut: Callable[[], object]) -> Iterator[Frame | None]:
    """Yield the same, and call ``cut`` once the tracklets that a stall ends have been dealt with."""
    for frame in frames:
        yield frame
        if frame is None:
            cut()


def _start(
    watched: Sequence[Watched],
    follow: Callable[[int], object],
    hand_over: Callable[[BaseException], None],
    is_over: Callable[[], bool],
    at_once: int,
) -> list[threading.Thread]:
    """Start the threads that find tracklets: one for each live source, ``at_once`` for all others."""
    files = deque(number for number, one in enumerate(watched) if not one.facts.is_live)
    lives = [number for number, one in enumerate(watched) if one.facts.is_live]

    def follow_one(number: int) -> None:
        try:
            follow(number)
        except (ValueError, OSError) as error:
            watched[number].error = str(error)
        except BaseException as error:
            hand_over(error)
        finally:
            watched[number].is_done = True

    def files_in_turn() -> None:
        with suppress(IndexError):  # none is left
            while not is_over():
                follow_one(files.popleft())

    threads = [threading.Thread(target=follow_one, args=(number,), daemon=True) for number in lives]
    threads += [threading.Thread(target=files_in_turn, daemon=True) for _ in range(min(at_once, len(files)))]
    for thread in threads:
        thread.start()
    return threads


def _end(threads: Sequence[threading.Thread], abandoned: threading.Event) -> None:
    abandoned.set()
    for thread in threads:
        thread.join(_TIMEOUTS.reading)
