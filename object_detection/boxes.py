"""Boxes in NumPy: overlap, clipping and the coding of SSD. `box_ops` has the same as operations of a Program.

A box is (xmin, ymin, xmax, ymax) with 0..1 from the left and the top of the image, whatever its size in pixels.
"""

from collections.abc import Sequence

import numpy as np

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""What centre and size of a coded box are divided by."""
PADDING = -1
"""The label of rows that fill the boxes of an image up."""


def areas(boxes: np.ndarray) -> np.ndarray:
    """[..., 4] -> [...]; 0 for an inverted box."""
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersections(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Areas that boxes [N, 4] and others [M, 4] share, [N, M]."""
    start = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return areas(np.concatenate([start, end], axis=-1))


def ious(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes [N, 4] and others [M, 4], [N, M]; 0 where both have no area."""
    shared = intersections(boxes, others)
    union = areas(boxes)[:, None] + areas(others)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def clip(boxes: np.ndarray) -> np.ndarray:
    """The part of boxes [..., 4] that lies in the image."""
    return np.clip(boxes, 0, 1)


def encode(boxes: np.ndarray, priors: np.ndarray, variances: Sequence[float] = VARIANCES) -> np.ndarray:
    """Boxes as offsets from their priors, both [..., 4] (Liu et al., arXiv:1512.02325, section 2.2)."""
    size, prior_size = boxes[..., 2:] - boxes[..., :2], priors[..., 2:] - priors[..., :2]
    shift = (boxes[..., 2:] + boxes[..., :2] - priors[..., 2:] - priors[..., :2]) / 2
    return np.concatenate([shift / prior_size, np.log(size / prior_size)], axis=-1) / np.asarray(variances, boxes.dtype)


def decode(offsets: np.ndarray, priors: np.ndarray, variances: Sequence[float] = VARIANCES) -> np.ndarray:
    """The boxes that `encode` made the offsets [..., 4] of."""
    offsets = offsets * np.asarray(variances, offsets.dtype)
    prior_size = priors[..., 2:] - priors[..., :2]
    centre = (priors[..., 2:] + priors[..., :2]) / 2 + offsets[..., :2] * prior_size
    half = np.exp(offsets[..., 2:]) * prior_size / 2
    return np.concatenate([centre - half, centre + half], axis=-1)
