"""The same picture twice: the same bytes, or the same to the eye, by a perceptual hash."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from reprism.data.images import read_image
from reprism.progress import Count, Progress, step

HASH_SIDE = 16
"""Side of a perceptual hash: 256 bits."""

LEAST_AGREEMENT = 0.9
"""Share of a hash's bits from which on two pictures are copies. On the photographs of Market-1501 strangers reach 0.73,
and a copy that was resized or saved again at JPEG quality 60 stays above 0.97."""

_BLOCK_BYTES = 64 * 2**20


class Copies(NamedTuple):
    """Pictures that are copies of each other.

    Attributes:
        rows: Their indices, two or more, ascending.
        agreement: Least share of bits in which two of them that were taken for copies agree; 1 for the same bytes.
        exact: True if all have the same bytes.
    """

    rows: tuple[int, ...]
    agreement: float
    exact: bool


def require_imagehash() -> None:
    """Refuse early where ImageHash is not installed.

    Raises:
        ValueError: It is not; the message says how to install it.
    """
    try:
        import imagehash  # noqa: F401
    except ImportError as error:
        raise ValueError(
            "finding near-duplicates needs ImageHash. Install it (pip install 'reprism[clean]'), or look for the same "
            "bytes alone: --no-near-duplicates."
        ) from error


def find_copies(paths: Sequence[Path], *, near: bool = True, progress: Progress | None = None) -> list[Copies]:
    """Find pictures that are copies of each other.

    Args:
        paths: Picture files.
        near: Compare perceptual hashes too, for which every picture is decoded; else bytes alone.
        progress: Called as ``progress(what, done, total)``.

    Returns:
        Groups of copies, by the first of each; no picture is in two.

    Raises:
        ValueError: ImageHash is not installed, and ``near`` is asked for.
        ImageError: A file is no readable picture; names it.
        OSError: A file cannot be read.
    """
    if near:
        require_imagehash()
    digests = _digests(paths, step(progress, "reading pictures"))
    pairs = [(rows[0], row, 1.0) for rows in digests.values() for row in rows[1:]]
    exact = {row: digest for digest, rows in digests.items() for row in rows}
    if near:
        hashes = _hashes(paths, step(progress, "hashing pictures"))
        pairs += list(near_pairs(hashes, step(progress, "comparing hashes")))
    if not pairs:
        return []
    ends = np.array([pair[:2] for pair in pairs])
    agreement = np.array([pair[2] for pair in pairs])
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(paths), len(paths)))
    label = connected_components(graph, directed=False)[1]
    groups: dict[int, list[int]] = defaultdict(list)
    for row in np.unique(ends).tolist():
        groups[int(label[row])].append(row)
    least = {group: float(agreement[label[ends[:, 0]] == group].min()) for group in groups}
    copies = [
        Copies(tuple(rows), least[group], None not in (same := {exact.get(row) for row in rows}) and len(same) == 1)
        for group, rows in groups.items()
    ]
    return sorted(copies)


def _digests(paths: Sequence[Path], progress: Count | None) -> dict[str, list[int]]:
    """Return the pictures of each content that several have; files of a size of their own are not read."""
    sizes: dict[int, list[int]] = defaultdict(list)
    for row, path in enumerate(paths):
        sizes[path.stat().st_size].append(row)
    digests: dict[str, list[int]] = defaultdict(list)
    shared = sorted(row for rows in sizes.values() if len(rows) > 1 for row in rows)
    for done, row in enumerate(shared, 1):
        with paths[row].open("rb") as file:
            digests[hashlib.file_digest(file, "sha256").hexdigest()].append(row)
        if progress is not None:
            progress(done, len(shared))
    return {digest: rows for digest, rows in digests.items() if len(rows) > 1}


def _hashes(paths: Sequence[Path], progress: Count | None) -> np.ndarray:
    """Return N×256 bits, the perceptual hash of each picture."""
    import imagehash

    hashes = np.empty((len(paths), HASH_SIDE**2), bool)
    for row, path in enumerate(paths):
        picture = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
        hashes[row] = imagehash.phash(picture, hash_size=HASH_SIDE).hash.ravel()
        if progress is not None:
            progress(row + 1, len(paths))
    return hashes


def near_pairs(hashes: np.ndarray, progress: Count | None = None) -> Iterator[tuple[int, int, float]]:
    """Yield the pairs of pictures whose hashes agree in :data:`LEAST_AGREEMENT` of their bits or more, with that share.

    Args:
        hashes: N×B bits.
        progress: Called with the pictures done and all of them.
    """
    signs = np.where(hashes, np.float32(1), np.float32(-1))
    bits = hashes.shape[1]
    size = max(1, _BLOCK_BYTES // (4 * max(1, len(hashes))))
    for start in range(0, len(signs), size):
        stop = min(start + size, len(signs))
        # A product of signs is the bits that agree less those that differ: whole numbers, exact in float32.
        agree = (signs[start:stop] @ signs[start:].T + bits) / (2 * bits)
        for one, other in np.argwhere(agree >= LEAST_AGREEMENT).tolist():
            if one < other:
                yield start + one, start + other, float(agree[one, other])
        if progress is not None:
            progress(stop, len(signs))
