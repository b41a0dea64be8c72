"""What tests/test_tasks.py needs to know about this task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.program import Program
from fluid.schedule import Constant
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.network import training_programs
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.recognizer import Recognizer

import numpy as np
from PIL import Image

STEPS = (2, 3)
METRIC = "loss"
SIZES = ("--height", 16, "--max_width", 64)
# Neither offsets before a normalisation, whose gradient is nothing but rounding, nor an optimizer that makes rounding large,
# so that two devices compute what one does. Paddle prepares such a Program in less time, too.
STEADY = ("--optimizer", "momentum", "--lr", 0.01, "--grad_clip", "None")
TRAIN = ("--model", "crnn_small", *SIZES, *STEADY, "--batch_size", 8, "--test_batch_size", 4)
EVAL = ("--test_batch_size", 3)
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}
OTHER_NETWORK = ("--height", 32, "--rotate_tall", True)
OTHER_DATA = "train.txt"
WITHOUT_PADDLE = [["--test_batch_size", 4]]


def data(folder: Path) -> tuple[object, ...]:
    """Noise that is said to be words, all in one bucket of widths and of few frames, which Paddle takes step by step."""
    target = folder / "data"
    target.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 5)):
        lines = []
        for number in range(count):
            name = f"{part}_{number}.png"
            Image.fromarray(rng.integers(0, 256, (16, 17 + number % 8), np.uint8)).save(target / name)
            lines.append(f"{name}\t{''.join(rng.choice(list('abc'), 2))}\n")
        (target / f"{part}.txt").write_text("".join(lines), encoding="utf-8")
    (target / "dict.txt").write_text("a\nb\nc\n", encoding="utf-8")
    return ("--data_dir", target)


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result["loss"]


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Three words of different width."""
    pixel = rng.uniform(-127.5, 127.5, (3, 1, 16, 48)).astype(np.float32)
    return {"pixel": pixel, "width": np.array([48, 30, 9])}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    recognizer = Recognizer("crnn_small", Alphabet(tuple("abc")), Preprocess(16, 64))
    return training_programs(recognizer, optimizer=make, schedule=Constant(0.1))["train"]


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Words of one width."""
    return {
        "pixel": rng.integers(0, 256, (8, 1, 16, 24)).astype(np.uint8),
        "width": np.full(8, 24),
        "label": rng.integers(0, 3, (8, 8)).astype(np.int32),
        "label_length": rng.integers(1, 4, 8),
    }
