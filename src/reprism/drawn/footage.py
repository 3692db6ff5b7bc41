"""Frames of one camera of a drawn site, without noise, and who is where in them, to the pixel."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ImageFilter

from reprism.drawn.people import Person
from reprism.drawn.scenes import backdrop
from reprism.drawn.shots import graded
from reprism.drawn.sites import Site, SiteCamera, focal, project
from reprism.drawn.sprites import Sprite, cut_out, obstacle_sprite, pose
from reprism.drawn.walks import Stance, Visit, stance

_NEAREST = 1.0  # metres along the axis: who is nearer would fill the frame
_WALL = 2.0  # metres from the far edge of the plan to the wall behind it


@dataclass(frozen=True)
class Sight:
    """A person in a frame, exactly as drawn.

    Attributes:
        pid, visit: The person, and the number of the visit.
        left, top, right, bottom: Bounding box of the whole figure, hidden parts included, clipped to the frame, in
            pixels from its upper left corner; right and bottom are exclusive.
        visibility: Share of the whole figure's pixels that show: in the frame, and not behind a person or a thing.
        x, y: Where the person is on the plan, in metres.
    """

    pid: int
    visit: int
    left: int
    top: int
    right: int
    bottom: int
    visibility: float
    x: float
    y: float


@dataclass(frozen=True)
class Scenery:
    """A camera's view without people.

    Attributes:
        picture: H×W×3 uint8.
        things: Distance in metres and H×W mask of every obstacle in the picture, nearest first.
    """

    picture: np.ndarray
    things: tuple[tuple[float, np.ndarray], ...]


@dataclass(frozen=True)
class _Figure:
    """A sprite laid on the frame: rows and columns are those of the frame, ``part`` what of the sprite is inside."""

    rows: slice
    columns: slice
    part: tuple[slice, slice]
    sprite: Sprite
    distance: float


def scenery(site: Site, camera: SiteCamera, size: tuple[int, int]) -> Scenery:
    """Draw a camera's background with the obstacles of the site.

    Args:
        site: The plan.
        camera: One of its cameras.
        size: Height and width of the frame in pixels.
    """
    height, width = size
    south = camera.y < site.depth / 2
    far = (site.depth - camera.y if south else camera.y) + _WALL
    scale = focal(camera, size)
    fine = 2
    ground = camera.horizon * height + camera.height * scale / far
    look = camera.look
    wide = backdrop(
        look.scene_kind, look.scene_seed, (fine * height, fine * width), fine * ground, fine * 1.9 * scale / far
    ).reduce(fine)
    blurred = wide.filter(ImageFilter.GaussianBlur(look.blur * height / 360))
    picture = graded(np.asarray(blurred, np.float32), look)
    things: list[tuple[float, np.ndarray]] = []
    placed = ((project(camera, thing.x, thing.y, size), thing) for thing in site.obstacles)
    for (column, row, distance), thing in sorted(placed, key=lambda each: each[0][2], reverse=True):
        sprite = obstacle_sprite(thing, look, scale / distance) if distance > _NEAREST else None
        figure = _laid(sprite, column, row, distance, size) if sprite else None
        if figure is None:
            continue
        alpha = figure.sprite.alpha[figure.part]
        _paint(picture, figure, alpha)
        mask = np.zeros(size, bool)
        mask[figure.rows, figure.columns] = alpha > 0
        things.insert(0, (distance, mask))
    return Scenery(picture, tuple(things))


def film(
    empty: Scenery, camera: SiteCamera, people: Mapping[int, Person], visits: Sequence[Visit], times: Iterable[float]
) -> Iterator[tuple[np.ndarray, list[Sight]]]:
    """Draw what a camera records.

    Args:
        empty: What the camera sees without people.
        camera: The camera.
        people: Looks by pid.
        visits: Who walks where; at most one visit of a person at a time.
        times: Moments of the frames, in seconds after the start.

    Yields:
        A frame, H×W×3 uint8 RGB without noise, and the people in it, in the order of their pids.
    """
    size = (empty.picture.shape[0], empty.picture.shape[1])
    for time in times:
        figures = [
            (visit, at, figure)
            for visit in visits
            if (at := stance(visit, time)) is not None
            and (figure := _figure(camera, people[visit.pid], at, size)) is not None
        ]
        figures.sort(key=lambda each: each[2].distance)
        covered = np.zeros(size, bool)
        painting: list[tuple[_Figure, np.ndarray]] = []
        seen: list[Sight] = []
        for visit, at, figure in figures:  # from near to far, to see what is hidden
            inside = (figure.rows, figure.columns)
            alpha = figure.sprite.alpha[figure.part]
            nearer = [mask[inside] for distance, mask in empty.things if distance < figure.distance]
            if nearer:
                alpha = np.where(np.logical_or.reduce(nearer), 0, alpha)
            shows = np.count_nonzero((alpha > 0) & ~covered[inside])
            covered[inside] |= alpha > 0
            painting.append((figure, alpha))
            seen.append(
                Sight(
                    pid=visit.pid,
                    visit=visit.number,
                    left=figure.columns.start,
                    top=figure.rows.start,
                    right=figure.columns.stop,
                    bottom=figure.rows.stop,
                    visibility=float(shows / np.count_nonzero(figure.sprite.alpha)),
                    x=at.x,
                    y=at.y,
                )
            )
        frame = empty.picture.copy()
        for figure, alpha in reversed(painting):
            _paint(frame, figure, alpha)
        yield frame, sorted(seen, key=lambda sight: sight.pid)


def _figure(camera: SiteCamera, person: Person, at: Stance, size: tuple[int, int]) -> _Figure | None:
    """Lay a person on the frame; None if no pixel of the figure is in it."""
    column, row, distance = project(camera, at.x, at.y, size)
    if distance < _NEAREST:
        return None
    tall = round(focal(camera, size) * person.height / distance)
    if not -tall < column < size[1] + tall:
        return None  # farther out than anybody reaches
    # 0 is towards the camera, 90 to the right in the picture.
    bearing = math.degrees(math.atan2(at.y - camera.y, at.x - camera.x))
    look = pose(person, at.heading - bearing + 180, None if at.standing else at.walked)
    sprite = cut_out(person, look, camera.look, tall) if tall else None
    return _laid(sprite, column, row, distance, size) if sprite else None


def _laid(sprite: Sprite, column: float, row: float, distance: float, size: tuple[int, int]) -> _Figure | None:
    # Feet stand on the edge between two pixels that is nearest.
    left, top = math.floor(column + 0.5) + sprite.left, math.floor(row + 0.5) + sprite.top
    tall, wide = sprite.alpha.shape
    rows, columns = slice(max(top, 0), min(top + tall, size[0])), slice(max(left, 0), min(left + wide, size[1]))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return None
    part = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    if not sprite.alpha[part].any():
        return None
    return _Figure(rows, columns, part, sprite, distance)


def _paint(frame: np.ndarray, figure: _Figure, alpha: np.ndarray) -> None:
    """Lay the sprite over the frame, as much as alpha (0 to 255) says."""
    below = frame[figure.rows, figure.columns]
    weight = alpha[:, :, None].astype(np.uint16)
    below[:] = (figure.sprite.colors[figure.part] * weight + below * (255 - weight) + 127) // 255
