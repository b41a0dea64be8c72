"""Prior boxes: what a detector predicts its boxes relative to. Constants, computed in NumPy.

Every cell of a feature map has one prior for each shape in `PriorMap.shapes`, around its centre (Liu et al.,
arXiv:1512.02325, section 2.2). Sizes are shares of the image's side, so that priors do not depend on its pixels. The cells
of a map share the image out evenly, as in the paper; the program of its authors lays them 8, 16, 32, ... pixels apart,
which at 300 pixels is not the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from object_detection import boxes as box

import numpy as np

GOOD_SHARE = 0.9
"""Share of boxes with a prior of an IoU of `MATCH_IOU` or more below which a detector can hardly learn its data."""
MATCH_IOU = 0.5
"""With which a prior answers for a box, whatever others do."""


@dataclass(frozen=True)
class PriorMap:
    """The priors of one feature map."""

    cells: int
    """Cells in each direction."""
    min_sizes: tuple[float, ...]
    """Sides of square priors."""
    max_sizes: tuple[float, ...] = ()
    """For each of `min_sizes` one: there is a further square prior with the side sqrt(min * max). Empty: there is none."""
    ratios: tuple[float, ...] = ()
    """There are priors of these ratios of width to height, and of their inverses, with the area of the min-size squares."""

    def __post_init__(self) -> None:
        if self.max_sizes and len(self.max_sizes) != len(self.min_sizes):
            raise ValueError(f"{len(self.max_sizes)} max_sizes for {len(self.min_sizes)} min_sizes")

    @property
    def shapes(self) -> list[tuple[float, float]]:
        """Width and height of the priors of a cell, in Fluid's order: for each min size it, r, 1/r, ..., the max size."""
        shapes = []
        for index, side in enumerate(self.min_sizes):
            shapes.append((side, side))
            for ratio in self.ratios:
                wide, narrow = side * math.sqrt(ratio), side / math.sqrt(ratio)
                shapes += [(wide, narrow), (narrow, wide)]
            if self.max_sizes:
                larger = math.sqrt(side * self.max_sizes[index])
                shapes.append((larger, larger))
        return shapes

    def boxes(self) -> np.ndarray:
        """[cells * cells * len(shapes), 4] float32: cells row by row, a cell's priors together; not clipped."""
        centres = (np.arange(self.cells) + 0.5) / self.cells
        y, x = np.meshgrid(centres, centres, indexing="ij")
        centre = np.stack([x, y], axis=-1)[:, :, None]
        half = np.asarray(self.shapes) / 2
        return np.concatenate([centre - half, centre + half], axis=-1).reshape(-1, 4).astype(np.float32)


def prior_boxes(maps: Sequence[PriorMap]) -> np.ndarray:
    """The priors of all maps, [P, 4] float32."""
    return np.concatenate([item.boxes() for item in maps])


def best_ious(boxes: np.ndarray, priors: np.ndarray) -> np.ndarray:
    """The IoU of each of the boxes [N, 4] with its best prior, [N]."""
    best = [box.ious(boxes[i : i + 256], priors).max(axis=1) for i in range(0, len(boxes), 256)]
    return np.concatenate(best) if best else np.zeros(0)


def covered_share(boxes: np.ndarray, maps: Sequence[PriorMap]) -> float:
    """The share of the boxes [N, 4], N at least 1, whose best prior reaches an IoU of .5."""
    return float(np.mean(best_ious(boxes, prior_boxes(maps)) >= MATCH_IOU))


STRIDES_A_SIDE = 2.0
"""A box is left to the coarsest map of which at least so many cells fit on its side: its centre is then at most a quarter
of the side away from that of a prior, which for a prior of its own size means an IoU of at least .39, .6 on average."""
SIZE_STEP = 1.5
"""Ratio of one prior's side to the next in a map: two boxes of the same centre and shape then have an IoU of at least
1 / 1.5, with the side between the two at hand."""
RARE = 0.02
"""Shapes and maps that fewer of the boxes ask for are left out."""


def fit_priors(boxes: np.ndarray, cells: Sequence[int]) -> tuple[PriorMap, ...]:
    """Priors for the boxes [N, 4] of a data set.

    Args:
        boxes: as the network sees them, 0..1.
        cells: of the feature maps that there are, finest first.

    Each map serves the boxes that are large enough for its cells and too small for the next one's; its sizes are spaced
    evenly in logarithm over theirs, with the ratios 2 and 3 if elongated boxes are more than rare. A map that serves
    hardly any box is left out, and so are the finest ones if `GOOD_SHARE` of the boxes are covered without them.

    Raises ValueError if no box has an area.
    """
    boxes = boxes[box.areas(boxes) > 0]
    if len(boxes) == 0:
        raise ValueError("priors cannot be fitted to no boxes")
    fitted: tuple[PriorMap, ...] = ()
    for finest in reversed(range(len(cells))):
        fitted = _fit_maps(boxes[:, 2:] - boxes[:, :2], cells[finest:])
        if covered_share(boxes, fitted) >= GOOD_SHARE:
            break
    return fitted


def _fit_maps(sides: np.ndarray, cells: Sequence[int]) -> tuple[PriorMap, ...]:
    side = np.sqrt(sides.prod(axis=1))
    elongation = sides.max(axis=1) / sides.min(axis=1)
    # The finest map takes the boxes that are too small even for it.
    served_by = np.zeros(len(side), np.int64)
    for number, count in enumerate(cells):
        served_by[side * count >= STRIDES_A_SIDE] = number
    # Between the ratios 1, 2 and 3 the borders are sqrt(2) and sqrt(6).
    ratios = [r for r, border in ((2.0, math.sqrt(2)), (3.0, math.sqrt(6))) if np.mean(elongation > border) > RARE]
    maps = []
    for number, count in enumerate(cells):
        own = served_by == number
        if own.mean() < RARE:
            continue
        low, high = np.quantile(side[own], [RARE, 1 - RARE])
        steps = max(1, math.ceil(math.log(high / low) / math.log(SIZE_STEP)))
        edges = low * (high / low) ** (np.arange(steps + 1) / steps)
        sizes = tuple(float(f"{size:.4g}") for size in np.sqrt(edges[:-1] * edges[1:]))
        maps.append(PriorMap(count, sizes, ratios=tuple(ratios)))
    return tuple(maps)
