"""Transit times between cameras: learned from matches, used as evidence for other matches.

Two cameras of a site see the same person at times that lie apart as the way between them takes, and other people at any
time. For every two views (a camera in a recording) the gaps between matched sightings are counted, and divided by how
often any two sightings of theirs lie so far apart. The logarithm of that ratio is evidence, to be added to that of
appearance. An offset between two cameras' clocks moves the gaps of all who walk there, and does no harm.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reprism.data.records import Item
from reprism.files import write_json
from reprism.linking.answers import Answers, Basis
from reprism.linking.gains import HeldOut
from reprism.linking.gallery_sightings import read_sightings
from reprism.linking.matches import Bonus, mutual_nearest
from reprism.linking.network_file import MOST_BINS, Contents, as_values, read_values
from reprism.linking.ratios import Histogram, Ratios, TransitSettings, View, ratios_between
from reprism.linking.ways import Transit, count_gaps, transit_of
from reprism.progress import Progress, step

if TYPE_CHECKING:
    from reprism.gallery.table import Gallery


class CameraNetworkError(ValueError):
    """A file holds no network of cameras, or sightings are too few to learn one."""


@dataclass(frozen=True, eq=False)
class CameraNetwork:
    """What sightings of a site's cameras say about the time between them.

    Attributes:
        sightings: For every view, the number of sightings in each bin of its clock.
        gaps: For every two views of two cameras, the number of matched pairs by gap in bins, the second's time less the
            first's. Views are in order.
        settings: Bins, smoothing, and how much counts as known before.
        held_out: What matches that were held out say about it (:func:`reprism.linking.held_out.hold_out`), if known.
        basis: How the matches were found, if known.
    """

    sightings: Mapping[View, Histogram]
    gaps: Mapping[tuple[View, View], Histogram]
    settings: TransitSettings = field(default_factory=TransitSettings)
    held_out: HeldOut | None = None
    basis: Basis | None = None

    def __repr__(self) -> str:
        cameras = len({view.camera for view in self.sightings})
        return f"CameraNetwork({cameras} cameras, {len(self.sightings)} views, {self.num_pairs:,} matched pairs)"

    def describe(self) -> str:
        """Return in words what it was learned from, and how sure it is if matches were held out."""
        cameras = len({view.camera for view in self.sightings})
        by = "" if self.basis is None else f" {self.basis.describe()}".rstrip()
        known = "" if self.held_out is None else f"; {self.held_out.describe()}"
        return f"transit times between {cameras} cameras, learned from {self.num_pairs:,} matches{by}{known}"

    @property
    def weight(self) -> float:
        """Weight of the cosine of two descriptors beside the logarithm of the ratio."""
        return self.settings.weight

    @property
    def num_pairs(self) -> int:
        """Matched pairs that it was learned from."""
        return sum(sum(histogram.values()) for histogram in self.gaps.values())

    # ---- learning --------------------------------------------------------------------------------------------

    @classmethod
    def learn(
        cls,
        descriptors: np.ndarray,
        items: Sequence[Item],
        *,
        rounds: int = 3,
        settings: TransitSettings | None = None,
        use_identities: bool = False,
        together: np.ndarray | None = None,
        apart: np.ndarray | None = None,
        progress: Progress | None = None,
    ) -> CameraNetwork:
        """Learn from sightings, whose people may be unknown.

        Rows of two cameras that are each other's nearest are taken for the same person. The gaps between them make a
        network, by which the nearest are found again, until they stay the same. No identity is looked at, unless you
        ask for it; a person's answers count before looks and times. Time grows with the square of the sightings.

        Args:
            descriptors: N×D of ``items``; best normalized by camera (:class:`reprism.CameraStatistics`).
            items: Images or tracklets. Those without a camera or a time take no part.
            rounds: Most times that matches are found.
            settings: Bins, smoothing and weight (default: ``TransitSettings()``).
            use_identities: Take matches from the items' identities: of one identity's sightings by two cameras, those
                that are each other's nearest, at most one for each sighting. Junk and distractors match nobody.
            together: K×2 indices of sightings of one person. Those of two cameras always count as matches.
            apart: L×2 indices of sightings of two people. They never match, nor does whoever is together with the one
                and whoever is together with the other.
            progress: Called as ``progress(what, done, total)``.

        Raises:
            CameraNetworkError: No two cameras have sightings with times.
            ValueError: Numbers of descriptors and items differ, a setting is out of range, or sightings are to be both
                together and apart.
        """
        if len(descriptors) != len(items):
            raise ValueError(f"expected a descriptor for each of {len(items)} items, got {len(descriptors)}")
        if rounds < 1:
            raise ValueError(f"expected rounds of at least 1, got {rounds}")
        known = np.array([n for n, item in enumerate(items) if item.camid is not None and item.time is not None], int)
        chosen = [items[row] for row in known]
        cameras = np.unique([str(item.camid) for item in chosen], return_inverse=True)[1]
        if not len(cameras) or cameras.max() < 1:
            raise CameraNetworkError(
                "expected sightings by two cameras with times, got none: give items a camid and a time"
            )
        settings = settings or TransitSettings()
        answers = Answers.of(items, use_identities=use_identities, together=together, apart=apart).of_rows(known)
        rows = settings.weight**0.5 * _unit(np.asarray(descriptors)[known])
        # Times would choose those of a known person's sightings that agree with them, so that looks alone do.
        rounds = 1 if use_identities else rounds

        def matches(number: int, evidence: Bonus | None) -> np.ndarray:
            counted = step(progress, f"matches, round {number}")
            found = mutual_nearest(rows, cameras, answers.bonus(evidence), progress=counted)
            return answers.joined(found, cameras)

        pairs = matches(1, None)
        network = cls.of_pairs(chosen, pairs, settings)
        for number in range(2, rounds + 1):
            before, pairs = pairs, matches(number, _Evidence(network, chosen))
            if np.array_equal(pairs, before):
                break
            network = cls.of_pairs(chosen, pairs, settings)
        return replace(network, basis=answers.basis)

    @classmethod
    def of_gallery(
        cls,
        gallery: Gallery,
        *,
        rounds: int = 3,
        settings: TransitSettings | None = None,
        now: datetime | None = None,
        progress: Progress | None = None,
    ) -> CameraNetwork:
        """Learn from the rows of a gallery for which linking is switched on (:meth:`reprism.Gallery.enable_linking`).

        Rows with a camera and a time that linking keeps take part, normalized by camera. Rows that the gallery held
        before leave no trace in it. It is not kept in the gallery, as ``reprism link learn`` keeps it.

        Args:
            gallery: The gallery.
            rounds, settings, progress: As for :meth:`learn`.
            now: Moment from which rows' age counts, with a time zone (default: the present one).

        Raises:
            LinkingError: Linking is off, or more rows would take part than can be compared.
            CameraNetworkError: No two cameras have rows with times.
        """
        found = read_sightings(gallery, now)
        if not found.rows:
            return cls.learn(found.descriptors, found.items, rounds=rounds, settings=settings)
        rows = found.normalized(found.statistics())
        return cls.learn(rows, found.items, rounds=rounds, settings=settings, progress=progress)

    @classmethod
    def of_pairs(
        cls, items: Sequence[Item], pairs: np.ndarray, settings: TransitSettings | None = None
    ) -> CameraNetwork:
        """Count the gaps between matched sightings.

        Args:
            items: Sightings, each with a camera and a time.
            pairs: P×2 indices of sightings of one person in two cameras.
            settings: Bins and smoothing (default: ``TransitSettings()``).

        Raises:
            ValueError: An item has no camera or no time, a pair is of one camera, or a view's times lie too far apart.
        """
        settings = settings or TransitSettings()
        for item in items:
            if item.camid is None or item.time is None:
                raise ValueError(f"expected a camera and a time of every sighting, got none of {item.path}")
        views = [_view(item) for item in items]
        bins = _bins(items, settings)
        sightings: dict[View, Counter[int]] = {view: Counter() for view in sorted(set(views))}
        for view, at in zip(views, bins.tolist(), strict=True):
            sightings[view][at] += 1
        for view, histogram in sightings.items():
            if max(histogram) - min(histogram) >= MOST_BINS:
                raise ValueError(
                    f"the sightings by camera {view.camera} lie {max(histogram) - min(histogram):,} bins apart: give "
                    "wider bins (bin_seconds), or leave times out that cannot be right"
                )
        gaps: dict[tuple[View, View], Counter[int]] = {}
        for one, other in np.asarray(pairs).tolist():
            if views[one].camera == views[other].camera:
                raise ValueError(f"expected pairs of two cameras, got two sightings by camera {views[one].camera}")
            if views[one] > views[other]:
                one, other = other, one
            gap = int(np.clip(bins[other] - bins[one], -settings.reach - 1, settings.reach + 1))
            gaps.setdefault((views[one], views[other]), Counter())[gap] += 1
        return cls(
            {view: dict(sorted(counts.items())) for view, counts in sightings.items()},
            {key: dict(sorted(gaps[key].items())) for key in sorted(gaps)},
            settings,
        )

    # ---- using -----------------------------------------------------------------------------------------------

    def log_ratio(self, query: Sequence[Item], gallery: Sequence[Item]) -> np.ndarray:
        """Return how much likelier the times of two sightings are for one person than for any two, as logarithms.

        Two views that were learned have their own ratio. In another recording it is the ratio of the two cameras in all
        recordings. It is 0, which says nothing, for one camera, for cameras that had too few matches, for those whose
        held-out matches do not lie where these do (:attr:`reprism.linking.gains.Gain.is_doubtful`), for an unknown
        camera or time, and across recordings that were not learned.

        Args:
            query, gallery: N and M images or tracklets.

        Returns:
            N×M float32, natural logarithms.
        """
        out = np.zeros((len(query), len(gallery)), np.float32)
        sides = [_grouped(items, self.settings) for items in (query, gallery)]
        reach = self.settings.reach
        for one, (rows, from_bins) in sides[0].items():
            for other, (columns, to_bins) in sides[1].items():
                table = self.ratio_by_gap(min(one, other), max(one, other))
                if table is not None:
                    gap = to_bins[None] - from_bins[:, None]
                    gap = np.clip(gap if one < other else -gap, -reach - 1, reach + 1)
                    out[np.ix_(rows, columns)] = table[gap + reach + 1]
        return out

    def transits(self) -> dict[tuple[str, str], Transit]:
        """Return what was counted between every two cameras within one recording, whose gaps are comparable.

        Returns:
            By the two cameras, in order; cameras without a match in one recording are left out.
        """
        pairs = {(one.camera, other.camera) for one, other in self.gaps if one.recording == other.recording}
        return {
            cameras: transit_of(
                count_gaps(cameras, self.sightings, self.gaps, self.settings.reach),
                self.settings,
                known=cameras in self._tables,
                doubtful=self._is_doubtful(*cameras),
            )
            for cameras in sorted(pairs)
        }

    def _is_doubtful(self, one: str, other: str) -> bool:
        gain = None if self.held_out is None else self.held_out.cameras.get((one, other))
        return gain is not None and gain.is_doubtful

    def ratio_by_gap(self, one: View, other: View) -> np.ndarray | None:
        """Return the logarithm of the ratio of two views by the gap between sightings.

        Args:
            one, other: Views of two cameras, in order. A gap is the second's time less the first's.

        Returns:
            2·reach + 3 logarithms: of gaps beyond the horizon before, of those from -reach to reach bins, and of gaps
            beyond the horizon after; None where nothing is known.
        """
        pair = self._tables.get((one.camera, other.camera))
        if pair is None:
            return None
        if (one, other) in pair.views:
            return pair.views[one, other]
        return pair.pooled if one.recording == other.recording else None

    @cached_property
    def _tables(self) -> dict[tuple[str, str], Ratios]:
        views: dict[str, list[View]] = {}
        for view in self.sightings:
            views.setdefault(view.camera, []).append(view)
        counted = Counter[tuple[str, str]]()
        for (one, other), histogram in self.gaps.items():
            counted[one.camera, other.camera] += sum(histogram.values())
        return {
            (one, other): ratios_between(views[one], views[other], self.sightings, self.gaps, self.settings)
            for (one, other), pairs in counted.items()
            if pairs >= self.settings.least_pairs and not self._is_doubtful(one, other)
        }

    # ---- files -----------------------------------------------------------------------------------------------

    def save(self, path: str | PathLike[str]) -> Path:
        """Write it as JSON, whole: counts by time and gap, and no identity, no row, no picture."""
        write_json(path, self.as_dict())
        return Path(path)

    def as_dict(self) -> dict[str, Any]:
        """Return what :meth:`save` writes."""
        return as_values(Contents(self.sightings, self.gaps, self.settings, self.held_out, self.basis))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> CameraNetwork:
        """Read what :meth:`save` wrote.

        Raises:
            CameraNetworkError: The file is missing, holds something else, or is of a newer version; names it.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise CameraNetworkError(f"{path} holds no network of cameras: {error}") from error
        return cls.from_json(text, str(path))

    @classmethod
    def from_json(cls, text: str, name: str = "the text") -> CameraNetwork:
        """Read what :meth:`save` wrote, from the file's text.

        Args:
            text: JSON.
            name: What to call it in an error.

        Raises:
            CameraNetworkError: It is something else, or of a newer version.
        """
        try:
            return cls(*read_values(json.loads(text)))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
            raise CameraNetworkError(f"{name} holds no network of cameras: {error}") from error


class _Evidence:
    """The ratios of sightings by their indices, as matches ask for them."""

    def __init__(self, network: CameraNetwork, items: Sequence[Item]) -> None:
        self.network, self.items = network, items

    def __call__(self, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        return self.network.log_ratio([self.items[row] for row in rows], [self.items[row] for row in others])


def _view(item: Item) -> View:
    return View(str(item.camid), item.recording or "")


def _bins(items: Sequence[Item], settings: TransitSettings) -> np.ndarray:
    return np.floor(np.array([item.time for item in items], float) / settings.bin_seconds).astype(np.int64)


def _grouped(items: Sequence[Item], settings: TransitSettings) -> dict[View, tuple[np.ndarray, np.ndarray]]:
    """Return the indices and the bins of the sightings of each view; those of unknown camera or time are left out."""
    rows: dict[View, list[int]] = {}
    for row, item in enumerate(items):
        if item.camid is not None and item.time is not None:
            rows.setdefault(_view(item), []).append(row)
    return {view: (np.array(some), _bins([items[row] for row in some], settings)) for view, some in rows.items()}


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1 in float32."""
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
