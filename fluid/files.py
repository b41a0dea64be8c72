"""Files that people name: opened only if they are files, written whole or not at all."""

import contextlib
import errno
import itertools
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fluid.errors import UserError


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file for reading.

    Raises OSError if it cannot be read, or is something else: a pipe may wait for ever, a device have no end.
    """
    try:
        # Opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # of a NUL in the name
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        reason = os.strerror(errno.EISDIR) if stat.S_ISDIR(mode) else "a pipe, a socket or a device, not a file"
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, reason, os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_plain(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises OSError as `open_plain`."""
    with open_plain(path) as file:
        return file.read()


def check_writable(folder: Path) -> None:
    """Raise OSError if nothing could be written to the folder, or it could not be made."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def free_name(path: Path) -> Path:
    """The first of `path`, `path.1`, `path.2`, ... that is not taken."""
    names = itertools.chain([path.name], (f"{path.name}.{number}" for number in itertools.count(1)))
    return next(free for name in names if not (free := path.with_name(name)).exists())


def partial(path: Path, suffix: str = "") -> Path:
    """The name of a file or folder until it is whole; what killed processes left under such names of it is deleted.

    It ends in `suffix`, by which some writers choose the format.
    """
    start = f".{path.name}.partial-"
    _clear(path.parent, start)
    unfinished = path.with_name(f"{start}{os.getpid()}{suffix}")
    # In a container every process may have the number of the one that was killed before it.
    _delete(unfinished)
    return unfinished


@contextlib.contextmanager
def whole(path: str | os.PathLike[str], error: type[UserError] = UserError, *, suffix: str = "") -> Iterator[Path]:
    """The name to write a file or folder under, which gets its own after the block; of a block that fails nothing is left.

    Until then it ends in `suffix`. The folder around it is made. What was there is replaced if it is a file or an empty
    folder. Raises `error` for an OSError, and where a device or a pipe is: /dev/null would be a file afterwards.
    """
    path = Path(path)
    unfinished = partial(path, suffix)
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise error(f"{path}: is a pipe, a socket or a device; name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        os.replace(unfinished, path)
    except BrokenPipeError:
        # Not of this file: whoever reads what the block prints is gone.
        raise
    except OSError as reason:
        raise error(f"{path}: cannot be written ({reason.strerror or reason})") from reason
    finally:
        _delete(unfinished)


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], error: type[UserError] = UserError) -> Iterator[Path]:
    """An empty folder that becomes `path` after the block; of a block that fails nothing is left.

    Raises `error` if `path` exists, other than as an empty folder, and for an OSError.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise error(f"{path}: exists already. Choose another place, or remove it first.")
    with whole(path, error) as unfinished:
        unfinished.mkdir()
        yield unfinished


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A temporary folder; those of this name that killed processes left are deleted."""
    start = f"fluid-{name}-"
    _clear(Path(tempfile.gettempdir()), start)
    with tempfile.TemporaryDirectory(prefix=f"{start}{os.getpid()}-") as folder:
        yield Path(folder)


def _clear(folder: Path, start: str) -> None:
    """Delete what is called `start` and the number of a process that is no more."""
    with contextlib.suppress(OSError):  # a folder that is not there yet; the writer says what is wrong with it
        for left in [left for left in folder.iterdir() if left.name.startswith(start)]:
            process = re.split(r"[-.]", left.name.removeprefix(start))[0]
            if process.isdecimal() and not is_alive(int(process)):
                _delete(left)


def _delete(path: Path) -> None:
    """Delete a file or a folder, if it is there and can be."""
    with contextlib.suppress(OSError):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def is_alive(process: int) -> bool:
    """Whether a process of that number is running."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
