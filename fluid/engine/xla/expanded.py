"""Bottlenecks' last products, which are normalised, added to a shortcut and clipped: the kernels of `kernels/expansion.py`.

Between a convolution and the relu, values of the Program are not arrays: a product that is not multiplied, one that is normalised
by its weight, a sum of such. Relu makes an array of them; the gradients that go back make what they need of the pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from fluid.engine.xla import normalised
from fluid.engine.xla.graph import Operation
from fluid.engine.xla.kernels import expansion as kernel
from fluid.engine.xla.kernels import pointwise
from fluid.engine.xla.kernels.expansion import Unmultiplied
from fluid.engine.xla.layout import ChannelsLast, channels_last_array
from fluid.engine.xla.normalised import Statistics, affine, gradient_of, is_pointwise, moved, source
from fluid.engine.xla.trace import Handler, Trace

import jax
import jax.numpy as jnp
from jax import lax

_CONVOLUTION, _NORMALISATION, _ADD, _RELU = "pd_op.conv2d", "pd_op.batch_norm_", "pd_op.add", "pd_op.relu"

_dot = partial(jnp.dot, precision=lax.Precision.HIGHEST)


@dataclass(frozen=True)
class _Sum:
    """Normalised products, and what they are added to."""

    terms: list[kernel.Term]
    shift: jax.Array
    """[G, C]."""
    shortcut: jax.Array | None = None


@dataclass(frozen=True)
class _Gradient:
    """By a product that is not there: factor dz + slope y + shift, [G, C] each, of dz [N, H, W, C]."""

    by_sum: jax.Array
    by_weight: jax.Array
    """[G, K, C]: pixels by dz."""
    factor: jax.Array
    slope: jax.Array
    shift: jax.Array


def _convolution(trace: Trace, operation: Operation) -> Sequence[Any]:
    pixels = trace.env[operation.operand(0)]
    if not isinstance(pixels, ChannelsLast) or not _is_expansion(trace, operation, pixels.array):
        return trace.apply_rule(operation)
    assert trace.kernels is not None
    weight = trace.env[operation.operand(1)][:, :, 0, 0].T.astype(jnp.bfloat16)
    norm = _only(trace, operation, _NORMALISATION)
    assert norm is not None
    groups = normalised.groups_of(trace, norm, len(pixels.array))
    found = kernel.moments(trace.kernels, pixels.array, groups)
    return [Unmultiplied(pixels.array, weight, found)]


def _normalisation(trace: Trace, operation: Operation) -> Sequence[Any]:
    product = trace.env[operation.operand(0)]
    if not isinstance(product, Unmultiplied):
        return normalised.HANDLERS[operation.name](trace, operation)  # type: ignore[return-value]
    _, mean, variance, scale, bias = trace.operands(operation)
    weight, count = product.weight.astype(jnp.float32), product.pixels.size // product.moments.total.size
    mean_pixel = product.moments.total / count
    covariance = product.moments.products / count - mean_pixel[:, :, None] * mean_pixel[:, None]
    own_mean = _dot(mean_pixel, weight)
    own_variance = jnp.maximum((weight * _dot(covariance, weight)).sum(1), 0)
    inverse = lax.rsqrt(own_variance + operation.attributes["epsilon"])
    trace.made[operation.result(0)] = Statistics(own_mean, inverse)
    factor = inverse * scale
    term = kernel.Term(product.pixels, (weight * factor[:, None]).astype(jnp.bfloat16))
    running = moved(operation, (mean, own_mean), (variance, own_variance))
    return [_Sum([term], bias - own_mean * factor), *running, None, None, None]


def _addition(trace: Trace, operation: Operation) -> Sequence[Any]:
    sums = [value for value in trace.operands(operation) if isinstance(value, _Sum)]
    if not sums:
        return trace.apply_rule(operation)
    arrays = [channels_last_array(value) for value in trace.operands(operation) if not isinstance(value, _Sum)]
    shift = sum((item.shift for item in sums[1:]), sums[0].shift)
    return [_Sum([term for item in sums for term in item.terms], shift, arrays[0] if arrays else None)]


def _clipping(trace: Trace, operation: Operation) -> Sequence[Any]:
    value = trace.env[operation.operand(0)]
    if not isinstance(value, _Sum):
        return trace.apply_rule(operation)
    assert trace.kernels is not None
    return [ChannelsLast(kernel.join(trace.kernels, value.terms, value.shift, value.shortcut))]


def _clipping_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    if operation.result(0) in trace.made or not isinstance(trace.env.get(forward.operand(0)), _Sum):
        return normalised.HANDLERS[operation.name](trace, operation)  # type: ignore[return-value]
    pixels, by_pixels = trace.env[forward.result(0)].array, trace.env[gradient_of(operation, "out")]
    return [ChannelsLast(jnp.where(pixels > 0, channels_last_array(by_pixels).astype(pixels.dtype), 0))]


def _addition_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    if not isinstance(trace.env.get(forward.result(0)), _Sum):
        return trace.apply_gradient(operation)
    return [trace.env[gradient_of(operation, "out")]] * len(operation.outputs)


def _normalisation_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    forward = trace.gradients.forward[operation.index]
    product = trace.env.get(forward.operand(0))
    if not isinstance(product, Unmultiplied):
        return normalised.HANDLERS[operation.name](trace, operation)  # type: ignore[return-value]
    assert trace.kernels is not None
    by_sum = channels_last_array(trace.env[gradient_of(operation, "out")])
    summed = trace.made.get((source(trace, gradient_of(operation, "out")), None))
    statistics, scale = trace.made[forward.result(0)], trace.env[forward.operand(3)]
    groups = len(statistics.mean)
    wide = pointwise.in_groups(by_sum, groups).astype(jnp.float32)
    by_bias = wide.sum((1, 2, 3)) if summed is None else summed.total
    by_weight = kernel.products(trace.kernels, product.pixels, by_sum, groups)
    by_factor = (product.weight.astype(jnp.float32) * by_weight).sum(1)
    by_scale = (by_factor - statistics.mean * by_bias) * statistics.inverse
    vectors = affine(statistics, scale, by_bias, by_scale, by_sum.size // statistics.mean.size)
    by_x = _Gradient(by_sum, by_weight, *vectors)
    found = {"x_grad": by_x, "scale_grad": by_scale.sum(0), "bias_grad": by_bias.sum(0)}
    return [found[name] for name in operation.output_names]


def _convolution_gradient(trace: Trace, operation: Operation) -> Sequence[Any]:
    by_result = trace.env[gradient_of(operation, "out")]
    if not isinstance(by_result, _Gradient):
        return normalised.HANDLERS[operation.name](trace, operation)  # type: ignore[return-value]
    product = trace.env[trace.gradients.forward[operation.index].result(0)]
    weight, moments = product.weight.astype(jnp.float32), product.moments
    factor, slope, shift = (vector[:, None] for vector in (by_result.factor, by_result.slope, by_result.shift))
    of_weight = (
        by_result.by_weight * factor + _dot(moments.products, weight) * slope + moments.total[:, :, None] * shift
    )
    turned = (weight * factor).swapaxes(1, 2).astype(jnp.bfloat16)
    matrix = _dot(weight * slope, weight.T).astype(jnp.bfloat16)
    operands = by_result.by_sum, turned, product.pixels, matrix, _dot(by_result.shift, weight.T)
    by_pixels, by_weight = _by_pixels(trace, operation, operands), of_weight.sum(0).T[:, :, None, None]
    found = {"input_grad": by_pixels, "filter_grad": by_weight}
    return [found[name] for name in operation.output_names]


def _by_pixels(trace: Trace, operation: Operation, operands: Sequence[jax.Array]) -> ChannelsLast | None:
    """A gradient by a convolution's pixels, as an array or by the kernel, which makes what relu and normalisation need."""
    by_sum, turned, pixels, matrix, shift = operands
    chain = normalised.chain_of(trace, operation)
    value = -1 if chain is None else trace.gradients.forward[chain.normalised.index].operand(0)
    if chain is None or chain.shortcut is not None or isinstance(trace.env[value], Unmultiplied):
        wide = partial(jnp.einsum, "gnhwc,gck->gnhwk", preferred_element_type=jnp.float32)
        both = [wide(pointwise.in_groups(x, len(shift)), y) for x, y in ((by_sum, turned), (pixels, matrix))]
        return ChannelsLast((sum(both) + shift[:, None, None, None]).astype(pixels.dtype).reshape(pixels.shape))
    assert trace.kernels is not None
    summed = kernel.gradient(trace.kernels, by_sum, turned, pixels, matrix, shift, trace.env[value].array)
    trace.made[chain.clipped.result(0)] = ChannelsLast(summed.pixels)
    trace.made[chain.clipped.result(0), value] = summed
    return None


def _is_expansion(trace: Trace, operation: Operation, pixels: jax.Array) -> bool:
    """Whether a convolution is one of those, and so are all its ways to the end and back."""
    channels = trace.graph.types[operation.operand(1)].shape[0]
    if not is_pointwise(trace, operation, pixels) or channels <= pixels.shape[-1]:
        return False
    norm = _only(trace, operation, _NORMALISATION)
    groups = 0 if norm is None else normalised.groups_of(trace, norm, len(pixels))
    if norm is None or norm.operand(0) != operation.result(0) or not groups:
        return False
    added = _only(trace, norm, _ADD)
    if added is None or len({trace.graph.types[value].shape for value in (*added.inputs, *added.outputs)}) > 1:  # type: ignore[index]
        return False
    return operation.index in trace.gradients.wanted and _only(trace, added, _RELU) is not None


def _only(trace: Trace, operation: Operation, name: str) -> Operation | None:
    """What takes the result of an operation, if it is one of this name and its gradient."""
    readers = trace.uses.readers(operation.result(0))
    found = [item for item in readers if item.name == name]
    others = {item.name for item in readers} - {name, f"{name.removesuffix('_')}_grad"}
    return found[0] if len(found) == 1 and not others else None


HANDLERS: dict[str, Handler] = {
    _CONVOLUTION: _convolution,
    f"{_CONVOLUTION}_grad": _convolution_gradient,
    _NORMALISATION: _normalisation,
    "pd_op.batch_norm_grad": _normalisation_gradient,
    _ADD: _addition,
    f"{_ADD}_grad": _addition_gradient,
    _RELU: _clipping,
    f"{_RELU}_grad": _clipping_gradient,
}
