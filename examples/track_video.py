"""Track people past two cameras, a row for each track in a gallery; then find each track's person in the other camera.

pip install 'reprism[search,track]'; python examples/track_video.py [MODEL]   (without one, it trains a small one first)
"""

import sys
import tempfile
from dataclasses import replace

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

import reprism
from reprism.cli import main
from reprism.drawn.shots import camera, draw_shot, generator, person, take_shot
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

SEED, PEOPLE, FRAMES = 3, 4, 12


def video(camid):
    """Yield 160×640×3 uint8 RGB frames of people walking past a camera, with their boxes (N×4, xyxy, by person)."""
    place = camera(SEED, camid)
    walks = [(person(SEED, pid), take_shot(place, generator(SEED, "walk", pid, camid))) for pid in range(PEOPLE)]
    for number in range(FRAMES):
        moved = {"phase": 0.4 * number, "dx": 0.04 * number - 0.2, "dy": 0.0, "zoom": 1.25, "occluder": "none"}
        shots = [draw_shot(who, place, replace(start, **moved), (160, 160)) for who, start in walks]
        left, top = 48 + 128 * moved["dx"] + 160 * np.arange(PEOPLE), np.full(PEOPLE, 16)
        yield np.concatenate(shots, axis=1), np.stack([left, top, left + 64, top + 128], axis=1)


def tracks(camid, embedder):
    """Return an entry for each track: the mean of its boxes' descriptors; and, to check with, who was drawn in them."""
    tracker, found = ByteTrackTracker(), {}
    for frame, boxes in video(camid):
        seen = tracker.update(sv.Detections(boxes, confidence=np.ones(PEOPLE), class_id=np.arange(PEOPLE)))
        seen = seen[seen.tracker_id >= 0]  # -1: too new to be sure of
        for name, who, row in zip(seen.tracker_id, seen.class_id, embedder.embed_boxes(frame, seen.xyxy), strict=True):
            found.setdefault(f"{camid}/{name}", []).append((str(who), row))
    whom = ["+".join(sorted({who for who, _ in boxes})) for boxes in found.values()]
    print(f"camera {camid}: {len(found)} tracks of {PEOPLE} people, {sum('+' in who for who in whom)} mixed")
    means = np.array([np.mean([row for _, row in boxes], axis=0) for boxes in found.values()])
    means -= means.mean(axis=0)  # a camera's light and walls, which all of its tracks have in common
    return [Entry(*entry) for entry in zip(found, means, ["drawn"] * len(found), whom, strict=True)]


with tempfile.TemporaryDirectory() as folder:
    if not (model := sys.argv[1:]):
        main(f"data render market1501 {folder}/people --train-identities 96 --height 64 --seed 1".split())
        smaller = "--model.backbone test_resnet --data.size 64 32 --optimizer.epochs 30 --trainer.evaluate-every 0"
        main(f"train cpu-minutes --data.root {folder}/people --out {folder}/run {smaller}".split())
    embedder = reprism.Embedder(*model or [f"{folder}/run/model.safetensors"])
    gallery = Gallery.create(f"{folder}/gallery", embedder)
    gallery.add(tracks(2, embedder))
    for track in tracks(1, embedder):
        match = gallery.search(track.descriptor, top=1)[0][0]
        print(f"track {track.key}: nearest is {match.key}, {'right' if track.pid == match.pid else 'wrong'}")
