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


LARGE_GROUP = 256
"""Images that share batch statistics where no flag says it and the batch is a multiple (Goyal et al., arXiv:1706.02677)."""


def statistics_batch(flags: "Flags") -> int | None:
    """Images that share batch statistics; None for the whole batch.

    Groups that lie on one device each leave devices nothing to exchange but gradients. Raises UserError for some that do not
    divide the batch.
    """
    group = flags.statistics_batch
    if group is None:
        large = flags.engine != "paddle" and flags.batch_size > LARGE_GROUP and flags.batch_size % LARGE_GROUP == 0
        return LARGE_GROUP if large else None
    if flags.batch_size % group:
        raise UserError(f"--statistics_batch {group} does not divide --batch_size {flags.batch_size}")
    return group if group < flags.batch_size else None


def training_programs(
    flags: "Flags", classifier: Classifier, rate: Schedule, weights: np.ndarray | None
) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`; `weights` of the classes."""
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
        "statistics_batch": statistics_batch(flags),
    }
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}
