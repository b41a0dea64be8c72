"""Random changes of training images, [H, W, 3] uint8 RGB. Free of Paddle and JAX, since reader processes import it.

All of it is whole-array work of OpenCV and table look-ups, so that a core of a CPU changes more than a thousand images of 224
pixels a second; what is random comes from the generator that is handed in.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fluid.errors import UserError

import cv2
import numpy as np

VALUES = np.arange(256, dtype=np.float32)
STRONGEST = 30
"""The magnitudes of RandAugment go from 0 to this."""
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13
ERASED_SHARE, ERASED_RATIO = (0.02, 1 / 3), (0.3, 10 / 3)
"""Random erasing: smallest and largest part of the area, and height : width."""


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image, in this order: rotation, crop, RandAugment, colour jitter, flip, erasing."""

    crop: Literal["resized", "shifted"] = "resized"
    """resized: a random part, as `lower_scale` to `upper_ratio` say, resized to the input (Inception paper, arXiv
    1409.4842); shifted: the evaluation image moved by up to `max_shift` pixels, for small images (ResNet paper, arXiv
    1512.03385, section 4.2)."""
    lower_scale: float = 0.08
    """Smallest part of the image's area that a crop covers."""
    lower_ratio: float = 3 / 4
    """Smallest width : height of a crop."""
    upper_ratio: float = 4 / 3
    """Largest width : height of a crop."""
    max_shift: int = 3
    """Pixels in each direction; what is uncovered becomes black."""
    flip: bool = True
    """Mirror every second image."""
    rotate: bool = False
    """Rotate by up to 10 degrees in either direction."""
    color_jitter: bool = False
    """Change brightness, contrast and saturation by factors of 0.5 to 1.5, in random order."""
    randaugment: int = 0
    """So many of the changes of RandAugment (arXiv:1909.13719), drawn anew for each image."""
    randaugment_magnitude: float = 9
    """Their strength, 0 to 30."""
    random_erasing: float = 0.0
    """Share of the images of which a rectangle becomes noise (Random Erasing, arXiv:1708.04896)."""

    def __post_init__(self) -> None:
        if not 0 < self.lower_scale <= 1:
            raise UserError(f"--lower_scale {self.lower_scale}: must be above 0 and at most 1")
        if not 0 < self.lower_ratio <= self.upper_ratio:
            raise UserError(f"--lower_ratio {self.lower_ratio}: must be above 0 and at most --upper_ratio")


def finished(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """A crop with the changes that follow it; the array given may be changed in place."""
    for _ in range(augment.randaugment):
        image = randomly_augmented(image, augment.randaugment_magnitude / STRONGEST, rng)
    if augment.color_jitter:
        image = jitter_colors(image, rng)
    if augment.flip and rng.random() < 0.5:
        image = cv2.flip(image, 1)
    if augment.random_erasing and rng.random() < augment.random_erasing:
        image = erased(image, rng)
    return image


def shift(image: np.ndarray, max_shift: int, rng: np.random.Generator) -> np.ndarray:
    """A copy, moved by up to `max_shift` pixels in each direction."""
    height, width = image.shape[:2]
    padded = np.zeros((height + 2 * max_shift, width + 2 * max_shift, 3), np.uint8)
    padded[max_shift : max_shift + height, max_shift : max_shift + width] = image
    top, left = rng.integers(0, 2 * max_shift + 1, 2)
    return padded[top : top + height, left : left + width]


def rotation(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """From the pixels of an image rotated by up to 10 degrees about its middle to those of the image: a matrix [2, 3]."""
    return cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -rng.uniform(-10, 10), 1)


def jitter_colors(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Other brightness, contrast and saturation, by factors of 0.5 to 1.5 in random order."""
    for change in rng.permutation(3):
        image = (brightness, contrast, saturation)[change](image, rng.uniform(0.5, 1.5))
    return image


def erased(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image`, a rectangle of it overwritten with noise."""
    height, width = image.shape[:2]
    area = rng.uniform(*ERASED_SHARE) * height * width
    ratio = math.exp(rng.uniform(*np.log(ERASED_RATIO)))
    tall, wide = min(round((area * ratio) ** 0.5), height), min(round((area / ratio) ** 0.5), width)
    top, left = rng.integers(0, height - tall + 1), rng.integers(0, width - wide + 1)
    image[top : top + tall, left : left + wide] = rng.integers(0, 256, (tall, wide, 3), np.uint8)
    return image


def randomly_augmented(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """One of the 14 changes of RandAugment, with a strength of 0 to 1 in either direction."""
    change = CHANGES[rng.integers(len(CHANGES))]
    return change(image, strength if rng.random() < 0.5 else -strength)


# The single changes


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """All values times `factor`."""
    return cv2.LUT(image, _table(VALUES * factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """The distances from the mean grey times `factor`."""
    middle = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).mean()
    return cv2.LUT(image, _table(middle + (VALUES - middle) * factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """The distances from each pixel's grey times `factor`."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.addWeighted(image, factor, cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), 1 - factor, 0)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """The distances from the smoothed image times `factor`; the outermost pixels stay as they are."""
    smoothed = image.copy()
    smoothed[1:-1, 1:-1] = cv2.filter2D(image, -1, SMOOTH)[1:-1, 1:-1]
    return cv2.addWeighted(image, factor, smoothed, 1 - factor, 0)


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Each channel stretched to 0..255."""
    tables = []
    for channel in cv2.split(image):
        low, high, *_ = cv2.minMaxLoc(channel)
        tables.append(_table((VALUES - low) * (255 / (high - low)) if high > low else VALUES))
    return cv2.LUT(image, np.stack(tables, axis=-1)[None])


def equalize(image: np.ndarray) -> np.ndarray:
    """Each channel with as many pixels of every value, as far as possible; rounded as Pillow's `equalize` does."""
    tables = []
    for channel in range(3):
        counts = cv2.calcHist([image], [channel], None, [256], [0, 256])[:, 0].astype(np.int64)
        used = np.flatnonzero(counts)
        step = (counts.sum() - counts[used[-1]]) // 255
        before = np.cumsum(counts) - counts
        tables.append(_table((step // 2 + before) // step if step and len(used) > 1 else VALUES))
    return cv2.LUT(image, np.stack(tables, axis=-1)[None])


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Values from the threshold on turned into their negative."""
    return cv2.LUT(image, _table(np.where(threshold <= VALUES, 255 - VALUES, VALUES)))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Only the highest bits of each value."""
    return image & np.uint8(256 - 2 ** (8 - bits))


def moved(image: np.ndarray, matrix: list[list[float]]) -> np.ndarray:
    """The image under [[a, b], [c, d]] about its middle and a shift, [[a, b, x], [c, d, y]]; what is uncovered is black."""
    height, width = image.shape[:2]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    linear, offset = np.array(matrix)[:, :2], np.array(matrix)[:, 2]
    full = np.column_stack([linear, middle - linear @ middle + offset])
    return cv2.warpAffine(image, full, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def rotated(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turned about the middle, anticlockwise for positive degrees."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return moved(image, [[cosine, -sine, 0], [sine, cosine, 0]])


def _table(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


CHANGES: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (
    lambda image, level: image,
    lambda image, level: autocontrast(image),
    lambda image, level: equalize(image),
    lambda image, level: rotated(image, 30 * level),
    lambda image, level: solarize(image, 255 * (1 - abs(level))),
    lambda image, level: saturation(image, 1 + 0.9 * level),
    lambda image, level: posterize(image, 8 - round(4 * abs(level))),
    lambda image, level: contrast(image, 1 + 0.9 * level),
    lambda image, level: brightness(image, 1 + 0.9 * level),
    lambda image, level: sharpness(image, 1 + 0.9 * level),
    lambda image, level: moved(image, [[1, 0.3 * level, 0], [0, 1, 0]]),
    lambda image, level: moved(image, [[1, 0, 0], [0.3 * level, 1, 0]]),
    lambda image, level: moved(image, [[1, 0, 150 / 331 * level * image.shape[1]], [0, 1, 0]]),
    lambda image, level: moved(image, [[1, 0, 0], [0, 1, 150 / 331 * level * image.shape[0]]]),
)
"""The 14 changes of RandAugment (table 6 of AutoAugment, arXiv:1805.09501, gives the ranges), by a level of -1 to 1."""
