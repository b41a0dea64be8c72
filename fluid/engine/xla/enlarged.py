"""The class of each pixel of enlarged logits, by a kernel that does not write the logits.

`argmax` over the classes of `gather_bilinear(.., dense_rows=True)` (fluid/resize.py): columns are weighted sums of two that are
gathered, rows a product with a matrix, whose rows hold two numbers each. What the kernel is given is what went into the first
of these; the operations between have nobody left who reads them.
"""

from collections.abc import Sequence
from typing import Any

from fluid.engine.xla.graph import Operation
from fluid.engine.xla.kernels import labels as kernel
from fluid.engine.xla.kernels.labels import Places
from fluid.engine.xla.layout import channels_first
from fluid.engine.xla.trace import Handler, Trace

import numpy as np


def _labels(trace: Trace, operation: Operation) -> Sequence[Any]:
    found = _enlarged(trace, operation)
    if found is None or trace.kernels is None:
        return trace.apply_rule(operation)
    number, rows, columns = found
    logits = channels_first(trace.env[number])
    if not kernel.fits(trace.kernels, logits, rows, columns):
        return trace.apply_rule(operation)
    dtype = trace.graph.types[operation.result(0)].dtype
    return [kernel.labels(trace.kernels, logits, rows, columns).astype(dtype)]


def _enlarged(trace: Trace, operation: Operation) -> tuple[int, Places, Places] | None:
    """The logits that are enlarged before their largest is looked for, and where the pixels lie; None for anything else."""
    attributes, product = operation.attributes, _made_by(trace, operation.operand(0), "matmul")
    if trace.inside or product is None or attributes["flatten"] or attributes["keepdims"]:
        return None
    if _number(trace, operation.operand(1)) != 1:
        return None
    if product.attributes["transpose_x"] or product.attributes["transpose_y"]:
        return None
    if trace.uses.readers(product.result(0)) != [operation]:
        return None
    rows = _places_of_rows(_known(trace, product.operand(0)))
    found = _between_columns(trace, product.operand(1))
    return None if rows is None or found is None else (found[0], rows, found[1])


def _between_columns(trace: Trace, value: int) -> tuple[int, Places] | None:
    """The image of which `value` is low + share (high - low), low and high columns of it; and where they lie."""
    added = _made_by(trace, value, "add")
    low = added and _made_by(trace, added.operand(0), "gather")
    scaled = added and _made_by(trace, added.operand(1), "multiply")
    change = scaled and _made_by(trace, scaled.operand(1), "subtract")
    high = change and _made_by(trace, change.operand(0), "gather")
    if not (low and scaled and change and high) or change.operand(1) != low.result(0):
        return None
    if low.operand(0) != high.operand(0) or any(_number(trace, item.operand(2)) != 3 for item in (low, high)):
        return None
    first, last, share = (_known(trace, place) for place in (low.operand(1), high.operand(1), scaled.operand(0)))
    if first is None or last is None or share is None or share.shape != first.shape:
        return None
    width = trace.graph.types[low.operand(0)].shape[3]
    if not (last == np.minimum(first + 1, width - 1)).all():
        return None
    return low.operand(0), Places(first.astype(np.int32), share.astype(np.float32))


def _places_of_rows(matrix: np.ndarray | None) -> Places | None:
    """Of a matrix [H, h], each of whose rows mixes one row with the next, where that is."""
    if matrix is None or matrix.ndim != 2:
        return None
    low = (matrix > 0).argmax(axis=1)
    after = np.minimum(low + 1, matrix.shape[1] - 1)
    share = np.where(after > low, np.take_along_axis(matrix, after[:, None], 1)[:, 0], 0)
    rest = matrix.sum(axis=1) - share - np.take_along_axis(matrix, low[:, None], 1)[:, 0]
    if np.abs(rest).max() > 1e-6 or np.abs(matrix.sum(axis=1) - 1).max() > 1e-6:
        return None
    return Places(low.astype(np.int32), share.astype(np.float32))


def _made_by(trace: Trace, value: int, name: str) -> Operation | None:
    """What makes a value, if it is an operation of this name."""
    maker = trace.uses.producer(value)
    return maker if maker is not None and maker.name == f"pd_op.{name}" else None


def _known(trace: Trace, value: int) -> np.ndarray | None:
    """The numbers of a value that is known while tracing."""
    found = trace.env.get(value)
    return np.asarray(found) if isinstance(found, np.ndarray | np.generic) else None


def _number(trace: Trace, value: int) -> int | None:
    """A single number that is known while tracing."""
    known = _known(trace, value)
    return None if known is None else int(known.reshape(-1)[0])


HANDLERS: dict[str, Handler] = {"pd_op.argmax": _labels}
