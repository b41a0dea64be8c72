"""The drawn pictures."""

from object_detection import boxes as box
from object_detection.shapes import CLASSES, LARGEST_OVERLAP, SIDE, Shapes, draw_shapes

import numpy as np
import pytest


@pytest.fixture(scope="module")
def shapes() -> Shapes:
    return draw_shapes("val")


def test_they_follow_from_their_number(shapes: Shapes) -> None:
    again, others = draw_shapes("val"), draw_shapes("train")
    for index in (0, 17, 199):
        assert np.array_equal(again.picture(index), shapes.picture(index))
        assert np.array_equal(again.objects[index].boxes, shapes.objects[index].boxes)
    assert not np.array_equal(others.picture(0), shapes.picture(0))
    assert (len(others.images), len(shapes.images)) == (2000, 200)
    assert set(shapes.counts()) == set(CLASSES) and min(shapes.counts().values()) > 100


def test_boxes_enclose_what_is_drawn(shapes: Shapes) -> None:
    """Where a single shape lies its colour fills the box to all sides and is nowhere else."""
    found = 0
    for index, objects in enumerate(shapes.objects):
        assert box.areas(objects.boxes).min() > 0 and objects.boxes.min() >= 0 and objects.boxes.max() <= 1
        overlaps = box.ious(objects.boxes, objects.boxes) - np.eye(len(objects.boxes))
        assert overlaps.max() <= LARGEST_OVERLAP + 1e-6
        if len(objects.labels) > 1:
            continue
        image, (left, top, right, bottom) = shapes.picture(index), (objects.boxes[0] * SIDE).round().astype(int)
        colour = image[(top + bottom) // 2, (left + right) // 2]
        rows, columns = np.nonzero((image == colour).all(axis=2))
        inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        # Somewhere else a pixel of the ground may have the same colour.
        assert (~inside).sum() < 5
        assert (rows[inside].min(), columns[inside].min()) == (top, left)
        assert (rows[inside].max(), columns[inside].max()) == (bottom - 1, right - 1)
        found += 1
    assert found > 20
