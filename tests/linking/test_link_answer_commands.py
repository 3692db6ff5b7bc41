"""``reprism link`` update, review, answer, answers, changes, undo and export: as the Python calls, and noted."""

import base64
import csv
import html
import io
import json
import re
import shlex
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from PIL import Image

import reprism
from reprism.cli import main
from reprism.cli.link_gallery import print_changes
from reprism.embedding import DescriptorKind
from reprism.gallery.rows import row_id
from reprism.linking.gallery_people import Linked

KIND = DescriptorKind("ab" * 32, "p1", 32, True)
NAMES = ["update", "review", "answers", "changes"]


def jpeg(number: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 64), (number % 256, 40, 200)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def entries(seen):
    """Those who walk by, each with a picture of its own; the last twenty come later."""
    some = [entry for entry in seen if int(entry.pid) < 90]
    return [replace(entry, thumbnail=jpeg(number)) for number, entry in enumerate(some)]


@pytest.fixture(scope="module")
def linked(entries, tmp_path_factory):
    """The folder of a gallery that was linked without the last twenty rows."""
    gallery = reprism.Gallery.create(tmp_path_factory.mktemp("linked") / "site", KIND)
    gallery.add(entries[:-20])
    gallery.enable_linking("find lost children", 30)
    reprism.link_gallery(gallery)
    return gallery.uri


@pytest.fixture
def pair(linked, tmp_path):
    """Two copies of it: one for the commands, and one for the Python calls."""
    site, twin = (shutil.copytree(linked, tmp_path / name) for name in ("site", "twin"))
    return str(site), reprism.Gallery.open(twin)


def state(gallery):
    """People, answers and changes, without the times of answers and changes and who gave them."""
    return (
        [person.as_dict() for person in gallery.people()],
        [(each.number, each.kind, each.one, each.other) for each in gallery.link_answers()],
        [(each.number, each.before, each.after, each.rows, each.answer) for each in gallery.people_changes()],
    )


def audited(site):
    return [json.loads(line) for line in Path(f"{site}.audit.jsonl").read_text().splitlines()]


def two_apart(gallery):
    """Two people of two rows and more who no one camera saw at once."""
    people = [person for person in gallery.people() if len(person.rows) > 1]
    return next(
        (one, other)
        for number, one in enumerate(people)
        for other in people[number + 1 :]
        if one.first > other.last or other.first > one.last
    )


def test_each_command_does_what_the_call_does(pair, entries, capsys):
    site, twin = pair
    gallery = reprism.Gallery.open(site)
    for each in (gallery, twin):
        each.add(entries[-20:])
    assert main(["link", "update", site]) == 0
    expected = reprism.update_people(twin)
    shown = capsys.readouterr().out
    assert f"{len(entries)} rows: {len(expected.people)} people" in shown
    assert state(gallery) == state(twin)
    assert {row for person in gallery.people() for row in person.rows} == {row_id(entry.key) for entry in entries}

    one, other = two_apart(gallery)
    assert main(["link", "answer", site, "same", "--people", str(one.id), str(other.id)]) == 0
    reprism.answer_link(twin, "same", one.rows, other.rows, by="me")
    said = capsys.readouterr().out
    assert f"answer 1: same, of {len(one.rows) + len(other.rows)} rows" in said
    assert "1 merge: reprism link changes" in said
    assert state(gallery) == state(twin)
    assert {*one.rows, *other.rows} <= set(next(p for p in gallery.people() if one.rows[0] in p.rows).rows)

    assert main(["link", "answers", site, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["one"], told["other"]) == ([*one.rows], [*other.rows])
    assert main(["link", "answers", site]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith("1 ")]
    assert f"{len(one.rows)} and {len(other.rows)}" in line
    assert told["by"] in line

    assert main(["link", "undo", site, "--answer", "1"]) == 0
    reprism.undo_link_answer(twin, 1, by="me")
    assert "answer 1 is taken back: same" in capsys.readouterr().out
    assert state(gallery) == state(twin)
    assert gallery.link_answers() == []

    rows = ["--one", one.rows[0], "--other", *one.rows[1:]]
    assert main(["link", "answer", site, "different", *rows]) == 0
    reprism.answer_link(twin, "different", one.rows[:1], one.rows[1:], by="me")
    assert state(gallery) == state(twin)
    person = {row: each.id for each in gallery.people() for row in each.rows}
    assert person[one.rows[0]] not in {person[row] for row in one.rows[1:]}

    capsys.readouterr()
    assert main(["link", "changes", site, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == [json.loads(json.dumps(each.as_dict())) for each in gallery.people_changes()]
    assert main(["link", "changes", site]) == 0
    shown = capsys.readouterr().out
    for each in found:
        cells = [each["kind"], each["before"], each["after"], len(each["rows"])]
        assert re.search(rf"^\s*{each['number']}\s+" + r"\s+".join(map(str, cells)) + r"\b", shown, re.MULTILINE)

    last = found[-1]["number"]
    assert main(["link", "undo", site, "--change", str(last)]) == 0
    reprism.undo_change(twin, last, by="me")
    assert "answer 3 is taken back: different" in capsys.readouterr().out
    assert state(gallery) == state(twin)

    log = audited(site)
    actions = ["update", "answer", "undo", "answer", "undo"]
    assert [(line["what"], line["state"]) for line in log] == [
        (f"link {action}", which) for action in actions for which in ("begun", "done")
    ]
    assert all(line["purpose"] == "find lost children" for line in log[::2])
    assert (log[2]["kind"], len(log[2]["ids"]), log[3]["answers"]) == ("same", len(one.rows) + len(other.rows), [1])
    assert (log[4]["answer"], log[8]["change"]) == (1, last)
    assert one.rows[0] not in json.dumps(log)  # rows stand in it by pseudonyms


def test_a_change_that_no_answer_led_to_is_undone_by_answers(pair, entries, capsys):
    site, twin = pair
    gallery = reprism.Gallery.open(site)
    reprism.link_gallery(twin, least=0.7)  # more than rows were joined by
    assert main(["link", "run", site, "--least", "0.7"]) == 0
    splits = sum(each.kind == "split" for each in twin.people_changes())
    assert f"{splits} splits: reprism link changes {site}" in capsys.readouterr().out
    assert state(gallery) == state(twin)
    change = next(each for each in gallery.people_changes() if each.kind == "split")
    assert main(["link", "undo", site, "--change", str(change.number)]) == 0
    reprism.undo_change(twin, change.number, by="me")
    assert state(gallery) == state(twin)
    assert "answer 1: same, of" in capsys.readouterr().out
    person = {row: each.id for each in gallery.people() for row in each.rows}
    assert len({person[row] for row in (*change.rows, *change.left)}) == 1


def test_answers_that_could_not_be_kept_to_are_said(capsys):
    print_changes(Linked([], 0, 0, 0, None, [], (3, 5)), "site")
    assert capsys.readouterr().out == (
        "left out, for they contradict what the cameras saw, or earlier answers: answers 3, 5. "
        "See reprism link answers site\n"
    )


def test_questions_are_listed_and_answered_from_the_page(pair, tmp_path, capsys):
    site, twin = pair
    page, gallery = tmp_path / "review.html", reprism.Gallery.open(site)
    expected = reprism.review_queue(twin, 5)
    assert len(expected) == 5
    assert main(["link", "review", site, "--top", "5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    person = {row: each.id for each in gallery.people() for row in each.rows}
    for each, doubt in zip(found, expected, strict=True):
        assert (each["one"], each["other"]) == ([*doubt.one], [*doubt.other])
        assert (each["probability"], each["doubt"]) == (doubt.probability, doubt.doubt)
        assert set(each["people"]) == {person[doubt.one[0]], person[doubt.other[0]]}
    assert main(["link", "review", site, "--top", "5", "--html", str(page)]) == 0
    shown = capsys.readouterr().out
    assert f"{expected[0].doubt:.0%}" in shown
    assert shown.endswith(f"{page}\n")
    text = page.read_text()
    assert 'src="http' not in text
    assert "<script" not in text
    articles = text.split("<article")[1:]
    numbered = {int(re.search(r"<h3>(\d+)\.", each)[1]): each for each in articles}
    assert sorted(numbered) == [1, 2, 3, 4, 5]
    for number, doubt in enumerate(expected, 1):
        pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', numbered[number])
        shown_ids = re.findall(r"<code>([0-9a-f]{32})</code>", numbered[number])
        assert set(shown_ids) == {*doubt.one, *doubt.other}  # of six each at most
        assert shown_ids[0] == doubt.one[0]
        assert [base64.b64decode(picture) for picture in pictures] == [twin.thumbnail(row) for row in shown_ids]
        commands = [
            shlex.split(html.unescape(each)) for each in re.findall(r"<pre><code>(.*?)</code>", numbered[number])
        ]
        assert [command[:5] for command in commands] == [
            ["reprism", "link", "answer", site, kind] for kind in ("same", "different", "unsure")
        ]
        assert all(c[5:] == ["--one", *doubt.one, "--other", *doubt.other] for c in commands)
    unsure = commands[2]
    assert main(unsure[1:]) == 0
    reprism.answer_link(twin, "unsure", expected[-1].one, expected[-1].other, by="me")
    assert state(gallery) == state(twin)
    assert expected[-1] not in reprism.review_queue(gallery, 1000)
    assert main(["link", "review", site, "--html", str(page)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main(["link", "review", site, "--html", str(page), "--overwrite", "--top", "1"]) == 0
    assert page.read_text().count("<article") == 1
    assert main(["link", "review", site, "--top", "0"]) == 0
    assert capsys.readouterr().out.endswith("no questions\n")
    assert [line["what"] for line in audited(site)[::2]] == ["link review", "link answer", "link review"]


def test_people_become_labels(pair, entries, tmp_path, capsys):
    """Read back by the csv module, and by the data set, with the pictures that the gallery keeps."""
    site, _ = pair
    gallery = reprism.Gallery.open(site)
    one, other = two_apart(gallery)
    reprism.answer_link(gallery, "same", one.rows[:1], one.rows[1:], by="me")
    reprism.answer_link(gallery, "unsure", other.rows[:1], other.rows[1:], by="me")
    table = tmp_path / "out" / "labels.csv"
    assert main(["link", "export", site, "--csv", str(table), "--pictures", str(tmp_path / "out" / "pictures")]) == 0
    people = gallery.people()
    rows = sum(len(person.rows) for person in people)
    assert f"{rows} rows of {len(people)} people, {len(one.rows)} of them answered" in capsys.readouterr().out
    with table.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["path", "pid", "camid", "time", "until", "track", "confidence", "answered", "id"]
    of_row = {row: person for person in people for row in person.rows}
    given = {row_id(entry.key): entry for entry in entries}
    assert [line["id"] for line in lines] == [
        row for person in sorted(people, key=lambda person: person.id) for row in person.rows
    ]
    for line in lines:
        entry, person = given[line["id"]], of_row[line["id"]]
        assert (line["pid"], line["camid"], line["track"]) == (str(person.id), entry.camid, entry.tracklet)
        # The gallery keeps times to the microsecond, as these are.
        assert datetime.fromisoformat(line["time"]) == entry.time
        assert datetime.fromisoformat(line["until"]) == entry.until
        assert float(line["confidence"]) == pytest.approx(person.confidence, abs=1e-4)
        assert line["answered"] == ("yes" if line["id"] in one.rows else "no")
        assert line["path"] == f"pictures/{line['id']}.jpg"
        assert (table.parent / line["path"]).read_bytes() == entry.thumbnail
    data = reprism.open_dataset("csv", table, split_by_identity=0.5)
    items = {item.path.stem: item for item in (*data.train, *data.query, *data.gallery)}
    assert set(items) == set(of_row)
    assert all(item.pid == str(of_row[row].id) and item.camid == given[row].camid for row, item in items.items())
    assert all(item.time == pytest.approx(given[row].time.timestamp()) for row, item in items.items())
    assert audited(site)[-1]["rows"] == rows

    assert main(["link", "export", site, "--csv", str(table)]) == 1
    assert "--overwrite" in capsys.readouterr().err
    # Without --pictures the paths are the gallery's own.
    assert main(["link", "export", site, "--csv", str(table), "--overwrite"]) == 0
    assert f"{rows} rows name no picture file: --pictures" in capsys.readouterr().out
    with table.open(newline="") as file:
        assert {line["id"]: line["path"] for line in csv.DictReader(file)} == {row: given[row].path for row in of_row}
    assert main(["link", "export", site, "--csv", str(table), "--overwrite", "--pictures", str(table.parent)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert main(["link", "export", site, "--csv", str(tmp_path / "labels.txt")]) == 1
    assert "expected --csv FILE.csv" in capsys.readouterr().err


def test_rows_without_a_picture_are_left_out_with_pictures(gallery_of, seen, tmp_path, capsys):
    entries = [
        replace(entry, thumbnail=None if number < 5 else jpeg(number), path=f"/video.mp4#t={number}")
        for number, entry in enumerate(seen)
    ]
    own = tmp_path / "own.jpg"
    own.write_bytes(jpeg(0))
    entries[0] = replace(entries[0], path=str(own))
    reprism.link_gallery(gallery_of(entries))
    table, pictures = tmp_path / "labels.csv", tmp_path / "pictures"
    assert main(["link", "export", str(tmp_path / "site"), "--csv", str(table), "--pictures", str(pictures)]) == 0
    assert "4 rows are left out: there is no picture of them" in capsys.readouterr().out
    with table.open(newline="") as file:
        paths = {line["id"]: line["path"] for line in csv.DictReader(file)}
    assert paths == {row_id(entries[0].key): "own.jpg"} | {
        row_id(entry.key): f"pictures/{row_id(entry.key)}.jpg" for entry in entries[5:]
    }
    assert {path.stem for path in pictures.iterdir()} == set(paths) - {row_id(entries[0].key)}


def test_pictures_that_the_gallery_names_are_read_where_they_lie(gallery_of, seen, tmp_path):
    """Photographs beside the table by relative paths, and elsewhere by absolute ones."""
    for place in ("out", "elsewhere"):
        (tmp_path / place).mkdir()
    entries = []
    for number, entry in enumerate(seen):
        path = tmp_path / ("out" if number % 2 else "elsewhere") / f"{number}.jpg"
        path.write_bytes(jpeg(number))
        entries.append(replace(entry, path=str(path), tracklet=None))
    gallery_of(entries)
    site, table = str(tmp_path / "site"), tmp_path / "out" / "labels.csv"
    reprism.link_gallery(reprism.Gallery.open(site))
    assert main(["link", "export", site, "--csv", str(table)]) == 0
    with table.open(newline="") as file:
        paths = {line["id"]: line["path"] for line in csv.DictReader(file)}
    assert paths == {
        row_id(entry.key): f"{number}.jpg" if number % 2 else entry.path for number, entry in enumerate(entries)
    }
    data = reprism.open_dataset("csv", table, split_by_identity=0.5)
    found = {str(item.path) for item in (*data.train, *data.query, *data.gallery)}
    assert found == {entry.path for entry in entries}


def test_mistakes_are_named(pair, capsys):
    site, _ = pair
    gallery = reprism.Gallery.open(site)
    one, other = two_apart(gallery)
    for given, error in (
        (["same", "--one", "nobody", "--other", one.rows[0]], "no row 'nobody' may be linked"),
        (["same", "--people", "999999", str(one.id)], "there is no person 999999 in"),
        (["same", "--people", str(one.id)], "expected the numbers of two people, got"),
        (["same", "--people", str(one.id), str(one.id)], "expected the numbers of two people, got"),
        (["same", "--people", "1", "2", "--one", one.rows[0]], "expected rows (--one ID --other ID) or two people"),
        (["same"], "expected rows (--one ID --other ID) or two people"),
        (["different", "--one", one.rows[0]], "on two sides: one of them is empty"),
    ):
        assert main(["link", "answer", site, *given]) == 1
        assert error in capsys.readouterr().err
    assert gallery.link_answers() == []
    rows = ["--one", one.rows[0], "--other", other.rows[0]]
    assert main(["link", "answer", site, "same", *rows]) == 0
    before = state(gallery)
    assert main(["link", "answer", site, "different", *rows]) == 1
    assert "contradicts answer 1 (same, by" in (said := capsys.readouterr().err)
    assert f"reprism link undo {site} --answer 1" in said
    assert state(gallery) == before
    assert [(line["what"], line["state"]) for line in audited(site)][-1] == ("link answer", "failed")
    for given, error in (
        ([], "expected either --answer N or --change N"),
        (["--answer", "1", "--change", "1"], "expected either --answer N or --change N"),
        (["--answer", "7"], "there is no answer 7"),
        (["--change", "99"], "there is no change 99"),
    ):
        assert main(["link", "undo", site, *given]) == 1
        assert error in capsys.readouterr().err
    assert main(["link", "review", site, "--top", "-1"]) == 1
    assert "--top -1: expected 0 or more" in capsys.readouterr().err


def test_nothing_is_done_where_linking_is_off(gallery_of, seen, tmp_path, capsys):
    gallery_of(seen, on=False)
    site = str(tmp_path / "site")
    commands = [
        *([name, site] for name in NAMES),
        ["answer", site, "same", "--one", "a", "--other", "b"],
        ["undo", site, "--answer", "1"],
        ["export", site, "--csv", str(tmp_path / "labels.csv")],
    ]
    for command in commands:
        assert main(["link", *command]) == 1
        assert "linking is off for the gallery" in capsys.readouterr().err
    assert not (tmp_path / "labels.csv").exists()
    assert not Path(f"{site}.audit.jsonl").exists()


def test_an_answer_is_kept_where_nobody_can_be_linked_any_more(pair, capsys):
    """As after most were erased: it is said, and no failure."""
    site, _ = pair
    gallery = reprism.Gallery.open(site)
    one = two_apart(gallery)[0]
    gallery.erase(ids=[row for person in gallery.people() for row in person.rows if person.id != one.id])
    assert main(["link", "answer", site, "same", "--one", *one.rows]) == 0
    assert "it is kept, but nobody can be linked" in capsys.readouterr().err
    assert [each.kind for each in gallery.link_answers()] == ["same"]
    assert audited(site)[-1]["state"] == "done"
    assert audited(site)[-1]["followed"] is False


def test_an_empty_list_is_said_in_words(gallery_of, seen, tmp_path, capsys):
    gallery_of(seen)
    site = str(tmp_path / "site")
    for name, said in (("answers", "no answers\n"), ("changes", "nobody changed\n"), ("review", "no questions\n")):
        assert main(["link", name, site]) == 0
        assert capsys.readouterr().out == said
