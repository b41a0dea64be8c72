"""Sentence pairs from the archives of the WMT translation tasks, as they are published."""

import gzip
import html
import itertools
import os
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from fluid import files
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.weights.download import download

MOST_WORDS, LARGEST_RATIO = 80, 9
"""Limits of Moses' clean-corpus-n.perl as the script of 2018 called it."""


@dataclass(frozen=True)
class Wmt:
    """One of the tasks."""

    languages: tuple[str, str]
    archives: Mapping[str, str]
    """Name of each archive -> where it is fetched from."""
    training: Mapping[str, str]
    """Archive -> stem of its two files, STEM.SOURCE and STEM.TARGET, gzipped or not, in whatever folder of the archive."""
    held_out: Mapping[str, tuple[str, str, str]]
    """Part -> archive, and the SGML files of source and target in it."""


def write(task: Wmt, folder: Path, archives: Path) -> None:
    """Fetch what is missing in `archives`, and write train.tsv and the held-out parts to a new folder, completely or not at all.

    Raises UserError if the folder exists or an archive cannot be had, DataError for a damaged one.
    """
    refuse_existing(folder)
    for name, url in task.archives.items():
        fetch(name, url, archives)
    with files.whole(folder) as unfinished:
        unfinished.mkdir()
        for part, pairs in held_out_pairs(task, archives):
            print(f"{part}.tsv: {write_pairs(unfinished / f'{part}.tsv', pairs)} pairs")
        print(f"train.tsv: {write_pairs(unfinished / 'train.tsv', training_pairs(task, archives))} pairs")


def fetch(name: str, url: str, folder: Path) -> Path:
    """The archive in `folder`, downloaded if it is not there. Raises UserError."""
    path = folder / name
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"fetching {url}")
        try:
            download([url], path)
        except UserError as error:
            raise UserError(f"{error}\nFetch {url} elsewhere, put it here: {path}, and run this again") from None
    return path


@contextmanager
def opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The member of an archive with this file name, or this and `.gz`. Raises DataError if there is none or it is damaged."""
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and os.path.basename(member.name) in (name, f"{name}.gz"):
                    file = archive.extractfile(member)
                    assert file is not None
                    yield gzip.open(file) if member.name.endswith(".gz") else file  # type: ignore[misc]
                    return
    except (tarfile.TarError, EOFError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: is damaged ({error}); remove it and run this again") from None
    raise DataError(f"{path}: holds no {name}")


def training_pairs(task: Wmt, folder: Path) -> Iterator[tuple[str, str]]:
    """Pairs of all corpora that pass the length limits, read as they are asked for: some do not fit into memory."""
    for name, stem in task.training.items():
        members = [f"{stem}.{language}" for language in task.languages]
        with opened(folder / name, members[0]) as sources, opened(folder / name, members[1]) as targets:
            for number, (source, target) in enumerate(itertools.zip_longest(sources, targets), 1):
                if source is None or target is None:
                    raise DataError(
                        f"{name}: {members[source is not None]} ends before line {number} of the other side"
                    )
                pair = source.decode("utf-8").split(), target.decode("utf-8").split()
                short, long = sorted(map(len, pair))
                if short >= 1 and long <= min(MOST_WORDS, LARGEST_RATIO * short):
                    yield " ".join(pair[0]), " ".join(pair[1])


def held_out_pairs(task: Wmt, folder: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each held-out part and its pairs."""
    for part, (archive, *members) in task.held_out.items():
        sides = []
        for name in members:
            with opened(folder / archive, name) as file:
                sides.append(segments(file.read().decode("utf-8")))
        if len(sides[0]) != len(sides[1]) or not sides[0]:
            raise DataError(f"{archive}: {members[0]} has {len(sides[0])} sentences, {members[1]} {len(sides[1])}")
        yield part, list(zip(*sides, strict=True))


def segments(sgm: str) -> list[str]:
    """The sentences of an SGML file of the translation task."""
    found = re.findall(r"<seg[^>]*>(.*?)</seg>", sgm, re.S | re.I)
    return [" ".join(html.unescape(text).split()) for text in found]


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> int:
    """Write `source TAB target` lines; returns how many."""
    count = 0
    with open(path, "w", encoding="utf-8") as file:
        for source, target in pairs:
            file.write(f"{source}\t{target}\n")
            count += 1
    return count
