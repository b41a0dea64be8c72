"""Large pictures looked at part by part, and what was found in the parts brought together.

A network sees a picture at a few hundred pixels a side; what is small in a large one is lost there. Tiles overlap, so that
an object which one of them cuts lies whole in another, if it is no larger than the overlap (the idea of Akyon et al.,
"Slicing Aided Hyper Inference", arXiv:2202.06934).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from object_detection import boxes as box

import numpy as np

EDGE = 2.0
"""A box is cut if it comes so close, in pixels, to an edge of its tile inside of the picture."""
CUT_SHARE = 0.5
"""A cut box is a part of another one that covers more than this share of it."""


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    def of(self, picture: np.ndarray) -> np.ndarray:
        """This part of a picture [H, W, 3]."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def tiles(height: int, width: int, size: int, overlap: float) -> list[Tile]:
    """Squares with sides of `size` pixels that cover a picture, row by row; neighbours share at least `overlap` of a side.

    A picture that is smaller in a direction has one tile of its own length there.
    """
    return [
        Tile(left, top, min(size, width), min(size, height))
        for top in _starts(height, size, overlap)
        for left in _starts(width, size, overlap)
    ]


def _starts(length: int, size: int, overlap: float) -> list[int]:
    if length <= size:
        return [0]
    count = int(np.ceil((length - size) / max(1.0, size * (1 - overlap)))) + 1
    return [round(start) for start in np.linspace(0, length - size, count)]


def merged(
    found: Sequence[np.ndarray], parts: Sequence[Tile], height: int, width: int, *, iou: float, keep: int
) -> np.ndarray:
    """Detections of a picture from those of its parts: of each [n, 6], class, score and a box in 0..1 of the part.

    Of each class, from the best on, those that overlap a better one by more than `iou` go. Boxes that an edge between
    tiles cuts come after all whole ones, and go already if more than `CUT_SHARE` of them lies in a better one. Returns the
    best `keep`, [n, 6], in 0..1 of the picture.
    """
    rows, cut = [], []
    for own, part in zip(found, parts, strict=True):
        corners = own[:, 2:].clip(0, 1) * [part.width, part.height, part.width, part.height]
        corners = corners + [part.left, part.top, part.left, part.top]
        inner = np.array([part.left, part.top, part.left + part.width, part.top + part.height])
        ends = inner != [0, 0, width, height]
        cut.append((ends & (np.abs(corners - inner) <= EDGE)).any(axis=1))
        rows.append(np.concatenate([own[:, :2], corners], axis=1))
    table, is_cut = np.concatenate(rows), np.concatenate(cut)
    order = np.lexsort((-table[:, 1], is_cut))
    kept = _suppressed(table[order], is_cut[order], iou)
    kept = kept[np.argsort(-kept[:, 1], kind="stable")][:keep]
    kept[:, 2:] /= [width, height, width, height]
    return kept


def _suppressed(table: np.ndarray, cut: np.ndarray, iou: float) -> np.ndarray:
    """Of detections [n, 6], the preferred first, those that no earlier one which stays suppresses."""
    stays = np.ones(len(table), bool)
    for number in range(len(table)):
        if not stays[number]:
            continue
        later = number + 1 + np.flatnonzero(stays[number + 1 :] & (table[number + 1 :, 0] == table[number, 0]))
        own, others = table[number : number + 1, 2:], table[later, 2:]
        overlaps = box.ious(own, others)[0] > iou
        inside = box.intersections(own, others)[0] > CUT_SHARE * box.areas(others)
        stays[later[overlaps | (inside & cut[later])]] = False
    return table[stays]
