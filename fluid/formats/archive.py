"""Unpacking archives of weights or data without trusting them, and finding the folder inside that holds the parameters."""

import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from fluid.errors import WeightsError
from fluid.formats import legacy

MAX_MEMBERS = 100_000
MAX_EXPANSION = 100
"""Trained weights hardly compress, an optimizer's zeros are a part of an archive; more is a decompression bomb."""
MIN_BUDGET = 16 * 2**20
CHUNK = 2**20

# zipfile raises NotImplementedError for a compression that it does not know, RuntimeError for encryption.
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError)


def is_archive(path: str | os.PathLike) -> bool:
    """Whether a file is a tar (plain or compressed) or a zip."""
    try:
        return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)
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
    size = path.stat().st_size
    budget = max(MIN_BUDGET, MAX_EXPANSION * size)
    with legacy.new_folder(Path(folder)) as partial:
        count = -1
        try:
            for count, (name, member_size, content) in enumerate(_members(path)):
                budget -= member_size
                if budget < 0 or count >= max_members:
                    raise WeightsError(
                        f"{path}: grows out of proportion when unpacked; refused as a decompression bomb."
                    )
                _write_member(partial, name, member_size, content, path)
        except _DAMAGE as error:
            raise WeightsError(
                f"{path}: a damaged or truncated archive ({error}). Remove it and fetch it again."
            ) from error
        except OSError as error:
            raise WeightsError(f"{path}: cannot be unpacked to {folder} ({error.strerror or error}).") from error
        if count < 0:
            raise WeightsError(f"{path}: no files in it.")


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


def _members(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Yield name, stated size and content of each plain file.

    Raises WeightsError for anything but files and folders.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise WeightsError(f"{path}: {info.filename} is a link or a device; refused.")
                if not info.is_dir():
                    with archive.open(info) as content:
                        yield info.filename, info.file_size, content
        return
    with tarfile.open(path) as tar:
        for member in tar:
            if not (member.isreg() or member.isdir()) or member.issparse():
                raise WeightsError(f"{path}: {member.name} is a link, a device or a sparse file; refused.")
            if (plain := tar.extractfile(member)) is not None:
                yield member.name, member.size, plain
        # tarfile takes a damaged header for the end.
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"no valid header at byte {tar.offset}")


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
    with open(path, "rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file, not an archive."
    if head.lstrip()[:1] == b"<":
        return "a web page, not an archive; the address no longer leads to the weights, or a proxy answered instead."
    return "not a tar or zip archive, or a damaged one."
