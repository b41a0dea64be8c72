"""Gradients of a training Program, and the parameters that get none: for the tests of every task."""

from collections.abc import Callable, Mapping
from typing import Any

from fluid.engine.base import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.interface import Output
from fluid.program import Program, Value, initialise

import numpy as np
import paddle

Make = Callable[[Callable[[], Any]], Program]
"""Builds a training Program with the optimizer that it is given."""

PREFIX = "gradient of "


def gradients(
    make: Make, feed: Mapping[str, np.ndarray], engine: Engine | None = None, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """The gradient of the output `loss` by every trainable parameter.

    `make` builds the Program, as in `lambda optimizer: build(network, inputs, name="train", training=True,
    optimizer=optimizer)`; no parameter is updated. `engine` is the reference engine by default, `seed` that of the
    initial state. Parameters that the loss does not depend on at all are refused by `build`.
    """
    recorder = _Recorder()
    program = make(lambda: recorder)
    program.values.update(recorder.gradients)
    program.layers.update(dict.fromkeys(recorder.gradients, Output(None)))
    engine = engine or PaddleEngine()
    engine.load(initialise(program, seed=seed))
    results = engine.run(program, feed, fetch=list(recorder.gradients))
    return {name.removeprefix(PREFIX): np.asarray(gradient) for name, gradient in results.items()}


def without_gradient(
    make: Make, feed: Mapping[str, np.ndarray], engine: Engine | None = None, *, seed: int = 0
) -> list[str]:
    """Names of the trainable parameters whose gradient is exactly zero in every element; arguments as in `gradients`.

    Such a parameter is never trained: it is cut off from the loss, or inside a loop that Paddle does not differentiate
    (see `fluid.recurrent`).
    """
    return [name for name, gradient in gradients(make, feed, engine, seed=seed).items() if not gradient.any()]


class _Recorder:
    """In the place of an optimizer: appends the backward pass and keeps the gradients."""

    def __init__(self) -> None:
        self.gradients: dict[str, Value] = {}

    def minimize(self, loss: Value) -> tuple[list[Any], list[tuple[Value, Value | None]]]:
        pairs = paddle.static.append_backward(loss)
        self.gradients = {PREFIX + parameter.name: gradient for parameter, gradient in pairs if gradient is not None}
        return [], pairs
