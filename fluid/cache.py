"""The folder of what can be made again: released weights, unpacked data, compiled Programs."""

import os
import tempfile
from pathlib import Path

from fluid.errors import UserError

import platformdirs

VARIABLE = "FLUID_ZOO_CACHE"
"""Environment variable that puts the cache elsewhere than ~/.cache/fluid-model-zoo."""
COMPILED_BYTES = 4 * 10**9
"""What compiled Programs may occupy; beyond it, those go that were not used for longest."""


def folder() -> Path:
    """Where the variable says; else in the user's cache folder; else, if that cannot be written, in the temporary folder.

    Raises UserError if there is no such place.
    """
    if os.environ.get(VARIABLE):
        return Path(os.environ[VARIABLE])
    try:
        own = platformdirs.user_cache_path("fluid-model-zoo", appauthor=False)
        own.mkdir(parents=True, exist_ok=True)
        if os.access(own, os.W_OK):
            return own
    except (OSError, RuntimeError):  # a user without a home
        pass
    temporary = Path(tempfile.gettempdir(), f"fluid-model-zoo-{os.getuid()}")
    try:
        temporary.mkdir(mode=0o700, exist_ok=True)
        # Anybody may have put something there.
        ours = temporary.lstat().st_uid == os.getuid()
    except OSError:
        ours = False
    if not ours:
        raise UserError(f"there is no folder for a cache, {temporary} neither; name one by {VARIABLE}")
    return temporary


def compiled() -> Path:
    """The folder of compiled Programs, cut down to its size."""
    path = folder() / "xla"
    prune(path, COMPILED_BYTES)
    return path


def prune(path: Path, size: int) -> None:
    """Delete files of a folder, those that were not used for longest first, until what is left has `size` bytes."""
    try:
        found = [(entry, entry.stat()) for entry in os.scandir(path) if entry.is_file(follow_symlinks=False)]
        left = sum(status.st_size for _, status in found)
        # Where the system notes no reading, writing counts.
        for entry, status in sorted(found, key=lambda item: max(item[1].st_atime, item[1].st_mtime)):
            if left <= size:
                break
            os.unlink(entry)
            left -= status.st_size
    except OSError:  # nothing is there yet, or another process prunes it
        pass
