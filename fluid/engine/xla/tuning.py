"""How rules are written for a platform where several ways give the same result at different speeds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tuning:
    """One field per choice; `for_platform` holds the measured ones (benchmarks/xla_step.py measures them)."""

    pointwise_as_matmul: bool = False
    """Write 1 x 1 convolutions of stride 1 as matrix products."""
    shifted_depthwise: bool = False
    """Write depthwise convolutions as k * k shifted multiplications."""


DEFAULT = Tuning()


def for_platform(platform: str) -> Tuning:
    """The choice for `cpu` or `gpu`."""
    return Tuning(pointwise_as_matmul=True, shifted_depthwise=True) if platform == "cpu" else DEFAULT
