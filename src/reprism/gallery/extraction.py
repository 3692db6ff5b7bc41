"""Write a gallery's descriptors to a Parquet table, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

import pyarrow as pa
import pyarrow.compute as pc

from reprism.files import whole_file
from reprism.gallery.rows import DESCRIPTOR, row_id
from reprism.gallery.table import Gallery
from reprism.progress import Count

COLUMNS = ("path", "pid", "camid", "time", "tracklet", "frames", "source", DESCRIPTOR)
"""Columns of the table; each has a gallery's meaning (:class:`reprism.gallery.rows.Entry`)."""

_ROWS_AT_ONCE = 8192


def write_descriptors(
    gallery: Gallery, keys: Sequence[str], path: str | PathLike[str], progress: Count | None = None
) -> int:
    """Write the rows with these keys to a Parquet file, in the order of the keys; those that are absent are left out.

    The column ``descriptor`` is a list of fixed length. The file appears whole.

    Args:
        gallery: Gallery to read.
        keys: Keys of rows.
        path: File to write; an existing one is replaced.
        progress: Called with the rows written and all of them.

    Returns:
        Number of rows written.
    """
    import pyarrow.parquet as pq

    table = gallery.store.table
    places = {
        name: place
        for batch in table.search().select(["id"]).with_row_id(True).to_batches()
        for name, place in zip(batch["id"].to_pylist(), batch["_rowid"].to_pylist(), strict=True)
    }
    ids = [name for key in keys if (name := row_id(key)) in places]
    info = gallery.store.info
    columns = pa.schema([info.schema.field(name) for name in COLUMNS], metadata=info.metadata())
    with whole_file(path) as file, pq.ParquetWriter(file, columns) as writer:
        for start in range(0, len(ids), _ROWS_AT_ONCE):
            some = ids[start : start + _ROWS_AT_ONCE]
            found = table.take_row_ids([places[name] for name in some]).select(["id", *COLUMNS]).to_arrow()
            # LanceDB promises no order.
            found = found.take(pc.index_in(pa.array(some), value_set=found["id"].combine_chunks()))
            writer.write_table(found.select(COLUMNS).cast(columns))
            if progress is not None:
                progress(start + len(some), len(ids))
    return len(ids)
