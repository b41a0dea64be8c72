"""Measure loss and accuracy over every point of a part exactly once."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, ResultFlags, WeightsFlags
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.records import say_measured, write_result
from fluid.run import console, script
from fluid.runner import Runner
from points_task.metrics import Accuracy
from points_task.net import Net, open_net
from points_task.reader import Points


@dataclass
class Flags(WeightsFlags, BatchFlags, ResultFlags, EngineFlags):
    """Measure loss and accuracy."""

    split: Literal["val", "train"] = "val"
    """Which part of the data."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print and return the figures."""
    began = time.perf_counter()
    opened = open_net(flags)
    runner = Runner(opened, flags)
    program, points = runner.program("eval", lambda: build_program(opened.facts)), Points(flags.split)
    result = measure(runner.engine, program, points, Accuracy(), batch_size=flags.test_batch_size).result()
    console.print(f"loss {result['loss']:.4f}, accuracy {result['accuracy']:.4f}")
    seconds = say_measured(len(points), "point", began)
    if flags.output_dir is not None:
        of = {"weights": opened.source, "data": flags.split}
        write_result(flags.output_dir, result, **of, samples=len(points), seconds=seconds)
    return result


def build_program(net: Net) -> Interface:
    """The evaluation Program, built with Paddle; nothing else here needs it."""
    from points_task.network import evaluation_program

    return evaluation_program(net)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
