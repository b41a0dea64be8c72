"""What tests/test_tasks.py needs to know about this task."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.program import Program, build
from fluid.tests.tasks import swap_lines
from image_classification.classifier import Classifier
from image_classification.models import find_model
from image_classification.network import training_network
from image_classification.reader import EMBEDDED, Preprocess, class_names, embedded_dataset

import numpy as np

STEPS = (2, 3)
METRIC = "loss"
TRAIN = ("--batch_size", 8, "--test_batch_size", 8)
EVAL = ("--batch_size", 3)
OTHER_NETWORK = ("--image_shape", "3,32,32")
OTHER_DATA = "train_list.txt"
WITHOUT_PADDLE = [[EMBEDDED / "photographs", "--batch_size", 4]]
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}
MODEL = find_model("SmallNet")
CLASSIFIER = Classifier(
    model="SmallNet",
    class_dim=10,
    preprocess=Preprocess(MODEL.image_shape, MODEL.resize_short),
    mean=MODEL.mean,
    std=MODEL.std,
    class_names=[],
)


def data(folder: Path) -> tuple[object, ...]:
    """Three batches of the embedded images for training, and some for evaluation."""
    target = folder / "data"
    for split, count in (("train", 24), ("val", 10)):
        lines = (embedded_dataset() / f"{split}_list.txt").read_text(encoding="utf-8").splitlines()[:count]
        for line in lines:
            name = line.rsplit(" ", 1)[0]
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(embedded_dataset() / name, target / name)
        (target / f"{split}_list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (target / "class_names.txt").write_text("\n".join(class_names(None)) + "\n", encoding="utf-8")
    return ("--data_dir", target)


def other_classes(folder: Path) -> None:
    """Let two classes of the data change places."""
    swap_lines(folder / "class_names.txt")


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result["loss"]


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Normalised images."""
    return {"image": rng.standard_normal((3, *MODEL.image_shape)).astype(np.float32)}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    network, inputs = training_network(CLASSIFIER)
    return build(network, inputs, name="train", training=True, optimizer=make)


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images as the reader gives them."""
    channels, height, width = MODEL.image_shape
    image = rng.integers(0, 256, (8, height, width, channels)).astype(np.uint8)
    return {"image": image, "label": rng.integers(0, 10, 8)}
