"""Recurrences against their formulas in NumPy, in every form of loop, on both engines; and loops that are not trained."""

import gc
from dataclasses import replace
from functools import partial
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import compiled, create
from fluid.program import Input, Program, build, initialise
from fluid.recurrent import bidirectional_gru, gru, lstm, recur
from fluid.schedule import Constant
from fluid.tests.gradients import gradients, without_gradient

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.autograd.backward_utils import State

SIZE, PROJECTION, STEPS = 3, 2, 5
LENGTHS = np.array([5, 1, 3, 0])
INPUTS = [Input("x", (None, None, 4 * SIZE), "float64"), Input("lengths", (None,), "int64")]

KINDS: dict[str, Any] = {
    "gru": {},
    "gru of CRNN-CTC": {"candidate": F.relu},
    "gru in origin mode": {"origin_mode": True},
    "lstm": {},
    "lstm without peepholes": {"peepholes": False},
    "lstmp": {"projection": PROJECTION},
}


def network(kind: str, reverse: bool = False) -> Any:
    """One recurrence with a layer before it; `loss` depends on the outputs and the final state."""

    def function(x: Any, lengths: Any, training: bool) -> dict[str, Any]:
        width = (3 if kind.startswith("gru") else 4) * SIZE
        x = F.tanh(paddle.matmul(x, paddle.create_parameter([4 * SIZE, width], "float64", "fc")))
        recurrence = gru if kind.startswith("gru") else lstm
        outputs, final = recurrence(x, SIZE, name="unit", lengths=lengths, reverse=reverse, **KINDS[kind])
        final = final if isinstance(final, tuple) else (final,)
        loss = paddle.sum(outputs**3) + sum(paddle.sum(state**2) for state in final)
        return {"loss": loss, "outputs": outputs, **{f"final {place}": state for place, state in enumerate(final)}}

    return function


def feed() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(len(LENGTHS), STEPS, 4 * SIZE)), "lengths": LENGTHS}


def random_state(program: Program, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=array.shape) for name, array in initialise(program, seed=0).items()}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-x))


def gru_by_formula(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, kind: str) -> list[list[np.ndarray]]:
    """States after each step of one sequence [T, 3 * size], as Fluid computed them."""
    flat, hidden, states = weight.ravel(), np.zeros(SIZE), []
    w_u_r, w_c = flat[: 2 * SIZE**2].reshape(SIZE, 2 * SIZE), flat[2 * SIZE**2 :].reshape(SIZE, SIZE)
    activation = (lambda value: np.maximum(value, 0)) if "CRNN" in kind else np.tanh
    for now in x + bias[0]:
        u, r = np.split(sigmoid(now[: 2 * SIZE] + hidden @ w_u_r), 2)
        c = activation(now[2 * SIZE :] + (r * hidden) @ w_c)
        hidden = u * hidden + (1 - u) * c if "origin" in kind else (1 - u) * hidden + u * c
        states.append([hidden])
    return states


def lstm_by_formula(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, projection: np.ndarray | None
) -> list[list[np.ndarray]]:
    b_c, b_i, b_f, b_o, *peepholes = bias.reshape(-1, SIZE)
    p_i, p_f, p_o = peepholes or np.zeros((3, SIZE))
    w_c, w_i, w_f, w_o = np.split(weight, 4, axis=1)
    output, memory, states = np.zeros(len(weight)), np.zeros(SIZE), []
    for now in x:
        x_c, x_i, x_f, x_o = np.split(now, 4)
        i = sigmoid(x_i + output @ w_i + b_i + p_i * memory)
        f = sigmoid(x_f + output @ w_f + b_f + p_f * memory)
        memory = f * memory + i * np.tanh(x_c + output @ w_c + b_c)
        o = sigmoid(x_o + output @ w_o + b_o + p_o * memory)
        output = o * np.tanh(memory)
        if projection is not None:
            output = np.tanh(output @ projection)
        states.append([output, memory])
    return states


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reverse", [False, True])
def test_every_form_computes_the_formula(kind: str, reverse: bool) -> None:
    programs = [build(network(kind, reverse), INPUTS, name=str(training), training=training) for training in (0, 1)]
    state = random_state(programs[0])
    x = np.tanh(feed()["x"] @ state["fc"])
    expected: dict[str, list[np.ndarray]] = {}
    for row, length in zip(x, LENGTHS, strict=True):
        row = row[:length][::-1] if reverse else row[:length]
        if kind.startswith("gru"):
            states = gru_by_formula(row, state["unit.w_0"], state["unit.b_0"], kind)
            widths = [SIZE]
        else:
            states = lstm_by_formula(row, state["unit.w_0"], state["unit.b_0"], state.get("unit.w_1"))
            widths = [len(state["unit.w_0"]), SIZE]
        outputs = np.zeros((STEPS, widths[0]))
        for place, step in enumerate(states):
            outputs[length - 1 - place if reverse else place] = step[0]
        final = states[-1] if states else [np.zeros(width) for width in widths]
        for name, array in [("outputs", outputs), *((f"final {place}", value) for place, value in enumerate(final))]:
            expected.setdefault(name, []).append(array)
    for engine in (PaddleEngine(), create("cpu")):
        engine.load(state)
        for program in programs:
            outputs = engine.run(program, feed())
            for name, rows in expected.items():
                np.testing.assert_allclose(outputs[name], np.stack(rows), rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", ["gru", "lstmp"])
def test_gradients_are_those_of_the_loss(kind: str) -> None:
    """Both engines read one Program, so differences of the loss say whether that is right."""

    def loss(**values: Any) -> dict[str, Any]:
        return {"loss": network(kind, reverse=True)(**values)["loss"]}

    def make(optimizer: Any) -> Program:
        return build(loss, INPUTS, name="train", training=True, optimizer=optimizer)

    in_turns = create("cpu")
    in_turns.tuning = replace(in_turns.tuning, steps_in_a_turn=2)
    engines = PaddleEngine(), create("cpu"), in_turns
    expected, actual, turned = (gradients(make, feed(), engine) for engine in engines)
    assert not without_gradient(make, feed())
    forward = build(loss, INPUTS, name="forward")
    state, engine = initialise(forward, seed=0), PaddleEngine()
    rng = np.random.default_rng(2)
    for name, gradient in expected.items():
        for found in (actual, turned):
            np.testing.assert_allclose(found[name], gradient, rtol=0, atol=1e-10, err_msg=name)
        direction, losses = rng.normal(size=gradient.shape), []
        for sign in (1, -1):
            engine.load({**state, name: state[name] + sign * 1e-5 * direction})
            losses.append(engine.run(forward, feed())["loss"])
        slope = (losses[0] - losses[1]) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("training", [False, True])
def test_what_padding_holds_does_not_matter(training: bool) -> None:
    def function(x: Any, lengths: Any, training: bool) -> dict[str, Any]:
        outputs, final = gru(x[:, :, : 3 * SIZE], SIZE, name="unit", lengths=lengths)
        return {"outputs": outputs, "final": final}

    program = build(function, INPUTS, name="padded", training=training)
    clean, dirty = feed(), feed()
    for row, length in enumerate(LENGTHS):
        dirty["x"][row, length:] = np.nan
    for engine in (PaddleEngine(), create("cpu")):
        engine.load(random_state(program))
        for name, array in engine.run(program, dirty).items():
            np.testing.assert_array_equal(array, engine.run(program, clean)[name])


@pytest.mark.parametrize("kind", ["gru", "lstmp"])
def test_a_sequence_in_pieces(kind: str) -> None:
    """The final state of one piece is the initial state of the next."""
    widths = [SIZE] if kind == "gru" else [PROJECTION, SIZE]
    states = [Input(f"state {place}", (None, width), "float64") for place, width in enumerate(widths)]

    def piece(x: Any, training: bool, **before: Any) -> dict[str, Any]:
        if kind == "gru":
            outputs, final = gru(x[:, :, : 3 * SIZE], SIZE, name="unit", initial=before["state 0"])
            return {"outputs": outputs, "state 0": final}
        outputs, final = lstm(x, SIZE, name="unit", projection=PROJECTION, initial=tuple(before.values()))
        return {"outputs": outputs, "state 0": final[0], "state 1": final[1]}

    program = build(piece, [INPUTS[0], *states], name="piece")
    weights, x = random_state(program), feed()["x"]
    start = {item.name: np.zeros((len(x), item.shape[1])) for item in states}
    for engine in (PaddleEngine(), create("cpu")):
        engine.load(weights)
        whole = engine.run(program, {"x": x, **start})
        first = dict(engine.run(program, {"x": x[:, :2], **start}))
        pieces = [first.pop("outputs"), engine.run(program, {"x": x[:, 2:], **first})["outputs"]]
        np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole["outputs"], rtol=0, atol=1e-14)


def test_a_cell_that_sees_more_than_its_input() -> None:
    """Attention over a memory inside the loop, as a recogniser's decoder has it, is trained as well."""

    def function(x: Any, lengths: Any, training: bool) -> dict[str, Any]:
        weight = paddle.create_parameter([4 * SIZE, 4 * SIZE], "float64", "query")

        def cell(now: Any, states: Any) -> Any:
            scores = paddle.matmul(x, paddle.matmul(states[0], weight).unsqueeze(2)).squeeze(2)
            context = paddle.matmul(F.softmax(scores).unsqueeze(1), x).squeeze(1)
            return (F.tanh(now + context),)

        outputs, _ = recur(cell, x, (x[:, 0],), lengths=lengths)
        return {"loss": paddle.mean(outputs**3)}

    def make(optimizer: Any) -> Program:
        return build(function, INPUTS, name="attention", training=True, optimizer=optimizer)

    expected, actual = (gradients(make, feed(), engine) for engine in (PaddleEngine(), create("cpu")))
    assert np.abs(expected["query"]).max() > 1e-6
    np.testing.assert_allclose(actual["query"], expected["query"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_kernels_leave_a_trained_recurrence_to_the_rules(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "run_on", lambda device: True)

    def loss(**values: Any) -> dict[str, Any]:
        return {"loss": network(kind, reverse=True)(**values)["loss"]}

    def make(optimizer: Any) -> Program:
        return build(loss, INPUTS, name="train", training=True, optimizer=optimizer)

    found = []
    for kernels in (False, True):
        engine = create("cpu")
        engine.tuning = replace(engine.tuning, kernels=kernels)
        found.append(gradients(make, feed(), engine))
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=0, atol=1e-12, err_msg=name)


def test_a_loop_that_fills_a_buffer_is_found() -> None:
    """Paddle's own while_loop where it fills a buffer: not an error, but a gradient of exactly zero."""

    def function(x: Any, lengths: Any, training: bool) -> dict[str, Any]:
        weight = paddle.create_parameter([4 * SIZE, 4 * SIZE], "float64", "inside")
        by_step = paddle.matmul(x, paddle.create_parameter([4 * SIZE, 4 * SIZE], "float64", "outside"))
        by_step = by_step.transpose([1, 0, 2])
        hidden, buffer = paddle.zeros_like(by_step[0]), paddle.zeros_like(by_step)
        hidden.stop_gradient = buffer.stop_gradient = False

        def advance(step: Any, hidden: Any, buffer: Any) -> Any:
            hidden = F.tanh(paddle.index_select(by_step, step).squeeze(0) + paddle.matmul(hidden, weight))
            return [step + 1, hidden, paddle.scatter(buffer, step, hidden.unsqueeze(0))]

        start = [paddle.zeros([1], "int64"), hidden, buffer]
        outputs = paddle.static.nn.while_loop(lambda step, *_: step < STEPS, advance, start)[2]
        after = paddle.matmul(outputs, paddle.create_parameter([4 * SIZE, 2], "float64", "after"))
        return {"loss": paddle.sum(after**2)}

    def make(optimizer: Any) -> Program:
        return build(function, INPUTS, name="buffer", training=True, optimizer=optimizer)

    for engine in (PaddleEngine(), create("cpu")):
        assert sorted(without_gradient(make, feed(), engine)) == ["inside", "outside"]


@pytest.mark.parametrize("training", [False, True])
def test_two_directions_in_one_loop_are_two_loops(training: bool) -> None:
    """Outputs and, of a training form, what an update changes."""

    def network(x: Any, lengths: Any, training: bool, together: bool) -> dict[str, Any]:
        gates = [paddle.matmul(x, paddle.create_parameter([4 * SIZE, 3 * SIZE], "float64", name)) for name in "ab"]
        if together:
            outputs = bidirectional_gru(*gates, SIZE, names=("one", "two"), lengths=lengths)
        else:
            outputs = tuple(
                gru(gate, SIZE, name=name, lengths=lengths, reverse=reverse)[0]
                for gate, name, reverse in zip(gates, ("one", "two"), (False, True), strict=True)
            )
        return {"loss": paddle.sum(outputs[0] ** 3 + outputs[1]), **({} if training else dict(zip("fb", outputs)))}

    results = []
    for together in (False, True):
        options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.1)} if training else {}
        program = build(partial(network, together=together), INPUTS, name="both", training=training, **options)
        engine = PaddleEngine()
        state = random_state(program)
        rng = np.random.default_rng(1)
        engine.load({name: rng.normal(size=state[name].shape).astype(state[name].dtype) for name in sorted(state)})
        outputs = engine.run(program, feed())
        results.append({**outputs, **engine.state()})
    assert results[0].keys() == results[1].keys()
    for name, array in results[0].items():
        np.testing.assert_allclose(results[1][name], array, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("enabled", [True, False])
def test_nothing_of_a_backward_pass_outlives_its_build(enabled: bool) -> None:
    """What outlived it has crashed later builds, or given their loops wrong gradients."""

    def loss(**values: Any) -> dict[str, Any]:
        assert not gc.isenabled(), "what a collection spares stays for long"
        return {"loss": network("gru")(**values)["loss"]}

    def fails(**values: Any) -> dict[str, Any]:
        raise ValueError

    gc.collect()
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        program = build(
            loss, INPUTS, name="train", training=True, optimizer=paddle.optimizer.SGD, schedule=Constant(0.1)
        )
        assert gc.isenabled() == enabled
        assert not [item for item in gc.get_objects() if type(item) is State], program.name
        with pytest.raises(ValueError):
            build(fails, INPUTS, name="fails")
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if was else gc.disable)()
