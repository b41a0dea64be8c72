"""Large pictures in parts."""

from collections.abc import Sequence

from object_detection.finding import TileFlags, find_objects, parts_of
from object_detection.tiling import Tile, merged, tiles

import numpy as np
import pytest


@pytest.mark.parametrize(
    "height, width, size, overlap", [(100, 100, 100, 0.2), (1000, 700, 300, 0.25), (50, 999, 64, 0)]
)
def test_tiles_cover_everything_and_overlap(height: int, width: int, size: int, overlap: float) -> None:
    parts = tiles(height, width, size, overlap)
    seen = np.zeros((height, width), int)
    for part in parts:
        assert part.width == min(size, width) and part.height == min(size, height)
        part.of(seen[:, :, None])[:] += 1
    assert seen.min() >= 1
    lefts = sorted({part.left for part in parts})
    assert all(a + size - b >= int(overlap * size) for a, b in zip(lefts, lefts[1:]))
    assert lefts[0] == 0 and lefts[-1] == max(0, width - size)


def test_small_pictures_are_looked_at_once() -> None:
    picture = np.zeros((80, 90, 3), np.uint8)
    assert parts_of(picture, TileFlags()) == parts_of(picture, TileFlags(tile_size=100)) == [Tile(0, 0, 90, 80)]
    assert len(parts_of(picture, TileFlags(tile_size=50))) == 7
    assert len(parts_of(picture, TileFlags(tile_size=50, tile_whole=False))) == 6


def ideal(objects: np.ndarray, part: Tile) -> np.ndarray:
    """What a perfect detector sees of boxes [n, 4] in a part: [n, 6], each as far as it lies inside; the whole ones are
    found with less confidence than the cut ones, which is the hard case."""
    inner = np.array([part.left, part.top, part.left + part.width, part.top + part.height])
    cut = np.concatenate([np.maximum(objects[:, :2], inner[:2]), np.minimum(objects[:, 2:], inner[2:])], axis=1)
    visible = (cut[:, 2:] - cut[:, :2]).min(axis=1) > 3
    whole = (cut == objects).all(axis=1)
    boxes = (cut - [part.left, part.top] * 2) / ([part.width, part.height] * 2)
    table = np.concatenate([np.zeros((len(cut), 1)), np.where(whole, 0.6, 0.9)[:, None], boxes], axis=1)
    return table[visible]


def test_each_object_is_found_once_and_whole() -> None:
    """Random boxes that are no larger than the overlap, and far enough from one another."""
    rng = np.random.default_rng(0)
    corners = np.stack(np.meshgrid(np.arange(10, 900, 90), np.arange(10, 700, 90)), -1).reshape(-1, 2).astype(float)
    corners += rng.uniform(0, 15, corners.shape)
    objects = np.concatenate([corners, corners + rng.uniform(20, 70, corners.shape)], axis=1)
    parts = tiles(800, 1000, 300, 0.25)
    found = merged([ideal(objects, part) for part in parts], parts, 800, 1000, iou=0.45, keep=1000)
    boxes = found[:, 2:] * [1000, 800, 1000, 800]
    assert len(boxes) == len(objects)
    np.testing.assert_allclose(boxes[np.lexsort(boxes.T)], objects[np.lexsort(objects.T)], atol=1e-6)


def test_classes_stay_apart_and_the_best_come_first() -> None:
    part = Tile(0, 0, 100, 100)
    rows = np.array([[0, 0.5, 0.1, 0.1, 0.5, 0.5], [1, 0.8, 0.1, 0.1, 0.5, 0.5], [1, 0.7, 0.1, 0.1, 0.5, 0.52]])
    assert merged([rows, rows[:0]], [part, part], 100, 100, iou=0.45, keep=9)[:, :2].tolist() == [[1, 0.8], [0, 0.5]]
    assert merged([rows, rows], [part, part], 100, 100, iou=0.45, keep=1)[:, 0].tolist() == [1]
    assert merged([rows[:0]], [part], 100, 100, iou=0.45, keep=1).shape == (0, 6)


def test_batches_of_parts_across_pictures() -> None:
    """Every detection goes to its picture; after a full batch all are full."""
    sizes: list[int] = []

    def look(images: np.ndarray) -> Sequence[np.ndarray]:
        sizes.append(len(images))
        # The mean of the part is the score, so that mixed-up parts are seen.
        return [np.array([[0, image.mean() / 255, 0.4, 0.4, 0.6, 0.6]]) for image in images]

    pictures = [(str(grey), np.full((100, 200 if grey == 50 else 60, 3), grey, np.uint8)) for grey in (10, 50, 90, 130)]
    flags = TileFlags(tile_size=100, tile_overlap=0)
    found = list(find_objects(pictures, look, size=20, batch_size=4, flags=flags, iou=0.5, keep=100))
    assert [place for place, _, _ in found] == ["10", "50", "90", "130"]
    # One part and the whole, except of the second picture, which has two parts and the whole: a box each.
    assert [len(rows) for _, _, rows in found] == [1, 3, 1, 1]
    for place, _, rows in found:
        np.testing.assert_allclose(rows[:, 1], int(place) / 255, rtol=1e-6)
    assert sizes == [4, 4]
    sizes.clear()
    list(find_objects(pictures[:1], look, size=20, batch_size=4, flags=flags, iou=0.5, keep=100))
    assert sizes == [1]
