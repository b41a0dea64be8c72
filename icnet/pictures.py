"""Labels as pictures: colours, overlays, legends, side by side."""

from pathlib import Path

from fluid.lettering import font
from fluid.records import writing
from icnet.classes import IGNORE, Classes

import cv2
import numpy as np
from PIL import Image, ImageDraw

OPACITY = 0.55
"""Of the colours in an overlay."""


def colored(label: np.ndarray, classes: Classes) -> np.ndarray:
    """Labels [H, W] in the colours of their classes, [H, W, 3] uint8 RGB."""
    return classes.palette[label]


def overlay(image: np.ndarray, label: np.ndarray, classes: Classes, opacity: float = OPACITY) -> np.ndarray:
    """An image [H, W, 3] under the colours of its labels; where they are ignored the image stays."""
    mixed = cv2.addWeighted(image, 1 - opacity, colored(label, classes), opacity, 0)
    return np.where((label == IGNORE)[:, :, None], image, mixed)


def legend(classes: Classes, height: int, shown: list[int]) -> np.ndarray:
    """Names and colours of some classes, one below the other: [height, W, 3] uint8."""
    size = int(np.clip(height / max(1, len(shown)) * 0.8, 8, 20))
    names = [classes.names[number] for number in shown]
    width = int(max((font(name, size).getlength(name) for name in names), default=0)) + 2 * size + 12
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for row, (number, name) in enumerate(zip(shown, names, strict=True)):
        top = row * int(size * 1.25) + 4
        draw.rectangle((4, top, 4 + size, top + size), fill=classes.colors[number])
        draw.text((size + 10, top - 1), name, fill="black", font=font(name, size))
    return np.asarray(image)


def side_by_side(image: np.ndarray, label: np.ndarray, classes: Classes) -> np.ndarray:
    """An image, its overlay, and the legend of the classes that are in it."""
    present = [number for number in np.unique(label).tolist() if number < len(classes)]
    return np.hstack([image, overlay(image, label, classes), legend(classes, len(image), present)])


def write(path: Path, image: np.ndarray) -> Path:
    """Write a picture [H, W, 3] RGB or [H, W]. Raises UserError if it cannot be written."""
    with writing(path):
        Image.fromarray(image).save(path)
    return path


def write_grid(path: Path, rows: list[list[np.ndarray]], height: int = 160) -> Path:
    """Pictures in rows and columns, each made so high."""
    small = [
        np.hstack(
            [
                cv2.resize(image, (image.shape[1] * height // len(image), height), interpolation=cv2.INTER_AREA)
                for image in row
            ]
        )
        for row in rows
    ]
    return write(path, np.vstack(small))
