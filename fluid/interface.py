"""What a Program says about itself, whether it was just built or read from a file: names, batch axes, schedule, averages.

`fluid.program.Program` and `fluid.engine.xla.graph.Graph` extend `Interface`, and trainers, metrics and engines ask for
no more than that; so whatever trains a built Program trains a captured one on a machine without Paddle.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fluid.schedule import Schedule

import numpy as np

LEARNING_RATE = "learning_rate_0"
"""Paddle's name for the variable that an optimizer reads; the engines write `schedule(step)` to it before each update."""

FINITE = "finite"
"""The output of a training Program that says what of `Interface.guarded` is a finite number, [len(guarded)] bool."""

WEIGHT_SUFFIX = "_weight"
EMA_SUFFIX = "_ema"
"""Behind a parameter's name: its exponential moving average."""


@dataclass(frozen=True)
class Window:
    """How many of the latest updates an average is over, as Fluid's `ModelAverage` said it.

    Once `least` updates, and `share` of all or `most`, are gathered, they become the updates before, and gathering starts
    anew; the average is over both.
    """

    share: float
    least: int = 10_000
    most: int = 12_500


@dataclass(frozen=True)
class Input:
    """A named input; `None` in `shape` is an axis whose length is known only when a batch is fed."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"
    batch: int | None = 0
    """The axis along which the samples of a batch lie: devices and processes each have a part of it. None: what is fed
    is the same on every device and in every process, such as boxes of all images in one list, or a mixing weight."""

    def __post_init__(self) -> None:
        if self.batch is not None and not 0 <= self.batch < len(self.shape):
            raise ValueError(
                f"input '{self.name}' {list(self.shape)} has no axis {self.batch} for its samples; batch=None says that it has none"
            )


@dataclass(frozen=True)
class Output:
    """What an output or layer is to those who run the Program."""

    batch: int | None = 0
    """Its axis of samples; None: whole, the same on every device."""
    scalar: bool = False
    """Whether it is a single number; of a training Program, one for the log."""


@dataclass(kw_only=True, eq=False)
class Interface:
    """A Program by name."""

    name: str
    inputs: dict[str, Input] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    layers: dict[str, Output] = field(default_factory=dict)
    """Intermediate values named by the network, for feature extraction."""
    carry: dict[str, str] = field(default_factory=dict)
    """Output -> the input that takes it in the next call of a stream (`Engine.stream`)."""
    schedule: Schedule | None = None
    """Learning rate by update count."""
    rate_dtype: str = "float32"
    """Type of the learning rate, that of the parameters."""
    state_names: list[str] = field(default_factory=list)
    """Parameters, statistics and optimizer accumulators that the Program reads or writes."""
    trainable: list[str] = field(default_factory=list)
    parameter_count: int = 0
    """Number of trainable scalars."""
    averages: dict[str, str] = field(default_factory=dict)
    """Name of an exponential moving average -> name of the parameter it follows."""
    guarded: list[str] = field(default_factory=list)
    """What the entries of the output `finite` speak of, in order."""
    statistics_batch: int | None = None
    """Consecutive samples that batch normalisation takes its statistics over; None: the whole batch. For the xla engine."""
    recurrent: bool = False
    """Whether layers run in a loop, step by step of a sequence: a recurrence, or a search that decodes. `build` finds it."""
    independent_rows: bool = False
    """No row of a batch depends on another, and none on chance: several devices may run the Program each on its own rows.

    Random operations would draw the same numbers on every device.
    """

    @property
    def scalars(self) -> list[str]:
        """The outputs that log lines show: single numbers, without the weights of others."""
        weights = {weight for name in self.outputs if (weight := self.weight_of(name)) is not None}
        return [name for name, output in self.outputs.items() if output.scalar and name not in weights]

    def weight_of(self, name: str) -> str | None:
        """The output `name_weight`, if there is one: `name` is then a quotient with this denominator.

        Its mean over batches is sum(name * name_weight) / sum(name_weight): a loss divided by the positives, words or
        frames of a batch counts every one of them alike, however many a batch has.
        """
        weight = name + WEIGHT_SUFFIX
        return weight if name in self.outputs and weight in self.outputs else None


def restart_averages(state: dict[str, np.ndarray], program: Interface) -> None:
    """Let every moving average in `state` start from its parameter, as after loading weights."""
    for average, parameter in program.averages.items():
        state[average] = state[parameter].copy()


def averaged(state: Mapping[str, np.ndarray], program: Interface) -> dict[str, np.ndarray]:
    """`state` with every parameter replaced by its moving average: the weights to evaluate with."""
    return {**state, **{parameter: state[average] for average, parameter in program.averages.items()}}
