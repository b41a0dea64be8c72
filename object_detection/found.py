"""What is found in a picture, in its own pixels and by the names of the classes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluid.config import nearest
from fluid.errors import UserError

import numpy as np


@dataclass(frozen=True)
class Found:
    """A detection."""

    label: int
    """Of its class, from 0."""
    name: str
    score: float
    """0..1"""
    box: tuple[float, float, float, float]
    """xmin, ymin, xmax, ymax in pixels of the picture, from its left and top; what sticks out is cut off."""

    def record(self) -> dict[str, Any]:
        """As it is written to JSON."""
        return {
            "class": self.label,
            "name": self.name,
            "score": round(self.score, 4),
            "box": [round(value, 2) for value in self.box],
        }


def in_pixels(
    rows: np.ndarray, picture: np.ndarray, class_names: Sequence[str], *, wanted: Collection[int] | None = None
) -> list[Found]:
    """Detections [n, 6], class, score and a box in 0..1, of a picture [H, W, 3], the best first.

    Of all classes, or of the `wanted` ones. What lies outside of the picture altogether is left out.
    """
    height, width = picture.shape[:2]
    corners = rows[:, 2:].astype(np.float64).clip(0, 1) * [width, height, width, height]
    found = [
        Found(int(row[0]), class_names[int(row[0])], float(row[1]), (box[0], box[1], box[2], box[3]))
        for row, box in zip(rows, corners.tolist(), strict=True)
        if box[2] > box[0] and box[3] > box[1] and (wanted is None or int(row[0]) in wanted)
    ]
    return sorted(found, key=lambda item: -item.score)


def classes_named(words: Sequence[str], class_names: Sequence[str]) -> set[int] | None:
    """The numbers of the classes that `words` name or number; None for no words, which means all.

    Raises UserError for one that there is not.
    """
    numbers = set()
    for word in words:
        if word in class_names:
            numbers.add(list(class_names).index(word))
        elif word.isascii() and word.isdigit() and int(word) < len(class_names):
            numbers.add(int(word))
        else:
            shown = ", ".join(class_names[:30]) + (" ..." if len(class_names) > 30 else "")
            hint = " Name pictures before --classes." if Path(word).exists() else nearest(word, list(class_names))
            raise UserError(f"--classes {word}: no such class.{hint} They are: {shown}")
    return numbers or None
