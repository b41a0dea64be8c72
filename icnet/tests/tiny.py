"""What tests/test_tasks.py needs to know about this task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.program import Program, build
from icnet.classes import CITYSCAPES, CLASS_FILE
from icnet.network import training_network
from icnet.segmenter import Segmenter
from icnet.streets.files import write_streets

import numpy as np

STEPS = (2, 3)
METRIC = "miou"
CROP = (128, 128)
OUTPUTS = ("--outputs", "sub4", "sub24", "sub124", "logits")
BLOCKS = (1, 1, 1, 1)
SIZES = ("--width", 0.25, "--blocks", *BLOCKS, "--crop", *CROP, "--batch_size", 2, "--test_batch_size", 2)
# Paddle prepares a Program with momentum in half the time of one with Adam and its many variables.
TRAIN = (*SIZES, "--optimizer", "momentum")
EVAL = ("--batch_size", 3)
INFER = OUTPUTS
EXPORT = OUTPUTS
DEVICES = ("--optimizer", "sgd")
OTHER_NETWORK = ("--width", 0.5, "--blocks", 1, 2, 1, 1, "--reduce_zero_label", True)
OTHER_DATA = "*/train/**/*_000001_*"
WITHOUT_PADDLE = [["data/leftImg8bit/val", "--write", "label", "side"]]
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}


def data(folder: Path) -> tuple[object, ...]:
    """A few small streets."""
    target = folder / "data"
    if not target.is_dir():
        write_streets(target, (64, 128), {"train": 6, "val": 4}, processes=1)
    return ("--data_dir", target)


def other_classes(folder: Path) -> None:
    """Let the classes stand in the opposite order."""
    rows = zip(CITYSCAPES.ids, CITYSCAPES.names, CITYSCAPES.colors, strict=True)
    lines = [f"{number},{name},{red},{green},{blue}\n" for number, name, (red, green, blue) in rows]
    (folder / CLASS_FILE).write_text("".join(reversed(lines)), encoding="utf-8")


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result["miou"]


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images as a camera gives them."""
    return {"image": rng.integers(0, 256, (2, 64, 128, 3)).astype(np.uint8)}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    network, inputs = training_network(Segmenter(0.25, blocks=BLOCKS), CROP)
    return build(network, inputs, name="train", training=True, optimizer=make)


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images and labels as the reader gives them."""
    image = rng.integers(0, 256, (2, *CROP, 3)).astype(np.uint8)
    return {"image": image, "label": rng.integers(0, 19, (2, *CROP)).astype(np.uint8)}
