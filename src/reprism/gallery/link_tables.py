"""The tables of linking beside a gallery's rows: each is replaced whole, in one step, and no older version stays."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from datetime import timedelta

import pyarrow as pa

from reprism.gallery.database import LINK_TABLES, LINKING, has_table
from reprism.gallery.store import Store

_PAUSES = (0, 0.01, 0.1)  # seconds before each attempt to read a table

MOMENT = pa.timestamp("us", tz="UTC")


def read_table(store: Store, name: str) -> pa.Table | None:
    """Return a table with the metadata of its schema; None if there is none, or its creation or removal was cut off."""
    for pause in _PAUSES:
        time.sleep(pause)
        if not has_table(store.connection, name):
            return None
        try:
            table = store.connection.open_table(name)
            return table.search().to_arrow().replace_schema_metadata(table.schema.metadata)
        except (RuntimeError, ValueError, OSError):
            continue  # another process may have replaced it meanwhile, and removed the files of the version before
    return None


def replace_table(store: Store, name: str, rows: pa.Table) -> None:
    """While writing: replace a table, and remove the bytes of what was there."""
    drop_unreadable(store)
    mode = "overwrite" if has_table(store.connection, name) else "create"
    store.connection.create_table(name, data=rows, schema=rows.schema, mode=mode)
    store.disk.confirm()
    remove_old_versions(store, (name,))


def drop_unreadable(store: Store) -> None:
    """While writing: remove tables that cannot be read: nobody can tell what they hold.

    With the permission all of them go, as when linking is switched off.
    """
    for name in LINK_TABLES:
        if has_table(store.connection, name) and read_table(store, name) is None:
            if name == LINKING:
                drop_tables(store)
            store.connection.drop_table(name, ignore_missing=True)


def drop_tables(store: Store) -> None:
    """While writing: remove all of them."""
    for name in LINK_TABLES:
        store.connection.drop_table(name, ignore_missing=True)


def remove_old_versions(store: Store, names: Sequence[str] = LINK_TABLES) -> None:
    """While writing, after what is there came to the disk: remove what was there before."""
    for name in names:
        if read_table(store, name) is not None:
            with warnings.catch_warnings():
                # Whoever reads an older version meanwhile may fail, as with an erasure.
                warnings.filterwarnings("ignore", message="optimize.cleanup_older_than=0")
                store.connection.open_table(name).optimize(cleanup_older_than=timedelta(0), delete_unverified=True)
