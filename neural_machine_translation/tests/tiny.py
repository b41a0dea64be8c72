"""What tests/test_tasks.py needs to know about this task."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.program import Program
from fluid.schedule import Constant
from neural_machine_translation.network import training_programs
from neural_machine_translation.translator import Transformer

import numpy as np

STEPS = (2, 3)
METRIC = "loss"
SIZES = ("--n_layer", 1, "--d_model", 16, "--d_inner_hid", 32, "--n_head", 2, "--vocab_size", 14)
TRAIN = (*SIZES, "--batch_size", 256, "--beam_size", 2, "--max_out_len", 12)
DEVICES = ("--use_token_batch", False, "--batch_size", 8)
EVAL = ("--part", "dev", "--batch_size", 3, "--beam_size", 2, "--max_out_len", 12)
OTHER_NETWORK = ("--n_layer", 2, "--vocab_size", 15, "--languages", "en", "fr")
OTHER_DATA = "train.tsv"
WITHOUT_PADDLE = [["1 2 3", "--n_best", 2, "--attention_dir", "attention"]]
EXPORT = ("--what", "scoring")
STORAGE = ("--beam_size", 2, "--max_out_len", 12)
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}


def data(folder: Path) -> tuple[object, ...]:
    """Digits as their own translations, all in one bucket of lengths."""
    target = folder / "data"
    target.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("dev", 5), ("test", 5)):
        lines = [" ".join(map(str, rng.integers(0, 10, 6))) for _ in range(count)]
        (target / f"{part}.tsv").write_text("".join(f"{line}\t{line}\n" for line in lines), encoding="utf-8")
    return ("--data_dir", target)


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result.loss


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Words of three sentences and of the beginnings of their translations."""
    return {"src_word": rng.integers(3, 13, (3, 7)), "trg_word": rng.integers(3, 13, (3, 5))}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    config = Transformer(14, 14, d_model=16, d_inner_hid=32, n_head=2, n_layer=1, max_length=16)
    return training_programs(config, label_smoothing=0.1, optimizer=make, schedule=Constant(1.0))[0]


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Sentences without padding."""
    return {**feed(rng), "lbl_word": rng.integers(3, 13, (3, 5))}
