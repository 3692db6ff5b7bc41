"""The order of arrival, compared with a sort of all rows."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reprism.embedding import DescriptorKind
from reprism.gallery.arrivals import Mark, mark_of, newest_mark, rows_after
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery

START = datetime(2026, 3, 1, tzinfo=UTC)
BEGINNING = Mark(0, 0, "")


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    """Five batches of rows, taken in another order than that of their arrival, one of unknown time, one before 1970."""
    kind = DescriptorKind("ab" * 32, "p1", 4, True)
    found = Gallery.create(tmp_path_factory.mktemp("arrivals") / "gallery", kind)
    rng = np.random.default_rng(0)
    for batch in range(5):
        times = [START - timedelta(days=batch, seconds=int(s)) for s in rng.integers(0, 5, 6)]
        taken = [None, datetime(1950, 1, 1, tzinfo=UTC), *times]
        found.add(
            Entry(f"{batch}/{number}", rng.standard_normal(4).astype(np.float32), "/x", time=time)
            for number, time in enumerate(taken)
        )
    return found


def in_order(gallery):
    """All rows by arrival, as the words say it."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return sorted(gallery.rows(), key=lambda row: (row.added, row.time or epoch, row.id))


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(at=st.integers(-1, 39), most=st.integers(1, 50))
def test_rows_after_a_mark_are_those_after_it(gallery, at, most):
    everything = in_order(gallery)
    mark = BEGINNING if at < 0 else mark_of(everything[at])
    after = everything[at + 1 :]
    assert rows_after(gallery.store, mark, most) == (after[-most:], max(0, len(after) - most))


def test_the_newest_mark_is_the_last_rows(gallery, tmp_path):
    assert newest_mark(gallery.store) == mark_of(in_order(gallery)[-1])
    assert rows_after(gallery.store, newest_mark(gallery.store), 9) == ([], 0)
    empty = Gallery.create(tmp_path / "empty", gallery.kind)
    assert newest_mark(empty.store) == BEGINNING
    assert rows_after(empty.store, BEGINNING, 9) == ([], 0)


marks = st.builds(
    Mark,
    st.integers(0, 253_402_300_799_999_999),
    st.integers(-(10**17), 10**17),
    st.text("0123456789abcdef", min_size=32, max_size=32) | st.just(""),
)


@given(marks)
def test_a_mark_is_read_as_it_is_written(mark):
    assert Mark.parse(str(mark)) == mark


@pytest.mark.parametrize("text", ["", "1-2", "1-2-xyz", "-1-2-", "1-2-" + "a" * 31, "1-2-\n", "١-2-", "1" * 19 + "-2-"])
def test_what_is_no_mark_is_refused(text):
    with pytest.raises(ValueError, match="expected a mark"):
        Mark.parse(text)


def test_a_mark_beyond_all_times_is_beyond_all_rows(gallery):
    assert rows_after(gallery.store, Mark.parse("999999999999999999-0-"), 9) == ([], 0)
