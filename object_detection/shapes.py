"""Drawn pictures of discs, squares and triangles: a data set without files, to see whether a detector learns at all.

Each picture follows from its split and number alone. Colours, sizes and places are drawn at random, on a ground of soft blots.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from object_detection import boxes as box
from object_detection.annotations import DataSet, Objects

import cv2
import numpy as np

CLASSES = ("disc", "square", "triangle")
SIDE = 128
"""Pixels of a picture."""
SIZES = (0.15, 0.5)
"""Smallest and largest shape, as a share of the side."""
MOST = 4
"""Shapes in a picture."""
LARGEST_OVERLAP = 0.1
"""IoU of two shapes at most."""
COUNTS = {"train": 2000, "val": 200}
TRIALS = 20


@dataclass(frozen=True, eq=False)
class Shapes(DataSet):
    """A split of the drawn pictures."""

    split: str = "train"

    def picture(self, index: int) -> np.ndarray:
        """[SIDE, SIDE, 3] uint8 RGB."""
        rng = _generator(self.split, index)
        _, corners = _layout(rng)
        blots = cv2.resize(
            rng.uniform(0, 255, (4, 4, 3)).astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
        )
        image = np.clip(blots + rng.normal(0, 8, (SIDE, SIDE, 1)), 0, 255).astype(np.uint8)
        for label, own in zip(self.objects[index].labels, corners, strict=True):
            _draw(image, int(label), own, _contrasting(image, own, rng))
        return image


def draw_shapes(split: str) -> Shapes:
    """The pictures of `train` or `val` with the boxes of their shapes."""
    objects = []
    for index in range(COUNTS[split]):
        labels, corners = _layout(_generator(split, index))
        none = np.zeros(len(labels), bool)
        boxes = (corners / SIDE).astype(np.float32)
        areas = box.areas(corners.astype(np.float64))
        objects.append(Objects(boxes, labels, SIDE, SIDE, none, none, areas))
    images = [f"drawn picture {index} of {split}" for index in range(len(objects))]
    return Shapes("drawn shapes", images, objects, list(CLASSES), split=split)


def _generator(split: str, index: int) -> np.random.Generator:
    return np.random.default_rng((list(COUNTS).index(split), index))


def _layout(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and the corners of squares in pixels [n, 4] that hardly overlap."""
    corners: list[np.ndarray] = []
    wanted = int(rng.integers(1, MOST + 1))
    for _ in range(TRIALS):
        side = int(SIDE * rng.uniform(*SIZES))
        left, top = rng.integers(0, SIDE - side + 1, 2)
        own = np.array([left, top, left + side, top + side])
        if len(corners) < wanted and _is_free(own, corners):
            corners.append(own)
    return rng.integers(0, len(CLASSES), len(corners)), np.stack(corners)


def _is_free(own: np.ndarray, corners: Sequence[np.ndarray]) -> bool:
    others = np.array(corners, np.float64).reshape(-1, 4)
    return len(corners) == 0 or box.ious(own[None].astype(np.float64), others).max() <= LARGEST_OVERLAP


def _contrasting(image: np.ndarray, corners: np.ndarray, rng: np.random.Generator) -> tuple[int, ...]:
    """A colour far from what lies there."""
    left, top, right, bottom = corners
    ground = image[top:bottom, left:right].mean(axis=(0, 1))
    colours = rng.integers(0, 256, (8, 3))
    return tuple(map(int, colours[np.abs(colours - ground).sum(axis=1).argmax()]))


def _draw(image: np.ndarray, label: int, corners: np.ndarray, colour: tuple[int, ...]) -> None:
    """Fill the shape that touches all sides of its box; the last pixel belongs to it."""
    left, top, right, bottom = (int(value) for value in corners)
    right, bottom = right - 1, bottom - 1
    match CLASSES[label]:
        case "square":
            cv2.rectangle(image, (left, top), (right, bottom), colour, cv2.FILLED)
        case "triangle":
            points = np.array([[(left + right) // 2, top], [right, bottom], [left, bottom]])
            cv2.fillPoly(image, [points], colour)
        case _:
            y, x = np.mgrid[top : bottom + 1, left : right + 1]
            inside = (x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2 <= ((right - left + 1) / 2) ** 2
            image[top : bottom + 1, left : right + 1][inside] = colour
