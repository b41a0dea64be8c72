"""Text files, wherever the zoo reads lines."""

from pathlib import Path

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
