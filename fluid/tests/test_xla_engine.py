"""The xla engine as a whole: training parity with Paddle, control flow, precision, randomness, files, several devices."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from fluid import engine as engines
from fluid.engine.create import PAYS_FROM
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.engine.xla import graph as graphs
from fluid.engine.xla.capture import capture
from fluid.engine.xla.hoist import halve
from fluid.engine.xla.rules.random import mask_bits
from fluid.engine.xla.tuning import for_platform
from fluid.errors import EngineError
from fluid.interface import Input, Interface
from fluid.program import LEARNING_RATE, Program, build, initialise
from fluid.schedule import Constant, Piecewise
from fluid.tests.devices import with_devices

import jax
import jax.numpy as jnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from jax.experimental.compilation_cache import compilation_cache

# Paddle's own nn.RNN calls its deprecated sequence_mask.
pytestmark = pytest.mark.filterwarnings("ignore:(?s).*sequence_mask")
ROOT = Path(__file__).resolve().parents[2]
Feed = dict[str, np.ndarray]


def difference(have: np.ndarray, want: np.ndarray) -> float:
    """max |a - b| / max |b|"""
    have, want = np.asarray(have, np.float64), np.asarray(want, np.float64)
    return float(np.max(np.abs(have - want), initial=0) / max(np.max(np.abs(want), initial=0), 1e-12))


def small_net(image: Any, label: Any, training: bool, rate: float = 0.0) -> dict[str, Any]:
    """Convolution, batch norm, pooling, a residual, dropout, a classifier."""
    x = paddle.nn.Conv2D(3, 8, 3, padding=1, weight_attr=paddle.ParamAttr(name="conv1_w"), bias_attr=False)(image)
    norm = paddle.nn.BatchNorm2D(8, name="bn1")
    norm.training = training
    x = F.relu(norm(x))
    x = paddle.nn.Conv2D(8, 8, 1, weight_attr=paddle.ParamAttr(name="point_w"), bias_attr=False)(x)
    x = F.max_pool2d(x, 3, stride=2, padding=1)
    y = paddle.nn.Conv2D(8, 8, 3, padding=1, groups=8, weight_attr=paddle.ParamAttr(name="conv2_w"), bias_attr=False)(x)
    x = F.relu(x + y)
    x = paddle.flatten(F.adaptive_avg_pool2d(x, 1), 1)
    x = F.dropout(x, rate, training=training)
    kwargs = {"weight_attr": paddle.ParamAttr(name="fc_w"), "bias_attr": paddle.ParamAttr(name="fc_b")}
    logits = paddle.nn.Linear(8, 5, **kwargs)(x)
    losses = F.cross_entropy(logits, label, reduction="none")
    return {"loss": paddle.mean(losses), "losses": losses, "logits": logits}


def momentum() -> paddle.optimizer.Optimizer:
    return paddle.optimizer.Momentum(0.1, 0.9, weight_decay=1e-3)


OPTIMIZERS: dict[str, Callable[[], paddle.optimizer.Optimizer]] = {
    "sgd": lambda: paddle.optimizer.SGD(0.1),
    "momentum": momentum,
    "nesterov": lambda: paddle.optimizer.Momentum(0.1, 0.9, use_nesterov=True),
    "adam": lambda: paddle.optimizer.Adam(0.1, grad_clip=paddle.nn.ClipGradByGlobalNorm(0.5)),
    "adamw": lambda: paddle.optimizer.AdamW(0.1, weight_decay=0.05),
    "amsgrad": lambda: paddle.optimizer.Adam(0.1, amsgrad=True),
    "rmsprop": lambda: paddle.optimizer.RMSProp(0.1, momentum=0.9, centered=True, weight_decay=1e-3),
    "rmsprop_plain": lambda: paddle.optimizer.RMSProp(0.1, rho=0.9, weight_decay=1e-2),
    "adagrad": lambda: paddle.optimizer.Adagrad(0.1),
    "adadelta": lambda: paddle.optimizer.Adadelta(0.1),
}
SCHEDULE = Piecewise((1, 2), (0.05, 0.02, 0.01))


def image_program(name: str = "train", dtype: str = "float32", optimizer: Any = momentum, **options: Any) -> Program:
    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        return small_net(image, label, training, options.get("rate", 0.0))

    paddle.set_default_dtype(dtype)
    inputs = [Input("image", (None, 3, 12, 12), dtype), Input("label", (None,), "int64")]
    try:
        if optimizer is None:
            return build(network, inputs, name=name)
        return build(
            network,
            inputs,
            name=name,
            training=True,
            optimizer=optimizer,
            schedule=SCHEDULE,
            ema_decay=options.get("ema"),
            batch_axes={"losses": 0, "logits": 0},
        )
    finally:
        paddle.set_default_dtype("float32")


def image_feed(size: int = 8, dtype: str = "float32", seed: int = 0) -> Feed:
    rng = np.random.default_rng(seed)
    return {"image": rng.normal(size=(size, 3, 12, 12)).astype(dtype), "label": rng.integers(0, 5, size)}


class Reference(PaddleEngine):
    """Paddle's executor; a float64 Program gets a float64 learning rate."""

    def run(self, program: Program, feed: Feed, step: int = 0, fetch: Any = None) -> dict[str, np.ndarray]:
        if program.schedule is None:
            return super().run(program, feed, step, fetch)
        graph = capture(program)
        rate = np.asarray(program.schedule(step), graph.types[graph.state[LEARNING_RATE]].dtype)
        self._scope.var(LEARNING_RATE).get_tensor().set(rate, self._place)
        return super().run(dataclasses.replace(program, schedule=None), feed, step, fetch)


def run_both(program: Program, state: dict[str, np.ndarray], feeds: list[Feed]) -> tuple[list[dict], list[dict]]:
    """Per engine: the outputs of the last step and the state after it."""
    results = []
    for engine in (Reference(), create("cpu")):
        engine.load(state)
        for step, feed in enumerate(feeds):
            outputs = engine.run(program, feed, step)
        arrays = {name: np.asarray(value) for name, value in outputs.items()}
        results.append([arrays, engine.state(program.state_names)])
    return results[0], results[1]


def assert_close(expected: list[dict], actual: list[dict], tolerance: float) -> None:
    for want, have in zip(expected, actual, strict=True):
        assert want.keys() == have.keys()
        for name in want:
            assert have[name].dtype == want[name].dtype and have[name].shape == want[name].shape, name
            assert difference(have[name], want[name]) < tolerance, (name, difference(have[name], want[name]))


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_one_step_in_float32(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules as they are written for either platform."""
    monkeypatch.setattr("fluid.engine.xla.engine.for_platform", lambda _: for_platform(platform))
    program = image_program(ema=0.9)
    expected, actual = run_both(program, initialise(program, seed=1), [image_feed()])
    assert expected[0]["finite"].all()
    assert_close(expected, actual, 1e-4)


def test_on_gpus_only_evaluations_write_small_depthwise_convolutions_as_products() -> None:
    counts = {}
    for name, optimizer in (("train", momentum), ("test", None)):
        engine = create("cpu")
        engine.tuning = for_platform("gpu")
        counts[name] = engine.lowered_text(image_program(name, optimizer=optimizer), image_feed()).count(
            "stablehlo.convolution"
        )
    assert counts == {"train": 3, "test": 0}


def test_on_gpus_a_small_convolution_that_skips_pixels_is_no_product() -> None:
    """XLA's compiler aborted where it fused such a choice of pixels into a product."""

    def network(image: Any, training: bool) -> dict[str, Any]:
        layers = [paddle.nn.Conv2D(3, 4, 1, stride=2), paddle.nn.Conv2D(4, 4, 1), paddle.nn.Conv2D(4, 4, 3, stride=2)]
        return {"y": paddle.nn.Sequential(*layers)(image)}

    engine = create("cpu")
    engine.tuning = for_platform("gpu")
    program = build(network, [Input("image", (None, 3, 16, 16))], name="test")
    text = engine.lowered_text(program, {"image": np.zeros((2, 3, 16, 16), np.float32)})
    assert text.count("stablehlo.convolution") == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_in_float64(name: str) -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        hidden = paddle.tanh(paddle.nn.Linear(4, 6)(x))
        return {"loss": paddle.mean(paddle.square(paddle.nn.Linear(6, 2)(hidden) - 1.0))}

    paddle.set_default_dtype("float64")
    inputs = [Input("x", (None, 4), "float64")]
    try:
        program = build(network, inputs, name="train", training=True, optimizer=OPTIMIZERS[name], schedule=SCHEDULE)
    finally:
        paddle.set_default_dtype("float32")
    feeds = [{"x": np.random.default_rng(step).normal(size=(5, 4))} for step in range(4)]
    expected, actual = run_both(program, initialise(program, seed=2), feeds)
    # Beta powers and hyperparameters are float32 in Paddle's kernels for Adam.
    assert_close(expected, actual, 1e-6 if name in ("adam", "adamw", "amsgrad") else 1e-8)


def test_several_steps_in_float64() -> None:
    program = image_program(dtype="float64")
    feeds = [image_feed(6, "float64", seed) for seed in range(4)]
    expected, actual = run_both(program, initialise(program, seed=3), feeds)
    assert_close(expected, actual, 1e-7)


def test_evaluation_leaves_the_state_alone() -> None:
    train, evaluate = image_program(), image_program("eval", optimizer=None)
    state = initialise(train, seed=4)
    state["bn1_mean"] = state["bn1_mean"] + 0.3
    expected, actual = run_both(evaluate, state, [image_feed()])
    assert_close(expected, actual, 1e-5)
    assert all(np.array_equal(value, state[name]) for name, value in actual[1].items())


def test_checkpoints_cross_over() -> None:
    program = image_program()
    start = initialise(program, seed=5)
    feeds = [image_feed(seed=step) for step in range(4)]
    states = {}
    for first, second in (("paddle", "paddle"), ("paddle", "xla"), ("xla", "paddle")):
        state = start
        for half, name in enumerate((first, second)):
            engine = PaddleEngine() if name == "paddle" else create("cpu")
            engine.load(state)
            for step in (2 * half, 2 * half + 1):
                engine.run(program, feeds[step], step)
            state = engine.state()
        states[first, second] = state
    for state in states.values():
        for name, value in states["paddle", "paddle"].items():
            assert difference(state[name], value) < 1e-4, name


def test_dropout_depends_on_seed_and_step_alone() -> None:
    program = image_program(rate=0.5)
    state, feed = initialise(program, seed=6), image_feed()

    def losses(seed: int, steps: list[int], fetch: list[str] | None = None) -> list[float]:
        engine = create("cpu", seed=seed)
        values = []
        for step in steps:
            engine.load(state)
            values.append(float(engine.run(program, feed, step, fetch)["loss"]))
        return values

    first = losses(1, [0, 1, 2])
    assert len(set(first)) == 3
    assert losses(1, [2, 0]) == [first[2], first[0]]
    assert losses(2, [0]) != first[:1]
    assert losses(1, [1], ["loss"]) == pytest.approx(first[1:2], rel=1e-6)


def test_random_operations_have_the_right_distribution() -> None:
    def network(training: bool) -> dict[str, Any]:
        x = paddle.ones([20000])
        return {
            "loss": paddle.mean(x),
            "upscale": F.dropout(x, 0.25),
            "downscale": F.dropout(x, 0.25, mode="downscale_in_infer"),
            "infer": F.dropout(x, 0.25, training=False, mode="downscale_in_infer"),
            "by_row": F.dropout(paddle.ones([500, 4]), 0.5, axis=0),
            "uniform": paddle.uniform([20000], min=-1.0, max=3.0),
            "normal": paddle.normal(1.0, 2.0, [20000]),
            "randint": paddle.randint(2, 7, [20000]),
            "bernoulli": paddle.bernoulli(x * 0.3),
            "multinomial": paddle.multinomial(paddle.to_tensor([0.2, 0.0, 0.8]), 20000, replacement=True),
            "permutation": paddle.randperm(50),
        }

    program = build(network, [], name="random", training=True)
    out = {name: np.asarray(value) for name, value in create("cpu", seed=3).run(program, {}, 5).items()}
    assert set(np.unique(out["upscale"])) == {0.0, np.float32(1 / 0.75)} and abs(out["upscale"].mean() - 1) < 0.03
    assert set(np.unique(out["downscale"])) == {0.0, 1.0} and abs(out["downscale"].mean() - 0.75) < 0.02
    assert np.allclose(out["infer"], 0.75)
    assert (np.ptp(out["by_row"], axis=1) == 0).all() and 0.4 < (out["by_row"] > 0).mean() < 0.6
    assert out["uniform"].min() >= -1 and out["uniform"].max() < 3 and abs(out["uniform"].mean() - 1) < 0.05
    assert abs(out["normal"].mean() - 1) < 0.07 and abs(out["normal"].std() - 2) < 0.07
    assert out["randint"].dtype == np.int64 and set(np.unique(out["randint"])) == {2, 3, 4, 5, 6}
    assert abs(out["bernoulli"].mean() - 0.3) < 0.02
    assert abs((out["multinomial"] == 2).mean() - 0.8) < 0.02 and not (out["multinomial"] == 1).any()
    assert sorted(out["permutation"]) == list(range(50)) and list(out["permutation"]) != list(range(50))
    # Two draws of one Program are independent.
    assert abs(np.corrcoef(out["upscale"], out["downscale"])[0, 1]) < 0.05


@pytest.mark.parametrize("on_host", [True, False])
def test_run_many_equals_single_runs(on_host: bool) -> None:
    program = image_program(rate=0.3)
    state, feeds = initialise(program, seed=7), [image_feed(seed=step) for step in range(3)]
    single, many = create("cpu"), create("cpu")
    if not on_host:
        many.tuning = dataclasses.replace(many.tuning, convolutions_in_loops=True)
    assert many.compiled(program).loops_on_host == on_host
    single.load(state)
    many.load(state)
    wanted = [np.asarray(single.run(program, feed, 4 + step)["losses"]) for step, feed in enumerate(feeds)]
    outputs = many.run_many(program, feeds, 4, ["losses"])
    assert outputs.keys() == {"losses"}
    assert difference(outputs["losses"], np.stack(wanted)) < 1e-5
    for name, value in single.state().items():
        assert difference(many.state([name])[name], value) < 1e-4, name
    stacked = {name: np.stack([feed[name] for feed in feeds]) for name in feeds[0]}
    many.load(state)
    assert np.array_equal(many.run_many(program, stacked, 4, ["losses"])["losses"], outputs["losses"])


def test_feeds_may_be_on_the_device() -> None:
    program = image_program("eval", optimizer=None)
    engine = create("cpu")
    engine.load(initialise(program, seed=8))
    feed = image_feed()
    plain = engine.run(program, feed)["logits"]
    assert np.array_equal(engine.run(program, engine.put(feed, program))["logits"], plain)


# --- control flow ---------------------------------------------------------------------------------------------------


class PeepholeCell(paddle.nn.RNNCellBase):
    """An LSTM cell with peepholes and a projected, clipped state, and a coin toss per step when `rate` is set."""

    def __init__(self, inputs: int, hidden: int, projection: int, rate: float = 0.0):
        super().__init__()
        self.hidden, self.projection, self.rate = hidden, projection, rate
        self.w_input = self.create_parameter([inputs, 4 * hidden])
        self.w_state = self.create_parameter([projection, 4 * hidden])
        self.bias = self.create_parameter([4 * hidden], is_bias=True)
        self.peepholes = self.create_parameter([3, hidden])
        self.w_projection = self.create_parameter([hidden, projection])

    @property
    def state_shape(self) -> tuple:
        return ((self.projection,), (self.hidden,))

    def forward(self, x: Any, states: Any) -> Any:
        r, c = states
        gates = paddle.matmul(x, self.w_input) + paddle.matmul(r, self.w_state) + self.bias
        i, f, u, o = paddle.split(gates, 4, -1)
        i, f = F.sigmoid(i + self.peepholes[0] * c), F.sigmoid(f + self.peepholes[1] * c)
        c = paddle.clip(f * c + i * paddle.tanh(u), -50, 50)
        o = F.sigmoid(o + self.peepholes[2] * c)
        r = paddle.matmul(F.dropout(o * paddle.tanh(c), self.rate), self.w_projection)
        return r, (r, c)


def rnn_program(masked: bool, dtype: str, rate: float = 0.0, reverse: bool = False) -> Program:
    def network(x: Any, lengths: Any, training: bool) -> dict[str, Any]:
        cell = PeepholeCell(3, 5, 4, rate)
        out, (r, c) = paddle.nn.RNN(cell, is_reverse=reverse)(x, sequence_length=lengths if masked else None)
        return {"loss": paddle.mean(out * out) + paddle.mean(c) + paddle.sum(r * r), "out": out}

    paddle.set_default_dtype(dtype)
    inputs = [Input("x", (None, 6, 3), dtype), Input("lengths", (None,), "int64")]
    try:
        options = {"optimizer": momentum, "schedule": Constant(0.5), "batch_axes": {"out": 0}}
        return build(network, inputs, name="rnn", training=True, **options)
    finally:
        paddle.set_default_dtype("float32")


def rnn_feed(dtype: str) -> Feed:
    return {"x": np.random.default_rng(0).normal(size=(4, 6, 3)).astype(dtype), "lengths": np.array([6, 2, 5, 1])}


def test_training_two_layers_that_share_a_variable() -> None:
    """Every nn.LSTM creates `dropout_state__non_persistable` again."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        hidden = paddle.nn.LSTM(3, 4)(x)[0]
        return {"loss": paddle.mean(paddle.square(paddle.nn.LSTM(4, 2)(hidden)[0] - 1.0))}

    inputs = [Input("x", (None, 5, 3))]
    program = build(network, inputs, name="train", training=True, optimizer=momentum, schedule=Constant(0.1))
    feeds = [{"x": np.random.default_rng(step).normal(size=(2, 5, 3)).astype(np.float32)} for step in range(2)]
    expected, actual = run_both(program, initialise(program, seed=7), feeds)
    assert_close(expected, actual, 1e-4)


@pytest.mark.parametrize(("masked", "reverse"), [(False, False), (True, False), (True, True)])
def test_training_a_custom_cell(masked: bool, reverse: bool) -> None:
    program = rnn_program(masked, "float64", reverse=reverse)
    names = {operation.name for operation in graphs.walk(capture(program).block)}
    assert {"pd_op.while", "cf.tuple_push", "cf.tuple_pop"} <= names
    expected, actual = run_both(program, initialise(program, seed=9), [rnn_feed("float64")] * 3)
    assert_close(expected, actual, 1e-8)


def test_training_a_custom_cell_in_bfloat16() -> None:
    """Its weights' gradients are products of bfloat16, made after the loop."""
    program, feed = rnn_program(True, "float32"), rnn_feed("float32")
    state = initialise(program, seed=9)
    exact, rounded = create("cpu"), create("cpu", "bf16")
    for engine in (exact, rounded):
        engine.load(state)
        engine.run(program, feed)
    wanted, found = exact.state(program.trainable), rounded.state(program.trainable)
    for name, value in wanted.items():
        moved = value - state[name]
        assert 0 < difference(found[name] - state[name], moved) < 0.05, name


def test_dropout_in_a_trained_loop_is_the_same_backward() -> None:
    """With another mask in the backward pass, gradients would not be those of the loss: compare with differences."""
    program = rnn_program(True, "float64", rate=0.5)
    state, feed = initialise(program, seed=10), rnn_feed("float64")
    name = next(name for name in program.trainable if state[name].shape == (5, 4))
    engine = create("cpu", seed=4)

    def loss(weights: np.ndarray) -> float:
        engine.load({**state, name: weights})
        return float(engine.run(program, feed, 3)["loss"])

    rng = np.random.default_rng(0)
    direction = rng.normal(size=state[name].shape)
    slope = (loss(state[name] + 1e-5 * direction) - loss(state[name] - 1e-5 * direction)) / 2e-5
    loss(state[name])
    gradient = (state[name] - engine.state([name])[name]) / 0.5 - 1e-3 * state[name]
    assert abs(np.sum(gradient * direction) - slope) < 1e-6 * abs(slope)


def test_a_loop_that_depends_on_data() -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        def going(i: Any, total: Any, seen: Any) -> Any:
            return paddle.logical_and(paddle.all(total < 10.0), i < 20)

        def body(i: Any, total: Any, seen: Any) -> Any:
            place = paddle.cast(paddle.arange(20) == i, "float32")
            return [i + 1, total + x, seen + place * paddle.sum(total)]

        start = [paddle.full([1], 0, "int64"), paddle.zeros_like(x), paddle.zeros([20])]
        count, total, seen = paddle.static.nn.while_loop(going, body, start)
        return {"count": count, "total": total, "seen": seen}

    program = build(network, [Input("x", (3,))], name="loop")
    for x, count in ((np.array([1.0, 2.0, 0.5], np.float32), 5), (np.array([0.1, 0.1, 0.1], np.float32), 20)):
        expected, actual = run_both(program, {}, [{"x": x}])
        assert actual[0]["count"] == count
        assert_close(expected, actual, 1e-6)


def test_a_loop_over_a_known_range_inside_a_loop_that_depends_on_data() -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        def inner(j: Any, y: Any) -> list[Any]:
            return [j + 1, y * 1.5]

        def outer(y: Any) -> list[Any]:
            start = [paddle.full([], 0, "int64"), y]
            return [paddle.static.nn.while_loop(lambda j, y: j < 3, inner, start)[1]]

        return {"y": paddle.static.nn.while_loop(lambda y: paddle.max(y) < 50.0, outer, [x])[0]}

    program = build(network, [Input("x", (3,))], name="nested")
    expected, actual = run_both(program, {}, [{"x": np.array([1.0, 2.0, 0.5], np.float32)}])
    assert_close(expected, actual, 1e-6)


def test_training_a_loop_inside_a_loop_is_refused() -> None:
    """The gradient that Paddle writes for it is zero, and its own executor does not run it."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        def inner(j: Any, y: Any) -> list[Any]:
            return [j + 1, paddle.tanh(y) * 1.5]

        def outer(i: Any, y: Any) -> list[Any]:
            return [i + 1, paddle.static.nn.while_loop(lambda j, y: j < 2, inner, [paddle.full([1], 0, "int64"), y])[1]]

        x.stop_gradient = False
        y = paddle.static.nn.while_loop(lambda i, y: i < 3, outer, [paddle.full([1], 0, "int64"), x])[1]
        return {"gradient": paddle.static.gradients([paddle.sum(y)], [x])[0]}

    program = build(network, [Input("x", (3,))], name="nested", training=True)
    with pytest.raises(EngineError, match="does not train a loop inside a loop"):
        create("cpu").run(program, {"x": np.ones(3, np.float32)})


def test_training_through_a_branch() -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        one, two = paddle.nn.Linear(4, 3), paddle.nn.Linear(4, 3)
        h, other = one(x), two(x)
        y = paddle.static.nn.cond(paddle.mean(h) > 0, lambda: F.relu(h) * 2.0, lambda: paddle.tanh(h) + other)
        return {"loss": paddle.mean(y * y), "y": y}

    paddle.set_default_dtype("float64")
    try:
        inputs = [Input("x", (None, 4), "float64")]
        options = {"optimizer": momentum, "schedule": Constant(0.1), "batch_axes": {"y": 0}}
        program = build(network, inputs, name="branch", training=True, **options)
    finally:
        paddle.set_default_dtype("float32")
    x = np.random.default_rng(1).normal(size=(5, 4))
    state = initialise(program, seed=11)
    for sign in (1, -1):
        expected, actual = run_both(program, state, [{"x": sign * x}] * 3)
        assert_close(expected, actual, 1e-8)


def test_a_counter_in_the_state() -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        attributes = paddle.ParamAttr(name="count", trainable=False, initializer=paddle.nn.initializer.Constant(0.0))
        count = paddle.create_parameter([1], "float32", attr=attributes)
        before = count * 1.0
        paddle.assign(count + paddle.sum(x), count)
        return {"before": before, "after": count * 1.0}

    program = build(network, [Input("x", (2,))], name="counter", training=True)
    feed = {"x": np.array([1.0, 2.0], np.float32)}
    expected, actual = run_both(program, {"count": np.zeros(1, np.float32)}, [feed] * 3)
    assert actual[0]["before"] == 6 and actual[0]["after"] == 9 and actual[1]["count"] == 9
    assert_close(expected, actual, 1e-7)


# --- precision ------------------------------------------------------------------------------------------------------


def test_bf16_keeps_state_and_losses_in_float32() -> None:
    program = image_program(rate=0.0)
    state, feed = initialise(program, seed=12), image_feed(32)
    full, reduced = create("cpu"), create("cpu", "bf16")
    losses = {}
    for name, engine in (("full", full), ("reduced", reduced)):
        engine.load(state)
        losses[name] = [float(engine.run(program, feed, step)["loss"]) for step in range(5)]
    assert all(value.dtype == np.float32 for value in reduced.state().values())
    assert losses["reduced"] != losses["full"]
    assert np.allclose(losses["reduced"], losses["full"], rtol=0.03)
    assert losses["reduced"][-1] < losses["reduced"][0]
    text = reduced.lowered_text(program, feed)
    convolutions = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert convolutions and products
    wide = [line for line in convolutions + products if "xf32>" in line]
    assert not wide, wide
    sums = [line for line in text.splitlines() if "stablehlo.reduce" in line and "stablehlo.add" in line]
    narrow = [line for line in sums if "bf16" in line]
    assert sums and not narrow, narrow
    assert "xf64>" not in text  # the learning rate alone comes as a float64 scalar


def test_fp32_does_not_use_tensor_float() -> None:
    program = image_program("eval", optimizer=None)
    for precision, wanted in (("fp32", "HIGHEST"), ("tf32", "HIGH"), ("bf16", "DEFAULT")):
        text = create("cpu", precision).lowered_text(program, image_feed())
        lines = [line for line in text.splitlines() if "stablehlo.convolution" in line or "dot_general" in line]
        found = {name for line in lines for name in re.findall(r"\b(HIGHEST|HIGH|DEFAULT)\b", line)}
        assert found == {wanted}, (precision, found)


def test_images_stay_channels_last() -> None:
    """Between the first convolution and the classifier no image is transposed."""
    text = create("cpu").lowered_text(image_program(), image_feed())
    turned = [line for line in text.splitlines() if "stablehlo.transpose" in line and "x6x" in line]
    assert not turned, turned


@pytest.mark.parametrize(("stride", "sums"), [((4, 6), 0), ((2, 3), 2)])
def test_a_pixel_of_windows_side_by_side_gets_its_gradient_without_a_sum(stride: tuple[int, int], sums: int) -> None:
    """XLA's gradient of a sum over windows adds a window's numbers for each pixel: where windows overlap, that is needed."""

    def network(x: paddle.Tensor, training: bool) -> dict[str, Any]:
        weight = paddle.create_parameter([3, 1, 1], "float32", attr=paddle.ParamAttr(name="w"))
        return {"loss": paddle.tanh(F.avg_pool2d(x * weight, [4, 6], stride=stride)).mean()}

    options = {"optimizer": momentum, "schedule": Constant(0.1), "training": True}
    program = build(network, [Input("x", (None, 3, 16, 24))], name="pooled", **options)
    text = create("cpu").lowered_text(program, {"x": np.zeros((2, 3, 16, 24), np.float32)})
    assert text.count("stablehlo.reduce_window") == sums


# --- files and errors -----------------------------------------------------------------------------------------------

WITHOUT_PADDLE = """
import json, sys
class Blocker:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "paddle":
            raise ImportError("paddle is blocked")
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[2])
import numpy as np
from fluid.engine.xla import create, graph
programs, state = graph.load(sys.argv[1])
engine = create("cpu", seed=5)
engine.load(state)
feed = dict(np.load(sys.argv[1] + "/feed.npz"))
losses = [float(engine.run(programs["train"], feed, step)["loss"]) for step in range(3)]
logits = np.asarray(engine.run(programs["eval"], feed)["logits"])
print(json.dumps([losses, logits.tolist(), "paddle" in sys.modules]))
"""


def test_a_captured_program_runs_without_paddle(tmp_path: Path) -> None:
    train, evaluate = image_program(rate=0.3), image_program("eval", optimizer=None)
    state, feed = initialise(train, seed=13), image_feed()
    graphs.save(tmp_path, [capture(train), capture(evaluate)], state)
    np.savez(tmp_path / "feed.npz", **feed)
    loaded, arrays = graphs.load(tmp_path)
    assert vars(loaded["train"]) == vars(capture(train)) and vars(loaded["eval"]) == vars(capture(evaluate))
    assert loaded["train"].schedule == SCHEDULE
    assert all(np.array_equal(arrays[name], state[name]) for name in state)

    engine = create("cpu", seed=5)
    engine.load(state)
    losses = [float(engine.run(train, feed, step)["loss"]) for step in range(3)]
    logits = np.asarray(engine.run(evaluate, feed)["logits"])
    command = [sys.executable, "-c", WITHOUT_PADDLE, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    other_losses, other_logits, has_paddle = json.loads(done.stdout)
    assert other_losses == losses and np.array_equal(np.array(other_logits, np.float32), logits) and not has_paddle


def test_files_that_are_not_captured_programs(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not a folder of captured Programs"):
        graphs.load(tmp_path)
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(EngineError, match="train.json: not a captured Program"):
        graphs.load_graph(tmp_path / "train.json")
    with pytest.raises(EngineError, match="No such file"):
        graphs.load_graph(tmp_path / "none.json")


def test_missing_operations_are_listed_with_their_lines() -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        return {"a": paddle.digamma(x), "b": paddle.lgamma(x) + paddle.digamma(x), "unused": x}

    program = build(network, [Input("x", (2, 2))], name="special")
    engine, feed = create("cpu"), {"x": np.ones((2, 2), np.float32)}
    with pytest.raises(EngineError) as caught:
        engine.run(program, feed)
    message = str(caught.value)
    line = network.__code__.co_firstlineno + 1
    assert f"pd_op.digamma: {__file__}:{line}" in message and f"pd_op.lgamma: {__file__}:{line}" in message
    assert "--engine paddle" in message
    # What is not asked for need not be known.
    assert np.array_equal(engine.run(program, feed, fetch=["unused"])["unused"], feed["x"])


@pytest.mark.parametrize(
    "result, advice",
    [
        (lambda counts: paddle.bincount(counts), "minlength"),
        (lambda counts: paddle.nn.functional.sequence_mask(counts), "maxlen"),
    ],
)
def test_a_length_that_depends_on_data_is_asked_for(result: Callable[[Any], Any], advice: str) -> None:
    program = build(lambda x, training: {"y": result(x)}, [Input("x", (3,), "int64")], name="lengths")
    with pytest.raises(EngineError, match=f"depends on data; give it a {advice}"):
        create("cpu").run(program, {"x": np.arange(3)})


def test_errors_name_the_input_and_the_variable() -> None:
    program = image_program()
    engine, feed = create("cpu"), image_feed()
    with pytest.raises(EngineError, match="variables that were not loaded: .*conv1_w"):
        engine.run(program, feed)
    engine.load(initialise(program, seed=0))
    with pytest.raises(EngineError, match="missing: label"):
        engine.run(program, {"image": feed["image"]})
    with pytest.raises(EngineError, match=r"input 'image' .* float32 \[any, 3, 12, 12\], not float64"):
        engine.run(program, {**feed, "image": feed["image"].astype(np.float64)})
    with pytest.raises(EngineError, match="no output or layer called nothing"):
        engine.run(program, feed, fetch=["nothing"])
    with pytest.raises(EngineError, match="--precision fp8"):
        create("cpu", "fp8")


KINDS = {
    "batches": [Interface(name="eval")],
    "updates": [Interface(name="eval"), Interface(name="train", schedule=Constant(1))],
}


@pytest.mark.parametrize(
    ("wish", "name", "why"),
    [
        ({}, "paddle", "no GPU is used; compiling pays from 20 batches on, 1 to come"),
        *(({"runs": n - 1, "programs": KINDS[kind]}, "paddle", f"from {n} {kind}") for kind, n in PAYS_FROM.items()),
        *(({"runs": n, "programs": KINDS[kind]}, "xla", f"on, {n} to come") for kind, n in PAYS_FROM.items()),
        ({"programs": [*KINDS["batches"], Interface(name="search", recurrent=True)]}, "xla", "'search' loops over its"),
        ({"programs": [Interface(name="train", statistics_batch=8)]}, "xla", "'train' takes statistics of 8 samples"),
        ({"programs": KINDS["batches"], "runs": None}, "xla", "very many runs"),
        ({"runs": None}, "xla", "very many runs"),
        ({"runs": None, "engine": "paddle"}, "paddle", "asked for"),
        ({"precision": "bf16"}, "xla", "bf16 needs the xla engine"),
        ({"engine": "xla"}, "xla", "asked for"),
    ],
)
def test_the_engine_on_a_cpu(wish: dict[str, Any], name: str, why: str) -> None:
    engine, reason = engines.create(**{"device": "cpu", **wish})
    assert engine.name == name and why in reason


def test_out_of_memory_comes_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    program = image_program("train")
    engine = create("cpu")
    engine.load(initialise(program, seed=0))
    compiled = engine.compiled(program)

    def exhausted(*_: Any) -> None:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes."
        )

    monkeypatch.setattr(compiled, "_function", lambda *_: exhausted)
    with pytest.raises(EngineError, match="smaller --batch_size.*XLA_PYTHON_CLIENT_MEM_FRACTION"):
        engine.run(program, image_feed())


def test_the_bits_of_masks_are_uniform_and_independent():
    """Each bit, neighbours in both directions and further away, another key: all within five standard deviations."""
    shape = (512, 512)
    first, second = (np.asarray(mask_bits(jax.random.fold_in(jax.random.key(3), n), shape)) for n in (7, 8))
    limit = 5 / np.sqrt(first.size)
    for bit in range(32):
        assert abs(((first >> bit) & 1).mean() - 0.5) < limit / 2, bit
    x, y = (bits / 2**32 - 0.5 for bits in (first, second))
    for a, b in ((x[:, 1:], x[:, :-1]), (x[1:], x[:-1]), (x[:, 64:], x[:, :-64]), (x[8:], x[:-8]), (x, y)):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 1.01 * limit


def test_what_weights_alone_determine_is_split_off_unless_it_is_large():
    def function(weights: list[Any], x: Any) -> dict[str, Any]:
        kernel, scale = weights
        spread = jnp.broadcast_to(jnp.sqrt(scale), x.shape)
        return {"y": (x @ kernel.T.astype(jnp.bfloat16).astype(jnp.float32)) * spread + jnp.arange(3), "kernel": kernel}

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(3, 3)).astype(np.float32), np.arange(3, dtype=np.float32)]
    x = rng.normal(size=(5, 3)).astype(np.float32)
    halves = halve(function, weights, x)
    prepared = halves.before(weights)
    assert sorted(value.shape for value in prepared) == [(3,), (3, 3), (3, 3)]
    result = halves.after(prepared, x)
    for name, value in function(weights, x).items():
        np.testing.assert_allclose(result[name], value, rtol=1e-6)
    assert "transpose" not in str(jax.make_jaxpr(halves.after)(prepared, x))
    # Other batches share what is prepared.
    assert halve(function, weights, x[:2]).name == halves.name


def test_what_is_made_of_weights_and_of_shapes_is_made_anew_for_other_shapes() -> None:
    """A product of a weight and of the number of rows has the same form for any number of rows."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        weight = paddle.create_parameter([4], "float32", default_initializer=paddle.nn.initializer.Constant(1.0))
        rows = paddle.cast(paddle.shape(x)[0:1], "float32")
        return {"y": x + weight * rows}

    program = build(network, [Input("x", (None, 4))], name="eval")
    engine = create("cpu")
    engine.load(initialise(program, seed=0))
    for rows in (2, 3, 2):
        found = np.asarray(engine.run(program, {"x": np.zeros((rows, 4), np.float32)})["y"])
        assert (found == rows).all(), rows


def test_few_arrays_go_from_half_to_half():
    """Parts of a kept array are taken in the second half, and vectors travel as one."""

    def function(weights: list[Any], x: Any) -> Any:
        kernel = weights[0].T * 2
        return sum(x * kernel[i] + weights[1 + i] * 3 for i in range(4))

    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape).astype(np.float32) for shape in [(5, 4), *[(5,)] * 4]]
    x = rng.normal(size=(2, 5)).astype(np.float32)
    halves = halve(function, weights, x)
    prepared = halves.before(weights)
    assert [value.shape for value in prepared] == [(20,), (4, 5)]
    np.testing.assert_allclose(halves.after(prepared, x), function(weights, x), rtol=1e-5)


@pytest.fixture
def empty_cache(tmp_path: Path) -> Iterator[None]:
    """A compilation cache of its own that keeps everything."""
    settings = {"jax_compilation_cache_dir": str(tmp_path), "jax_persistent_cache_min_compile_time_secs": 0.0}
    before = {name: getattr(jax.config, name) for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is settings:
            yield


def test_compiled_ahead_no_step_compiles(empty_cache: None) -> None:
    train, evaluate = image_program("train"), image_program("eval", optimizer=None)
    jobs = [(program, image_feed(size)) for program in (train, evaluate) for size in (3, 5)]
    engine = create("cpu")
    state = initialise(train, seed=3)
    engine.load(state)
    engine.compile(jobs)
    for name, value in engine.state().items():
        assert np.array_equal(value, state[name]), name
    misses: list[str] = []

    def count(event: str, **facts: Any) -> None:
        if event.endswith("cache_misses"):
            misses.append(event)

    jax.monitoring.register_event_listener(count)
    try:
        seconds = [engine.compile_seconds]
        for program, feed in (*jobs, *jobs):
            engine.run(program, feed)
            seconds.append(engine.compile_seconds)
        assert not misses
        # The first training step of each shape loads what was compiled; an evaluation has been run already.
        assert [after > before for before, after in pairwise(seconds)] == [True, True, *[False] * 6]
        engine.run(train, image_feed(7))
        assert misses
    finally:
        jax.monitoring.unregister_event_listener(count)


def positions(x: Any, training: bool) -> dict[str, Any]:
    """Numbers that follow from shapes alone, of all sorts, [6], and the share of each in a row of four."""
    index = paddle.arange(6, dtype="int64")
    low = paddle.floor_divide(index * 3, paddle.full([1], 5, "int64"))
    high = paddle.minimum(paddle.clip(low + 1, max=2), paddle.maximum(index, low))
    share = paddle.cast(high - low, "float32") / paddle.full([1], 5, "float32")
    rows = paddle.abs(paddle.expand(share.unsqueeze(1), [6, 4]) - paddle.full([1, 4], 0.3))
    halves = paddle.stack([rows[0:3], paddle.concat([rows[3:5], rows[-1].unsqueeze(0)])])
    kept = paddle.logical_and(paddle.logical_or(low > 1, high < 1), paddle.logical_not(low == high))
    return {
        "low": low + x,
        "high": high + x,
        "rows": halves.squeeze() + paddle.full([1], 0.5) * x[0],
        "kept": kept & (x > 9),
    }


def test_numbers_that_follow_from_shapes_are_computed_without_compiling() -> None:
    """Exactly what Paddle computes."""
    program = build(positions, [Input("x", (1,), "int64", batch=None)], name="positions")
    feed, engine, compiled = {"x": np.full(1, 10)}, create("cpu"), []
    wanted = PaddleEngine("cpu").run(program, feed)

    def count(event: str, seconds: float, **facts: Any) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        engine.lowered_text(program, feed)
        assert not compiled
        have = engine.run(program, feed)
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    assert {name: array.tolist() for name, array in have.items()} == {
        name: array.tolist() for name, array in wanted.items()
    }


def test_evaluations_of_several_devices_are_run_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others would have devices wait for one another."""
    evaluate, engine = image_program("eval", optimizer=None), create("cpu")
    by_us: list[bool] = []

    def run(*job: Any) -> None:
        by_us.append(threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(engine, "run", run)
    for engine.num_devices in (1, 2):
        engine.compile([(evaluate, image_feed(3)), (evaluate, image_feed(5))])
    assert by_us == [False, False, True, True]


def test_an_evaluation_sees_the_weights_of_the_last_update():
    train, evaluate = image_program("train"), image_program("eval", optimizer=None)
    feed = image_feed()
    engine = create("cpu")
    engine.load(initialise(train, seed=0))
    seen = []
    for step in range(3):
        seen.append(float(engine.run(evaluate, feed)["loss"]))
        fresh = create("cpu")
        fresh.load(engine.state())
        assert float(fresh.run(evaluate, feed)["loss"]) == seen[-1]
        engine.run(train, feed, step)
    assert len(set(seen)) == 3


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_statistics_of_half_a_batch_are_those_of_two_batches(precision: str) -> None:
    """One SGD step: parameters and running statistics are the mean of those after a step on either half."""
    program = image_program(dtype="float64", optimizer=OPTIMIZERS["sgd"])
    state, feed = initialise(program, seed=6), image_feed(8, "float64")

    def after_a_step(rows: slice, statistics_batch: int | None) -> dict[str, np.ndarray]:
        program.statistics_batch = statistics_batch
        engine = create("cpu", precision)
        engine.load(state)
        engine.run(program, {name: value[rows] for name, value in feed.items()})
        return engine.state()

    halves = [after_a_step(slice(start, start + 4), None) for start in (0, 4)]
    grouped, whole = after_a_step(slice(None), 4), after_a_step(slice(None), None)
    for name, value in grouped.items():
        assert difference(value, (halves[0][name] + halves[1][name]) / 2) < 1e-10, name
    assert difference(grouped["conv1_w"], whole["conv1_w"]) > 1e-6
    with pytest.raises(EngineError, match="a batch of 8 samples is no multiple of its statistics_batch, 3"):
        after_a_step(slice(None), 3)
    with pytest.raises(EngineError, match="--engine xla"):
        PaddleEngine().run(program, feed)


@pytest.mark.parametrize(
    "result, what",
    [
        (lambda x, count: paddle.reshape(x, [count, -1]), "shape"),
        (lambda x, count: x[count:3], "range"),
        (lambda x, count: x[1:count], "range"),
    ],
)
def test_a_shape_that_depends_on_data_is_refused(result: Callable[[Any, Any], Any], what: str) -> None:
    def network(x: Any, training: bool) -> dict[str, Any]:
        return {"y": result(x, paddle.cast(paddle.sum(x), "int64"))}

    program = build(network, [Input("x", (4,))], name="shapes")
    with pytest.raises(EngineError, match=rf"test_xla_engine.py:\d+\): its {what} depends on data"):
        create("cpu").run(program, {"x": np.ones(4, np.float32)})


# --- several devices and processes ----------------------------------------------------------------------------------

ON_DEVICES = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from fluid.engine.xla import create, distributed, graph
folders, _, coordinator, hosts, host = sys.argv[1:]
hosts, host = int(hosts), int(host)
if hosts > 1:
    distributed.start(coordinator, hosts, host)
for folder in json.loads(folders):
    programs, state = graph.load(folder)
    engine = create("cpu", seed=5)
    engine.load(state)
    feed = dict(np.load(folder + "/feed.npz"))
    rows = len(feed["label"]) // hosts
    feed = {name: value[host * rows : (host + 1) * rows] for name, value in feed.items()}
    train = programs["train"]
    losses = [float(engine.run(train, engine.put(feed, train), step)["loss"]) for step in range(3)]
    per_sample = np.asarray(engine.run(programs["eval"], feed)["losses"])
    many = np.asarray(engine.run_many(programs["eval"], [feed, feed], fetch=["losses"])["losses"])
    assert np.array_equal(many[0], many[1]) and np.allclose(many[0], per_sample, rtol=1e-6)
    assert engine.agree(host == hosts - 1) and not engine.agree(False)
    total = distributed.total_over_hosts(np.array([per_sample.sum(), len(per_sample)]))
    np.savez(f"{folder}/result_{hosts}_{host}.npz", **engine.state())
    print("RESULT " + json.dumps([engine.num_devices, losses, per_sample.tolist(), total.tolist()]))
distributed.agree(True)  # no process ends before the others
"""


def on_devices(folders: Sequence[Path], devices: int, hosts: int = 1) -> list[Any]:
    """Results of each process for the Programs in each folder: devices seen, training losses, per-sample losses, sums over hosts."""
    named = json.dumps(list(map(str, folders)))
    port = 20000 + os.getpid() % 20000
    environment = with_devices(devices // hosts)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ON_DEVICES, named, str(ROOT), f"127.0.0.1:{port}", str(hosts), str(host)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for host in range(hosts)
    ]
    results = []
    for process in processes:
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]
        results.append([json.loads(line[7:]) for line in output.splitlines() if line.startswith("RESULT ")])
    return results


def test_eight_devices_of_one_process_and_of_two_equal_one(tmp_path: Path) -> None:
    """With statistics of the whole batch, and of two images each."""
    cases = []
    for statistics_batch in (None, 2):
        train, evaluate = image_program(rate=0.3), image_program("eval", optimizer=None)
        train.statistics_batch = statistics_batch
        state, feed = initialise(train, seed=14), image_feed(16)
        folder = tmp_path / f"statistics_{statistics_batch}"
        graphs.save(folder, [capture(train), capture(evaluate)], state)
        np.savez(folder / "feed.npz", **feed)
        engine = create("cpu", seed=5)
        engine.load(state)
        losses = [float(engine.run(train, feed, step)["loss"]) for step in range(3)]
        per_sample = np.asarray(engine.run(evaluate, feed)["losses"])
        cases.append((folder, losses, per_sample, engine.state()))
    folders = [folder for folder, *_ in cases]
    (alone,), together = on_devices(folders, 8), on_devices(folders, 8, hosts=2)
    for number, (folder, losses, per_sample, wanted) in enumerate(cases):
        devices, eight, rows, _ = alone[number]
        assert devices == 8
        assert np.allclose(eight, losses, rtol=1e-5) and np.allclose(rows, per_sample, rtol=1e-4)
        for host, (devices, found, rows, total) in enumerate(results[number] for results in together):
            assert devices == 8
            assert np.allclose(found, losses, rtol=1e-5)
            assert np.allclose(rows, per_sample[8 * host : 8 * host + 8], rtol=1e-4)
            assert np.allclose(total, [per_sample.sum(), 16], rtol=1e-4)
        for file in ("result_1_0.npz", "result_2_0.npz", "result_2_1.npz"):
            with np.load(folder / file) as found:
                for name, value in wanted.items():
                    assert difference(found[name], value) < 1e-4, (file, name)


OPEN_PROGRAMS = """
import sys
sys.path.insert(0, sys.argv[2])
import numpy as np
from fluid.engine.xla import create, graph
programs, state = graph.load(sys.argv[1])
engine = create("cpu")
engine.load(state)
"""


def test_with_statistics_of_their_own_rows_devices_exchange_only_gradients(tmp_path: Path) -> None:
    """Batch norm over the whole batch sums over all devices, forward and backward; over its own rows, not at all."""
    script = OPEN_PROGRAMS + (
        "print(float(engine.run(programs['train'], dict(np.load(sys.argv[1] + '/feed.npz')))['loss']))\n"
    )
    program, counts = image_program(), []
    np.savez(tmp_path / "feed.npz", **image_feed(8))
    for program.statistics_batch in (None, 2):
        graphs.save(tmp_path, [capture(program)], initialise(program, seed=0))
        dump = tmp_path / f"dump_{program.statistics_batch}"
        environment = with_devices(4, f"--xla_dump_to={dump}", "--xla_dump_hlo_as_text")
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "0"
        command = [sys.executable, "-c", script, str(tmp_path), str(ROOT)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        (compiled,) = dump.glob("*jit_listed*after_optimizations.txt")
        counts.append(len(re.findall(r" all-reduce(?:-start)?\(", compiled.read_text())))
        assert "all-gather" not in compiled.read_text()
    assert counts[1] == 1 < counts[0], counts


def test_devices_run_independent_rows_each_by_itself(tmp_path: Path) -> None:
    """Numbers are doubled until all are above 100: with rows of its own a device stops when those are."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        small = lambda step, value: paddle.any(value < 100)  # noqa: E731
        double = lambda step, value: [step + 1, paddle.where(value < 100, 2 * value, value)]  # noqa: E731
        step, value = paddle.static.nn.while_loop(small, double, [paddle.zeros([1], "int64"), x])
        return {"value": value, "steps": step + paddle.zeros_like(value).astype("int64")}

    script = OPEN_PROGRAMS + (
        "outputs = engine.run(programs['doubling'], {'x': np.arange(1, 9, dtype=np.float32)})\n"
        "print([np.asarray(outputs[name]).tolist() for name in ('value', 'steps')])\n"
    )
    program = build(network, [Input("x", (None,))], name="doubling")
    command = [sys.executable, "-c", script, str(tmp_path), str(ROOT)]
    environment = with_devices(4)
    found = []
    for program.independent_rows in (False, True):
        graphs.save(tmp_path, [capture(program)], {})
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    (values, together), (same_values, alone) = found
    assert values == same_values == [128, 128, 192, 128, 160, 192, 112, 128]
    assert together == [7] * 8 and alone == [7, 7, 6, 6, 5, 5, 4, 4]


def test_a_batch_that_devices_cannot_share(tmp_path: Path) -> None:
    """Each of them evaluates all of it; training refuses it."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "import numpy as np\n"
        "from fluid.engine.xla import create, graph\n"
        "from fluid.errors import EngineError\n"
        "programs, state = graph.load(sys.argv[1])\n"
        "engine = create('cpu'); engine.load(state)\n"
        "feed = dict(np.load(sys.argv[1] + '/feed.npz'))\n"
        "print(np.asarray(engine.run(programs['eval'], feed)['losses']).tolist())\n"
        "try: engine.run(programs['train'], feed)\n"
        "except EngineError as error: print(error)\n"
    )
    train, evaluate = image_program(), image_program("eval", optimizer=None)
    state, feed = initialise(train, seed=0), image_feed(6)
    graphs.save(tmp_path, [capture(train), capture(evaluate)], state)
    np.savez(tmp_path / "feed.npz", **feed)
    engine = create("cpu")
    engine.load(state)
    wanted = np.asarray(engine.run(evaluate, feed)["losses"])
    environment = with_devices(4)
    command = [sys.executable, "-c", script, str(tmp_path), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "has 6 rows along its axis of samples (0), which 4 devices cannot share evenly" in done.stdout, done.stderr
    assert np.allclose(json.loads(done.stdout.splitlines()[0]), wanted, rtol=1e-4)


def test_of_a_long_sort_only_what_is_used_is_sorted() -> None:
    """The same order as Paddle's, ties, zeros of both signs, infinities and NaN included; and nothing of 4000 is sorted whole."""
    values = np.random.default_rng(0).integers(-3, 4, (3, 4000, 2)).astype(np.float32)
    values[0, 1000:1010, 0] = [-0.0, 0.0, np.inf, np.nan, -np.inf, np.nan, 3.0, -0.0, 0.0, np.inf]
    values[1] = np.where(values[1] > 0, -values[1], values[1])
    values[1, ::2][values[1, ::2] == 0] = -0.0

    def network(x: Any, training: bool) -> dict[str, Any]:
        order = paddle.argsort(x, axis=1, descending=True, stable=True)
        return {"best": paddle.argsort(x, axis=-2, descending=True, stable=True)[:, :9], "half": order[:, 2000:]}

    program = build(network, [Input("x", values.shape)], name="sorts")
    xla = create("cpu")
    expected = PaddleEngine().run(program, {"x": values})
    for name, wanted in expected.items():
        assert np.array_equal(xla.run(program, {"x": values}, fetch=[name])[name], wanted), name
    text = {name: xla.lowered_text(program, {"x": values}, [name]) for name in expected}
    assert "top_k" in text["best"] and "stablehlo.sort" not in text["best"]
    assert "stablehlo.sort" in text["half"]


def test_a_shortened_sort_sorts_what_is_there_where_it_stands() -> None:
    """Not what is written over it before the slice."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        copy = x * 1.0
        order = paddle.argsort(copy, axis=1, descending=True, stable=True)
        paddle.assign(-copy, copy)
        return {"first": order[:, :3], "negative": copy * 1.0}

    values = np.random.default_rng(0).normal(size=(2, 20)).astype(np.float32)
    program = build(network, [Input("x", values.shape)], name="sorts")
    expected, actual = (engine.run(program, {"x": values}) for engine in (PaddleEngine(), create("cpu")))
    for name, wanted in expected.items():
        assert np.array_equal(actual[name], wanted), name


def test_what_is_not_a_number_counts_as_largest() -> None:
    """0 / 0 as well, which has a sign on a CPU."""
    values = np.random.default_rng(0).normal(size=(2, 4000)).astype(np.float32)
    values[:, ::7] = 0

    def network(x: Any, training: bool) -> dict[str, Any]:
        odd = x / x * x
        order = paddle.argsort(odd, axis=1, descending=True, stable=True)
        return {"order": order[:, :9], "largest": paddle.isnan(paddle.topk(odd, 600)[0])}

    program = build(network, [Input("x", values.shape)], name="sorts")
    expected, actual = (engine.run(program, {"x": values}) for engine in (PaddleEngine(), create("cpu")))
    assert expected["largest"].sum() == 2 * 572
    for name, wanted in expected.items():
        assert np.array_equal(actual[name], wanted), name


def test_a_product_of_any_number_of_samples_with_one_matrix() -> None:
    """Paddle declares one sample for it, and computes all."""

    def network(x: Any, training: bool) -> dict[str, Any]:
        x.stop_gradient = False
        one = paddle.ones([1, 4, 2]) * 0.5
        products = [paddle.matmul(x, one), paddle.einsum("nij,njk->nik", x, one)]
        assert [list(product.shape) for product in products] == [[1, 3, 2]] * 2
        squares = [paddle.square(product + 1.0) for product in products]
        (gradient,) = paddle.static.gradients([paddle.sum(squares[0]) + paddle.sum(squares[1])], [x])
        joined = paddle.concat([product.flatten() for product in products])
        return {"matmul": squares[0], "einsum": squares[1], "joined": joined, "gradient": gradient}

    axes = {"matmul": None, "einsum": None, "joined": None}
    program = build(network, [Input("x", (None, 3, 4))], name="products", training=True, batch_axes=axes)
    values = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    expected, actual = (engine.run(program, {"x": values}) for engine in (PaddleEngine(), create("cpu")))
    for name, wanted in expected.items():
        assert actual[name].shape == wanted.shape and difference(actual[name], wanted) < 1e-5, name
