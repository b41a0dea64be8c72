"""Learn on which side of a plane points lie."""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, Count, NotNegative, TrainFlags
from fluid.data import batches_per_epoch
from fluid.evaluator import Evaluator
from fluid.interface import Interface
from fluid.keeper import Evaluation
from fluid.pictures import Panel, draw_curves
from fluid.run import Run, events, script, show_summary
from fluid.schedule import Cosine
from fluid.session import fingerprint, settle
from fluid.trainer import Outcome
from points_task.metrics import Accuracy
from points_task.net import TASK, Net
from points_task.reader import Points


@dataclass
class Flags(BatchFlags, TrainFlags):
    """Learn on which side of a plane points lie."""

    batch_size: Count = 16
    """Points a batch."""
    num_epochs: Count = 10
    """Passes over the points."""
    lr: NotNegative = 0.1
    """Learning rate: that at the start, from where it falls to 0 in half a cosine."""
    hidden: Count = 16
    """Width of the hidden layer."""


def main(flags: Flags) -> Outcome:
    """Train as `flags` say; returns how the run ended."""
    settled = settle(flags, TASK)
    flags = settled.flags
    settled.refuse_changes("hidden")
    net = Net(flags.hidden)
    source, validation = Points("train"), Points("val")
    batches = batches_per_epoch(source, flags.batch_size)
    length = settled.length(batches, flags.num_epochs, batch_size=flags.batch_size)
    settled.refuse_other_length(length)
    programs = settled.programs(lambda: build_programs(flags, net, length.steps_per_epoch))
    settled.start_engine(batch_size=flags.batch_size)

    with settled.open(
        facts={"net": net.to_facts()},
        data={"points": fingerprint(f"{len(source)} and {len(validation)} generated points")},
    ) as session:
        evaluator = Evaluator(session, programs["eval"], validation, Accuracy, batch_size=flags.test_batch_size)
        return session.train(
            lambda start: session.batches(source, start),
            unit="points",
            evaluations=[Evaluation("eval", evaluator, decides="loss")],
            finish=lambda outcome: finish(session.run, outcome),
        )


def finish(run: Run, outcome: Outcome) -> None:
    """Draw the curve and print the summary."""
    folder, panels = run.output_dir, [Panel("loss", train="loss", evaluation="loss")]
    drawn = draw_curves(folder / "curves.png", panels, events(folder, "train"), events(folder, "eval"))
    show_summary("points", outcome.summary("points", {"loss": "loss", "accuracy": "accuracy"}))
    run.say_left([drawn])


def build_programs(flags: Flags, net: Net, steps_per_epoch: int) -> dict[str, Interface]:
    """The Programs by role, built with Paddle; nothing else here needs it. Files have those of infer.py too."""
    from points_task.network import evaluation_program, inference_program, training_program

    import paddle

    schedule = Cosine(flags.lr, flags.num_epochs * steps_per_epoch)
    train = training_program(net, lambda: paddle.optimizer.Momentum(flags.lr), schedule)
    programs = {"train": train, "eval": evaluation_program(net)}
    return {**programs, "infer": inference_program(net)} if flags.capture else programs


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
