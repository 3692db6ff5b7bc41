"""Answer what is doubtful about people, sometimes wrongly, and count what the answers are worth.

    reprism extract Market-1501/query Market-1501/bounding_box_test --naming market1501 --model model.safetensors \
        --out test.parquet
    python benchmarks/review.py --data market1501:Market-1501 --descriptors test.parquet
    python benchmarks/review.py --sites day1 day2 --model model.safetensors

Who answers looks at the two likeliest sightings of a question, knows whether they are of one person, and says the
opposite now and then. Questions come in batches, of each person at most one, and people are found anew after each
batch. Beside the queue, its questions are asked in any order; and pairs are asked about that were drawn at random from
all likely ones: an answer is taken as one about their two people, as the queue's are, or about the two sightings alone.
An answer that contradicts others is left out. With --whole, who answers looks at all sightings of both groups, and
cannot tell where an answer would be right of some of them only.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial

import numpy as np
from sightings import add_sightings, items_of, normalized, percents, read_entries

from reprism.evaluation.clusters import score_clusters
from reprism.gallery.answers import Answer, Kind
from reprism.gallery.rows import Entry, Row
from reprism.linking.constraints import Known, known_pairs
from reprism.linking.people import People, find_people, people_of
from reprism.linking.review import questions_about
from reprism.linking.transit import CameraNetwork

Groups = tuple[np.ndarray, np.ndarray]
"""Two groups of sightings, first the two that somebody looks at."""

Asking = Callable[[People, Known, np.random.Generator], Iterable[Groups]]
"""Yields the groups to ask about now, the best question first."""

_OPPOSITE: dict[Kind, Kind] = {"same": "different", "different": "same", "unsure": "unsure"}
_NOW = datetime.now(UTC)


def main() -> None:
    """Print B-cubed F1 by the number of questions, for the queue and for random pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_sightings(parser)
    parser.add_argument("--questions", type=int, default=300, help="most questions")
    parser.add_argument("--batch", type=int, default=25, help="questions between two runs")
    parser.add_argument("--wrong", type=float, default=0.05, help="share of wrong answers")
    parser.add_argument("--whole", action="store_true", help="who answers looks at all sightings of both groups")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one review by each; the table has the means")
    parser.add_argument("--least", type=float, default=0.2, help="as of reprism link run")
    arguments = parser.parse_args()
    entries = read_entries(arguments)
    items, rows, least = items_of(entries), [row_of(entry) for entry in entries], arguments.least
    descriptors = normalized(np.stack([entry.descriptor for entry in entries]), items)
    network = CameraNetwork.learn(descriptors, items)
    people = find_people(descriptors, items, network, least=least, apart=known_pairs(rows).apart)
    print(f"{len(rows):,} sightings of {len({row.pid for row in rows}):,} people, {len(people.pairs):,} likely pairs\n")
    ways: dict[str, Asking] = {
        "the queue": partial(ask_by_doubt, least=least),
        "its questions in any order": partial(ask_by_doubt, least=least, shuffled=True),
        "random pairs: their people": partial(ask_at_random, alone=False),
        "random pairs: these two alone": partial(ask_at_random, alone=True),
    }
    counts = range(0, arguments.questions + 1, arguments.batch)
    print(f"| questions | {' | '.join(f'{count}' for count in counts)} |")
    print(f"|---|{'---|' * len(counts)}")
    curves: dict[str, np.ndarray] = {}
    for name, asking in ways.items():
        reviews = [
            review(
                people,
                rows,
                asking,
                arguments.batch,
                arguments.wrong,
                least,
                np.random.default_rng(seed),
                whole=arguments.whole,
            )
            for seed in arguments.seeds
        ]
        curves[name] = np.mean([list(itertools.islice(each, len(counts))) for each in reviews], axis=0)
        print(f"| {name} | {percents(*curves[name], style='')} |", flush=True)
    queue, *others = curves.values()
    print()
    for name, curve in zip(list(curves)[1:], others, strict=True):
        best = int(np.argmax(curve))
        enough = next((count for count, f1 in zip(counts, queue, strict=True) if f1 > curve[best]), "more")
        most = f"{100 * curve[best]:.1f} at best, after {counts[best]} questions"
        print(f"{name}: {most}; the queue has more after {enough}")


def review(
    people: People,
    rows: Sequence[Row],
    asking: Asking,
    batch: int,
    wrong: float,
    least: float,
    rng: np.random.Generator,
    *,
    whole: bool = False,
) -> Iterator[float]:
    """Yield B-cubed F1 before the first question, and after each batch of them."""
    truth = [str(row.pid) for row in rows]
    answers: list[Answer] = []
    asked: set[tuple[int, int]] = set()
    likely = [(people.pairs, people.probabilities)]
    while True:
        known = known_pairs(rows, answers)
        people = people_of(len(rows), likely, people.odds, least=least, together=known.together, apart=known.apart)
        yield score_clusters(people.labels, truth).f1
        for one, other in _batch(asking(people, known, rng), people.labels, asked, batch):
            some, others = (tuple(rows[index].id for index in group.tolist()) for group in (one, other))
            kind = right_answer([truth[index] for index in one], [truth[index] for index in other], whole=whole)
            if rng.random() < wrong:
                kind = _OPPOSITE[kind]
            answers.append(Answer(len(answers) + 1, kind, some, others, "who answers", _NOW))


def right_answer(one: Sequence[str], other: Sequence[str], *, whole: bool) -> Kind:
    """Return the right answer about two groups, given who is in them.

    Args:
        one, other: Who they are; the first of each are those that somebody looks at.
        whole: Somebody looks at all, and cannot tell where an answer would be right of some only.
    """
    if not whole:
        return "same" if one[0] == other[0] else "different"
    if not {*one} & {*other}:
        return "different"
    return "same" if len({*one, *other}) == 1 else "unsure"


def ask_by_doubt(
    people: People, known: Known, rng: np.random.Generator, *, least: float, shuffled: bool = False
) -> Iterator[Groups]:
    """Yield what ``reprism.review_queue`` asks, or the same questions in any order."""
    found = questions_about(
        people.labels, people.halves, people.pairs, people.probabilities, least=least, apart=known.apart
    )
    for index in rng.permutation(len(found)).tolist() if shuffled else range(len(found)):
        yield found[index].one, found[index].other


def ask_at_random(people: People, _known: Known, rng: np.random.Generator, *, alone: bool) -> Iterator[Groups]:
    """Yield likely pairs in any order, as two sightings or as their two people; of one person as two sightings."""
    for one, other in people.pairs[rng.permutation(len(people.pairs))].tolist():
        if alone or people.labels[one] == people.labels[other]:
            yield np.array([one]), np.array([other])
        else:
            yield _all_of(people, one), _all_of(people, other)


def _all_of(people: People, leader: int) -> np.ndarray:
    members = np.flatnonzero(people.labels == people.labels[leader])
    return np.concatenate([[leader], members[members != leader]])


def _batch(questions: Iterable[Groups], labels: np.ndarray, asked: set[tuple[int, int]], most: int) -> list[Groups]:
    """Return the first questions that were not asked before, of each person at most one, and note that they were."""
    found: list[Groups] = []
    taken: set[int] = set()
    for one, other in questions:
        pair = (min(int(one[0]), int(other[0])), max(int(one[0]), int(other[0])))
        people = {int(labels[one[0]]), int(labels[other[0]])}
        if pair in asked or people & taken:
            continue
        asked.add(pair)
        taken |= people
        found.append((one, other))
        if len(found) == most:
            break
    return found


def row_of(entry: Entry) -> Row:
    """Return an entry as the row that a gallery makes of it, with its key as its id."""
    return Row(
        id=entry.key,
        key=entry.key,
        path=entry.path,
        pid=entry.pid,
        camid=entry.camid,
        time=entry.time,
        tracklet=entry.tracklet,
        frames=entry.frames,
        source=entry.source,
        added=_NOW,
        until=entry.until,
    )


if __name__ == "__main__":
    main()
