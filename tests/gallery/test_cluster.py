"""Indexing by a Ray cluster gives what one machine gives, whatever happens on the way."""

import json
import os
import time
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import reprism
from reprism.cli import main
from reprism.cli.clusters import ClusterSettings
from reprism.embedding import DescriptorKind
from reprism.gallery import cluster as module
from reprism.gallery import workers
from reprism.gallery.cluster import ClusterIndexing, Commits, index_on_cluster
from reprism.gallery.compression import Projection
from reprism.gallery.indexing import Decoder, index_images
from reprism.gallery.inputs import IndexItem, find_items
from reprism.gallery.rows import Entry, row_id, to_arrow
from reprism.gallery.table import Gallery, GalleryError
from reprism.gallery.workers import Crew, Plan, Result, ShippedModel, write_rows

lance = pytest.importorskip("lance", reason="indexing on a cluster needs reprism[ray]")


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three machines, two of which compute, as far as Ray can tell."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """400 images, two of which cannot be read."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(398):
        picture = rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number:04}.png")
    (folder / "bad.png").write_bytes(b"no image")
    (folder / "gone.png").symlink_to("nowhere.png")
    return folder


def slow_embedder(path: Path, notes: Path) -> reprism.Embedder:
    """One that takes its time, so that there is some to lose a machine in, and notes which machine it is on."""
    import ray

    class Slow(reprism.Embedder):
        def embed_ready(self, images):
            time.sleep(0.3)
            return super().embed_ready(images)

    (notes / ray.get_runtime_context().get_node_id()).touch()
    return Slow(path, 16, precision="fp32", device="cpu", engine="torch")


def embedder_of(path: Path) -> reprism.Embedder:
    return reprism.Embedder(path, 16, precision="fp32", device="cpu", engine="torch")


def assert_equal_rows(one: Gallery, other: Gallery, atol: float = 2e-6) -> None:
    rows, others = ({row.id: row for row in gallery.rows()} for gallery in (one, other))
    assert len(rows) == len(one)  # no id twice
    assert len(others) == len(other)
    assert rows.keys() == others.keys()
    for row_id_, row in rows.items():
        expected = {**others[row_id_].__dict__, "added": row.added}
        assert row.__dict__ == expected
        assert one.thumbnail(row_id_) == other.thumbnail(row_id_)
    ids = list(rows)
    np.testing.assert_allclose(one.descriptors(ids), other.descriptors(ids), atol=atol)


@pytest.mark.slow
def test_a_machine_lost_half_way_changes_nothing(nodes, model_file, photos, tmp_path, monkeypatch):
    embedder, items = embedder_of(model_file), find_items([photos], source="yard")
    monkeypatch.setattr(module, "_COMMITTED_AFTER", 0.0)
    monkeypatch.setattr(module, "_FRAMES_AT_ONCE", 16)
    gallery = Gallery.create(tmp_path / "many", embedder)
    killed, seen = [], []
    (notes := tmp_path / "notes").mkdir()

    def kill_one(done: int, total: int) -> None:
        seen.append(done)
        if killed or done < 100:
            return
        victim = next(node for node in nodes.worker_nodes if (notes / node.node_id).exists())
        nodes.remove_node(victim, allow_graceful=False)
        killed.append(done)

    outcome = index_on_cluster(
        gallery,
        embedder,
        ShippedModel.of(model_file, partial(slow_embedder, notes=notes)),
        items,
        rows_per_file=16,
        progress=kill_one,
    )
    nodes.add_node(num_cpus=1)
    assert killed
    assert killed[0] < 400
    assert seen == sorted(seen)
    assert seen[-1] == len(items) == 400
    one = Gallery.create(tmp_path / "one", embedder)
    expected = index_images(one, embedder, items)
    assert (outcome.added, outcome.already) == (expected.added, expected.already) == (398, 0)
    assert sorted(outcome.unreadable) == sorted(expected.unreadable)
    assert outcome.networks == {"fp32 by torch on cpu": 398}
    assert_equal_rows(gallery, one)


# ---- the stages, without a cluster -----------------------------------------------------------------------


def test_the_stages_give_what_one_process_gives(model_file, photos, tmp_path, monkeypatch):
    """Tracklets, unreadable frames, a batch with nothing readable, a compressed gallery of half precision."""
    import ray

    monkeypatch.setattr(ray, "get", lambda given: given)
    embedder = embedder_of(model_file)
    rows = [f"{photos}/{number:04}.png,t{number // 5},{number % 5},c{number % 2}" for number in range(20)]
    rows += [f"{photos}/bad.png,t0,9,c0", f"{photos}/bad.png,t9,0,c0", f"{photos}/gone.png,,,"]
    (tmp_path / "table.csv").write_text("path,tracklet,frame,camid\n" + "\n".join(rows))
    items = find_items([tmp_path / "table.csv"], source="yard")
    rng = np.random.default_rng(0)
    projection = Projection.fit(
        lambda: iter([rng.normal(size=(64, embedder.descriptor_dim))]), embedder.descriptor_dim, 4
    )
    galleries = [Gallery.create(tmp_path / name, embedder, "float16") for name in ("many", "one")]
    for gallery in galleries:
        gallery.compress(projection=projection)
    many, one = galleries
    expected = index_images(one, embedder, items, frames=4)
    plan = workers.plan_of(many, embedder, Crew(1, 1, 0), len(items), frames=4)
    run = Commits(many, plan, items, ClusterIndexing())
    describe = workers.Describe(plan, ShippedModel.of(model_file, embedder_of))
    for numbers in ([0, 1, 2, 3], [4, 5, *range(6, len(items) - 1)], [len(items) - 1]):
        table = describe(workers.decode_items(workers.item_table(numbers, [items[n] for n in numbers]), plan))
        (text,) = write_rows(table, plan)["result"].to_pylist()
        run.commit([Result(**json.loads(text))])
    assert run.done.all()
    assert run.outcome.added == expected.added == 8
    assert sorted(run.outcome.unreadable) == sorted(expected.unreadable)
    assert [Path(path).name for path, _ in sorted(expected.unreadable)] == ["bad.png", "bad.png", "gone.png"]
    assert_equal_rows(many, one, atol=2e-3)


def test_a_worker_with_another_model_is_refused(model_file, tmp_path, monkeypatch):
    import ray

    monkeypatch.setattr(ray, "get", lambda given: given)
    embedder = embedder_of(model_file)
    plan = workers.plan_of(Gallery.create(tmp_path / "g", embedder), embedder, Crew(1, 1, 0), 1)
    other = reprism.Embedder(reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(64, 32)))
    with pytest.raises(GalleryError, match=f"{other.kind.fingerprint[:12]}, not {embedder.kind.fingerprint[:12]}"):
        workers.Describe(plan, lambda: other)


def test_a_shipped_model_needs_none_of_its_files(tmp_path, model_file):
    """A file, and a folder with folders in it."""
    folder = tmp_path / "model"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"2")

    def read(path: Path) -> dict[str, bytes]:
        return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}

    shipped = ShippedModel.of(folder, read)
    alone = ShippedModel.of(model_file, embedder_of)
    for file in [*folder.rglob("*")][::-1]:
        file.rmdir() if file.is_dir() else file.unlink()
    assert shipped() == {"below/a": b"1", "b": b"2"}
    assert alone().kind == embedder_of(model_file).kind


@pytest.mark.parametrize(
    ("machines", "asked", "crew"),
    [
        ([{"CPU": 16.0}], (None, None), Crew(1, 14, 0, 16)),
        ([{"CPU": 16.0}, {"CPU": 64.0}, {}], (None, None), Crew(5, 14, 0, 16)),
        ([{"CPU": 16.0}, {"CPU": 27.0}, {"CPU": 27.0}], (None, None), Crew(3, 14, 0, 16)),
        ([{"CPU": 1.0}, {"CPU": 1.0}], (None, None), Crew(3, 0.5, 0, 1)),
        ([{"CPU": 1.0}], (None, None), Crew(1, 0.5, 0, 1)),
        ([{"CPU": 2.0}, {"CPU": 2.0}], (None, 2), Crew(1, 2, 0, 2)),
        ([{"CPU": 4.0}], (9, 2), Crew(1, 2, 0, 2)),
        ([{"CPU": 16.0}], (3, 4), Crew(3, 4, 0, 4)),
        ([{"CPU": 16.0, "GPU": 8.0}, {"CPU": 64.0}], (None, None), Crew(8, 1, 1)),
        ([{"CPU": 16.0, "GPU": 8.0}], (2, None), Crew(2, 1, 1)),
    ],
)
def test_workers_are_as_many_as_the_machines_allow(machines, asked, crew):
    assert workers.crew_of(machines, *asked) == crew


@pytest.mark.parametrize(
    "text",
    [
        "The actor died: creation task\nTraceback (most recent call last):\n  File x\nValueError: the file is torn.",
        'Traceback:\n  File "y"\nValueError: the file is torn\n\n'
        "The above exception was the direct cause of the following exception:\n\nRayTaskError: UDF failed.",
    ],
)
def test_a_workers_own_words_are_found_in_the_traces(text):
    assert module._reason(Exception(text)) == "ValueError: the file is torn"


def test_machines_without_processors_are_refused():
    with pytest.raises(GalleryError, match="no processor"):
        workers.crew_of([{"memory": 1.0}], None, None)
    for machines in ([{"CPU": 2.0}], [{"CPU": 1.0}, {"CPU": 1.0}]):
        with pytest.raises(GalleryError, match=r"workers of 2 cores leave none .*all together have 2\. Ask for fewer"):
            workers.crew_of(machines, None, 2)


def test_the_command_gives_the_cluster_what_it_was_given(model_file, photos, tmp_path, monkeypatch, capsys):
    given = {}

    def index(gallery, embedder, make, items, **options):
        given.update(options, kinds=(gallery.kind, embedder.kind, make().kind), count=len(items))
        return ClusterIndexing(added=3, networks=Counter({"fp32 by torch on cpu": 3}))

    monkeypatch.setattr(module, "index_on_cluster", index)
    monkeypatch.setattr(ClusterSettings, "connect", lambda settings: settings.ray == "local")
    command = ["index", str(photos), "--model", str(model_file), "--gallery", str(tmp_path / "g"), "--ray", "local"]
    assert (
        main([*command, "--workers", "2", "--worker-cpus", "3", "--frames", "4", "--no-thumbnails", "--no-flip"]) == 0
    )
    kind = reprism.Embedder(model_file, flip=False, engine="torch").kind
    progress = given.pop("progress")
    assert callable(progress)
    assert given == {
        "workers": 2, "cpus": 3, "frames": 4, "thumbnails": False, "kinds": (kind, kind, kind), "count": 400,
    }  # fmt: skip
    said = capsys.readouterr()
    assert "3 added" in said.out
    assert "fp32 by torch on cpu: 3 rows" in said.err


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 2}, "go with --ray"),
        ({"worker_cpus": 1}, "go with --ray"),
        ({"ray": "local", "workers": 0}, "--workers must be at least 1, it is 0"),
    ],
)
def test_options_of_a_cluster_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ClusterSettings(**settings).connect()


# ---- committing, without a cluster -----------------------------------------------------------------------

DIM = 4
KIND = DescriptorKind("f" * 64, "p1(s1)", DIM, True)
ITEMS = [IndexItem(f"k{number}", (f"k{number}.jpg",)) for number in range(12)]


def begin(folder: Path, items=ITEMS) -> tuple[Gallery, Plan, Commits]:
    gallery = Gallery.create(folder, KIND)
    version = lance.dataset(folder / "rows.lance").data_storage_version
    decode = Decoder(lambda image: image, 15, False)
    plan = Plan(decode, gallery.store.info, None, str(folder / "rows.lance"), version, 100, Crew(1, 1, 0))
    return gallery, plan, Commits(gallery, plan, items, ClusterIndexing())


def entry(number: int) -> Entry:
    return Entry(f"k{number}", descriptor_of(number), f"k{number}.jpg")


def descriptor_of(number: int) -> np.ndarray:
    angle = 1 + number / 100
    return np.array([np.cos(angle), np.sin(angle), 0, 0], np.float32)


def written(plan: Plan, numbers, unreadable=()) -> Result:
    """What a task makes of items: rows, and those that could not be read."""
    schema = plan.info.schema
    rows = to_arrow([entry(n) for n in numbers], np.array([descriptor_of(n) for n in numbers]).reshape(-1, DIM), schema)
    nothing = pa.Table.from_arrays([pa.nulls(len(unreadable), one.type) for one in schema], names=schema.names)
    table = pa.concat_tables([pa.table({name: rows[name] for name in schema.names}), nothing])
    bad = ["[]"] * len(numbers) + [f'[["k{n}.jpg", "torn"]]' for n in unreadable]
    about = {"number": [*numbers, *unreadable], "unreadable": bad, "network": ["fp32"] * len(bad)}
    for name, values in about.items():
        table = table.append_column(name, pa.array(values, pa.int64() if name == "number" else pa.string()))
    (text,) = write_rows(table, plan)["result"].to_pylist()
    return Result(**json.loads(text))


def numbers_in(gallery: Gallery) -> list[int]:
    return sorted(int(key[1:]) for key in list(gallery.keys()))


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_whatever_tasks_write_twice_is_in_once(tmp_path_factory, data):
    gallery, plan, run = begin(tmp_path_factory.mktemp("twice") / "g")
    torn = {3, 7}
    drawn = st.lists(st.sets(st.integers(0, len(ITEMS) - 1), min_size=1, max_size=4), min_size=1, max_size=6)
    settled: set[int] = set()
    for group in data.draw(st.lists(drawn, min_size=1, max_size=3)):
        run.commit([written(plan, sorted(some - torn), sorted(some & torn)) for some in group])
        for some in group:
            settled |= some if some.isdisjoint(settled) else set()
        assert set(np.flatnonzero(run.done)) == settled
        assert numbers_in(gallery) == sorted(settled - torn)
        assert run.outcome.added == len(gallery)
        assert Counter(path for path, _ in run.outcome.unreadable) == {f"k{n}.jpg": 1 for n in settled & torn}
    for number in set(numbers_in(gallery)):
        np.testing.assert_allclose(gallery.descriptors([row_id(f"k{number}")])[0], descriptor_of(number), atol=1e-6)


def test_what_another_process_put_in_meanwhile_is_not_put_in_again(tmp_path):
    gallery, plan, run = begin(tmp_path / "g")
    results = [written(plan, [0, 1]), written(plan, [2, 3])]
    Gallery.open(tmp_path / "g").add([entry(1), entry(9)])
    run.commit(results)
    assert numbers_in(gallery) == [1, 2, 3, 9]
    assert run.outcome.added == 2
    assert run.outcome.already == 1
    # Item 0 lay in one file with 1, and is left for the next round; 9 is found when it is written.
    assert np.flatnonzero(run.done).tolist() == [1, 2, 3]
    run.commit([written(plan, [0])])
    assert numbers_in(gallery) == [0, 1, 2, 3, 9]
    Gallery.open(tmp_path / "g").add([entry(4)])
    run.commit([written(plan, [2, 4])])
    assert run.outcome.already == 2  # 2 is this run's own
    assert numbers_in(gallery) == [0, 1, 2, 3, 4, 9]


def test_files_that_a_rewrite_removed_are_made_again(tmp_path):
    gallery, plan, run = begin(tmp_path / "g")
    run.commit([written(plan, [0, 1, 2])])
    lost = written(plan, [3, 4])
    Gallery.open(tmp_path / "g").erase(ids=[row_id("k1")])
    run.commit([lost, written(plan, [5])])
    assert numbers_in(gallery) == [0, 2, 5]
    assert not run.done[[3, 4]].any()
    assert len(Gallery.open(tmp_path / "g").search(descriptor_of(0), exact=True)[0]) == 3


def test_machines_that_do_not_share_the_folder_are_found_out(tmp_path):
    gallery, plan, run = begin(tmp_path / "g")
    run.commit([written(plan, [1])])
    folder = tmp_path / "g" / "rows.lance" / "data"
    there = {file.name for file in folder.iterdir()}
    result = written(plan, [0])
    [file] = [file for file in folder.iterdir() if file.name not in there]
    file.unlink()
    with pytest.raises(GalleryError, match=r"a worker wrote .*\.lance, which is not in .*do not share that folder"):
        run.commit([result])
    assert numbers_in(gallery) == [1]


def test_a_gallery_that_was_compressed_meanwhile_is_not_written_to(tmp_path):
    gallery, plan, run = begin(tmp_path / "g")
    run.commit([written(plan, range(8))])
    Gallery.open(tmp_path / "g").compress(projection=Projection(np.zeros(DIM, np.float32), np.eye(DIM, dtype="f4")))
    with pytest.raises(GalleryError, match="compressed meanwhile: run the same command again"):
        run.commit([written(plan, [9])])
    assert len(gallery) == 8
