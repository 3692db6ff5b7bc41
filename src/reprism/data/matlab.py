"""Tables in MATLAB files (v5 to v7.2; scipy reads them), with errors that name the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reprism.data.records import DataError


def read_tables(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the named variables of a MATLAB file.

    Raises:
        DataError: The file is missing, none of MATLAB's, or lacks one of them.
    """
    values = _load(path)
    if missing := [name for name in names if name not in values]:
        raise DataError(f"{path} lacks {', '.join(missing)}; it has {', '.join(values) or 'nothing'}.")
    return {name: values[name] for name in names}


def read_table(path: Path, columns: int | None = None) -> np.ndarray:
    """Return the only variable of a MATLAB file, whatever its name, as int64.

    Args:
        path: The file.
        columns: Required number of columns, rows×columns; None: a vector, whichever way it lies.

    Raises:
        DataError: The file is missing, none of MATLAB's, or holds something else.
    """
    values = _load(path)
    if len(values) != 1:
        raise DataError(f"{path} holds {', '.join(values) or 'nothing'}; expected one table.")
    table = next(iter(values.values()))
    if not (isinstance(table, np.ndarray) and table.dtype.kind in "iuf" and table.size):
        raise DataError(f"{path} holds no table of numbers.")
    if not np.array_equal(table, np.trunc(table)):
        raise DataError(f"{path} holds numbers that are not whole.")
    # Indices are stored as uint16, where 65535 + 1 is 0 and 0 - 1 is 65535.
    table = table.astype(np.int64)
    if columns is None:
        return table.ravel()
    if table.ndim != 2 or table.shape[1] != columns:
        raise DataError(f"{path} holds a table of {'×'.join(map(str, table.shape))}; expected {columns} columns.")
    return table


def _load(path: Path) -> dict[str, Any]:
    from scipy.io import loadmat

    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    try:
        values = loadmat(path)
    except Exception as error:  # the parser raises whatever it stumbled over
        raise DataError(f"{path} cannot be read as a MATLAB file: {error}. Fetch it again, whole.") from error
    return {name: value for name, value in values.items() if not name.startswith("__")}
