"""Classes and their colours: those of Cityscapes, of CamVid, and of a file. Free of Paddle: reader processes import it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fluid.errors import DataError, UserError
from fluid.text import read_lines

import numpy as np

IGNORE = 255
"""The label of what counts neither in training nor in evaluation."""
CLASS_FILE = "classes.csv"

_CITYSCAPES = (
    (7, "road", (128, 64, 128), "flat"), (8, "sidewalk", (244, 35, 232), "flat"),
    (11, "building", (70, 70, 70), "construction"), (12, "wall", (102, 102, 156), "construction"),
    (13, "fence", (190, 153, 153), "construction"), (17, "pole", (153, 153, 153), "object"),
    (19, "traffic light", (250, 170, 30), "object"), (20, "traffic sign", (220, 220, 0), "object"),
    (21, "vegetation", (107, 142, 35), "nature"), (22, "terrain", (152, 251, 152), "nature"),
    (23, "sky", (70, 130, 180), "sky"), (24, "person", (220, 20, 60), "human"), (25, "rider", (255, 0, 0), "human"),
    (26, "car", (0, 0, 142), "vehicle"), (27, "truck", (0, 0, 70), "vehicle"), (28, "bus", (0, 60, 100), "vehicle"),
    (31, "train", (0, 80, 100), "vehicle"), (32, "motorcycle", (0, 0, 230), "vehicle"),
    (33, "bicycle", (119, 11, 32), "vehicle"),
)  # fmt: skip
_CAMVID = (
    ("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128)), ("road", (128, 64, 128)),
    ("pavement", (0, 0, 192)), ("tree", (128, 128, 0)), ("sign", (192, 128, 128)), ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)), ("pedestrian", (64, 64, 0)), ("bicyclist", (0, 128, 192)),
)  # fmt: skip


@dataclass(frozen=True)
class Classes:
    """The classes that a network tells apart, in the order of its outputs; they travel with its weights."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    """What stands for each in label files, 0..255."""
    colors: tuple[tuple[int, int, int], ...]
    """RGB."""
    categories: tuple[str, ...] = ()
    """What each belongs to, where classes are grouped."""
    others_ignored: bool = False
    """Whether other ids are ignored, as in Cityscapes; else they are an error, but for 255."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names) or len(set(self.ids)) < len(self.ids):
            raise UserError("classes need names and ids that differ from each other")

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def palette(self) -> np.ndarray:
        """Colour of each label, [256, 3] uint8; black for what is no class."""
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(self)] = self.colors
        return palette

    @cached_property
    def of_id(self) -> np.ndarray:
        """Label 0..n-1 or 255 of each id, [256] uint8."""
        table = np.full(256, IGNORE, np.uint8)
        table[list(self.ids)] = np.arange(len(self))
        return table

    @cached_property
    def to_id(self) -> np.ndarray:
        """Id of each label, [256] uint8; 0 for what is ignored."""
        table = np.zeros(256, np.uint8)
        table[: len(self)] = self.ids
        return table

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "names": list(self.names),
            "ids": list(self.ids),
            "colors": [list(color) for color in self.colors],
            "categories": list(self.categories),
            "others_ignored": self.others_ignored,
        }

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Classes":
        """The inverse of `to_facts`; raises KeyError or TypeError if something is missing."""
        return Classes(
            tuple(facts["names"]),
            tuple(facts["ids"]),
            tuple(tuple(color) for color in facts["colors"]),
            tuple(facts["categories"]),
            facts["others_ignored"],
        )


CITYSCAPES = Classes(
    tuple(name for _, name, _, _ in _CITYSCAPES),
    tuple(number for number, _, _, _ in _CITYSCAPES),
    tuple(color for _, _, color, _ in _CITYSCAPES),
    tuple(category for _, _, _, category in _CITYSCAPES),
    others_ignored=True,
)
"""The 19 evaluated classes and their 7 categories (Cordts et al., arXiv:1604.01685)."""
ID = dict(zip(CITYSCAPES.names, CITYSCAPES.ids, strict=True))
CAMVID = Classes(tuple(n for n, _ in _CAMVID), tuple(range(11)), tuple(c for _, c in _CAMVID), (), others_ignored=True)
"""The 11 classes of CamVid as they are usually grouped (Badrinarayanan et al., arXiv:1511.00561)."""


def numbered(count: int) -> Classes:
    """Classes without names: their numbers, in colours that differ."""
    colors = tuple(
        tuple(int(127.5 + 127.5 * np.cos(2 * np.pi * (number * 0.381966 + shift / 3))) for shift in range(3))
        for number in range(count)
    )
    return Classes(tuple(map(str, range(count))), tuple(range(count)), colors)  # type: ignore[arg-type]


def read_classes(path: Path) -> Classes:
    """Classes of a file: lines `id,name,red,green,blue`; a first line of words is passed over.

    Raises DataError naming the line that is not so.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        parts = [part.strip() for part in line.split(",")]
        values = [parts[0], *parts[2:]]
        is_head = number == 1 and len(parts) == 5 and not any(map(str.isdigit, values))
        if is_head or not line.strip() or line.startswith("#"):
            continue
        if len(parts) != 5 or not all(re.fullmatch("[0-9]{1,3}", value) and int(value) < 256 for value in values):
            raise DataError(
                f"{path}:{number}: each line must be id,name,red,green,blue with numbers 0..255; got {line[:200]!r}"
            )
        rows.append((int(parts[0]), parts[1], tuple(map(int, parts[2:]))))
    if not rows:
        raise DataError(f"{path}: names no class; each line must be id,name,red,green,blue")
    try:
        return Classes(tuple(r[1] for r in rows), tuple(r[0] for r in rows), tuple(r[2] for r in rows))  # type: ignore[misc]
    except UserError as error:
        raise DataError(f"{path}: {error}") from None
