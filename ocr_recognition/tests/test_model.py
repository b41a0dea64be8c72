"""The networks: released names and outputs, and that the padding of a batch is never seen."""

import csv
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fluid.engine import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.schedule import Constant
from fluid.tests.golden_values import golden_value
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.model import DEEP, crnn, crnn_ctc, decode, encode
from ocr_recognition.network import evaluation_program
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.readings import readings
from ocr_recognition.recognizer import Recognizer

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

GOLDEN = Path(__file__).parent / "golden"
ENGINES: dict[str, Callable[[], Engine]] = {"paddle": PaddleEngine, "xla": partial(create, "cpu")}
WORDS = [Input("pixel", (None, 1, 48, None)), Input("width", (None,), "int64")]
CLASSES = 95


def read_variables(name: str) -> list[dict[str, str]]:
    with open(GOLDEN / f"{name}_variables.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def shape_of(row: dict[str, str]) -> list[int]:
    return [int(length) for length in row["shape"].strip("[]").split(",")]


def logits(model: str, pixel: Any, width: Any, training: bool) -> Any:
    if model == "attention":
        # As many characters as `decode` is asked for: here the begin sign and two others.
        word = paddle.zeros_like(width).unsqueeze(1) + paddle.to_tensor([0, 7, 3])
        return decode(encode(pixel, width, training), word, CLASSES)
    return {"crnn_ctc": crnn_ctc, "crnn_small": partial(crnn, sizes=DEEP["crnn_small"])}[model](
        pixel, width, CLASSES, training
    )[0]


def network(model: str, pixel: Any, width: Any, training: bool) -> dict[str, Any]:
    return {"logits": logits(model, pixel, width, training)}


def evaluation(model: str) -> Program:
    return build(partial(network, model), WORDS, name=model)


def released_state(name: str) -> dict[str, np.ndarray]:
    return {
        row["name"]: golden_value(row["name"], shape_of(row), row["slot"] if row["op"] == "batch_norm" else "")
        for row in read_variables(name)
    }


def word(width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-127.5, 127.5, (1, 48, width)).astype(np.float32)


def batch(words: list[np.ndarray], to: int) -> dict[str, np.ndarray]:
    pixel = np.zeros((len(words), 1, 48, to), np.float32)
    for row, image in enumerate(words):
        pixel[row, :, :, : image.shape[2]] = image
    return {"pixel": pixel, "width": np.array([image.shape[2] for image in words])}


@pytest.mark.parametrize("model", ["crnn_ctc", "attention"])
def test_variables_are_those_of_the_release(model: str) -> None:
    program = evaluation(model)
    state = initialise(program, seed=0)
    assert {name: list(array.shape) for name, array in state.items()} == {
        row["name"]: shape_of(row) for row in read_variables(model)
    }
    assert set(program.trainable) == {row["name"] for row in read_variables(model) if row["trainable"] == "True"}


@pytest.mark.parametrize("engine", ENGINES)
def test_crnn_ctc_computes_what_fluid_computed(engine: str) -> None:
    """Two images of width 80, the logits of both one after the other in time."""
    running = ENGINES[engine]()
    running.load(released_state("crnn_ctc"))
    pixel = np.random.RandomState(0).uniform(-127.5, 127.5, (2, 1, 48, 80)).astype(np.float32)
    with np.load(GOLDEN / "crnn_ctc_48x80.npz") as golden:
        wanted = golden["out0"]
    have = np.asarray(running.run(evaluation("crnn_ctc"), {"pixel": pixel, "width": np.array([80, 80])})["logits"])
    assert np.abs(have.reshape(-1, 96) - wanted).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize("model", ["crnn_ctc", "attention", "crnn_small"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_word_gives_the_same_alone_and_in_any_batch(model: str, engine: str) -> None:
    program, running = evaluation(model), ENGINES[engine]()
    state = initialise(program, seed=0)
    rng = np.random.default_rng(0)
    # Statistics that are not those of a fresh network: beyond a word there is then something to be seen.
    state |= {
        name: array + 0.1 * rng.random(array.shape, np.float32) for name, array in state.items() if array.ndim == 1
    }
    running.load(state)
    words = [word(width, seed) for seed, width in enumerate((37, 5))]
    alone = [np.asarray(running.run(program, batch([image], image.shape[2]))["logits"])[0] for image in words]
    for to in (40, 72, 104):
        together = np.asarray(running.run(program, batch(words, to))["logits"])
        for one, row in zip(alone, together, strict=True):
            np.testing.assert_allclose(row[: len(one)], one, rtol=1e-4, atol=1e-4 * np.abs(one).max())


@pytest.mark.parametrize("model", ["crnn_ctc", "attention", "crnn_small"])
def test_padding_changes_no_update_and_every_parameter_learns(model: str) -> None:
    def loss(pixel: Any, width: Any, training: bool) -> dict[str, Any]:
        frames = logits(model, pixel, width, training)
        real = paddle.ones_like(frames[:, :, 0])
        if model != "attention":
            steps = paddle.arange(frames.shape[1] if frames.shape[1] > 0 else paddle.shape(frames)[1], dtype="int64")
            real = paddle.cast(steps.unsqueeze(0) < ((width + 7) // 8).unsqueeze(1), "float32")
        targets = paddle.zeros_like(frames[:, :, 0]).astype("int64") + 5
        losses = F.cross_entropy(frames, targets.unsqueeze(2), reduction="none").squeeze(2)
        return {"loss": (losses * real).sum() / real.sum()}

    options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.1)}
    program = build(loss, WORDS, name="train", training=True, **options)
    state, feeds = initialise(program, seed=0), [batch([word(16), word(33, 1)], to) for to in (33, 56, 33)]
    # Rounding alone turns a few relus over: how far inputs moved by a millionth move the update is the measure.
    feeds[2]["pixel"] *= np.float32(1 + 1e-6)
    losses, ends = [], []
    for feed in feeds:
        engine = PaddleEngine()
        engine.load(state)
        losses.append(float(engine.run(program, feed)["loss"]))
        ends.append(engine.state())
    assert abs(losses[1] - losses[0]) < 1e-5 * abs(losses[0])
    for name, array in ends[0].items():
        assert not np.array_equal(array, state[name]), name
        padded, moved, update = (np.linalg.norm(array - other[name]) for other in (ends[1], ends[2], state))
        assert padded <= 10 * moved + 1e-3 * update, name


def test_the_blank_may_come_first() -> None:
    """With the columns of the head in another order everything else is as it was: loss and reading."""
    feed = {
        **batch([word(64), word(40, 1)], 64),
        "label": np.array([[0, 2, 2, 1], [1, 0, 0, 0]], np.int32),
        "label_length": np.array([4, 1]),
    }
    feed["pixel"] = np.clip(feed["pixel"] + 127.5, 0, 255).astype(np.uint8)
    last = Recognizer("crnn", Alphabet(tuple("abc")), Preprocess(48))
    first = replace(last, blank_first=True)
    state = initialise(evaluation_program(last), seed=0)
    moved = {name: np.roll(array, 1, -1) if name.startswith("deep_out") else array for name, array in state.items()}
    found = []
    for recognizer, own in ((last, state), (first, moved)):
        engine = PaddleEngine()
        engine.load(own)
        outputs = engine.run(evaluation_program(recognizer), feed)
        texts = [recognizer.text_of(one.label) for one in readings(recognizer, outputs, feed["width"])]
        decoded = [
            recognizer.text_of([one for one in row if one >= 0]) for row in np.asarray(outputs["decoded"]).tolist()
        ]
        assert decoded == texts and any(texts)
        found.append((texts, np.asarray(outputs["losses"]).tolist()))
    assert found[0][0] == found[1][0] and found[0][1] == pytest.approx(found[1][1], rel=1e-5)
