"""What the tests of the networks share: building and running one, and the golden values beside this file."""

import gzip
from collections import defaultdict
from pathlib import Path

from fluid import engine
from fluid.interface import Input
from fluid.program import Program, build
from image_classification.models import MODELS

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def read_table(name: str) -> dict[str, list[dict[str, str]]]:
    """Rows of a golden table by model."""
    with gzip.open(GOLDEN / name, "rt") as lines:
        header = next(lines).rstrip("\n").split("\t")
        rows = defaultdict(list)
        for line in lines:
            row = dict(zip(header, line.rstrip("\n").split("\t"), strict=True))
            rows[row["model"]].append(row)
    return dict(rows)


def integers(text: str) -> list[int]:
    """64x3x7x7 -> [64, 3, 7, 7]"""
    return [int(part) for part in text.split("x")]


def build_classifier(name: str, image_shape=None, class_dim: int = 1000, check: bool = True) -> Program:
    """The inference Program of a network; outputs `logits`, and `aux1`, `aux2` where it has auxiliary heads."""
    model = MODELS[name]

    def network(image, training):
        outputs = (model.build if check else model.network)(image, class_dim, training)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return dict(zip(("logits", "aux1", "aux2"), outputs))

    return build(network, [Input("image", (None, *(image_shape or model.image_shape)))], name=name)


def shapes(program: Program) -> dict[str, list[int]]:
    """Shape of every parameter and statistic."""
    return {value.name: list(value.shape) for value in program.main.global_block().all_parameters()}


def run(program: Program, state: dict[str, np.ndarray], image: np.ndarray) -> dict[str, np.ndarray]:
    executor, _ = engine.create("paddle", "cpu")
    executor.load(state)
    return executor.run(program, {"image": image})


def golden_image() -> np.ndarray:
    return np.random.RandomState(0).uniform(-1, 1, (1, 3, 224, 224)).astype("float32")


def relative_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
