"""Unpacking archives of weights or data without trusting them, and finding the folder inside that holds the parameters.

A checksum counts only where it is compared, which gzip and xz do at the end of what they packed: so every archive is
read to its end.
"""

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from fluid.errors import WeightsError
from fluid.files import new_folder, open_plain

MAX_MEMBERS = 100_000
MAX_EXPANSION = 100
"""Trained weights hardly compress, an optimizer's zeros are a part of an archive; more is a decompression bomb."""
MIN_BUDGET = 16 * 2**20
MAX_HEADERS = 2**17
"""Bytes of headers before a member: long names and the like. tarfile would read any number of them into memory."""
CHUNK = 2**20

# zipfile raises NotImplementedError for a compression that it does not know, RuntimeError for encryption.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ValueError, NotImplementedError, RuntimeError, MemoryError),
)
_PACKED: Mapping[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is a tar (plain or compressed) or a zip."""
    try:
        with open_plain(path) as file:
            if _is_zip(file):
                return True
            with _tar(file):
                return True
    except (OSError, *_DAMAGE):
        return False


def unpack(path: str | os.PathLike, folder: str | os.PathLike, *, max_members: int = MAX_MEMBERS) -> None:
    """Unpack a tar or zip of at most `max_members` files into a new folder, completely or not at all.

    Raises WeightsError, leaving nothing behind, if the archive is damaged or truncated; holds a path that leaves the
    folder, a link, a device or a pipe; holds a file twice; or grows beyond what weights can (a decompression bomb).
    """
    path = Path(path)
    if not is_archive(path):
        raise WeightsError(f"{path}: {_what_it_is(path)}")
    budget = _Budget(path, max(MIN_BUDGET, MAX_EXPANSION * path.stat().st_size), max_members)
    with new_folder(folder, WeightsError) as partial:
        count = 0
        try:
            with open_plain(path) as file:
                members = _zip_members if _is_zip(file) else _tar_members
                for count, (name, size, content) in enumerate(members(file, path, budget), 1):
                    budget.spend(size, count)
                    _write_member(partial, name, size, content, path)
        except _DAMAGE as error:
            raise WeightsError(
                f"{path}: a damaged or truncated archive ({error or type(error).__name__}). Remove it and fetch it again."
            ) from error
        except OSError as error:
            # What unpacks raises it, too, but without a number.
            if error.errno is None:
                raise WeightsError(f"{path}: a damaged archive ({error}). Remove it and fetch it again.") from error
            raise WeightsError(f"{path}: cannot be unpacked to {folder} ({error.strerror or error}).") from error
        if not count:
            raise WeightsError(f"{path}: no files in it.")


@dataclass
class _Budget:
    """What an archive may become."""

    path: Path
    size: int
    members: int

    def spend(self, size: int, members: int) -> None:
        """Raise WeightsError if `size` more bytes, or so many members in all, are too much."""
        self.size -= size
        if self.size < 0 or members > self.members:
            raise WeightsError(f"{self.path}: grows out of proportion when unpacked; refused as a decompression bomb.")


def find_parameters(root: str | os.PathLike, names: Collection[str] | None = None) -> Path:
    """The folder at or below `root` whose relative file names are variables: most of `names` where they are given, else
    the first folder that holds more than a single sub-folder.

    Raises WeightsError if there is no file at all, or several folders and nothing to choose by.
    """
    root = Path(root)
    if names:
        candidates = [Path(parent) for parent, _, _ in os.walk(root)]
        found = {folder: sum((folder / name).is_file() for name in names) for folder in candidates}
        best = max(candidates, key=lambda folder: found[folder])
        if found[best]:
            return best
    folder = root
    while True:
        entries = [
            entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".") and entry.name != "__MACOSX"
        ]
        subfolders = [entry for entry in entries if entry.is_dir()]
        if len(entries) > len(subfolders):
            return folder
        if not entries:
            raise WeightsError(f"{root}: no files in it.")
        if len(subfolders) > 1:
            listing = ", ".join(entry.name for entry in subfolders[:8])
            raise WeightsError(f"{folder}: holds several folders ({listing}). Name the one with the parameters.")
        folder = subfolders[0]


_Members = Iterator[tuple[str, int, IO[bytes]]]
"""Name, stated size and content of each plain file."""


def _is_zip(file: BinaryIO) -> bool:
    """Whether a file is a zip from its first byte on: a tar may end in one. The position is the start again."""
    is_zip = file.read(4) in (b"PK\3\4", b"PK\5\6") and zipfile.is_zipfile(file)
    file.seek(0)
    return is_zip


def _zip_members(file: BinaryIO, path: Path, budget: _Budget) -> _Members:
    """Raises WeightsError for anything but files and folders."""
    with zipfile.ZipFile(file) as archive:
        budget.spend(0, len(archive.infolist()))
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise WeightsError(f"{path}: {info.filename} is a link or a device; refused.")
            if not info.is_dir():
                with archive.open(info) as content:
                    yield info.filename, info.file_size, content


def _tar_members(file: BinaryIO, path: Path, budget: _Budget) -> _Members:
    """Raises WeightsError for anything but files and folders."""
    with _tar(file) as (tar, stream):
        stream.left = MAX_HEADERS
        while (member := tar.next()) is not None:
            # It would remember them all.
            tar.members.clear()  # type: ignore[attr-defined]
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise WeightsError(f"{path}: {member.name} is a link, a device or a sparse file; refused.")
            stream.left = member.size + CHUNK
            if (plain := tar.extractfile(member)) is not None:
                yield member.name, member.size, plain
            stream.left = MAX_HEADERS
        # tarfile takes a damaged header, or none, for the end.
        stream.seek(tar.offset)
        end = stream.read(tarfile.BLOCKSIZE)
        if end != bytes(tarfile.BLOCKSIZE):
            what = "no valid header" if end else "the file ends without the mark of an end"
            raise tarfile.ReadError(f"{what} at byte {tar.offset}")
        stream.left = CHUNK
        while rest := stream.read(CHUNK):
            budget.spend(len(rest), 0)
            stream.left = CHUNK


class _Stream:
    """What a file unpacks to, of which no more than `left` bytes can be read before that is raised."""

    def __init__(self, unpacked: IO[bytes]):
        self._unpacked, self.left = unpacked, MAX_HEADERS

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.left:
            raise tarfile.ReadError(f"{size} bytes where at most {self.left} belong")
        self.left -= size
        return self._unpacked.read(size)

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        return self._unpacked.seek(position, whence)

    def tell(self) -> int:
        return self._unpacked.tell()


@contextlib.contextmanager
def _tar(file: BinaryIO) -> Iterator[tuple[tarfile.TarFile, _Stream]]:
    head = file.read(6)
    file.seek(0)
    with contextlib.ExitStack() as stack:
        opener = next((opener for start, opener in _PACKED.items() if head.startswith(start)), None)
        stream = _Stream(file if opener is None else stack.enter_context(opener(file)))
        yield stack.enter_context(tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:")), stream


def _write_member(folder: Path, name: str, size: int, content: IO[bytes], path: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        raise WeightsError(f"{path}: {name!r} would be written outside the folder; refused.")
    target = folder.joinpath(*parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "xb") as file:
            left = size
            while chunk := content.read(min(CHUNK, left + 1)):
                left -= len(chunk)
                if left < 0:
                    raise WeightsError(f"{path}: {name} is larger than the archive says; refused.")
                file.write(chunk)
    except (FileExistsError, NotADirectoryError) as error:
        raise WeightsError(f"{path}: holds {name} twice; refused.") from error
    if left:
        raise WeightsError(f"{path}: ends inside {name}; it is truncated. Remove it and fetch it again.")


def _what_it_is(path: Path) -> str:
    try:
        with open_plain(path) as file:
            head = file.read(512)
    except OSError as error:
        return f"cannot be read ({error.strerror or error})."
    if not head:
        return "an empty file, not an archive."
    if head.lstrip()[:1] == b"<":
        return "a web page, not an archive; the address no longer leads to the weights, or a proxy answered instead."
    return "not a tar or zip archive, or a damaged one."
