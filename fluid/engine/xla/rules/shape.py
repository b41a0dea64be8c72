"""Data movement: shapes, joining, cutting, repeating; and tensors made from nothing but a shape."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import ALL, Call, numbers, rule
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array


@rule("shape64", "shape")
def shape(op: Call, x: Array) -> np.ndarray:
    return np.array(x.shape, np.int64)


@rule("numel")
def numel(op: Call, x: Array) -> np.ndarray:
    return np.array(x.size, np.int64)


@rule("reshape", "reshape_", "view_shape")
def reshape(op: Call, x: Array, wanted: Any) -> Array:
    """A length of 0 is copied from x where x has that axis, one of -1 is inferred."""
    lengths = op.integers(wanted, "shape")
    copied = [length == 0 and axis < x.ndim for axis, length in enumerate(lengths)]
    return x.reshape([x.shape[axis] if copied[axis] else length for axis, length in enumerate(lengths)])


@rule("flatten", "flatten_")
def flatten(op: Call, x: Array) -> Array:
    if x.ndim == 0:
        return x.reshape(1)
    first, last = op["start_axis"] % x.ndim, op["stop_axis"] % x.ndim
    middle = int(np.prod(x.shape[first : last + 1]))
    return x.reshape(*x.shape[:first], middle, *x.shape[last + 1 :])


@rule("squeeze", "squeeze_")
def squeeze(op: Call, x: Array, axis: Any) -> Array:
    axes = [item % max(x.ndim, 1) for item in op.integers(axis, "axis")] or range(x.ndim)
    return x.squeeze(tuple(item for item in axes if x.shape[item] == 1))


@rule("unsqueeze", "unsqueeze_")
def unsqueeze(op: Call, x: Array, axis: Any) -> Array:
    for item in op.integers(axis, "axis"):
        x = numbers(x).expand_dims(x, item)
    return x


@rule("transpose", "transpose_")
def transpose(op: Call, x: Array) -> Array:
    return jnp.transpose(x, op["perm"])


@rule("transpose_grad", images=())
def transpose_grad(op: Call, gradient: Array) -> Array:
    """Written out because the operation shares no operand with its forward operation."""
    return jnp.transpose(gradient, np.argsort(op["perm"]).tolist())


@rule("concat", images=("x",))
def concat(op: Call, x: list[Array], axis: Any) -> Array:
    return numbers(*x).concatenate(x, op.axis(op.integer(axis, "axis"), x[0].ndim))


@rule("split", images=("x",))
def split(op: Call, x: Array, sections: Any, axis: Any) -> tuple[list[Array]]:
    axis = op.axis(op.integer(axis, "axis"), x.ndim)
    lengths = op.integers(sections, "sections")
    if -1 in lengths:
        lengths[lengths.index(-1)] = x.shape[axis] - sum(length for length in lengths if length >= 0)
    return (list(jnp.split(x, np.cumsum(lengths)[:-1], axis)),)


@rule("split_with_num", images=("x",))
def split_with_num(op: Call, x: Array, axis: Any) -> tuple[list[Array]]:
    return (list(jnp.split(x, op["num"], op.axis(op.integer(axis, "axis"), x.ndim))),)


@rule("stack")
def stack(op: Call, x: list[Array]) -> Array:
    return numbers(*x).stack(x, op["axis"])


@rule("unstack", "unbind")
def unstack(op: Call, x: Array) -> tuple[list[Array]]:
    axis = op["axis"]
    return ([jnp.squeeze(part, axis) for part in jnp.split(x, x.shape[axis], axis)],)


@rule("unstack_grad", "unbind_grad")
def unstack_grad(op: Call, gradients: list[Array]) -> Array:
    return jnp.stack(gradients, op["axis"])


@rule("slice")
def slice_axes(op: Call, x: Array, starts: Any, ends: Any) -> Array:
    """`x[start:end]` along some axes; `decrease_axis` then drops axes of length 1, as indexing by an int does."""
    axes, dropped = op["axes"], [axis % x.ndim for axis in op["decrease_axis"]]
    starts, ends = (list(item) if isinstance(item, list) else item.reshape(-1) for item in (starts, ends))
    for position, axis in enumerate(axes):
        start, end = starts[position], ends[position]
        if isinstance(start, jax.core.Tracer):
            # An index that changes from one iteration of a loop to the next; the extent must be known.
            declared = op.type().shape
            if axis not in dropped and (declared[axis] < 0 or dropped):
                op.static(start, "range")
            length = 1 if axis in dropped else declared[axis]
            start = start.reshape(())
            x = lax.dynamic_slice_in_dim(x, jnp.where(start < 0, start + x.shape[axis], start), length, axis)
        else:
            index = [slice(None)] * x.ndim
            index[axis] = slice(*(int(np.asarray(item).reshape(())) for item in (start, op.static(end, "range"))))
            if axis in dropped and index[axis].start == -1:
                index[axis] = slice(-1, None)
            x = x[tuple(index)]
    return x.squeeze(tuple(dropped))


@rule("strided_slice")
def strided_slice(op: Call, x: Array, starts: Any, ends: Any, strides: Any) -> Array:
    index: list[Any] = [slice(None)] * x.ndim
    ranges = zip(*(op.integers(item, "range") for item in (starts, ends, strides)), strict=True)
    for axis, (start, end, stride) in zip(op["axes"], ranges, strict=True):
        index[axis] = slice(start, end, stride)
    return x[tuple(index)]


@rule("crop")
def crop(op: Call, x: Array, wanted: Any, offsets: Any) -> Array:
    starts = op.integers(offsets, "offsets")
    lengths = [n - s if w == -1 else w for n, s, w in zip(x.shape, starts, op.integers(wanted, "shape"), strict=True)]
    return lax.slice(x, starts, [s + n for s, n in zip(starts, lengths, strict=True)])


@rule("expand")
def expand(op: Call, x: Array, wanted: Any) -> Array:
    return _broadcast(x, op.integers(wanted, "shape"))


@rule("expand_as")
def expand_as(op: Call, x: Array, y: Array | None) -> Array:
    return _broadcast(x, op["target_shape"] if y is None else y.shape)


@rule("broadcast_tensors")
def broadcast_tensors(op: Call, inputs: list[Array]) -> tuple[list[Array]]:
    return (list(jnp.broadcast_arrays(*inputs)),)


def _broadcast(x: Array, wanted: Any) -> Array:
    old = (1,) * (len(wanted) - x.ndim) + x.shape
    return numbers(x).broadcast_to(x, [have if want == -1 else want for have, want in zip(old, wanted, strict=True)])


@rule("tile")
def tile(op: Call, x: Array, repeats: Any) -> Array:
    return jnp.tile(x, op.integers(repeats, "repeats"))


@rule("repeat_interleave")
def repeat_interleave(op: Call, x: Array) -> Array:
    return jnp.repeat(x, op["repeats"], op["axis"])


@rule("flip")
def flip(op: Call, x: Array) -> Array:
    return jnp.flip(x, op["axis"])


@rule("roll")
def roll(op: Call, x: Array, shifts: Any) -> Array:
    return jnp.roll(x, op.integers(shifts, "shifts"), op["axis"] or None)


@rule("pad")
def pad(op: Call, x: Array, value: Any) -> Array:
    widths = op["paddings"]
    value = jnp.asarray(value).reshape(()).astype(x.dtype)
    return jnp.pad(x, list(zip(widths[::2], widths[1::2], strict=True)), constant_values=value)


@rule("pad3d")
def pad3d(op: Call, x: Array, paddings: Any) -> Array:
    """`paddings` is [left, right, top, bottom, front, back]: the last axis first."""
    widths = op.integers(paddings, "paddings")
    space = [(0, 0)] * 3
    for axis in range(len(widths) // 2):
        space[2 - axis] = (widths[2 * axis], widths[2 * axis + 1])
    around = [(0, 0), *space, (0, 0)] if op["data_format"] == "NDHWC" else [(0, 0), (0, 0), *space]
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[op["mode"]]
    options = {"constant_values": op["pad_value"]} if mode == "constant" else {}
    return jnp.pad(x, around, mode, **options)


@rule("tril", "tril_")
def tril(op: Call, x: Array) -> Array:
    return jnp.tril(x, op["diagonal"])


@rule("triu", "triu_")
def triu(op: Call, x: Array) -> Array:
    return jnp.triu(x, op["diagonal"])


@rule("tril_grad")
def tril_grad(op: Call, gradient: Array) -> Array:
    """Written out, as are the next ones, because the operation shares no operand with its forward operation."""
    return jnp.tril(gradient, op["diagonal"])


@rule("triu_grad")
def triu_grad(op: Call, gradient: Array) -> Array:
    return jnp.triu(gradient, op["diagonal"])


@rule("floor_grad", "ceil_grad", "round_grad", "sign_grad", "trunc_grad", images=ALL)
def flat_grad(op: Call, gradient: Array) -> Array:
    return jnp.zeros_like(gradient)


@rule("label_smooth_grad")
def label_smooth_grad(op: Call, gradient: Array) -> Array:
    return gradient * (1 - op["epsilon"])


@rule("diag")
def diag(op: Call, x: Array) -> Array:
    if x.ndim == 2:
        return jnp.diagonal(x, op["offset"])
    y = jnp.diag(x, op["offset"])
    return jnp.where(jnp.eye(len(y), k=op["offset"], dtype=bool), y, np.asarray(op["padding_value"]).astype(x.dtype))


@rule("diagonal")
def diagonal(op: Call, x: Array) -> Array:
    return jnp.diagonal(x, op["offset"], op["axis1"], op["axis2"])


@rule("trace", kind=Kind.FULL)
def trace(op: Call, x: Array) -> Array:
    return jnp.trace(x, op["offset"], op["axis1"], op["axis2"])


@rule("meshgrid")
def meshgrid(op: Call, inputs: list[Array]) -> tuple[list[Array]]:
    return (list(jnp.meshgrid(*inputs, indexing="ij")),)


def _on_channels_first(op: Call, function: Callable[[Array], Array], x: Array) -> Array:
    """A function of [N, C, H, W], applied to and returned in the layout of the operation."""
    return jnp.moveaxis(function(jnp.moveaxis(x, -1, 1)), 1, -1) if op.channels_last else function(x)


def _shuffled(groups: int, x: Array) -> Array:
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h, w).swapaxes(1, 2).reshape(x.shape)


@rule("channel_shuffle")
def channel_shuffle(op: Call, x: Array) -> Array:
    """Zhang et al., arXiv:1707.01083."""
    return _on_channels_first(op, partial(_shuffled, op["groups"]), x)


@rule("channel_shuffle_grad")
def channel_shuffle_grad(op: Call, gradient: Array) -> Array:
    channels = gradient.shape[-1 if op.channels_last else 1]
    return _on_channels_first(op, partial(_shuffled, channels // op["groups"]), gradient)


@rule("pixel_shuffle")
def pixel_shuffle(op: Call, x: Array) -> Array:
    """[N, C r^2, H, W] -> [N, C, r H, r W] (Shi et al., arXiv:1609.05158)."""
    r = op["upscale_factor"]

    def enlarged(x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, c // r**2, r, r, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)

    return _on_channels_first(op, enlarged, x)


@rule("pixel_shuffle_grad")
def pixel_shuffle_grad(op: Call, gradient: Array) -> Array:
    r = op["upscale_factor"]

    def gathered(x: Array) -> Array:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // r, r, w // r, r).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r**2, h // r, w // r)

    return _on_channels_first(op, gathered, gradient)


@rule("unfold")
def unfold(op: Call, x: Array) -> Array:
    """im2col: [N, C, H, W] -> [N, C kh kw, positions]."""
    before = op["paddings"][:2]
    after = op["paddings"][2:] or before
    patches = lax.conv_general_dilated_patches(
        x,
        op["kernel_sizes"],
        op["strides"],
        list(zip(before, after, strict=True)),
        rhs_dilation=op["dilations"],
        precision=lax.Precision.HIGHEST,
    )
    return patches.reshape(*patches.shape[:2], -1)


@rule("full_like", kind=Kind.OWN, images=("x",))
def full_like(op: Call, x: Array, value: Any) -> Array:
    """In bfloat16 where x is: it mostly starts a gradient of x."""
    dtype = x.dtype if x.dtype == jnp.bfloat16 else jnp.dtype(op.type().dtype)
    return numbers(x, value).broadcast_to(value.reshape(()).astype(dtype), x.shape)


@rule("full_with_tensor", kind=Kind.OWN)
def full_with_tensor(op: Call, value: Any, wanted: Any) -> Array:
    dtype = jnp.dtype(op.type().dtype)
    return numbers(value).broadcast_to(value.reshape(()).astype(dtype), op.integers(wanted, "shape"))


@rule("full_batch_size_like", kind=Kind.OWN)
def full_batch_size_like(op: Call, x: Array) -> Array:
    lengths = list(op["shape"])
    lengths[op["output_dim_idx"]] = x.shape[op["input_dim_idx"]]
    return jnp.full(lengths, float(op["value"]), jnp.dtype(op["dtype"]))


@rule("assign_value", "assign_value_", kind=Kind.OWN)
def assign_value(op: Call, output: Any = None) -> np.ndarray:
    return np.array(op["values"]).astype(jnp.dtype(op["dtype"])).reshape(op["shape"])


@rule("arange")
def arange(op: Call, start: Any, end: Any, step: Any) -> np.ndarray:
    first, last, stride = (op.static(item, "range").reshape(()) for item in (start, end, step))
    return np.arange(first, last, stride).astype(jnp.dtype(op["dtype"]))


@rule("linspace")
def linspace(op: Call, start: Any, stop: Any, count: Any) -> np.ndarray:
    ends = (op.number(start, "range"), op.number(stop, "range"))
    return np.linspace(*ends, op.integer(count, "length")).astype(jnp.dtype(op["dtype"]))


@rule("eye")
def eye(op: Call, rows: Any, columns: Any) -> Array:
    height, width = op.integer(rows, "shape"), op.integer(columns, "shape")
    return jnp.eye(height, width if width > 0 else height, dtype=jnp.dtype(op["dtype"]))


@rule("sequence_mask")
def sequence_mask(op: Call, lengths: Array, longest: Any) -> Array:
    count = op.integer(longest, "length")
    if count < 1:
        raise EngineError(f"{op.operation}: how long the result is depends on data; give it a maxlen")
    return (jnp.arange(count) < lengths[..., None]).astype(jnp.dtype(op["out_dtype"]))
