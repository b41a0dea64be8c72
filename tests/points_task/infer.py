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
from fluid import engine as engines
from fluid.arrays import read_npz, write_npz
from fluid.config import EngineFlags, ExportedFlags, WeightsFlags
from fluid.errors import UserError
from fluid.run import console, script
from points_task.network import inference_program, open_net

import numpy as np
import tyro


@dataclass
class Flags(WeightsFlags, ExportedFlags, EngineFlags):
    """Say on which side points lie."""

    points: Annotated[tuple[str, ...], tyro.conf.Positional] = ("1,1,1,1",)
    """Points as four numbers with commas."""
    feed: Path | None = None
    """An .npz with `point` [N, 4] float32."""
    fetch: Path | None = None
    """Where --feed's `logits` [N, 2] go."""


def main(flags: Flags) -> np.ndarray:
    """Classify and print, or run raw arrays; returns the logits."""
    if (flags.feed is None) != (flags.fetch is None):
        raise UserError("--feed and --fetch go together: raw inputs in, raw outputs out")
    feed = {"point": parse_points(flags.points)} if flags.feed is None else read_npz(flags.feed)
    opened = open_net(flags)
    if opened.exported is not None:
        outputs = opened.exported.run(feed)
    else:
        program = inference_program(opened.facts)
        engine, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed)
        engine.load({name: opened.state[name] for name in program.state_names})
        outputs = {name: np.asarray(array) for name, array in engine.run(program, feed).items()}
    if flags.fetch is not None:
        write_npz(flags.fetch, outputs)
    else:
        for words, logits in zip(flags.points, outputs["logits"], strict=True):
            console.print(f"{words}: {'above' if logits[1] > logits[0] else 'below'}", markup=False)
    return outputs["logits"]


def parse_points(words: tuple[str, ...]) -> np.ndarray:
    """[N, 4] float32. Raises UserError for what is not four numbers."""
    try:
        return np.array([[float(number) for number in word.split(",")] for word in words], np.float32).reshape(-1, 4)
    except ValueError:
        raise UserError(f"{' '.join(words)}: give points as four numbers with commas, 0.5,1,-2,0") from None


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
