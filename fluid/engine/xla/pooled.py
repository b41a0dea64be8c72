"""Max pooling of what was clipped and normalised: the kernels of `kernels/pooling.py` make the gradient all the way back.

The gradient by the pixels that were pooled stays a `Spread`, which relu passes on, clipped as the pooled values are, and which
the normalisation's gradient takes (`normalised.py`).
"""

from collections.abc import Sequence
from typing import Any

from fluid.engine.xla.graph import Operation
from fluid.engine.xla.kernels import pooling as kernel
from fluid.engine.xla.layout import ChannelsLast, channels_last_array
from fluid.engine.xla.rules.pool import max_pool_and_winners, window_padding
from fluid.engine.xla.trace import Handler, Trace

import jax.numpy as jnp

_POOLING, _RELU = "pd_op.pool2d", "pd_op.relu"


def is_pooled(trace: Trace, normalised: Operation, pixels: Any, groups: int) -> bool:
    """Whether nothing but a pooling takes what a normalisation makes of pixels [N, H, W, C], clipped."""
    clipping = _only(trace, normalised, [_RELU])
    pooling = None if clipping is None else _only(trace, clipping, [_POOLING, f"{_POOLING}_grad", f"{_RELU}_grad"])
    return pooling is not None and _windows(trace, pooling, pixels, groups) is not None


def _only(trace: Trace, operation: Operation, names: Sequence[str]) -> Operation | None:
    """The first that takes the result of an operation, if those that do are one of each of these names."""
    readers = trace.uses.readers(operation.result(0))
    return readers[0] if sorted(item.name for item in readers) == sorted(names) else None


def _windows(trace: Trace, operation: Operation, pixels: Any, groups: int) -> kernel.Windows | None:
    attributes = operation.attributes
    if attributes["pooling_type"] != "max" or attributes["adaptive"] or attributes["global_pooling"] or trace.inside:
        return None
    made = trace.uses.producer(operation.operand(1))
    if made is None or made.name != "pd_op.full_int_array":
        return None
    size, sizes = made.attributes["value"], pixels.shape[1:3]
    padding = window_padding(trace.call(operation, channels_last=True), list(sizes), size)
    strides = attributes["strides"]
    pooled = [(n + sum(p) - w) // s + 1 for n, p, w, s in zip(sizes, padding, size, strides, strict=True)]
    (top, _), (left, _) = padding
    windows = kernel.Windows((size[0], size[1]), (strides[0], strides[1]), (top, left))
    fits = trace.kernels is not None and kernel.fits(trace.kernels, pixels, (len(pixels), *pooled), windows, groups)
    return windows if fits else None


def _pooling(trace: Trace, operation: Operation) -> Sequence[Any]:
    clipping = trace.uses.producer(operation.operand(0))
    normalised = trace.uses.producer(clipping.operand(0)) if clipping is not None and clipping.name == _RELU else None
    statistics = None if normalised is None else trace.made.get(normalised.result(0))
    pixels = trace.env[operation.operand(0)]
    if statistics is None or normalised is None or not isinstance(pixels, ChannelsLast):
        return trace.apply_rule(operation)
    groups = len(statistics.mean)
    windows = _windows(trace, operation, pixels.array, groups)
    if windows is None or not is_pooled(trace, normalised, pixels.array, groups):
        return trace.apply_rule(operation)
    padding = window_padding(
        trace.call(operation, channels_last=True), list(pixels.array.shape[1:3]), list(windows.size)
    )
    pooled, (winner, _) = max_pool_and_winners(pixels.array, windows.size, windows.strides, tuple(padding))
    trace.made[_POOLING, operation.result(0)] = winner, windows
    return [ChannelsLast(pooled)]


def _pooling_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    if (_POOLING, forward.result(0)) not in trace.made:
        return trace.apply_gradient(operation)
    winner, windows = trace.made[_POOLING, forward.result(0)]
    pooled = trace.env[forward.result(0)].array
    by_pooled = channels_last_array(trace.env[operation.operand(operation.input_names.index("out_grad"))])
    return [kernel.Spread(jnp.where(pooled > 0, by_pooled, 0).astype(pooled.dtype), winner, windows)]


HANDLERS: dict[str, Handler] = {_POOLING: _pooling, f"{_POOLING}_grad": _pooling_gradient}
