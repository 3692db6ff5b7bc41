"""Time the stages of ``reprism watch``: decoding, detecting, tracking, choosing crops, describing, writing.

    python benchmarks/watching.py --folder videos
    python benchmarks/watching.py --folder videos --detector motion onnx:yolox_nano.onnx

Draws a minute of two cameras at 640x360 and of one at 1920x1080 into the folder, once, and watches them one after the
other, as the command does. Each stage is timed by the clock in the thread that it runs in: finding tracklets
(decoding, detecting, tracking, choosing) in one, describing in another, writing in a third, so that the stages' times
add up to more than the run took where they overlap, and each is longer for what the others take of the cores. Beside
each stage: its share of all stages' time, and how many frames a second it alone would allow.
"""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import tyro
from measure import NETWORKS

import reprism
from reprism.cameras import tracklets, watching
from reprism.cameras.watching import View, watch
from reprism.cli.embedding import NetworkSettings, load_embedder
from reprism.drawn.cameras import render_cameras
from reprism.gallery.table import Gallery
from reprism.training.recipes import SCR

VIDEOS = {"640x360": (2, (360, 640)), "1920x1080": (1, (1080, 1920))}
STAGES = ("decoding", "detecting", "tracking", "choosing", "describing", "writing")


@dataclass
class Arguments:
    """Time the stages of ``reprism watch``."""

    folder: Path = Path("drawn-videos")
    """Folder for the drawn videos; those that are there are used again."""
    detector: tuple[str, ...] = ("motion",)
    """Detectors, as ``reprism watch`` takes them."""
    model: Path | None = None
    """Model, as ``reprism watch`` takes it (default: SCR on tf_efficientnet_lite0 at 192x96 with random weights)."""
    preprocess: str | None = None
    """Preprocessing of an ONNX file, as ``reprism watch`` takes it."""
    seconds: int = 60
    """Length of the videos."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    for name, (cameras, size) in VIDEOS.items():
        if not (arguments.folder / name).exists():
            render_cameras(arguments.folder / name, cameras=cameras, size=size, seconds=arguments.seconds)
    with tempfile.TemporaryDirectory() as work:
        model = arguments.model or untrained(Path(work) / "model.safetensors")
        embedder = load_embedder(model, NetworkSettings(preprocess=arguments.preprocess))
        size = embedder.model.preprocessing.size
        embedder.embed_ready(torch.zeros(embedder.batch_size, 3, *size, dtype=torch.uint8))  # the first takes longer
        print(f"{torch.get_num_threads()} threads; {embedder}")
        for name in VIDEOS:
            for detector in arguments.detector:
                videos = sorted((arguments.folder / name).glob("*.mp4"))
                with tempfile.TemporaryDirectory() as place:
                    gallery = Gallery.create(Path(place) / "gallery", embedder)
                    views = [View(video, video.stem, detector=detector) for video in videos]
                    time_watch(f"{name}, {detector}", gallery, embedder, views)


def untrained(path: Path) -> Path:
    """Make SCR with random weights."""
    backbone, size = NETWORKS["lite0"]
    torch.manual_seed(0)
    return reprism.save(reprism.build_model(SCR, backbone, size=size).eval(), path)


def time_watch(name: str, gallery: Gallery, embedder: reprism.Embedder, views: list[View]) -> None:
    """Print the stages' times of one run."""
    began = time.perf_counter()
    with timed_stages() as seconds, counted(embedder) as crops:
        watched = watch(gallery, embedder, views)
    took = time.perf_counter() - began
    frames, boxes = (sum(getattr(one.counts, what) for one in watched) for what in ("frames", "boxes"))
    print(f"\n{name}: {frames:,} frames, {boxes / frames:.1f} boxes each, {len(gallery)} rows of "
          f"{crops[0]} crops in {took:.1f} s: {frames / took:.1f} frames/s")  # fmt: skip
    for stage in STAGES:
        share = seconds[stage] / sum(seconds.values())
        print(f"  {stage:<10} {seconds[stage]:7.2f} s  {100 * share:5.1f} %  {frames / seconds[stage]:8.1f} frames/s")


@contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Count the seconds of each stage, by taking the time of the functions that ``watch`` calls for it."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def timed_run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return run(*args, **options)
            finally:
                seconds[stage] += time.perf_counter() - began

        return timed_run

    def timed_frames(*args: Any, **options: Any) -> Iterator[Any]:
        frames = read_frames(*args, **options)
        following = timed("decoding", frames.__next__)
        while True:
            try:
                frame = following()
            except StopIteration:
                return
            yield frame

    read_frames = watching.read_frames
    with ExitStack() as patches:
        for owner, function, replacement in (
            (watching, "read_frames", timed_frames),
            (tracklets, "detect", timed("detecting", tracklets.detect)),
            (tracklets, "track", timed("tracking", tracklets.track)),
            (tracklets, "_see", timed("choosing", tracklets._see)),
            (reprism.Embedder, "embed_ready", timed("describing", reprism.Embedder.embed_ready)),
            (Gallery, "add", timed("writing", Gallery.add)),
            (Gallery, "optimize", timed("writing", Gallery.optimize)),
        ):
            patches.enter_context(patch.object(owner, function, replacement))
        yield seconds


@contextmanager
def counted(embedder: reprism.Embedder) -> Iterator[list[int]]:
    """Count the crops that are described."""
    crops, describe = [0], embedder.embed_ready

    def count(images: torch.Tensor) -> torch.Tensor:
        crops[0] += len(images)
        return describe(images)

    with patch.object(embedder, "embed_ready", count):
        yield crops


if __name__ == "__main__":
    main()
