"""The data files of 2018: lists (.lst) of binary files and their descriptions, one after the other.

    feature_1.bin       float32 frames, utterance after utterance; labels: int32
    feature_1.desc      a line of numbers for the whole, then `NAME ... START BYTES FRAMES DIM` (labels: `START BYTES FRAMES`)

What stands between the name and the start differs between exports, so the numbers are found by what they must fulfil: BYTES is
4 * FRAMES * DIM.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from fluid.errors import DataError

import numpy as np


def read_list(path: Path, *, labels: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """(name, features [frames, dim]) or (name, labels [frames]) of a list. Raises DataError (FILE:LINE)."""
    names = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not names or len(names) % 2:
        raise DataError(f"{path}: {len(names)} files, where a .bin and its .desc are expected in turn")
    for binary, description in zip(names[::2], names[1::2]):
        yield from _read(_near(binary, path), _near(description, path), labels)


def _read(binary: Path, description: Path, labels: bool) -> Iterator[tuple[str, np.ndarray]]:
    try:
        data = binary.read_bytes()
    except OSError as error:
        raise DataError(f"{binary}: cannot be read ({error.strerror or error})") from None
    for number, line in enumerate(_text(description).splitlines()[1:], 2):
        name, *fields = line.split()
        try:
            start, size, frames, dim = _numbers([int(field) for field in fields], labels)
        except ValueError:
            raise DataError(
                f"{description}:{number}: 'NAME ... START BYTES FRAMES{'' if labels else ' DIM'}' is expected, not '{line}'"
            ) from None
        if start + size > len(data):
            raise DataError(f"{binary}: {name}: bytes {start} to {start + size} of {len(data)}")
        array = np.frombuffer(data, "<i4" if labels else "<f4", frames * dim, start)
        yield name, array.copy() if labels else array.reshape(frames, dim).copy()


def _numbers(fields: list[int], labels: bool) -> tuple[int, int, int, int]:
    """Start, bytes, frames and width. Raises ValueError if none of them fit each other."""
    width = 3 if labels else 4
    for first in range(len(fields) - width + 1):
        start, size, frames, *dim = fields[first : first + width]
        if start >= 0 and frames > 0 and size == 4 * frames * (dim or [1])[0]:
            return start, size, frames, (dim or [1])[0]
    raise ValueError


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _near(name: str, listed_in: Path) -> Path:
    """From the working directory, as in 2018, or from the folder of the list."""
    path = Path(name)
    return path if path.exists() or not (listed_in.parent / path).exists() else listed_in.parent / path
