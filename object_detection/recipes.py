"""What flags are where none is named: for the drawn shapes, and by the recipe of 2018; and the learning rate."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fluid import config as configuration
from fluid.optimizers import schedule
from fluid.schedule import Piecewise, Schedule
from fluid.session import Length

if TYPE_CHECKING:
    from object_detection.train import Flags

STEPS = "piecewise_decay"
VOC_EPOCHS, VOC_FACTORS = (40, 60, 80, 100), (1.0, 0.5, 0.25, 0.1, 0.01)
COCO_EPOCHS, COCO_FACTORS = (12, 19), (1.0, 0.5, 0.25)
OF_2018 = {
    "optimizer": "rmsprop",
    "momentum_rate": 0.0,
    "lr": 0.001,
    "lr_strategy": STEPS,
    "step_epochs": VOC_EPOCHS,
    "conv_lr": 0.1,
    "l2_decay": 5e-5,
    "batch_size": 64,
    "num_epochs": 120,
    "ap_version": "11point",
}
"""Flag -> value; the augmentation of then is the default. COCO has other steps, which only the data tell."""
OF_SHAPES = {
    "model": "ssd_mobilenet_v1_x0_25",
    "image_size": 96,
    "priors": "auto",
    "lr": 0.006,
    "lr_strategy": "cosine_decay_warmup",
    "batch_size": 16,
    "num_epochs": 13,
    "apply_distort": False,
    "apply_expand": False,
    "apply_crop": False,
}
"""A narrow network for small pictures, minutes on a CPU; flag -> value."""
WARMUP_STEPS = 100
"""Where no flag says it."""


def applied(flags: "Flags") -> "Flags":
    """The flags with what --recipe and the drawn shapes set, except what the command line names.

    A run that goes on and Programs from files remember what was set.
    """
    drawn = flags.data == "shapes" and flags.data_dir is None
    values = OF_2018 if flags.recipe == "2018" else OF_SHAPES if drawn else {}
    return configuration.with_recipe(flags, values)


def learning_rate(flags: "Flags", steps_per_epoch: int, *, coco: bool) -> Schedule:
    """By update: as the flags say; by the recipe of 2018 in steps, which are others for COCO."""
    if (flags.recipe, flags.lr_strategy, flags.step_epochs) == ("2018", STEPS, VOC_EPOCHS):
        epochs, factors = (COCO_EPOCHS, COCO_FACTORS) if coco else (VOC_EPOCHS, VOC_FACTORS)
        return Piecewise(
            tuple(epoch * steps_per_epoch for epoch in epochs), tuple(flags.lr * factor for factor in factors)
        )
    return schedule(flags, steps_per_epoch=steps_per_epoch, num_epochs=flags.num_epochs, warmup_steps=WARMUP_STEPS)


def lines_of_2018(say: Callable[[str], None], length: Length) -> Callable[[str, int, Mapping[str, Any]], None]:
    """Says the events of a run in the lines of 2018, for what reads these; the time is that of a batch in seconds."""

    def listen(kind: str, step: int, values: Mapping[str, Any]) -> None:
        epoch, batch = divmod(step - 1, length.steps_per_epoch)
        if kind == "train":
            seconds = length.batch_size / max(values["samples_per_second"], 1e-9)
            say(f"Pass {epoch}, batch {batch}, loss {values['loss']:.6f}, time {seconds:.5f}")
        elif kind == "eval":
            say(f"Pass {epoch}, test map {values.get('map', values.get('AP', 0.0)):.6f}")

    return listen
