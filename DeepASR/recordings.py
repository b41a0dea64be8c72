"""Recordings that people name: files, folders, patterns, lists."""

import glob
import os
from pathlib import Path

from fluid.errors import DataError
from fluid.files import read_plain

SUFFIXES = (".wav", ".flac")
"""What is looked for in folders."""


def find(words: tuple[str, ...]) -> list[str]:
    """Recordings that the words of a command line name, in their order. Raises DataError for a word that names none."""
    found: list[str] = []
    for word in words:
        if word == "-":
            found.append(word)
        elif word.startswith("@"):
            try:
                lines = read_plain(word[1:]).removeprefix(b"\xef\xbb\xbf").splitlines()
                names = [os.fsdecode(line.strip()) for line in lines if line.strip()]
            except OSError as error:
                raise DataError(f"{word[1:]}: cannot be read ({error.strerror or error})") from None
            if nested := [name for name in names if name == "-" or name.startswith("@")]:
                raise DataError(
                    f"{word[1:]}: {nested[0]}: a list names recordings, folders and patterns, no other list"
                )
            found += find(tuple(names))
        elif os.path.isdir(word):
            inside = sorted(str(path) for path in Path(word).rglob("*") if path.suffix.lower() in SUFFIXES)
            if not inside:
                raise DataError(f"{word}: no {' or '.join(SUFFIXES)} file in this folder")
            found += inside
        elif os.path.isfile(word):
            found.append(word)
        elif matching := sorted(glob.glob(word)):
            found += matching
        else:
            raise DataError(f"{word}: no such file, folder or pattern")
    return found
