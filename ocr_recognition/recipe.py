"""The recipes of 2018, as values of today's flags. Imports no paddle."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fluid import config as configuration

if TYPE_CHECKING:
    from ocr_recognition.train import Flags

COMMON = {
    "height": 48,
    "lr_strategy": "constant",
    "batch_size": 32,
    "max_steps": 720_000,
    "log_every": 1000,
    "save_every": 15_000,
    "eval_every": 15_000,
    "average_window": 0.15,
    "min_average_window": 10_000,
    "max_average_window": 12_500,
    "l2_decay": 4e-4,
}
OF_2018: Mapping[str, Mapping[str, Any]] = {
    "crnn_ctc": {**COMMON, "optimizer": "momentum", "momentum_rate": 0.9, "lr": 1e-3, "grad_clip": None},
    "attention": {**COMMON, "optimizer": "adadelta", "lr": 1.0, "grad_clip": 10.0, "beam_size": 2, "longest": 100},
}
"""Network -> flags; of attention since August 2018."""


def with_recipe(flags: "Flags") -> "Flags":
    """The flags with those of the recipe that the command line does not name."""
    if flags.recipe != "2018":
        return flags
    model = flags.model if "model" in configuration.named(flags) else "crnn_ctc"
    return configuration.with_recipe(flags, {"model": model, **OF_2018.get(model, COMMON)})
