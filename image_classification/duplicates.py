"""Pictures that are in both parts of a data set, by their content: what is learnt by heart is then measured as knowledge."""

import os
from collections.abc import Sequence

from fluid.files import read_plain
from image_classification.reader import ImageList

MOST_IMAGES = 50_000
"""Larger sets are not looked through: it takes a question to the disk for each file."""
SHOWN = 3


def in_both(train: ImageList, test: ImageList) -> list[tuple[str, str]] | None:
    """(training file, test file) for each test file whose bytes are those of a training file; None for large sets.

    Only files of the same length are read. Those that cannot be are left to whoever needs them.
    """
    if len(train) + len(test) > MOST_IMAGES:
        return None
    by_size: dict[int, list[str]] = {}
    for path in _paths(train):
        by_size.setdefault(_size(path), []).append(path)
    contents: dict[str, bytes] = {}
    found = []
    for path in _paths(test):
        for other in by_size.get(_size(path), []):
            if _content(path, contents) == _content(other, contents) != b"":
                found.append((other, path))
                break
    return found


def remark(pairs: Sequence[tuple[str, str]], test_images: int) -> str:
    """What there is to say about them."""
    shown = "; ".join(f"{test} is {train}" for train, test in pairs[:SHOWN])
    return (
        f"{len(pairs)} of {test_images} test images are among the training images, too, so the accuracy says too much: "
        f"{shown}{'; ...' if len(pairs) > SHOWN else ''}"
    )


def _paths(images: ImageList) -> list[str]:
    return [images.path(index) for index in range(len(images))]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _content(path: str, known: dict[str, bytes]) -> bytes:
    if path not in known:
        try:
            known[path] = read_plain(path)
        except OSError:
            known[path] = b""
    return known[path]
