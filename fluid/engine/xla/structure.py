"""Operations that compute nothing: they group values, name constants, or mark where a block begins and ends."""

from collections.abc import Callable
from typing import Any

from fluid.engine.xla.graph import DATA, PARAMETER, YIELD, Operation

import jax.numpy as jnp
import numpy as np

KNOWN_ELEMENTS = 65536
"""Values up to this size are kept as known numbers while tracing; larger constants are left to the compiler."""


def is_known(value: Any) -> bool:
    """Whether a value is known while tracing, so that what depends on it alone can be computed at once."""
    if isinstance(value, list):
        return all(is_known(item) for item in value)
    return value is None or (isinstance(value, np.ndarray) and value.size <= KNOWN_ELEMENTS)


def _full_int_array(operation: Operation) -> list[Any]:
    return [np.asarray(operation.attributes["value"], operation.attributes["dtype"])]


def _full(operation: Operation) -> list[Any]:
    shape, dtype = operation.attributes["shape"], jnp.dtype(operation.attributes["dtype"])
    make = np.full if np.prod(shape) <= KNOWN_ELEMENTS else jnp.full
    return [make(shape, float(operation.attributes["value"]), dtype)]


STRUCTURE: dict[str, Callable[..., list[Any]]] = {
    "builtin.combine": lambda operation, *values: [list(values)],
    "builtin.split": lambda operation, values: values,
    "builtin.slice": lambda operation, values: [values[operation.attributes["index"]]],
    "pd_op.full_int_array": _full_int_array,
    "pd_op.full": _full,
    # The inputs and the state are bound before the first operation runs.
    PARAMETER: lambda operation: [],
    DATA: lambda operation: [],
    YIELD: lambda operation, *values: [],
}
