"""Matrix products and attention."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


@rule("matmul", kind=Kind.PRODUCT)
def matmul(op: Call, x: Array, y: Array) -> Array:
    x = jnp.swapaxes(x, -1, -2) if op["transpose_x"] and x.ndim > 1 else x
    y = jnp.swapaxes(y, -1, -2) if op["transpose_y"] and y.ndim > 1 else y
    return jnp.matmul(x, y)


@rule("bmm", "mv", kind=Kind.PRODUCT)
def bmm(op: Call, x: Array, y: Array) -> Array:
    return jnp.matmul(x, y)


@rule("dot", kind=Kind.PRODUCT)
def dot(op: Call, x: Array, y: Array) -> Array:
    return jnp.sum(x * y, -1)


@rule("addmm", kind=Kind.PRODUCT)
def addmm(op: Call, bias: Array, x: Array, y: Array) -> Array:
    return op["beta"] * bias + op["alpha"] * jnp.matmul(x, y)


@rule("einsum", kind=Kind.PRODUCT)
def einsum(op: Call, operands: list[Array]) -> tuple[Any, ...]:
    # The other results are what Paddle keeps for the gradient: one entry an operand.
    nothing = [None] * len(operands)
    return jnp.einsum(op["equation"], *operands), nothing, nothing


@rule("flash_attn", "memory_efficient_attention", kind=Kind.PRODUCT, random=True)
def flash_attn(
    op: Call, q: Array, k: Array, v: Array, seed: Any = None, mask: Array | None = None, *_: Any
) -> tuple[Any, ...]:
    """softmax(q k' / sqrt(d) + mask) v on [batch, time, heads, d] (Vaswani et al., arXiv:1706.03762)."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", q, k).astype(jnp.promote_types(q.dtype, jnp.float32))
    scores = scores / np.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + mask.astype(scores.dtype)
    if op.get("causal"):
        allowed = jnp.tril(jnp.ones(scores.shape[-2:], bool), scores.shape[-1] - scores.shape[-2])
        scores = jnp.where(allowed, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, -1)
    rate = op.get("dropout", 0.0)
    if rate and not op.get("is_test"):
        weights = jnp.where(jax.random.bernoulli(op.key, np.float32(1 - rate), weights.shape), weights / (1 - rate), 0)
    out = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(v.dtype), v)
    return (out, *[None] * (len(op.operation.outputs) - 1))
