"""What of a network is trained, and how fast: flags, and what they make of the parameters of a Program."""

from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from fluid.config import Positive
from fluid.errors import UserError
from fluid.program import Value
from image_classification.models import layers

Freeze = Literal["none", "statistics", "backbone"]


@dataclass(frozen=True)
class Tuning:
    """Which parameters learn, and at which rates."""

    freeze: Freeze = "none"
    frozen: tuple[str, ...] = ()
    """Patterns of further parameters."""
    head_lr: Positive = 1.0
    first_layer_lr: Positive = 1.0

    def statistics(self) -> AbstractContextManager[None]:
        """Inside it batch normalisation is built with the statistics that it has, where those are frozen."""
        return nullcontext() if self.freeze == "none" else layers.kept_statistics()

    def set_up(self, parameters: list[Value], logits: tuple[Value, ...]) -> None:
        """Freeze parameters and set the factors of their rates.

        Args:
            parameters: all trainable ones of the Program, in the order of the network.
            logits: what the network ends in.

        Raises UserError if a pattern fits no parameter, or nothing would be trained.
        """
        for pattern in self.frozen:
            if not any(fnmatchcase(parameter.name, pattern) for parameter in parameters):
                shown = ", ".join(parameter.name for parameter in parameters[:3])
                raise UserError(f"--freeze_params {pattern}: no parameter is called so; they are {shown}, ...")
        head = {name for output in logits for name in head_of(output)}
        depths = list(depth_of(parameters))
        for parameter, depth in zip(parameters, depths, strict=True):
            by_name = any(fnmatchcase(parameter.name, pattern) for pattern in self.frozen)
            if by_name or (self.freeze == "backbone" and parameter.name not in head):
                parameter.trainable, parameter.stop_gradient = False, True
            factor = self.first_layer_lr ** (1 - depth / max(depths[-1], 1))
            parameter.optimize_attr = {"learning_rate": factor * (self.head_lr if parameter.name in head else 1.0)}
        if not any(parameter.trainable for parameter in parameters):
            raise UserError("--freeze and --freeze_params leave nothing to train")


def depth_of(parameters: list[Value]) -> Iterator[int]:
    """The number of its layer for each parameter, from 0: a matrix or kernel begins one, vectors belong to the one before."""
    depth = -1
    for parameter in parameters:
        depth += len(parameter.shape) > 1 or depth < 0
        yield depth


def head_of(logits: Value) -> set[str]:
    """The parameters of the last layer: of whatever has weights and is nearest before the logits."""
    found: set[str] = set()
    waiting = deque([logits])
    while waiting:
        operation = waiting.popleft().get_defining_op()
        operands = [value for value in operation.operands_source() if value.initialized()]
        own = [value for value in operands if value.get_defining_op().name() == "builtin.parameter"]
        found |= {value.name for value in own}
        if any(len(value.shape) > 1 for value in own):
            return found
        waiting += [value for value in operands if value.get_defining_op().name() != "builtin.parameter"]
    return found
