"""Matrix products; attention is written with these and softmax."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp

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


@rule("addmm", "baddbmm", kind=Kind.PRODUCT)
def addmm(op: Call, bias: Array, x: Array, y: Array) -> Array:
    return op["beta"] * bias + op["alpha"] * jnp.matmul(x, y)


@rule("einsum", kind=Kind.PRODUCT)
def einsum(op: Call, operands: list[Array]) -> tuple[Any, ...]:
    # The other results are what Paddle keeps for the gradient: one entry an operand.
    nothing = [None] * len(operands)
    return jnp.einsum(op["equation"], *operands), nothing, nothing
