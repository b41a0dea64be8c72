"""Both gradients of a 1 x 1 convolution between normalisations, with what comes before and after in the backward pass.

Such a convolution is a product y of pixels x [M, K] and a weight W [K, C], M = batch x height x width, and on a GPU its time is that
of reading and writing the pixels. In a residual network batch normalisation follows (Ioffe and Szegedy, arXiv:1502.03167), whose
gradient is dy = a dz + b y + c by channel: XLA makes dy of dz and y, writes it and reads it for both gradients of the convolution.
That by the pixels, which were relu(..) of an earlier normalisation of v, perhaps with a shortcut added, goes on as

    dx = [x > 0] (dy W^T + gradient by the shortcut)        sums over M of dx and of dx v

where XLA writes the product, reads it, and reads dx and v again for the sums. Here `gradient` makes dy as it reads dz and y, and
gives dx with its sums, and `by_weight` makes dy likewise and sums x^T dy, each in one pass. They multiply bfloat16 and add in
float32; sums are of the rounded numbers, as those of the rules are.

A step of ResNet-50 took 38.9 ms with them instead of 40.5 (batches of 256, bfloat16, one H100). Products that sum their result's
squares as well, or normalise and clip what they read, brought 0.1 % more and are not here.
"""

import math
from collections.abc import Sequence
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
    """Pixels and their sums by channel, float32."""

    pixels: jax.Array
    """[N, H, W, C]."""
    total: jax.Array
    """[G, C]: of each group of samples that has statistics of its own."""
    product: jax.Array
    """[G, C]: of the products with another array; zeros if there is none."""


class Unmade(NamedTuple):
    """The gradient of what was normalised, still to be made: factor dz + slope y + shift."""

    by_normalised: jax.Array
    """dz, [N, H, W, C]."""
    value: jax.Array
    """y, what was normalised, of the same shape."""
    factor: jax.Array
    slope: jax.Array
    shift: jax.Array
    """[G, C] each, float32: of each group of samples that has statistics of its own, one or as many on each device."""

    def made(self) -> jax.Array:
        """[N, H, W, C]."""
        value, *affine = in_groups(self.value, len(self.factor)), *(v[:, None, None, None] for v in self[2:])
        return (
            _made(self.by_normalised.reshape(value.shape), value, *affine).astype(value.dtype).reshape(self.value.shape)
        )


def _made(by_normalised: Any, value: Any, factor: Any, slope: Any, shift: Any) -> jax.Array:
    return by_normalised.astype(jnp.float32) * factor + value.astype(jnp.float32) * slope + shift


def fits(kernels: Kernels, pixels: Any, channels: int, groups: int = 1) -> bool:
    """Whether the kernels take the gradients of pixels [N, H, W, K] that become so many channels, in groups of samples."""
    depth, rows = pixels.shape[-1], math.prod(pixels.shape[:-1]) // kernels.mesh.size
    unequal = max(depth, channels) >= UNEQUAL * min(depth, channels)
    of_group = math.prod(pixels.shape[:-1]) // max(groups, kernels.mesh.size)
    blocks = of_group % ROWS == channels % DEPTH == depth % DEPTH == 0
    known = pixels.dtype == jnp.bfloat16 and kernels.can_share(pixels.shape[0])
    return rows >= SMALLEST and unequal and blocks and known


def gradient(
    kernels: Kernels,
    by_result: Unmade,
    weight: jax.Array,
    pixels: jax.Array,
    value: jax.Array | None,
    shortcut: jax.Array | None,
) -> Summed:
    """The gradient by what was clipped to `pixels`, its sum and that of its products with `value`.

    `by_result` is [N, H, W, C], the weight [C, K], the others [N, H, W, K].
    """

    groups = len(by_result.factor)

    def of_share(by_result: Unmade, weight: jax.Array, tiles: dict[str, jax.Array]) -> Summed:
        result = _gradient(kernels, by_result, weight, {name: flat(tile) for name, tile in tiles.items()})
        return summed(kernels, result, tiles["pixels"].shape, groups, len(by_result.factor))

    given = {"pixels": pixels, "value": value, "shortcut": shortcut}
    tiles = {name: tile for name, tile in given.items() if tile is not None}
    inputs = (_lie(kernels, groups), WHOLE, SAMPLES)
    outputs = Summed(SAMPLES, *[kernels.of_groups(groups)] * 2)
    return kernels.share(of_share, inputs, outputs)(by_result, weight, tiles)


def summed(kernels: Kernels, result: Sequence[jax.Array], shape: tuple[int, ...], groups: int, own: int) -> Summed:
    """What a kernel made of a device's share with `own` of the groups: pixels, and sums of their blocks, in order."""
    pixels, *blocks = result
    sums = [kernels.add_up(block.reshape(own, -1, block.shape[-1]).sum(1), groups) for block in blocks]
    return Summed(pixels.reshape(shape), sums[0], sums[1] if len(sums) > 1 else jnp.zeros_like(sums[0]))


def by_weight(kernels: Kernels, pixels: jax.Array, by_result: Unmade) -> jax.Array:
    """The gradient [K, C] by the weight, of pixels [N, H, W, K] and the gradient [N, H, W, C] by the result."""

    def of_share(pixels: jax.Array, by_result: Unmade) -> jax.Array:
        arrays, affine = [flat(array) for array in by_result[:2]], by_result[2:]
        total = sum_of_products(kernels, flat(pixels), arrays, affine, len(by_result.factor)).sum(0)
        # As products of the rules are exchanged by devices.
        return total if kernels.mesh.size == 1 else lax.psum(total.astype(jnp.bfloat16), BATCH).astype(jnp.float32)

    return kernels.share(of_share, (SAMPLES, _lie(kernels, len(by_result.factor))), WHOLE)(pixels, by_result)


def _lie(kernels: Kernels, groups: int) -> Any:
    """How it lies on the devices."""
    return Unmade(SAMPLES, SAMPLES, *[kernels.of_groups(groups)] * 3)


def in_groups(pixels: jax.Array, groups: int) -> jax.Array:
    """[N, H, W, C] as [G, N / G, H, W, C]."""
    return pixels.reshape(groups, -1, *pixels.shape[1:])


def flat(pixels: jax.Array) -> jax.Array:
    """[N, H, W, K] as [M, K]."""
    return pixels.reshape(-1, pixels.shape[-1])


def _gradient(kernels: Kernels, by_result: Unmade, weight: jax.Array, tiles: dict[str, jax.Array]) -> Any:
    """[M, K], and its sums [blocks, K]."""
    from jax.experimental.pallas import BlockSpec

    dz, y, *affine = by_result
    (channels, columns), rows = weight.shape, len(tiles["pixels"])
    of_group = rows // ROWS // len(affine[0])
    # The first number counts fastest: blocks of the same rows find them in the cache.
    of_rows = BlockSpec((ROWS, channels), lambda column, row: (row, 0))
    whole = BlockSpec((1, channels), lambda column, row: (row // of_group, 0))
    of_weight = BlockSpec((channels, COLUMNS), lambda column, row: (0, column))
    tile = BlockSpec((ROWS, COLUMNS), lambda column, row: (row, column))
    of_block = BlockSpec((1, COLUMNS), lambda column, row: (row, column))
    sums = [jax.ShapeDtypeStruct((rows // ROWS, columns), jnp.float32)] * (1 + ("value" in tiles))
    return kernels.call(
        partial(_gradient_kernel, names=list(tiles)),
        **OPTIONS,
        grid=(columns // COLUMNS, rows // ROWS),
        in_specs=[of_rows, of_rows, whole, whole, whole, of_weight, *[tile] * len(tiles)],
        out_specs=[tile, *[of_block] * len(sums)],
        out_shape=[jax.ShapeDtypeStruct((rows, columns), jnp.bfloat16), *sums],
    )(flat(dz), flat(y), *affine, weight, *tiles.values())


def _gradient_kernel(
    dz: Any, y: Any, factor: Any, slope: Any, shift: Any, weight: Any, *rest: Any, names: Sequence[str]
) -> None:
    """A block of the result, references to its operands."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    tiles, results = dict(zip(names, rest, strict=False)), rest[len(names) :]

    def add(step: Any, so_far: jax.Array) -> jax.Array:
        at = pallas.ds(step * DEPTH, DEPTH)
        vectors = (vector[:, at] for vector in (factor, slope, shift))
        by_result = _made(dz[:, at], y[:, at], *vectors).astype(jnp.bfloat16)
        return so_far + triton.dot(by_result, weight[at, :])

    by_pixels = lax.fori_loop(0, weight.shape[0] // DEPTH, add, jnp.zeros(results[0].shape, jnp.float32))
    if "shortcut" in tiles:
        by_pixels += tiles["shortcut"][...].astype(jnp.float32)
    clip(by_pixels, tiles["pixels"], tiles.get("value"), *results)


def clip(by_pixels: jax.Array, pixels: Any, value: Any, result: Any, total: Any, product: Any = None) -> None:
    """The end of a kernel that makes a block of a gradient: it passes where pixels are above 0, and is summed."""
    clipped = jnp.where(pixels[...] > 0, by_pixels, 0).astype(result.dtype)
    result[...] = clipped
    wide = clipped.astype(jnp.float32)
    total[0, :] = wide.sum(0)
    if value is not None:
        product[0, :] = (wide * value[...].astype(jnp.float32)).sum(0)


def sum_of_products(
    kernels: Kernels, pixels: jax.Array, others: Sequence[jax.Array], affine: Sequence[jax.Array], groups: int
) -> jax.Array:
    """pixels^T other, [G, K, C], by shares of the pixels, each in a program of its own.

    The other is an array [M, C] or, of two and vectors [G, C], what is made of them (see `Unmade`).
    """
    from jax.experimental.pallas import BlockSpec

    (rows, depth), channels = pixels.shape, others[0].shape[-1]
    width = next(size for size in WIDTHS if channels % size == 0)
    blocks, steps = (depth // DEPTH, channels // width), rows // DEPTH
    most = max(groups, PROGRAMS // (blocks[0] * blocks[1]))
    shares = max(n for n in range(groups, 1 + most, groups) if steps % n == 0)
    share, of_group = rows // shares, shares // groups
    columns = BlockSpec((share, width), lambda k, c, number: (number, c))
    vector = BlockSpec((1, width), lambda k, c, number: (number // of_group, c))
    found = kernels.call(
        partial(_weight_kernel, steps=steps // shares),
        **OPTIONS,
        grid=(*blocks, shares),
        in_specs=[
            BlockSpec((share, DEPTH), lambda k, c, number: (number, k)),
            *[columns] * len(others),
            *[vector] * len(affine),
        ],
        out_specs=BlockSpec((1, DEPTH, width), lambda k, c, number: (number, k, c)),
        out_shape=jax.ShapeDtypeStruct((shares, depth, channels), jnp.float32),
    )(pixels, *others, *affine)
    return found.reshape(groups, of_group, depth, channels).sum(1)


def _weight_kernel(pixels: Any, dz: Any, *rest: Any, steps: int) -> None:
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    *unmade, result = rest
    vectors = [vector[...] for vector in unmade[1:]]

    def add(step: Any, so_far: jax.Array) -> jax.Array:
        at = pallas.ds(step * DEPTH, DEPTH)
        by_result = _made(dz[at, :], unmade[0][at, :], *vectors).astype(jnp.bfloat16) if unmade else dz[at, :]
        return so_far + triton.dot(pixels[at, :], by_result, trans_a=True)

    result[0] = lax.fori_loop(0, steps, add, jnp.zeros(result.shape[1:], jnp.float32))
