"""How an operation gets its rule.

    @rule("relu", images=ALL)
    def relu(op, x):
        return jnp.maximum(x, 0)

A rule is called with the operation and its operands in Paddle's order, and returns the result, or a tuple of results in
Paddle's order. Its gradient comes from `jax.vjp` of the same function. To add one, write it into the module of its
family in this folder; `fluid/tests/test_xla_ops.py` has a table with one row per rule.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fluid.engine.xla.graph import Operation, Type
from fluid.engine.xla.layout import AXIS_IN_LAST
from fluid.engine.xla.precision import Kind, Policy
from fluid.engine.xla.tuning import Tuning
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np

ALL = "all"
"""`images=ALL`: every operand and result may be kept channels-last."""


@dataclass(frozen=True)
class Rule:
    """What the decorator `rule` records; see there."""

    function: Callable[..., Any]
    kind: Kind = Kind.FOLLOW
    images: tuple[str, ...] | str = ()
    prefers_channels_last: bool = False
    random: bool = False


RULES: dict[str, Rule] = {}


def rule(
    *names: str,
    kind: Kind = Kind.FOLLOW,
    images: Iterable[str] | str = (),
    prefers_channels_last: bool = False,
    random: bool = False,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the rule of the Paddle operations `names` (`conv2d` for `pd_op.conv2d`).

    Args:
        kind: the type it computes in under the bf16 policy.
        images: operands that may come channels-last, or ALL; `op.channels_last` then says whether they do, and the 4-d
            results are channels-last too.
        prefers_channels_last: turn its images to channels-last rather than only accepting them.
        random: draws from `op.key`, so it is never evaluated ahead of time.
    """

    operands = images if isinstance(images, str) else tuple(images)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            RULES[f"pd_op.{name}"] = Rule(function, kind, operands, prefers_channels_last, random)
        return function

    return register


def numbers(*operands: Any) -> Any:
    """`numpy` for operands that are known numbers, its twin of JAX for others.

    What a Program computes from shapes alone is computed while tracing; by JAX, each operation would be compiled first,
    for each shape anew.
    """
    return np if all(isinstance(operand, np.ndarray | np.generic) for operand in operands) else jnp


class Call:
    """One operation as its rule sees it: `op["axis"]` is an attribute, `op.key` a random key of its own.

    `op.differentiated` says whether a gradient follows; `op.statistics_batch` is that of the Graph.
    """

    def __init__(
        self,
        operation: Operation,
        types: dict[int, Type],
        tuning: Tuning,
        policy: Policy,
        *,
        key: Any = None,
        channels_last: bool = False,
        differentiated: bool = False,
        statistics_batch: int | None = None,
    ) -> None:
        self.operation = operation
        self.tuning = tuning
        self.policy = policy
        self.key = key
        self.differentiated = differentiated
        self.statistics_batch = statistics_batch
        self.channels_last = channels_last or operation.attributes.get("data_format") in ("NHWC", "NDHWC")
        self._types = types

    def __getitem__(self, name: str) -> Any:
        return self.operation.attributes[name]

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute that may be absent."""
        return self.operation.attributes.get(name, default)

    def type(self, position: int = 0) -> Type:
        """Declared type of a result; -1 where a length was unknown when the Program was built."""
        number = self.operation.outputs[position]
        assert number is not None, f"{self.operation} has no result {position}"
        return self._types[number]

    def axis(self, axis: int, rank: int) -> int:
        """An axis of the Program, negative ones included, as an axis of the array at hand."""
        axis = axis % rank
        return AXIS_IN_LAST[axis] if self.channels_last and rank == 4 else axis

    def static(self, value: Any, what: str) -> np.ndarray:
        """The value of an operand that must be known while compiling, such as a shape; raises EngineError if it is not."""
        if isinstance(value, list):
            return np.array([self.static(item, what).reshape(()) for item in value])
        if isinstance(value, jax.core.Tracer):
            raise EngineError(
                f"{self.operation}: its {what} depends on data; the xla engine compiles for fixed shapes, "
                "so compute it from the shapes of the inputs or make it a constant"
            )
        return np.asarray(value)

    def integers(self, value: Any, what: str) -> list[int]:
        """`static` as a list of int."""
        return [int(item) for item in self.static(value, what).reshape(-1)]

    def integer(self, value: Any, what: str) -> int:
        """`static` as one int."""
        return self.integers(value, what)[0]

    def number(self, value: Any, what: str) -> float:
        """`static` as one float."""
        return float(self.static(value, what).reshape(-1)[0])
