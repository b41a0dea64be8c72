"""Learning-rate schedules: pure functions of the update count, stored as data.

A schedule holds no state, so resuming needs nothing but the step, and a captured Program carries its schedule as JSON.
`schedule(step)` is the learning rate of update number `step`, counted from 0.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constant:
    """The same learning rate for ever."""

    base: float

    def __call__(self, step: int) -> float:
        return self.base


@dataclass(frozen=True)
class Piecewise:
    """`values[i]` until update `boundaries[i]`, the last value afterwards; one value more than boundaries."""

    boundaries: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.boundaries) + 1:
            raise ValueError("Piecewise needs one value more than boundaries")

    def __call__(self, step: int) -> float:
        return self.values[sum(step >= boundary for boundary in self.boundaries)]


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from `base` to `end` over `total` updates (Loshchilov and Hutter, arXiv:1608.03983)."""

    base: float
    total: int
    end: float = 0.0

    def __call__(self, step: int) -> float:
        progress = min(step / self.total, 1.0)
        return self.end + (self.base - self.end) * 0.5 * (1.0 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class CosineByEpoch:
    """The cosine of the 2018 recipes: constant within an epoch, `base/2 * (cos(pi * epoch / epochs) + 1)`."""

    base: float
    steps_per_epoch: int
    epochs: int

    def __call__(self, step: int) -> float:
        epoch = min(step // self.steps_per_epoch, self.epochs)
        return self.base * 0.5 * (math.cos(math.pi * epoch / self.epochs) + 1.0)


@dataclass(frozen=True)
class Polynomial:
    """`(base - end) * (1 - step / total) ** power + end`; with power 1 the linear schedule."""

    base: float
    total: int
    end: float = 0.0
    power: float = 1.0

    def __call__(self, step: int) -> float:
        return (self.base - self.end) * (1.0 - min(step / self.total, 1.0)) ** self.power + self.end


@dataclass(frozen=True)
class Exponential:
    """`base * rate ** floor(step / every)`; without `staircase` the exponent is not rounded."""

    base: float
    every: float
    rate: float
    staircase: bool = True

    def __call__(self, step: int) -> float:
        exponent = step / self.every
        return self.base * self.rate ** (math.floor(exponent) if self.staircase else exponent)


@dataclass(frozen=True)
class Noam:
    """`scale * d_model**-0.5 * min(n**-0.5, n * warmup**-1.5)` with n = step + 1 (Vaswani et al., arXiv:1706.03762)."""

    d_model: int
    warmup: int
    scale: float = 1.0

    def __call__(self, step: int) -> float:
        update = step + 1
        return self.scale * self.d_model**-0.5 * min(update**-0.5, update * self.warmup**-1.5)


@dataclass(frozen=True)
class Warmup:
    """A line from `start` to the first value of `after` over `steps` updates, then `after`, counted from its own 0."""

    steps: int
    after: "Schedule"
    start: float = 0.0

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.after(step - self.steps)
        return self.start + (self.after(0) - self.start) * step / self.steps


Schedule = Constant | Piecewise | Cosine | CosineByEpoch | Polynomial | Exponential | Noam | Warmup
_KINDS = {kind.__name__: kind for kind in Schedule.__args__}


def to_json(schedule: Schedule) -> dict[str, Any]:
    """The schedule as plain data, `{"kind": "Cosine", "base": 0.1, ...}`; schedules inside schedules likewise."""
    data: dict[str, Any] = {"kind": type(schedule).__name__}
    for field in dataclasses.fields(schedule):
        value = getattr(schedule, field.name)
        data[field.name] = to_json(value) if isinstance(value, Schedule) else value
    return data


def from_json(data: dict[str, Any]) -> Schedule:
    """The inverse of `to_json`; raises ValueError for an unknown kind."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"unknown learning-rate schedule {kind!r}; known: {', '.join(_KINDS)}")
    for name, value in fields.items():
        if isinstance(value, dict):
            fields[name] = from_json(value)
        elif isinstance(value, list):
            fields[name] = tuple(value)
    return _KINDS[kind](**fields)
