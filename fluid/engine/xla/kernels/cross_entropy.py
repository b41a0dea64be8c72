"""Cross-entropy over a vocabulary and its gradient in one pass over the logits.

For a row z of V logits and the label y, smoothed by e (Szegedy et al., arXiv:1512.00567, section 7):

    normaliser = log sum_v exp z_v        loss = normaliser - (1 - e) z_y - e mean z
    d loss / d z_v = exp(z_v - normaliser) - (1 - e) [v = y] - e / V

XLA reads the logits of a training step for the maximum, the sum, the label's logit and the mean, and once more for the gradient,
which it writes beside them. Here a program reads one row, twice, the second time from the cache, and puts the gradient in
its place, before anyone knows by what it will be multiplied: `entropy.py` multiplies the operands and results of the products
that follow instead, which are small (as Hsu et al., arXiv:2410.10989, do).

In a training step of Transformer-base it takes an H100 little longer than to read and write the logits once; the rules read and write
them more often. Other orders of rows, blocks, warps and hints to the cache were no faster (benchmarks/README.md, "Kernels of the zoo's own").
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fluid.engine.xla.kernels import SAMPLES, Kernels

import jax
import jax.numpy as jnp
from jax import lax

SMALLEST = 1 << 24
"""Logits of which it is worth it."""
BLOCK, READ, WRITTEN, WARPS = 2048, 8, 4, 16
"""Logits in a block, blocks that a program reads and writes at once, and the warps that share them."""
_LOG2_E = math.log2(math.e)
"""exp z is 2^(z log2 e), which multiplies and subtracts at once."""


class Rows(NamedTuple):
    """What is known of the rows of logits, [N, ...] each, float32."""

    normaliser: jax.Array
    own: jax.Array
    """The label's logit."""
    mean: jax.Array


def fits(kernels: Kernels, logits: Any) -> bool:
    """Whether the kernel takes logits [N, ..., V]."""
    size = logits.size if hasattr(logits, "size") else 0
    return size >= SMALLEST and logits.dtype in (jnp.bfloat16, jnp.float32) and kernels.can_share(logits.shape[0])


def cross_entropy(kernels: Kernels, logits: jax.Array, label: jax.Array, smoothing: float) -> tuple[Rows, jax.Array]:
    """Of logits [N, ..., V] and labels [N, ...] within 0 and V: the rows, and the gradients of their losses, [N, ..., V]."""
    return kernels.share(partial(_cross_entropy, kernels, smoothing), SAMPLES, SAMPLES)(logits, label)


def _cross_entropy(kernels: Kernels, smoothing: float, logits: jax.Array, label: jax.Array) -> tuple[Rows, jax.Array]:
    rows, words = label.size, logits.shape[-1]
    row = jax.ShapeDtypeStruct((rows,), jnp.float32)
    gradient = jax.ShapeDtypeStruct((rows, words), logits.dtype)
    call = kernels.call(
        partial(_kernel, words=words, smoothing=smoothing),
        warps=WARPS,
        grid=(rows,),
        out_shape=[row, row, row, gradient],
        input_output_aliases={0: 3},
    )
    *known, gradient = call(logits.reshape(rows, words), label.reshape(rows).astype(jnp.int32))
    return Rows(*(value.reshape(label.shape) for value in known)), gradient.reshape(logits.shape)


def _kernel(
    logits: Any, label: Any, normaliser: Any, own: Any, mean: Any, gradient: Any, *, words: int, smoothing: float
) -> None:
    """One row. References to arrays in memory; `gradient` is `logits`."""
    from jax.experimental import pallas
    from jax.experimental.pallas import triton

    row = pallas.program_id(0)
    target = label[row]
    # Before anything is written, which takes the sums below.
    own[row] = logits[row, target].astype(jnp.float32)

    def block(index: Any, masked: bool, policy: str) -> tuple[Any, jax.Array, jax.Array]:
        places = index * BLOCK + jnp.arange(BLOCK)
        at = (row, pallas.ds(index * BLOCK, BLOCK))
        within = {"mask": places < words, "other": -jnp.inf} if masked else {}
        return at, places, triton.load(logits.at[at], eviction_policy=policy, **within).astype(jnp.float32)

    def loop(blocks: int, step: Callable[..., Any], start: Any) -> Any:
        """Over the row, so many blocks at once; only the last have places without words."""
        whole, every = words // (blocks * BLOCK), pallas.cdiv(words, blocks * BLOCK)
        start = lax.fori_loop(0, whole, partial(step, masked=False), start)
        return lax.fori_loop(whole, every, partial(step, masked=True), start)

    def read(index: Any, so_far: tuple[jax.Array, ...], masked: bool) -> tuple[jax.Array, ...]:
        """Largest logit, sum of the exponentials beside it and sum, by place in the block."""
        largest, exponentials, total = so_far
        # Kept in the cache for the second reading, after which they are of no use.
        blocks = [block(index * READ + number, masked, "evict_last") for number in range(READ)]
        larger = largest
        for _, _, values in blocks:
            larger = jnp.maximum(larger, values)
        exponentials *= jnp.exp2((largest - larger) * _LOG2_E)
        beside = larger * _LOG2_E
        for _, places, values in blocks:
            exponentials += jnp.exp2(values * _LOG2_E - beside)
            total += jnp.where(places < words, values, 0) if masked else values
        return larger, exponentials, total

    zeros = jnp.zeros(BLOCK, jnp.float32)
    # Half, so that it stays finite when it is multiplied.
    start = jnp.full(BLOCK, jnp.finfo(jnp.float32).min / 2), zeros, zeros
    largest, exponentials, total = loop(READ, read, start)
    top = jnp.max(largest)
    of_row = top + jnp.log(jnp.sum(exponentials * jnp.exp(largest - top)))
    normaliser[row], mean[row] = of_row, jnp.sum(total) / words

    def write(index: Any, _: None, masked: bool) -> None:
        for at, places, values in [block(index * WRITTEN + number, masked, "evict_first") for number in range(WRITTEN)]:
            share = jnp.where(places == target, 1 - smoothing + smoothing / words, smoothing / words)
            change = (jnp.exp2(values * _LOG2_E - of_row * _LOG2_E) - share).astype(gradient.dtype)
            within = {"mask": places < words} if masked else {}
            triton.store(gradient.at[at], change, eviction_policy="evict_first", **within)

    loop(WRITTEN, write, None)
