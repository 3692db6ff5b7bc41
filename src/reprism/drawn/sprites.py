"""People and things cut out, to be laid over a frame: drawn once in each pose, then used as often as it is seen."""

import math
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from reprism.drawn.people import Person, draw_figure
from reprism.drawn.scenes import draw_furniture
from reprism.drawn.shots import Camera, graded
from reprism.drawn.sites import Obstacle
from reprism.drawn.solids import NEUTRAL, Stage, jittered, shaded

_TURNS = 16  # directions in which a person is drawn
_PHASES = 8  # moments of the walking cycle
_ROOM = (1.2, 1.1)  # height and width of the canvas, in body heights
_LEAST_COVER = 64  # of 255: a pixel of which a person covers less than a quarter is not the person's


@dataclass(frozen=True)
class Sprite:
    """A picture cut out tightly.

    Attributes:
        colors: H×W×3 uint8.
        alpha: H×W uint8, 0 where the sprite leaves the frame as it is; no row and no column at an edge is all 0.
        left, top: Its upper left corner in pixels, from the point on which the feet stand.
    """

    colors: np.ndarray
    alpha: np.ndarray
    left: int
    top: int


@dataclass(frozen=True)
class Pose:
    """A person's pose as it is drawn: turn and phase count the directions and moments that are drawn apart."""

    turn: int
    phase: int | None

    @property
    def yaw(self) -> float:
        """Viewing angle in degrees: 0 from the front, 90 walking to the right."""
        return 360 * self.turn / _TURNS


def pose(person: Person, yaw: float, walked: float | None) -> Pose:
    """Choose the nearest of the poses that are drawn.

    Args:
        person: The person; a wider stride swings less often.
        yaw: Viewing angle in degrees, 0 from the front.
        walked: Metres walked, or None for a person who stands.
    """
    turn = round(yaw / 360 * _TURNS) % _TURNS
    if walked is None:
        return Pose(turn, None)
    # Feet swing 0.47 body heights below the hip: a cycle of two steps leads this far, so that they do not slide.
    cycle = 4 * 0.47 * person.height * math.sin(person.stride)
    return Pose(turn, round(walked / cycle * _PHASES) % _PHASES)


@lru_cache(maxsize=4096)
def cut_out(person: Person, pose: Pose, look: Camera, height: int) -> Sprite | None:
    """Draw a person whose body is that many pixels tall; None if nothing is to be seen, being too small."""
    # Drawn larger in a few sizes, then brought to the size asked for, which averages the jagged edges away.
    large = 256
    while large < 1.5 * height:
        large *= 2
    canvas, (left, top) = _drawn(person, pose, math.copysign(0.7, look.light), large)
    scale = height / large
    # The pixels of the frame that the canvas reaches, and where their edges lie on the canvas.
    first = (math.floor(left * scale), math.floor(top * scale))
    end = (math.ceil((left + canvas.width) * scale), math.ceil((top + canvas.height) * scale))
    edges = (first[0] / scale - left, first[1] / scale - top, end[0] / scale - left, end[1] / scale - top)
    x, y = math.floor(edges[0]), math.floor(edges[1])
    around = canvas.crop((x, y, math.ceil(edges[2]), math.ceil(edges[3])))
    within = (edges[0] - x, edges[1] - y, edges[2] - x, edges[3] - y)
    small = around.resize((end[0] - first[0], end[1] - first[1]), Image.Resampling.BOX, within)
    return _trimmed(_graded(small, look), *first)


@lru_cache(maxsize=2048)
def _drawn(person: Person, pose: Pose, light: float, height: int) -> tuple[Image.Image, tuple[int, int]]:
    """Draw a person on a transparent canvas, cut out; returns it and its upper left corner, from the feet."""
    canvas = Image.new("RGBA", (2 * round(_ROOM[1] * height / 2), round(_ROOM[0] * height)))
    shade = Image.new("L", canvas.size, NEUTRAL)
    stage = Stage(canvas, shade, yaw=pose.yaw, zoom=_ROOM[0], shift=(0.0, 0.0), stretch=1.0, light=light)
    folds = np.random.default_rng(round(1e4 * person.height)).uniform(-1, 1, (6, 3))
    if pose.phase is None:
        draw_figure(stage, replace(person, stride=0.03), 0.0, folds)
    else:
        draw_figure(stage, person, 2 * math.pi * pose.phase / _PHASES, folds)
    box = canvas.getchannel("A").getbbox() or (0, 0, 1, 1)
    shade = shade.filter(ImageFilter.BoxBlur(height / 128))
    return _shaded(canvas.crop(box), shade.crop(box)), (box[0] - canvas.width // 2, box[1] - round(stage.y))


def obstacle_sprite(obstacle: Obstacle, look: Camera, pixels_per_metre: float) -> Sprite | None:
    """Draw a thing of the site as a camera sees it from that near."""
    fine = 3
    size = [max(2, round(metres * pixels_per_metre)) for metres in (obstacle.width, obstacle.height)]
    canvas = Image.new("RGBA", (fine * size[0], fine * size[1]))
    shade = Image.new("L", canvas.size, NEUTRAL)
    rng = np.random.default_rng(obstacle.seed)
    if obstacle.kind == "bush":
        _draw_bush(ImageDraw.Draw(canvas), canvas.size, rng)
    else:
        draw_furniture(canvas, shade, obstacle.kind, 0.0, look.light, rng)
    small = _shaded(canvas, shade).reduce(fine)
    return _trimmed(_graded(small, look), -(small.width // 2), -small.height)


def _draw_bush(draw: ImageDraw.ImageDraw, size: tuple[int, int], rng: np.random.Generator) -> None:
    """Fill the canvas with a round bush."""
    leaf, radius = jittered(rng, (58, 92, 50), 16), 0.09 * size[0]
    for _ in range(160):
        angle, far = float(rng.uniform(0, math.pi)), math.sqrt(float(rng.random()))
        x = size[0] / 2 + (size[0] / 2 - radius) * far * math.cos(angle)
        y = size[1] - (size[1] - radius) * far * math.sin(angle)
        around = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(around, fill=shaded(leaf, float(rng.uniform(0.6, 1.25))))


def _shaded(canvas: Image.Image, shade: Image.Image) -> Image.Image:
    pixels = np.array(canvas)
    light = np.asarray(shade, np.float32)[:, :, None] / NEUTRAL
    pixels[:, :, :3] = np.minimum(pixels[:, :, :3] * light, 255)
    return Image.fromarray(pixels)


def _graded(canvas: Image.Image, look: Camera) -> Image.Image:
    pixels = np.asarray(canvas)
    return Image.fromarray(np.dstack([graded(pixels[:, :, :3].astype(np.float32), look), pixels[:, :, 3]]))


def _trimmed(canvas: Image.Image, left: int, top: int) -> Sprite | None:
    """Cut away the empty edges; left, top is the canvas's upper left corner, from the feet."""
    pixels = np.asarray(canvas)
    alpha = np.where(pixels[:, :, 3] < _LEAST_COVER, 0, pixels[:, :, 3]).astype(np.uint8)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    if not len(rows):
        return None
    first = (int(rows[0]), int(columns[0]))
    inside = (slice(first[0], int(rows[-1]) + 1), slice(first[1], int(columns[-1]) + 1))
    return Sprite(pixels[inside][:, :, :3].copy(), alpha[inside].copy(), left + first[1], top + first[0])
