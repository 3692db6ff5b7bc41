"""Drawn people: the drawing keeps what it promises, the layouts are those of the real data sets."""

import re
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from reprism.data import open_dataset
from reprism.data.check import check_dataset
from reprism.drawn.cuhk03 import render_cuhk03, render_cuhk03_np
from reprism.drawn.layouts import _nobody, render_market1501, render_mars
from reprism.drawn.output import DRAWN_MARK
from reprism.drawn.people import GARMENT_COLORS
from reprism.drawn.shots import (
    Camera,
    Person,
    Shot,
    camera,
    contact_sheet,
    draw_person,
    draw_shot,
    generator,
    person,
    take_shot,
)

SMALL = (32, 16)


@pytest.fixture(scope="module")
def plain_camera() -> Camera:
    """A camera that changes no colour, blurs nothing and adds no noise."""
    return replace(
        camera(0, 1),
        gains=(1.0, 1.0, 1.0),
        saturation=1.0,
        contrast=1.0,
        brightness=1.0,
        gamma=1.0,
        resolution=1.0,
        blur=0.0,
        noise=0.0,
    )


@pytest.fixture(scope="module")
def front(plain_camera: Camera) -> Shot:
    """Somebody seen from the front in a tight box, arms and legs hanging straight."""
    shot = take_shot(plain_camera, generator(0, "test"), box="tight")
    return replace(shot, yaw=0.0, phase=0.0, occluder="none", gain=1.0)


@pytest.fixture(scope="module")
def somebody() -> Person:
    """A slim person in a plain white shirt who carries nothing."""
    who = person(0, 1)
    upper = replace(who.upper, kind="t-shirt", pattern="plain", color=(228, 228, 224), second=(40, 40, 160))
    return replace(who, build=1.0, height=1.72, bag="none", bag_color=(200, 30, 30), hat="none", upper=upper)


def changed(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """H×W: which pixels differ visibly."""
    return np.abs(before.astype(int) - after.astype(int)).max(axis=2) > 25


# --- seeds ----------------------------------------------------------------------------------------


def test_the_same_seed_draws_the_same_whatever_was_drawn_before() -> None:
    def image(seed: int, pid: int, camid: int, index: int) -> np.ndarray:
        rng = generator(seed, "image", pid, camid, index)
        return draw_person(person(seed, pid), camera(seed, camid), rng)

    keys = [(3, pid, camid, index) for pid in (1, 2) for camid in (1, 2) for index in (0, 1)]
    forwards = {key: image(*key) for key in keys}
    backwards = {key: image(*key) for key in reversed(keys)}
    for key in keys:
        np.testing.assert_array_equal(forwards[key], backwards[key])
    assert len({value.tobytes() for value in forwards.values()}) == len(keys)
    assert not np.array_equal(image(4, *keys[0][1:]), forwards[keys[0]])


def test_kinds_and_indices_give_independent_generators() -> None:
    makers = [("image", 1, 2, 3), ("image", 3, 2, 1), ("image", 1, 23), ("images", 1, 2, 3), ("person", 1)]
    first = [generator(0, *maker).random() for maker in makers] + [generator(1, *makers[0]).random()]
    assert len(set(first)) == len(first)


@pytest.mark.parametrize("call", [lambda: person(-1, 0), lambda: person(0, -3), lambda: camera(0, -3)])
def test_negative_numbers_are_refused_with_their_value(call) -> None:
    with pytest.raises(ValueError, match=r"must be 0 or more, but is -[13]"):
        call()


# --- images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(128, 64), (64, 48), (256, 128), (500, 200)])
def test_images_are_height_by_width_by_three_bytes(size: tuple[int, int]) -> None:
    image = draw_person(person(0, 1), camera(0, 1), generator(0, "image"), size)
    assert image.shape == (*size, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10


def test_an_image_too_small_to_show_anybody_is_refused() -> None:
    with pytest.raises(ValueError, match=r"size must be .* but is \(8, 4\)"):
        draw_person(person(0, 1), camera(0, 1), generator(0, "image"), (8, 4))


def test_what_is_random_does_not_depend_on_the_person() -> None:
    """Otherwise a background could give an identity away."""
    states = set()
    for pid in range(6):
        rng = generator(0, "image", 7)
        draw_person(person(0, pid), camera(0, 1), rng, SMALL)
        states.add(rng.random())
    assert len(states) == 1


def test_people_leave_the_background_as_it_is(front: Shot) -> None:
    place = camera(0, 2)  # with this camera's noise and blur
    bare = draw_shot(None, place, front)
    for pid in range(8):
        image = draw_shot(person(0, pid), place, front)
        for corner in (np.s_[:20, :8], np.s_[:20, -8:]):
            np.testing.assert_array_equal(image[corner], bare[corner])
        assert changed(bare, image)[20:110, 20:44].mean() > 0.35


def test_backgrounds_belong_to_cameras(front: Shot) -> None:
    scenes = {camid: draw_shot(None, camera(0, camid), front).astype(float) for camid in range(1, 7)}
    moved = replace(front, scene_x=min(1.0, front.scene_x + 0.02), noise_seed=1)
    for camid, scene in scenes.items():
        again = draw_shot(None, camera(0, camid), moved).astype(float)
        others = [np.abs(scene - other).mean() for number, other in scenes.items() if number != camid]
        assert np.abs(scene - again).mean() < min(others)


def test_cameras_differ_strongly_in_color(somebody: Person, front: Shot) -> None:
    chest = np.s_[40:52, 26:38]
    colors = [draw_shot(somebody, camera(0, camid), front)[chest].mean(axis=(0, 1)) for camid in range(1, 5)]
    red_to_blue = [color[0] / color[2] for color in colors]
    assert max(red_to_blue) / min(red_to_blue) > 1.4


# --- bodies ---------------------------------------------------------------------------------------


def test_a_backpack_shows_two_straps_in_front_and_itself_behind(
    somebody: Person, plain_camera: Camera, front: Shot
) -> None:
    def difference(yaw: float) -> np.ndarray:
        shot = replace(front, yaw=yaw)
        with_bag = draw_shot(replace(somebody, bag="backpack"), plain_camera, shot)
        return changed(draw_shot(somebody, plain_camera, shot), with_bag)

    ahead, behind, right, left = (difference(yaw) for yaw in (0, 180, 90, 270))
    chest = np.s_[32:50]
    assert ahead[chest, 16:29].any(axis=1).all()
    assert ahead[chest, 35:48].any(axis=1).all()
    assert not ahead[chest, 30:34].any(), "the straps leave the middle of the chest free"
    assert not ahead[70:].any()
    assert not ahead[:18].any()
    assert behind[40:55, 24:40].mean() > 0.95, "from behind the bag covers the back"
    # Seen from the side it sticks out backwards, away from where the person walks.
    assert right[40:55, 12:26].mean() > 0.3
    assert right[40:55, 44:].mean() == 0
    assert left[40:55, 38:52].mean() > 0.3
    assert left[40:55, :20].mean() == 0


def test_a_chest_print_shows_from_the_front_only(somebody: Person, plain_camera: Camera, front: Shot) -> None:
    printed = replace(somebody, upper=replace(somebody.upper, pattern="chest print"))
    shares = {}
    for yaw in (0, 180):
        shot = replace(front, yaw=float(yaw))
        difference = changed(draw_shot(somebody, plain_camera, shot), draw_shot(printed, plain_camera, shot))
        shares[yaw] = difference.mean()
    assert shares[0] > 0.01
    assert shares[180] == 0


@pytest.mark.parametrize("pattern", ["horizontal stripes", "vertical stripes", "checks"])
@pytest.mark.parametrize("yaw", [0.0, 60.0, 180.0, 300.0])
def test_patterns_run_all_round(somebody: Person, plain_camera: Camera, front: Shot, pattern: str, yaw: float) -> None:
    shot = replace(front, yaw=yaw)
    patterned = replace(somebody, upper=replace(somebody.upper, pattern=pattern))
    difference = changed(draw_shot(somebody, plain_camera, shot), draw_shot(patterned, plain_camera, shot))
    left, right = difference[36:60, :32].sum(), difference[36:60, 32:].sum()
    assert left > 20
    assert 0.5 < left / right < 2


@pytest.mark.parametrize("bag", ["handbag", "messenger"])
def test_a_bag_hangs_on_its_side_and_changes_sides_from_behind(
    somebody: Person, plain_camera: Camera, front: Shot, bag: str
) -> None:
    for yaw, side in ((0.0, 1), (180.0, -1)):
        shot = replace(front, yaw=yaw)
        carrying = replace(somebody, bag=bag, bag_side=1)
        difference = changed(draw_shot(somebody, plain_camera, shot), draw_shot(carrying, plain_camera, shot))
        columns = np.nonzero(difference[64:])[1]  # below the strap
        assert len(columns) > 20
        assert side * (columns.mean() - 31.5) > 5


def test_walking_moves_legs_and_not_the_head(somebody: Person, plain_camera: Camera, front: Shot) -> None:
    side = replace(front, yaw=90.0)
    steps = [draw_shot(somebody, plain_camera, replace(side, phase=phase)) for phase in (0.9, 1.57, 2.2)]
    legs = np.mean([changed(a, b)[80:].mean() for a, b in pairwise(steps)])
    heads = np.mean([changed(a, b)[:16].mean() for a, b in pairwise(steps)])
    assert legs > 0.05
    assert legs > 3 * heads


def test_garment_colors_reach_the_picture(somebody: Person, plain_camera: Camera, front: Shot) -> None:
    for color in ((186, 42, 46), (52, 118, 74), (62, 108, 182)):
        dressed = replace(somebody, upper=replace(somebody.upper, color=color))
        seen = draw_shot(dressed, plain_camera, front)[36:56, 24:40].mean(axis=(0, 1))
        assert np.abs(seen - color).max() < 25


# --- moments --------------------------------------------------------------------------------------


def test_moments_vary_as_a_detector_and_a_street_make_them() -> None:
    place = camera(0, 1)
    rng = generator(0, "moments")
    shots = [take_shot(place, rng) for _ in range(600)]
    occluders = Counter(shot.occluder for shot in shots)
    assert set(occluders) == {"none", "pole", "bin", "bush", "passer-by"}
    assert 0.1 < 1 - occluders["none"] / len(shots) < 0.3
    turned = np.array([abs((shot.yaw - place.yaw + 180) % 360 - 180) for shot in shots])
    assert 0.5 < (turned < 50).mean() < 0.9, "a camera has habitual angles, not fixed ones"
    assert np.ptp([shot.scene_x for shot in shots]) > 0.9, "a camera sees more than one box of background"
    assert 0.03 < np.mean([abs(shot.dy) > 0.07 for shot in shots]) < 0.25, "some boxes have slipped"


def test_a_tight_box_shows_the_same_moment_as_a_detected_one() -> None:
    place = camera(0, 1)
    for index in range(10):
        tight = take_shot(place, generator(0, "image", index), box="tight")
        loose = take_shot(place, generator(0, "image", index), box="detected")
        box = {"zoom": tight.zoom, "dx": tight.dx, "dy": tight.dy, "stretch": tight.stretch}
        assert replace(loose, **box) == tight
        assert loose != tight


@pytest.mark.parametrize("occluder", ["pole", "bin", "bush", "passer-by"])
def test_occluders_hide_a_part(somebody: Person, plain_camera: Camera, front: Shot, occluder: str) -> None:
    hidden = replace(front, occluder=occluder, occluder_x=0.5)
    difference = changed(draw_shot(somebody, plain_camera, front), draw_shot(somebody, plain_camera, hidden))
    assert 0.02 < difference.mean() < 0.6
    assert difference[:, 32:].sum() > difference[:, :32].sum()


# --- the problem ----------------------------------------------------------------------------------


def test_people_share_colors_and_no_two_are_alike() -> None:
    people = [person(0, pid) for pid in range(1, 65)]
    names, palette = list(GARMENT_COLORS), np.array(list(GARMENT_COLORS.values()))

    def name(color: tuple[int, int, int]) -> str:
        return names[int(np.abs(palette - np.array(color)).sum(axis=1).argmin())]

    uppers = Counter(name(who.upper.color) for who in people)
    assert uppers.most_common(3)[2][1] >= 5, "several people share each common colour"
    assert len(uppers) >= 8
    looks = Counter(
        (
            name(w.upper.color),
            w.upper.kind,
            w.upper.pattern,
            name(w.lower.color),
            w.lower.kind,
            w.bag,
            w.hat,
        )
        for w in people
    )
    assert max(looks.values()) <= 2
    assert len(looks) >= 60
    for field in ("bag", "hat", "hair"):
        assert len({getattr(who, field) for who in people}) >= 3


def test_raw_pixels_do_not_solve_it_and_garments_do(plain_camera: Camera, front: Shot) -> None:
    """Rank-1 across two cameras: raw pixels mostly fail; with camera, angle and box undone they do not."""
    pids = range(1, 41)

    def rank1(first: list[np.ndarray], second: list[np.ndarray]) -> float:
        a, b = (
            np.array([image.reshape(32, 4, 16, 4, 3).mean(axis=(1, 3)).ravel() for image in images])
            for images in (first, second)
        )
        distances = ((a[:, None] - b[None]) ** 2).sum(axis=2)
        return float((distances.argmin(axis=1) == np.arange(len(a))).mean())

    in_the_wild = [[draw_person(person(0, p), camera(0, c), generator(0, "image", p, c)) for p in pids] for c in (1, 2)]
    # Other moments of the walk and other noise, but the same light, angle and box.
    undisturbed = [
        [draw_shot(person(0, p), plain_camera, replace(front, phase=0.3 * k, detail_seed=k)) for p in pids]
        for k in (1, 2)
    ]
    assert rank1(*in_the_wild) < 0.3
    assert rank1(*undisturbed) > 0.95


def test_contact_sheet(tmp_path: Path) -> None:
    contact_sheet(tmp_path / "sheet.png", identities=2, cameras=3, seed=1)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (
            2 * 6 * 66,
            2 * 2 * 130,
        )  # a frame of one pixel around each 128×64 image, doubled
    with pytest.raises(ValueError, match="identities must be 1 or more, but is 0"):
        contact_sheet(tmp_path / "none.png", identities=0)


# --- layouts --------------------------------------------------------------------------------------

LAYOUTS = (
    partial(render_market1501, junk=2, distractors=2, gt_bbox=True),
    render_cuhk03,
    render_cuhk03_np,
    partial(render_mars, frames=(2, 5), junk=1, distractors=1),
)
TINY = {"train_identities": 1, "test_identities": 1, "size": SMALL}


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("render", LAYOUTS, ids=("market1501", "cuhk03", "cuhk03_np", "mars"))
def test_the_same_seed_writes_the_same_files(render, tmp_path: Path) -> None:
    assert render(tmp_path / "a", **TINY) == tmp_path / "a"
    (tmp_path / "b").mkdir()  # an empty folder is no hindrance
    render(str(tmp_path / "b"), **TINY)
    render(tmp_path / "c", **TINY, seed=1)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert set(files(tmp_path / "a").values()).isdisjoint(
        content for name, content in files(tmp_path / "c").items() if name.endswith((".jpg", ".png"))
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"], "nothing temporary is left"


@pytest.mark.parametrize(
    ("render", "name", "options"),
    list(zip(LAYOUTS, ("market1501", "cuhk03", "cuhk03", "mars"), ({}, {}, {"boxes": "detected"}, {}), strict=True)),
    ids=("market1501", "cuhk03", "cuhk03_np", "mars"),
)
def test_drawn_data_say_so_and_are_as_they_should_be(render, name: str, options: dict, tmp_path: Path) -> None:
    found = check_dataset(open_dataset(name, render(tmp_path / "root", **TINY), **options), ids_per_batch=1)
    assert found["drawn"]
    assert found["ok"], found


@pytest.mark.parametrize("render", LAYOUTS, ids=("market1501", "cuhk03", "cuhk03_np", "mars"))
def test_an_occupied_root_is_refused_and_left_alone(render, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match=r"root exists and is not empty: remove it, or choose another"):
        render(tmp_path / "root", **TINY)
    assert files(tmp_path) == {str(Path("root", "mine.txt")): b"keep"}
    with pytest.raises(FileExistsError, match=r"mine.txt exists and is a file"):
        render(tmp_path / "root" / "mine.txt", **TINY)


@pytest.mark.parametrize("render", LAYOUTS, ids=("market1501", "cuhk03", "cuhk03_np", "mars"))
def test_an_interrupted_rendering_leaves_nothing(render, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render(tmp_path / "root", **TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("render", LAYOUTS, ids=("market1501", "cuhk03", "cuhk03_np", "mars"))
def test_progress_counts_every_image(render, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    render(tmp_path / "root", **TINY, progress=lambda done, total: calls.append((done, total)))
    if (tmp_path / "root" / "cuhk-03.mat").is_file():  # two identities, none of which the detector missed
        images = ["in the file"] * (2 * 2 * 2 * 4)
    else:
        images = [name for name in files(tmp_path / "root") if name.endswith((".jpg", ".png"))]
    assert calls == [(done, len(images)) for done in range(1, len(images) + 1)]


@pytest.mark.parametrize(
    ("render", "wrong"),
    [
        (render_market1501, {"train_identities": 0}),
        (render_market1501, {"test_identities": -1}),
        (render_market1501, {"cameras": 1}),
        (render_market1501, {"cameras": 7}),
        (render_market1501, {"images_per_camera": 1}),
        (render_market1501, {"junk": -2}),
        (render_market1501, {"seed": -1}),
        (render_market1501, {"train_identities": 9_000, "test_identities": 1_000}),
        (render_market1501, {"size": (4, 4)}),
        (render_cuhk03, {"images_per_camera": 1}),
        (render_cuhk03, {"images_per_camera": 6}),
        (render_cuhk03, {"train_identities": 0}),
        (render_cuhk03_np, {"images_per_camera": 1}),
        (render_cuhk03_np, {"test_identities": 0}),
        (render_mars, {"tracklets_per_camera": 1}),
        (render_mars, {"distractors": -1}),
        (render_mars, {"frames": (9, 8)}),
        (render_mars, {"frames": (0, 8)}),
    ],
)
def test_wrong_arguments_are_named_with_their_value(render, wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as error:
        render(tmp_path / "root", **{**TINY, **wrong})
    for name, value in wrong.items():
        assert name in str(error.value)
        assert str(value) in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_market1501(tmp_path: Path) -> None:
    root = render_market1501(
        tmp_path / "market",
        train_identities=5,
        test_identities=4,
        cameras=3,
        images_per_camera=3,
        junk=7,
        distractors=8,
        size=SMALL,
    )
    found: dict[str, list[tuple[int, int]]] = {}
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        names = sorted(path.name for path in (root / folder).iterdir())
        assert "Thumbs.db" in names
        names.remove("Thumbs.db")
        matches = [re.fullmatch(r"(-1|\d{4})_c(\d)s\d_\d{6}_\d{2}\.jpg", name) for name in names]
        found[folder] = [(int(match[1]), int(match[2])) for match in matches if match]
        assert len(found[folder]) == len(names)
        with Image.open(root / folder / names[-1]) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SMALL[::-1])
    train, query, gallery = (Counter(found[folder]) for folder in found)
    train_pids, test_pids = {pid for pid, _ in train}, {pid for pid, _ in query}
    assert (len(train_pids), len(test_pids)) == (5, 4)
    assert train_pids.isdisjoint(test_pids)
    assert min(train_pids | test_pids) > 0
    assert set(train.values()) == {3}
    assert query == Counter({(pid, camid): 1 for pid in test_pids for camid in (1, 2, 3)})
    assert sum(count for (pid, _), count in gallery.items() if pid == -1) == 7
    assert sum(count for (pid, _), count in gallery.items() if pid == 0) == 8
    named = {key: count for key, count in gallery.items() if key[0] > 0}
    assert named == {(pid, camid): 2 for pid in test_pids for camid in (1, 2, 3)}
    assert {pid for pid, _ in gallery} == test_pids | {-1, 0}


def test_hand_drawn_boxes_are_the_test_identities_moments_in_tight_boxes(tmp_path: Path) -> None:
    root = render_market1501(tmp_path / "m", train_identities=1, test_identities=2, cameras=2, size=(64, 32), junk=0,
                             distractors=0, gt_bbox=True)  # fmt: skip

    def moments(*parts: str) -> list[str]:
        return sorted(path.name[:-7] for part in parts for path in (root / part).glob("*.jpg"))

    assert moments("gt_bbox") == moments("query", "bounding_box_test")
    assert len(moments("gt_bbox")) == 2 * 2 * 4
    assert {path.name[-7:] for path in (root / "gt_bbox").iterdir()} == {"_00.jpg"}
    for query in (root / "query").glob("*.jpg"):
        assert (root / "gt_bbox" / query.name).read_bytes() == query.read_bytes()
    for detected in (root / "bounding_box_test").glob("*.jpg"):
        assert (root / "gt_bbox" / f"{detected.name[:-6]}00.jpg").read_bytes() != detected.read_bytes()


def test_junk_is_badly_cut_and_distractors_are_strangers_or_nobody() -> None:
    place = camera(0, 1)
    shares = []
    for index in range(20):
        who, shot = _nobody(0, "junk", index, place)
        assert who is not None
        clear = replace(shot, occluder="none")
        shares.append(changed(draw_shot(None, place, clear), draw_shot(who, place, clear)).mean())
        assert shot.zoom < 0.6 or abs(shot.dx) > 0.25, "a part from near, or somebody at the edge"
    assert min(shares) < 0.25
    assert max(shares) > 0.5
    strangers = [_nobody(0, "distractor", index, place)[0] for index in range(12)]
    assert strangers.count(None) == 4
    identities = [person(0, pid) for pid in range(100)]
    assert not any(who in identities for who in strangers)


def test_cuhk03_np(tmp_path: Path) -> None:
    root = render_cuhk03_np(
        tmp_path / "cuhk03-np", train_identities=3, test_identities=2, images_per_camera=3, size=SMALL
    )
    assert sorted(path.name for path in root.iterdir()) == ["detected", "labeled"]
    labelled, detected = files(root / "labeled"), files(root / "detected")
    assert labelled.keys() == detected.keys()
    assert labelled.pop(DRAWN_MARK) == detected.pop(DRAWN_MARK)
    assert not set(labelled.values()) & set(detected.values()), "the boxes differ, whatever they are called"
    counts: Counter[str] = Counter()
    pids: dict[str, set[str]] = {}
    for name in map(Path, labelled):
        match = re.fullmatch(r"(\d{4})_c([12])_\d+\.png", name.name)
        assert match, name
        counts[name.parent.name] += 1
        pids.setdefault(name.parent.name, set()).add(match[1])
    assert counts == {"bounding_box_train": 3 * 2 * 3, "query": 2 * 2, "bounding_box_test": 2 * 2 * 2}
    assert pids["query"] == pids["bounding_box_test"]
    assert pids["query"].isdisjoint(pids["bounding_box_train"])
    assert len(pids["query"] | pids["bounding_box_train"]) == 5
    assert next(iter(labelled.values()))[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def mars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render_mars(
        tmp_path_factory.mktemp("data") / "mars",
        train_identities=2,
        test_identities=3,
        cameras=3,
        junk=2,
        distractors=4,
        frames=(5, 17),
        size=SMALL,
    )


def test_mars_tables_are_as_the_real_ones(mars: Path) -> None:
    """Names, types and shapes of the variables: those of the files that come with the data set."""
    for file, variable, dtype in (
        ("tracks_train_info.mat", "track_train_info", np.int32),
        ("tracks_test_info.mat", "track_test_info", np.int32),
        ("query_IDX.mat", "query_IDX", np.uint16),
    ):
        content = {key: value for key, value in loadmat(mars / "info" / file).items() if key[0] != "_"}
        assert list(content) == [variable]
        assert content[variable].dtype == dtype
        assert content[variable].ndim == 2
    assert loadmat(mars / "info" / "tracks_test_info.mat")["track_test_info"].shape[1] == 4
    assert loadmat(mars / "info" / "query_IDX.mat")["query_IDX"].shape[0] == 1


@pytest.mark.parametrize("part", ["train", "test"])
def test_mars_tables_count_the_lines_of_the_name_list(mars: Path, part: str) -> None:
    names = (mars / "info" / f"{part}_name.txt").read_text().splitlines()
    tracks = loadmat(mars / "info" / f"tracks_{part}_info.mat")[f"track_{part}_info"]
    assert names == sorted(names)
    assert sorted(path.name for path in (mars / f"bbox_{part}").rglob("*.jpg")) == names
    assert tracks[0, 0] == 1
    assert tracks[-1, 1] == len(names)
    assert (tracks[1:, 0] == tracks[:-1, 1] + 1).all()
    for start, end, pid, camid in tracks.tolist():
        label = "00-1" if pid == -1 else f"{pid:04d}"
        run = names[start - 1 : end]
        number = run[0][7:11]
        assert run == [f"{label}C{camid}T{number}F{frame:03d}.jpg" for frame in range(1, len(run) + 1)]
        assert 5 <= len(run) <= 17
        assert all((mars / f"bbox_{part}" / label / name).is_file() for name in run)
    lengths = tracks[:, 1] - tracks[:, 0] + 1
    assert (lengths < 15).any()
    assert (lengths >= 15).any()
    counts = Counter(tracks[:, 2].tolist())
    assert (counts[-1], counts[0]) == ((2, 4) if part == "test" else (0, 0))


def test_mars_loses_queries_only_without_the_queries_in_the_gallery(mars: Path) -> None:
    tracks = loadmat(mars / "info" / "tracks_test_info.mat")["track_test_info"]
    queries = loadmat(mars / "info" / "query_IDX.mat")["query_IDX"][0].astype(int) - 1
    train = loadmat(mars / "info" / "tracks_train_info.mat")["track_train_info"]
    assert set(train[:, 2]).isdisjoint(tracks[:, 2])
    pairs = [(int(tracks[i, 2]), int(tracks[i, 3])) for i in queries]
    named = {(pid, camid) for _, _, pid, camid in tracks.tolist() if pid > 0}
    assert sorted(pairs) == sorted(named), "one query per identity and camera"

    last = max(pid for pid, _ in pairs)
    assert Counter(tracks[tracks[:, 2] == last, 3].tolist()) == {1: 2, 2: 1}

    def lost(gallery: set[int]) -> list[tuple[int, int]]:
        return [
            (pid, camid)
            for pid, camid in pairs
            if not any(tracks[i, 2] == pid and tracks[i, 3] != camid for i in gallery)
        ]

    everything = set(range(len(tracks)))
    assert lost(everything) == []
    assert lost(everything - set(queries.tolist())) == [(last, 1)]


def test_mars_people_walk(mars: Path) -> None:
    tracks = loadmat(mars / "info" / "tracks_train_info.mat")["track_train_info"]
    names = (mars / "info" / "train_name.txt").read_text().splitlines()
    start, end, pid, _ = tracks[0].tolist()
    frames = []
    for name in names[start - 1 : end]:
        with Image.open(mars / "bbox_train" / f"{pid:04d}" / name) as image:
            frames.append(np.asarray(image, float))
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    steps = np.mean([np.abs(a - b).mean() for a, b in pairwise(frames)])
    assert steps < np.abs(frames[0] - frames[-1]).mean() * 1.5, "one frame resembles the next"
