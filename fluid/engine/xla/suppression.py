"""A `while` that suppresses boxes until nothing changes, by the kernel that goes through them once.

The loop of `object_detection/nms.py` judges all candidates of an image and a class at once, round after round:

    verdicts' = valid * (verdicts @ overlaps < 0.5)

Where `overlaps` only has pairs of an earlier and a later candidate, there is one fixed point, and it is what going through the
candidates in order finds.
"""

from collections.abc import Sequence
from typing import Any

from fluid.engine.xla import control
from fluid.engine.xla.graph import Operation, Uses
from fluid.engine.xla.kernels import suppression as kernel
from fluid.engine.xla.trace import Handler, Trace

import numpy as np

_WHILE = "pd_op.while"


def _while(trace: Trace, operation: Operation) -> Sequence[Any]:
    overlaps = _overlaps(trace, operation)
    if overlaps is None or trace.kernels is None:
        return control.HANDLERS[_WHILE](trace, operation)  # type: ignore[return-value]
    stays = kernel.suppress(trace.kernels, trace.env[operation.operand(1)], trace.env[overlaps])
    return [stays, stays]


def _overlaps(trace: Trace, operation: Operation) -> int | None:
    """The matrix of a loop that is a suppression, if the kernel takes it."""
    body = operation.blocks[0]
    if len(operation.inputs) < 2 or len(body.arguments) != 2 or len(body.results) != 3:
        return None
    valid = operation.inputs[1]
    if valid not in trace.env or trace.gradients.wanted:
        return None
    uses, (now, _), (changed, after, before) = Uses(body), body.arguments, body.results
    difference = _made_by(uses, changed, "pd_op.any")
    differs = None if difference is None else uses.producer(difference.operand(0))
    if differs is None or differs.name != "pd_op.not_equal" or differs.inputs != [after, before]:
        return None
    matrices, value = set(), after
    while value != now:
        round_of = _round(trace, uses, value, valid)
        if round_of is None:
            return None
        value, matrix = round_of
        matrices.add(matrix)
    if len(matrices) != 1:
        return None
    (matrix,) = matrices
    pairs = trace.uses.producer(matrix)
    if pairs is None or pairs.name != "pd_op.logical_and" or matrix not in trace.env:
        return None
    order = trace.env[pairs.operand(1)]
    in_order = isinstance(order, np.ndarray) and np.array_equal(order, np.triu(np.ones(order.shape[-2:], bool), 1))
    fits = trace.kernels is not None and kernel.fits(trace.kernels, trace.env[valid], trace.env[matrix])
    return matrix if in_order and fits else None


def _round(trace: Trace, uses: Uses, value: int, valid: int | None) -> tuple[int, int] | None:
    """Verdicts before a round, and its matrix, of the verdicts after it."""
    path = ("pd_op.multiply", "pd_op.cast", "pd_op.less_than", "pd_op.squeeze", "pd_op.matmul")
    places = (1, 0, 0, 0, 0)
    for name, place in zip(path, places, strict=True):
        made = _made_by(uses, value, name)
        if made is None or (name == "pd_op.multiply" and made.inputs[0] != valid):
            return None
        value = made.operand(place)
        if name == "pd_op.less_than" and not _is_half(uses, made.operand(1)):
            return None
        if name == "pd_op.matmul":
            before, matrix = _made_by(uses, value, "pd_op.unsqueeze"), _made_by(uses, made.operand(1), "pd_op.cast")
            if before is None or matrix is None or made.attributes["transpose_x"] or made.attributes["transpose_y"]:
                return None
            return before.operand(0), matrix.operand(0)
    return None


def _made_by(uses: Uses, value: int, name: str) -> Operation | None:
    made = uses.producer(value)
    return made if made is not None and made.name == name else None


def _is_half(uses: Uses, value: int) -> bool:
    made = _made_by(uses, value, "pd_op.full")
    return made is not None and float(made.attributes["value"]) == 0.5


HANDLERS: dict[str, Handler] = {_WHILE: _while}
