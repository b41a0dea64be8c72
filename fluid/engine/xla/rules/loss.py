"""Losses, in float32 under every policy."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
from jax import lax

Array = jax.Array


@rule("cross_entropy_with_softmax", kind=Kind.FULL)
def cross_entropy_with_softmax(op: Call, logits: Array, label: Array) -> tuple[Array, Array]:
    """(softmax, loss); hard labels [.., 1, ..] or soft ones shaped like the logits; loss 0 where `ignore_index`."""
    axis = op["axis"] % logits.ndim
    log_probability = jax.nn.log_softmax(logits, axis) if op["use_softmax"] else _log(logits)
    if op["soft_label"]:
        loss = -jnp.sum(label * log_probability, axis, keepdims=True)
    else:
        index = label if label.ndim == logits.ndim else jnp.expand_dims(label, axis)
        ignored = index == op["ignore_index"]
        picked = jnp.take_along_axis(log_probability, jnp.where(ignored, 0, index), axis, mode="clip")
        loss = jnp.where(ignored, 0, -picked)
    return (jnp.exp(log_probability) if op["use_softmax"] else logits), loss


@jax.custom_vjp
def _log(probability: Array) -> Array:
    """-1e20 at 0; what no label asks for has no gradient there either."""
    return jnp.maximum(jnp.log(probability), -1e20)


def _log_backward(probability: Array, gradient: Array) -> tuple[Array]:
    return (jnp.where(gradient == 0, 0, gradient / probability),)


_log.defvjp(lambda probability: (_log(probability), probability), _log_backward)


@rule("nll_loss", kind=Kind.FULL)
def nll_loss(op: Call, log_probability: Array, label: Array, weight: Array | None) -> tuple[Array, Array]:
    """(loss, sum of the weights of the samples that count); classes on axis 1. The mean of no samples is 0."""
    ignored = label == op["ignore_index"]
    index = jnp.where(ignored, 0, label)
    picked = jnp.squeeze(jnp.take_along_axis(log_probability, jnp.expand_dims(index, 1), 1), 1)
    share = jnp.ones(index.shape, picked.dtype) if weight is None else jnp.asarray(weight)[index]
    share = jnp.where(ignored, 0, share)
    loss, total = -picked * share, jnp.sum(share)
    if op["reduction"] == "none":
        return loss, total
    return (jnp.sum(loss) / jnp.where(total == 0, 1, total) if op["reduction"] == "mean" else jnp.sum(loss)), total


@rule("sigmoid_cross_entropy_with_logits", kind=Kind.FULL)
def sigmoid_cross_entropy(op: Call, logits: Array, label: Array, weight: Array | None) -> Array:
    """`weight`, of each label, is what Paddle's API makes of its `pos_weight`: 1 + (pos_weight - 1) * label."""
    weight = jnp.ones((), logits.dtype) if weight is None else weight
    loss = (1 - label) * logits + weight * jax.nn.softplus(-logits)
    counted = label != op["ignore_index"]
    loss = jnp.where(counted, loss, 0)
    if op["normalize"]:
        loss = loss / jnp.maximum(jnp.sum(counted.astype(loss.dtype)), 1e-5)
    return loss


@rule("bce_loss", kind=Kind.FULL)
def bce_loss(op: Call, probability: Array, label: Array) -> Array:
    """Logarithms are cut off at -100, and variances by which the gradient is divided at 1e-12."""
    fixed = lax.stop_gradient(probability)
    first = jnp.maximum(jnp.log(fixed), -100)
    second = jnp.maximum(jnp.log1p(-fixed), -100)
    slope = (fixed - label) / jnp.maximum(fixed * (1 - fixed), 1e-12)
    return slope * (probability - fixed) - (label * first + (1 - label) * second)


@rule("log_loss", kind=Kind.FULL)
def log_loss(op: Call, probability: Array, label: Array) -> Array:
    epsilon = op["epsilon"]
    return -label * jnp.log(probability + epsilon) - (1 - label) * jnp.log(1 - probability + epsilon)


@rule("kldiv_loss", kind=Kind.FULL)
def kldiv_loss(op: Call, x: Array, label: Array) -> Array:
    if op["log_target"]:
        loss = jnp.exp(label) * (label - x)
    else:
        safe = jnp.where(label > 0, label, 1)
        loss = jnp.where(label > 0, label * (jnp.log(safe) - x), 0)
    reduction = op["reduction"]
    if reduction == "none":
        return loss
    if reduction == "batchmean":
        return jnp.sum(loss) / x.shape[0]
    return jnp.mean(loss) if reduction == "mean" else jnp.sum(loss)


@rule("huber_loss", kind=Kind.FULL)
def huber_loss(op: Call, x: Array, label: Array) -> tuple[Array, Array]:
    """(loss, residual label - x): quadratic up to `delta`, then linear (Huber, 1964)."""
    delta, residual = op["delta"], label - x
    size = jnp.abs(residual)
    return jnp.where(size <= delta, 0.5 * residual * residual, delta * (size - 0.5 * delta)), residual


@rule("warpctc", kind=Kind.FULL)
def warpctc(
    op: Call, logits: Array, labels: Array, logit_lengths: Array | None, label_lengths: Array | None
) -> tuple[Array, Any]:
    """Connectionist temporal classification (Graves et al., ICML 2006), by the forward recursion in log space.

    `logits` [T, B, classes], not normalised; `labels` [B, L]. Returns the loss [B, 1].

    The 2 L + 1 states of a sample alternate blank and label. A state is entered from itself, from the one before, and,
    if it is a label that differs from the previous label, from the one before that. A sample without an alignment
    (more labels than frames) has loss 0, as in Paddle's kernel.
    """
    if logit_lengths is None or label_lengths is None:
        raise EngineError(f"{op.operation}: give the lengths of logits and labels; the shapes alone do not tell them")
    steps, batch, _ = logits.shape
    blank, longest = op["blank"], labels.shape[1]
    log_probability = jax.nn.log_softmax(logits, -1)
    states = jnp.full((batch, 2 * longest + 1), blank, labels.dtype).at[:, 1::2].set(labels)
    before = jnp.pad(states, ((0, 0), (2, 0)), constant_values=blank)[:, :-2]
    may_skip = (states != blank) & (states != before)
    emitted = jnp.take_along_axis(log_probability, jnp.broadcast_to(states, (steps, *states.shape)), 2)

    never = jnp.asarray(-1e30, logits.dtype)
    position = jnp.arange(2 * longest + 1)
    start = jnp.where(position < 2, emitted[0], never)

    def advance(alpha: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
        now, inside = item
        one = jnp.pad(alpha, ((0, 0), (1, 0)), constant_values=never)[:, :-1]
        two = jnp.where(may_skip, jnp.pad(alpha, ((0, 0), (2, 0)), constant_values=never)[:, :-2], never)
        moved = jnp.maximum(jax.nn.logsumexp(jnp.stack([alpha, one, two]), 0) + now, never)
        return jnp.where(inside[:, None], moved, alpha), None

    inside = jnp.arange(1, steps)[:, None] < logit_lengths.reshape(1, -1)
    alpha, _ = lax.scan(advance, start, (emitted[1:], inside), unroll=op.tuning.steps_in_a_turn)
    last = 2 * label_lengths.reshape(-1, 1).astype(jnp.int32)
    ends = jnp.concatenate([last, jnp.maximum(last - 1, 0)], 1)
    final = jnp.take_along_axis(alpha, ends, 1)
    # A sample without labels ends in its only blank: do not count that state twice.
    final = jnp.where((position[:2] == 1) & (last == 0), never, final)
    score = jax.nn.logsumexp(final, 1)
    loss = jnp.where(score > never / 2, -score, 0)
    if op["norm_by_times"]:
        # Only the gradient is divided by the number of frames.
        share = loss / logit_lengths.reshape(-1).astype(loss.dtype)
        loss = share + lax.stop_gradient(loss - share)
    return loss[:, None], None
