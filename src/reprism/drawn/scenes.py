"""The places that drawn cameras watch, and the things that stand in front of people there."""

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reprism.drawn.solids import NEUTRAL, Color, jittered, shaded

SCENES = ("brick wall", "park", "shop windows", "corridor", "car park")


@lru_cache(maxsize=32)
def scene(kind: str, seed: int, height: int, width: int) -> Image.Image:
    """Draw a camera's background, three times as wide and a quarter taller than a box of height × width.

    kind is one of `SCENES`. The picture is shared between calls: crop from it, do not paint on it.
    """
    rng = np.random.default_rng(seed)
    wide, tall = 3 * width, round(1.25 * height)
    ground = rng.uniform(0.62, 0.78) * tall
    return _painted(kind, rng, (wide, tall), ground, float(height))


def backdrop(kind: str, seed: int, size: tuple[int, int], ground: float, unit: float) -> Image.Image:
    """Draw what a fixed camera has before it.

    Args:
        kind: One of `SCENES`.
        seed: Random seed.
        size: Height and width in pixels.
        ground: Row at which the ground ends and the wall behind it begins.
        unit: Height in pixels of a person's box in front of that wall.
    """
    return _painted(kind, np.random.default_rng(seed), size[::-1], ground, unit)


def _painted(kind: str, rng: np.random.Generator, size: tuple[int, int], ground: float, unit: float) -> Image.Image:
    """Paint ground, wall and light on a picture of (width, height) pixels."""
    wide, tall = size
    picture = Image.new("RGB", size)
    draw = ImageDraw.Draw(picture)
    _GROUNDS[kind](draw, rng, size, ground, unit)
    _BACKDROPS[kind](draw, rng, size, ground, unit)
    picture = picture.filter(ImageFilter.GaussianBlur(0.004 * unit))
    # Stains and light spots: smooth noise, and a fine grain over it.
    coarse = Image.fromarray(rng.integers(0, 256, (9, 14), dtype=np.uint8)).resize(
        picture.size, Image.Resampling.BICUBIC
    )
    light = 0.78 + 0.44 / 255 * np.asarray(coarse, np.float32) + rng.normal(0, 0.04, (tall, wide))
    return Image.fromarray(np.clip(np.asarray(picture) * light[:, :, None], 0, 255).astype(np.uint8))


def draw_furniture(
    picture: Image.Image, shade: Image.Image, kind: str, place: float, light: float, rng: np.random.Generator
) -> None:
    """Paint a "pole", "bin" or "bush" over the picture; place is -1 (left edge) to 1, light the lit side."""
    width, height = picture.size
    draw, dark = ImageDraw.Draw(picture), ImageDraw.Draw(shade)
    x = width / 2 * (1 + 0.8 * place)

    def box(left: float, top: float, right: float, color: Color) -> None:
        draw.rectangle((left, top, right, height), fill=color)
        dark.rectangle((left, top, right, height), fill=NEUTRAL)
        third = (right - left) / 3
        edge = (right - third, right) if light < 0 else (left, left + third)
        dark.rectangle((edge[0], top, edge[1], height), fill=NEUTRAL * 3 // 4)

    if kind == "pole":
        half = width * rng.uniform(0.05, 0.09)
        box(x - half, 0, x + half, jittered(rng, (112, 116, 118), 30))
    elif kind == "bin":
        half, top = width * rng.uniform(0.2, 0.32), height * rng.uniform(0.62, 0.76)
        color = jittered(rng, ((60, 84, 66), (70, 72, 78), (92, 70, 58))[int(rng.integers(3))], 14)
        box(x - half, top, x + half, color)
        draw.rectangle((x - 1.1 * half, top, x + 1.1 * half, top + 0.03 * height), fill=shaded(color, 0.65))
    else:
        leaf, top, radius = jittered(rng, (58, 92, 50), 16), rng.uniform(0.62, 0.78), 0.04 * height
        for _ in range(80):
            cx, cy = x + rng.normal(0, 0.2) * width, rng.uniform(top, 1.03) * height
            around = (cx - radius, cy - radius, cx + radius, cy + radius)
            draw.ellipse(around, fill=shaded(leaf, rng.uniform(0.6, 1.25)))
            dark.ellipse(around, fill=NEUTRAL)


Size = tuple[int, int]


def _paving(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    stone = jittered(rng, (150, 146, 140), 22)
    draw.rectangle((0, ground, *size), fill=stone)
    row, y = 0.04 * unit, ground
    while y < size[1]:  # rows grow towards the camera
        draw.line((0, y, size[0], y), fill=shaded(stone, 0.8), width=max(1, round(0.006 * unit)))
        for x in np.arange(rng.uniform(0, 2) * row, size[0], 2.4 * row):
            draw.line((x, y, x - 0.3 * row, y + row), fill=shaded(stone, 0.84), width=max(1, round(0.005 * unit)))
        y, row = y + row, 1.25 * row


def _grass(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    green, path = jittered(rng, (96, 122, 66), 18), jittered(rng, (176, 162, 136), 16)
    draw.rectangle((0, ground, *size), fill=green)
    for _ in range(500):
        x, y = rng.uniform(0, size[0]), rng.uniform(ground, size[1])
        draw.line(
            (x, y, x + rng.normal(0, 0.01) * unit, y - 0.02 * unit),
            fill=shaded(green, rng.uniform(0.75, 1.2)),
        )
    low = ground + rng.uniform(0.2, 0.45) * (size[1] - ground)
    draw.polygon(
        [(0, low), (size[0], low - 0.05 * unit), (size[0], low + 0.12 * unit), (0, low + 0.2 * unit)],
        fill=path,
    )


def _asphalt(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    gray = jittered(rng, (104, 104, 108), 18)
    draw.rectangle((0, ground, *size), fill=gray)
    for x in np.arange(rng.uniform(-0.4, 0.2) * unit, size[0], 0.55 * unit):
        line = [
            (x, ground),
            (x + 0.025 * unit, ground),
            (x - 0.13 * unit, size[1]),
            (x - 0.18 * unit, size[1]),
        ]
        draw.polygon(line, fill=(206, 204, 196))


def _tiles(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    light, dark = jittered(rng, (196, 190, 178), 18), jittered(rng, (160, 150, 138), 18)
    draw.rectangle((0, ground, *size), fill=light)
    row, y, odd = 0.05 * unit, ground, 0
    while y < size[1]:
        for x in np.arange(odd * 2 * row, size[0], 4 * row):
            draw.rectangle((x, y, x + 2 * row, y + row), fill=dark)
        y, row, odd = y + row, 1.2 * row, 1 - odd


def _bricks(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    brick = jittered(rng, ((150, 92, 72), (170, 150, 124), (128, 118, 112))[int(rng.integers(3))], 14)
    draw.rectangle((0, 0, size[0], ground), fill=shaded(brick, 1.2))
    tall, long = 0.035 * unit, 0.09 * unit
    for row, y in enumerate(np.arange(0, ground, tall)):
        for x in np.arange(-long * (row % 2) / 2, size[0], long):
            around = (x, y, x + 0.93 * long, min(y + 0.86 * tall, ground))
            draw.rectangle(around, fill=shaded(brick, rng.uniform(0.85, 1.1)))
    for x in np.arange(rng.uniform(0.05, 0.3) * unit, size[0], rng.uniform(0.7, 1.0) * unit):
        draw.rectangle((x, 0.1 * unit, x + 0.3 * unit, 0.45 * unit), fill=(212, 208, 198))
        draw.rectangle(
            (x + 0.03 * unit, 0.13 * unit, x + 0.27 * unit, 0.42 * unit), fill=jittered(rng, (70, 84, 98), 20)
        )


def _trees(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    sky, leaf = jittered(rng, (190, 204, 214), 14), jittered(rng, (70, 100, 58), 16)
    draw.rectangle((0, 0, size[0], ground), fill=sky)
    draw.rectangle((0, ground - 0.18 * unit, size[0], ground), fill=shaded(leaf, 0.8))
    for x in np.arange(rng.uniform(0, 0.3) * unit, size[0], 0.5 * unit):
        x += rng.normal(0, 0.06) * unit
        draw.rectangle((x - 0.025 * unit, 0.2 * unit, x + 0.025 * unit, ground), fill=(84, 66, 52))
        for _ in range(40):
            cx, cy, r = x + rng.normal(0, 0.13) * unit, rng.normal(0.2, 0.1) * unit, 0.05 * unit
            draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=shaded(leaf, rng.uniform(0.65, 1.25)))


def _shops(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    draw.rectangle((0, 0, size[0], ground), fill=jittered(rng, (120, 112, 104), 24))
    x = rng.uniform(-0.3, 0) * unit
    while x < size[0]:
        wide = rng.uniform(0.4, 0.75) * unit
        glass, sign = jittered(rng, (92, 110, 118), 26), jittered(rng, (140, 90, 80), 70)
        draw.rectangle((x, 0.08 * unit, x + wide, 0.2 * unit), fill=sign)
        draw.rectangle((x + 0.03 * unit, 0.24 * unit, x + wide - 0.03 * unit, ground - 0.06 * unit), fill=glass)
        for _ in range(5):  # goods behind the glass
            gx, gy = x + rng.uniform(0.06, 0.3) * unit, rng.uniform(0.35, 0.6) * unit
            thing = (gx, gy, gx + rng.uniform(0.04, 0.12) * unit, gy + rng.uniform(0.05, 0.15) * unit)
            draw.rectangle(thing, fill=jittered(rng, (140, 130, 120), 80))
        x += wide + 0.05 * unit


def _lobby(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    wall = jittered(rng, (204, 200, 188), 18)
    draw.rectangle((0, 0, size[0], ground), fill=wall)
    draw.rectangle((0, 0.5 * ground, size[0], ground), fill=shaded(wall, 0.86))
    draw.rectangle((0, ground - 0.04 * unit, size[0], ground), fill=shaded(wall, 0.5))
    for x in np.arange(rng.uniform(0.1, 0.4) * unit, size[0], rng.uniform(0.6, 0.9) * unit):
        door = jittered(rng, (128, 96, 72), 34)
        draw.rectangle((x, 0.12 * unit, x + 0.34 * unit, ground), fill=door)
        draw.rectangle((x + 0.05 * unit, 0.18 * unit, x + 0.29 * unit, 0.4 * unit), fill=shaded(door, 1.5))


def _cars(draw: ImageDraw.ImageDraw, rng: np.random.Generator, size: Size, ground: float, unit: float) -> None:
    draw.rectangle((0, 0, size[0], ground), fill=jittered(rng, (168, 174, 178), 18))
    draw.rectangle((0, 0.15 * unit, size[0], 0.42 * unit), fill=jittered(rng, (128, 124, 122), 24))
    for x in np.arange(rng.uniform(-0.5, 0) * unit, size[0], 0.85 * unit):
        paint = jittered(rng, (130, 126, 128), 80)
        low = ground + 0.06 * unit
        draw.polygon(
            [
                (x + 0.12 * unit, low - 0.2 * unit),
                (x + 0.22 * unit, low - 0.32 * unit),
                (x + 0.48 * unit, low - 0.32 * unit),
                (x + 0.6 * unit, low - 0.2 * unit),
            ],
            fill=(58, 66, 74),
        )
        draw.rounded_rectangle((x, low - 0.2 * unit, x + 0.72 * unit, low - 0.03 * unit), 0.04 * unit, fill=paint)
        for wheel in (0.14, 0.56):
            cx, r = x + wheel * unit, 0.055 * unit
            draw.ellipse((cx - r, low - 2 * r, cx + r, low), fill=(34, 34, 36))


_GROUNDS = {
    "brick wall": _paving,
    "park": _grass,
    "shop windows": _paving,
    "corridor": _tiles,
    "car park": _asphalt,
}
_BACKDROPS = {
    "brick wall": _bricks,
    "park": _trees,
    "shop windows": _shops,
    "corridor": _lobby,
    "car park": _cars,
}
