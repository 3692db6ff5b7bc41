"""Rank a gallery by descriptors: mean average precision, CMC and mINP, exactly, in bounded memory.

All three need one thing per query: the ranks of its true matches. A rank is one more than the number of
gallery rows that come before the match, so it is *counted*: no query × gallery matrix is kept, none sorted.
The data flows one way: a block of distances -> ranks of its matches -> metrics in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from reprism.deprecation import renamed_arguments
from reprism.evaluation.counting import ranks_of_matches
from reprism.evaluation.crowding import warn_of_collapse
from reprism.evaluation.distances import (
    AllPairsDistances,
    Distances,
    EuclideanDistances,
    GivenDistances,
    Matrix,
    as_matrix,
)
from reprism.evaluation.identities import Identities, Labels
from reprism.evaluation.refined import RefinedDistances
from reprism.progress import Count

AveragePrecision: TypeAlias = Literal["step", "trapezoid"]
LostQueries: TypeAlias = Literal["exclude", "zero"]

_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True, eq=False, repr=False)
class RankingMetrics:
    """Scores of a ranking. Figures are fractions in [0, 1], never percent.

    The per-query arrays are in the order of the queries (of single-gallery-shot trials, one after the other); every
    mean derives from them, so both definitions of average precision are at hand whichever one ``ap`` names.

    Attributes:
        average_precision_step: N float64, mean over the true matches of k / rank_k; NaN if lost.
        average_precision_trapezoid: N float64, area under precision over recall by trapezoids; NaN if lost.
        inverse_negative_penalty: N float64, number of true matches / rank of the last one; NaN if lost. mINP
            is its mean (Ye et al. 2021, "Deep Learning for Person Re-identification: A Survey and Outlook").
        first_match_rank: N int64, rank (from 1) of the nearest true match; 0 if lost.
        ap: The definition that ``mAP`` and ``average_precision`` use.
        lost: ``"exclude"``: means are over the valid queries; ``"zero"``: lost ones score 0 in every mean.
        max_rank: The length of ``cmc``.
        trials: Number of rankings of every query in the arrays; means are over all of them.
    """

    average_precision_step: np.ndarray
    average_precision_trapezoid: np.ndarray
    inverse_negative_penalty: np.ndarray
    first_match_rank: np.ndarray
    ap: AveragePrecision = "step"
    lost: LostQueries = "exclude"
    max_rank: int = 50
    trials: int = 1

    @property
    def mAP(self) -> float:  # noqa: N802  # the field's own name
        """Mean average precision by the definition that ``ap`` names."""
        return self._mean(self.average_precision)

    @property
    def mAP_step(self) -> float:  # noqa: N802
        """Mean average precision, ``step`` definition."""
        return self._mean(self.average_precision_step)

    @property
    def mAP_trapezoid(self) -> float:  # noqa: N802
        """Mean average precision, ``trapezoid`` definition."""
        return self._mean(self.average_precision_trapezoid)

    @property
    def mINP(self) -> float:  # noqa: N802
        """Mean inverse negative penalty: how soon the *hardest* true match is found."""
        return self._mean(self.inverse_negative_penalty)

    @property
    def average_precision(self) -> np.ndarray:
        """Average precision of each query (N float64), NaN for a lost one."""
        return self.average_precision_step if self.ap == "step" else self.average_precision_trapezoid

    @property
    def cmc(self) -> np.ndarray:
        """Cumulative matching characteristic, float64: ``cmc[k - 1] == rank(k)`` for k = 1 … ``max_rank``."""
        first = self.first_match_rank[self.first_match_rank > 0]
        hits = np.bincount(first[first <= self.max_rank], minlength=self.max_rank + 1)[1:]
        return np.cumsum(hits) / self._denominator

    @property
    def num_queries(self) -> int:
        """All queries, lost ones included."""
        return len(self.first_match_rank) // self.trials

    @property
    def num_valid_queries(self) -> int:
        """Queries with at least one true match in the gallery."""
        return self.num_queries - len(self.lost_queries)

    @property
    def lost_queries(self) -> tuple[int, ...]:
        """Indices of the queries that have no true match left in the gallery, ascending."""
        return tuple(np.flatnonzero(self.first_match_rank[: self.num_queries] == 0).tolist())

    def rank(self, k: int) -> float:
        """Fraction of queries with a true match among their first ``k`` rows (``k`` from 1; rank-1 accuracy).

        Raises:
            ValueError: ``k`` is less than 1.
        """
        if k < 1:
            raise ValueError(f"rank(k) was given k={k}: ranks count from 1")
        first = self.first_match_rank
        return float(np.count_nonzero((first > 0) & (first <= k)) / self._denominator)

    def as_dict(self) -> dict[str, Any]:
        """Return the summary with its protocol, ready for JSON: fractions, counts, options; no per-query figure."""
        ranks = {f"rank{k}": self.rank(k) for k in (1, 5, 10, 20) if k <= self.max_rank}
        return {
            "mAP": self.mAP,
            "mINP": self.mINP,
            **ranks,
            "num_queries": self.num_queries,
            "num_valid_queries": self.num_valid_queries,
            "num_lost_queries": self.num_queries - self.num_valid_queries,
            "ap": self.ap,
            "lost": self.lost,
            "trials": self.trials,
        }

    @property
    def _denominator(self) -> int:
        return self.trials * (self.num_queries if self.lost == "zero" else self.num_valid_queries)

    def _mean(self, per_query: np.ndarray) -> float:
        return float(np.nansum(per_query) / self._denominator)

    def __repr__(self) -> str:
        return f"RankingMetrics({', '.join(f'{name}={value!r}' for name, value in self.as_dict().items())})"


@renamed_arguments(all_pairs_runs="all_pairs_segments")
def evaluate(
    query: Matrix,
    gallery: Matrix,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels | None,
    gallery_camids: Labels | None,
    *,
    ap: AveragePrecision = "step",
    lost: LostQueries = "exclude",
    max_rank: int = 50,
    all_pairs_segments: int = 1,
    block_bytes: int = _BLOCK_BYTES,
    progress: Count | None = None,
) -> RankingMetrics:
    """Rank the gallery for every query by Euclidean distance and score the ranking.

    The protocol is Market-1501's (Zheng et al. 2015): a gallery row with the query's identity *and*
    camera is ignored for that query; a query with no true match left is lost: counted, listed, and treated as
    ``lost`` says. Rows labelled junk (pid −1) do not belong in the gallery; distractors (pid 0) do.

    Descriptors are compared as given, not normalised, and the caller's arrays are never changed. Distances
    are float32 (float16 and bfloat16 are widened block by block), or float64 if either side is. If one side
    is on a GPU the work is done there, the other side streamed to it. On processors that multiply bfloat16 or
    integers of 8 bits fast, wide float32 descriptors are first compared in those, with a proven bound on the error,
    and in float32 wherever that leaves a rank open (:mod:`reprism.evaluation.refined`): the ranks are float32's, for
    less than its product.
    Rows that crowd together far from the origin are centred first, a block at a time
    (:mod:`reprism.evaluation.crowding`): no distance changes, and float32 tells them apart. A ``UserWarning`` says so
    if descriptors have collapsed: more than half of the gallery within a tenth of a descriptor's length of one point.

    *Ties.* Equal distances rank in gallery order. A row is ranked by ‖g‖² − 2·q·g, from blocked matrix
    products. Two identical gallery rows tie if the product rounds them alike: libraries mostly do so, but
    promise nothing across the edges of their inner tiles, nor of these blocks. Distances closer than that
    rounding (in float32 about 1e-6 of the squared norms, of crowded rows after centring) may come in either
    order, and may change it with ``block_bytes``. ``torch.set_float32_matmul_precision`` below ``"highest"``
    coarsens it on devices that follow it. For exact ties, give the distances to :func:`evaluate_distances`.

    Args:
        query: N×D floating-point torch tensor or numpy array (memory-mapped too).
        gallery: M×D, likewise.
        query_pids: N identities: integers, strings, any hashables.
        gallery_pids: M identities.
        query_camids: N cameras, or None on both sides: cameras unknown, nothing is ignored.
        gallery_camids: M cameras, or None.
        ap: ``"step"`` (mean over the true matches of k / rank_k, as most toolkits) or ``"trapezoid"`` (as the
            original Market-1501, MARS and CUHK03 MATLAB code). The result holds both.
        lost: ``"exclude"`` lost queries from every mean, or let them score ``"zero"`` (the MATLAB code).
        max_rank: Length of the CMC curve.
        all_pairs_segments: 1: rows are compared whole, as in the paper. R: a row is the R descriptors of a tracklet's
            segments side by side, and a distance is the sum of the R² Euclidean distances between a query's and a
            gallery row's segments, as in the released SCR code.
        block_bytes: Bound on the working memory in bytes, whatever N and M (some arrays of length N or M come
            on top). If it cannot hold a fair number of rows, the gallery is cut too, and the distances of the
            parts with true matches are computed twice.
        progress: Called after each block with (queries done, queries to do); lost queries are not to do.

    Raises:
        ValueError: Disagreeing widths or lengths, an empty side, NaN or infinite values, no query with a true
            match, or an option out of range: all found before the ranking starts.
        TypeError: Something that is not a floating-point matrix, or labels that cannot be hashed.
    """
    _check_options(ap, lost, max_rank, block_bytes)
    query, gallery = as_matrix(query, "query"), as_matrix(gallery, "gallery")
    if query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"query descriptors are {query.shape[1]} wide and gallery descriptors {gallery.shape[1]}: "
            "both must come from the same model and settings"
        )
    if all_pairs_segments < 1 or query.shape[1] % all_pairs_segments:
        raise ValueError(
            f"all_pairs_segments={all_pairs_segments}: rows of width {query.shape[1]} are not so many descriptors"
        )
    identities = Identities.of((query_pids, query_camids), (gallery_pids, gallery_camids), len(query), len(gallery))
    warn_of_collapse(gallery)
    distances: Distances
    if all_pairs_segments > 1:
        distances = AllPairsDistances(query, gallery, all_pairs_segments, block_bytes)
    else:
        plain = EuclideanDistances(query, gallery, block_bytes)
        distances = RefinedDistances.where_faster(plain, identities, block_bytes)
    return _evaluate(distances, identities, ap, lost, max_rank, block_bytes, progress)


def evaluate_distances(
    distances: Matrix | Distances,
    query_pids: Labels,
    gallery_pids: Labels,
    query_camids: Labels | None,
    gallery_camids: Labels | None,
    *,
    ap: AveragePrecision = "step",
    lost: LostQueries = "exclude",
    max_rank: int = 50,
    block_bytes: int = _BLOCK_BYTES,
    progress: Count | None = None,
) -> RankingMetrics:
    """Score the ranking by distances already at hand (re-ranked ones, another metric).

    As :func:`evaluate`, arguments and errors included, but equal distances rank in gallery order *exactly*.

    Args:
        distances: N×M floating-point torch tensor or numpy array (memory-mapped too), finite, smaller is
            closer. It is read block by block and never changed. Or whatever fills blocks of them
            (:class:`reprism.evaluation.distances.Distances`), such as re-ranked ones.
        query_pids, gallery_pids, query_camids, gallery_camids: Labels of its rows and of its columns.
        ap, lost, max_rank, block_bytes, progress: As in :func:`evaluate`.
    """
    _check_options(ap, lost, max_rank, block_bytes)
    given = GivenDistances(as_matrix(distances, "distances")) if isinstance(distances, Matrix) else distances
    identities = Identities.of((query_pids, query_camids), (gallery_pids, gallery_camids), *given.shape)
    return _evaluate(given, identities, ap, lost, max_rank, block_bytes, progress)


# ---- from ranks to metrics -------------------------------------------------------------------------------


def _evaluate(
    distances: Distances,
    identities: Identities,
    ap: AveragePrecision,
    lost: LostQueries,
    max_rank: int,
    block_bytes: int,
    progress: Count | None,
) -> RankingMetrics:
    step, trapezoid, penalty = (np.full(len(identities.num_matches), np.nan) for _ in range(3))
    first = np.zeros(len(step), dtype=np.int64)
    done, todo = 0, int(np.count_nonzero(identities.num_matches))
    for queries, ranks in ranks_of_matches(distances, identities, block_bytes):
        # B×n: the k-th column is the rank of the k-th match; where a query has fewer, `real` is False.
        n = identities.num_matches[queries]
        k = np.arange(1, ranks.shape[1] + 1)
        real = k <= n[:, None]
        r = np.sort(np.where(real, ranks, np.iinfo(np.int64).max), axis=1)
        precision = k / r
        before = np.where(r == 1, 1.0, (k - 1) / np.maximum(r - 1, 1))
        step[queries] = np.where(real, precision, 0).sum(1) / n
        trapezoid[queries] = np.where(real, (before + precision) / 2, 0).sum(1) / n
        first[queries] = r[:, 0]
        penalty[queries] = n / r[np.arange(len(r)), n - 1]
        done += len(queries)
        if progress is not None:
            progress(done, todo)
    return RankingMetrics(step, trapezoid, penalty, first, ap=ap, lost=lost, max_rank=max_rank)


# ---- what the caller gave --------------------------------------------------------------------------------


def _check_options(ap: str, lost: str, max_rank: int, block_bytes: int) -> None:
    for option, value, allowed in (("ap", ap, AveragePrecision), ("lost", lost, LostQueries)):
        if value not in get_args(allowed):
            raise ValueError(f"{option}={value!r} is unknown: choose {' or '.join(map(repr, get_args(allowed)))}")
    for option, number in (("max_rank", max_rank), ("block_bytes", block_bytes)):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(f"{option}={number!r}: expected an integer of at least 1")
