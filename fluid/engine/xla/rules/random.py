"""Random operations. Each draws from its own key, a function of (seed, step, place in the Program) alone."""

import math
from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@rule("dropout", images=("x",), random=True)
def dropout(op: Call, x: Array, seed: Any, rate: Any) -> tuple[Array, Array]:
    """(output, mask). Srivastava et al., JMLR 2014; `upscale_in_train` divides by the share that is kept."""
    return _dropout(op, x, op.number(rate, "rate"), x.shape)


@rule("dropout_nd", images=("x",), random=True)
def dropout_nd(op: Call, x: Array, seed: Any, rate: Any) -> tuple[Array, Array]:
    """Dropout of whole slices: the mask varies along the axes in `axis` only."""
    axes = [op.axis(axis, x.ndim) for axis in op["axis"]]
    shape = [n if axis in axes or not axes else 1 for axis, n in enumerate(x.shape)]
    return _dropout(op, x, op.number(rate, "rate") if rate is not None else op["p"], tuple(shape))


def _dropout(op: Call, x: Array, rate: float, shape: tuple[int, ...]) -> tuple[Array, Array]:
    upscaled = op["mode"] == "upscale_in_train"
    if op["is_test"] or rate == 0.0:
        return (x if upscaled or not op["is_test"] else x * np.asarray(1 - rate, x.dtype)), jnp.ones(x.shape, jnp.uint8)
    if rate == 1.0:
        return jnp.zeros_like(x), jnp.zeros(x.shape, jnp.uint8)
    kept = jnp.broadcast_to(mask_bits(op.key, shape) < np.uint32(round((1 - rate) * 2**32)), x.shape)
    factor = np.asarray(1 / (1 - rate) if upscaled else 1, x.dtype)
    return jnp.where(kept, x * factor, jnp.zeros((), x.dtype)), kept.astype(jnp.uint8)


def mask_bits(key: Array, shape: tuple[int, ...]) -> Array:
    """Random uint32 for dropout masks: steps of the golden ratio from one half of the key on, hashed with the other.

    The hash is `lowbias32` of C. Wellons' hash-prospector. Threefry, JAX's generator, costs several times as many
    operations, which a Transformer's step shows; a mask needs no cryptographic strength.
    """
    first, second = jax.random.key_data(key)
    bits = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape) * np.uint32(0x9E3779B9) + first
    bits = (bits ^ (bits >> 16)) * np.uint32(0x7FEB352D) ^ second
    bits = (bits ^ (bits >> 15)) * np.uint32(0x846CA68B)
    return bits ^ (bits >> 16)


@rule("uniform", kind=Kind.OWN, random=True)
def uniform(op: Call, shape: Any, low: Any, high: Any) -> Array:
    lowest, highest = op.number(low, "range"), op.number(high, "range")
    return jax.random.uniform(op.key, op.integers(shape, "shape"), jnp.dtype(op["dtype"]), lowest, highest)


@rule("gaussian", kind=Kind.OWN, random=True)
def gaussian(op: Call, shape: Any) -> Array:
    return op["mean"] + op["std"] * jax.random.normal(op.key, op.integers(shape, "shape"), jnp.dtype(op["dtype"]))


@rule("randint", random=True)
def randint(op: Call, shape: Any) -> Array:
    return jax.random.randint(op.key, op.integers(shape, "shape"), op["low"], op["high"], jnp.dtype(op["dtype"]))


@rule("randperm", random=True)
def randperm(op: Call) -> Array:
    return jax.random.permutation(op.key, op["n"]).astype(jnp.dtype(op["dtype"]))


@rule("bernoulli", random=True)
def bernoulli(op: Call, probability: Array) -> Array:
    return jax.random.bernoulli(op.key, probability).astype(probability.dtype)


@rule("multinomial", kind=Kind.FULL, random=True)
def multinomial(op: Call, weights: Array, count: Any) -> Array:
    """Indices drawn with the given weights; without replacement by the Gumbel top-k trick (Kool et al., ICML 2019)."""
    number, logits = op.integer(count, "number of samples"), jnp.log(weights)
    if op["replacement"]:
        drawn = jax.random.categorical(op.key, logits, -1, (number, *weights.shape[:-1]))
        return jnp.moveaxis(drawn, 0, -1)
    noise = jax.random.gumbel(op.key, logits.shape, logits.dtype)
    return jax.lax.top_k(logits + noise, number)[1]
