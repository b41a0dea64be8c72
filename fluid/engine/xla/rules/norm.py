"""Normalisation. Statistics are float32 or wider whatever the type of the activations."""

from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
from jax import lax


@rule("batch_norm_", "batch_norm", "sync_batch_norm_", kind=Kind.OWN, images=("x",), prefers_channels_last=True)
def batch_norm(
    op: Call, x: jax.Array, mean: jax.Array, variance: jax.Array, scale: jax.Array | None, bias: jax.Array | None
) -> tuple[Any, ...]:
    """Batch normalisation (Ioffe and Szegedy, arXiv:1502.03167); statistics over the global batch of all devices.

    With `op.statistics_batch` they are those of so many consecutive samples (Hoffer et al., arXiv:1705.08741), and the
    running ones follow their mean. Devices that hold whole groups then exchange nothing before the gradients.
    Paddle keeps the biased variance in `variance`. Unless the policy is exact it is E[x^2] - E[x]^2, both sums from one
    pass over x: the rounding of that form is below that of bfloat16 and TensorFloat-32 products, not of float32 ones.
    """
    wide = jnp.promote_types(x.dtype, jnp.float32)
    channel, shape = (x.ndim - 1 if op.channels_last else 1), x.shape
    if op["is_test"] or op["use_global_stats"]:
        used_mean, used_variance = mean, variance
        mean_out, variance_out = mean, variance
    else:
        x = _in_groups(op, x)
        grouped = x.ndim > len(shape)
        channel += grouped
        axes = tuple(axis for axis in range(int(grouped), x.ndim) if axis != channel)
        used_mean = jnp.mean(x.astype(wide), axes)
        if not op.policy.exact:
            square = jnp.mean(jnp.square(x.astype(wide)), axes)
            used_variance = jnp.maximum(square - jnp.square(used_mean), 0)
        else:
            used_variance = jnp.mean(jnp.square(x - _along(used_mean, x, channel)), axes)
        momentum = op["momentum"]
        seen_mean, seen_variance = (
            lax.stop_gradient(jnp.mean(value, 0) if grouped else value) for value in (used_mean, used_variance)
        )
        mean_out = mean * momentum + seen_mean * (1 - momentum)
        variance_out = variance * momentum + seen_variance * (1 - momentum)
    inverse = lax.rsqrt(used_variance + op["epsilon"])
    factor = inverse if scale is None else inverse * scale
    shift = -used_mean * factor if bias is None else bias - used_mean * factor
    y = x.astype(wide) * _along(factor, x, channel) + _along(shift, x, channel)
    # Nothing but batch_norm_grad reads the rest: the statistics used and cuDNN's workspace.
    return y.astype(x.dtype).reshape(shape), mean_out, variance_out, None, None, None


def _in_groups(op: Call, x: jax.Array) -> jax.Array:
    """[N, ...] as [groups, samples, ...] if the Program wants statistics of fewer samples than these."""
    size = op.statistics_batch
    if size is None or len(x) == size:
        return x
    if len(x) % size:
        raise EngineError(f"{op.operation}: a batch of {len(x)} samples is no multiple of its statistics_batch, {size}")
    return x.reshape(-1, size, *x.shape[1:])


def _along(vector: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """[C], or [groups, C] for an `x` in groups, so that it meets the channels on `axis`."""
    shape = [1] * x.ndim
    shape[axis] = vector.shape[-1]
    if vector.ndim == 2:
        shape[0] = len(vector)
    return vector.reshape(shape)


@rule("layer_norm", kind=Kind.OWN)
def layer_norm(op: Call, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> tuple[Any, ...]:
    """Normalise over all axes from `begin_norm_axis` on (Ba et al., arXiv:1607.06450)."""
    first = op["begin_norm_axis"] % x.ndim
    axes = tuple(range(first, x.ndim))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axes, keepdims=True)
    variance = jnp.mean(jnp.square(wide - mean), axes, keepdims=True)
    y = (wide - mean) * lax.rsqrt(variance + op["epsilon"])
    inner = x.shape[first:]
    y = y if scale is None else y * scale.reshape(inner)
    y = y if bias is None else y + bias.reshape(inner)
    outer = x.shape[:first]
    return y.astype(x.dtype), mean.reshape(outer), variance.reshape(outer)


@rule("instance_norm", kind=Kind.OWN, images=("x",))
def instance_norm(op: Call, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> tuple[Any, ...]:
    channel = x.ndim - 1 if op.channels_last else 1
    axes = tuple(axis for axis in range(1, x.ndim) if axis != channel)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = jnp.mean(wide, axes, keepdims=True)
    inverse = lax.rsqrt(jnp.mean(jnp.square(wide - mean), axes, keepdims=True) + op["epsilon"])
    y = (wide - mean) * inverse
    y = y if scale is None else y * _along(scale, x, channel)
    y = y if bias is None else y + _along(bias, x, channel)
    return y.astype(x.dtype), mean.reshape(-1), inverse.reshape(-1)


@rule("group_norm", kind=Kind.OWN)
def group_norm(op: Call, x: jax.Array, scale: jax.Array | None, bias: jax.Array | None) -> tuple[Any, ...]:
    """Group normalisation (Wu and He, arXiv:1803.08494)."""
    channel = x.ndim - 1 if op.channels_last else 1
    groups = op["groups"]
    wide = jnp.moveaxis(x.astype(jnp.promote_types(x.dtype, jnp.float32)), channel, 1)
    grouped = wide.reshape(x.shape[0], groups, -1)
    mean = jnp.mean(grouped, 2, keepdims=True)
    variance = jnp.mean(jnp.square(grouped - mean), 2, keepdims=True)
    y = ((grouped - mean) * lax.rsqrt(variance + op["epsilon"])).reshape(wide.shape)
    y = y if scale is None else y * _along(scale, wide, 1)
    y = y if bias is None else y + _along(bias, wide, 1)
    return jnp.moveaxis(y, 1, channel).astype(x.dtype), mean[..., 0], variance[..., 0]
