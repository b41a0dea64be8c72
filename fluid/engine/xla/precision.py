"""Precision policies: in which type each kind of operation computes.

* `fp32`: everything as the Program says. JAX would multiply in TF32 on GPUs by default; this asks for full float32.
* `tf32`: as the Program says, but matrix products and convolutions may use TensorFloat-32 (10 bits of mantissa).
* `bf16`: matrix products, convolutions and attention take bfloat16 and return bfloat16 (accumulated in float32 by the
  hardware); elementwise operations follow their activations; parameters, batch statistics, reductions, softmax, losses
  and optimizers stay float32. bfloat16 has the exponent range of float32, so there is no loss scaling. What products return
  is also what devices exchange: their gradients are added up in bfloat16.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from fluid.errors import EngineError

import jax
import jax.numpy as jnp


class Kind(Enum):
    """What a rule declares about its operands."""

    PRODUCT = "product"
    """Matrix products and convolutions: bfloat16 operands."""
    FOLLOW = "follow"
    """Elementwise operations and data movement: the type of the activations."""
    FULL = "full"
    """Reductions, softmax, losses, optimizers: float32."""
    OWN = "own"
    """The rule takes activations as they are and keeps its own statistics in float32 (normalisation, pooling)."""


@dataclass(frozen=True)
class Policy:
    """`matmul` is a JAX matmul precision; `reduced` says whether activations are bfloat16.

    `exact` asks rules for the form with the smallest rounding error where a faster one exists.
    """

    name: str
    matmul: str
    reduced: bool = False
    exact: bool = False

    def cast(self, kind: Kind, operands: Sequence[Any], activations: Sequence[bool]) -> list[Any]:
        """Operands (arrays, lists of arrays, None) in the type that `kind` computes in.

        `activations[i]` says whether operand i depends on the fed data. Parameters and constants do not: they take the
        type of the activations beside them instead of deciding it.
        """
        if not self.reduced or kind is Kind.OWN:
            return list(operands)
        if kind is Kind.PRODUCT:
            return [_to(jnp.bfloat16, operand) for operand in operands]
        if kind is Kind.FULL:
            return [_to(jnp.float32, operand) for operand in operands]
        types = {
            leaf.dtype
            for operand, votes in zip(operands, activations, strict=True)
            for leaf in jax.tree.leaves(operand)
            if votes and leaf.dtype in (jnp.bfloat16, jnp.float32)
        }
        if not types:
            return list(operands)
        target = jnp.bfloat16 if types == {jnp.dtype(jnp.bfloat16)} else jnp.float32
        return [_to(target, operand) for operand in operands]


POLICIES = {
    "fp32": Policy("fp32", "highest", exact=True),
    "tf32": Policy("tf32", "tensorfloat32"),
    "bf16": Policy("bf16", "default", reduced=True),
}


def find_policy(name: str) -> Policy:
    """The policy called `name`; raises EngineError for an unknown one."""
    if name not in POLICIES:
        raise EngineError(f"--precision {name}: choose one of {', '.join(POLICIES)}")
    return POLICIES[name]


def _to(dtype: Any, operand: Any) -> Any:
    def convert(leaf: Any) -> Any:
        return leaf.astype(dtype) if leaf.dtype in (jnp.bfloat16, jnp.float32) else leaf

    return jax.tree.map(convert, operand)
