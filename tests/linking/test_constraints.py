"""What somebody said of rows holds, unless it contradicts what the cameras saw, or what was said before."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from reprism.gallery.answers import Answer
from reprism.gallery.rows import Row
from reprism.linking.constraints import known_pairs

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
ROWS = 7
SOME = st.sets(st.integers(0, ROWS - 1), max_size=3)
SAID = st.lists(st.tuples(st.sampled_from(["same", "different", "unsure"]), SOME, SOME), max_size=6)
SEEN = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 2)), min_size=ROWS, max_size=ROWS)


def rows_of(seen):
    """One camera's rows, each of a tracklet and at a time: those of two tracklets at one time are of two people."""
    return [
        Row(id=f"{n}", key=f"{n}", path=f"{n}", pid=None, camid="a", time=NOON + timedelta(seconds=at),
            tracklet=f"{tracklet}-{at}", frames=1, source=None, added=NOON, until=None)
        for n, (tracklet, at) in enumerate(seen)
    ]  # fmt: skip


def agree(together, apart):
    """Whether all can be true at once."""
    groups = [{row} for row in range(ROWS)]
    for one, other in together:
        whole = next(group for group in groups if one in group) | next(group for group in groups if other in group)
        groups = [group for group in groups if not group & whole] + [whole]
    return not any({one, other} <= group for one, other in apart for group in groups)


@settings(deadline=None, max_examples=300)
@given(SEEN, SAID)
def test_an_answer_is_left_out_only_if_it_contradicts_what_holds(seen, said):
    answers = [
        Answer(number, kind, tuple(map(str, one)), tuple(map(str, other - one)), "anna", NOON)
        for number, (kind, one, other) in enumerate(said, 1)
    ]
    together, apart, contradicted = known_pairs(rows_of(seen), answers)
    by_cameras = known_pairs(rows_of(seen))
    hold = [by_cameras.together.tolist(), by_cameras.apart.tolist()]
    left_out = []
    for answer in answers:
        one, other = map(int, answer.one), map(int, answer.other)
        more = [list(hold[0]), list(hold[1])]
        if answer.kind == "same":
            members = [*one, *other]
            more[0] += [[first, second] for first in members for second in members if first < second]
        elif answer.kind == "different":
            others = list(other)
            more[1] += [[first, second] for first in one for second in others]
        if agree(*more):
            hold = more
        else:
            left_out.append(answer.number)
    assert list(contradicted) == left_out
    # Enough to tell the same of every two rows.
    assert agree(together, apart)
    for one in range(ROWS):
        for other in range(one):
            assert agree([*together.tolist(), [one, other]], apart) == agree([*hold[0], [one, other]], hold[1])
            assert agree(together, [*apart.tolist(), [one, other]]) == agree(hold[0], [*hold[1], [one, other]])


def test_rows_that_are_not_there_are_passed_over():
    rows = rows_of([(1, 0), (2, 1), (3, 2)])
    answer = Answer(1, "same", ("0", "gone"), ("2",), "anna", NOON)
    together, apart, contradicted = known_pairs(rows, [answer])
    assert (together.tolist(), apart.tolist(), contradicted) == ([[0, 2]], [], ())
