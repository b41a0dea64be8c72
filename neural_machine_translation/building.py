"""The Programs that the flags of train.py describe; apart from it because only this needs Paddle."""

from typing import TYPE_CHECKING

from fluid.optimizers import optimizer
from fluid.program import Program
from fluid.schedule import Schedule
from neural_machine_translation.network import evaluation_program, scoring_program, search_program, training_programs
from neural_machine_translation.translator import Transformer

if TYPE_CHECKING:
    from neural_machine_translation.train import Flags


def evaluation_programs(flags: "Flags", config: Transformer) -> dict[str, Program]:
    """What measures a translator and shows what it attends to."""
    return {
        "eval": evaluation_program(config),
        "search": search_program(config, flags.search()),
        "score": scoring_program(config),
    }


def updating_programs(flags: "Flags", config: Transformer, schedule: Schedule) -> dict[str, Program]:
    """`train`, with accumulated gradients the pair of `train` and `apply`."""
    train, apply = training_programs(
        config,
        label_smoothing=flags.label_smoothing,
        optimizer=lambda: optimizer(flags),
        schedule=schedule,
        accumulate_batches=flags.accumulate_batches,
        ema_decay=flags.averaging,
    )
    return {"train": train} if apply is None else {"train": train, "apply": apply}
