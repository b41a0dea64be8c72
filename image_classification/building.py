"""The training Programs that the flags of train.py describe; apart from it because only this needs Paddle."""

from typing import TYPE_CHECKING

from fluid.errors import UserError
from fluid.optimizers import optimizer
from fluid.program import Program, build, build_accumulating
from fluid.schedule import Schedule
from image_classification.classifier import Classifier
from image_classification.finetuning import Tuning
from image_classification.network import training_network

import numpy as np

if TYPE_CHECKING:
    from image_classification.train import Flags


def training_programs(
    flags: "Flags", classifier: Classifier, rate: Schedule, weights: np.ndarray | None
) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`; `weights` of the classes."""
    group = flags.statistics_batch
    if group is not None and (group < 1 or flags.batch_size % group):
        raise UserError(f"--statistics_batch {group} does not divide --batch_size {flags.batch_size}")
    network, inputs = training_network(
        classifier,
        label_smoothing=flags.label_smoothing,
        mixing=flags.share_shape(*classifier.preprocess.image_shape[1:]),
        weights=weights,
        tuning=Tuning(flags.freeze, flags.freeze_params, flags.head_lr, flags.first_layer_lr),
    )
    common = {
        "optimizer": lambda: optimizer(flags),
        "schedule": rate,
        "ema_decay": flags.averaging,
        "statistics_batch": group,
    }
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}
