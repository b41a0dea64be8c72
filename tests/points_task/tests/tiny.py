"""What tests/test_tasks.py needs to know about this task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.program import Program
from points_task.net import Net
from points_task.network import training_program as program
from points_task.reader import Points

import numpy as np

STEPS = (2, 3)
METRIC = "accuracy"
TRAIN = ("--batch_size", 8)
DEVICES: tuple[object, ...] = ()
OTHER_NETWORK = ("--hidden", 8)
OTHER_DATA = None
WITHOUT_PADDLE = [["0.5,1,-2,0"]]
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}


def data(folder: Path) -> tuple[object, ...]:
    """None: they are made from a seed."""
    return ()


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result["accuracy"]


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three points."""
    return {"point": rng.standard_normal((3, 4)).astype(np.float32)}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    return program(Net(8), make, None)


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch as the reader gives it."""
    samples = [Points().load(index, rng) for index in range(8)]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
