"""Text files, wherever the zoo reads lines or JSON."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fluid.errors import DataError
from fluid.files import open_plain, read_plain


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 text file, with or without a byte order mark. Raises DataError (FILE:LINE)."""
    return list(each_line(path))


def each_line(path: str | Path) -> Iterator[str]:
    """`read_lines`, one at a time, of a file of any size."""
    try:
        file = open_plain(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    with file:
        yield from decoded_lines(file, str(path))


def decoded_lines(lines: Iterable[bytes], name: str) -> Iterator[str]:
    """Text of the UTF-8 `lines` of what is called `name`, without their ends. Raises DataError (NAME:LINE)."""
    for number, line in enumerate(lines, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}:{number}: is not UTF-8 text (byte 0x{error.object[error.start]:02x})") from None
        yield text.removesuffix("\n").removesuffix("\r")


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises DataError if it cannot be read, or is none."""
    try:
        return json.loads(read_plain(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 image`, `2 images`, `1,000 images`. `plural` is that of a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def as_text(name: str) -> str:
    """The name of a file as text, whatever the system takes it for: UTF-8, with bytes that are none by their numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")
