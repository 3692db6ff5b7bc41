"""The notation against a statement of the grammar that shares no code with the parser."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reprism.notation import NotationError, Part, Partition

SCR = "p1+p2(s2c2)+p3(s3c3)"

groups = st.lists(st.tuples(st.sampled_from("sc"), st.integers(1, 12)), min_size=1, max_size=4, unique=True).map(
    lambda found: "".join(f"{letter}{count}" for letter, count in found)
)
branch_tails = st.one_of(st.just(""), groups.map("({})".format), groups.map("[{}]".format))
partitions = st.lists(
    st.tuples(st.integers(1, 99), branch_tails), min_size=1, max_size=5, unique_by=lambda branch: branch[0]
).map(lambda found: "+".join(f"p{number}{tail}" for number, tail in found))


@given(partitions)
def test_str_gives_the_text_back(text: str) -> None:
    assert str(Partition.parse(text)) == text


@given(partitions)
def test_part_names_are_unique_and_counted(text: str) -> None:
    names = [part.name for part in Partition.parse(text).parts]
    assert len(set(names)) == len(names)
    cuts = sum(int(count) for count in re.findall(r"[sc](\d+)", text))
    branches = text.count("p")
    assert len(names) == cuts + branches - text.count("[")


def well_formed(text: str) -> bool:
    branches = text.split("+")
    if not all(re.fullmatch(r"p[1-9]\d*(\(([sc][1-9]\d*)+\)|\[([sc][1-9]\d*)+\])?", b, re.ASCII) for b in branches):
        return False
    numbers = [re.match(r"p(\d+)", branch)[1] for branch in branches]
    cuts = [re.findall(r"[sc]\d+", branch) for branch in branches]
    small = all(int(n) <= 1024 for n in re.findall(r"\d+", text))
    return small and len(set(numbers)) == len(numbers) and all(len(set(c)) == len(c) for c in cuts)


@given(
    st.text("p123sc+()[]0 ", max_size=12)
    | partitions.flatmap(
        lambda text: st.tuples(st.integers(0, len(text) - 1), st.sampled_from("p1sc+()[]0x ")).map(
            lambda edit: text[: edit[0]] + edit[1] + text[edit[0] + 1 :]
        )
    )
)
def test_accepts_the_grammar_and_nothing_else(text: str) -> None:
    if well_formed(text):
        assert str(Partition.parse(text)) == text
    else:
        with pytest.raises(NotationError) as error:
            Partition.parse(text)
        assert 0 <= error.value.position <= len(text)


def test_scr_parts() -> None:
    parts = Partition.parse(SCR).parts
    expected = "p1 p2 p2s1 p2s2 p2c1 p2c2 p3 p3s1 p3s2 p3s3 p3c1 p3c2 p3c3"
    assert " ".join(part.name for part in parts) == expected
    assert parts[4] == Part("p2c1", "p2", "channel", 0, 2)


def test_square_brackets_leave_the_global_feature_out() -> None:
    assert {part.kind for part in Partition.parse("p1[s6]").parts} == {"stripe"}


def test_hpm_parts_have_distinct_names() -> None:
    names = [part.name for part in Partition.parse("p1[s1s2s4s8]").parts]
    assert names[:4] == ["p1s1of1", "p1s1of2", "p1s2of2", "p1s1of4"]
    assert len(set(names)) == 15


@pytest.mark.parametrize(
    ("text", "position"),
    [("", 0), ("q1", 0), ("p", 1), ("p1+", 3), ("p1(s2", 5), ("p1()", 3), ("p1(x2)", 3), ("p1(s2]", 5), ("p0", 1),
     ("p1(s0)", 4), ("p1+p1", 3), ("p1(s2s2)", 5), ("p1 +p2", 2), ("p1(s02)", 4), ("p1(s9999)", 4), ("p١", 1)],
)  # fmt: skip
def test_errors_point_at_the_character(text: str, position: int) -> None:
    with pytest.raises(NotationError) as error:
        Partition.parse(text)
    assert error.value.position == position
    pointed = str(error.value).splitlines()
    assert pointed[2].index("^") == position + 2
    assert pointed[1] == f"  {text}"


def test_columns() -> None:
    partition = Partition.parse(SCR)
    covered = [column for part in partition.parts for column in range(3328)[partition.columns(part.name, 256)]]
    assert covered == list(range(3328))
    assert partition.columns("p2s1", 256) == slice(512, 768)
    with pytest.raises(KeyError, match="p2, p2s1"):
        partition.columns("p9", 256)
