"""The loss on both engines, against every alignment summed one by one; what cannot be aligned; decoding; edit distance."""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

from fluid.engine import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.program import build, initialise
from fluid.schedule import Constant
from ocr_recognition.alignment import frames_needed
from ocr_recognition.ctc import ctc_losses
from ocr_recognition.readings import EMPTY, edit_distance, read_greedily

import numpy as np
import paddle
import pytest
from hypothesis import given
from hypothesis import strategies as st

ENGINES: dict[str, Callable[[], Engine]] = {"paddle": PaddleEngine, "xla": partial(create, "cpu")}
STEPS, CLASSES = 6, 4
FRAMES, LENGTHS = np.array([6, 6, 4, 3, 2]), np.array([3, 0, 2, 2, 2])


def merged(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(item for item, _ in itertools.groupby(path) if item != blank)


def likelihood(logits: np.ndarray, label: tuple[int, ...], blank: int) -> tuple[float, np.ndarray]:
    """The sum over all alignments, and the gradient of its negative logarithm [T, classes]."""
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    steps, total, passed = range(len(logits)), 0.0, np.zeros_like(probability)
    for path in itertools.product(range(CLASSES), repeat=len(logits)):
        if merged(path, blank) == label:
            one = float(np.prod(probability[steps, path]))
            total += one
            passed[steps, path] += one
    return total, probability - passed / total


@pytest.mark.parametrize("blank", [0, CLASSES - 1])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_loss_is_the_sum_over_all_alignments(engine: str, blank: int) -> None:
    """Three characters, none, repeated ones with and without room for the blank between; so is the gradient."""

    def network(label: Any, frames: Any, length: Any, training: bool) -> dict[str, Any]:
        attributes = paddle.ParamAttr(name="logits")
        logits = paddle.create_parameter([5, STEPS, CLASSES], "float32", attr=attributes)
        losses = ctc_losses(logits, label, frames, length, blank=blank)
        return {"loss": losses.sum(), "losses": losses}

    inputs = [Input("label", (None, 3), "int32"), *(Input(name, (None,), "int64") for name in ("frames", "length"))]
    options = {
        "optimizer": lambda: paddle.optimizer.SGD(1.0),
        "schedule": Constant(1.0),
        "batch_axes": {"losses": None},
    }
    program = build(network, inputs, name="ctc", training=True, **options)
    one, two = [item for item in range(CLASSES) if item != blank][:2]
    labels = np.array([[one, two, one], [one, one, one], [two, two, one], [one, one, one], [one, one, one]], np.int32)
    logits = np.random.default_rng(0).normal(size=(5, STEPS, CLASSES)).astype(np.float32)
    running = ENGINES[engine]()
    running.load({**initialise(program, seed=0), "logits": logits})
    losses = np.asarray(running.run(program, {"label": labels, "frames": FRAMES, "length": LENGTHS})["losses"])
    gradient = logits - running.state(["logits"])["logits"]
    for row, (steps, length) in enumerate(zip(FRAMES[:4].tolist(), LENGTHS[:4].tolist())):
        label = tuple(labels[row, :length].tolist())
        wanted, wanted_gradient = likelihood(logits[row, :steps].astype(float), label, blank)
        assert frames_needed(label) <= steps
        assert losses[row] == pytest.approx(-np.log(wanted), rel=1e-4)
        np.testing.assert_allclose(gradient[row, :steps], wanted_gradient, atol=1e-5)
        assert not gradient[row, steps:].any()
    # Two equal characters need three frames; there are two.
    assert frames_needed((one, one)) == 3 and losses[4] == 0 and not gradient[4].any()


def test_reading_merges_repeats_and_drops_blanks() -> None:
    blank = CLASSES - 1
    logits = np.zeros((2, STEPS, CLASSES), np.float32)
    for step, best in enumerate((0, 0, blank, 0, 2, blank)):
        logits[0, step, best] = 2.0 if step != 1 else 4.0
    logits[1, :, blank] = 1.0
    logits[1, 3:, 0] = 9.0
    first, empty = read_greedily(logits, np.array([6, 3]), blank=blank)
    assert (first.label, first.spans) == ((0, 0, 2), ((0, 2), (3, 4), (4, 5)))
    weak, strong = (np.exp(top) / (np.exp(top) + 3) for top in (2.0, 4.0))
    assert first.confidence == pytest.approx((strong * weak * weak) ** (1 / 3), rel=1e-5)
    assert empty.label == () and 0 < empty.confidence < 1
    assert read_greedily(logits, np.array([0, 0]), blank=blank) == [EMPTY] * 2


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6))
def test_edit_distance_is_that_of_its_definition(one: list[int], other: list[int]) -> None:
    def distance(a: list[int], b: list[int]) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(
            distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])
        )  # fmt: skip

    assert edit_distance(one, other) == distance(one, other) == edit_distance(other, one)


def test_edit_distance_of_texts() -> None:
    assert edit_distance("kitten", "sitting") == 3 and edit_distance("", "abc") == 3 and edit_distance("ß", "ß") == 0
