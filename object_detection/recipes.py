"""The recipe of 2018, by flags; and the learning rate."""

from typing import TYPE_CHECKING

from fluid import config as configuration
from fluid.optimizers import schedule
from fluid.schedule import Piecewise, Schedule

if TYPE_CHECKING:
    from object_detection.train import Flags

OF_2018 = {
    "optimizer": "rmsprop",
    "momentum_rate": 0.0,
    "lr": 0.001,
    "conv_lr": 0.1,
    "l2_decay": 5e-5,
    "batch_size": 64,
    "num_epochs": 120,
    "ap_version": "11point",
}
"""Flag -> value; the augmentation of then is the default."""
VOC_EPOCHS, VOC_FACTORS = (40, 60, 80, 100), (1.0, 0.5, 0.25, 0.1, 0.01)
COCO_EPOCHS, COCO_FACTORS = (12, 19), (1.0, 0.5, 0.25)
WARMUP_STEPS = 100
"""Where no flag says it."""


def applied(flags: "Flags") -> "Flags":
    """The flags with what --recipe sets, except what the command line names."""
    if flags.recipe == "own":
        return flags
    named = configuration.named(flags)
    return configuration.with_named(flags, {name: value for name, value in OF_2018.items() if name not in named})


def learning_rate(flags: "Flags", steps_per_epoch: int, *, coco: bool) -> Schedule:
    """By update: as the flags say; by the recipe of 2018 in steps, which are others for COCO."""
    if flags.recipe == "2018" and "lr_strategy" not in configuration.named(flags):
        epochs, factors = (COCO_EPOCHS, COCO_FACTORS) if coco else (VOC_EPOCHS, VOC_FACTORS)
        return Piecewise(
            tuple(epoch * steps_per_epoch for epoch in epochs), tuple(flags.lr * factor for factor in factors)
        )
    return schedule(flags, steps_per_epoch=steps_per_epoch, num_epochs=flags.num_epochs, warmup_steps=WARMUP_STEPS)
