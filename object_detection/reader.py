"""Samples for training and evaluation: pictures with their boxes, changed at random in training as SSD wants it.

Liu et al., arXiv:1512.02325, section 2.2 and figure 6, with the numbers of Fluid's reader: colours, then expansion, crop, flip
and resize. Boxes are 0..1 of the picture throughout, so they follow each step and are clipped to what is left of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fluid.data import Sample
from fluid.errors import DataError
from fluid.text import number_of
from object_detection import boxes as box
from object_detection.annotations import DataSet
from object_detection.boxes import PADDING

import cv2
import numpy as np

FILL = (127, 127, 127)
"""The colour around an expanded picture: near the mean that is subtracted from all."""
MIN_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
"""One crop is searched for each: of IoU with some box of at least that."""
CROP_TRIALS = 50
TURNS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
"""By quarters to the left."""
KEPT_BYTES = 64_000_000
"""Of decoded pictures that a reader keeps for the next epochs: all of a small data set, hardly any of a large one."""

Picture = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Image [H, W, 3] uint8 RGB, boxes [n, 4], labels [n]."""


@dataclass(frozen=True)
class Augment:
    """Probabilities and ranges of the random changes."""

    distort: float = 0.5
    """Probability of each change of colour."""
    brightness: float = 0.125
    """Added or subtracted at most, as a share of 255."""
    contrast: float = 0.5
    """Factor 1 +- this at most."""
    saturation: float = 0.5
    """Factor 1 +- this at most."""
    hue: float = 18.0
    """Shift in degrees of 360 at most."""
    expand: float = 0.5
    """Probability that the picture is laid into a larger one."""
    expand_ratio: float = 4.0
    """Sides of the larger one at most."""
    crop: bool = True
    """Cut a part out that has enough of some box, or none."""
    flip: float = 0.5
    """Probability of mirroring left and right."""
    turn: bool = False
    """Turn by any number of quarters, as pictures from above may be."""


class DetectionSource:
    """Samples for `fluid.data`: `image` [size, size, 3] uint8 RGB and `index`, the number of the picture.

    With `augment`, for training, `boxes` [max_boxes, 4] float32 and `labels` [max_boxes] int64 instead of the number, `PADDING`
    behind the last box; of more boxes the largest count. Difficult objects and crowds are left out.
    """

    def __init__(self, data: DataSet, size: int, *, max_boxes: int = 100, augment: Augment | None = None) -> None:
        self.data, self.size, self.max_boxes, self.augment = data, size, max_boxes, augment
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.data.images)

    def where(self, index: int) -> str:
        """The file."""
        return self.data.images[index]

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """Raises DataError, with the file, for a picture that cannot be read or has another shape than annotated."""
        image, objects = self._picture(index), self.data.objects[index]
        height, width = image.shape[:2]
        if abs(width * objects.height - height * objects.width) > max(width, height):
            raise DataError(
                f"{self.where(index)}: is {width} x {height} pixels, annotated as {objects.width} x {objects.height}"
            )
        if self.augment is None:
            return {"image": resize(image, self.size, cv2.INTER_LINEAR), "index": np.array(index)}
        counted = ~(objects.difficult | objects.crowd)
        picture = (image, objects.boxes[counted], objects.labels[counted])
        image, boxes, labels = augmented(picture, self.augment, self.size, rng)
        padded, classes = pad(boxes, labels, self.max_boxes)
        return {"image": image, "boxes": padded, "labels": classes}

    def _picture(self, index: int) -> np.ndarray:
        if index in self._kept:
            return self._kept[index]
        image = self.data.picture(index)
        if image.nbytes + sum(kept.nbytes for kept in self._kept.values()) <= KEPT_BYTES:
            image.setflags(write=False)
            self._kept[index] = image
        return image


def pad(boxes: np.ndarray, labels: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes [n, 4] and labels [n] in arrays of `count` rows; of more the largest."""
    if len(boxes) > count:
        largest = np.sort(np.argsort(-box.areas(boxes), kind="stable")[:count])
        boxes, labels = boxes[largest], labels[largest]
    padded, classes = np.zeros((count, 4), np.float32), np.full(count, PADDING, np.int64)
    padded[: len(boxes)], classes[: len(boxes)] = boxes, labels
    return padded, classes


def augmented(picture: Picture, augment: Augment, size: int, rng: np.random.Generator) -> Picture:
    """A picture changed at random, [size, size, 3], its boxes with it."""
    image, boxes, labels = picture
    image = distorted(image, augment, rng)
    if rng.random() < augment.expand:
        image, boxes = expanded(image, boxes, rng.uniform(1, augment.expand_ratio), rng)
    if augment.crop:
        image, boxes, labels = cropped(image, boxes, labels, rng)
    if rng.random() < augment.flip:
        image, boxes = mirrored(image, boxes)
    if augment.turn:
        image, boxes = turned(image, boxes, int(rng.integers(4)))
    methods = (cv2.INTER_LINEAR, cv2.INTER_AREA, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4, cv2.INTER_NEAREST)
    return resize(image, size, methods[rng.integers(len(methods))]), box.clip(boxes), labels


def resize(image: np.ndarray, size: int, interpolation: int) -> np.ndarray:
    """[H, W, 3] -> [size, size, 3], whatever that does to the proportions, as SSD does."""
    return cv2.resize(image, (size, size), interpolation=interpolation)


def distorted(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and hue, in one of two orders."""

    def brightness(x: np.ndarray) -> np.ndarray:
        return x + rng.uniform(-augment.brightness, augment.brightness) * 255

    def contrast(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) * rng.uniform(1 - augment.contrast, 1 + augment.contrast) + x.mean()

    def saturation(x: np.ndarray) -> np.ndarray:
        grey = cv2.cvtColor(x, cv2.COLOR_RGB2GRAY)[:, :, None]
        return grey + (x - grey) * np.float32(rng.uniform(1 - augment.saturation, 1 + augment.saturation))

    def hue(x: np.ndarray) -> np.ndarray:
        hsv = cv2.cvtColor(x / 255, cv2.COLOR_RGB2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0] + rng.uniform(-augment.hue, augment.hue)) % 360
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255

    changes: list[Callable[[np.ndarray], np.ndarray]] = [brightness, contrast, saturation, hue]
    if rng.random() < 0.5:
        changes = [brightness, saturation, hue, contrast]
    result = image.astype(np.float32)
    for change in changes:
        if rng.random() < augment.distort:
            result = np.clip(change(result), 0, 255).astype(np.float32)
    return np.rint(result).astype(np.uint8)


def expanded(
    image: np.ndarray, boxes: np.ndarray, ratio: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The picture somewhere in one whose sides are `ratio` times as long."""
    height, width = image.shape[:2]
    more_height, more_width = int(height * ratio) - height, int(width * ratio) - width
    top, left = int(rng.integers(more_height + 1)), int(rng.integers(more_width + 1))
    sides = (top, more_height - top, left, more_width - left)
    large = cv2.copyMakeBorder(image, *sides, cv2.BORDER_CONSTANT, value=FILL)
    size = np.array([large.shape[1], large.shape[0]] * 2, np.float32)
    return large, (boxes * [width, height, width, height] + [left, top, left, top]).astype(np.float32) / size


def cropped(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Picture:
    """A part of the picture with the boxes whose centre it holds; or all of it.

    For each of MIN_OVERLAPS up to CROP_TRIALS parts of .3 to 1 of the sides and ratios of .5 to 2 are tried; one of those
    found, or the whole, is taken at random. The rule is that of Fluid's reader.
    """
    if len(boxes) == 0:
        return image, boxes, labels
    found = [part for least in MIN_OVERLAPS if (part := _find_part(boxes, least, rng)) is not None]
    choice = int(rng.integers(len(found) + 1))
    if choice == len(found):
        return image, boxes, labels
    height, width = image.shape[:2]
    scale = np.array([width, height, width, height])
    left, top, right, bottom = np.rint(found[choice] * scale).astype(int)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    inside = holds_centre(np.array([left, top, right, bottom]) / scale, boxes)
    if not inside.any():
        return image, boxes, labels
    moved = (boxes[inside] * scale - [left, top, left, top]) / [right - left, bottom - top, right - left, bottom - top]
    return image[top:bottom, left:right], box.clip(moved).astype(np.float32), labels[inside]


def _find_part(boxes: np.ndarray, least: float, rng: np.random.Generator) -> np.ndarray | None:
    scale = rng.uniform(0.3, 1, CROP_TRIALS)
    ratio = rng.uniform(np.maximum(0.5, scale**2), np.minimum(2, 1 / scale**2))
    size = np.stack([scale * ratio**0.5, scale / ratio**0.5], axis=1)
    corner = rng.uniform(0, 1 - size)
    parts = np.concatenate([corner, corner + size], axis=1)
    good = box.ious(parts, boxes.astype(np.float64)).max(axis=1) >= least
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((centre >= parts[:, None, :2]) & (centre <= parts[:, None, 2:])).all(axis=2).any(axis=1)
    found = np.flatnonzero(good & inside)
    return parts[found[0]] if len(found) else None


def holds_centre(part: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Whether the centres of boxes [n, 4] lie in a part [4], bool [n]."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    return ((centre >= part[:2]) & (centre <= part[2:])).all(axis=1)


def mirrored(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left and right exchanged."""
    return cv2.flip(image, 1), np.stack([1 - boxes[:, 2], boxes[:, 1], 1 - boxes[:, 0], boxes[:, 3]], axis=1)


def turned(image: np.ndarray, boxes: np.ndarray, quarters: int) -> tuple[np.ndarray, np.ndarray]:
    """Turned to the left by so many quarters."""
    if quarters == 0:
        return image, boxes
    for _ in range(quarters):
        boxes = np.stack([boxes[:, 1], 1 - boxes[:, 2], boxes[:, 3], 1 - boxes[:, 0]], axis=1)
    return cv2.rotate(image, TURNS[quarters]), boxes


def report(data: DataSet, covered: float, good: float) -> Sequence[str]:
    """What `--check_data` prints: faults, objects of each class, and whether the priors suit the boxes."""
    lines = [
        *data.faults,
        f"{data.origin}: {number_of(len(data.images), 'picture')}, {number_of(len(data.faults), 'fault')}",
    ]
    lines += [f"  {name}: {number_of(count, 'object')}" for name, count in data.counts().items()]
    lines.append(f"  {covered:.1%} of the boxes have a prior of IoU .5 or more")
    if covered < good:
        lines.append(f"  warning: that is below {good:.0%}, so many boxes will hardly be learnt: try --priors auto")
    return lines
