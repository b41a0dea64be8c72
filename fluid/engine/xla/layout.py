"""Channels-last activations inside a Program written channels-first.

Tensor cores and CPU vector units want the channels of an image innermost, Programs are written [N, C, H, W]. So values
carry their layout while the Program is traced: convolutions, pooling and normalisation turn their images to
[N, H, W, C] once, elementwise operations pass the layout on, and a transposition appears only where an operation needs
the original order (usually none is left between the input image and the classifier). Gradients have the layout of the
value they belong to. A transposition written in the Program that only undoes one of these costs nothing.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)
AXIS_IN_LAST = (0, 3, 1, 2)
"""Where axis N, C, H, W of the Program lies in a channels-last array."""


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class ChannelsLast:
    """A value of the Program whose 4-d `array` is kept [N, H, W, C]."""

    array: Any

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.array,), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any]) -> "ChannelsLast":
        return cls(*leaves)


def channels_first(value: Any) -> Any:
    """The value in the Program's own order; lists element by element."""
    if isinstance(value, ChannelsLast):
        return jnp.transpose(value.array, TO_FIRST)
    if isinstance(value, list):
        return [channels_first(item) for item in value]
    return value


def channels_first_shape(value: ChannelsLast) -> tuple[int, ...]:
    """The shape that the Program sees."""
    return tuple(value.array.shape[axis] for axis in TO_FIRST)


def channels_last_array(value: Any) -> Any:
    """The plain [N, H, W, C] array of a 4-d value; what broadcasts against an image is turned likewise."""
    if isinstance(value, ChannelsLast):
        return value.array
    if isinstance(value, list):
        return [channels_last_array(item) for item in value]
    if value is None or value.ndim == 0 or value.size == 1:
        return value
    image_like = value.reshape((1,) * (4 - value.ndim) + value.shape)
    return jnp.transpose(image_like, TO_LAST)


def any_channels_last(value: Any) -> bool:
    """Whether the value, or one of a list, is kept channels-last."""
    if isinstance(value, list):
        return any(any_channels_last(item) for item in value)
    return isinstance(value, ChannelsLast)
