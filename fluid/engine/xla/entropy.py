"""The loss of a classifier over a vocabulary, by the kernel that makes its gradient in the same pass.

`cross_entropy_with_softmax` of a product's result is followed, in the backward pass, by its own gradient and by that of the
product. The kernel gives the gradient of each row's loss as if that were all there is; what it is to be multiplied by comes
later, and meets the product's operand and result there, [N, ..., D], instead of [N, ..., V]:

    d x = s (g W^T)        d W = (s x)^T g        s: gradient by the loss of each row, g: gradients from the kernel

The smoothed and the plain loss of the same logits, which training reports side by side, come from one call.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from fluid.engine.xla.graph import Operation, Uses
from fluid.engine.xla.kernels import cross_entropy as kernel
from fluid.engine.xla.layout import ChannelsLast
from fluid.engine.xla.rules import RULES
from fluid.engine.xla.trace import Handler, Trace

import jax
import jax.numpy as jnp

_LOSS, _PRODUCT = "pd_op.cross_entropy_with_softmax", "pd_op.matmul"
_SHAPES = ("pd_op.unsqueeze", "pd_op.squeeze", "pd_op.reshape")
_UNUSED = -100
"""No word: Paddle's `ignore_index` of soft labels, which have none."""


class _Target(NamedTuple):
    """What a loss compares with."""

    label: int
    """Value number of whole numbers [N, ...], whatever the shape in which the loss gets them."""
    smoothing: float
    ignored: int


@dataclass(frozen=True)
class _Scaled:
    """A gradient whose rows are still to be multiplied by those of `scale` [N, ..., 1]."""

    array: jax.Array
    scale: jax.Array


@dataclass(frozen=True)
class _Made:
    """What the kernel made of logits."""

    rows: kernel.Rows
    gradient: jax.Array


def _loss(trace: Trace, operation: Operation) -> Sequence[Any]:
    made, target = _make(trace, operation), _target(trace.uses, operation)
    if made is None or target is None:
        return trace.apply_rule(operation)
    normaliser, own, mean = made.rows
    loss = normaliser - (1 - target.smoothing) * own - target.smoothing * mean
    counts = trace.env[target.label].reshape(loss.shape) != target.ignored
    return [None, jnp.where(counts, loss, 0)[..., None]]


def _make(trace: Trace, operation: Operation) -> _Made | None:
    """What the kernel makes of the logits of a loss; None where the rules have to do."""
    logits = operation.operand(0)
    key = (_LOSS, logits)
    if key not in trace.made:
        trace.made[key] = _call(trace, logits)
    return trace.made[key]


def _call(trace: Trace, logits: int) -> _Made | None:
    array, readers = trace.env[logits], trace.uses.readers(logits)
    losses = [item for item in readers if item.name == _LOSS]
    trained = [item for item in losses if item.index in trace.gradients.wanted]
    targets = [_target(trace.uses, item) for item in losses]
    labels = {target.label for target in targets if target is not None}
    if trace.inside or isinstance(array, ChannelsLast) or len(trained) != 1 or None in targets or len(labels) != 1:
        return None
    if not all(_is_over_words(trace.uses, item, array) for item in losses) or not _is_of_product(trace, trained[0]):
        return None
    if trace.kernels is None or not kernel.fits(trace.kernels, array):
        return None
    target = _target(trace.uses, trained[0])
    assert target is not None
    # Who is to be ignored may have no place among the words; another loss may count a word that this one ignores.
    label = jnp.clip(trace.env[target.label].reshape(array.shape[:-1]), 0, array.shape[-1] - 1)
    return _Made(*kernel.cross_entropy(trace.kernels, array, label, target.smoothing))


def _is_over_words(uses: Uses, loss: Operation, logits: Any) -> bool:
    """Whether it is a loss over the last axis whose softmax nobody reads but its gradient."""
    readers = {item.name for item in uses.readers(loss.outputs[0])}
    last = loss.attributes["axis"] % logits.ndim == logits.ndim - 1
    return last and loss.attributes["use_softmax"] and readers <= {f"{_LOSS}_grad"}


def _is_of_product(trace: Trace, loss: Operation) -> bool:
    """Whether nothing but the gradient of a product with a matrix takes the gradient of the loss."""
    forward = trace.gradients.forward
    gradients = [item for item in trace.uses.readers(loss.inputs[1]) if forward.get(item.index) is loss]
    readers = trace.uses.readers(gradients[0].outputs[0])
    product = forward.get(readers[0].index) if len(gradients) == len(readers) == 1 else None
    if product is None or product.name != _PRODUCT or product.outputs != loss.inputs[:1]:
        return False
    if isinstance(trace.env[product.operand(0)], ChannelsLast):
        return False
    return trace.env[product.operand(1)].ndim == 2 and not product.attributes["transpose_x"]


def _target(uses: Uses, loss: Operation) -> _Target | None:
    """None for soft labels other than evenly smoothed ones."""
    label = loss.operand(1)
    if not loss.attributes["soft_label"]:
        return _Target(_root(uses, label), 0.0, loss.attributes["ignore_index"])
    smoothing, source = 0.0, uses.producer(label)
    if source is not None and source.name == "pd_op.label_smooth" and source.inputs[1] is None:
        smoothing, source = source.attributes["epsilon"], uses.producer(source.operand(0))
    if source is None or source.name != "pd_op.one_hot":
        return None
    return _Target(_root(uses, source.operand(0)), smoothing, _UNUSED)


def _root(uses: Uses, value: int) -> int:
    """The value whose numbers these are, in another shape."""
    source = uses.producer(value)
    return _root(uses, source.operand(0)) if source is not None and source.name in _SHAPES else value


def _loss_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    made, target = trace.made.get((_LOSS, forward.operand(0))), _target(trace.uses, forward)
    if made is None or target is None:
        return trace.apply_gradient(operation)
    scale = trace.env[operation.operand(operation.input_names.index("loss_grad"))].astype(jnp.float32)
    counts = trace.env[target.label].reshape(scale.shape) != target.ignored
    return [_Scaled(made.gradient, jnp.where(counts, scale, 0))]


def _product_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    gradient = trace.env[operation.operand(operation.input_names.index("out_grad"))]
    if not isinstance(gradient, _Scaled):
        return trace.apply_gradient(operation)
    forward = trace.gradients.forward[operation.index]
    x, weight = trace.operands(forward)
    function = trace.prepared(forward, RULES[forward.name], [x, weight])
    scaled = (x.astype(jnp.float32) * gradient.scale).astype(x.dtype)
    _, pullback = jax.vjp(lambda *operands: function(*operands)[0], scaled, weight)
    by_x, by_weight = pullback(gradient.array)
    return [(by_x.astype(jnp.float32) * gradient.scale).astype(x.dtype), by_weight]


HANDLERS: dict[str, Handler] = {
    _LOSS: _loss,
    f"{_LOSS}_grad": _loss_gradient,
    f"{_PRODUCT}_grad": _product_gradient,
}
