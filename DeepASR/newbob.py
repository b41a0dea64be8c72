"""The learning rate that dev decides: constant while frame accuracy grows, then half of it after every evaluation.

The schedule of QuickNet and of Kaldi's nnet1. What was decided is part of every checkpoint, so a run that goes on decides the same.
"""

from typing import Any

from fluid.interface import Interface
from fluid.schedule import Piecewise

HALF = 0.5
LEAST_GAIN = 0.5
"""Frame accuracy must grow by so many per cent from one evaluation to the next; the first time it does not, halving begins."""


class Newbob:
    """Sets the schedule of a Program.

    Args:
        program: that updates; its schedule is replaced.
        base: learning rate until halving begins.
        memory: what was decided, JSON-able, empty in the beginning; it is kept up to date for checkpoints to hold.
    """

    def __init__(self, program: Interface, base: float, memory: dict[str, Any]) -> None:
        self._program, self._base, self.memory = program, base, memory
        memory.setdefault("steps", [])
        self._set()

    def measured(self, step: int, accuracy: float) -> None:
        """Frame accuracy of dev in per cent after so many updates."""
        before = self.memory.get("accuracy")
        if self.memory["steps"] or (before is not None and accuracy - before < LEAST_GAIN):
            self.memory["steps"].append(step)
        self.memory["accuracy"] = accuracy
        self._set()

    def _set(self) -> None:
        steps = self.memory["steps"]
        rates = tuple(self._base * HALF**power for power in range(len(steps) + 1))
        self._program.schedule = Piecewise(tuple(steps), rates)
