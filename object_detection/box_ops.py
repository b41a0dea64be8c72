"""What `boxes` does, as operations of a Program: in float32 under any precision, since pixels are 1/300 of an image."""

from collections.abc import Sequence

from fluid.program import Value
from object_detection.boxes import VARIANCES

import numpy as np
import paddle


def constant(array: np.ndarray) -> Value:
    """An array of float32 as part of the Program."""
    return paddle.assign(np.ascontiguousarray(array, np.float32))


def areas(boxes: Value) -> Value:
    """[..., 4] -> [...]; 0 for an inverted box."""
    sides = paddle.clip(boxes[..., 2:] - boxes[..., :2], min=0.0)
    return sides[..., 0] * sides[..., 1]


def intersections(boxes: Value, others: Value) -> Value:
    """Areas that boxes [..., N, 4] and others [..., M, 4] share, [..., N, M]."""
    # One side after the other: an array of corners would be four times as large as the result.
    boxes, others = boxes.unsqueeze(-2), others.unsqueeze(-3)
    sides = [
        paddle.clip(
            paddle.minimum(boxes[..., axis + 2], others[..., axis + 2])
            - paddle.maximum(boxes[..., axis], others[..., axis]),
            min=0.0,
        )
        for axis in (0, 1)
    ]
    return sides[0] * sides[1]


def unions(boxes: Value, others: Value, shared: Value) -> Value:
    """Areas that boxes [..., N, 4] and others [..., M, 4] cover together, given their intersections, [..., N, M]."""
    return areas(boxes).unsqueeze(-1) + areas(others).unsqueeze(-2) - shared


def encode(boxes: Value, priors: Value, variances: Sequence[float] = VARIANCES) -> Value:
    """Boxes as offsets from their priors, both [..., 4] (Liu et al., arXiv:1512.02325, section 2.2).

    Boxes without area are taken as very small ones.
    """
    size = paddle.clip(boxes[..., 2:] - boxes[..., :2], min=1e-6)
    prior_size = priors[..., 2:] - priors[..., :2]
    shift = (boxes[..., 2:] + boxes[..., :2] - priors[..., 2:] - priors[..., :2]) * 0.5
    offsets = paddle.concat([shift / prior_size, paddle.log(size / prior_size)], axis=-1)
    return offsets / constant(np.asarray(variances))


def decode(offsets: Value, priors: Value, variances: Sequence[float] = VARIANCES) -> Value:
    """The boxes of the offsets [..., P, 4] from priors [P, 4]."""
    offsets = offsets * constant(np.asarray(variances))
    prior_size = priors[..., 2:] - priors[..., :2]
    centre = (priors[..., 2:] + priors[..., :2]) * 0.5 + offsets[..., :2] * prior_size
    half = paddle.exp(offsets[..., 2:]) * prior_size * 0.5
    return paddle.concat([centre - half, centre + half], axis=-1)
