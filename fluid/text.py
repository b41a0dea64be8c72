"""Text files, wherever the zoo reads lines or JSON."""

import json
import os
from pathlib import Path
from typing import Any

from fluid.errors import DataError
from fluid.files import read_plain


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 text file, with or without a byte order mark. Raises DataError (FILE:LINE)."""
    try:
        data = read_plain(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        lines = data.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise DataError(f"{path}:{number}: is not UTF-8 text (byte 0x{data[error.start]:02x})") from None
    return lines[:-1] if lines[-1] == "" else lines


def read_json(path: str | Path) -> Any:
    """What a JSON file holds. Raises DataError if it cannot be read, or is none."""
    try:
        return json.loads(read_plain(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error})") from None


def as_text(name: str) -> str:
    """The name of a file as text, whatever the system takes it for: UTF-8, with bytes that are none by their numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")
