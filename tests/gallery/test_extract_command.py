"""``reprism extract`` writes what the network says of each input, in their order, whole or not at all."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import reprism
from reprism.cli import main
from reprism.gallery import extraction
from reprism.gallery.rows import Entry
from reprism.gallery.table import Gallery


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(9):
        Image.fromarray(rng.integers(0, 256, (48, 24, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def extract(*inputs, model_file, out, **options) -> int:
    flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    exact = ["--engine", "torch", "--precision", "fp32", "--device", "cpu"]
    return main(["extract", *map(str, inputs), "--model", str(model_file), "--out", str(out), *exact, *flags])


def test_rows_are_the_descriptors_of_the_inputs_in_their_order(model_file, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "_ROWS_AT_ONCE", 4)
    (photos / "bad.png").write_bytes(b"no image")
    table = tmp_path / "t.csv"
    table.write_text(
        "path,pid,camid,time,tracklet,frame\n"
        "photos/5.png,anna,north,2026-05-01T12:00:00+02:00,,\n"
        "photos/7.png,,south,,t,2\nphotos/6.png,,south,,t,1\n"
    )
    out = tmp_path / "d.parquet"
    inputs = [photos / "3.png", table, photos]
    assert extract(*inputs, model_file=model_file, out=out, source="yard") == 0
    found = pq.read_table(out)
    names = [Path(path).name for path in found["path"].to_pylist()]
    assert names == [f"{number}.png" for number in (3, 5, 6, 0, 1, 2, 4, 6, 7, 8)]
    embedder = reprism.Embedder(model_file, precision="fp32", device="cpu", engine="torch")
    pictures = embedder.embed([photos / name for name in names])
    track = embedder.embed([photos / "6.png", photos / "7.png"]).mean(0)
    pictures[2] = track / np.linalg.norm(track)
    rows = np.array(found["descriptor"].to_pylist(), np.float32)
    np.testing.assert_allclose(rows, pictures, atol=2e-6)
    assert found["pid"].to_pylist() == [None, "anna", *[None] * 8]
    assert found["camid"].to_pylist()[:3] == [None, "north", "south"]
    assert found["time"].to_pylist()[1].isoformat() == "2026-05-01T10:00:00+00:00"
    assert found["tracklet"].to_pylist()[2] == "t"
    assert found["frames"].to_pylist() == [1, 1, 2, *[1] * 7]
    assert set(found["source"].to_pylist()) == {"yard"}
    about = json.loads(found.schema.metadata[b"reprism"])
    assert about["kind"]["fingerprint"] == embedder.kind.fingerprint
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.parquet", "photos", "t.csv"]


def test_an_interrupted_run_goes_on(model_file, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "d.parquet"

    def cut_off(*_args, **_options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("reprism.gallery.extraction.write_descriptors", cut_off)
        assert extract(photos, model_file=model_file, out=out) != 0
    assert not out.exists()
    Image.new("RGB", (24, 48)).save(photos / "9.png")
    capsys.readouterr()
    assert extract(photos / "9.png", photos / "1.png", photos / "2.png", model_file=model_file, out=out) == 0
    assert "3 rows of" in (said := capsys.readouterr().out)
    assert "2 had been described before" in said
    # Only what this run named, though the earlier one described more.
    assert [Path(path).name for path in pq.read_table(out)["path"].to_pylist()] == ["9.png", "1.png", "2.png"]


def test_another_models_leftovers_are_not_mixed_in(model_file, photos, tmp_path, capsys):
    out = tmp_path / "d.parquet"
    other = reprism.build_model("p1", "mobilenetv3_small_050", part_dim=8, size=(64, 32))
    gallery = Gallery.create(tmp_path / ".d.parquet.unfinished", reprism.Embedder(other, engine="torch"))
    gallery.add([Entry("k", np.ones(gallery.descriptor_dim), "k.png")])
    assert extract(photos, model_file=model_file, out=out) != 0
    assert "another model" in (said := capsys.readouterr().err)
    assert ".d.parquet.unfinished" in said
    assert "remove it to begin again" in said
    assert not out.exists()


def test_what_cannot_be_written_is_refused_at_once(model_file, photos, tmp_path, capsys):
    for out, words in (("d.csv", "FILE.parquet"), ("s3://b/d.parquet", "FILE.parquet"), (tmp_path, "FILE.parquet")):
        assert extract(photos, model_file=model_file, out=out) != 0
        assert words in capsys.readouterr().err
    (photos / "bad.png").write_bytes(b"no image")
    assert extract(photos / "bad.png", model_file=model_file, out=tmp_path / "d.parquet") == 1
    assert sorted(file.name for file in tmp_path.iterdir()) == ["photos"]
