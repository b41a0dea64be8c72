"""Learn on which side of a plane points lie."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.data import training_batches
from fluid.keeper import Evaluation
from fluid.program import initialise
from fluid.run import Run, script
from fluid.schedule import Cosine
from fluid.trainer import Outcome, check_fits, resume, train
from points_task.metrics import measure
from points_task.network import TASK, Net, evaluation_program, training_program
from points_task.reader import Points

import paddle


@dataclass
class Flags(TrainFlags):
    """Learn on which side of a plane points lie."""

    batch_size: int = 16
    """Points a batch."""
    num_epochs: int = 10
    """Passes over the points."""
    lr: float = 0.1
    """Learning rate at the start, from where it falls to 0 in half a cosine."""
    hidden: int = 16
    """Width of the hidden layer."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    resumed = resume(flags, TASK)
    net = Net.from_facts(resumed.meta.extra["net"]) if resumed else Net(flags.hidden)
    source, validation = Points("train"), Points("val")
    steps_per_epoch = len(source) // flags.batch_size
    total_steps = flags.num_epochs * steps_per_epoch
    program = training_program(net, lambda: paddle.optimizer.Momentum(flags.lr), Cosine(flags.lr, total_steps))
    evaluation = evaluation_program(net)

    engine, reason = engines.create(flags.engine, flags.device, flags.precision, flags.seed, hosts=flags.hosts)
    engine.check_batch_size(flags.batch_size)
    state = initialise(program, seed=flags.seed)
    if resumed:
        check_fits(resumed.state, state, flags.checkpoint)
        state = resumed.state
    engine.load(state)
    meta = resumed.meta if resumed else Meta(TASK, 0, extra={"net": net.to_facts()})
    shard = (engine.host_id, engine.num_hosts)
    read = partial(
        training_batches, source, flags.batch_size, seed=flags.seed, num_workers=flags.num_workers, shard=shard
    )
    with Run(flags.output_dir, flags, task=TASK, resumed=resumed, writes=engine.host_id == 0) as run:
        run.say(f"engine {engine.name} on {engine.device} ({reason}), {len(source)} points")
        return train(
            run,
            engine,
            program,
            lambda start: read(start=start),
            flags=flags,
            steps_per_epoch=steps_per_epoch,
            total_steps=min(total_steps, flags.max_steps or total_steps),
            evaluations=[Evaluation("eval", lambda: measure(engine, evaluation, validation, 50), decides="loss")],
            meta=meta,
            resumed=resumed,
        )


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
