"""The Programs that the flags of train.py describe; apart from it because only this needs Paddle."""

from typing import TYPE_CHECKING

from DeepASR.network import build_accumulating_training, build_evaluation, build_inference, build_stream, build_training
from DeepASR.sizes import Sizes
from fluid.optimizers import optimizer
from fluid.program import Program
from fluid.schedule import Schedule

if TYPE_CHECKING:
    from DeepASR.train import Flags


def build_programs(flags: "Flags", sizes: Sizes, schedule: Schedule) -> dict[str, Program]:
    """`train`, with accumulated gradients the pair of `train` and `apply`; and `eval`.

    Where they go to files, also what recognises: `infer` and `stream`.
    """
    common = (sizes, lambda: optimizer(flags), schedule, flags.averaging, flags.label_smoothing)
    evaluation = {"eval": build_evaluation(sizes)}
    if flags.capture is not None:
        evaluation |= {"infer": build_inference(sizes), "stream": build_stream(sizes)}
    if flags.accumulate_batches == 1:
        return {"train": build_training(*common), **evaluation}
    train, apply = build_accumulating_training(*common, batches=flags.accumulate_batches)
    return {"train": train, "apply": apply, **evaluation}
