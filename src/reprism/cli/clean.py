"""``reprism data clean``: list what may be wrong with a data set's labels, and take the answers."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from rich.console import Console

from reprism.cli.arguments import parse
from reprism.cli.datasets import open_named
from reprism.cli.embedding import EmbeddingOptions, EmbeddingSettings
from reprism.cli.output import figures_table, progress_bars
from reprism.progress import Count, Progress, step

if TYPE_CHECKING:
    from reprism.cleaning import Faults, Placed
    from reprism.data.records import Item, ReIDDataset

_PIECE = 1024  # items described before they are kept


@dataclass
class Clean:
    """List what may be wrong with a data set's labels, with pictures, and take a person's answers.

    Finds likely wrong identities, two people under one name, one person under two, copies of pictures, and leaks from
    training to test. Writes a page that is answered by keyboard (index.html), findings.csv and findings.json. The page
    shows people: keep it as the pictures are kept.

    With --answers it writes the corrected list instead, a table for the data set csv, and needs no model. No picture is
    ever changed, moved or removed.
    """

    name: tyro.conf.Positional[str]
    """Data set: market1501, dukemtmc, cuhk03, mars, csv or folder. Options of its loader follow after commas:
    cuhk03,boxes=detected."""
    root: tyro.conf.Positional[str]
    """Folder of the data set; for csv, the table."""
    model: Path | None = None
    """Model that describes the pictures: a file of reprism train, a folder of reprism export, or an ONNX file with a
    YAML file beside it."""
    out: Path | None = None
    """Folder for the page and the tables (default: clean); with --answers the CSV file to write."""
    answers: Path | None = None
    """Answers that the page exported, or findings.csv with its last column filled in."""
    least: float = 0.5
    """Least probability of a finding that is listed, 0 to 1. Copies are listed always."""
    shown: int = 100
    """Most findings of a kind on the page; the tables hold all."""
    near_duplicates: bool = True
    """Look for copies by a perceptual hash too (the extra clean); else for the same bytes alone."""
    camera_normalize: bool = True
    """Normalize descriptors by camera before they are compared, where cameras are known."""
    split_by_identity: float | None = None
    """Share of the identities to train with, in your own data without a split (default: none)."""
    seed: int = 0
    """Random seed of --split-by-identity, and of the labels that are made wrong to compare with."""
    overwrite: bool = False
    """Replace what --out names, if it exists."""
    json: bool = False
    """Print JSON."""
    embedding: EmbeddingOptions = field(default_factory=EmbeddingSettings)


def clean(argv: Sequence[str]) -> int:
    """List what may be wrong with a data set's labels, with pictures, and take the answers."""
    arguments = parse(
        Clean,
        argv,
        "reprism data clean",
        example="reprism data clean market1501 /data/Market-1501 --model model.safetensors --out clean\n"
        "reprism data clean market1501 /data/Market-1501 --answers answers.csv --out corrected.csv",
        main=("model", "out", "answers", "least", "json"),
    )
    if arguments.answers is not None:
        return _correct(arguments, arguments.answers)
    if arguments.model is None:
        raise ValueError("expected --model MODEL to describe the pictures by, or --answers FILE to take answers")
    out = arguments.out or Path("clean")
    if out.suffix.lower() == ".csv" or out.is_file():
        raise ValueError(f"expected --out as a folder for the page and the tables, got {out}")
    if (out / "index.html").exists() and not arguments.overwrite:
        raise ValueError(f"{out} has a page already: give --overwrite to replace it, or another --out")
    return _find(arguments, arguments.model, out)


def _find(arguments: Clean, model: Path, out: Path) -> int:
    from reprism.cleaning import entries_of, find_copies, find_faults, write_findings
    from reprism.cleaning.duplicates import require_imagehash
    from reprism.report.cleaning_page import write_cleaning_page

    if arguments.near_duplicates:
        require_imagehash()
    with progress_bars() as progress:
        dataset = _dataset(arguments, progress)
        entries = entries_of(dataset)
        rows = _describe(arguments, model, entries, out, progress)
        paths = [entry.item.path for entry in entries]
        copies = find_copies(paths, near=arguments.near_duplicates, progress=progress)
        faults = find_faults(rows, entries, copies, least=arguments.least, seed=arguments.seed, progress=progress)
        about = {
            "data": dataset.name,
            "root": str(dataset.root),
            "model": str(model),
            "items": len(entries),
            "least": arguments.least,
            "shares": faults.shares,
        }
        tables = write_findings(out, faults.findings, entries, dataset.root, about)
        page = write_cleaning_page(
            out / "index.html",
            faults,
            entries,
            dataset.root,
            title=f"Labels of {dataset.name}",
            command=f"reprism data clean {arguments.name} {arguments.root} --answers answers.csv --out corrected.csv",
            shown=arguments.shown,
            progress=step(progress, "drawing findings"),
        )
    if arguments.json:
        print(tables[1].read_text(encoding="utf-8"), end="")
    else:
        _show(faults)
        print(page, *tables, sep="\n")
    return 0


def _correct(arguments: Clean, answers: Path) -> int:
    from reprism.cleaning import correct, entries_of, read_answers, write_list

    out = arguments.out
    if out is None or out.suffix.lower() != ".csv":
        raise ValueError(f"expected --out FILE.csv for the corrected list, got {out or 'no --out'}")
    if out.exists() and not arguments.overwrite:
        raise ValueError(f"{out} exists: give --overwrite to replace it, or another --out")
    given = read_answers(answers)
    with progress_bars() as progress:
        dataset = _dataset(arguments, progress)
    corrected = correct(entries_of(dataset), dataset.root, given)
    write_list(out, corrected)
    counts = {
        "answered": len({each.finding for each in given}),
        "renamed": corrected.renamed,
        "removed": corrected.removed,
        "items": len(corrected.entries),
    }
    if arguments.json:
        print(json.dumps({"out": str(out)} | counts, indent=2))
    else:
        print(
            f"{out}: {counts['items']:,} items; {counts['answered']:,} findings answered, {counts['renamed']:,} items "
            f"with another identity, {counts['removed']:,} left out"
        )
    return 0


def _dataset(arguments: Clean, progress: Progress) -> "ReIDDataset":
    return open_named(
        f"{arguments.name}:{arguments.root}",
        progress,
        split_by_identity=arguments.split_by_identity,
        seed=arguments.seed,
    )


def _describe(arguments: Clean, model: Path, entries: "Sequence[Placed]", out: Path, progress: Progress) -> np.ndarray:
    """Describe the items, or read their descriptors if the same model described the same files into ``out`` before."""
    from reprism.evaluation.camera_statistics import CameraStatistics

    embedder = arguments.embedding.embedder_of(model)
    video = arguments.embedding.video
    files = [[str(path := entry.item.path), (found := path.stat()).st_size, found.st_mtime_ns] for entry in entries]
    described = [asdict(embedder.kind), asdict(video), files]
    key = hashlib.sha256(json.dumps(described).encode()).hexdigest()[:16]
    rows = _in_pieces(
        [entry.item for entry in entries],
        out / f"descriptors-{key}.npy",
        lambda items: embedder.embed_items(items, video, workers=arguments.embedding.workers),
        step(progress, "describing"),
    )
    cameras = [entry.item.camid for entry in entries]
    if arguments.camera_normalize and None not in cameras:
        return CameraStatistics.fit(rows, cameras).apply(rows, cameras)
    # Tracklets have several descriptors side by side.
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _in_pieces(
    items: "Sequence[Item]", kept: Path, embed: Callable[["Sequence[Item]"], np.ndarray], progress: Count | None
) -> np.ndarray:
    """Describe items a piece at a time, each of which is kept, so that an interrupted command goes on from there."""
    from reprism.files import whole_file

    for other in kept.parent.glob("descriptors-*.npy"):
        if not other.name.startswith(kept.stem):
            other.unlink()  # of other pictures, or of another model
    if kept.is_file():
        return np.asarray(np.load(kept, allow_pickle=False))
    pieces = []
    for start in range(0, len(items), _PIECE):
        part = kept.with_name(f"{kept.stem}-{start}.npy")
        if not part.is_file():
            with whole_file(part) as file:
                np.save(file, embed(items[start : start + _PIECE]), allow_pickle=False)
        pieces.append(part)
        if progress is not None:
            progress(min(start + _PIECE, len(items)), len(items))
    rows = np.concatenate([np.load(part, allow_pickle=False) for part in pieces])
    with whole_file(kept) as file:
        np.save(file, rows, allow_pickle=False)
    for part in pieces:
        part.unlink()
    return rows


def _show(faults: "Faults") -> None:
    from reprism.cleaning.findings import KINDS

    table = figures_table("what may be wrong", ("findings", "highest score"), "kind")
    for kind in KINDS:
        scores = [finding.score for finding in faults.findings if finding.kind == kind]
        table.add_row(kind, f"{len(scores):,}", f"{max(scores):.0%}" if scores else "")
    Console(highlight=False).print(table)
