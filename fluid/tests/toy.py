"""A task in miniature for the tests of the training loop: two classes of points, a net with batch norm and dropout.

Run as a script it trains like any train.py: `python toy.py --output_dir DIR [--checkpoint DIR] ...`.
"""

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid import config as configuration
from fluid.averages import MeasuredWeights
from fluid.config import Count, Decay, NotNegative, TrainFlags
from fluid.data import Batches, evaluation_batches, training_batches
from fluid.interface import Input
from fluid.program import Program, build, build_accumulating
from fluid.run import script
from fluid.schedule import Cosine
from fluid.session import fingerprint, settle
from fluid.signals import leave_if_stopped
from fluid.tests.toy_points import Points
from fluid.trainer import Evaluation, Outcome

import numpy as np
import paddle
import paddle.nn.functional as F

INPUTS = [Input("point", (None, 4)), Input("label", (None,), "int64")]


@dataclass
class ToyFlags(TrainFlags):
    """Flags of the toy task."""

    batch_size: Count = 8
    """Points a batch."""
    points: Count = 64
    """Points in all."""
    total_steps: Count = 20
    """Updates in all."""
    accumulate: Count = 1
    """Batches an update."""
    poison: str = ""
    """What goes wrong with one point: it is NaN (`input`), cannot be read (`reader`), or nothing."""
    epochs: Count | None = None
    """Passes over the points after which the input ends; by default none."""
    pause: NotNegative = 0.0
    """Seconds a sample takes to read."""
    hidden: Count = 16
    """Width of the hidden layer."""
    lr: NotNegative = 0.2
    """Learning rate at the start."""
    classes: tuple[str, ...] = ("below", "above")
    """Names of the classes."""
    dropout: Decay = 0.2
    """Dropout of the hidden layer; engines draw different masks."""
    data_dir: Path | None = None
    """Folder that is remembered, and not read."""


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
    settled = settle(flags, "toy")
    flags = settled.flags
    settled.refuse_changes("dropout")
    source = Points(flags.points, poison=flags.poison, pause=flags.pause)
    epochs = 2 + flags.total_steps * flags.batch_size * flags.accumulate // len(source)
    length = settled.length(
        len(source) // flags.batch_size, epochs, batch_size=flags.batch_size, accumulate=flags.accumulate
    )
    settled.planned = replace(length, total_steps=min(flags.total_steps, flags.max_steps or flags.total_steps))
    programs = settled.programs(lambda: build_programs(flags))
    engine = settled.start_engine(batch_size=flags.batch_size)
    shard = (engine.host_id, engine.num_hosts)

    def open_batches(start: int) -> Batches:
        options = {"seed": flags.seed, "start": start, "num_epochs": flags.epochs, "num_workers": flags.num_workers}
        return training_batches(source, flags.batch_size, shard=shard, **options)

    with settled.open(
        facts={"classes": list(flags.classes)},
        data={"points": fingerprint(f"{len(source)} points")},
    ) as session:
        evaluation = programs["eval"]
        weights = MeasuredWeights(engine, session.update, evaluation.state_names, flags)

        def evaluate() -> dict[str, float]:
            evaluator, losses = weights.engine(), []
            with evaluation_batches(source, 8, shard=shard) as batches:
                for batch in batches:
                    leave_if_stopped(engine)
                    losses.append(np.asarray(evaluator.run(evaluation, batch.feed)["losses"])[: batch.size])
            return {"loss": float(engine.total(np.concatenate(losses).sum()) / len(source))}

        return session.train(open_batches, unit="points", evaluations=[Evaluation("eval", evaluate, decides="loss")])


def build_programs(flags: ToyFlags) -> dict[str, Program]:
    """The Programs by role."""
    net = partial(network, hidden=flags.hidden, dropout=flags.dropout)
    common = {
        "optimizer": lambda: paddle.optimizer.Momentum(0.1, 0.9, weight_decay=1e-4),
        "schedule": Cosine(flags.lr, flags.total_steps),
        "ema_decay": 0.9,
    }
    evaluation = {"eval": build(net, INPUTS, name="eval")}
    if flags.accumulate == 1:
        return {"train": build(net, INPUTS, name="train", training=True, **common), **evaluation}
    train, apply = build_accumulating(net, INPUTS, name="train", batches=flags.accumulate, **common)
    return {"train": train, "apply": apply, **evaluation}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(ToyFlags)))
