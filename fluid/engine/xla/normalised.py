"""The backward pass through 1 x 1 convolutions, batch normalisation and relu, with fewer passes over the activations.

What rules compute one after the other, the kernels of `kernels/pointwise.py` compute together. A convolution's gradient by its
input, which was relu(..) of a normalisation, perhaps with a shortcut added, comes as the gradient of that sum, with the sums
that the normalisation's gradient needs; the operations between, which only add and clip, have nothing left to do. A
normalisation's gradient is written out, since it takes sums that are there, and the convolution before it takes it unmade:

    y = s x + t,  s = scale / sqrt(v + e)        d bias = sum dy        d scale = (sum dy x - m sum dy) / sqrt(v + e)
    dx = s (dy - d bias / M - (x - m) d scale / (M sqrt(v + e)))        m, v: mean and variance of x over M pixels
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fluid.engine.xla.graph import Operation
from fluid.engine.xla.kernels import pointwise as kernel
from fluid.engine.xla.kernels import pooling
from fluid.engine.xla.kernels.expansion import Unmultiplied
from fluid.engine.xla.layout import ChannelsLast, channels_last_array
from fluid.engine.xla.pooled import is_pooled
from fluid.engine.xla.trace import Handler, Trace

import jax
import jax.numpy as jnp
from jax import lax

_CONVOLUTION, _NORMALISATION = "pd_op.conv2d", "pd_op.batch_norm_"


@dataclass(frozen=True)
class Statistics:
    """Of what is normalised, [G, C] each: of each group of samples."""

    mean: jax.Array
    inverse: jax.Array
    """1 / sqrt(variance + epsilon)."""


@dataclass(frozen=True)
class _Chain:
    """The way of a gradient by a convolution's input to the normalisation that the input came from."""

    clipped: Operation
    """The gradient of relu."""
    added: Operation | None
    """What adds the gradient by the shortcut."""
    shortcut: int | None
    """That gradient."""
    normalised: Operation
    """The gradient of the normalisation."""


def _normalisation(trace: Trace, operation: Operation) -> Sequence[Any]:
    x = trace.env[operation.operand(0)]
    if not isinstance(x, ChannelsLast) or not _is_normalised_here(trace, operation, x.array):
        return trace.apply_rule(operation)
    _, mean, variance, scale, bias = trace.operands(operation)
    grouped = kernel.in_groups(x.array, groups_of(trace, operation, len(x.array)))
    wide = grouped.astype(jnp.float32)
    own_mean = wide.mean((1, 2, 3))
    own_variance = jnp.maximum(jnp.square(wide).mean((1, 2, 3)) - jnp.square(own_mean), 0)
    inverse = lax.rsqrt(own_variance + operation.attributes["epsilon"])
    trace.made[operation.result(0)] = Statistics(own_mean, inverse)
    factor = inverse * scale
    shift = bias - own_mean * factor
    y = (wide * factor[:, None, None, None] + shift[:, None, None, None]).astype(x.array.dtype).reshape(x.array.shape)
    running = moved(operation, (mean, own_mean), (variance, own_variance))
    return [ChannelsLast(y), *running, None, None, None]


def moved(operation: Operation, *pairs: tuple[jax.Array, jax.Array]) -> list[jax.Array]:
    """Running statistics, each with those of the batch's groups."""
    momentum = operation.attributes["momentum"]
    return [old * momentum + own.mean(0) * (1 - momentum) for old, own in pairs]


def _normalisation_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    statistics = trace.made.get(forward.result(0))
    if not isinstance(statistics, Statistics):
        return trace.apply_gradient(operation)
    x, by_y = trace.env[forward.operand(0)].array, trace.env[gradient_of(operation, "out")]
    scale, groups, count = trace.env[forward.operand(3)], len(statistics.mean), x.size // statistics.mean.size
    total, product = _sums(trace, operation, forward.operand(0), groups)
    by_scale = (product - statistics.mean * total) * statistics.inverse
    vectors = affine(statistics, scale, total, by_scale, count)
    by_x: ChannelsLast | kernel.Unmade
    if isinstance(by_y, pooling.Spread):
        assert trace.kernels is not None
        by_x = ChannelsLast(pooling.gradient(trace.kernels, by_y, x, *vectors))
    else:
        unmade = kernel.Unmade(channels_last_array(by_y), x, *vectors)
        by_x = unmade if _is_made_later(trace, operation) else ChannelsLast(unmade.made())
    found = {"x_grad": by_x, "scale_grad": by_scale.sum(0), "bias_grad": total.sum(0)}
    return [found[name] for name in operation.output_names]


def _sums(trace: Trace, operation: Operation, value: int, groups: int) -> tuple[jax.Array, jax.Array]:
    """[G, C]: of the gradient that a normalisation's gradient gets, and of its products with what was normalised."""
    x, by_y = trace.env[value].array, trace.env[gradient_of(operation, "out")]
    if isinstance(by_y, pooling.Spread):
        assert trace.kernels is not None
        return pooling.sums(trace.kernels, by_y, x, groups)
    summed = trace.made.get((source(trace, gradient_of(operation, "out")), value))
    if summed is not None:
        return summed.total, summed.product
    wide, pixels = (kernel.in_groups(array, groups).astype(jnp.float32) for array in (channels_last_array(by_y), x))
    return wide.sum((1, 2, 3)), (wide * pixels).sum((1, 2, 3))


def _is_made_later(trace: Trace, operation: Operation) -> bool:
    """Whether the gradient of a normalisation goes to a convolution whose gradients the kernels make."""
    readers = trace.uses.readers(operation.outputs[operation.output_names.index("x_grad")])
    product = readers[0] if _names(readers) == [f"{_CONVOLUTION}_grad"] else None
    return product is not None and chain_of(trace, product) is not None


def affine(
    statistics: Statistics, scale: jax.Array, by_bias: jax.Array, by_scale: jax.Array, count: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Factor, slope and shift, [G, C], by which the gradient comes of dy and x of `count` pixels a group."""
    factor = statistics.inverse * scale
    slope = -factor * statistics.inverse * by_scale / count
    return factor, slope, -factor * by_bias / count - slope * statistics.mean


def _convolution_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    by_result = trace.env[gradient_of(operation, "out")]
    if not isinstance(by_result, kernel.Unmade):
        return trace.apply_gradient(operation)
    forward, chain = trace.gradients.forward[operation.index], chain_of(trace, operation)
    assert chain is not None and trace.kernels is not None
    value = trace.gradients.forward[chain.normalised.index].operand(0)
    weight, pixels = _weight(trace, forward), trace.env[forward.operand(0)].array
    shortcut = None if chain.shortcut is None else trace.env[chain.shortcut].array
    normal = trace.env[value].array if isinstance(trace.env[value], ChannelsLast) else None
    summed = kernel.gradient(trace.kernels, by_result, weight, pixels, normal, shortcut)
    clipped = chain.clipped.result(0)
    trace.made[clipped] = ChannelsLast(summed.pixels)
    trace.made[clipped, value] = trace.made[clipped, None] = summed
    if chain.added is not None:
        trace.made[chain.added.result(0)] = None
    by_weight = kernel.by_weight(trace.kernels, pixels, by_result).T[:, :, None, None]
    found = {"input_grad": None, "filter_grad": by_weight}
    return [found[name] for name in operation.output_names]


def _already(trace: Trace, operation: Operation) -> Sequence[Any]:
    """What a kernel made with an earlier result."""
    value = operation.outputs[0]
    if value in trace.made:
        return [trace.made[value]]
    if operation.name == "pd_op.relu_grad" and isinstance(trace.env[gradient_of(operation, "out")], pooling.Spread):
        return [trace.env[gradient_of(operation, "out")]]
    return trace.apply_rule(operation) if operation.name == "pd_op.add_n" else trace.apply_gradient(operation)


def chain_of(trace: Trace, operation: Operation) -> _Chain | None:
    """How the gradient of a convolution by its input goes on; None if the kernels do not take it, or it goes elsewhere."""
    chain, forward = _way(trace, operation), trace.gradients.forward[operation.index]
    pixels = trace.env[forward.operand(0)]
    if chain is None or not isinstance(pixels, ChannelsLast) or not is_pointwise(trace, forward, pixels.array):
        return None
    normalisation = trace.gradients.forward[chain.normalised.index]
    beside = [trace.env.get(value) for value in (normalisation.inputs[0], chain.shortcut) if value is not None]
    beside = [item for item in beside if not isinstance(item, Unmultiplied)]
    if not all(isinstance(item, ChannelsLast) and item.array.shape == pixels.array.shape for item in beside):
        return None
    return chain if isinstance(trace.made.get(normalisation.result(0)), Statistics) else None


def _way(trace: Trace, operation: Operation) -> _Chain | None:
    """The same by the Program alone, whatever the arrays."""
    forward = trace.gradients.forward[operation.index]
    readers = trace.uses.readers(operation.outputs[operation.output_names.index("input_grad")])
    added, shortcut = None, None
    if _names(readers) == ["builtin.combine"]:
        terms = [value for value in readers[0].inputs if value not in operation.outputs]
        readers = trace.uses.readers(readers[0].result(0))
        if _names(readers) != ["pd_op.add_n"] or len(terms) != 1:
            return None
        added, shortcut = readers[0], terms[0]
        readers = trace.uses.readers(added.result(0))
    if _names(readers) != ["pd_op.relu_grad"]:
        return None
    (clipped,) = readers
    if clipped.operand(clipped.input_names.index("out")) != forward.operand(0):
        return None
    readers = trace.uses.readers(clipped.result(0))
    if _names(readers) == ["pd_op.add_grad"]:
        readers = [reader for value in readers[0].outputs for reader in trace.uses.readers(value)]
    normalised = [item for item in readers if item.name == "pd_op.batch_norm_grad"]
    return _Chain(clipped, added, shortcut, normalised[0]) if normalised else None


def _names(operations: Sequence[Operation]) -> list[str]:
    return [operation.name for operation in operations]


def source(trace: Trace, gradient: int) -> int:
    """The gradient of a sum that this one, by a term of the sum, is the same as."""
    producer = trace.uses.producer(gradient)
    return producer.operand(2) if producer is not None and producer.name == "pd_op.add_grad" else gradient


def gradient_of(operation: Operation, name: str) -> int:
    """The operand of an operation of the backward pass that is the gradient by the forward's `name`."""
    return operation.operand(operation.input_names.index(f"{name}_grad"))


def _is_normalised_here(trace: Trace, operation: Operation, x: jax.Array) -> bool:
    """Whether a convolution before or after a normalisation is one for the kernels.

    Its statistics may be rounded as products in bfloat16 are.
    """
    groups = groups_of(trace, operation, len(x))
    if not groups or is_pooled(trace, operation, x, groups):
        return groups > 0
    before = trace.uses.producer(operation.operand(0))
    if before is not None and before.name == _CONVOLUTION:
        pixels = trace.env[before.operand(0)]
        if isinstance(pixels, ChannelsLast) and _is_taken(trace, before, pixels.array):
            return True
    readers = trace.uses.readers(operation.result(0))
    sums = [item.result(0) for item in readers if item.name == "pd_op.add"]
    readers = [*readers, *(reader for value in sums for reader in trace.uses.readers(value))]
    clipped = [item.result(0) for item in readers if item.name == "pd_op.relu"]
    after = [item for value in clipped for item in trace.uses.readers(value) if item.name == _CONVOLUTION]
    return any(_is_taken(trace, item, x) for item in after)


def groups_of(trace: Trace, operation: Operation, samples: int) -> int:
    """Of how many groups of samples a normalisation of training takes statistics for the kernels; 0 if not for them."""
    attributes = operation.attributes
    fixed = attributes["is_test"] or attributes["use_global_stats"] or operation.index not in trace.gradients.wanted
    moves = operation.inputs[3] is not None and operation.inputs[4] is not None
    return 0 if fixed or not moves or not trace.policy.reduced else _groups(trace, samples)


def _groups(trace: Trace, samples: int) -> int:
    """All samples are one, or each device has whole groups."""
    size = trace.graph.statistics_batch or samples
    if trace.kernels is None or samples % size:
        return 0
    groups = samples // size
    return groups if groups == 1 or groups % trace.kernels.mesh.size == 0 else 0


def _is_taken(trace: Trace, operation: Operation, pixels: Any) -> bool:
    """Whether the kernels will take the gradients of a convolution, as far as it is known before."""
    forward = trace.gradients.forward
    gradients = [item for item in trace.uses.readers(operation.inputs[1]) if forward.get(item.index) is operation]
    return is_pointwise(trace, operation, pixels) and any(_way(trace, item) is not None for item in gradients)


def is_pointwise(trace: Trace, operation: Operation, pixels: Any) -> bool:
    """Whether a convolution of pixels [N, H, W, K] is a product of which the kernels take the gradients."""
    attributes, shape = operation.attributes, trace.graph.types[operation.operand(1)].shape
    if shape[2:] != (1, 1) or list(attributes["strides"]) != [1, 1] or any(attributes["paddings"]):
        return False
    if attributes["groups"] != 1 or not trace.policy.reduced or trace.inside or trace.kernels is None:
        return False
    groups = _groups(trace, len(pixels))
    return groups > 0 and kernel.fits(trace.kernels, pixels, shape[0], groups)


def _weight(trace: Trace, operation: Operation) -> jax.Array:
    """[C, K] of a kernel [C, K, 1, 1]."""
    return trace.env[operation.operand(1)][:, :, 0, 0].astype(jnp.bfloat16)


HANDLERS: dict[str, Handler] = {
    f"{_CONVOLUTION}_grad": _convolution_gradient,
    _NORMALISATION: _normalisation,
    "pd_op.batch_norm_grad": _normalisation_gradient,
    "pd_op.relu_grad": _already,
    "pd_op.add_n": _already,
}
