"""Words in a larger picture whose places are known: quadrilaterals, each made an upright rectangle."""

from collections.abc import Sequence
from pathlib import Path

from fluid.errors import DataError
from fluid.text import read_lines

import cv2
import numpy as np

CORNERS = 4
LARGEST = 2
"""Sides of a box, as multiples of the picture's width and height together, at most."""


def read_boxes(path: Path) -> list[np.ndarray]:
    """Quadrilaterals [4, 2] of a file: a line each, `x1,y1,x2,y2,x3,y3,x4,y4`, clockwise from the word's upper left corner.

    What follows the eighth number (ICDAR: the text) is passed over, and so are blank lines. Raises DataError (FILE:LINE).
    """
    boxes = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            corners = np.array([float(part) for part in line.split(",")[: 2 * CORNERS]]).reshape(CORNERS, 2)
        except ValueError:
            raise DataError(f"{path}:{number}: must be x1,y1,x2,y2,x3,y3,x4,y4, not {line[:60]!r}") from None
        if not np.isfinite(corners).all() or min(_size(corners)) < 1:
            raise DataError(f"{path}:{number}: the box is not a pixel wide or high")
        if not _goes_clockwise(corners):
            raise DataError(
                f"{path}:{number}: the corners must go clockwise round a box without dents, not {line[:60]!r}"
            )
        boxes.append(corners)
    if not boxes:
        raise DataError(f"{path}: holds no box; it must have one a line, x1,y1,x2,y2,x3,y3,x4,y4")
    return boxes


def refuse_outside(path: Path, boxes: Sequence[np.ndarray], shape: tuple[int, ...]) -> None:
    """Raise DataError for a box of which no part is in the picture [H, W, ...], or that is far larger than it."""
    height, width = shape[:2]
    for number, corners in enumerate(boxes, 1):
        outside = (corners.max(axis=0) <= 0).any() or (corners.min(axis=0) >= (width, height)).any()
        if outside or max(_size(corners)) > LARGEST * (width + height):
            problem = "lies outside of" if outside else "is far larger than"
            raise DataError(f"{path}: box {number} {problem} the picture, which is {width} x {height} pixels")


def rectify(picture: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """What is seen inside a quadrilateral [4, 2] of a picture [H, W, ...], as an upright rectangle of its mean size."""
    width, height = (max(round(length), 1) for length in _size(corners))
    upright = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(corners.astype(np.float32), upright)
    return cv2.warpPerspective(
        picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def _size(corners: np.ndarray) -> tuple[float, float]:
    """Mean width and height."""
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    return float(sides[0] + sides[2]) / 2, float(sides[1] + sides[3]) / 2


def _goes_clockwise(corners: np.ndarray) -> bool:
    """Whether every corner [4, 2] turns to the right, as pictures are looked at: else nothing upright is like it."""
    sides = np.roll(corners, -1, axis=0) - corners
    sides /= np.abs(sides).max()
    before = np.roll(sides, 1, axis=0)
    return bool((before[:, 0] * sides[:, 1] > before[:, 1] * sides[:, 0]).all())
