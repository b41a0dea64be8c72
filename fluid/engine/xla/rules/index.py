"""Reading and writing by index."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


@rule("gather")
def gather(op: Call, x: Array, index: Array, axis: Any) -> Array:
    """Places along an axis; an index [N, 1] is one of [N]."""
    return _taken(x, index.reshape(-1) if index.ndim == 2 else index, op.integer(axis, "axis"))


@rule("index_select")
def index_select(op: Call, x: Array, index: Array) -> Array:
    return _taken(x, index, op["axis"])


def _taken(x: Array, index: Array, axis: int) -> Array:
    """Negative places count from the end; those outside are the nearest inside."""
    return jnp.take(x, jnp.where(index < 0, index + x.shape[axis], index), axis, mode="clip")


@rule("gather_nd")
def gather_nd(op: Call, x: Array, index: Array) -> Array:
    return jnp.asarray(x)[tuple(jnp.moveaxis(index, -1, 0))]


@rule("take_along_axis")
def take_along_axis(op: Call, x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index, op["axis"])


@rule("index_sample")
def index_sample(op: Call, x: Array, index: Array) -> Array:
    return jnp.take_along_axis(x, index, 1)


@rule("put_along_axis", "put_along_axis_")
def put_along_axis(op: Call, x: Array, index: Array, values: Array) -> Array:
    axis = op["axis"] % x.ndim
    grid = list(jnp.meshgrid(*(jnp.arange(n) for n in index.shape), indexing="ij", sparse=True))
    grid[axis] = index
    target = jnp.asarray(x).at[tuple(grid)]
    values = jnp.broadcast_to(values, index.shape).astype(x.dtype)
    if op["reduce"] == "assign":
        return target.set(values)
    if op["include_self"] and op["reduce"] == "add":
        return target.add(values)
    raise EngineError(
        f"{op.operation}: reduce={op['reduce']!r} with include_self={op['include_self']} has no rule; "
        "use assign, or add with include_self"
    )


@rule("embedding")
def embedding(op: Call, index: Array, weight: Array) -> Array:
    """Rows of `weight`; the row `padding_idx` (if any) reads as zeros and is not trained."""
    rows = jnp.take(weight, index, 0, mode="clip")
    padding = op["padding_idx"]
    if padding == -1:
        return rows
    return jnp.where((index == padding)[..., None], jnp.zeros((), rows.dtype), rows)


@rule("scatter", "scatter_")
def scatter(op: Call, x: Array, index: Array, updates: Array) -> Array:
    """Rows of x replaced by `updates`, or (`overwrite` off) by the sum of the updates that name them."""
    x, index = jnp.asarray(x), index.reshape(-1)
    if op["overwrite"]:
        return x.at[index].set(updates.astype(x.dtype))
    return x.at[index].set(jnp.zeros((), x.dtype)).at[index].add(updates.astype(x.dtype))


@rule("set_value_with_tensor", "set_value_with_tensor_")
def set_value_with_tensor(op: Call, x: Array, value: Array, starts: Any, ends: Any, steps: Any) -> Array:
    """A window of x replaced by `value`, which has its shape: where it begins may depend on data, what it spans not."""
    axes = op["axes"]
    first, last = (
        jnp.concatenate([jnp.asarray(item).reshape(-1) for item in (bound if isinstance(bound, list) else [bound])])
        for bound in (starts, ends)
    )
    spans = [value.shape[axis] for axis in axes] if value.ndim == x.ndim else None
    known = not isinstance(first - last, jax.core.Tracer)
    if (
        spans is None
        or op["decrease_axes"]
        or op["none_axes"]
        or set(op.integers(steps, "step")) - {1}
        or (known and (last - first).tolist() != spans)
    ):
        raise EngineError(f"{op.operation}: what is written must have the shape of a window without gaps")
    shape = [value.shape[axis] if axis in axes else length for axis, length in enumerate(x.shape)]
    begin = dict(zip(axes, first, strict=True))
    window = jnp.broadcast_to(value.astype(x.dtype), shape)
    return lax.dynamic_update_slice(x, window, [begin.get(axis, 0) for axis in range(x.ndim)])


@rule("scatter_nd_add")
def scatter_nd_add(op: Call, x: Array, index: Array, updates: Array) -> Array:
    return jnp.asarray(x).at[tuple(jnp.moveaxis(index, -1, 0))].add(updates.astype(x.dtype))


@rule("index_put", "index_put_")
def index_put(op: Call, x: Array, indices: list[Array], value: Array) -> Array:
    """At places, or one value wherever a mask says so. Raises EngineError for more values, whose number depends on data."""
    if any(index.dtype == jnp.bool_ for index in indices):
        if len(indices) > 1 or value.size > 1:
            raise EngineError(f"{op.operation}: how many places a mask has depends on data; write by paddle.where")
        mask = indices[0].reshape(indices[0].shape + (1,) * (x.ndim - indices[0].ndim))
        value = value.reshape(()).astype(x.dtype)
        return jnp.where(mask, x + value if op["accumulate"] else value, x)
    place = jnp.asarray(x).at[tuple(indices)]
    value = value.astype(x.dtype)
    return place.add(value) if op["accumulate"] else place.set(value)


@rule("index_add", "index_add_")
def index_add(op: Call, x: Array, index: Array, value: Array) -> Array:
    return jnp.asarray(x).at[(*[slice(None)] * (op["axis"] % x.ndim), index)].add(value.astype(x.dtype))


@rule("one_hot")
def one_hot(op: Call, index: Array, classes: Any) -> Array:
    return jax.nn.one_hot(index, op.integer(classes, "number of classes"), dtype=jnp.dtype(op.type().dtype))


@rule("bincount")
def bincount(op: Call, x: Array, weights: Array | None, minimum: Any) -> Array:
    """The length must be known while compiling, so values of `minlength` and above are not counted. Raises EngineError without it."""
    length = op.integer(minimum, "minlength")
    if length < 1:
        raise EngineError(f"{op.operation}: how long the result is depends on data; give it a minlength")
    ones = jnp.ones(x.shape, jnp.dtype(op.type().dtype)) if weights is None else weights
    return jnp.zeros(length, ones.dtype).at[x].add(ones, mode="drop")


@rule("accuracy", kind=Kind.FULL)
def accuracy(op: Call, scores: Array, index: Array, label: Array) -> tuple[Array, Array, Array]:
    """(accuracy, number correct, number of samples): a sample counts if one of its k candidates is the label."""
    hits = jnp.sum(jnp.any(index == label.reshape(-1, 1), 1))
    count = index.shape[0]
    types = [jnp.dtype(op.type(position).dtype) for position in range(3)]
    return hits.astype(types[0]) / count, hits.astype(types[1]), jnp.array(count, types[2])


@rule("grid_sample", kind=Kind.FULL)
def grid_sample(op: Call, x: Array, grid: Array) -> Array:
    """Sample [N, C, H, W] at `grid` [N, h, w, 2] of (x, y) in -1..1 (Jaderberg et al., arXiv:1506.02025)."""
    if x.ndim > 4:
        raise EngineError(
            f"{op.operation}: the xla engine samples images alone, no volumes; run it with --engine paddle"
        )
    height, width = x.shape[2:]
    column, row = (_unnormalised(op, grid[..., axis], n) for axis, n in ((0, width), (1, height)))
    if op["mode"] == "nearest":
        return _pixel(op, x, jnp.round(row), jnp.round(column))
    top, left = jnp.floor(row), jnp.floor(column)
    down, right = (row - top)[:, None], (column - left)[:, None]
    return (
        _pixel(op, x, top, left) * (1 - down) * (1 - right)
        + _pixel(op, x, top, left + 1) * (1 - down) * right
        + _pixel(op, x, top + 1, left) * down * (1 - right)
        + _pixel(op, x, top + 1, left + 1) * down * right
    )


def _unnormalised(op: Call, place: Array, length: int) -> Array:
    if op["align_corners"]:
        place, low, high = (place + 1) / 2 * (length - 1), 0.0, length - 1.0
    else:
        place, low, high = ((place + 1) * length - 1) / 2, -0.5, length - 0.5
    if op["padding_mode"] == "border":
        return jnp.clip(place, 0, length - 1)
    if op["padding_mode"] == "reflection":
        span = high - low
        folded = jnp.abs(jnp.mod(place - low + span, 2 * span) - span) if span else jnp.zeros_like(place)
        return jnp.clip(low + folded, 0, length - 1)
    return place


def _pixel(op: Call, x: Array, row: Array, column: Array) -> Array:
    """x at whole places [N, h, w], zero outside."""
    height, width = x.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    rows = lax.stop_gradient(jnp.clip(row, 0, height - 1)).astype(jnp.int32)
    columns = lax.stop_gradient(jnp.clip(column, 0, width - 1)).astype(jnp.int32)
    picked = jax.vmap(lambda image, r, c: image[:, r, c])(x, rows, columns)
    return picked * inside[:, None].astype(x.dtype)
