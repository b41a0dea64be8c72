"""The training Programs that the flags of train.py describe; apart from it because only this needs Paddle."""

from typing import TYPE_CHECKING

from fluid.errors import UserError
from fluid.program import Program, build, build_accumulating
from fluid.schedule import Schedule
from image_classification.classifier import Classifier
from image_classification.network import training_network

import paddle

if TYPE_CHECKING:
    from image_classification.train import Flags


def make_optimizer(flags: "Flags") -> paddle.optimizer.Optimizer:
    """The update rule; its learning rate is the Program's schedule."""
    common = {
        "learning_rate": flags.lr,
        "weight_decay": flags.l2_decay or None,
        "grad_clip": paddle.nn.ClipGradByGlobalNorm(flags.grad_clip) if flags.grad_clip else None,
    }
    match flags.optimizer:
        case "momentum":
            return paddle.optimizer.Momentum(momentum=flags.momentum_rate, **common)
        case "sgd":
            return paddle.optimizer.SGD(**common)
        case "adam":
            return paddle.optimizer.Adam(**common)
        case _:
            return paddle.optimizer.RMSProp(momentum=flags.momentum_rate, **common)


def training_programs(flags: "Flags", classifier: Classifier, rate: Schedule) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`."""
    group = flags.statistics_batch
    if group is not None and (group < 1 or flags.batch_size % group):
        raise UserError(f"--statistics_batch {group} does not divide --batch_size {flags.batch_size}")
    network, inputs = training_network(
        classifier,
        label_smoothing=flags.label_smoothing_epsilon if flags.use_label_smoothing else 0.0,
        mixup=flags.use_mixup,
    )
    common = {
        "optimizer": lambda: make_optimizer(flags),
        "schedule": rate,
        "ema_decay": flags.averaging,
        "statistics_batch": group,
    }
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}
