from dataclasses import replace
from pathlib import Path

import pytest

from reprism.cli.data import run as data_command
from reprism.data import DataError, ReIDDataset, Sample, Tracklet, open_dataset
from reprism.data.check import (
    PUBLISHED,
    check_dataset,
    evaluation_faults,
    lost_queries,
    missing_files,
    require_evaluable,
    require_trainable,
)
from reprism.data.sampling import IdentityBatchSampler
from reprism.drawn.layouts import render_mars


def sample(pid, camid, name="x.jpg") -> Sample:
    return Sample(Path(name), pid, camid)


def test_lost_queries_and_why() -> None:
    gallery = [sample(1, 1), sample(1, 2), sample(2, 1), sample(2, 1), sample(3, 2)]
    query = [sample(1, 1), sample(2, 1), sample(2, 2), sample(3, 2), sample(4, 1)]
    assert [(item.pid, item.camid, reason) for item, reason in lost_queries(query, gallery)] == [
        (2, 1, "in the gallery, only the query's own camera, 1, shows identity 2"),
        (3, 2, "in the gallery, only the query's own camera, 2, shows identity 3"),
        (4, 1, "nothing in the gallery shows identity 4"),
    ]
    assert lost_queries([sample(1, None)], [sample(1, None)]) == []


def test_counts_of_images(people: Path) -> None:
    # Elsewhere than where it is written that the people are drawn.
    data = replace(open_dataset("market1501", people), root=people / "query")
    found = check_dataset(data, images_per_id=10)
    assert found["parts"]["train"] == {
        "images": 12 * 3 * 3, "identities": 12, "cameras": 3, "published": PUBLISHED["market1501", ""]["train"],
    }  # fmt: skip
    assert {part: counts["images"] for part, counts in found["parts"].items()} == {
        "train": 108, "query": 18, "gallery": 39,
    }  # fmt: skip
    assert found["parts"]["gallery"]["identities"] == 7, "six, and the distractors' 0"
    assert "train: 108 images where 12,936 were published" in found["differences"]
    assert len(found["differences"]) == 8
    assert set(found["few_images"].values()) == {9}
    assert len(found["few_images"]) == 12
    assert check_dataset(data)["few_images"] == {}
    assert (found["missing"], found["lost_queries"], found["one_camera"], found["unmatchable"]) == ([], [], [], [])
    assert not found["ok"], "counts differ"
    assert found["problems"] == 8
    assert not found["drawn"]


def test_times_are_counted_and_each_clock_has_its_span(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("a", 1, "train", "5", "day"), ("b", 2, "train", "65.5", "day"), ("c", 1, "query", "7", ""),
            ("c", 2, "gallery", "", "day")]  # fmt: skip
    lines = [f"{n}.jpg,{','.join(map(str, row))}" for n, row in enumerate(rows)]
    (tmp_path / "t.csv").write_text("path,pid,camid,split,time,recording\n" + "\n".join(lines), encoding="utf-8")
    for n in range(len(rows)):
        (tmp_path / f"{n}.jpg").touch()
    times = check_dataset(open_dataset("csv", tmp_path / "t.csv"))["times"]
    assert times == {"known": 3, "unknown": 1, "recordings": {"": [7.0, 7.0], "day": [5.0, 65.5]}}
    data_command(["check", "csv", str(tmp_path / "t.csv"), "--ids-per-batch", "2"])
    said = " ".join(capsys.readouterr().out.split())
    assert "3 times on the clocks of: one recording of 0:00, day of 1:00; 1 have none." in said


def test_drawn_people_have_no_published_counts(people: Path) -> None:
    found = check_dataset(open_dataset("market1501", people))
    assert (found["drawn"], found["ok"], found["problems"], found["differences"]) == (True, True, 0, [])
    assert not any("published" in counts for counts in found["parts"].values())


def test_boxes_drawn_by_hand_are_counted_where_they_are(tmp_path: Path, people: Path) -> None:
    data = open_dataset("market1501", people)
    assert "multi_query" not in check_dataset(data)["parts"]
    boxes = (*data.query[:5], sample(1, 1, str(tmp_path / "gone.jpg")))
    found = check_dataset(replace(data, root=tmp_path, multi_query=boxes))
    assert found["parts"]["multi_query"]["images"] == 6
    assert "multi_query: 6 images where 25,259 were published" in found["differences"]
    assert found["missing"] == [str(tmp_path / "gone.jpg")]


def test_published_counts_that_agree_are_no_difference(monkeypatch: pytest.MonkeyPatch, people: Path) -> None:
    data = replace(open_dataset("market1501", people), root=people / "query")
    here = {part: {"images": len(getattr(data, part))} for part in ("train", "query", "gallery")}
    monkeypatch.setitem(PUBLISHED, ("market1501", ""), here)
    found = check_dataset(data)
    assert found["differences"] == []
    assert found["ok"]


def test_missing_and_unreadable_images(tmp_path: Path) -> None:
    root = render_mars(tmp_path / "mars", train_identities=2, test_identities=2, frames=(2, 3), size=(32, 16))
    data = open_dataset("mars", root)
    gone, broken = data.train[0].frame(1).path, data.gallery[5].frame(0).path
    gone.unlink()
    broken.write_bytes(broken.read_bytes()[:60])
    quick, thorough = check_dataset(data), check_dataset(data, decode=True)
    assert quick["missing"] == thorough["missing"] == [str(gone)]
    assert quick["unreadable"] == []
    assert [fault["path"] for fault in thorough["unreadable"]] == [str(broken)]
    assert not quick["ok"]
    counts = quick["parts"]["gallery"]
    on_disk = len(list((root / "bbox_test").rglob("*.jpg")))
    assert (counts["tracklets"], counts["images"]) == (len(data.gallery), on_disk)


def test_a_whole_folder_missing_and_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "here.jpg").touch()
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    samples = [sample(1, 1, tmp_path / name) for name in ("here.jpg", "link.jpg", "no/a.jpg", "no/b.jpg")]
    calls: list[tuple[int, int]] = []
    missing = missing_files(samples, lambda done, total: calls.append((done, total)))
    assert missing == [tmp_path / "link.jpg", tmp_path / "no/a.jpg", tmp_path / "no/b.jpg"]
    assert calls == [(1, 2), (2, 2)]


def test_people_that_one_camera_saw() -> None:
    train = (sample("a", 1), sample("a", 2), sample("b", 1))
    query, gallery = (sample("c", 1), sample("d", 1)), (sample("c", 2), sample("d", 1), sample(0, 1), sample(-1, 2))
    found = check_dataset(ReIDDataset("mine", Path(), train, query, gallery))
    assert found["one_camera"] == ["b"]
    assert found["unmatchable"] == ["d"]
    assert found["few_images"] == {"a": 2, "b": 1}
    assert [lost["pid"] for lost in found["lost_queries"]] == ["d"]
    assert "published" not in found["parts"]["train"]


A, B = sample("a", 1), sample("b", 2)
FOUND = ((sample("q", 1),), (sample("q", 2),))


@pytest.mark.parametrize(
    ("query", "gallery", "says"),
    [
        ((), (), r"no query and gallery \(training images alone\): add images .*--split-by-identity"),
        ((), (sample("q", 2),), r"no query: add"),
        ((sample("q", 1),), (), r"no gallery: add"),
        ((sample("q", 1),), (sample(-1, 2),), r"no gallery but junk"),
        ((sample("q", 1),), (sample("q", 1),), r"no valid query: none of the 1 queries .*only the query's own camera"),
        ((sample("q", 1), sample("r", 1)), (sample("s", 2),), r"none of the 2 queries .*nothing .* shows identity q"),
        ((sample(-1, 1),), (sample(-1, 2), sample("s", 2)), r"no valid query"),
        ((sample("q", 1),), (sample("q", 2), sample("s", None)), r"some test images have a camera and others none"),
        ((sample("q", 1),), (Tracklet(Path(), ("1.jpg",), "q", 2),), r"mix images and tracklets"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_any_work(query, gallery, says: str) -> None:
    data = ReIDDataset("mine", Path("people"), (A, B), query, gallery)
    with pytest.raises(DataError, match=f"the data set mine in people cannot be used: .*{says}"):
        require_evaluable(data)
    with pytest.raises(DataError, match=says):
        require_trainable(data, 2)
    assert check_dataset(data, ids_per_batch=2)["unusable"] == evaluation_faults(data)
    assert not check_dataset(data, ids_per_batch=2)["ok"]


@pytest.mark.parametrize(
    ("ids_per_batch", "processes", "says"),
    [
        (2, 1, None),
        (1, 2, None),
        (3, 1, r"2 training identities cannot fill a batch of 3 identities: lower it to 2 \(--data.ids-per-batch 2\)"),
        (2, 2, r"a batch of 2 identities for each of 2 processes: lower it to 1"),
        (1, 3, r"for each of 3 processes: add identities, or use fewer processes"),
    ],
)
def test_a_batch_has_no_more_identities_than_the_data(ids_per_batch: int, processes: int, says: str | None) -> None:
    data = ReIDDataset("mine", Path("people"), (A, A, B), *FOUND)
    require_evaluable(data)
    if says is None:
        require_trainable(data, ids_per_batch, processes)
        # The sampler takes what was let through.
        IdentityBatchSampler(data.train_targets, ids_per_batch, world_size=processes)
        return
    with pytest.raises(DataError, match=says):
        require_trainable(data, ids_per_batch, processes)
    with pytest.raises(ValueError):
        IdentityBatchSampler(data.train_targets, ids_per_batch, world_size=processes)


def test_data_to_test_with_alone_can_be_evaluated_and_not_trained_on() -> None:
    data = ReIDDataset("mine", Path("people"), (), *FOUND)
    require_evaluable(data)
    assert check_dataset(data)["unusable"] == []
    with pytest.raises(DataError, match="no training images"):
        require_trainable(data, 1)
