"""Both gradients of a 1 x 1 convolution between normalisations, with what comes before and after in the backward pass.

Such a convolution is a product y of pixels x [M, K] and a weight W [K, C], M = batch x height x width, and on a GPU its time is that
of reading and writing the pixels. In a residual network batch normalisation follows (Ioffe and Szegedy, arXiv:1502.03167), whose
gradient is dy = a dz + b y + c by channel: XLA makes dy of dz and y, writes it and reads it for both gradients of the convolution.
That by the pixels, which were relu(..) of an earlier normalisation of v, perhaps with a shortcut added, goes on as

    dx = [x > 0] (dy W^T + gradient by the shortcut)        sums over M of dx and of dx v

where XLA writes the product, reads it, and reads dx and v again for the sums. Here `gradient` makes dy as it reads dz and y, and
gives dx with its sums, and `by_weight` makes dy likewise and sums x^T dy, each in one pass. They multiply bfloat16 and add in
float32; sums are of the rounded numbers, as those of the rules are.

ResNet-50 trained at 6,577 images/s instead of 6,319 with them (batches of 256, bfloat16, one H100; 38.9 and 40.5 ms a step). Products
that sum their result's squares as well, or normalise and clip what they read, brought 0.1 % more and are not here.
"""

import math
from functools import partial
from typing import Any, NamedTuple

from fluid.engine.xla.devices import BATCH
from fluid.engine.xla.kernels import SAMPLES, WHOLE, Kernels

import jax
import jax.numpy as jnp
from jax import lax

SMALLEST = 1 << 17
"""Pixels of a device from which on it is worth it: with fewer, and more channels, products take longer than memory."""
UNEQUAL = 4
"""The channels on one side are so many times those on the other, as in a bottleneck: others were not found faster."""
ROWS, COLUMNS, DEPTH = 128, 64, 64
"""Of the blocks of a product."""
WIDTHS = (128, 64)
"""Of the blocks of a gradient by the weight: the first that divides its columns."""
PROGRAMS = 264
"""Over which the pixels are spread where they are summed: two for each multiprocessor of an H100."""
OPTIONS = {"warps": 4, "stages": 3}


class Summed(NamedTuple):
    """Pixels and sums over all of them, of each channel, float32."""

    pixels: jax.Array
    """[N, H, W, C]."""
    total: jax.Array
    """[C]."""
    product: jax.Array
    """[C]: of the products with another array."""


class Unmade(NamedTuple):
    """The gradient of what was normalised, still to be made: factor dz + slope y + shift."""

    by_normalised: jax.Array
    """dz, [N, H, W, C]."""
    value: jax.Array
    """y, what was normalised, of the same shape."""
    factor: jax.Array
    slope: jax.Array
    shift: jax.Array
    """[C] each, float32."""

    def made(self) -> jax.Array:
        """[N, H, W, C]."""
        return _made(*self).astype(self.value.dtype)


def _made(by_normalised: Any, value: Any, factor: Any, slope: Any, shift: Any) -> jax.Array:
    return by_normalised.astype(jnp.float32) * factor + value.astype(jnp.float32) * slope + shift


def fits(kernels: Kernels, pixels: Any, channels: int) -> bool:
    """Whether the kernels take the gradients of pixels [N, H, W, K] that become so many channels."""
    depth, rows = pixels.shape[-1], math.prod(pixels.shape[:-1]) // kernels.mesh.size
    unequal = max(depth, channels) >= UNEQUAL * min(depth, channels)
    blocks = rows % ROWS == channels % DEPTH == depth % DEPTH == 0
    known = pixels.dtype == jnp.bfloat16 and kernels.can_share(pixels.shape[0])
    return rows >= SMALLEST and unequal and blocks and known


def gradient(
    kernels: Kernels,
    by_result: Unmade,
    weight: jax.Array,
    pixels: jax.Array,
    value: jax.Array,
    shortcut: jax.Array | None,
) -> Summed:
    """The gradient by what was clipped to `pixels`, its sum and that of its products with `value`.

    `by_result` is [N, H, W, C], the weight [C, K], the others [N, H, W, K].
    """
    tiles = (pixels, value) if shortcut is None else (pixels, value, shortcut)

    def of_share(by_result: Unmade, weight: jax.Array, tiles: tuple[jax.Array, ...]) -> Summed:
        result, total, product = _gradient(kernels, by_result, weight, [_flat(tile) for tile in tiles])
        if kernels.mesh.size > 1:
            total, product = lax.psum((total, product), BATCH)
        return Summed(result.reshape(tiles[0].shape), total, product)

    inputs = (_LIE, WHOLE, SAMPLES)
    return kernels.share(of_share, inputs, Summed(SAMPLES, WHOLE, WHOLE))(by_result, weight, tiles)


def by_weight(kernels: Kernels, pixels: jax.Array, by_result: Unmade) -> jax.Array:
    """The gradient [K, C] by the weight, of pixels [N, H, W, K] and the gradient [N, H, W, C] by the result."""

    def of_share(pixels: jax.Array, by_result: Unmade) -> jax.Array:
        total = _sum_of_products(kernels, _flat(pixels), by_result)
        # As products of the rules are exchanged by devices.
        return total if kernels.mesh.size == 1 else lax.psum(total.astype(jnp.bfloat16), BATCH).astype(jnp.float32)

    return kernels.share(of_share, (SAMPLES, _LIE), WHOLE)(pixels, by_result)


_LIE = Unmade(SAMPLES, SAMPLES, WHOLE, WHOLE, WHOLE)
"""How it lies on the devices."""


def _flat(pixels: jax.Array) -> jax.Array:
    return pixels.reshape(-1, pixels.shape[-1])


def _gradient(kernels: Kernels, by_result: Unmade, weight: jax.Array, tiles: list[jax.Array]) -> Any:
    """[M, K], and its two sums [K]."""
    from jax.experimental.pallas import BlockSpec

    dz, y, *affine = by_result
    (channels, columns), rows = weight.shape, len(tiles[0])
    # The first number counts fastest: blocks of the same rows find them in the cache.
    of_rows = BlockSpec((ROWS, channels), lambda column, row: (row, 0))
    whole = BlockSpec((channels,), lambda column, row: (0,))
    of_weight = BlockSpec((channels, COLUMNS), lambda column, row: (0, column))
    tile = BlockSpec((ROWS, COLUMNS), lambda column, row: (row, column))
    of_block = BlockSpec((1, COLUMNS), lambda column, row: (row, column))
    sums = jax.ShapeDtypeStruct((rows // ROWS, columns), jnp.float32)
    result, total, product = kernels.call(
        _gradient_kernel,
        **OPTIONS,
        grid=(columns // COLUMNS, rows // ROWS),
        in_specs=[of_rows, of_rows, whole, whole, whole, of_weight, *[tile] * len(tiles)],
        out_specs=[tile, of_block, of_block],
        out_shape=[jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16), sums, sums],
    )(_flat(dz), _flat(y), *affine, weight, *tiles)
    return result, total.sum(0), product.sum(0)


def _gradient_kernel(
    dz: Any, y: Any, factor: Any, slope: Any, shift: Any, weight: Any, pixels: Any, value: Any, *rest: Any
) -> None:
    """A block of the result, references to its operands."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    *shortcut, result, total, product = rest

    def add(step: Any, so_far: jax.Array) -> jax.Array:
        at = pallas.ds(step * DEPTH, DEPTH)
        vectors = (vector[at][None] for vector in (factor, slope, shift))
        by_result = _made(dz[:, at], y[:, at], *vectors).astype(jnp.bfloat16)
        return so_far + triton.dot(by_result, weight[at, :])

    by_pixels = lax.fori_loop(0, weight.shape[0] // DEPTH, add, jnp.zeros(result.shape, jnp.float32))
    for added in shortcut:
        by_pixels += added[...].astype(jnp.float32)
    result[...] = jnp.where(pixels[...] > 0, by_pixels, 0).astype(result.dtype)
    rounded = jnp.where(pixels[...] > 0, by_pixels, 0).astype(result.dtype).astype(jnp.float32)
    total[0, :] = rounded.sum(0)
    product[0, :] = (rounded * value[...].astype(jnp.float32)).sum(0)


def _sum_of_products(kernels: Kernels, pixels: jax.Array, by_result: Unmade) -> jax.Array:
    """pixels^T (factor dz + slope y + shift), [K, C]: by shares of the pixels, each in a program of its own."""
    from jax.experimental.pallas import BlockSpec

    dz, y, *affine = by_result
    (rows, depth), channels = pixels.shape, y.shape[-1]
    width = next(size for size in WIDTHS if channels % size == 0)
    blocks, steps = (depth // DEPTH, channels // width), rows // DEPTH
    shares = max(n for n in range(1, 1 + max(1, PROGRAMS // (blocks[0] * blocks[1]))) if steps % n == 0)
    share = rows // shares
    columns = BlockSpec((share, width), lambda k, c, number: (number, c))
    vector = BlockSpec((width,), lambda k, c, number: (c,))
    return kernels.call(
        partial(_weight_kernel, steps=steps // shares),
        **OPTIONS,
        grid=(*blocks, shares),
        in_specs=[
            BlockSpec((share, DEPTH), lambda k, c, number: (number, k)),
            columns,
            columns,
            vector,
            vector,
            vector,
        ],
        out_specs=BlockSpec((1, DEPTH, width), lambda k, c, number: (number, k, c)),
        out_shape=jax.ShapeDtypeStruct((shares, depth, channels), jnp.float32),
    )(pixels, _flat(dz), _flat(y), *affine).sum(0)


def _weight_kernel(
    pixels: Any, dz: Any, y: Any, factor: Any, slope: Any, shift: Any, result: Any, *, steps: int
) -> None:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    vectors = [vector[...][None] for vector in (factor, slope, shift)]

    def add(step: Any, so_far: jax.Array) -> jax.Array:
        at = pallas.ds(step * DEPTH, DEPTH)
        by_result = _made(dz[at, :], y[at, :], *vectors).astype(jnp.bfloat16)
        return so_far + triton.dot(pixels[at, :], by_result, trans_a=True)

    result[0] = lax.fori_loop(0, steps, add, jnp.zeros(result.shape[1:], jnp.float32))
