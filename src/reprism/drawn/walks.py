"""Visits to a drawn site: people, their ways and times."""

import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from reprism.drawn.people import Person, generator, person
from reprism.drawn.sites import LANES, Site


@dataclass(frozen=True)
class Visit:
    """One walk of a person over the site, from gate to gate.

    Attributes:
        pid: The person.
        number: 1 for the person's first visit, 2 for the second.
        group: Number of the group that the person walks in, or None.
        entry, exit: Names of the gates.
        times: When each point is reached, in seconds after the recording's start, increasing. The first may be
            negative: the person is on the site already.
        points: Corners of the way on the plan, in metres. The same point twice is a pause.
    """

    pid: int
    number: int
    group: int | None
    entry: str
    exit: str
    times: tuple[float, ...]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Stance:
    """Position of a person at one moment.

    x and y are in metres, heading is the direction of walking in degrees, walked the metres from the gate;
    standing is true in a pause.
    """

    x: float
    y: float
    heading: float
    walked: float
    standing: bool


def stance(visit: Visit, time: float) -> Stance | None:
    """Return where a visit's person is at a time, in seconds after the start; None before and after the visit."""
    if not visit.times[0] <= time < visit.times[-1]:
        return None
    leg = bisect_right(visit.times, time) - 1
    lengths = [math.dist(a, b) for a, b in zip(visit.points, visit.points[1:], strict=False)]
    share = (time - visit.times[leg]) / (visit.times[leg + 1] - visit.times[leg])
    (x, y), (to_x, to_y) = visit.points[leg], visit.points[leg + 1]
    standing = lengths[leg] == 0
    # Who stands looks where the last steps led.
    ahead = leg - 1 if standing else leg
    east, north = (visit.points[ahead + 1][axis] - visit.points[ahead][axis] for axis in (0, 1))
    return Stance(
        x=x + share * (to_x - x),
        y=y + share * (to_y - y),
        heading=math.degrees(math.atan2(north, east)),
        walked=sum(lengths[:leg]) + share * lengths[leg],
        standing=standing,
    )


def dress(people: int, uniforms: int, seed: int) -> dict[int, Person]:
    """Return the people of a site by pid, from 1 on; that many of them wear one uniform."""
    everybody = {pid: person(seed, pid) for pid in range(1, people + 1)}
    model = person(seed, 0)
    for pid in wearers(people, uniforms, seed):
        everybody[pid] = replace(
            everybody[pid],
            upper=model.upper,
            lower=model.lower,
            shoes=model.shoes,
            hat=model.hat,
            hat_color=model.hat_color,
        )
    return everybody


def wearers(people: int, uniforms: int, seed: int) -> list[int]:
    """Choose the pids that wear the uniform."""
    return sorted((1 + generator(seed, "uniforms").permutation(people)[:uniforms]).tolist())


def plan_visits(
    site: Site, *, people: int, seconds: float, returning: float, crowd: float, seed: int, day: int = 1
) -> tuple[Visit, ...]:
    """Plan the walks of people 1 to ``people``.

    Whoever walks alone, or each group of two to six, visits the site once, some twice. Of those who come back,
    every other one does so after some seconds, the others as late as the recording allows. Visits that would begin
    after its end are left out.

    Args:
        site: Where they walk.
        people: Number of people.
        seconds: Length of the recording.
        returning: Share of the groups, and of those who walk alone, that come back.
        crowd: Share of the people that walk in groups.
        seed: The same seed gives the same walks on the same day.
        day: Day of the walks, 1 or more: on each the same people walk alone, or in the same groups, other ways.

    Returns:
        Visits in the order of pid and number.
    """
    parties = _parties(people, crowd, seed)
    back = generator(seed, "returning").permutation(len(parties))[: round(returning * len(parties))].tolist()
    visits: list[Visit] = []
    for number, party in enumerate(parties):
        rng = generator(seed, "visits", number, *((day,) if day > 1 else ()))
        group = number + 1 if len(party) > 1 else None
        speed = float(rng.uniform(1.0, 1.6))
        if number not in back:
            way = _way(site, rng, speed, short=False)
            start = float(rng.uniform(-0.6 * way.times[-1], max(seconds - 0.4 * way.times[-1], 0)))
            walks = [_at(way, start)]
        else:
            first, second = (_way(site, rng, speed, short=True) for _ in range(2))
            start = float(rng.uniform(-0.2 * first.times[-1], 0.1 * seconds))
            again = start + first.times[-1] + float(rng.uniform(5, 15))
            if back.index(number) % 2:
                again = max(again, seconds - float(rng.uniform(0.8, 1.0)) * second.times[-1])
            walks = [_at(first, start), _at(second, again)]
        beside = [(float(rng.uniform(-0.5, 0.5)), 0.7 * (i - (len(party) - 1) / 2)) for i in range(len(party))]
        visits += [
            replace(
                walk,
                pid=pid,
                number=times,
                group=group,
                points=tuple((x + offset[0], y + offset[1]) for x, y in walk.points),
            )
            for times, walk in enumerate(walks, start=1)
            if walk.times[0] < seconds
            for pid, offset in zip(party, beside, strict=True)
        ]
    return tuple(sorted(visits, key=lambda visit: (visit.pid, visit.number)))


def _parties(people: int, crowd: float, seed: int) -> list[list[int]]:
    """Divide the pids into groups of two to six, as long as they last, and people who walk alone."""
    rng = generator(seed, "parties")
    left = list(range(1, people + 1))
    grouped, parties = round(crowd * people), []
    while grouped > 1:
        many = min(grouped, int(rng.integers(3, 6)))
        # Nobody is left over for a group of one.
        many += grouped - many == 1
        parties.append(left[:many])
        left, grouped = left[many:], grouped - many
    return parties + [[pid] for pid in left]


def _way(site: Site, rng: np.random.Generator, speed: float, *, short: bool) -> Visit:
    """Choose a way from gate to gate that begins at time 0; a short one passes one place."""
    last = len(site.gates) - 1
    if short:
        begin = int(rng.integers(last))
        ends = [begin, begin + 1]
        if rng.random() < 0.5:
            ends.reverse()
    else:
        # Most walk on to the site's ends, past several cameras.
        odds = np.array([2.0 if gate in (0, last) else 1.0 for gate in range(last + 1)])
        ends = rng.choice(last + 1, 2, replace=False, p=odds / odds.sum()).tolist()
    entry, leaving = site.gates[ends[0]], site.gates[ends[1]]
    points: list[tuple[float, float]] = [(entry.x, entry.y)]
    times = [0.0]

    def walk_to(x: float, y: float) -> None:
        times.append(times[-1] + math.dist(points[-1], (x, y)) / speed)
        points.append((x, y))

    ahead = 1 if leaving.x > entry.x else -1
    passed = [middle for middle in site.places if min(entry.x, leaving.x) < middle < max(entry.x, leaving.x)]
    for middle in passed[::ahead]:
        for aside in sorted(rng.uniform(-5, 5, int(rng.integers(2, 4))).tolist()):
            walk_to(middle + ahead * aside, float(rng.uniform(*LANES)))
            if rng.random() < 0.3:
                times.append(times[-1] + float(rng.uniform(1, 6)))
                points.append(points[-1])
    walk_to(leaving.x, leaving.y)
    return Visit(0, 0, None, entry.name, leaving.name, tuple(times), tuple(points))


def _at(way: Visit, start: float) -> Visit:
    return replace(way, times=tuple(start + time for time in way.times))
