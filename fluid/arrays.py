"""Raw arrays by name in .npz files: what --feed and --fetch read and write."""

import os
import zipfile
import zlib
from collections.abc import Mapping

from fluid import files
from fluid.errors import DataError

import numpy as np

# What NumPy and zipfile raise on a file that is not what it claims to be.
_NO_ARRAYS = (
    *(OSError, EOFError, ValueError, TypeError, AttributeError, LookupError, SyntaxError, MemoryError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read the arrays of an .npz file; pickled objects are refused. Raises DataError."""
    try:
        with files.open_plain(path) as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except _NO_ARRAYS as error:
        raise DataError(f"{path}: not a readable .npz file of arrays ({error}).") from error


def write_npz(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name to an .npz file, completely or not at all. Raises DataError."""
    with files.whole(path, DataError) as unfinished, open(unfinished, "wb") as file:
        # Its own flag allow_pickle, a bool, is newer than the oldest NumPy that the project takes.
        np.savez(file, **arrays)  # type: ignore[arg-type]
