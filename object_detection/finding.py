"""What is found in pictures of any size, one after the other."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from fluid.config import Natural, Range
from object_detection.reader import resize
from object_detection.tiling import Tile, merged, tiles

import cv2
import numpy as np

Look = Callable[[np.ndarray], Sequence[np.ndarray]]
"""Images [N, size, size, 3] uint8 RGB -> detections of each [n, 6], see `nms.detect`."""


@dataclass
class TileFlags:
    """How large pictures are looked at."""

    tile_size: Natural = 0
    """Look at squares of so many pixels, one by one, and put together what is found in them; 0 looks at pictures whole."""
    tile_overlap: Annotated[float, Range(0, 0.9)] = 0.25
    """Share of a square's side that lies in its neighbour too: as large as the objects that may lie on its edge."""
    tile_whole: bool = True
    """Look at the whole picture besides, for objects that are larger than a square."""


def parts_of(picture: np.ndarray, flags: TileFlags) -> list[Tile]:
    """The parts of a picture [H, W, 3] that are looked at."""
    height, width = picture.shape[:2]
    whole = Tile(0, 0, width, height)
    if not flags.tile_size:
        return [whole]
    parts = tiles(height, width, flags.tile_size, flags.tile_overlap)
    return [*parts, whole] if flags.tile_whole and whole not in parts else parts


def find_objects(
    pictures: Iterable[tuple[str, np.ndarray]],
    look: Look,
    *,
    size: int,
    batch_size: int,
    flags: TileFlags,
    iou: float,
    keep: int,
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(place, picture, detections [n, 6] in 0..1 of it) of each of the pictures (place, [H, W, 3] uint8 RGB), in order.

    After a full batch all are full, the last one with copies: compiled Programs have one shape then.
    """
    stream = _parts_of_all(pictures, flags)
    found: list[np.ndarray] = []
    rows = 0
    while batch := list(itertools.islice(stream, batch_size)):
        images = np.stack([resize(part.of(picture), size, cv2.INTER_LINEAR) for _, picture, part, _ in batch])
        rows = max(rows, len(batch))
        filled = np.concatenate([images, np.repeat(images[-1:], rows - len(batch), axis=0)])
        for (place, picture, _, parts), own in zip(batch, look(filled)):
            found.append(own)
            if len(found) == len(parts):
                height, width = picture.shape[:2]
                one = found[0] if len(parts) == 1 else merged(found, parts, height, width, iou=iou, keep=keep)
                yield place, picture, one
                found = []


def _parts_of_all(
    pictures: Iterable[tuple[str, np.ndarray]], flags: TileFlags
) -> Iterator[tuple[str, np.ndarray, Tile, list[Tile]]]:
    for place, picture in pictures:
        parts = parts_of(picture, flags)
        for part in parts:
            yield place, picture, part, parts
