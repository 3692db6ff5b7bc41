"""Pedestrians drawn with code, so that demos and tests need no photograph of anyone.

A `Person` is what somebody looks like, a `Camera` how a place and its camera look, a `Shot` one moment there:
the pose, the box, what stands in the way. `draw_person` puts the three together. Colours change from camera
to camera, backgrounds belong to cameras and say nothing about people: what tells people apart is what they
wear and carry.

Every identity, camera and image has its own numpy Generator, derived from (seed, kind, indices), so that what
is drawn does not depend on what was drawn before. The same seed gives the same pixels under the same numpy
and Pillow.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageFilter

from reprism.drawn.people import Garment, Person, draw_figure, dressed, generator, person, pick
from reprism.drawn.scenes import SCENES, draw_furniture, scene
from reprism.drawn.solids import NEUTRAL, Stage

__all__ = [
    "Camera",
    "Garment",
    "Person",
    "Shot",
    "camera",
    "contact_sheet",
    "draw_person",
    "draw_shot",
    "generator",
    "graded",
    "person",
    "take_shot",
]

Occluder = Literal["none", "pole", "bin", "bush", "passer-by"]


@dataclass(frozen=True)
class Camera:
    """A place and the camera that watches it, the same for every identity.

    gains multiply R, G, B; saturation, contrast and brightness are factors (1 changes nothing), gamma an
    exponent; resolution is the fraction of the output's pixels per side that the sensor has; blur (in output
    pixels) and noise (in grey levels of 255) are standard deviations; yaw is the habitual viewing angle in
    degrees (0 front, 180 back); light is the side the light comes from (-1 left, 1 right); scene_seed fixes
    the background.
    """

    gains: tuple[float, float, float]
    saturation: float
    contrast: float
    brightness: float
    gamma: float
    resolution: float
    blur: float
    noise: float
    jpeg_quality: int
    yaw: float
    light: float
    scene_kind: str
    scene_seed: int


@dataclass(frozen=True)
class Shot:
    """One moment in front of a camera; nothing in it depends on who is seen.

    Attributes:
        yaw: Viewing angle in degrees.
        phase: Moment of the walking cycle in radians.
        zoom: Height of the box, in body heights.
        dx, dy: Shift of the person in the box to the right and down, in body heights.
        stretch: Factor by which the box is widened against its height.
        scene_x, scene_y: Part of the background to show, 0 … 1.
        gain: Exposure.
        occluder_x: Position of the occluder in the box, -1 … 1.
        detail_seed: Random seed of creases and of the occluder's looks.
        noise_seed: Random seed of the sensor's noise.
    """

    yaw: float
    phase: float
    zoom: float
    dx: float
    dy: float
    stretch: float
    scene_x: float
    scene_y: float
    gain: float
    occluder: Occluder
    occluder_x: float
    detail_seed: int
    noise_seed: int


def camera(seed: int, camid: int) -> Camera:
    """Make the camera number camid (0 or more) of the seed's network."""
    whole = generator(seed, "cameras")
    rng = generator(seed, "camera", camid)
    # Steps of the golden ratio spread the cameras over the range of casts and angles: no two neighbours are
    # alike, as independent draws would be now and then.
    warmth, tint, yaw, kind = ((float(whole.random()) + camid * step) % 1 for step in (0.618, 0.414, 0.382, 0.2))
    temperature, green = 0.30 * (2 * warmth - 1), 0.13 * (2 * tint - 1)
    return Camera(
        gains=(math.exp(temperature), math.exp(green), math.exp(-temperature)),
        saturation=float(rng.uniform(0.5, 1.15)),
        contrast=float(rng.uniform(0.68, 1.1)),
        brightness=float(rng.uniform(0.82, 1.18)),
        gamma=float(math.exp(rng.uniform(-0.35, 0.35))),
        resolution=float(rng.uniform(0.5, 1.0)),
        blur=float(rng.uniform(0.0, 0.8)),
        noise=float(rng.uniform(3, 9)),
        jpeg_quality=int(rng.integers(70, 92)),
        yaw=360 * yaw,
        light=float(rng.uniform(0.4, 1.0)) * (1 if rng.random() < 0.5 else -1),
        scene_kind=SCENES[int(kind * len(SCENES)) % len(SCENES)],
        scene_seed=int(rng.integers(2**31)),
    )


def take_shot(camera: Camera, rng: np.random.Generator, *, box: Literal["detected", "tight"] = "detected") -> Shot:
    """Choose a random moment in front of the camera.

    Args: camera: Its habitual angle is kept to, more or less. rng: Where the moment comes from; the same
    numbers are taken whatever the box. box: "detected" is loose or shifted and now and then cuts off feet or
    head, "tight" is as drawn by hand.
    """
    # A camera has habitual angles, no fixed ones: at times people go the other way, or across.
    turn = pick(rng, (0, 180, 90, -90), (7, 1.5, 0.75, 0.75))
    occluders: list[Occluder] = ["none", "pole", "bin", "bush", "passer-by"]
    shot = Shot(
        yaw=(camera.yaw + turn + float(rng.normal(0, 22))) % 360,
        phase=float(rng.uniform(0, 2 * math.pi)),
        zoom=float(rng.uniform(1.0, 1.24)),
        dx=float(rng.normal(0, 0.025)),
        dy=float(rng.normal(0, 0.02)),
        stretch=float(rng.uniform(0.92, 1.1)),
        scene_x=float(rng.random()),
        scene_y=float(rng.random()),
        gain=float(rng.uniform(0.88, 1.14)),
        occluder=pick(rng, occluders, (82, 5, 4, 4, 5)),
        occluder_x=float(rng.choice((-1, 1)) * rng.uniform(0.25, 0.9)),
        detail_seed=int(rng.integers(2**31)),
        noise_seed=int(rng.integers(2**31)),
    )
    slipped, slip = rng.random() < 0.12, float(rng.choice((-1, 1)) * rng.uniform(0.08, 0.16))
    if box == "tight":
        return replace(shot, zoom=1.06, dx=0.0, dy=0.0, stretch=1.0)
    return replace(shot, dy=shot.dy + slip) if slipped else shot


def draw_person(
    person: Person, camera: Camera, rng: np.random.Generator, size: tuple[int, int] = (128, 64)
) -> np.ndarray:
    """Draw the person in front of the camera, at a random moment.

    What is taken from rng does not depend on the person: from the same generator state, another person is
    shown at the same moment, before the same background.

    Args:
        person: The person to draw.
        camera: Place and recording properties.
        rng: Source of the random moment, e.g. ``generator(seed, "image", pid, camid, index)``.
        size: Height and width in pixels, at least (16, 8).

    Returns:
        H×W×3 uint8 RGB.

    Raises:
        ValueError: Size is too small.
    """
    return draw_shot(person, camera, take_shot(camera, rng), size)


def draw_shot(person: Person | None, camera: Camera, shot: Shot, size: tuple[int, int] = (128, 64)) -> np.ndarray:
    """Draw one given moment; without a person, the bare background.

    Args:
        person: The person to draw, or None.
        camera: Place and recording properties.
        shot: Moment, viewing angle and box.
        size: Height and width in pixels, at least (16, 8).

    Returns:
        H×W×3 uint8 RGB.

    Raises:
        ValueError: Size is too small.
    """
    height, width = size
    if height < 16 or width < 8:
        raise ValueError(f"size must be (height, width) of at least (16, 8) pixels, but is {size}")
    fine = max(1, round(384 / height))  # drawn larger, then averaged down: ImageDraw's own edges are jagged
    wide = scene(camera.scene_kind, camera.scene_seed, fine * height, fine * width)
    left = round(shot.scene_x * (wide.width - fine * width))
    top = round(shot.scene_y * (wide.height - fine * height))
    picture = wide.crop((left, top, left + fine * width, top + fine * height))
    shade = Image.new("L", picture.size, NEUTRAL)
    folds = np.random.default_rng(shot.detail_seed).uniform(-1, 1, (6, 3))
    if person is not None:
        draw_figure(_stage(picture, shade, shot, camera.light), person, shot.phase, folds)
    _draw_occluder(picture, shade, shot, camera.light)
    pixels = np.asarray(picture.reduce(fine), np.float32)
    light = np.asarray(shade.reduce(fine).filter(ImageFilter.BoxBlur(height / 128)), np.float32) / NEUTRAL
    return _through_lens(pixels * light[:, :, None], camera, shot.gain, np.random.default_rng(shot.noise_seed))


def _stage(picture: Image.Image, shade: Image.Image, shot: Shot, light: float) -> Stage:
    return Stage(
        picture,
        shade,
        yaw=shot.yaw,
        zoom=shot.zoom,
        shift=(shot.dx, shot.dy),
        stretch=shot.stretch,
        light=light,
    )


def _draw_occluder(picture: Image.Image, shade: Image.Image, shot: Shot, light: float) -> None:
    rng = np.random.default_rng((shot.detail_seed, 1))
    if shot.occluder == "passer-by":
        # Somebody nearer, of whom only a side is in the box.
        other = replace(
            shot,
            yaw=float(rng.uniform(0, 360)),
            zoom=0.9 * shot.zoom,
            dx=math.copysign(rng.uniform(0.2, 0.3), shot.occluder_x),
            dy=float(rng.uniform(0.02, 0.1)),
        )
        stage = _stage(picture, shade, other, light)
        draw_figure(stage, dressed(rng), rng.uniform(0, 2 * math.pi), rng.uniform(-1, 1, (6, 3)))
    elif shot.occluder != "none":
        draw_furniture(picture, shade, shot.occluder, shot.occluder_x, light, rng)


def graded(pixels: np.ndarray, camera: Camera, gain: float = 1.0) -> np.ndarray:
    """Return H×W×3 float colours (0 to 255) in the camera's cast, contrast and brightness, uint8."""
    gray = pixels.mean(axis=2, keepdims=True)
    colors = gray + camera.saturation * (pixels - gray)
    colors = np.clip(colors * np.asarray(camera.gains, np.float32) / 255, 0, 1) ** camera.gamma
    colors = ((colors - 0.45) * camera.contrast + 0.45) * (camera.brightness * gain)
    return (np.clip(colors, 0, 1) * 255).astype(np.uint8)


def _through_lens(pixels: np.ndarray, camera: Camera, gain: float, rng: np.random.Generator) -> np.ndarray:
    """H×W×3 float colours (0 to 255) as the camera records them, uint8."""
    height, width = pixels.shape[:2]
    image = Image.fromarray(graded(pixels, camera, gain))
    sensor = (max(4, round(width * camera.resolution)), max(8, round(height * camera.resolution)))
    image = image.resize(sensor, Image.Resampling.BOX)
    # Noise arises in the sensor, before its picture is enlarged: hence the blotches of surveillance images.
    noise = rng.standard_normal((sensor[1], sensor[0], 3), np.float32) * camera.noise
    image = Image.fromarray(np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8))
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(camera.blur * height / 128)))


def contact_sheet(path: str | Path, identities: int = 8, cameras: int = 4, seed: int = 0) -> None:
    """Write a PNG that shows some identities, to look at.

    Args:
        path: The file; an existing one is replaced.
        identities: Rows, one per identity from pid 1 on.
        cameras: Each gives two columns, from camid 1 on. Images are 128×64, shown twice as large.
        seed: The population and the cameras.

    Raises:
        ValueError: Identities or cameras is less than 1.
    """
    for name, value in (("identities", identities), ("cameras", cameras)):
        if value < 1:
            raise ValueError(f"{name} must be 1 or more, but is {value}")
    columns = [(camid, k) for camid in range(1, cameras + 1) for k in range(2)]
    rows = []
    for pid in range(1, identities + 1):
        images = [
            draw_person(person(seed, pid), camera(seed, camid), generator(seed, "image", pid, camid, k))
            for camid, k in columns
        ]
        rows.append(np.concatenate([np.pad(image, ((1, 1), (1, 1), (0, 0))) for image in images], axis=1))
    Image.fromarray(np.concatenate(rows)).resize(
        (2 * rows[0].shape[1], 2 * rows[0].shape[0] * len(rows)), Image.Resampling.BICUBIC
    ).save(path, format="PNG")
