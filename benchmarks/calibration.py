"""Measure how often the 95 % intervals of a calibration cover the truth: ``python benchmarks/calibration.py``.

People are drawn again and again from a population whose rates are known in closed form, and calibrated; counted is how
often the intervals cover the rates that the reported threshold has in that population. Beside them: intervals that
resample the query's people alone.

A person is a point of a normal distribution in 8 dimensions; their pictures lie around it, of some people closely, of
others loosely; some people ("common") lie near the middle, where everybody looks like them. So a squared distance is a
multiple of a chi-squared one.
"""

import argparse
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from reprism.data.records import Sample
from reprism.evaluation.calibration import calibrate
from reprism.evaluation.pair_counts import LabelledRows

WIDTH, SPREADS = 8, (0.2, 0.5)
FMRS = (0.1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class Population:
    """People, their cameras, pictures by each (one asks), distractors, and how far out common people lie."""

    name: str
    people: int
    cameras: int = 3
    pictures: int = 2
    distractors: int = 0
    common: float = 1.0

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[Sample], list[Sample]]:
        """A query and a gallery."""
        pids = np.repeat(np.arange(1, self.people + 1), self.cameras)
        centers, spreads = self._people(rng, self.people)
        seen = [self._pictures(rng, centers, spreads, self.cameras) for _ in range(self.pictures)]
        items = [Sample(Path("x"), int(pid), n % self.cameras) for n, pid in enumerate(pids)]
        strangers = self._pictures(rng, *self._people(rng, self.distractors), 1)
        theirs = [Sample(Path("x"), 0, int(camera)) for camera in rng.integers(self.cameras, size=self.distractors)]
        return seen[0], np.concatenate([*seen[1:], strangers]), items, items * (self.pictures - 1) + theirs

    def rates(self, threshold: float) -> tuple[float, float]:
        """False match rate and true positive rate of a threshold."""
        kinds = list(product(SPREADS, (self.common, 1.0)))
        same = [chi2.cdf(threshold**2 / (2 * spread**2), WIDTH) for spread, _ in kinds]
        different = [
            chi2.cdf(threshold**2 / (sum(spread**2 + out**2 for spread, out in two)), WIDTH)
            for two in product(kinds, repeat=2)
        ]
        return float(np.mean(different)), float(np.mean(same))

    def _people(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        out = rng.choice([self.common, 1.0], (count, 1))
        return out * rng.normal(size=(count, WIDTH)), rng.choice(SPREADS, (count, 1))

    def _pictures(self, rng: np.random.Generator, centers: np.ndarray, spreads: np.ndarray, each: int) -> np.ndarray:
        rows = np.repeat(centers, each, 0) + np.repeat(spreads, each, 0) * rng.normal(size=(len(centers) * each, WIDTH))
        return rows.astype(np.float32)


POPULATIONS = (
    Population("40 people", 40),
    Population("40 people, 80 distractors", 40, distractors=80),
    Population("60 people, half of them common", 60, common=0.5),
    Population("150 people, half of them common", 150, common=0.5),
    Population("150 people, 2 cameras, 400 distractors", 150, cameras=2, distractors=400),
)


def by_queries(case: tuple, thresholds: list[float], rng: np.random.Generator) -> list[tuple[float, float]]:
    """Intervals of false match rates by drawing the query's people alone, as the subsets bootstrap does."""
    rows = LabelledRows(*case)
    asking, asked = rows.met
    met = asking @ asked.sum(0) - np.einsum("pc,pc->p", asking, asked)
    draws = rng.multinomial(rows.query_people, np.full(rows.query_people, 1 / rows.query_people), size=300)
    found = []
    distance = np.sqrt(((rows.query.numpy()[:, None] - rows.gallery.numpy()) ** 2).sum(2))
    pair = (rows.query_person[:, None] != rows.gallery_person) & (rows.query_camera[:, None] != rows.gallery_camera)
    for threshold in thresholds:
        accepted = np.bincount(rows.query_person, ((distance < threshold) & pair.numpy()).sum(1))
        low, high = np.quantile((draws @ accepted) / (draws @ met[: rows.query_people]), (0.025, 0.975))
        found.append((float(low), float(high)))
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    arguments = parser.parse_args()
    print("| population | false match rate | covered: FMR | covered: TPR | FMR, queries' people alone | seen |")
    print("|---|---|---|---|---|---|")
    for population in POPULATIONS:
        covered = np.zeros((len(FMRS), 3))
        seen = np.zeros(len(FMRS))
        for seed in range(arguments.draws):
            rng = np.random.default_rng(seed)
            case = population.draw(rng)
            found = calibrate(*case, fmrs=FMRS)
            points = found.points
            alone = by_queries(case, [point.threshold for point in points], rng)
            for number, (point, (low, high)) in enumerate(zip(points, alone, strict=True)):
                fmr, tpr = population.rates(point.threshold)
                for column, (value, (least, most)) in enumerate(
                    ((fmr, point.fmr_interval), (tpr, point.tpr_interval), (fmr, (low, high)))
                ):
                    covered[number, column] += least <= value <= most
                seen[number] += point.fmr * found.counts["different_pairs"]
        for rate, shares, matches in zip(FMRS, covered / arguments.draws, seen / arguments.draws, strict=True):
            cells = " | ".join(f"{100 * share:.1f} %" for share in shares)
            print(f"| {population.name} | {rate:g} | {cells} | {matches:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
