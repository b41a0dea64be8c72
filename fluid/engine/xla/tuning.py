"""How rules are written for a platform where several ways give the same result at different speeds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """One field per choice; `for_platform` holds the measured ones."""

    channels_last: bool = True
    """Keep images [N, H, W, C] inside (layout.py)."""
    pointwise_as_matmul: bool = False
    """Write 1 x 1 convolutions of stride 1 as matrix products, into which XLA can fuse their neighbours."""
    window_as_matmuls: bool = False
    """Write k x k convolutions as k * k matrix products of shifted images."""
    shifted_depthwise: bool = False
    """Write depthwise convolutions as k * k shifted multiplications."""
    group_width: int = 0
    """Merge groups of a convolution, filling up with zeros, until each is as wide as this."""
    space_to_depth: bool = False
    """Write convolutions of stride 2 on images of at most 4 channels as convolutions of stride 1 on 2 x 2 blocks."""
    pool_gradient_by_gather: bool = False
    """Write the gradient of max pooling as a sum over window offsets instead of a scatter."""
    relu_mask: str = "input"
    """The gradient of relu compares its `input` or its `output`; `auto`: the output after an addition."""


DEFAULT = Tuning()


def for_platform(platform: str) -> Tuning:
    """The choice for `cpu` or `gpu`."""
    if platform == "gpu":
        return Tuning(group_width=64, space_to_depth=True, pool_gradient_by_gather=True, relu_mask="auto")
    return Tuning()
