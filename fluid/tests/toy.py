"""A task in miniature for the tests of the training loop: two classes of points, a net with batch norm and dropout.

Run as a script it trains like any train.py: `python toy.py --output_dir DIR [--checkpoint DIR] ...`.
"""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid import config as configuration
from fluid import engine as engines
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.data import evaluation_batches, training_batches
from fluid.interface import Input, averaged
from fluid.program import build, build_accumulating, initialise
from fluid.run import Run, script
from fluid.schedule import Cosine
from fluid.signals import leave_if_stopped
from fluid.tests.toy_points import Points
from fluid.trainer import Evaluation, Outcome, check_fits, resume, train

import numpy as np
import paddle
import paddle.nn.functional as F

INPUTS = [Input("point", (None, 4)), Input("label", (None,), "int64")]


@dataclass
class ToyFlags(TrainFlags):
    """Flags of the toy task."""

    batch_size: int = 8
    """Points a batch."""
    total_steps: int = 20
    """Updates in all."""
    accumulate: int = 1
    """Batches an update."""
    poison: str = ""
    """What goes wrong with one point: it is NaN (`input`), cannot be read (`reader`), or nothing."""
    epochs: int | None = None
    """Passes over the points after which the input ends; by default none."""
    pause: float = 0.0
    """Seconds a sample takes to read."""
    hidden: int = 16
    """Width of the hidden layer."""
    dropout: float = 0.2
    """Dropout of the hidden layer; engines draw different masks."""


def network(point: paddle.pir.Value, label: paddle.pir.Value, training: bool, hidden: int, dropout: float) -> dict:
    """One hidden layer with relu, which hides a NaN from the loss on the CPU."""
    first = paddle.nn.Linear(4, hidden, weight_attr=paddle.ParamAttr(name="fc1_w"), bias_attr=False)
    norm = paddle.nn.BatchNorm1D(hidden, name="bn1")
    norm.training = training
    x = F.dropout(F.relu(norm(first(point))), dropout, training=training)
    second = paddle.nn.Linear(hidden, 2, weight_attr=paddle.ParamAttr(name="fc2_w"), bias_attr=False)
    logits = second(x)
    losses = F.cross_entropy(logits, label, reduction="none")
    if training:
        return {"loss": losses.mean(), "accuracy": (logits.argmax(axis=1) == label).astype("float32").mean()}
    return {"losses": losses}


def main(flags: ToyFlags) -> Outcome:
    """Train on the points."""
    source = Points(poison=flags.poison, pause=flags.pause)
    steps_per_epoch = len(source) // flags.batch_size // flags.accumulate
    net = partial(network, hidden=flags.hidden, dropout=flags.dropout)
    common = {
        "optimizer": lambda: paddle.optimizer.Momentum(0.1, 0.9, weight_decay=1e-4),
        "schedule": Cosine(0.2, flags.total_steps),
        "ema_decay": 0.9,
    }
    if flags.accumulate == 1:
        program, apply = build(net, INPUTS, name="train", training=True, **common), None
    else:
        program, apply = build_accumulating(net, INPUTS, name="train", batches=flags.accumulate, **common)
    evaluation = build(net, INPUTS, name="eval")
    engine, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed, hosts=flags.hosts)
    shard = (engine.host_id, engine.num_hosts)

    state = initialise(*filter(None, (program, apply)), seed=flags.seed)
    resumed = resume(flags, "toy")
    meta = resumed.meta if resumed else Meta("toy", 0)
    if resumed:
        check_fits(resumed.state, state, flags.checkpoint)
        state = resumed.state
    engine.load(state)
    evaluator, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed)

    def evaluate() -> dict[str, float]:
        evaluator.load({name: averaged(engine.state(), apply or program)[name] for name in evaluation.state_names})
        with evaluation_batches(source, 8, shard=shard) as batches:
            losses = []
            for batch in batches:
                leave_if_stopped(engine)
                losses.append(np.asarray(evaluator.run(evaluation, batch.feed)["losses"])[: batch.size])
        return {"loss": float(engine.total(np.concatenate(losses).sum()) / len(source))}

    with Run(flags.output_dir, flags, task="toy", resumed=resumed, writes=engine.host_id == 0) as run:
        return train(
            run,
            engine,
            program,
            lambda start: training_batches(
                source,
                flags.batch_size,
                seed=flags.seed,
                start=start,
                num_epochs=flags.epochs,
                num_workers=flags.num_workers,
                shard=shard,
            ),
            flags=flags,
            steps_per_epoch=steps_per_epoch,
            total_steps=min(flags.total_steps, flags.max_steps or flags.total_steps),
            apply=apply,
            batches_per_step=flags.accumulate,
            evaluations=[Evaluation("eval", evaluate, decides="loss")],
            meta=meta,
            resumed=resumed,
        )


if __name__ == "__main__":
    script(lambda: main(configuration.parse(ToyFlags)))
