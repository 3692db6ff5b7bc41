"""All that may be wrong with a data set's labels, from its descriptors and its copies."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from reprism.cleaning.chances import chances
from reprism.cleaning.duplicates import Copies
from reprism.cleaning.findings import KINDS, REMOVE, Finding, Group, Kind, Placed
from reprism.cleaning.identities import TwoNames, TwoPeople, evenly, find_two_names, find_two_people
from reprism.cleaning.labels import Fit, fit_labels
from reprism.data.records import Label
from reprism.progress import Progress, step

_SHOWN = 4  # pictures of a group


@dataclass(frozen=True)
class Faults:
    """Findings about a data set's labels.

    Attributes:
        findings: Kind by kind, in each the likeliest first.
        shares: By kind, the share of pictures (wrong identity), of identities (two people) and of nearest pairs of
            identities (two names) that seem to be wrong, found or not: an upper bound where descriptors are poor.
    """

    findings: tuple[Finding, ...]
    shares: dict[Kind, float]


@dataclass(frozen=True, eq=False)
class _Data:
    """The pictures of people, in numbers.

    Attributes:
        entries: All items.
        rows: K×D descriptors of those that show a person.
        whole: K: their indices among all items.
        identity: K numbers of identities.
        names: P: side (0 training, 1 test) and identity.
        members: P: indices of the pictures of each, of K.
    """

    entries: Sequence[Placed]
    rows: np.ndarray
    whole: np.ndarray
    identity: np.ndarray
    names: list[tuple[int, Label]]
    members: list[np.ndarray]


def find_faults(
    descriptors: np.ndarray,
    entries: Sequence[Placed],
    copies: Sequence[Copies] = (),
    *,
    least: float = 0.5,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faults:
    """Find what may be wrong with the labels of a data set.

    Junk and distractors are looked at for copies alone. Identities of the training split and of the test splits (query
    and gallery) are confused with those of their own side only; across sides they are leaks. Memory is a block's,
    beside the descriptors.

    Args:
        descriptors: N×D of ``entries``, rows of length 1; best normalized by camera
            (:class:`reprism.CameraStatistics`).
        entries: Items of a data set and their splits (:func:`reprism.cleaning.entries_of`).
        copies: Copies among them (:func:`reprism.cleaning.find_copies` of their paths).
        least: Least probability of what is listed, 0 … 1. Copies are listed always.
        seed: Random seed of the labels that are made wrong to compare with.
        progress: Called as ``progress(what, done, total)``.

    Raises:
        ValueError: Numbers of descriptors and entries differ, or ``least`` is out of range.
    """
    if len(descriptors) != len(entries):
        raise ValueError(f"expected a descriptor for each of {len(entries)} items, got {len(descriptors)}")
    if not 0 <= least <= 1:
        raise ValueError(f"least={least}: expected a probability between 0 and 1")
    rng = np.random.default_rng(seed)
    data = _in_numbers(descriptors, entries)
    findings: list[Finding] = list(_same_names(data))
    shares: dict[Kind, float] = {}
    fit = Fit(np.full(len(data.rows), np.nan), np.full(len(data.rows), -1), np.zeros(0))
    if len(data.names) > 1:
        cameras = np.unique([str(entries[row].item.camid) for row in data.whole], return_inverse=True)[1]
        side = np.array([name[0] for name in data.names])
        fit = fit_labels(data.rows, data.identity, side, rng=rng, progress=step(progress, "comparing pictures"))
        people = find_two_people(data.rows, data.members, rng=rng, progress=step(progress, "cutting identities"))
        names = find_two_names(
            data.rows, data.members, cameras, rng=rng, progress=step(progress, "comparing identities")
        )
        cut, shares["two people"] = chances(people.alike, people.wrong)
        joined, shares["two names"] = chances(names.apart, names.wrong)
        misnamed, shares["wrong identity"] = chances(fit.margin, fit.wrong)
        findings += _two_people(data, people, cut, least)
        findings += _two_names(data, names, joined, least)
    findings += _copies(data, copies, fit)
    if len(data.names) > 1:
        findings += _wrong_identities(data, fit, misnamed, least, _explained(data, findings))
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), -finding.score))
    return Faults(tuple(findings), shares)


def _in_numbers(descriptors: np.ndarray, entries: Sequence[Placed]) -> _Data:
    whole = np.array([row for row, entry in enumerate(entries) if entry.is_person], np.int64)
    keys = [(int(not entries[row].is_training), entries[row].item.pid) for row in whole]
    numbers: dict[tuple[int, Label], int] = {}
    identity = np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)
    order = np.argsort(identity, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(identity))[:-1]) if len(identity) else []
    rows = np.ascontiguousarray(np.asarray(descriptors, np.float32)[whole])
    return _Data(entries, rows, whole, identity, list(numbers), members)


# ---- each kind ---------------------------------------------------------------------------------------------


def _wrong_identities(
    data: _Data, fit: Fit, probability: np.ndarray, least: float, explained: set[int]
) -> Iterator[Finding]:
    for row in np.flatnonzero(probability >= max(least, 1e-9)).tolist():
        if int(data.whole[row]) in explained or fit.best[row] < 0:
            continue
        own, other = int(data.identity[row]), int(fit.best[row])
        here, there = data.names[own][1], data.names[other][1]
        yield Finding(
            "wrong identity",
            float(probability[row]),
            f"named {here}, and nearer to {there}",
            f"name it {there}",
            (
                Group("The picture", (int(data.whole[row]),)),
                Group(f"Its identity, {here}", _nearest(data, row, own)),
                Group(f"The other, {there}", _nearest(data, row, other)),
            ),
            {int(data.whole[row]): str(there)},
        )


def _two_people(data: _Data, people: TwoPeople, probability: np.ndarray, least: float) -> Iterator[Finding]:
    taken = {str(name) for _, name in data.names}
    for number in np.flatnonzero(probability >= max(least, 1e-9)).tolist():
        groups = people.groups[number]
        if groups is None:
            continue
        name = data.names[number][1]
        new = next(text for turn in range(2, 10**9) if (text := f"{name}-{turn}") not in taken)
        taken.add(new)
        yield Finding(
            "two people",
            float(probability[number]),
            f"identity {name} falls into {len(groups[0])} and {len(groups[1])} pictures",
            f"name the {len(groups[1])} pictures {new}",
            tuple(Group(f"{len(group)} pictures", _some(data, group)) for group in groups),
            {int(row): new for row in data.whole[groups[1]]},
        )


def _two_names(data: _Data, names: TwoNames, probability: np.ndarray, least: float) -> Iterator[Finding]:
    for pair in np.flatnonzero(probability >= max(least, 1e-9)).tolist():
        # Kept is the one of more pictures; of a leak the one to test with.
        one, other = sorted(
            names.pairs[pair].tolist(), key=lambda number: (-data.names[number][0], -len(data.members[number]))
        )
        (side, kept), (other_side, given_up) = data.names[one], data.names[other]
        groups = tuple(
            Group(f"Identity {data.names[number][1]}{_in_split(data, number)}", _some(data, data.members[number]))
            for number in (one, other)
        )
        pictures = data.whole[data.members[other]].tolist()
        if side != other_side:
            reason = f"{given_up} in training looks like {kept} in test"
            suggestion = f"take the {len(pictures)} pictures of {given_up} out of training"
            yield Finding("leak", float(probability[pair]), reason, suggestion, groups, dict.fromkeys(pictures, REMOVE))
            continue
        yield Finding(
            "two names",
            float(probability[pair]),
            f"{kept} and {given_up} look like one person",
            f"name the {len(pictures)} pictures of {given_up} {kept}",
            groups,
            dict.fromkeys(pictures, str(kept)),
            (given_up, kept),
        )


def _same_names(data: _Data) -> Iterator[Finding]:
    """Yield a leak for every identity that is in training and in test by name."""
    number_of = {name: number for number, name in enumerate(data.names)}
    for side, name in data.names:
        if side == 0 and (1, name) in number_of:
            training, test = data.members[number_of[0, name]], data.members[number_of[1, name]]
            groups = tuple(Group(title, _some(data, some)) for title, some in (("Training", training), ("Test", test)))
            yield Finding(
                "leak",
                1.0,
                f"identity {name} is in training and in test",
                f"take its {len(training)} pictures out of training",
                groups,
                dict.fromkeys(data.whole[training].tolist(), REMOVE),
            )


def _copies(data: _Data, copies: Sequence[Copies], fit: Fit) -> Iterator[Finding]:
    margin = dict(zip(data.whole.tolist(), np.nan_to_num(fit.margin, nan=-9).tolist(), strict=True))
    for group in copies:
        entries = [data.entries[row] for row in group.rows]
        alike = "the same bytes" if group.exact else f"{group.agreement:.0%} of a perceptual hash alike"
        names = list(dict.fromkeys(str(entry.item.pid) for entry in entries))
        named = f", under the names {' and '.join(names)}" if len(names) > 1 else ""
        shown = tuple(
            Group(f"{entry.item.pid} in {entry.split}", (row,)) for row, entry in zip(group.rows, entries, strict=True)
        )[: 2 * _SHOWN]
        training = [row for row in group.rows if data.entries[row].is_training]
        if training and len(training) < len(group.rows):
            yield Finding(
                "leak",
                group.agreement,
                f"a picture of training is in test too: {alike}{named}",
                f"take {_pictures(len(training))} out of training",
                shown,
                dict.fromkeys(training, REMOVE),
            )
            continue
        # A query before the gallery, then what fits its identity best, then the first.
        kept = min(group.rows, key=lambda row: (data.entries[row].split == "gallery", -margin.get(row, -9.0), row))
        removed = [row for row in group.rows if row != kept]
        yield Finding(
            "duplicate",
            group.agreement,
            f"{len(group.rows)} copies: {alike}{named}",
            f"remove {_pictures(len(removed))}, and keep {data.entries[kept].item.path.name}",
            shown,
            dict.fromkeys(removed, REMOVE),
        )


def _explained(data: _Data, findings: Sequence[Finding]) -> set[int]:
    """Return the items that other findings change, or show as copies or as one of two names of a person."""
    rows = {row for finding in findings for row in finding.changes}
    rows |= {row for finding in findings if finding.kind in ("duplicate", "leak") for row in finding.rows}
    named: dict[tuple[int, Label], list[int]] = defaultdict(list)
    for row, entry in enumerate(data.entries):
        named[int(not entry.is_training), entry.item.pid].append(row)
    for finding in findings:
        if finding.kind in ("two names", "two people"):
            first = data.entries[finding.groups[0].rows[0]]
            rows.update(named[int(not first.is_training), first.item.pid])
    return rows


# ---- pictures and words ------------------------------------------------------------------------------------


def _nearest(data: _Data, row: int, identity: int) -> tuple[int, ...]:
    members = data.members[identity]
    members = members[members != row]
    order = np.argsort(-(data.rows[members] @ data.rows[row]), kind="stable")[:_SHOWN]
    return _whole(data, members[order])


def _whole(data: _Data, rows: np.ndarray) -> tuple[int, ...]:
    return tuple(data.whole[rows].tolist())


def _some(data: _Data, rows: np.ndarray) -> tuple[int, ...]:
    return _whole(data, evenly(rows, _SHOWN))


def _in_split(data: _Data, number: int) -> str:
    return " in training" if data.names[number][0] == 0 else " in test"


def _pictures(count: int) -> str:
    return "one picture" if count == 1 else f"{count} pictures"
