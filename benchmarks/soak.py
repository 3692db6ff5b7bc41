"""Does memory stay flat: an hour of looped video through ``reprism watch``, and the process's memory meanwhile.

    python benchmarks/soak.py                 an hour of video; some ten minutes on two cores
    python benchmarks/soak.py --minutes 5     a quick look

Two minutes of a drawn camera are put one behind the other to one long video, which is watched as fast as it goes, by
the detector ``motion`` and an untrained small network. The memory (VmRSS) is looked at every few seconds. A line of
least squares through what was seen after the warm-up says how much it grows in an hour of video; more than ``--bound``
ends in an error.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import tyro
from measure import memory

import reprism
from reprism.cameras.watching import View, Watched, watch
from reprism.drawn.cameras import START, render_cameras
from reprism.gallery.table import Gallery

FPS = 10


@dataclass
class Arguments:
    """Does memory stay flat: an hour of looped video through ``reprism watch``, and the process's memory meanwhile."""

    minutes: int = 60
    """Minutes of video to watch, an even number."""
    model: Path | None = None
    """Model (default: an untrained one of 512 columns on mobilenetv3_small_050, 128 x 64 pixels)."""
    every: float = 5.0
    """Seconds between two looks at the memory."""
    warm_up: float = 0.25
    """Share of the video that does not count, 0 to 0.9."""
    bound: float = 50.0
    """Megabytes by which the memory may grow in an hour of video."""


def main() -> None:
    """Run the benchmark."""
    arguments = tyro.cli(Arguments)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        video = looped(work, arguments.minutes // 2)
        embedder = reprism.Embedder(arguments.model or untrained())
        gallery = Gallery.create(work / "gallery", embedder)
        looks: list[tuple[float, float, int]] = []
        began = last = time.monotonic()

        def look(watched: Sequence[Watched]) -> None:
            nonlocal last
            if time.monotonic() < last + arguments.every:
                return
            last = time.monotonic()
            looks.append((watched[0].counts.seconds / 3600, memory("VmRSS"), watched[0].added))
            print(f"{60 * looks[-1][0]:7.1f} min of video, {looks[-1][1]:6.0f} MB, {looks[-1][2]:5} rows", flush=True)

        watched = watch(gallery, embedder, [View(video, "cam1", start=START)], progress=look)
        seconds = time.monotonic() - began
        frames, rows = watched[0].counts.frames, len(gallery)
    hours, megabytes = np.array([look[:2] for look in looks if look[0] >= arguments.warm_up * arguments.minutes / 60]).T
    slope, _ = np.polyfit(hours, megabytes, 1)
    print(f"{frames:,} frames in {seconds:,.0f} s, {frames / seconds:.0f} frames/s; {rows:,} rows; memory "
          f"{megabytes[0]:.0f} MB after the warm-up, {megabytes[-1]:.0f} MB at the end, {megabytes.max():.0f} MB at "
          f"most; {slope:+.1f} MB in an hour of video ({len(hours)} looks)")  # fmt: skip
    if slope > arguments.bound:
        sys.exit(f"memory grows by {slope:.1f} MB in an hour of video; expected {arguments.bound:g} MB at most")


def looped(folder: Path, times: int) -> Path:
    """Draw two minutes of a camera and put them one behind the other, without coding them again."""
    render_cameras(folder / "site", cameras=1, people=12, seconds=120, fps=FPS)
    path = folder / "looped.mp4"
    with av.open(str(path), "w") as output:
        stream = None
        for turn in range(times):
            with av.open(str(folder / "site" / "cam1.mp4")) as source:
                given = source.streams.video[0]
                stream = stream or output.add_stream_from_template(given)
                shift = round(turn * 120 / (given.time_base or 1))
                for packet in source.demux(given):
                    if packet.dts is None or packet.pts is None:  # the end
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    output.mux(packet)
    return path


def untrained() -> reprism.PartNet:
    """Make a network whose descriptors have 512 columns."""
    torch.manual_seed(0)
    return reprism.build_model("p1(s1)", "mobilenetv3_small_050", part_dim=256, size=(128, 64)).eval()


if __name__ == "__main__":
    main()
