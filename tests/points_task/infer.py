"""Say on which side points lie.

python infer.py 0.5,1,-2,0 1,1,1,1
python infer.py --feed in.npz --fetch out.npz          `point` [N, 4] float32 -> `logits` [N, 2]
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import ArrayFlags, EngineFlags, ExportedFlags, WeightsFlags
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from points_task.net import Net, open_net

import numpy as np
import tyro


@dataclass
class Flags(WeightsFlags, ArrayFlags, ExportedFlags, EngineFlags):
    """Say on which side points lie."""

    points: Annotated[tuple[str, ...], tyro.conf.Positional] = ("1,1,1,1",)
    """Points as four numbers with commas."""
    feed: Path | None = None
    """Raw inputs: an .npz with `point` [N, 4] float32."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `logits` [N, 2]."""


def main(flags: Flags) -> np.ndarray | None:
    """Classify and print, or run raw arrays; returns the logits."""
    arrays = flags.arrays()
    opened = open_net(flags)
    runner, build = Runner(opened, flags), lambda: build_program(opened.facts)
    if arrays is not None:
        run_arrays(runner, build, *arrays)
        return None
    logits = np.asarray(
        runner.engine.run(runner.program("infer", build), {"point": parse_points(flags.points)})["logits"]
    )
    for words, (below, above) in zip(flags.points, logits, strict=True):
        console.print(f"{words}: {'above' if above > below else 'below'}")
    return logits


def build_program(net: Net) -> Interface:
    """The inference Program, built with Paddle; nothing else here needs it."""
    from points_task.network import inference_program

    return inference_program(net)


def parse_points(words: tuple[str, ...]) -> np.ndarray:
    """[N, 4] float32. Raises UserError for what is not four numbers."""
    try:
        return np.array([[float(number) for number in word.split(",")] for word in words], np.float32).reshape(-1, 4)
    except ValueError:
        raise UserError(f"{' '.join(words)}: give points as four numbers with commas, 0.5,1,-2,0") from None


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
