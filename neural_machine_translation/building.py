"""The Programs that the flags of train.py describe; apart from it because only this needs Paddle."""

from typing import TYPE_CHECKING

from fluid.program import Program
from fluid.schedule import Schedule
from neural_machine_translation.decode import Search
from neural_machine_translation.network import evaluation_program, scoring_program, search_program, training_programs
from neural_machine_translation.translator import Transformer

import paddle

if TYPE_CHECKING:
    from neural_machine_translation.train import Flags


def build_programs(flags: "Flags", config: Transformer, schedule: Schedule) -> dict[str, Program]:
    """`train`, with accumulated gradients the pair of `train` and `apply`; and those of the evaluation."""

    def optimizer() -> paddle.optimizer.Optimizer:
        clip = paddle.nn.ClipGradByGlobalNorm(flags.grad_clip) if flags.grad_clip else None
        return paddle.optimizer.Adam(1.0, flags.beta1, flags.beta2, flags.eps, grad_clip=clip)

    train, apply = training_programs(
        config,
        label_smoothing=flags.label_smooth_eps,
        optimizer=optimizer,
        schedule=schedule,
        accumulate_batches=flags.accumulate_batches,
        ema_decay=flags.averaging,
    )
    return {
        "train": train,
        **({} if apply is None else {"apply": apply}),
        "eval": evaluation_program(config),
        "search": search_program(config, Search(beam_size=flags.beam_size, max_out_len=flags.max_out_len)),
        "score": scoring_program(config),
    }
