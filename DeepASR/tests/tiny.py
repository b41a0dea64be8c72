"""What tests/test_tasks.py needs to know about this task."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from DeepASR.corpus import Corpus, PartData, open_corpus, write_corpus
from DeepASR.decoding import language_model
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.features import Frontend
from DeepASR.network import build_training
from DeepASR.sizes import Sizes
from fluid.program import Program
from fluid.schedule import Constant

import numpy as np

STEPS = (2, 3)
METRIC = "frame_accuracy"
TRAIN = ("--hidden_dim", 6, "--proj_dim", 4, "--filters", 2, "--batch_size", 4)
EXPORT = ("--what", "whole")
OTHER_NETWORK = ("--hidden_dim", 7, "--running_mean", 5, "--cmvn", "speaker", "--acoustic_scale", 0.5)
OTHER_DATA = "train/text"
DEVICES: tuple[object, ...] = ()
NO_GRADIENT: dict[str, str] = {}
EXCEPTIONS: dict[str, str] = {}

LEXICON = Lexicon({"one": (("w", "n"),), "two": (("t", "w"),)})
SIZES = Sizes(8, 1, 6, 4, LEXICON.class_num, 2)


def data(folder: Path) -> tuple[object, ...]:
    """Utterances of noise of one length with labels of noise."""
    target = folder / "data"
    shutil.rmtree(target, ignore_errors=True)
    rng = np.random.default_rng(0)
    parts = {name: part(name, count, rng) for name, count in (("train", 12), ("dev", 5), ("test", 5))}
    model = language_model.train([text.split() for text in parts["train"].texts.values()])
    corpus = Corpus(
        target,
        8,
        LEXICON.class_num,
        "wer",
        Frontend(8000, 8),
        LEXICON,
        language_model.to_arpa(model),
        {"language": "noise"},
    )
    write_corpus(corpus, parts)
    return ("--data_dir", target)


def part(name: str, count: int, rng: np.random.Generator) -> PartData:
    """Utterances of two words."""
    names = [f"{name}{number}" for number in range(count)]
    return PartData(
        {item: rng.normal(size=(27, 8)).astype(np.float32) for item in names},
        dict.fromkeys(names, "one two"),
        dict.fromkeys(names, "nobody"),
        {item: rng.integers(0, LEXICON.class_num, 27).astype(np.int32) for item in names},
    )


def commands(folder: Path, count: int) -> PartData:
    """The first utterances of dev of the spoken commands that come along, as each part of a data set that is written."""
    corpus = open_corpus(None)
    dev = corpus.part("dev")
    names = list(dev)[:count]
    few = PartData(*({name: table[name] for name in names} for table in (dev, dev.texts, dev.speakers, dev.alignments)))
    write_corpus(replace(corpus, folder=folder), dict.fromkeys(("train", "dev", "test"), few))
    return few


def other_classes(folder: Path) -> None:
    """Call a phone otherwise, so that it and its states get another number."""
    path = folder / "lexicon.txt"
    path.write_text(path.read_text(encoding="utf-8").replace("n\n", "z\n"), encoding="utf-8")


def figure(result: Any) -> float:
    """METRIC, of what eval.py returns."""
    return result["frame_accuracy"]


EVAL = ("--split", "dev", "--test_batch_size", 3)


def feed(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Two utterances, one of them shorter."""
    return {"feature": rng.normal(size=(2, 9, 3, 11, 8)).astype(np.float32), "length": np.array([9, 5])}


def training(make: Callable[[], Any]) -> Program:
    """The training Program."""
    return build_training(SIZES, make, Constant(1.0))


def batch(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Utterances with labels."""
    return {**feed(rng), "label": rng.integers(0, LEXICON.class_num, (2, 9))}
