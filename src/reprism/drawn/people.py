"""The people: what somebody looks like, and how that is painted.

Bodies are the solids of `reprism.drawn.solids`, painted from far to near, so that a backpack's straps
show from the front and the bag itself from behind.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np

from reprism.drawn.solids import Color, Point, Sections, Stage, between, jittered, shaded, wider

T = TypeVar("T")

UpperKind = Literal["t-shirt", "long sleeve", "open jacket", "coat"]
LowerKind = Literal["trousers", "shorts", "skirt"]
Pattern = Literal["plain", "horizontal stripes", "vertical stripes", "checks", "chest print"]
Hair = Literal["short", "long", "bun", "bald"]
Bag = Literal["none", "backpack", "handbag", "messenger"]
Hat = Literal["none", "cap", "beanie"]

# Few colours on purpose: among 32 people several wear the same, and the details must tell them apart.
GARMENT_COLORS: dict[str, Color] = {
    "black": (34, 34, 38),
    "white": (228, 228, 224),
    "grey": (130, 132, 136),
    "navy": (36, 46, 88),
    "blue": (62, 108, 182),
    "red": (186, 42, 46),
    "green": (52, 118, 74),
    "olive": (108, 106, 62),
    "beige": (202, 180, 142),
    "brown": (104, 70, 48),
    "yellow": (222, 184, 62),
    "pink": (214, 138, 160),
}
_UPPER_ODDS = (5, 4, 4, 3, 3, 3, 2, 2, 2, 1, 1, 1)
_LOWER_ODDS = (5, 1, 3, 5, 4, 0.5, 0.5, 1, 2, 1.5, 0, 0)
_SKINS: tuple[Color, ...] = ((240, 206, 180), (224, 178, 144), (190, 138, 102), (142, 96, 68), (92, 62, 46))
_HAIRS: tuple[Color, ...] = ((26, 22, 22), (58, 40, 30), (104, 70, 44), (186, 148, 92), (150, 150, 150))

_SHOES: tuple[Color, ...] = ((30, 30, 32), (226, 226, 224), (96, 64, 44), (170, 48, 50))


@dataclass(frozen=True)
class Garment:
    """A piece of clothing; ``second`` colours its pattern, or the shirt beneath an open jacket."""

    kind: UpperKind | LowerKind
    color: Color
    second: Color
    pattern: Pattern = "plain"


@dataclass(frozen=True)
class Person:
    """The appearance of one identity, the same in every camera.

    height is in metres (1.5 to 1.95), build multiplies every width (0.85 to 1.25), stride is the legs'
    largest swing in radians; colours are RGB, 0 to 255.
    """

    height: float
    build: float
    stride: float
    skin: Color
    hair: Hair
    hair_color: Color
    upper: Garment
    lower: Garment
    shoes: Color
    bag: Bag
    bag_color: Color
    bag_side: Literal[-1, 1]
    hat: Hat
    hat_color: Color


def generator(seed: int, kind: str, *indices: int) -> np.random.Generator:
    """Make the Generator of one drawn thing, e.g. of kind "image" with indices pid, camid, number.

    Raises:
        ValueError: Seed or an index is negative.
    """
    for name, value in (("seed", seed), *((f"index of {kind}", i) for i in indices)):
        if value < 0:
            raise ValueError(f"{name} must be 0 or more, but is {value}")
    # The kind goes in as bytes: unlike hash(), they are the same in every process.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*kind.encode(), 0, *indices)))


def pick(rng: np.random.Generator, options: Sequence[T], odds: Sequence[float] | None = None) -> T:
    """Pick one of the options, all equally likely or in proportion to odds."""
    weights = None if odds is None else np.asarray(odds, float) / sum(odds)
    return options[int(rng.choice(len(options), p=weights))]


def _garment_color(rng: np.random.Generator, odds: Sequence[float]) -> Color:
    return jittered(rng, pick(rng, list(GARMENT_COLORS.values()), odds), 9)


def _contrasting(rng: np.random.Generator, color: Color) -> Color:
    """Pick a palette colour that can be seen beside `color`."""
    palette = np.array(list(GARMENT_COLORS.values()))
    far = palette[np.abs(palette - np.array(color)).sum(axis=1) > 150]
    red, green, blue = (int(channel) for channel in far[rng.integers(len(far))])
    return jittered(rng, (red, green, blue), 9)


def person(seed: int, pid: int) -> Person:
    """Look up identity number pid of the population that seed stands for; both are 0 or more."""
    return dressed(generator(seed, "person", pid))


def dressed(rng: np.random.Generator) -> Person:
    """Somebody, drawn from a population in which several people wear the same colours."""
    upper_color = _garment_color(rng, _UPPER_ODDS)
    upper_kinds: list[UpperKind] = ["t-shirt", "long sleeve", "open jacket", "coat"]
    upper_kind = pick(rng, upper_kinds, (4, 3, 3, 2))
    patterns: list[Pattern] = ["plain", "horizontal stripes", "vertical stripes", "checks", "chest print"]
    # A jacket and a coat are plain: the jacket's second colour is the shirt beneath it.
    pattern = pick(rng, patterns, (6, 3, 1.5, 2, 3))
    lower_kinds: list[LowerKind] = ["trousers", "shorts", "skirt"]
    lower_color = _garment_color(rng, _LOWER_ODDS)
    hairs: list[Hair] = ["short", "long", "bun", "bald"]
    bags: list[Bag] = ["none", "backpack", "handbag", "messenger"]
    hats: list[Hat] = ["none", "cap", "beanie"]
    return Person(
        height=float(np.clip(rng.normal(1.71, 0.09), 1.5, 1.95)),
        build=float(rng.uniform(0.85, 1.25)),
        stride=float(rng.uniform(0.3, 0.5)),
        skin=jittered(rng, pick(rng, _SKINS, (3, 3, 2, 1.5, 1.5)), 6),
        hair=pick(rng, hairs, (5, 4, 1.5, 1)),
        hair_color=jittered(rng, pick(rng, _HAIRS, (5, 3, 2, 1.5, 1)), 6),
        upper=Garment(
            upper_kind,
            upper_color,
            _contrasting(rng, upper_color),
            pattern if upper_kind in ("t-shirt", "long sleeve") else "plain",
        ),
        lower=Garment(
            pick(rng, lower_kinds, (6, 2.5, 2)),
            lower_color,
            _contrasting(rng, lower_color),
            "vertical stripes" if rng.random() < 0.15 else "plain",
        ),
        shoes=jittered(rng, pick(rng, _SHOES, (4, 3, 2, 1)), 8),
        bag=pick(rng, bags, (4, 3, 2, 2)),
        bag_color=_contrasting(rng, upper_color),
        bag_side=1 if rng.random() < 0.5 else -1,
        hat=pick(rng, hats, (8, 2, 1)),
        hat_color=_garment_color(rng, _UPPER_ODDS),
    )


def draw_figure(stage: Stage, person: Person, phase: float, folds: np.ndarray) -> None:
    """Paint the person from far to near; folds is 6×3 numbers in [-1, 1]."""
    torso: Sections = [
        (y, a * person.build, b * person.build)
        for y, a, b in (
            (0.46, 0.100, 0.072),
            (0.52, 0.102, 0.078),
            (0.61, 0.092, 0.070),
            (0.71, 0.112, 0.080),
            (0.79, 0.122, 0.076),
            (0.825, 0.100, 0.060),
            (0.85, 0.040, 0.036),
        )
    ]
    legs = [_leg(person, side, phase) for side in (-1, 1)]
    stage.lift = 0.035 - min(ankle[1] for _, _, ankle in legs)
    parts: list[tuple[float, Callable[[], None]]] = []  # (how near, painter)
    for side, leg in zip((-1, 1), legs, strict=True):
        arm = _arm(person, side, phase)
        # Legs are painted before the torso whatever their depth: what is worn above hangs over them.
        parts.append((stage.near(leg[0][0], leg[1][2]) - 2, partial(_draw_leg, stage, person, side, leg)))
        parts.append((stage.near(arm[0][0], arm[1][2]), partial(_draw_arm, stage, person, arm)))
        if side == person.bag_side and person.bag in ("handbag", "messenger"):
            parts.append((stage.near(1.3 * arm[0][0], 0), partial(_draw_side_bag, stage, person, arm)))
    if person.lower.kind == "skirt":
        skirt = [(0.28, 0.13, 0.11), (0.4, 0.118, 0.095), (0.52, 0.104, 0.08)]
        flared = [(y, a * person.build, b * person.build) for y, a, b in skirt]
        parts.append((-1.0, partial(stage.solid, flared, person.lower.color)))
    parts.append((0.0, partial(_draw_torso, stage, person, torso, folds)))
    if person.bag == "backpack":
        # Sideways the bag is neither nearer nor farther; it goes under the near arm.
        parts.append((stage.near(0, -0.16), partial(_draw_backpack, stage, person)))
    parts.append((0.001, partial(_draw_head, stage, person)))
    if person.hair == "long":
        parts.append((stage.near(0, -0.03), partial(_draw_long_hair, stage, person)))
    for _, paint in sorted(parts, key=lambda part: part[0]):
        paint()


def _leg(person: Person, side: int, phase: float) -> tuple[Point, Point, Point]:
    """Hip, knee and ankle."""
    phase += math.pi * (side > 0)
    swing = person.stride * math.sin(phase)
    # The knee bends while the leg comes forward.
    shin = swing - 0.1 - 1.6 * person.stride * max(0.0, math.cos(phase))
    x = 0.05 * side * person.build
    knee = (0.5 - 0.24 * math.cos(swing), 0.24 * math.sin(swing))
    return (
        (x, 0.5, 0.0),
        (x, *knee),
        (x, knee[0] - 0.23 * math.cos(shin), knee[1] + 0.23 * math.sin(shin)),
    )


def _arm(person: Person, side: int, phase: float) -> tuple[Point, Point, Point]:
    """Shoulder, elbow and hand."""
    phase += math.pi * (side < 0)  # against the leg of the same side
    swing = 0.9 * person.stride * math.sin(phase)
    fore = swing + 0.3
    x = 0.118 * side * person.build
    elbow = (0.79 - 0.165 * math.cos(swing), 0.165 * math.sin(swing))
    return (
        (x, 0.79, 0.0),
        (x * 1.16, *elbow),
        (x * 1.2, elbow[0] - 0.15 * math.cos(fore), elbow[1] + 0.15 * math.sin(fore)),
    )


def _along(start: Point, end: Point, share: float) -> Point:
    x, y, z = (a + share * (b - a) for a, b in zip(start, end, strict=True))
    return (x, y, z)


def _draw_leg(stage: Stage, person: Person, side: int, joints: tuple[Point, Point, Point]) -> None:
    hip, knee, ankle = joints
    garment, thick = person.lower, person.build
    heel = (ankle[0], ankle[1] - 0.008, ankle[2])
    toe = (ankle[0], ankle[1] - 0.014, ankle[2] + 0.07)
    bare = garment.kind != "trousers"
    stage.limb((knee, ankle), (0.044 * thick, 0.028 * thick), person.skin if bare else garment.color)
    stage.limb((heel, toe), (0.03, 0.024), person.shoes)
    if not bare:
        stage.limb((hip, knee), (0.056 * thick, 0.046 * thick), garment.color)
    elif garment.kind == "shorts":
        stage.limb((hip, knee), (0.05 * thick, 0.042 * thick), person.skin)
        stage.limb((hip, _along(hip, knee, 0.82)), (0.058 * thick, 0.056 * thick), garment.color)
    if garment.pattern == "vertical stripes" and garment.kind != "skirt" and stage.near(side, 0) > -0.5:
        # A stripe down the outer seam.
        out = 0.8 * 0.05 * thick * side
        seam = [(x + out * share, y, z) for share, (x, y, z) in ((1.0, hip), (0.9, knee), (0.6, ankle))]
        for ends in [(seam[0], seam[1]), (seam[1], seam[2])][: 2 - bare]:
            points = [stage.at(point) for point in ends]
            stage.color.line(points, fill=garment.second, width=max(1, round(0.017 * stage.scale)))


def _draw_arm(stage: Stage, person: Person, joints: tuple[Point, Point, Point]) -> None:
    shoulder, elbow, hand = joints
    garment, thick = person.upper, 0.5 + 0.5 * person.build
    wide = 1.1 if garment.kind in ("coat", "open jacket") else 1.0
    stage.limb((_along(elbow, hand, 0.85), hand), (0.021, 0.019), person.skin)
    upper_radii, lower_radii = (
        (0.038 * thick * wide, 0.032 * thick * wide),
        (0.032 * thick * wide, 0.025 * thick),
    )
    if garment.kind == "t-shirt":
        stage.limb((elbow, hand), (0.027 * thick, 0.02 * thick), person.skin)
        stage.limb((shoulder, elbow), (0.034 * thick, 0.027 * thick), person.skin)
        elbow = _along(shoulder, elbow, 0.62)
    else:
        stage.limb((elbow, hand), lower_radii, garment.color)
    stage.limb((shoulder, elbow), upper_radii, garment.color)
    if garment.pattern in ("horizontal stripes", "checks"):
        width = max(1, round(0.02 * stage.scale))
        for start, end, radius in ((shoulder, elbow, upper_radii[1]), (elbow, hand, lower_radii[1])):
            if garment.kind == "t-shirt" and start is elbow:
                break
            for share in (0.2, 0.5, 0.8):
                x, y = stage.at(_along(start, end, share))
                reach = radius * stage.scale
                stage.color.line([(x - reach, y), (x + reach, y)], fill=garment.second, width=width)


def _draw_torso(stage: Stage, person: Person, torso: Sections, folds: np.ndarray) -> None:
    garment = person.upper
    if person.lower.kind != "skirt":
        stage.solid(between(torso, 0.46, 0.54), person.lower.color)
    neck = [(0.82, 0.032, 0.034), (0.89, 0.03, 0.034)]
    stage.solid(neck, person.skin)
    shape = between(torso, 0.485, 0.85)
    if garment.kind == "coat":
        flare = [
            (0.30, 0.13 * person.build, 0.105 * person.build),
            (0.42, 0.118 * person.build, 0.09 * person.build),
        ]
        shape = flare + wider(between(torso, 0.5, 0.85), 0.008)
    elif garment.kind == "open jacket":
        shape = wider(between(torso, 0.47, 0.85), 0.008)
    stage.solid(shape, garment.color)
    _draw_pattern(stage, garment, shape)
    for angle, y, slope in folds:  # creases are only darker, whatever the garment
        crease = between(shape, 0.62 + 0.12 * y, 0.68 + 0.12 * y, 2)
        middle = math.pi * angle
        stage.patch(crease, None, (middle - 0.06, middle + 0.06), 0.7 * slope, shade=100)
    strap = shaded(person.bag_color, 0.85)
    if person.bag == "backpack":
        front = wider(between(torso, 0.60, 0.845), 0.004)
        for side in (-1, 1):
            stage.patch(front, strap, (0.72 * side - 0.2, 0.72 * side + 0.2))
    elif person.bag == "messenger":
        # One strap across the chest and back, from the bag's hip to the other shoulder.
        slanted = wider(between(torso, 0.50, 0.84, 6), 0.004)
        side = person.bag_side
        stage.patch(slanted, strap, (1.1 * side - 0.16, 1.1 * side + 0.16), -1.9 * side)
        stage.patch(slanted, strap, (2.04 * side - 0.16, 2.04 * side + 0.16), 1.9 * side)


def _draw_pattern(stage: Stage, garment: Garment, shape: Sections) -> None:
    low, high = shape[0][0], 0.835
    if garment.kind == "open jacket":
        stage.patch(between(shape, low, high), garment.second, (-0.5, 0.5))
        for side in (-1, 1):  # the lapels' shadow
            stage.patch(between(shape, low, high), None, (0.5 * side - 0.06, 0.5 * side + 0.06), shade=84)
    elif garment.kind == "coat":
        stage.patch(between(shape, low, high), None, (-0.05, 0.05), shade=80)
        stage.patch(between(shape, 0.585, 0.61), shaded(garment.color, 0.7), (-math.pi, math.pi))
    elif garment.pattern == "horizontal stripes":
        for y in np.arange(low + 0.03, high - 0.02, 0.056).tolist():
            stage.patch(between(shape, y, y + 0.026), garment.second, (-math.pi, math.pi))
    elif garment.pattern == "vertical stripes":
        for angle in np.arange(-math.pi, math.pi, math.pi / 6).tolist():
            stage.patch(between(shape, low, high), garment.second, (angle - 0.11, angle + 0.11))
    elif garment.pattern == "checks":
        for y in np.arange(low + 0.03, high - 0.02, 0.075).tolist():
            stage.patch(between(shape, y, y + 0.016), garment.second, (-math.pi, math.pi))
        for angle in np.arange(-math.pi, math.pi, math.pi / 4).tolist():
            stage.patch(between(shape, low, high), garment.second, (angle - 0.075, angle + 0.075))
    elif garment.pattern == "chest print":
        stage.patch(between(shape, 0.655, 0.775), garment.second, (-0.55, 0.55))


def _draw_backpack(stage: Stage, person: Person) -> None:
    wide = 0.5 + 0.5 * person.build
    center = (0.0, -0.072 * person.build - 0.045)
    bag = [
        (0.545, 0.075 * wide, 0.045),
        (0.57, 0.092 * wide, 0.058),
        (0.72, 0.092 * wide, 0.055),
        (0.80, 0.075 * wide, 0.042),
        (0.825, 0.035 * wide, 0.02),
    ]
    stage.solid(bag, person.bag_color, center)
    pocket = between(bag, 0.575, 0.665)
    stage.patch(pocket, shaded(person.bag_color, 0.72), (math.pi - 0.8, math.pi + 0.8), center=center)
    stage.patch(
        between(bag, 0.735, 0.75),
        shaded(person.bag_color, 0.6),
        (math.pi - 1.1, math.pi + 1.1),
        center=center,
    )


def _draw_side_bag(stage: Stage, person: Person, arm: tuple[Point, Point, Point]) -> None:
    """Draw a handbag, which hangs from the hand, or a messenger bag at the hip."""
    if person.bag == "handbag":
        x, y, z = arm[2]
        bag = [(y - 0.16, 0.035, 0.085), (y - 0.15, 0.04, 0.09), (y - 0.05, 0.03, 0.065)]
        for offset in (-0.045, 0.045):
            line = [stage.at((x, y, z)), stage.at((x, y - 0.06, z + offset))]
            stage.color.line(line, fill=shaded(person.bag_color, 0.7), width=max(1, round(0.012 * stage.scale)))
        stage.solid(bag, person.bag_color, (x, z))
    else:
        x = 0.135 * person.build * person.bag_side
        bag = [(0.40, 0.035, 0.085), (0.42, 0.045, 0.095), (0.52, 0.04, 0.09), (0.54, 0.03, 0.08)]
        stage.solid(bag, person.bag_color, (x, 0.0))
        stage.solid(between(bag, 0.475, 0.495), shaded(person.bag_color, 0.65), (x, 0.0), lit=False)


def _head_shape(person: Person, by: float = 0.0) -> Sections:
    # A head is about 23 cm tall whoever carries it: the taller the body, the smaller in the box.
    half = 0.070 * 1.72 / person.height
    turns = np.linspace(-math.pi / 2, math.pi / 2, 13)
    return [
        (
            1 - half + (half + by) * math.sin(t),
            (0.70 * half + by) * max(math.cos(t), 0.05),
            (0.85 * half + by) * max(math.cos(t), 0.05),
        )
        for t in turns.tolist()
    ]


def _draw_head(stage: Stage, person: Person) -> None:
    head = _head_shape(person)
    chin, crown = head[0][0], head[-1][0]
    tall = crown - chin
    hairy = person.hair != "bald"
    stage.solid(head, person.skin)
    if hairy:
        hair = _head_shape(person, 0.004)
        top = hair[-1][0]
        # Hair all round down to the neck, the face left free, and a fringe over the forehead.
        stage.patch(between(hair, chin + 0.22 * tall, top, 3), person.hair_color, (1.05, 2 * math.pi - 1.05))
        stage.patch(between(hair, crown - 0.24 * tall, top, 3), person.hair_color, (-math.pi, math.pi))
        if person.hair == "bun" and person.hat == "none":
            stage.limb(((0, crown - 0.02, -0.045), (0, crown - 0.015, -0.05)), (0.027, 0.027), person.hair_color)
    for side in (-1, 1):
        eye = between(head, chin + 0.50 * tall, chin + 0.57 * tall)
        stage.patch(eye, (40, 32, 30), (0.42 * side - 0.16, 0.42 * side + 0.16))
    if person.hat != "none":
        cap = _head_shape(person, 0.008)
        rim = crown - (0.30 if person.hat == "cap" else 0.38) * tall
        stage.solid(between(cap, rim, cap[-1][0], 3), person.hat_color)
        if person.hat == "cap":
            stage.limb(((0, rim + 0.006, 0.045), (0, rim, 0.085)), (0.016, 0.01), shaded(person.hat_color, 0.85))
        else:
            stage.patch(between(cap, rim, rim + 0.022), shaded(person.hat_color, 0.75), (-math.pi, math.pi))


def _draw_long_hair(stage: Stage, person: Person) -> None:
    tall = 0.14 * 1.72 / person.height
    top = 1 - 0.3 * tall
    if person.hat != "none":
        top -= 0.15 * tall
    fall = [(0.765, 0.040, 0.022), (0.79, 0.052, 0.03), (0.88, 0.052, 0.036), (top, 0.046, 0.04)]
    stage.solid(fall, person.hair_color, (0.0, -0.028))
