"""Track people through a camera's video, a row for each track in a gallery; then ask it for those of another camera.

pip install 'reprism[search,track]'
python examples/track_video.py [model.safetensors]   without a model: descriptors of a network with random weights
"""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

import reprism
from reprism.data.rendered import camera, draw_shot, generator, person, take_shot
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

SEED, PEOPLE, FRAMES = 3, 4, 12


def video(camid: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Frames (160×640×3 uint8 RGB) of people who walk past a camera, each with their boxes (N×4, xyxy)."""
    place = camera(SEED, camid)
    starts = [take_shot(place, generator(SEED, "walk", pid, camid), box="tight") for pid in range(PEOPLE)]
    for number in range(FRAMES):
        frame = draw_shot(None, place, starts[0], size=(160, 640)).copy()
        boxes = np.array([(x, 16, x + 64, 144) for x in 20 + 5 * number + 150 * np.arange(PEOPLE)])
        for pid, (left, top, right, bottom) in enumerate(boxes):
            moment = replace(starts[pid], phase=0.4 * number, occluder="none")
            crop, bare = draw_shot(person(SEED, pid), place, moment), draw_shot(None, place, moment)
            np.copyto(frame[top:bottom, left:right], crop, where=(crop != bare).any(axis=2, keepdims=True))
        yield frame, boxes.astype(float)


def tracks(camid: int, embedder: reprism.Embedder) -> Iterator[Entry]:
    """Of every track of a camera's video one entry: the mean of its boxes' descriptors."""
    tracker, found = ByteTrackTracker(), defaultdict(list)
    for frame, boxes in video(camid):
        seen = tracker.update(sv.Detections(xyxy=boxes, confidence=np.ones(len(boxes))))
        seen = seen[seen.tracker_id >= 0]  # -1: too new to be sure of
        for name, descriptor in zip(seen.tracker_id.tolist(), embedder.embed_boxes(frame, seen.xyxy), strict=True):
            found[str(name)].append(descriptor)
    for name, rows in found.items():
        yield Entry(f"{camid}/{name}", np.mean(rows, 0), "drawn", camid=str(camid), tracklet=name, frames=len(rows))


if __name__ == "__main__":
    model = sys.argv[1] if sys.argv[1:] else reprism.build_model("p1(s2c2)", "mobilenetv3_small_050", size=(128, 64))
    embedder = reprism.Embedder(model)
    with tempfile.TemporaryDirectory() as folder:
        gallery = Gallery.create(folder, embedder)
        gallery.add(tracks(2, embedder))
        for entry in tracks(1, embedder):
            ((match,),) = gallery.search(entry.descriptor, top=1)
            print(f"{entry.key} ({entry.frames} frames): {match.camid}/{match.tracklet}, distance {match.distance:.3f}")
