"""Images, tables and galleries in object storage, served by a server of S3's interface on this machine."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import reprism
from reprism.cli import main
from reprism.data.images import ImageError, read_image
from reprism.data.records import DataError
from reprism.gallery.indexing import index_images
from reprism.gallery.inputs import find_items
from reprism.gallery.rows import Entry, row_id
from reprism.gallery.table import Gallery

moto_server = pytest.importorskip("moto.server", reason="needs a server of S3's interface: moto[server]")
pytest.importorskip("s3fs", reason="reading s3:// needs reprism[s3]")

SECRET = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "eu-west-1"}


@pytest.fixture(scope="module")
def bucket():
    """The address of a bucket, whose storage lives as long as the tests."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    # fsspec and LanceDB ask for the same by different names.
    given = {
        **SECRET,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": url,
        "AWS_ENDPOINT": url,
        "AWS_ALLOW_HTTP": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        import fsspec

        fsspec.filesystem("s3").mkdir("site", region_name="eu-west-1")
        yield "s3://site"
    server.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images in a folder and one below it, two files that are none, and a table of all."""
    folder = tmp_path_factory.mktemp("folder") / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.png", "below/c.png", "below/f9.png", "below/f10.png", ".hidden/d.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("not one either")
    (folder / "table.csv").write_text("path,camid\na.png,north\nbelow/c.png,south\ngone.png,south\n")
    return folder


@pytest.fixture(scope="module")
def photos(bucket, folder) -> str:
    """The same in the bucket."""
    import fsspec

    fsspec.filesystem("s3").put(f"{folder}/", "site/photos/", recursive=True)
    return f"{bucket}/photos"


def embedder_of(path: Path) -> reprism.Embedder:
    return reprism.Embedder(path, 16, precision="fp32", device="cpu", engine="torch")


def test_inputs_at_addresses_are_those_of_a_folder(photos, folder):
    for given in ("", "/below", "/a.png", "/table.csv"):
        for options in ({}, {"tracks": True}) if given != "/table.csv" else ({},):
            there, here = (find_items([root + given], source="x", **options) for root in (photos, str(folder)))
            moved = [
                (item.key.replace(photos, str(folder)), *(p.replace(photos, str(folder)) for p in item.paths))
                for item in there
            ]
            assert moved == [(item.key, *item.paths) for item in here]
            assert [(i.camid, i.tracklet, i.source) for i in there] == [(i.camid, i.tracklet, i.source) for i in here]
    assert [Path(item.key).name for item in find_items([photos + "/"])] == [
        "a.png",
        "b.png",
        "bad.jpg",
        "c.png",
        "f10.png",
        "f9.png",
    ]
    [track] = find_items([photos + "/below"], tracks=True)
    assert [Path(path).name for path in track.paths] == ["c.png", "f9.png", "f10.png"]


def test_a_table_on_this_machine_names_addresses(photos, tmp_path):
    (tmp_path / "t.csv").write_text(f"path\n{photos}/a.png\nlocal.png\n")
    assert [item.key for item in find_items([tmp_path / "t.csv"])] == [f"{photos}/a.png", str(tmp_path / "local.png")]


def test_images_at_addresses_are_decoded_as_files_are(photos, folder):
    assert torch.equal(read_image(f"{photos}/below/c.png"), read_image(folder / "below/c.png"))
    with pytest.raises(ImageError, match=r"s3://site/photos/gone.png: there is no such file\. Replace"):
        read_image(f"{photos}/gone.png")
    with pytest.raises(ImageError, match=r"s3://site/photos/bad.jpg: it is not an image of a format"):
        read_image(f"{photos}/bad.jpg")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://site/nowhere", "s3://site/nowhere holds no file"),
        ("s3://nobucket/x", "s3://nobucket/x"),
        ("s3://site/photos/gone.csv", "gone.csv cannot be read: there is no such file"),
        ("zip://a.jpg::s3://site/photos/x.zip", "is a chain of addresses"),
        ("nothing://x/y", "nothing://x/y cannot be opened: Protocol not known: nothing"),
    ],
)
def test_addresses_without_anything_are_refused_by_name(bucket, photos, address, message):
    with pytest.raises(DataError, match=message):
        find_items([address])


def test_a_gallery_in_a_bucket_holds_what_one_in_a_folder_does(photos, folder, bucket, model_file, tmp_path, capsys):
    embedder = embedder_of(model_file)
    options = ["--model", str(model_file), "--engine", "torch", "--precision", "fp32"]
    assert main(["index", photos, f"{photos}/table.csv", *options, "--gallery", f"{bucket}/gallery"]) == 0
    assert "5 added" in capsys.readouterr().out
    assert main(["index", photos, *options, "--gallery", f"{bucket}/gallery"]) == 0
    assert "0 added" in capsys.readouterr().out
    here = Gallery.create(tmp_path / "g", embedder)
    index_images(here, embedder, find_items([folder]))
    there = Gallery.open(f"{bucket}/gallery", embedder)
    rows = {row.key.replace(photos, str(folder)): row for row in there.rows()}
    assert rows.keys() == set(here.keys())
    ids = {key: row.id for key, row in rows.items()}
    np.testing.assert_allclose(
        there.descriptors(list(ids.values())), here.descriptors([row_id(key) for key in ids]), atol=2e-6
    )
    assert (
        main(
            [
                "search",
                str(folder / "b.png"),
                "--gallery",
                f"{bucket}/gallery",
                "--top",
                "1",
                "--audit",
                str(tmp_path / "a"),
            ]
        )
        == 0
    )
    assert f"{photos}/b.png" in capsys.readouterr().out


@pytest.mark.slow
def test_three_services_find_a_row_as_soon_as_it_is_written(bucket, model_file, folder, tmp_path):
    """Each in a process of its own, while one more writes and gathers files."""
    import httpx2 as httpx

    embedder = embedder_of(model_file)
    gallery = Gallery.create(f"{bucket}/served", embedder, model=model_file)
    rng = np.random.default_rng(1)
    serve = [sys.executable, "-m", "reprism", "serve", "--gallery", gallery.uri, "--port", "0", "--engine", "torch"]
    with ExitStack() as stack:
        services = [
            stack.enter_context(
                subprocess.Popen(
                    [*serve, "--audit", str(tmp_path / f"audit{number}.jsonl")],
                    env=os.environ | {"OMP_NUM_THREADS": "1"},
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(3)
        ]
        for service in services:
            stack.callback(service.terminate)
        urls = [service.stdout.readline().split("Serving at ")[1].split(". ")[0] for service in services]
        for number in range(3):
            picture = tmp_path / f"{number}.png"
            Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(picture)
            [descriptor] = embedder.embed([picture])
            gallery.add([Entry(key=f"k{number}", descriptor=descriptor, path=str(picture), camid=f"c{number}")])
            for url in urls:
                answer = httpx.post(
                    f"{url}search", files={"image": picture.read_bytes()}, params={"top": 3}, timeout=60
                )
                assert answer.status_code == 200, answer.text
                [first, *_] = answer.json()["matches"]
                assert first["camid"] == f"c{number}"
                assert first["distance"] < 0.05
                assert httpx.get(f"{url}stats", timeout=60).json()["rows"] == number + 1
            gallery.optimize()
        assert gallery.erase(ids=[row_id("k0")]) == 1
        assert {httpx.get(f"{url}stats", timeout=60).json()["rows"] for url in urls} == {2}


def test_a_clusters_workers_write_into_a_bucket(photos, bucket, model_file, tmp_path, monkeypatch):
    pytest.importorskip("lance_ray", reason="indexing on a cluster needs reprism[ray]")
    import ray

    from reprism.gallery import cluster, workers

    monkeypatch.setattr(ray, "get", lambda given: given)
    embedder, items = embedder_of(model_file), find_items([photos])
    there, here = Gallery.create(f"{bucket}/written", embedder), Gallery.create(tmp_path / "g", embedder)
    plan = workers.plan_of(there, embedder, workers.Crew(1, 1, 0), len(items))
    commits = cluster.Commits(there, plan, items, cluster.ClusterIndexing())
    describe = workers.Describe(plan, lambda: embedder)
    for numbers in ([0, 1, 2], [3, 4, 5]):
        table = describe(workers.decode_items(workers.item_table(numbers, [items[n] for n in numbers]), plan))
        [text] = workers.write_rows(table, plan)["result"].to_pylist()
        commits.commit([workers.Result(**json.loads(text))])
    expected = index_images(here, embedder, items)
    assert commits.outcome.added == expected.added == len(there) == 5
    assert commits.outcome.unreadable == expected.unreadable
    ids = [row.id for row in here.rows()]
    np.testing.assert_allclose(there.descriptors(ids), here.descriptors(ids), atol=2e-6)
