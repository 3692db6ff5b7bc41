"""The drawing of rounded solids, in person coordinates, with light from one side.

Person coordinates: x to the person's side, y up, z forward; the unit is the body's height, the origin lies on
the ground between the feet. A solid is turned by the viewing angle and projected in parallel, seen slightly
from above.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[int, int, int]
Point = tuple[float, float, float]
# Horizontal cuts through an upright solid, lowest first: (y, half width across x, half depth along z).
Sections = list[tuple[float, float, float]]

NEUTRAL = 128  # the shade that leaves a colour as it is; 64 halves it

# How a round thing is painted: (thickness, shift towards the light, is colour painted, shade). All of it in
# shadow first, then the lit part, then the highlight, each narrower and nearer to the light.
_LIT: tuple[tuple[float, float, bool, int | None], ...] = (
    (1.0, 0.0, True, 99),
    (0.74, 0.26, False, NEUTRAL),
    (0.3, 0.4, False, 141),
)
_FLAT: tuple[tuple[float, float, bool, int | None], ...] = ((1.0, 0.0, True, None),)


def shaded(color: Color, factor: float) -> Color:
    """Return the colour, darker (factor under 1) or lighter."""
    red, green, blue = (int(min(255, max(0, channel * factor))) for channel in color)
    return (red, green, blue)


def jittered(rng: np.random.Generator, color: Color, by: int) -> Color:
    """Return the colour with every channel moved by at most `by` grey levels."""
    red, green, blue = (int(np.clip(c + rng.integers(-by, by + 1), 0, 255)) for c in color)
    return (red, green, blue)


class Stage:
    """A picture, its shade plane, and the projection of person coordinates onto both.

    yaw is the viewing angle in degrees (0 front, 180 back), zoom the picture's height in body heights; shift
    moves the body to the right and down (body heights), stretch widens it; light is the side it is lit from
    (-1 to 1).
    """

    def __init__(
        self,
        picture: Image.Image,
        shade: Image.Image,
        *,
        yaw: float,
        zoom: float,
        shift: tuple[float, float],
        stretch: float,
        light: float,
    ):
        self.color = ImageDraw.Draw(picture)
        self.shade = ImageDraw.Draw(shade)
        self.width, self.height = picture.size
        self.scale = self.height / zoom  # pixels per body height
        self.stretch = stretch
        self.x = self.width / 2 + shift[0] * self.scale
        self.y = self.height / 2 + (0.5 + shift[1]) * self.scale
        self.cos, self.sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
        self.light = light
        self.lift = 0.0

    def across(self, x: float, z: float) -> float:
        """Return the distance to the right of the body's axis."""
        return x * self.cos + z * self.sin

    def near(self, x: float, z: float) -> float:
        """Return how much nearer to the camera it is than the body's axis."""
        return z * self.cos - x * self.sin

    def pixel(self, across: float, y: float, near: float = 0.0) -> tuple[float, float]:
        """Project a point of the turned body onto the picture."""
        # Cameras hang above people: what is nearer appears lower.
        return (
            self.x + across * self.scale * self.stretch,
            self.y - (y + self.lift - 0.12 * near) * self.scale,
        )

    def at(self, point: Point) -> tuple[float, float]:
        """Project a point in person coordinates onto the picture."""
        return self.pixel(self.across(point[0], point[2]), point[1], self.near(point[0], point[2]))

    def _polygon(self, outline: list[tuple[float, float]], color: Color | None, shade: int | None) -> None:
        if color is not None:
            self.color.polygon(outline, fill=color)
        if shade is not None:
            self.shade.polygon(outline, fill=shade)

    def limb(self, ends: tuple[Point, Point], radii: tuple[float, float], color: Color) -> None:
        """Paint a tapered round bar between two points."""
        start, end = self.at(ends[0]), self.at(ends[1])
        length = math.hypot(end[0] - start[0], end[1] - start[1]) or 1.0
        normal = ((end[1] - start[1]) / length, (start[0] - end[0]) / length)
        for thickness, shift, painted, shade in _LIT:
            paint, corners = color if painted else None, []
            for (x, y), radius in zip((start, end), radii, strict=True):
                r = radius * self.scale * thickness
                x += shift * self.light * radius * self.scale
                corners.append((x + normal[0] * r, y + normal[1] * r))
                corners.insert(0, (x - normal[0] * r, y - normal[1] * r))
                self._disc(x, y, r, paint, shade)
            self._polygon(corners, paint, shade)

    def _disc(self, x: float, y: float, r: float, color: Color | None, shade: int | None) -> None:
        box = (x - r, y - r, x + r, y + r)
        if color is not None:
            self.color.ellipse(box, fill=color)
        if shade is not None:
            self.shade.ellipse(box, fill=shade)

    def solid(
        self, sections: Sections, color: Color, center: tuple[float, float] = (0.0, 0.0), lit: bool = True
    ) -> None:
        """Paint an upright solid with elliptic sections around the axis at centre (x, z)."""
        middle, near = self.across(*center), self.near(*center)
        # A turned ellipse is as wide as this, exactly.
        halves = [(y, math.hypot(a * self.cos, b * self.sin)) for y, a, b in sections]
        passes = _LIT if lit else _FLAT
        for thickness, shift, painted, shade in passes:
            paint = color if painted else None
            outline = [
                self.pixel(middle + half * (shift * self.light + side * thickness), y, near)
                for side, order in ((-1, halves), (1, halves[::-1]))
                for y, half in order
            ]
            self._polygon(outline, paint, shade)

    def patch(
        self,
        sections: Sections,
        color: Color | None,
        angles: tuple[float, float],
        slant: float = 0.0,
        center: tuple[float, float] = (0.0, 0.0),
        shade: int | None = None,
    ) -> None:
        """Paint what can be seen of a solid's surface between two angles (radians from straight ahead).

        slant turns the angles by that much from the lowest section to the highest. Without a colour only the
        shade is painted.
        """
        middle, near = self.across(*center), self.near(*center)
        low, high = sections[0][0], sections[-1][0]
        half, mids, facings = (angles[1] - angles[0]) / 2, [], []
        for y, a, b in sections:
            # The surface faces the camera for a quarter turn to both sides of this angle.
            facings.append(math.atan2(-self.sin / b, self.cos / a))
            turn = slant * (y - low) / (high - low)
            mids.append(sum(angles) / 2 + turn - facings[-1])
        # A wide patch may come into view at both sides: hence the same angles a whole turn earlier and later.
        base = mids[0] - math.remainder(mids[0], 2 * math.pi)
        for whole in (-2 * math.pi, 0.0, 2 * math.pi):
            left_side: list[tuple[float, float]] = []
            right_side: list[tuple[float, float]] = []
            for (y, a, b), mid, facing in zip(sections, mids, facings, strict=True):
                left = max(mid - base + whole - half, -math.pi / 2)
                right = min(mid - base + whole + half, math.pi / 2)
                if left < right:
                    for t, side in ((left + facing, left_side), (right + facing, right_side)):
                        across = a * math.sin(t) * self.cos + b * math.cos(t) * self.sin
                        side.append(self.pixel(middle + across, y, near))
            if len(left_side) > 1:
                self._polygon(left_side + right_side[::-1], color, shade)


def between(sections: Sections, low: float, high: float, steps: int = 0) -> Sections:
    """Return the piece of a solid from y = low to y = high, with `steps` more cuts for slanted patches."""
    ys, across, deep = zip(*sections, strict=True)
    cuts = sorted({low, high, *(y for y in ys if low < y < high), *(np.linspace(low, high, steps + 2)[1:-1].tolist())})
    return [(y, float(np.interp(y, ys, across)), float(np.interp(y, ys, deep))) for y in cuts]


def wider(sections: Sections, by: float) -> Sections:
    """Return the solid with every section larger by that much."""
    return [(y, a + by, b + by) for y, a, b in sections]
