"""Kaldi's tables: archives (.ark, .ark.gz, ali.*.gz) and script files (.scp), binary or text, read and written by NumPy alone.

    for key, features in read_archive("raw_fbank.1.ark"): ...         float32 or float64 [frames, dim]
    pdfs = {key: ids for key, ids in read_archive("ali.1.gz")}        int32 [frames]
    entries = read_script("feats.scp");  features = entries[key].read()

    with ArchiveWriter("feats.ark", "feats.scp", kind="CM") as archive:
        archive.write(key, features)

All kinds of matrices are read: FM, DM, and the compressed CM (Kaldi's default), CM2 and CM3; vectors FV and DV; vectors of
integers. Whatever a file holds, an error is one DataError that names file and utterance. Commands in script files
("gunzip -c x.gz |") are never run.

Formats: https://kaldi-asr.org/doc/io.html and src/matrix/compressed-matrix.cc of Kaldi.
"""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, Self, cast

from fluid import files
from fluid.errors import DataError
from fluid.text import each_line

import numpy as np

Kind = Literal["FM", "DM", "CM", "CM2", "CM3"]

BINARY = b"\0B"
_PLAIN = {"FM": "<f4", "DM": "<f8", "FV": "<f4", "DV": "<f8"}
_COMPRESSED = ("CM", "CM2", "CM3")
_INTEGER = np.dtype([("size", "i1"), ("value", "<i4")])
"""Integers of a vector each come with their size."""
_HEADER = struct.Struct("<ffii")
"""Of a compressed matrix: smallest value, range, rows, columns."""
_GZIP = b"\x1f\x8b"
_SPACE = " \t\n\r\f\v"
_LARGEST, _LARGEST_PACKED, _PIECE = 2**33, 2**27, 2**24
"""Bytes of an array; of a packed one, which a thousandth of that may unpack to, six hours of forty numbers a frame."""
_LONGEST_KEY, _LONGEST_TOKEN, _LONGEST_LINE = 4096, 64, 2**24
_MOST_ROWS = 2**21
"""Of a matrix as text: six hours."""
# So many frames past the end Kaldi allows in a range, since segments are rounded to frames.
_TOLERANCE = 3


def read_archive(path: str | os.PathLike) -> Iterator[tuple[str, np.ndarray]]:
    """Yield (key, array) of an archive in its order; gzip is recognised by its first bytes.

    Matrices are float32 or float64 [rows, columns], vectors float [n] or int32 [n]. Raises DataError for what is no
    archive, is cut off, or has a key twice.
    """
    with opened(path) as stream:
        if stream.peek(len(BOM_UTF8)) == BOM_UTF8:
            stream.take(len(BOM_UTF8))
        seen = set()
        while (key := _read_key(stream)) is not None:
            stream.key = key
            if key in seen:
                raise stream.error("there are two entries of this name")
            seen.add(key)
            yield key, _read_array(stream)
            stream.key = None


@dataclass(frozen=True)
class Entry:
    """Where a script file says that an array lies."""

    path: Path
    offset: int
    rows: tuple[int, int] | None
    """First and last row, both included; None for all."""
    columns: tuple[int, int] | None
    where: str
    """File and line, for messages."""

    def read(self) -> np.ndarray:
        """The array, or the part of it that is asked for. Raises DataError."""
        with opened(self.path, self.offset, f"{self.where}: {self.path}") as stream:
            array = _read_array(stream)
            return array[_part(stream, array.shape, self.rows, self.columns)]


def read_script(path: str | Path) -> dict[str, Entry]:
    """The entries of a script file by key: lines "KEY FILE", "KEY FILE:OFFSET", either with "[FIRST:LAST]" of the rows.

    A range of columns may follow, as in "[0:99,0:39]". Files that are not found from the working directory, as in Kaldi,
    are looked for from the folder of the script file. Raises DataError for lines of another form, for commands and for
    a key that comes twice.
    """
    entries: dict[str, Entry] = {}
    for number, line in enumerate(each_line(path), 1):
        where = f"{path}:{number}"
        key, location = _divided(line)
        if not location:
            raise DataError(f"{where}: '{line.strip()}' is not 'UTTERANCE FILE' or 'UTTERANCE FILE:OFFSET'")
        if location.endswith("|") or location.startswith("|"):
            raise DataError(
                f"{where}: '{location}' is a command, and commands of data files are never run. Write what it prints to an "
                "archive, with Kaldi's copy-feats say, and name that"
            )
        if key in entries:
            raise DataError(f"{where}: '{key}' is listed before, at {entries[key].where}")
        entries[key] = _entry(location, Path(path), where)
    return entries


def read_text(path: str | Path) -> dict[str, str]:
    """Lines "KEY VALUE ..." of a text table (text, utt2spk, words.txt) by key; a value may be empty.

    Raises DataError for a file that is not UTF-8 and for a key that comes twice.
    """
    table: dict[str, str] = {}
    for number, line in enumerate(each_line(path), 1):
        key, value = _divided(line)
        if key in table:
            raise DataError(f"{path}:{number}: '{key}' is listed before")
        if key:
            table[key] = value
    return table


class ArchiveWriter:
    """Writes an archive, and a script file that points into it, completely or not at all.

    Args:
        path: of the archive.
        script: of the script file, if one is wanted.
        kind: how matrices are stored. CM takes a byte a number, on a scale of each column's own; CM2 two bytes and CM3 one,
            on one scale for the whole matrix.
    """

    def __init__(self, path: str | os.PathLike, script: str | os.PathLike | None = None, kind: Kind = "FM") -> None:
        self.path, self.script, self.kind = Path(path), Path(script) if script else None, kind
        self._lines: list[str] = []
        self._keys: set[str] = set()
        self._partial = [files.partial(Path(name)) for name in (self.path, self.script) if name]
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(self._partial[0], "wb")

    def write(self, key: str, array: np.ndarray) -> None:
        """Append a matrix [rows, columns], or a vector of numbers or integers [n].

        Raises ValueError for a key with white space or that was written before, and for what `kind` cannot hold.
        """
        if not key or key in self._keys or key.split() != [key]:
            raise ValueError(f"'{key}' was written before or is not a key, which has no white space")
        self._keys.add(key)
        encoded = _encode(np.asarray(array), self.kind)
        with _writing(self.path):
            self._file.write(f"{key} ".encode())
            self._lines.append(f"{key} {self.path}:{self._file.tell()}\n")
            self._file.write(BINARY + encoded)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            with _writing(self.path):
                self._file.close()
                if kind is None and self.script is not None:
                    self.script.parent.mkdir(parents=True, exist_ok=True)
                    self._partial[1].write_text("".join(self._lines), encoding="utf-8")
                if kind is None:
                    for partial, path in zip(self._partial, (self.path, self.script)):
                        os.replace(partial, cast(Path, path))
        finally:
            for partial in self._partial:
                partial.unlink(missing_ok=True)


class Stream:
    """Bytes of a file that are taken one after the other; what is wrong with them is said with file and utterance."""

    def __init__(self, file: BinaryIO, name: str, largest: int = _LARGEST) -> None:
        self.file, self.name, self.largest = file, name, largest
        self.key: str | None = None
        self._ahead = b""

    def error(self, what: str) -> DataError:
        """A DataError about the current entry."""
        return _error(self.name, self.key, what)

    def some(self, count: int) -> bytes:
        """The next `count` bytes, or those that are left."""
        pieces, self._ahead = [self._ahead[:count]], self._ahead[count:]
        count -= len(pieces[0])
        # A header may claim anything: no more is allocated than the file has.
        while count > 0 and (piece := self.file.read(min(count, _PIECE))):
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, or those that are left, which are taken again later."""
        data = self.some(count)
        self.push(data)
        return data

    def push(self, data: bytes) -> None:
        """Give back what was taken."""
        self._ahead = data + self._ahead

    def line(self) -> bytes:
        """The bytes up to the end of the line, which is included; none at the end of the file."""
        start, end, self._ahead = self._ahead.partition(b"\n")
        line = start + (end or self.file.readline(_LONGEST_LINE))
        if len(line) >= _LONGEST_LINE:
            raise self.error(f"a line has {len(line)} bytes or more: not Kaldi's format, or damaged")
        return line

    def take(self, count: int) -> bytes:
        """The next `count` bytes. Raises DataError if there are fewer."""
        if not 0 <= count <= self.largest:
            raise self.error(f"an array of {count} bytes is claimed: the file is damaged")
        data = self.some(count)
        if len(data) < count:
            raise self.error(f"the file ends {count - len(data)} bytes too early")
        return data

    def token(self) -> str:
        """The characters up to a space."""
        data = b""
        while not data.endswith(b" "):
            if len(data) > _LONGEST_TOKEN:
                raise self.error(f"{data[:16]!r}... is no token of Kaldi's")
            data += self.take(1)
        return data[:-1].decode("ascii", "replace")

    def integer(self) -> int:
        """An integer with its size before it."""
        if (size := self.take(1)[0]) != 4:
            raise self.error(f"an integer of {size} bytes where one of 4 is expected: not Kaldi's format, or damaged")
        return struct.unpack("<i", self.take(4))[0]

    def integers(self, count: int) -> np.ndarray:
        """`count` integers, each with its size before it, as int32."""
        elements = self.array(_INTEGER, count)
        if (elements["size"] != 4).any():
            raise self.error("a list of integers holds something else: the file is damaged")
        return elements["value"].astype(np.int32)

    def array(self, dtype: str | np.dtype, count: int) -> np.ndarray:
        """`count` elements, a copy."""
        dtype = np.dtype(dtype)
        if count < 0:
            raise self.error(f"an array of {count} elements is claimed: the file is damaged")
        return np.frombuffer(self.take(count * dtype.itemsize), dtype).copy()


@contextmanager
def opened(path: str | os.PathLike, offset: int = 0, where: str | None = None) -> Iterator[Stream]:
    """A file from a position on, unpacked if it is packed by gzip. Raises DataError, also for what goes wrong in the block.

    `where` is how messages call it.
    """
    stream = None
    try:
        with ExitStack() as stack:
            file: BinaryIO = stack.enter_context(files.open_plain(path))
            packed = file.read(2) == _GZIP
            file.seek(0)
            if packed:
                file = cast(BinaryIO, stack.enter_context(gzip.open(file)))
            file.seek(offset)
            stream = Stream(file, where or str(path), _LARGEST_PACKED if packed else _LARGEST)
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        what = f"cannot be read ({getattr(error, 'strerror', None) or error})"
        raise _error(where or str(path), stream.key if stream else None, what) from error


def _error(name: str, key: str | None, what: str) -> DataError:
    return DataError(f"{name}: {f'utterance {key}: ' if key else ''}{what}")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error


def _divided(line: str) -> tuple[str, str]:
    """The first word of a line and what follows it, divided where Kaldi divides: other white space belongs to words."""
    key, *rest = re.split(f"[{_SPACE}]+", line.strip(_SPACE), maxsplit=1)
    return key, "".join(rest)


def _read_key(stream: Stream) -> str | None:
    """The next key, None at the end; white space before it belongs to the text of the entry before."""
    data, passed = b"", 0
    while byte := stream.some(1):
        passed += 1
        if not byte.isspace():
            data += byte
        elif data:
            break
        if passed > _LONGEST_KEY or byte == b"\0":
            raise stream.error("not an archive of Kaldi's, or damaged: the name of an utterance is expected")
    if not data:
        return None
    try:
        key = data.decode()
    except UnicodeDecodeError as error:
        raise stream.error("not an archive of Kaldi's, or damaged: the name of an utterance is not UTF-8") from error
    if not byte:
        stream.key = key
        raise stream.error("the file ends before the array")
    if byte == b"\n":
        # An empty vector of integers as text.
        stream.push(byte)
    return key


def _read_array(stream: Stream) -> np.ndarray:
    if stream.peek(2) != BINARY:
        return _read_as_text(stream)
    stream.take(2)
    if stream.peek(1) == b"\4":
        return stream.integers(stream.integer())
    kind = stream.token()
    if kind in _COMPRESSED:
        return _read_compressed(stream, kind)
    if kind not in _PLAIN:
        raise stream.error(f"'{kind}' is no kind of matrix or vector that Kaldi writes")
    shape = [stream.integer() for _ in range(2 if kind.endswith("M") else 1)]
    if min(shape) < 0 or (min(shape) == 0 < max(shape)):
        raise stream.error(f"an array of shape {shape} is claimed: the file is damaged")
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    return stream.array(_PLAIN[kind], count).reshape(shape)


def _read_compressed(stream: Stream, kind: str) -> np.ndarray:
    low, span, rows, columns = _HEADER.unpack(stream.take(_HEADER.size))
    if rows < 0 or columns < 0 or (rows == 0) != (columns == 0):
        raise stream.error(f"a matrix of {rows} x {columns} is claimed: the file is damaged")
    if not abs(low) + abs(span) <= np.finfo(np.float32).max:
        raise stream.error(f"a matrix is compressed to the scale {low} + {span}: the file is damaged")
    if kind != "CM":
        dtype, steps = ("<u2", 65535) if kind == "CM2" else ("u1", 255)
        levels = stream.array(dtype, rows * columns).reshape(rows, columns)
        return (np.float32(low) + np.float32(span / steps) * levels).astype(np.float32)
    quartiles = _levels(stream.array("<u2", columns * 4).reshape(columns, 4), low, span)
    codes = stream.array("u1", rows * columns).reshape(columns, rows)
    # Some columns at a time: on the way a number takes thirty times its byte.
    step = max(1, _PIECE // max(rows, 1))
    parts = [_from_codes(codes[at : at + step], quartiles[at : at + step]) for at in range(0, columns, step)]
    return np.ascontiguousarray(np.concatenate([np.zeros((0, rows), np.float32), *parts]).T)


def _levels(levels: np.ndarray, low: float, span: float) -> np.ndarray:
    """16-bit levels as numbers."""
    return (np.float32(low) + np.float32(span / 65535) * levels).astype(np.float32)


# A column's codes 0..64..192..255 stand for its minimum, lower and upper quartile and maximum, and lie evenly between.
_CODES = np.array([0, 64, 192, 255])


def _from_codes(codes: np.ndarray, quartiles: np.ndarray) -> np.ndarray:
    """Numbers [columns, rows] of the codes of columns whose quartiles are [columns, 4]."""
    section = (codes > 64).astype(np.intp) + (codes > 192)
    below, above = (np.take_along_axis(quartiles, section + step, axis=1) for step in (0, 1))
    share = (codes - _CODES[section]) / np.diff(_CODES)[section]
    return (below + (above - below) * share).astype(np.float32)


def _read_as_text(stream: Stream) -> np.ndarray:
    line = stream.line()
    if not line:
        raise stream.error("the file ends before the array")
    if b"[" not in line:
        words = line.split()
        try:
            return np.array([int(word) for word in words], np.int32)
        except ValueError:
            return _floats(stream, words)
        except OverflowError:
            raise stream.error("an integer has more than 32 bits") from None
    before, _, rest = line.partition(b"[")
    if before.strip():
        raise stream.error(f"{before[:32]!r} stands before the bracket of a matrix")
    # A vector is closed on its line; the rows of a matrix begin on the next.
    rows, size = [rest], len(rest)
    while b"]" not in rows[-1]:
        if not (line := stream.line()):
            raise stream.error("the file ends before the bracket that closes a matrix")
        rows.append(line)
        size += len(line)
        if len(rows) > _MOST_ROWS or size > stream.largest:
            raise stream.error(
                f"a matrix has more than {len(rows) - 1} rows or {stream.largest} bytes: the file is damaged"
            )
    rows[-1], _, after = rows[-1].partition(b"]")
    if after.strip():
        raise stream.error(f"{after[:32]!r} stands behind the bracket of a matrix")
    if len(rows) == 1:
        return _floats(stream, rows[0].split())
    numbers = [_floats(stream, words) for row in rows if (words := row.split())]
    if len({len(row) for row in numbers}) > 1:
        raise stream.error("the rows of a matrix have different lengths")
    return np.stack(numbers) if numbers else np.zeros((0, 0), np.float32)


def _floats(stream: Stream, words: Sequence[bytes]) -> np.ndarray:
    try:
        return np.array([float(word) for word in words], np.float32)
    except ValueError as error:
        raise stream.error(f"text that is not numbers ({error})") from error


def _entry(location: str, script: Path, where: str) -> Entry:
    ranges: list[tuple[int, int] | None] = [None, None]
    if match := re.fullmatch(r"(.*)\[([\d:,]{0,80})\]", location):
        location, parts = match[1], match[2].split(",")
        if len(parts) > 2 or not all(re.fullmatch(r"(\d+:\d+)|:?", part) for part in parts):
            raise DataError(f"{where}: [{match[2]}] is no range: [FIRST:LAST] or [FIRST:LAST,FIRST:LAST] is expected")
        for axis, part in enumerate(parts):
            if part not in ("", ":"):
                first, last = map(int, part.split(":"))
                ranges[axis] = (first, last)
    name, _, offset = location.rpartition(":")
    if not name or not offset.isdecimal() or len(offset) > 18:
        name, offset = location, "0"
    path = Path(name)
    if not os.path.exists(path) and os.path.exists(script.parent / path):
        path = script.parent / path
    return Entry(path, int(offset), ranges[0], ranges[1], where)


def _part(stream: Stream, shape: tuple[int, ...], *ranges: tuple[int, int] | None) -> tuple[slice, ...]:
    """The slices of ranges of rows and columns."""
    slices: list[slice] = []
    for axis, (what, part) in enumerate(zip(("rows", "columns"), ranges, strict=True)):
        if part is None:
            continue
        first, last = part
        length = shape[axis] if axis < len(shape) else 0
        if not first <= last < length + (_TOLERANCE if what == "rows" else 0) or first >= length:
            raise stream.error(f"{what} {first}:{last} are asked for of an array of shape {list(shape)}")
        slices += [slice(None)] * (axis - len(slices)) + [slice(first, last + 1)]
    return tuple(slices)


def _encode(array: np.ndarray, kind: Kind) -> bytes:
    if array.ndim == 1 and array.dtype.kind in "iu":
        limits = np.iinfo(np.int32)
        if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
            raise ValueError("Kaldi's integers have 32 bits")
        elements = np.empty(len(array), _INTEGER)
        elements["size"], elements["value"] = 4, array
        return _sized(len(array)) + elements.tobytes()
    if array.ndim not in (1, 2) or array.dtype.kind != "f":
        raise ValueError(f"{array.dtype} {list(array.shape)} is no matrix or vector of numbers")
    if array.ndim == 2 and kind in _COMPRESSED:
        return f"{kind} ".encode() + _compress(array, kind)
    token = ("D" if kind == "DM" else "F") + "VM"[array.ndim - 1]
    return f"{token} ".encode() + b"".join(map(_sized, array.shape)) + array.astype(_PLAIN[token]).tobytes()


def _sized(number: int) -> bytes:
    return struct.pack("<bi", 4, number)


def _compress(array: np.ndarray, kind: str) -> bytes:
    array = array.astype(np.float32)
    if not array.size:
        return _HEADER.pack(0, 0, 0, 0)
    if not np.isfinite(array).all():
        raise ValueError("a matrix with NaN or infinite numbers cannot be compressed")
    low, high = float(array.min()), float(array.max())
    span = high - low if high > low else 1 + abs(low)
    header = _HEADER.pack(low, span, *array.shape)
    share = (array.astype(np.float64) - low) / span
    if kind != "CM":
        dtype, steps = ("<u2", 65535) if kind == "CM2" else ("u1", 255)
        return header + np.rint(share * steps).astype(dtype).tobytes()
    levels = _quartiles(np.rint(share * 65535).astype(np.int64))
    return header + levels.astype("<u2").tobytes() + _to_codes(array.T, _levels(levels, low, span)).tobytes()


def _quartiles(levels: np.ndarray) -> np.ndarray:
    """Minimum, quartiles and maximum [columns, 4] of 16-bit levels [rows, columns], strictly ascending."""
    rows = len(levels)
    places = [0, rows // 4, 3 * (rows // 4), rows - 1] if rows >= 5 else [min(place, rows - 1) for place in range(4)]
    quartiles = np.sort(levels, axis=0)[places].T
    for place in range(4):
        lowest = quartiles[:, place - 1] + 1 if place else 0
        quartiles[:, place] = np.clip(quartiles[:, place], lowest, 65532 + place)
    return quartiles


def _to_codes(columns: np.ndarray, quartiles: np.ndarray) -> np.ndarray:
    """The code next to each number of columns [columns, rows]."""
    section = (columns >= quartiles[:, 1:2]).astype(np.intp) + (columns >= quartiles[:, 2:3])
    below, above = (np.take_along_axis(quartiles, section + step, axis=1) for step in (0, 1))
    width = np.diff(_CODES)[section]
    share = (columns.astype(np.float64) - below) / (above - below)
    return (_CODES[section] + np.rint(np.clip(share, 0, 1) * width)).astype(np.uint8)
