"""Pooling."""

import functools
import itertools
from collections.abc import Iterator
from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.conv import spatial_padding, spatial_size
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@rule("pool2d", kind=Kind.OWN, images=("x",), prefers_channels_last=True)
def pool2d(op: Call, x: jax.Array, kernel_size: Any) -> jax.Array:
    return _pool(op, x, op.integers(kernel_size, "window"))


@rule("pool3d", kind=Kind.OWN)
def pool3d(op: Call, x: jax.Array) -> jax.Array:
    return _pool(op, x, op["kernel_size"])


def _pool(op: Call, x: jax.Array, window: list[int]) -> jax.Array:
    size = spatial_size(op, x)
    if op["global_pooling"] or (op["adaptive"] and max(window) == 1):
        return _global_pool(op, x)
    if op["adaptive"]:
        return _adaptive_pool(op, x, window)
    strides, padding = op["strides"], window_padding(op, size, window)
    if op["pooling_type"] == "max":
        if op.channels_last and x.ndim == 4:
            apart = op.tuning.overlaps_apart and any(w > s for w, s in zip(window, strides, strict=True))
            return _max_pool(x, tuple(window), tuple(strides), tuple(padding), apart)
        return _reduce_window(op, x, lax.max, -jnp.inf, window, strides, padding)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if list(strides) == list(window) and not np.any(padding):
        return _mean_of_tiles(op, wide, window).astype(x.dtype)
    total = _reduce_window(op, wide, lax.add, 0.0, window, strides, padding)
    return (total / _window_counts(op, size, window, strides, padding).astype(wide.dtype)).astype(x.dtype)


def window_padding(op: Call, size: list[int], window: list[int]) -> list[tuple[int, int]]:
    """Before and after each spatial axis; with `ceil_mode` so much that the last window is whole."""
    padding = spatial_padding(op, size, window, op["strides"])
    if not op["ceil_mode"]:
        return padding
    return [
        (before, after + -(n + before + after - w) % s)
        for n, w, s, (before, after) in zip(size, window, op["strides"], padding, strict=True)
    ]


def _reduce_window(op: Call, x: jax.Array, function: Any, start: float, window: Any, strides: Any, padding: Any) -> Any:
    def around(values: Any, outer: Any) -> list[Any]:
        return [outer, *values, outer] if op.channels_last else [outer, outer, *values]

    first = np.asarray(start, x.dtype)
    return lax.reduce_window(x, first, function, around(window, 1), around(strides, 1), around(padding, (0, 0)))


def _mean_of_tiles(op: Call, x: jax.Array, window: list[int]) -> jax.Array:
    """Averages of windows side by side. XLA's gradient of `reduce_window` adds as many numbers a pixel as a window has."""
    first = 1 if op.channels_last else 2
    shape, axes = list(x.shape[:first]), []
    for offset, length in enumerate(window):
        steps = x.shape[first + offset] // length
        x = lax.slice_in_dim(x, 0, steps * length, axis=first + offset)
        axes.append(len(shape) + 1)
        shape += [steps, length]
    return jnp.mean(x.reshape(*shape, *x.shape[first + len(window) :]), axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _max_pool(x: jax.Array, window: Any, strides: Any, padding: Any, apart: bool) -> jax.Array:
    """Max pooling of [N, H, W, C] with a gradient that reads: which of the window's offsets won is kept, one byte each.

    `apart`: the gradient by pixels that lie differently between the steps, and so in different offsets, is made apart.
    """
    return max_pool_and_winners(x, window, strides, padding)[0]


def _max_pool_forward(x: jax.Array, window: Any, strides: Any, padding: Any, apart: bool) -> tuple[jax.Array, Any]:
    return max_pool_and_winners(x, window, strides, padding)


def max_pool_and_winners(x: jax.Array, window: Any, strides: Any, padding: Any) -> tuple[jax.Array, Any]:
    """Maxima [N, h, w, C] of windows of [N, H, W, C]; and which of a window's offsets won each, uint8, with the shape of x."""
    low = np.asarray(-np.inf, x.dtype)
    padded = lax.pad(x, low, [(0, 0, 0), *((*pad, 0) for pad in padding), (0, 0, 0)])
    best, *others = _window_offsets(padded, window, strides)
    winner = jnp.zeros(best.shape, jnp.uint8)
    for place, part in enumerate(others, 1):
        better = part > best
        winner = jnp.where(better, np.uint8(place), winner)
        best = jnp.where(better, part, best)
    return best, (winner, x.shape)


def _max_pool_backward(
    window: Any, strides: Any, padding: Any, apart: bool, residuals: Any, gradient: jax.Array
) -> tuple[jax.Array]:
    winner, shape = residuals
    sizes = [n + before + after for n, (before, after) in zip(shape[1:3], padding, strict=True)]
    spread = _spread_apart if apart else _spread
    total = spread(winner, gradient, sizes, window, strides)
    (top, _), (left, _) = padding
    return (total[:, top : top + shape[1], left : left + shape[2]],)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _spread(winner: jax.Array, gradient: jax.Array, sizes: list[int], window: Any, strides: Any) -> jax.Array:
    """[N, *sizes, C]: by pixel the gradients [N, h, w, C] of the windows that it won, of all offsets for each pixel."""
    zero = np.zeros((), gradient.dtype)
    total = jnp.zeros((), gradient.dtype)
    for place, (i, j) in enumerate(np.ndindex(*window)):
        mine = jnp.where(winner == place, gradient, zero)
        spread = [
            (start, size - start - (n - 1) * stride - 1, stride - 1)
            for start, size, n, stride in zip((i, j), sizes, gradient.shape[1:3], strides, strict=True)
        ]
        part = lax.pad(mine, zero, [(0, 0, 0), *spread, (0, 0, 0)])
        total = part if place == 0 else total + part
    return total


def _spread_apart(winner: jax.Array, gradient: jax.Array, sizes: list[int], window: Any, strides: Any) -> jax.Array:
    """As `_spread`; of a pixel only those offsets that it can have, by how far it is from the last step."""
    zero = np.zeros((), gradient.dtype)
    grid = [-(-n // stride) for n, stride in zip(sizes, strides, strict=True)]
    samples, *count, channels = gradient.shape

    def pixels(*far: int) -> jax.Array:
        total = jnp.zeros((samples, *grid, channels), gradient.dtype)
        for offset in itertools.product(*map(range, far, window, strides)):
            mine = jnp.where(winner == np.ravel_multi_index(offset, window), gradient, zero)
            before = [(n - a) // stride for n, a, stride in zip(offset, far, strides, strict=True)]
            around = [(n, have - n - own, 0) for n, have, own in zip(before, grid, count, strict=True)]
            total = total + lax.pad(mine, zero, [(0, 0, 0), *around, (0, 0, 0)])
        return total

    (rows, columns), (height, width) = strides, grid
    lines = [jnp.stack([pixels(i, j) for j in range(columns)], 3) for i in range(rows)]
    return jnp.stack(lines, 2).reshape(samples, rows * height, columns * width, channels)


def _window_offsets(padded: jax.Array, window: Any, strides: Any) -> Iterator[jax.Array]:
    (sh, sw) = strides
    rows, columns = ((n - w) // s + 1 for n, w, s in zip(padded.shape[1:3], window, strides, strict=True))
    for i, j in np.ndindex(*window):
        yield padded[:, i : i + (rows - 1) * sh + 1 : sh, j : j + (columns - 1) * sw + 1 : sw]


def _window_counts(op: Call, size: Any, window: Any, strides: Any, padding: Any) -> np.ndarray:
    """How many elements each average divides by.

    Exclusive averages count the pixels of the image only. Inclusive ones count padding as well, but not what `ceil_mode`
    adds beyond it, and after the image as much of it as there is before.
    """
    counts = []
    declared = spatial_padding(op, size, window, strides)
    for n, w, s, (before, after), (first, _) in zip(size, window, strides, padding, declared, strict=True):
        steps = (n + before + after - w) // s + 1
        start = np.arange(steps) * s - before
        low, high = (0, n) if op["exclusive"] else (-first, n + first)
        counts.append(np.minimum(start + w, high) - np.maximum(start, low))
    grid = functools.reduce(np.multiply.outer, counts)
    return grid[None, ..., None] if op.channels_last else grid[None, None]


def _global_pool(op: Call, x: jax.Array) -> jax.Array:
    first = 1 if op.channels_last else 2
    axes = tuple(range(first, first + x.ndim - 2))
    if op["pooling_type"] == "max":
        return jnp.max(x, axes, keepdims=True)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.mean(x, axes, dtype=wide, keepdims=True).astype(x.dtype)


def _adaptive_pool(op: Call, x: jax.Array, parts: list[int]) -> jax.Array:
    """Average or maximum of each cell, one axis after the other."""
    for offset, count in enumerate(parts):
        axis = (1 if op.channels_last else 2) + offset
        reduced = jnp.max if op["pooling_type"] == "max" else jnp.mean
        cells = [
            reduced(lax.slice_in_dim(x, start, end, axis=axis), axis, keepdims=True)
            for start, end in _cells(x.shape[axis], count)
        ]
        x = jnp.concatenate(cells, axis)
    return x


def _cells(size: int, count: int) -> list[tuple[int, int]]:
    """Cell i of n covers rows floor(i * size / n) .. ceil((i + 1) * size / n)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _adaptive_max_with_index(x: jax.Array, parts: list[int]) -> tuple[jax.Array, jax.Array]:
    height, width = x.shape[2:]
    places = []
    for top, bottom in _cells(height, parts[0]):
        for left, right in _cells(width, parts[1]):
            inner = jnp.argmax(x[:, :, top:bottom, left:right].reshape(*x.shape[:2], -1), -1)
            places.append((top + inner // (right - left)) * width + left + inner % (right - left))
    index = jnp.stack(places, -1).astype(jnp.int32)
    value = jnp.take_along_axis(x.reshape(*x.shape[:2], -1), index, -1)
    return value.reshape(*x.shape[:2], *parts), index.reshape(*x.shape[:2], *parts)


@rule("max_pool2d_with_index", kind=Kind.OWN)
def max_pool2d_with_index(op: Call, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Maximum and its flat position in the image, [N, C, H, W] each."""
    window, size = op["kernel_size"], x.shape[2:]
    if op["global_pooling"] or op["adaptive"]:
        return _adaptive_max_with_index(x, [1, 1] if op["global_pooling"] else window)
    strides = op["strides"]
    padding = [(p, p) for p in op["paddings"]]
    if op.get("ceil_mode"):
        padding = [
            (p, p + -(n + 2 * p - w) % s) for n, w, s, (p, _) in zip(size, window, strides, padding, strict=True)
        ]
    place = jnp.broadcast_to(jnp.arange(size[0] * size[1], dtype=jnp.int32).reshape(size), x.shape)

    def larger(one: Any, other: Any) -> Any:
        first = (one[0] > other[0]) | ((one[0] == other[0]) & (one[1] < other[1]))
        return jnp.where(first, one[0], other[0]), jnp.where(first, one[1], other[1])

    start = np.asarray(-np.inf, x.dtype), np.int32(size[0] * size[1])
    dims, steps, pads = (1, 1, *window), (1, 1, *strides), ((0, 0), (0, 0), *padding)
    _, index = lax.reduce_window((lax.stop_gradient(x), place), start, larger, dims, steps, pads)
    flat = x.reshape(*x.shape[:2], -1)
    value = jnp.take_along_axis(flat, index.reshape(*index.shape[:2], -1), -1)
    return value.reshape(index.shape), index
