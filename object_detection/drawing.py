"""Detections drawn on pictures, legible at any size: for people, on files and in videos."""

import colorsys
from collections.abc import Sequence

from fluid.lettering import Font, drawable, font
from object_detection.found import Found

import numpy as np
from PIL import Image, ImageDraw

SMALLEST = 640
"""Pictures whose longer side is shorter are enlarged before they are drawn on: a label of 12 pixels needs room."""
LINES = 200
"""A line is this part of the shorter side."""
LETTERS = 40
"""And so is a letter."""
CROWD = 20
"""Of more detections than this the labels are no wider than their boxes, or there would be nothing else to see."""
HUE_STEP = 0.381966
"""Of the circle from a class to the next (the golden angle): no two of the first dozens look alike."""
Box = tuple[float, float, float, float]


def color_of(number: int) -> tuple[int, int, int]:
    """The colour of a class, always the same."""
    hue = (0.02 + number * HUE_STEP) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.95, 0.7)[number // 8 % 2], (0.95, 0.75)[number // 16 % 2])
    return round(red * 255), round(green * 255), round(blue * 255)


def scale_of(height: int, width: int) -> float:
    """By how much a picture is enlarged before it is drawn on."""
    return max(1.0, SMALLEST / max(height, width))


def draw(picture: np.ndarray, found: Sequence[Found]) -> np.ndarray:
    """The picture [H, W, 3] uint8 RGB with a box and a label for every detection, better ones above; a new array.

    A small picture comes back larger, by `scale_of`. A label that finds no room is shortened or left out: the colour of the
    box tells the class too.
    """
    height, width = picture.shape[:2]
    scale = scale_of(height, width)
    canvas = Image.fromarray(picture)
    if scale > 1:
        # Of a line of pixels there is at least one in each direction.
        canvas = canvas.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
    pen, shorter = ImageDraw.Draw(canvas), min(canvas.size)
    line, size = max(2, round(shorter / LINES)), min(max(12, round(shorter / LETTERS)), 200)
    best_first = sorted(found, key=lambda item: -item.score)
    boxes = [tuple(value * scale for value in item.box) for item in best_first]
    for item, box in reversed(list(zip(best_first, boxes, strict=True))):
        _outline(pen, box, color_of(item.label), line)
    placed: list[Box] = []
    for number, (item, box) in enumerate(zip(best_first, boxes, strict=True)):
        for text in (f"{_written(item)} {item.score:.2f}", _written(item), f"{item.score:.2f}"):
            own = font(text, size)
            place = _place(pen, text, own, box, canvas.size, placed, boxes[:number])
            if place is not None and (len(found) <= CROWD or place[2] - place[0] <= box[2] - box[0]):
                _label(pen, text, own, place, color_of(item.label))
                placed.append(place)
                break
    return np.asarray(canvas)


def _written(item: Found) -> str:
    """The class's name, or its number where every font lacks a letter of it."""
    return item.name if drawable(item.name) else f"class {item.label}"


def _outline(pen: ImageDraw.ImageDraw, box: Sequence[float], color: tuple[int, int, int], line: int) -> None:
    left, top, right, bottom = (round(value) for value in box)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    # A thin dark rim: every colour shows on every ground.
    pen.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=(20, 20, 20), width=1)
    pen.rectangle((left, top, right, bottom), outline=color, width=line)


def _place(
    pen: ImageDraw.ImageDraw,
    text: str,
    own: Font,
    box: Sequence[float],
    size: tuple[int, int],
    labels: Sequence[Box],
    better: Sequence[Sequence[float]],
) -> Box | None:
    """Where the label of a box goes: above it, in its upper edge, below it, in its lower edge; None if nowhere.

    It lies in the picture, on no other label, and leaves free at least half of every better box.
    """
    left, top, right, bottom = box
    _, _, wide, high = pen.textbbox((0, 0), text, font=own)
    wide, high = wide + 6, high + 4
    x = min(max(left, 0), size[0] - wide)
    for y in (top - high, top, bottom, bottom - high):
        place = (x, y, x + wide, y + high)
        inside = x >= 0 and y >= 0 and y + high <= size[1]
        if (
            inside
            and not any(_shared(place, other) > 0 for other in labels)
            and not any(_shared(place, other) > 0.5 * _area(other) for other in better)
        ):
            return place
    return None


def _label(
    pen: ImageDraw.ImageDraw,
    text: str,
    own: Font,
    place: Box,
    color: tuple[int, int, int],
) -> None:
    bright = 0.3 * color[0] + 0.59 * color[1] + 0.11 * color[2] > 140
    pen.rectangle(place, fill=color)
    pen.text((place[0] + 3, place[1] + 1), text, fill="black" if bright else "white", font=own)


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def _shared(box: Sequence[float], other: Sequence[float]) -> float:
    return _area((max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3])))
