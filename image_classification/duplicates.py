"""The same picture several times in a data set, by its content.

In training and test images: what is learnt by heart is then measured as knowledge. In several classes: one of them is wrong.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence

from fluid.files import read_plain
from fluid.text import number_of
from image_classification.reader import ImageList

MOST_IMAGES = 50_000
"""Larger sets are not looked through: it takes a question to the disk for each file."""
SHOWN = 3

Copies = list[tuple[int, int]]
"""Part and number in it of pictures that are the same."""


def remarks(train: ImageList, test: ImageList) -> Iterator[str]:
    """What there is to say about pictures that are there several times; nothing of large sets."""
    if len(train) + len(test) > MOST_IMAGES:
        return
    parts, groups = (train, test), list(same(train, test))

    def name(copy: tuple[int, int]) -> str:
        return parts[copy[0]].path(copy[1])

    both = [(copy, group[0]) for group in groups for copy in group if copy[0] == 1 and group[0][0] == 0]
    if both:
        shown = shortened([f"{name(copy)} is {name(first)}" for copy, first in both])
        yield f"among the training images, too: {len(both)} of {number_of(len(test), 'test image')}, so the accuracy says too much: {shown}"
    mixed = [group for group in groups if len({int(parts[part].labels[index]) for part, index in group}) > 1]
    if mixed:
        shown = shortened([" and ".join(dict.fromkeys(map(name, group))) for group in mixed])
        yield f"pictures that are in several classes ({len(mixed)}): {shown}"


def same(*parts: ImageList) -> Iterator[Copies]:
    """The pictures of each content that is there more than once, in order.

    Only files of the same length are read. Those that cannot be are left to whoever needs them.
    """
    by_size: dict[int, Copies] = {}
    for number, images in enumerate(parts):
        for index in range(len(images)):
            by_size.setdefault(_size(images.path(index)), []).append((number, index))
    for size, copies in by_size.items():
        by_content: dict[bytes, Copies] = {}
        for part, index in copies if size and len(copies) > 1 else []:
            if digest := _digest(parts[part].path(index)):
                by_content.setdefault(digest, []).append((part, index))
        yield from (group for group in by_content.values() if len(group) > 1)


def shortened(items: Sequence[str]) -> str:
    """Some of them in a row."""
    return "; ".join(items[:SHOWN]) + ("; ..." if len(items) > SHOWN else "")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(read_plain(path), usedforsecurity=False).digest()
    except OSError:
        return b""
