"""Convolutions and resampling of images."""

import math
from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Padding = list[tuple[int, int]]

GROUP_WIDTH = 64
"""Channels a group should have: matrix units are as fast with 64 as with the 4 of ResNeXt, and CPUs several times faster."""


def spatial_padding(op: Call, size: list[int], window: list[int], strides: list[int]) -> Padding:
    """Padding of each spatial axis as (before, after), from `paddings` and `padding_algorithm`."""
    if op.get("padding_algorithm") == "SAME":
        total = [max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(size, window, strides, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    if op.get("padding_algorithm") == "VALID":
        return [(0, 0)] * len(size)
    given = op["paddings"]
    if len(given) == len(size):
        return [(p, p) for p in given]
    return [(given[2 * axis], given[2 * axis + 1]) for axis in range(len(size))]


def dilations_of(op: Call) -> list[int]:
    """Of each spatial axis; Paddle takes none where it pads by SAME."""
    return [1] * len(op["dilations"]) if op.get("padding_algorithm") == "SAME" else op["dilations"]


def spatial_size(op: Call, image: jax.Array) -> list[int]:
    """[H, W] (or [D, H, W]) of an image in either layout."""
    return list(image.shape[1:-1] if op.channels_last else image.shape[2:])


def _convolve(op: Call, image: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
    """`lax.conv_general_dilated` of an image in the operation's layout with a kernel [C_out, C / groups, kh, kw]."""
    space = "DHW"[5 - image.ndim :]
    image_axes, kernel_axes = (f"N{space}C" if op.channels_last else f"NC{space}"), f"OI{space}"
    if op.channels_last and image.ndim == 4:
        kernel_axes = op.tuning.kernel_axes
        kernel = kernel.transpose(["OIHW".index(axis) for axis in kernel_axes])
    return lax.conv_general_dilated(image, kernel, **options, dimension_numbers=(image_axes, kernel_axes, image_axes))


@rule("conv2d", "depthwise_conv2d", kind=Kind.PRODUCT, images=("input",), prefers_channels_last=True)
@rule("conv3d", kind=Kind.PRODUCT)
def conv(op: Call, image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Image [N, C, H, W] (or channels-last), kernel [C_out, C / groups, kh, kw]."""
    strides, dilations, groups = op["strides"], dilations_of(op), op["groups"]
    window = [d * (k - 1) + 1 for d, k in zip(dilations, kernel.shape[2:], strict=True)]
    padding = spatial_padding(op, spatial_size(op, image), window, strides)
    if op.channels_last and image.ndim == 4:
        channels, tuning = image.shape[-1], op.tuning
        depthwise = groups == channels == kernel.shape[0]
        if _multiplications(image, kernel, window, strides, padding) < tuning.small_convolution:
            if depthwise and not op.differentiated:
                return _shifted_depthwise(image, kernel, strides, padding, dilations)
            # Not every second pixel by a 1 x 1 kernel: where XLA fuses that into a product, its compiler may abort on GPUs.
            pixels_skipped = max(window) < max(strides)
            if not depthwise and not pixels_skipped and strides[0] == strides[1] and max(dilations) == 1:
                return _on_patches(image, *_merged_groups(groups, kernel), padding, strides[0])
        if groups == 1 and channels <= 4 and list(strides) == [2, 2] and max(dilations) == 1:
            image, kernel = _on_blocks(image, kernel, padding, 2)
            return _convolve(op, image, kernel, window_strides=(1, 1), padding="VALID")
        if groups == 1 and channels <= 4 and max(*strides, *dilations) == 1 and image.dtype == jnp.bfloat16:
            at_once = _columns_at_once(image, kernel, padding, tuning.wide_convolution)
            if at_once > 1:
                return _on_columns(op, image, kernel, padding, at_once)
        if groups == 1 and tuning.pointwise_as_matmul and max(*window, *strides) == 1 and not np.any(padding):
            return jnp.einsum("nhwc,oc->nhwo", image, kernel[:, :, 0, 0])
        if depthwise and tuning.shifted_depthwise:
            return _shifted_depthwise(image, kernel, strides, padding, dilations)
        if 1 < groups < channels:
            groups, kernel = _merged_groups(groups, kernel)
    return _convolve(
        op,
        image,
        kernel,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilations,
        feature_group_count=groups,
    )


def _multiplications(image: jax.Array, kernel: jax.Array, window: list[int], strides: Any, padding: Padding) -> int:
    """Of a whole batch [N, H, W, C]."""
    sizes = zip(image.shape[1:3], window, strides, padding, strict=True)
    return math.prod(
        ((n + sum(p) - w) // s + 1 for n, w, s, p in sizes), start=image.shape[0] * math.prod(kernel.shape)
    )


def _shifted_depthwise(
    image: jax.Array, kernel: jax.Array, strides: Any, padding: Padding, dilations: Any
) -> jax.Array:
    """Kernel element (i, j) times the pixels that it meets, summed over i and j."""
    wide = jnp.promote_types(image.dtype, jnp.float32)
    padded, (sh, sw), (dh, dw) = jnp.pad(image, [(0, 0), *padding, (0, 0)]), strides, dilations
    size = kernel.shape[2:]
    height, width = (
        (n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(padded.shape[1:3], size, strides, dilations, strict=True)
    )
    total, weights = jnp.zeros((), wide), kernel[:, 0].transpose(1, 2, 0).astype(wide)
    for i, j in np.ndindex(*size):
        rows = slice(i * dh, i * dh + (height - 1) * sh + 1, sh)
        columns = slice(j * dw, j * dw + (width - 1) * sw + 1, sw)
        total = total + padded[:, rows, columns].astype(wide) * weights[i, j]
    return total.astype(image.dtype)


def _merged_groups(groups: int, kernel: jax.Array) -> tuple[int, jax.Array]:
    """The same convolution in groups of at least `GROUP_WIDTH` channels: the kernel gets zeros off a block diagonal."""
    c_out, own = kernel.shape[:2]
    merge = 1
    while own * merge < GROUP_WIDTH and groups % (2 * merge) == 0:
        merge *= 2
    left = groups // merge
    blocks = kernel.reshape(left, merge, c_out // groups, 1, own, *kernel.shape[2:])
    diagonal = jnp.eye(merge, dtype=kernel.dtype).reshape(1, merge, 1, merge, 1, 1, 1)
    return left, (blocks * diagonal).reshape(c_out, merge * own, *kernel.shape[2:])


def _on_blocks(
    image: jax.Array, kernel: jax.Array, padding: Padding, stride: int, groups: int = 1
) -> tuple[jax.Array, jax.Array]:
    """Image and kernel of the same convolution with stride 1 and no padding, on [N, H / s, W / s, s * s * C].

    The channels of a group stay together.
    """
    sizes = []
    for axis, (before, after) in enumerate(padding):
        size, window = image.shape[1 + axis] + before + after, kernel.shape[2 + axis]
        steps = (size - window) // stride + 1
        covered = -(-window // stride)
        # Rows that no window reaches are cut off, windows and images filled up with zeros to whole blocks.
        end = stride * (steps + covered - 1) - before - image.shape[1 + axis]
        sizes.append((before, end, stride * covered - window))
    (top, bottom, more_rows), (left, right, more_columns) = sizes
    zero = np.zeros((), image.dtype)
    image = lax.pad(image, zero, [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, more_rows), (0, more_columns)))
    (n, h, w, _), (o, c, kh, kw), s = image.shape, kernel.shape, stride
    blocks = image.reshape(n, h // s, s, w // s, s, groups, c).transpose(0, 1, 3, 5, 2, 4, 6)
    weights = kernel.reshape(o, c, kh // s, s, kw // s, s).transpose(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, h // s, w // s, -1), weights.reshape(o, s * s * c, kh // s, kw // s)


def _columns_at_once(image: jax.Array, kernel: jax.Array, padding: Padding, channels: int) -> int:
    """How many columns of a result [N, h, w, C_out] make at most so many channels together and divide w; a power of two."""
    width = image.shape[2] + sum(padding[1]) - kernel.shape[3] + 1
    count = 1
    while 2 * count * len(kernel) <= channels and width % (2 * count) == 0:
        count *= 2
    return count


def _on_columns(op: Call, image: jax.Array, kernel: jax.Array, padding: Padding, count: int) -> jax.Array:
    """A convolution of stride 1 on [N, H, W / count, count * C], that makes as many columns of the result at once.

    In memory that is the same image. The kernel [count * C_out, count * C, kh, blocks] is zero where a column of the result
    does not see one of the image.
    """
    (o, c, kh, kw), (n, h, _, _) = kernel.shape, image.shape
    width = image.shape[2] + sum(padding[1]) - kw + 1
    covered = 1 + -(-(kw - 1) // count)
    right = width + (covered - 1) * count - image.shape[2] - padding[1][0]
    columns = jnp.pad(image, ((0, 0), (0, 0), (padding[1][0], right), (0, 0)))
    shifted = [jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (at, covered * count - kw - at))) for at in range(count)]
    weights = jnp.stack(shifted).reshape(count, o, c, kh, covered, count).transpose(0, 1, 5, 2, 3, 4)
    result = _convolve(
        op,
        columns.reshape(n, h, -1, count * c),
        weights.reshape(count * o, count * c, kh, covered),
        window_strides=(1, 1),
        padding=[padding[0], (0, 0)],
    )
    return result.reshape(n, -1, width, o)


def _on_patches(image: jax.Array, groups: int, kernel: jax.Array, padding: Padding, stride: int) -> jax.Array:
    """A matrix product for each group: the pixels of every window by the kernel."""
    if stride > 1 and max(kernel.shape[2:]) > 1:
        image, kernel = _on_blocks(image, kernel, padding, stride, groups)
    else:
        image = jnp.pad(image, [(0, 0), *padding, (0, 0)])[:, ::stride, ::stride]
    height, width = (n - k + 1 for n, k in zip(image.shape[1:3], kernel.shape[2:], strict=True))
    image = image.reshape(*image.shape[:3], groups, -1)
    windows = [image[:, i : i + height, j : j + width] for i, j in np.ndindex(*kernel.shape[2:])]
    weights = kernel.transpose(0, 2, 3, 1).reshape(groups, len(kernel) // groups, -1)
    result = jnp.einsum("nhwgk,gok->nhwgo", jnp.concatenate(windows, -1), weights)
    return result.reshape(*result.shape[:3], -1)


@rule("conv2d_transpose", "depthwise_conv2d_transpose", kind=Kind.PRODUCT, images=("x",), prefers_channels_last=True)
def conv_transpose(op: Call, image: jax.Array, kernel: jax.Array, output_size: Any = None) -> jax.Array:
    """The gradient of a convolution by its input: the image dilated by the strides, convolved with the turned kernel.

    `kernel` is [C_in, C_out / groups, kh, kw].
    """
    strides, dilations, groups = op["strides"], dilations_of(op), op["groups"]
    window = [d * (k - 1) + 1 for d, k in zip(dilations, kernel.shape[2:], strict=True)]
    size = spatial_size(op, image)
    padding = spatial_padding(op, size, window, strides)
    extra = list(op["output_padding"]) or [0] * len(size)
    wanted = [] if output_size is None else op.integers(output_size, "output size")
    if wanted:
        smallest = [(n - 1) * s - sum(p) + w for n, s, p, w in zip(size, strides, padding, window, strict=True)]
        extra = [have - least for have, least in zip(wanted, smallest, strict=True)]
    c_in, c_out = kernel.shape[0], kernel.shape[1]
    grouped = kernel.reshape(groups, c_in // groups, c_out, *kernel.shape[2:])
    turned = jnp.swapaxes(grouped, 1, 2).reshape(groups * c_out, c_in // groups, *kernel.shape[2:])
    return _convolve(
        op,
        image,
        jnp.flip(turned, (2, 3)),
        window_strides=[1] * len(size),
        padding=[(w - 1 - p[0], w - 1 - p[1] + e) for w, p, e in zip(window, padding, extra, strict=True)],
        lhs_dilation=strides,
        rhs_dilation=dilations,
        feature_group_count=groups,
    )


@rule("bilinear_interp", "nearest_interp", kind=Kind.OWN, images=("x",), prefers_channels_last=True)
def interpolate(
    op: Call, x: jax.Array, out_size: Any = None, size_tensor: Any = None, scale_tensor: Any = None
) -> jax.Array:
    """Resize one axis after the other: each is a weighted sum of two rows (bilinear) or a choice of one (nearest)."""
    first = 1 if op.channels_last else 2
    size = _resized(op, x.shape[first : first + 2], out_size, size_tensor, scale_tensor)
    scales = [float(value) for value in op["scale"]]
    if tuple(size) == x.shape[first : first + 2]:
        return x
    for offset, length in enumerate(size):
        scale = scales[offset % len(scales)] if scales and out_size is None and size_tensor is None else 0.0
        x = _resize_axis(op, x, first + offset, length, scale)
    return x


def _resized(op: Call, size: tuple[int, ...], out_size: Any, size_tensor: Any, scale_tensor: Any) -> list[int]:
    if size_tensor is not None:
        return op.integers(size_tensor, "size")
    if out_size is not None:
        return op.integers(out_size, "size")
    if scale_tensor is not None:
        scales = list(op.static(scale_tensor, "scale").reshape(-1))
        return [int(n * scales[axis % len(scales)]) for axis, n in enumerate(size)]
    if op["scale"]:
        return [int(n * op["scale"][axis % len(op["scale"])]) for axis, n in enumerate(size)]
    return [op["out_h"], op["out_w"]]


def _resize_axis(op: Call, x: jax.Array, axis: int, length: int, scale: float) -> jax.Array:
    old = x.shape[axis]
    place = np.arange(length, dtype=np.float64)
    if length == 1:
        ratio = 0.0
    elif op["align_corners"]:
        ratio = (old - 1) / (length - 1)
    else:
        ratio = 1.0 / scale if scale > 0 else old / length
    if length == old and (old == 1 or ratio == 1):
        return x
    if op["interp_method"] == "nearest":
        source = place * ratio + (0.5 if op["align_corners"] else 0.0)
        return jnp.take(x, np.minimum(np.floor(source), old - 1).astype(np.int32), axis)
    half_pixel = op["align_mode"] == 0 and not op["align_corners"]
    source = np.clip((place + 0.5) * ratio - 0.5 if half_pixel else place * ratio, 0, old - 1)
    lower = np.floor(source).astype(np.int32)
    upper = np.minimum(lower + 1, old - 1)
    shape = [1] * x.ndim
    shape[axis] = length
    computed = jnp.promote_types(x.dtype, jnp.float32)
    weight = (source - lower).reshape(shape).astype(computed)
    wide = x.astype(computed)
    return (jnp.take(wide, lower, axis) * (1 - weight) + jnp.take(wide, upper, axis) * weight).astype(x.dtype)
