"""What the words of a command line name: files, folders, patterns, lists."""

import glob
import os
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from fluid.errors import DataError
from fluid.files import read_plain


def find(words: Iterable[str], what: str, endings: tuple[str, ...], apart: Callable[[str], bool]) -> list[str]:
    """The files that `words` name, in order; hidden files are passed over.

    A word is a file, a folder (everything below it that ends so), a pattern (`*`, `?`, `**`), `@LIST` for a file with one
    of these a line, or `-` for the same on standard input.

    Args:
        words: of a command line.
        what: is looked for, in messages: "image or video".
        endings: of such files in folders, in small letters.
        apart: whether a word is another name, which is kept as it is.

    Raises DataError if something named does not exist, or there is nothing in it.
    """
    again = partial(find, what=what, endings=endings, apart=apart)
    found: list[str] = []
    for word in words:
        if apart(word):
            found.append(word)
        elif word == "-":
            found += _listed("standard input", sys.stdin.buffer.read(), what, again)
        elif word.startswith("@") and not os.path.exists(word):
            found += _listed(word[1:], _content(word[1:]), what, again)
        elif os.path.isdir(word):
            found += _below(Path(word), what, endings)
        elif os.path.exists(word):
            found.append(word)
        # Not links to nothing, which a pattern matches too.
        elif matches := sorted(filter(os.path.exists, glob.glob(word, recursive=True))):
            files = [path for path in matches if os.path.isfile(path)]
            found += files or again(matches)
        else:
            raise DataError(f"{word}: no such file, and nothing matches it as a pattern")
    return found


def _listed(where: str, content: bytes, what: str, again: Callable[[list[str]], list[str]]) -> list[str]:
    """What a list names: in bytes, as file names are."""
    if b"\0" in content:
        raise DataError(f"{where}: is no list of names, one a line, but another file; give its name instead")
    found: list[str] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        word = os.fsdecode(line.strip())
        if word == "-" or word.startswith("@"):
            raise DataError(f"{where}:{number}: {word}: a list names files, folders and patterns, no other list")
        try:
            found += again([word] if word else [])
        except DataError as error:
            raise DataError(f"{where}:{number}: {error}") from None
    if not found:
        raise DataError(f"{where}: names no {what}")
    return found


def _content(path: str) -> bytes:
    try:
        return read_plain(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def _below(folder: Path, what: str, endings: tuple[str, ...]) -> list[str]:
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and name.lower().endswith(endings):
                found.append(os.path.join(place, name))
    if not found:
        raise DataError(f"{folder}: no {what} in this folder ({', '.join(endings)})")
    return found
