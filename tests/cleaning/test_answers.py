"""Answers become a corrected list, which the data set csv reads; pictures and labels that do not match are refused."""

import csv
from pathlib import Path

import pytest

from reprism.cleaning import AnswersError, correct, entries_of, read_answers, write_list
from reprism.cleaning.findings import COLUMNS
from reprism.data import open_dataset
from reprism.data.records import DataError


@pytest.fixture(scope="module")
def data(people: Path):
    return open_dataset("market1501", people)


def answered(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def row(data, entry, finding: int, kind: str, change: str, answer: str) -> dict[str, str]:
    return {
        "finding": str(finding), "kind": kind, "score": "0.9", "split": entry.split,
        "path": entry.item.path.relative_to(data.root).as_posix(), "pid": str(entry.item.pid),
        "camid": str(entry.item.camid), "change": change, "answer": answer,
    }  # fmt: skip


def test_answers_become_a_list_that_csv_reads(data, tmp_path):
    entries = entries_of(data)
    before = {entry.item.path: (entry.item.path.stat().st_mtime_ns, entry.item.path.read_bytes()) for entry in entries}
    by_pid = {}
    for entry in data.train:
        by_pid.setdefault(entry.pid, []).append(entry)
    one, other, third = list(by_pid)[:3]
    of = {
        pid: [entry for entry in entries if entry.is_training and entry.item.pid == pid] for pid in (one, other, third)
    }
    answers = answered(
        tmp_path / "answers.csv",
        [
            row(data, of[third][0], 1, "wrong identity", f"identity {one}", "wrong"),
            row(data, of[third][1], 2, "duplicate", "remove", "wrong"),
            row(data, of[third][2], 3, "duplicate", "remove", "right"),
            row(data, of[third][3], 4, "duplicate", "remove", "cannot tell"),
            row(data, of[third][4], 5, "duplicate", "remove", ""),
            *(row(data, entry, 6, "two names", f"identity {other}", "wrong") for entry in of[one]),
        ],
    )
    corrected = correct(entries, data.root, read_answers(answers))
    assert (corrected.removed, corrected.renamed) == (1, 1 + len(of[one]))
    out = tmp_path / "lists" / "corrected.csv"
    write_list(out, corrected)
    again = open_dataset("csv", out)
    expected = {entry.item.path: str(entry.item.pid) for entry in entries if entry.is_training}
    # What was named like the given up identity follows it.
    expected |= {entry.item.path: str(other) for entry in [*of[one], of[third][0]]}
    del expected[of[third][1].item.path]
    assert {item.path: item.pid for item in again.train} == expected
    for split in ("query", "gallery"):
        assert [item.path for item in getattr(again, split)] == [item.path for item in getattr(data, split)]
        assert [item.time for item in getattr(again, split)] == [item.time for item in getattr(data, split)]
    distractors = [item.path for item in data.gallery if item.pid == 0]
    assert distractors
    assert [item.path for item in again.gallery if item.pid == 0] == distractors
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before}


def test_names_that_give_up_each_other_become_one(data):
    entries = entries_of(data)
    one, other = list(dict.fromkeys(item.pid for item in data.train))[:2]
    from reprism.cleaning.answers import Answered

    def give_up(finding: str, given: int, kept: int) -> list[Answered]:
        return [
            Answered("", finding, "two names", "train", item.path.relative_to(data.root).as_posix(), str(given),
                     f"identity {kept}", "wrong")
            for item in data.train if item.pid == given
        ]  # fmt: skip

    found = correct(entries, data.root, [*give_up("1", one, other), *give_up("2", other, one)])
    both = {pid for entry, pid in zip(found.entries, found.pids, strict=True) if entry.item.pid in (one, other)}
    assert both == {min(str(one), str(other))}


def test_answers_that_do_not_fit_are_refused(data, tmp_path):
    entries = entries_of(data)
    entry = entries[0]
    good = row(data, entry, 1, "duplicate", "remove", "wrong")
    for changes, words in [
        ({"answer": "yes"}, "expected the answer wrong, right, cannot tell, got 'yes'"),
        ({"kind": "ugly"}, "got 'ugly'"),
        ({"change": "delete"}, "expected the change remove or identity NAME"),
        ({"path": "absent.jpg"}, "has no picture absent.jpg in train"),
        ({"pid": "77777"}, "the labels have changed"),
    ]:
        with pytest.raises(AnswersError, match=words):
            correct(entries, data.root, read_answers(answered(tmp_path / "bad.csv", [good | changes])))
    with pytest.raises(AnswersError, match="was answered wrong above"):
        read_answers(answered(tmp_path / "bad.csv", [good, good | {"answer": "right"}]))
    named = [good | {"finding": str(n), "kind": "wrong identity", "change": f"identity {n}"} for n in (1, 2)]
    with pytest.raises(AnswersError, match="finding 2 gives"):
        correct(entries, data.root, read_answers(answered(tmp_path / "bad.csv", named)))
    test = next(each for each in entries if each.split == "query")
    leak = [good | {"kind": "wrong identity", "change": f"identity {test.item.pid}"}]
    with pytest.raises(DataError, match="in training and in test"):
        correct(entries, data.root, read_answers(answered(tmp_path / "bad.csv", leak)))
