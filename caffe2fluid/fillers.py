"""What Caffe puts into a parameter that no file gives: its fillers (BVLC Caffe, include/caffe/filler.hpp)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from .prototxt import Message

INITIAL = {"scale": 1.0, "variance": 1.0, "slopes": 0.25, "mean": 0.0, "offset": 0.0, "bias": 0.0, "biases": 0.0}
"""Values by kind of parameter, where the prototxt names no filler; all others are drawn as "xavier" draws."""


def is_fixed(spec: Message | None) -> bool:
    """Whether the filler gives the same values each time, as an upsampling that is never trained has them."""
    return spec is not None and spec.text("type", "constant") in ("constant", "bilinear")


def fill(spec: Message | None, kind: str, name: str, shape: Sequence[int]) -> np.ndarray:
    """The array, float32; random ones depend on ``name`` alone, so that each file of a conversion holds the same."""
    if spec is None and kind in INITIAL:
        return np.full(shape, INITIAL[kind], np.float32)
    spec = spec or Message("", {"type": ["xavier"]})
    method = spec.text("type", "constant")
    if method == "constant":
        return np.full(shape, spec.number("value", 0.0), np.float32)
    if method == "bilinear" and len(shape) == 4 and shape[2] == shape[3]:
        return _bilinear(shape)
    generator = np.random.default_rng(zlib.crc32(name.encode("utf-8", "surrogateescape")))
    if method == "uniform":
        return generator.uniform(spec.number("min", 0.0), spec.number("max", 1.0), shape).astype(np.float32)
    if method == "gaussian":
        mean, deviation = spec.number("mean", 0.0), spec.number("std", 1.0)
        return generator.standard_normal(shape, np.float32) * np.float32(deviation) + np.float32(mean)
    fan_in = max(math.prod(shape[1:]), 1)
    if method == "msra":
        return generator.standard_normal(shape, np.float32) * np.float32(math.sqrt(2 / fan_in))
    limit = math.sqrt(3 / fan_in)
    return generator.uniform(-limit, limit, shape).astype(np.float32)


def _bilinear(shape: Sequence[int]) -> np.ndarray:
    size = shape[3]
    factor = math.ceil(size / 2)
    center = (2 * factor - 1 - factor % 2) / (2 * factor)
    ramp = 1 - np.abs(np.arange(size) / factor - center)
    return np.broadcast_to(np.outer(ramp, ramp), shape).astype(np.float32)
