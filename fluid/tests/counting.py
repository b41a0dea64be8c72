"""A run that only counts its steps, at no cost: what is tested with it is everything around a step. It imports no Paddle."""

from contextlib import contextmanager
from pathlib import Path

from fluid import checkpoint, trainer
from fluid.checkpoint import Meta, Resumed
from fluid.config import TrainFlags
from fluid.data import Batch
from fluid.engine import Engine
from fluid.interface import Interface, Output
from fluid.run import Run

import numpy as np


class Counting(Engine):
    """Its state is the number of steps; a step takes a second of the clock in `time`."""

    name, device = "test", "none"

    def __init__(self):
        self.count, self.fetched = 0, None

    def load(self, state):
        self.count = int(state["count"])

    def state(self, names=None):
        return {"count": np.array(self.count)}

    def run(self, program, feed, step=0, fetch=None):
        self.count, self.fetched = self.count + 1, fetch
        return {"loss": np.float32(feed["x"].mean()), "finite": np.ones(1, bool)}


PROGRAM = Interface(
    name="count",
    outputs={"loss": Output(None, scalar=True), "error": Output(0), "finite": Output(None)},
    schedule=lambda step: 0.1,
    guarded=["loss"],
)


def count_to(
    output_dir: Path, total: int, *, length: int = 1000, engine: Engine | None = None, evaluations=(), **flags
):
    """Train `Counting` on batches of two ones; the input ends after `length` of them."""

    @contextmanager
    def open_batches(start):
        yield (Batch({"x": np.ones((2, 3), np.float32)}, 2, 0, index) for index in range(start, length))

    options = TrainFlags(output_dir=output_dir, **flags)
    folder = None if options.checkpoint is None else checkpoint.find_newest(options.checkpoint)
    resumed = None if folder is None else Resumed(folder, *checkpoint.load(folder))
    meta = resumed.meta if resumed else Meta("count", 0)
    engine = engine or Counting()
    engine.load(resumed.state if resumed else {"count": np.array(0)})
    with Run(output_dir, options, task="count", resumed=resumed) as run:
        if resumed is not None:
            run.say_resumed(resumed)
        return trainer.train(
            run,
            engine,
            PROGRAM,
            open_batches,
            flags=options,
            steps_per_epoch=4,
            total_steps=total,
            evaluations=evaluations,
            meta=meta,
            resumed=resumed,
        )


def steps_of(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").iterdir())
