"""The data files of 2018: lists (.lst) of binary files and their descriptions, one after the other.

    feature_1.bin       float32 frames, utterance after utterance; labels: int32
    feature_1.desc      a line of numbers for the whole, then `NAME ... START BYTES FRAMES DIM` (labels: `START BYTES FRAMES`)

What stands between the name and the start differs between exports, so the numbers are found by what they must fulfil: BYTES is
4 * FRAMES * DIM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from DeepASR.corpus import Corpus, Part
from DeepASR.kaldi.package import read as read_by_package
from DeepASR.kaldi.tables import read_archive, read_script
from fluid.errors import DataError
from fluid.files import read_plain
from fluid.text import number_of, read_lines

import numpy as np

Reader = Literal["own", "kaldi_io"]
"""Of Kaldi's files: the code here, or the package kaldi-io."""


def read_list(path: Path, *, labels: bool = False) -> Iterator[tuple[str, np.ndarray]]:
    """(name, features [frames, dim]) or (name, labels [frames]) of a list. Raises DataError (FILE:LINE)."""
    names = [line.strip() for line in read_lines(path) if line.strip()]
    if not names or len(names) % 2:
        raise DataError(f"{path}: {number_of(len(names), 'file')}, where a .bin and its .desc are expected in turn")
    seen: dict[str, Path] = {}
    for binary, description in zip(names[::2], names[1::2]):
        place = _near(description, path)
        for name, array in _read(_near(binary, path), place, labels):
            if name in seen:
                raise DataError(f"{place}: {name}: is in {seen[name]} before")
            seen[name] = place
            yield name, array


def _read(binary: Path, description: Path, labels: bool) -> Iterator[tuple[str, np.ndarray]]:
    try:
        data = read_plain(binary)
    except OSError as error:
        raise DataError(f"{binary}: cannot be read ({error.strerror or error})") from None
    for number, line in enumerate(read_lines(description)[1:], 2):
        name, *fields = line.split() or [""]
        try:
            start, size, frames, dim = _numbers([int(field) for field in fields], labels)
        except ValueError:
            raise DataError(
                f"{description}:{number}: 'NAME ... START BYTES FRAMES{'' if labels else ' DIM'}' is expected, not '{line[:200]}'"
            ) from None
        if start + size > len(data):
            raise DataError(f"{binary}: {name}: bytes {start} to {start + size} of {len(data)}")
        array = np.frombuffer(data, "<i4" if labels else "<f4", frames * dim, start)
        yield name, array.copy() if labels else array.reshape(frames, dim).copy()


def _numbers(fields: list[int], labels: bool) -> tuple[int, int, int, int]:
    """Start, bytes, frames and width. Raises ValueError if none of them fit each other."""
    width = 3 if labels else 4
    for first in range(len(fields) - width + 1):
        start, size, frames, *dim = fields[first : first + width]
        if start >= 0 and min(frames, *dim, size) > 0 and size == 4 * frames * (dim or [1])[0]:
            return start, size, frames, (dim or [1])[0]
    raise ValueError


def _near(name: str, listed_in: Path) -> Path:
    """From the working directory, as in 2018, or from the folder of the list."""
    path = Path(name)
    return path if os.path.exists(path) or not os.path.exists(listed_in.parent / path) else listed_in.parent / path


def open_features(path: Path, reader: Reader = "own") -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(utterance, what reads its features [frames, dim]) of what `read_features` takes: a feats.scp is read as it is needed.

    Raises as that, what reads one of a feats.scp DataError.
    """
    if reader == "own" and path.suffix == ".scp":
        yield from ((name, entry.read) for name, entry in read_script(path).items())
    else:
        yield from ((name, partial(np.asarray, array)) for name, array in read_features(path, reader))


def read_features(path: Path, reader: Reader = "own") -> Iterator[tuple[str, np.ndarray]]:
    """(utterance, features [frames, dim]) of a list of 2018 (.lst), Kaldi's feats.scp or an archive.

    `reader`: of Kaldi's files. Raises DataError, UserError if the package kaldi-io is asked for and not installed.
    """
    if reader == "kaldi_io" and path.suffix != ".lst":
        yield from read_by_package(path)
    elif path.suffix == ".lst":
        yield from read_list(path)
    elif path.suffix == ".scp":
        yield from ((name, entry.read()) for name, entry in read_script(path).items())
    else:
        yield from read_archive(path)


def read_lists(
    train_features: Path, train_labels: Path, val_features: Path, val_labels: Path, class_num: int
) -> tuple[Corpus, dict[str, Part]]:
    """A data set of lists of features and labels. Raises DataError for what does not fit."""
    parts = {
        "train": read_labelled(train_features, train_labels, class_num),
        "dev": read_labelled(val_features, val_labels, class_num),
    }
    widths = {array.shape[1] for part in parts.values() for array in part.values()}
    if len(widths) > 1:
        raise DataError(f"features have different widths: {', '.join(map(str, sorted(widths)))}")
    about = {"language": "data of your own", "made by": f"lists of 2018, {train_features}"}
    return Corpus(train_features.parent, widths.pop(), class_num, "cer", None, None, None, about), parts


def read_labelled(features_list: Path, labels_list: Path, class_num: int) -> Part:
    """Utterances of a list of features and one of their labels. Raises DataError for what does not fit."""
    features, labels = dict(read_list(features_list)), dict(read_list(labels_list, labels=True))
    for name, array in features.items():
        if name not in labels or len(labels[name]) != len(array):
            raise DataError(
                f"{labels_list}: {name}: {number_of(len(labels.get(name, ())), 'label')} for {number_of(len(array), 'frame')}"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{features_list}: {name}: a feature is not a number")
        if labels[name].min() < 0 or labels[name].max() >= class_num:
            wrong = labels[name].min() if labels[name].min() < 0 else labels[name].max()
            raise DataError(f"{labels_list}: {name}: the label {wrong} where there are {class_num} classes")
    lengths = {name: len(array) for name, array in features.items()}
    alignments = {name: labels[name] for name in features}
    return Part(features_list, features, lengths, dict.fromkeys(features, ""), {}, alignments)
