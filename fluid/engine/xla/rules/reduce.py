"""Reductions, softmax, sorting and cumulative sums. Sums are kept in float32 under every policy."""

from functools import partial
from typing import Any

from fluid.engine.xla.first import FIRST
from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
CHUNK = 64
"""Elements among which the largest is found by comparing all."""

PLANES = 64
"""Up to so many classes of a map are compared one after the other: XLA's own way takes a CPU six times as long for 19."""


def _axes(op: Call, axis: Any, rank: int) -> tuple[int, ...]:
    """Axes to reduce; none named means all."""
    named = op.integers(axis, "axis") if not isinstance(axis, list) or axis else []
    return tuple(op.axis(item, rank) for item in named) or tuple(range(rank))


def _flat_if_all(op: Call, x: Array, axes: tuple[int, ...]) -> bool:
    """A reduced image that keeps its axes stays an image; one that drops some must be in the Program's order first."""
    return op.channels_last and not op["keepdim"] and len(axes) < x.ndim


def _reduced(op: Call, x: Array, axis: Any, function: Any, **options: Any) -> Array:
    axes = _axes(op, axis, x.ndim)
    y = function(x, axes, keepdims=op["keepdim"], **options)
    if _flat_if_all(op, x, axes) and y.ndim > 1:
        # Remaining axes in channels-last order -> in the order N, C, H, W.
        left = [axis for axis in range(4) if axis not in axes]
        order = [left.index(axis) for axis in (0, 3, 1, 2) if axis in left]
        y = jnp.transpose(y, order)
    return y


@rule("mean", kind=Kind.FULL, images=("x",))
def mean(op: Call, x: Array, axis: Any) -> Array:
    return _reduced(op, x, axis, jnp.mean)


@rule("sum", kind=Kind.FULL, images=("x",))
def total(op: Call, x: Array, axis: Any) -> Array:
    wanted = op["dtype"]
    if wanted == "undefined":
        wanted = op.type().dtype
    return _reduced(op, x, axis, jnp.sum, dtype=jnp.dtype(wanted))


@rule("prod", kind=Kind.FULL, images=("x",))
def prod(op: Call, x: Array, axis: Any) -> Array:
    return _reduced(op, x, [] if op.get("reduce_all") else axis, jnp.prod)


def _extreme(reduce: Any, place: Any) -> Any:
    """`reduce` of (x, axes, keepdims) whose gradient is shared by the elements that are equal to the result.

    XLA may compute x once for the reduction and anew for the comparison, rounded otherwise, so that no element is equal:
    the place that a search finds counts in any case.
    """

    @partial(jax.custom_vjp, nondiff_argnums=(1, 2))
    def extreme(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
        return reduce(x, axes, keepdims=keepdims)

    def forward(x: Array, axes: tuple[int, ...], keepdims: bool) -> tuple[Array, tuple[Array, Array]]:
        y = reduce(x, axes, keepdims=True)
        return (y if keepdims else y.squeeze(axes)), (x, y)

    def backward(axes: tuple[int, ...], keepdims: bool, saved: tuple[Array, Array], gradient: Array) -> tuple[Array]:
        x, y = saved
        last = range(x.ndim - len(axes), x.ndim)
        turned = jnp.moveaxis(x, axes, last)
        rows = turned.reshape(*turned.shape[: last.start], -1)
        found = jnp.arange(rows.shape[-1]) == place(rows, -1, keepdims=True)
        chosen = (x == y) | jnp.moveaxis(found.reshape(turned.shape), last, axes)
        share = gradient.reshape(y.shape) / jnp.sum(chosen, axes, gradient.dtype, keepdims=True)
        return (jnp.where(chosen, share, jnp.zeros((), x.dtype)),)

    extreme.defvjp(forward, backward)
    return extreme


_maximum, _minimum = _extreme(jnp.max, jnp.argmax), _extreme(jnp.min, jnp.argmin)


@rule("max", images=("x",))
def maximum(op: Call, x: Array, axis: Any) -> Array:
    return _reduced(op, x, axis, _maximum)


@rule("min", images=("x",))
def minimum(op: Call, x: Array, axis: Any) -> Array:
    return _reduced(op, x, axis, _minimum)


@rule("amax")
def amax(op: Call, x: Array) -> Array:
    return _maximum(x, _axes(op, op["axis"], x.ndim), op["keepdim"])


@rule("amin")
def amin(op: Call, x: Array) -> Array:
    return _minimum(x, _axes(op, op["axis"], x.ndim), op["keepdim"])


@rule("all")
def all_true(op: Call, x: Array) -> Array:
    return jnp.all(x, _axes(op, op["axis"], x.ndim), keepdims=op["keepdim"])


@rule("any")
def any_true(op: Call, x: Array) -> Array:
    return jnp.any(x, _axes(op, op["axis"], x.ndim), keepdims=op["keepdim"])


@rule("mean_all", kind=Kind.FULL)
def mean_all(op: Call, x: Array) -> Array:
    return jnp.mean(x)


@rule("logsumexp", kind=Kind.FULL)
def logsumexp(op: Call, x: Array) -> Array:
    axes = tuple(range(x.ndim)) if op.get("reduce_all") else _axes(op, op["axis"], x.ndim)
    return jax.nn.logsumexp(x, axes, keepdims=op["keepdim"])


@rule("squared_l2_norm", kind=Kind.FULL)
def squared_l2_norm(op: Call, x: Array) -> Array:
    return jnp.sum(jnp.square(x)).reshape(op.type().shape)


@rule("clip_by_norm", kind=Kind.FULL)
def clip_by_norm(op: Call, x: Array) -> Array:
    norm, longest = jnp.sqrt(jnp.sum(jnp.square(x))), op["max_norm"]
    return jnp.where(norm > longest, x * (longest / jnp.maximum(norm, longest)), x)


@rule("frobenius_norm", kind=Kind.FULL)
def frobenius_norm(op: Call, x: Array, axis: Any) -> Array:
    axes = tuple(range(x.ndim)) if op.get("reduce_all") else _axes(op, axis, x.ndim)
    return _root(jnp.sum(jnp.square(x), axes, keepdims=op["keep_dim"]), 2)


@rule("p_norm", kind=Kind.FULL)
def p_norm(op: Call, x: Array) -> Array:
    order, keep = float(op["porder"]), op["keepdim"]
    axes = tuple(range(x.ndim)) if op["asvector"] else (op["axis"] % x.ndim,)
    if order == 0:
        return jnp.sum((x != 0).astype(x.dtype), axes, keepdims=keep)
    size = x * jnp.sign(x)
    if np.isinf(order):
        last = lax.stop_gradient((jnp.max if order > 0 else jnp.min)(size, axes, keepdims=True))
        # Each of several that are equal gets the whole gradient.
        tied = jnp.where((size == last) & jnp.isfinite(size), size - lax.stop_gradient(size), 0)
        y = last + jnp.sum(tied, axes, keepdims=True)
        return y if keep else y.squeeze(axes)
    if order == 1:
        return jnp.sum(size, axes, keepdims=keep)
    return _root(jnp.sum(size**order, axes, keepdims=keep), order)


def _root(x: Array, order: float) -> Array:
    """Its gradient at 0 is 0, not NaN."""
    return jnp.where(x == 0, 0, jnp.where(x == 0, 1, x) ** (1 / order))


@rule("softmax", "softmax_", kind=Kind.FULL)
def softmax(op: Call, x: Array) -> Array:
    return jax.nn.softmax(x, op["axis"])


@rule("log_softmax", kind=Kind.FULL)
def log_softmax(op: Call, x: Array) -> Array:
    return jax.nn.log_softmax(x, op["axis"])


@rule("argmax")
def argmax(op: Call, x: Array, axis: Any) -> Array:
    return _place(op, x, axis, jnp.argmax)


@rule("argmin")
def argmin(op: Call, x: Array, axis: Any) -> Array:
    return _place(op, x, axis, jnp.argmin)


def _place(op: Call, x: Array, axis: Any, function: Any) -> Array:
    if op["flatten"]:
        y = function(x)
        return y.reshape((1,) * x.ndim) if op["keepdims"] else y
    axis = op.integer(axis, "axis") % x.ndim
    if axis == x.ndim - 1 or x.shape[axis] > PLANES:
        return function(x, axis, keepdims=op["keepdims"])
    return _place_of_planes(jnp.moveaxis(x, axis, 0), jnp.greater if function is jnp.argmax else jnp.less, op, axis)


def _place_of_planes(planes: Array, better: Any, op: Call, axis: int) -> Array:
    """The first best of some planes at each place, one comparison after the other: elementwise, so XLA fuses it."""
    best, place = planes[0], jnp.zeros(planes.shape[1:], jnp.int32)
    for number in range(1, len(planes)):
        wins = better(planes[number], best)
        best, place = jnp.where(wins, planes[number], best), jnp.where(wins, number, place)
    return jnp.expand_dims(place, axis) if op["keepdims"] else place


@rule("topk")
def topk(op: Call, x: Array, k: Any) -> tuple[Array, Array]:
    axis, count = op["axis"] % x.ndim, op.integer(k, "k")
    if not op["largest"]:
        index = lax.slice_in_dim(jnp.argsort(lax.stop_gradient(x), axis, stable=True), 0, count, axis=axis)
        return jnp.take_along_axis(x, index, axis), index
    values, index = lax.top_k(jnp.moveaxis(_without_signed_nan(x), axis, -1), count)
    return jnp.moveaxis(values, -1, axis), jnp.moveaxis(index, -1, axis)


@rule("argsort")
def argsort(op: Call, x: Array) -> tuple[Array | None, Array]:
    axis = op["axis"]
    if (count := op.operation.attributes.get(FIRST)) is not None:
        # Here -0 lies below 0.
        last = jnp.moveaxis(_without_signed_nan(jnp.where(x == 0, jnp.zeros_like(x), x)), axis, -1)
        return None, jnp.moveaxis(_first(last, min(count, last.shape[-1]), op.tuning.searched_at_once), -1, axis)
    index = jnp.argsort(lax.stop_gradient(x), axis, stable=True, descending=op["descending"])
    return jnp.take_along_axis(x, index, axis), index


def _without_signed_nan(x: Array) -> Array:
    """For `lax.top_k`, to which a NaN with a sign, such as 0 / 0 on a CPU, is the least and not the largest of all."""
    return jnp.where(jnp.isnan(x), jnp.nan, x) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _first(x: Array, count: int, at_once: int) -> Array:
    """The places of the `count` largest along the last axis, of equal ones the first.

    They lie in the `count` chunks with the largest maxima, so more than `at_once` elements are searched in two steps.
    """
    size = x.shape[-1]
    if size <= max(at_once, 2 * count * CHUNK) or not at_once:
        return lax.top_k(x, count)[1]
    chunks = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, -size % CHUNK)], constant_values=-jnp.inf)
    chunks = chunks.reshape(*x.shape[:-1], -1, CHUNK)
    largest = chunks.max(axis=-1)
    if jnp.issubdtype(x.dtype, jnp.floating):
        # On a CPU XLA's maximum may pass over NaN.
        largest = jnp.where(jnp.isnan(chunks).any(axis=-1), jnp.nan, largest)
    # In their order, so that of equal elements the first comes first.
    best = -lax.top_k(-lax.top_k(largest, count)[1], count)[0]
    found = jnp.take_along_axis(chunks, best[..., None], axis=-2).reshape(*x.shape[:-1], -1)
    place = lax.top_k(found, count)[1]
    return jnp.take_along_axis(best, place // CHUNK, axis=-1) * CHUNK + place % CHUNK


@rule("cumsum", "cumsum_", kind=Kind.FULL)
def cumsum(op: Call, x: Array, axis: Any) -> Array:
    if op["flatten"]:
        x = x.reshape(-1)
    axis = op.integer(axis, "axis") % x.ndim
    if op["exclusive"]:
        # By one place, not the sum less the element: infinities and large numbers would leave nothing of the others.
        shift = (-1, 1, 0) if op["reverse"] else (1, -1, 0)
        x = lax.pad(x, np.zeros((), x.dtype), [shift if place == axis else (0, 0, 0) for place in range(x.ndim)])
    return lax.cumsum(x, axis, reverse=op["reverse"])


@rule("cumprod", kind=Kind.FULL)
def cumprod(op: Call, x: Array) -> Array:
    return jnp.cumprod(x, op["dim"])


@rule("maxout", images=("x",))
def maxout(op: Call, x: Array) -> Array:
    """Maximum over groups of neighbouring channels (Goodfellow et al., arXiv:1302.4389), the first of equal ones."""
    axis, groups = op.axis(op["axis"], x.ndim), op["groups"]
    shape = [*x.shape[:axis], x.shape[axis] // groups, groups, *x.shape[axis + 1 :]]
    best, *others = jnp.unstack(x.reshape(shape), axis=axis + 1)
    for other in others:
        best = jnp.where(other > best, other, best)
    return best
