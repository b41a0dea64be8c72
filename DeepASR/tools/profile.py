"""Where the time of training goes, operation by operation, as tools/profile.py of 2018 told it.

    python tools/profile.py --feature_lst data/feature.lst --label_lst data/label.lst --max_batch_num 10 --sorted_key total
    python tools/profile.py                                the spoken commands that come along

Batches are timed on the engine that training would use; with --sorted_key, Paddle's executor then runs one of them again under its
profiler. `train.py --benchmark` tells reading and computing apart, benchmarks/DeepASR.py lists the kernels of a GPU.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    # In place of this folder, whose `profile` would hide Python's own.
    sys.path.pop(0)
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from DeepASR.corpus import Part, open_corpus
from DeepASR.legacy import read_labelled
from DeepASR.options import ALIASES, RETIRED, with_small_devices
from DeepASR.reader import Utterances
from DeepASR.recogniser import Normalisation, rounded
from DeepASR.sizes import Sizes
from DeepASR.transforms import add_deltas, read_statistics, statistics
from fluid import config as configuration
from fluid.config import Count, EngineFlags, Natural
from fluid.data import training_batches
from fluid.engine import Engine, create
from fluid.errors import UserError
from fluid.run import console, script

import numpy as np


@dataclass
class Flags(EngineFlags):
    """Time batches of training, and the operations of one."""

    feature_lst: Path | None = None
    """List of features (.lst); by default the spoken commands that come along."""
    label_lst: Path | None = None
    """List of their labels."""
    class_num: Count = 1749
    """Tied states of those labels."""
    mean_var: Path | None = None
    """Mean and variance of each column, a line each; by default those of the utterances."""
    batch_size: Count = 32
    """Utterances in a batch."""
    hidden_dim: Count = 1024
    """Cells of a recurrent layer."""
    proj_dim: Count = 512
    """Outputs of a recurrent layer."""
    stacked_num: Count = 5
    """Recurrent layers."""
    filters: Count = 32
    """Filters of the convolution."""
    learning_rate: float = 0.00016
    """Learning rate."""
    first_batches_to_skip: Natural = 1
    """Batches before the timing begins; compiling is not timed."""
    max_batch_num: Count = 11
    """Batches in all, at most."""
    print_train_acc: bool = False
    """Print loss and share of right answers of each batch."""
    sorted_key: Literal["None", "calls", "total", "max", "min", "ave"] = "None"
    """Profile a batch, operations in this order; None: do not."""


PADDLES_KEYS = {"calls": "CPUTotal", "total": "CPUTotal", "max": "CPUMax", "min": "CPUMin", "ave": "CPUAvg"}
"""Orders that Paddle's profiler has; of calls it has none, so their time stands in."""


def main(flags: Flags) -> dict[str, float]:
    """Time, print and return seconds a batch and frames a second."""
    if flags.first_batches_to_skip >= flags.max_batch_num:
        raise UserError("--first_batches_to_skip must be below --max_batch_num, or no batch is timed")
    part, class_num = part_of(flags)
    width = part[next(iter(part))].shape[1]
    sizes = Sizes(width, flags.stacked_num, flags.hidden_dim, flags.proj_dim, class_num, flags.filters)
    program = build(sizes, flags.learning_rate)
    engine, reason = create(flags.engine, flags.device, flags.precision, flags.seed, programs=[program])
    engine.load(initial(program, flags.seed))
    console.print(f"engine {engine.name} on {engine.device} ({reason})")
    seconds, frames = [], []
    feed: dict[str, np.ndarray] = {}
    lengths: set[tuple[int, ...]] = set()
    for number, feed in enumerate(batches(flags, part)):
        if feed["label"].shape not in lengths:
            # Compiles.
            engine.run(program, feed, number)
            lengths.add(feed["label"].shape)
        began = time.perf_counter()
        outputs = {name: np.asarray(value) for name, value in engine.run(program, feed, number).items()}
        seconds.append(time.perf_counter() - began)
        frames.append(int(feed["length"].sum()))
        shown = f", loss {outputs['loss']:.4f} accuracy {outputs['accuracy']:.4f}" if flags.print_train_acc else ""
        console.print(f"batch {number}: {frames[-1]} frames, {seconds[-1]:.4f} s{shown}")
    timed = slice(flags.first_batches_to_skip, None)
    if not seconds[timed]:
        raise UserError(f"the data make {len(seconds)} batches, all of which are skipped: give fewer to skip")
    result = {
        "seconds_a_batch": float(np.mean(seconds[timed])),
        "frames_per_second": sum(frames[timed]) / sum(seconds[timed]),
    }
    console.print(f"{result['seconds_a_batch']:.4f} s a batch, {result['frames_per_second']:.0f} frames/s")
    if flags.sorted_key != "None":
        profile(program, engine.state(), feed, PADDLES_KEYS[flags.sorted_key])
    return result


def part_of(flags: Flags) -> tuple[Part, int]:
    """Utterances with labels, and how many classes there are. Raises UserError for half of a pair of lists."""
    if (flags.feature_lst is None) != (flags.label_lst is None):
        raise UserError("--feature_lst and --label_lst go together")
    if flags.feature_lst is None or flags.label_lst is None:
        corpus = open_corpus(None)
        return corpus.part("train"), corpus.class_num
    return read_labelled(flags.feature_lst, flags.label_lst, flags.class_num), flags.class_num


def batches(flags: Flags, part: Part) -> Iterator[dict[str, np.ndarray]]:
    """The first batches of training."""
    if flags.mean_var is not None:
        known = read_statistics(flags.mean_var)
    else:
        known = statistics([add_deltas(part[name]) for name in list(part)[:200]])
    normalisation = Normalisation(rounded(known.mean), rounded(known.variance))
    source = Utterances(part, normalisation, batch_size=flags.batch_size, seed=flags.seed)
    plan = source.buckets.training_plan(seed=flags.seed)
    with training_batches(source, flags.batch_size, seed=flags.seed, num_epochs=1, plan=plan) as read:
        for _, batch in zip(range(flags.max_batch_num), read):
            yield dict(batch.feed)


def build(sizes: Sizes, rate: float) -> Any:
    """The training Program, built with Paddle."""
    from DeepASR.network import build_training
    from fluid.schedule import Constant

    import paddle

    return build_training(sizes, lambda: paddle.optimizer.Adam(rate), Constant(rate))


def initial(program: Any, seed: int) -> dict[str, np.ndarray]:
    """The state that training starts from."""
    from fluid.program import initialise

    return initialise(program, seed=seed)


def profile(program: Any, state: dict[str, np.ndarray], feed: dict[str, np.ndarray], key: str) -> None:
    """Print what Paddle's profiler says of the operations of a batch."""
    import paddle.profiler as profiling

    engine: Engine = create("paddle", "cpu", "fp32", 0)[0]
    engine.load(state)
    engine.run(program, feed, 0)
    # Without a handler it leaves its trace in ./profiler_log.
    profiler = profiling.Profiler(targets=[profiling.ProfilerTarget.CPU], on_trace_ready=lambda profiler: None)
    with profiler:
        engine.run(program, feed, 1)
        profiler.step()
    profiler.summary(sorted_by=getattr(profiling.SortedKeys, key), op_detail=True)


HERE = {name: now for name, now in ALIASES.items() if name != "learning_rate"}
"""Flags of 2018 that this script has by another name."""
RETIRED_HERE = {**RETIRED, "frame_dim": "the data tell how many features a frame has"}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_small_devices(), aliases=HERE, retired=RETIRED_HERE)))
