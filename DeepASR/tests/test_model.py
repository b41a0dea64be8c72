"""The acoustic model: released names, the formula in NumPy, padding that is never seen, and pieces of a stream."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from DeepASR.network import build_evaluation, build_inference, build_stream, build_training
from DeepASR.sizes import Sizes, silence, sizes_of
from fluid.engine import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.errors import WeightsError
from fluid.export import ExportedModel, export
from fluid.program import Program, initialise
from fluid.schedule import Constant
from fluid.tests.golden_values import golden_value
from fluid.tests.gradients import gradients

import numpy as np
import paddle
import pytest

GOLDEN = Path(__file__).parent / "golden"
ENGINES: dict[str, Callable[[], Engine]] = {"paddle": PaddleEngine, "xla": partial(create, "cpu")}
SIZES = Sizes(frame_dim=8, stacked_num=2, hidden_dim=6, proj_dim=5, class_num=7, filters=3)
LENGTHS = np.array([7, 4, 1])


def released() -> list[dict[str, str]]:
    with open(GOLDEN / "stacked_lstmp_variables.tsv", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def training(optimizer: Callable[[], Any], sizes: Sizes = SIZES) -> Program:
    return build_training(sizes, optimizer, Constant(0.1))


def lively_state(program: Program) -> dict[str, np.ndarray]:
    """Weights under which every part of the network matters, running statistics and offsets included."""
    state = initialise(program, seed=0)
    slots = {"w_0": "Scale", "b_0": "Bias", "w_1": "Mean", "w_2": "Variance"}
    norms = {name: slots[name.partition(".")[2]] for name in state if name.startswith("batch_norm")}
    return {name: golden_value(name, array.shape, norms.get(name, "")) for name, array in state.items()}


def batch(to: int, content: float = 0.0, seed: int = 0) -> dict[str, np.ndarray]:
    """Three utterances, padded to the length `to` with features of that content and labels that are classes."""
    rng = np.random.default_rng(seed)
    feature = np.full((len(LENGTHS), to, 3, 11, SIZES.frame_dim), content, np.float32)
    label = np.full((len(LENGTHS), to), 2)
    for row, length in enumerate(LENGTHS):
        feature[row, :length] = rng.normal(size=(length, *feature.shape[2:]))
        label[row, :length] = rng.integers(0, SIZES.class_num, length)
    # The first two frames of the longest have no label.
    label[0, :2] = -1
    return {"feature": feature, "length": LENGTHS, "label": label}


def without_label(feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array for name, array in feed.items() if name != "label"}


def test_the_released_variables() -> None:
    """By name and shape; 48,681,824 numbers of four bytes are the 194,727,296 bytes of the release."""
    program = build_inference(Sizes())
    shapes = {value.name: str(list(value.shape)) for value in program.main.global_block().all_parameters()}
    assert shapes == {row["name"]: row["shape"] for row in released()}
    assert set(program.trainable) == {row["name"] for row in released() if row["trainable"] == "True"}
    convolution, first, other = 32 * 3 * 9 + 32, (6240 + 1) * 4096, (512 + 1) * 4096
    layer = 512 * 4096 + 1024 * 512 + 7 * 1024 + 2 * 512
    assert program.parameter_count == convolution + first + 4 * other + 5 * layer + (512 + 1) * 3040 == 48_676_704


def test_sizes_are_those_of_the_weights() -> None:
    assert sizes_of({row["name"]: np.empty(shape_of(row["shape"])) for row in released()}) == Sizes()
    state = initialise(build_inference(SIZES), seed=0)
    assert sizes_of(state) == SIZES
    with pytest.raises(WeightsError, match="not the weights of a stack of projected LSTMs"):
        sizes_of({"conv2d_0.w_0": state["conv2d_0.w_0"]})


def shape_of(text: str) -> list[int]:
    return [int(length) for length in text.strip("[]").split(",")]


def posterior_by_formula(x: np.ndarray, state: dict[str, np.ndarray]) -> np.ndarray:
    """One utterance [T, 3, 11, dim] in float64."""

    def sigmoid(value: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-value))

    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    x = np.einsum("tchwij,ocij->tohw", windows, state["conv2d_0.w_0"]) + state["conv2d_0.b_0"][:, None, None]
    x = np.lib.stride_tricks.sliding_window_view(np.maximum(x, 0), (3, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(4, 5))
    x = x.reshape(len(x), -1)
    for layer in range(SIZES.stacked_num):
        recurrent, projection, bias = (state[f"lstmp_{layer}.{name}"] for name in ("w_0", "w_1", "b_0"))
        b_c, b_i, b_f, b_o, p_i, p_f, p_o = bias.reshape(7, -1)
        output, memory, outputs = np.zeros(SIZES.proj_dim), np.zeros(SIZES.hidden_dim), []
        for gates in x @ state[f"fc_{layer}.w_0"] + state[f"fc_{layer}.b_0"]:
            c, i, f, o = np.split(gates + output @ recurrent, 4)
            kept, added = sigmoid(f + b_f + p_f * memory) * memory, sigmoid(i + b_i + p_i * memory) * np.tanh(c + b_c)
            memory = kept + added
            output = np.tanh((sigmoid(o + b_o + p_o * memory) * np.tanh(memory)) @ projection)
            outputs.append(output)
        scale, offset, mean, variance = (state[f"batch_norm_{layer}.{name}"] for name in ("w_0", "b_0", "w_1", "w_2"))
        x = (np.stack(outputs) - mean) / np.sqrt(variance + 1e-5) * scale + offset
    x = x @ state[f"fc_{SIZES.stacked_num}.w_0"] + state[f"fc_{SIZES.stacked_num}.b_0"]
    odds = np.exp(x - x.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_posteriors_are_those_of_the_formula_whatever_the_padding(engine: str) -> None:
    """Each utterance as if it were alone, 0 beyond its end; and the same piece by piece."""
    program, running = build_inference(SIZES), ENGINES[engine]()
    state = lively_state(program)
    running.load(state)
    for to, content in ((7, 0.0), (12, 1e3)):
        feed = without_label(batch(to, content))
        posterior = np.asarray(running.run(program, feed)["posterior"])
        for row, length in enumerate(LENGTHS):
            wanted = posterior_by_formula(feed["feature"][row, :length].astype(np.float64), state)
            np.testing.assert_allclose(posterior[row, :length], wanted, rtol=0, atol=1e-5)
            assert not posterior[row, length:].any()
    stream = build_stream(SIZES)
    pieces = [
        {"feature": feed["feature"][:, start : start + 3], "length": np.clip(LENGTHS - start, 0, 3)}
        for start in range(0, 12, 3)
    ]
    answers = [np.asarray(outputs["posterior"]) for outputs in running.stream(stream, pieces, silence(stream, 3))]
    np.testing.assert_allclose(np.concatenate(answers, axis=1), posterior, rtol=0, atol=1e-5)


def test_an_exported_model_listens_piece_by_piece(tmp_path: Path) -> None:
    """It runs in `paddle.inference` within a time limit, where Paddle's own recurrence would never return."""
    stream, inference, running = build_stream(SIZES), build_inference(SIZES), PaddleEngine()
    state = lively_state(inference)
    running.load(state)
    feed = without_label(batch(8))
    wanted = np.asarray(running.run(inference, feed)["posterior"])
    pieces = [
        {"feature": feed["feature"][:, start : start + 4], "length": np.clip(LENGTHS - start, 0, 4)} for start in (0, 4)
    ]
    examples = [{**pieces[0], **silence(stream, len(LENGTHS))}]
    model = ExportedModel(export(stream, state, tmp_path / "model", facts={}, examples=examples, time_limit=60))
    carried, answers = silence(stream, len(LENGTHS)), []
    for piece in pieces:
        outputs = model.run({**piece, **carried})
        answers.append(outputs["posterior"])
        carried = {taken_by: outputs[name] for name, taken_by in stream.carry.items()}
    np.testing.assert_allclose(np.concatenate(answers, axis=1), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_changes_no_measure(engine: str) -> None:
    program, running = build_evaluation(SIZES), ENGINES[engine]()
    running.load(lively_state(program))
    inference = build_inference(SIZES)
    for content in (0.0, 1e3):
        feed = batch(12, content)
        measured = running.run(program, feed)
        posterior = np.asarray(running.run(inference, without_label(feed))["posterior"])
        for row, length in enumerate(LENGTHS):
            label = feed["label"][row, :length]
            of_frames, label = posterior[row, :length][label >= 0], label[label >= 0]
            losses = -np.log(of_frames[np.arange(len(label)), label]).sum()
            wanted = {"losses": losses, "correct": (of_frames.argmax(axis=1) == label).sum(), "counted": len(label)}
            for name, value in wanted.items():
                np.testing.assert_allclose(np.asarray(measured[name])[row], value, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_changes_no_update(engine: str) -> None:
    """Loss, every parameter after a step, and the running statistics; each of them moves.

    The engines agree on a padded batch, as is tested below: XLA need not compile for a second length here.
    """
    program = training(lambda: paddle.optimizer.SGD(1.0))
    state, ends, running = lively_state(program), [], ENGINES[engine]()
    for to, content in ((7, 0.0), (12, 0.0), (12, 1e2))[engine == "xla" :]:
        running.load(state)
        outputs = running.run(program, batch(to, content))
        assert float(outputs["loss_weight"]) == LENGTHS.sum() - 2
        ends.append({**{name: np.asarray(outputs[name]) for name in ("loss", "accuracy")}, **running.state()})
    for name, array in ends[0].items():
        assert name in ("loss", "accuracy") or not np.array_equal(array, state[name]), name
        for other in ends[1:]:
            np.testing.assert_allclose(other[name], array, rtol=1e-4, atol=1e-6, err_msg=name)


def test_gradients_agree_on_both_engines() -> None:
    expected, actual = (gradients(training, batch(9), make()) for make in ENGINES.values())
    assert expected.keys() == actual.keys()
    for name, gradient in expected.items():
        assert gradient.any(), name
        np.testing.assert_allclose(actual[name], gradient, rtol=0, atol=1e-4 * np.abs(gradient).max(), err_msg=name)


def test_a_batch_without_a_label_changes_no_weight() -> None:
    program, running = training(lambda: paddle.optimizer.SGD(1.0)), PaddleEngine()
    state = lively_state(program)
    running.load(state)
    feed = batch(7)
    feed["label"][:] = -1
    outputs = running.run(program, feed)
    assert float(outputs["loss"]) == float(outputs["loss_weight"]) == 0
    for name, array in running.state(program.trainable).items():
        np.testing.assert_array_equal(array, state[name], err_msg=name)
