"""A site to draw: a plan in metres, and the cameras that watch it.

On the plan x points east and y north; angles are in degrees, counter-clockwise from the east. The ground is flat.
A camera is a pinhole whose picture plane stands upright, shifted down: what stands upright stays upright, and a person
of H metres at a distance of z metres along the camera's axis is focal · H / z pixels tall.
"""

import math
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from reprism.drawn.people import generator, pick
from reprism.drawn.shots import Camera, camera

PITCH = 28.0
"""Metres from the middle of one place to that of the next; between places nobody is seen."""
DEPTH = 16.0
"""Metres of the plan from south to north."""
LANES = (4.0, 12.0)
"""The least and the largest y at which people walk, in metres."""

_NEAREST = 0.5  # metres along the axis; what is nearer, or behind the camera, is not in the picture


@dataclass(frozen=True)
class SiteCamera:
    """A fixed camera of a site.

    Attributes:
        name: Such as "cam1".
        x, y: Position on the plan in metres.
        height: Metres above the ground.
        heading: Direction of the axis on the plan in degrees; 90 looks north.
        field_of_view: Horizontal angle in degrees.
        horizon: Row of the horizon as a share of the frame's height, from the top.
        look: Colours, noise and background.
    """

    name: str
    x: float
    y: float
    height: float
    heading: float
    field_of_view: float
    horizon: float
    look: Camera


@dataclass(frozen=True)
class Gate:
    """A point at which people enter and leave the site, in metres; no camera sees it."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Obstacle:
    """A thing that stands on the site and hides who passes behind it.

    x, y is the place of its foot, width and height the size of the board on which it is drawn, in metres.
    """

    kind: Literal["pole", "bin", "bush"]
    x: float
    y: float
    width: float
    height: float
    seed: int


@dataclass(frozen=True)
class Site:
    """A plan of length (x) by depth (y) metres, with what stands on it; places are the middles of what is watched."""

    length: float
    depth: float
    places: tuple[float, ...]
    cameras: tuple[SiteCamera, ...]
    gates: tuple[Gate, ...]
    obstacles: tuple[Obstacle, ...]


def draw_site(cameras: int, seed: int) -> Site:
    """Lay out a site.

    Places lie in a row. The first is watched by two cameras from opposite sides, the next two by one each, and so on:
    with four cameras the first two overlap, and the others see what no other does. People walk from place to place
    unseen, through gates at both ends and between the places.

    Args:
        cameras: Number of cameras, 1 or more.
        seed: The same seed gives the same site.
    """
    rng = generator(seed, "site")
    counts = [2 if place % 3 == 0 else 1 for place in range(cameras)]
    places = next(n for n, total in enumerate(accumulate(counts), start=1) if total >= cameras)
    watching: list[SiteCamera] = []
    obstacles: list[Obstacle] = []
    for place in range(places):
        middle = PITCH * (place + 0.5)
        twins = counts[place] == 2
        for northern in (False, True)[: min(counts[place], cameras - len(watching))]:
            number = len(watching) + 1
            # Twins turn to each other, so that neither sees a gate.
            turn = float(rng.uniform(0, 10) if twins else rng.uniform(-10, 10))
            aside = (2.5 if northern else -2.5) if twins else float(rng.uniform(-1.0, 1.0))
            watching.append(
                SiteCamera(
                    name=f"cam{number}",
                    x=middle + aside,
                    y=DEPTH + 2.0 if northern else -2.0,
                    height=float(rng.uniform(2.8, 3.4)),
                    heading=(270.0 if northern else 90.0) - turn,
                    field_of_view=float(rng.uniform(56, 64)),
                    horizon=float(rng.uniform(0.06, 0.12)),
                    look=camera(seed, number),
                )
            )
            obstacles += _obstacles(rng, watching[-1])
    gates = [Gate(f"gate{number + 1}", PITCH * number, DEPTH / 2) for number in range(places + 1)]
    return Site(
        length=PITCH * places,
        depth=DEPTH,
        places=tuple(PITCH * (place + 0.5) for place in range(places)),
        cameras=tuple(watching),
        gates=tuple(gates),
        obstacles=tuple(obstacles),
    )


def _obstacles(rng: np.random.Generator, camera: SiteCamera) -> list[Obstacle]:
    """Put a pole and something lower between a camera and those who walk there."""
    low: Literal["bin", "bush"] = pick(rng, ("bin", "bush"))
    side = float(rng.choice((-1, 1)))
    y = 3.0 if camera.y < 0 else DEPTH - 3.0
    width, height = {"bin": (1.5, 3.2), "bush": (1.7, 1.25)}[low]
    return [
        Obstacle("pole", camera.x + side * float(rng.uniform(0.6, 2.0)), y, 1.6, 4.5, int(rng.integers(2**31))),
        Obstacle(low, camera.x - side * float(rng.uniform(0.8, 2.0)), y, width, height, int(rng.integers(2**31))),
    ]


def focal(camera: SiteCamera, size: tuple[int, int]) -> float:
    """Return the focal length in pixels, of frames of size (height, width)."""
    return size[1] / 2 / math.tan(math.radians(camera.field_of_view) / 2)


def project(camera: SiteCamera, x: float, y: float, size: tuple[int, int]) -> tuple[float, float, float]:
    """Project a point of the ground.

    Returns:
        Column and row in pixels, from the frame's upper left corner, and the distance along the camera's axis in
        metres. Column and row mean nothing if that is not positive.
    """
    angle = math.radians(camera.heading)
    east, north = x - camera.x, y - camera.y
    distance = east * math.cos(angle) + north * math.sin(angle)
    right = east * math.sin(angle) - north * math.cos(angle)
    scale = focal(camera, size) / distance if distance else math.inf
    return size[1] / 2 + right * scale, camera.horizon * size[0] + camera.height * scale, distance


def sees_ground(camera: SiteCamera, x: float, y: float, size: tuple[int, int]) -> bool:
    """Return whether a point of the ground lies in the camera's picture, whatever stands in front of it."""
    column, row, distance = project(camera, x, y, size)
    return distance > _NEAREST and 0 <= column < size[1] and 0 <= row < size[0]


def shared_area(site: Site, first: SiteCamera, second: SiteCamera, size: tuple[int, int]) -> float:
    """Return how many square metres of the plan both cameras see, counted in squares of half a metre."""
    step = 0.5
    count = sum(
        sees_ground(first, x, y, size) and sees_ground(second, x, y, size)
        for x in np.arange(step / 2, site.length, step).tolist()
        for y in np.arange(step / 2, site.depth, step).tolist()
    )
    return step * step * count
