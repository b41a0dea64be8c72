"""What the xla engine keeps for a Program: it ends with the Program, and rarely used shapes go."""

import gc
import weakref

from fluid import engine as engines
from fluid.engine.xla import compiled, create
from fluid.engine.xla.capture import capture
from fluid.engine.xla.compiled import MAX_SHAPES, Recent, quick_options
from fluid.interface import Input, Interface
from fluid.program import build, initialise
from fluid.schedule import Constant

import numpy as np
import paddle
import pytest


def shrinking(training=False):
    """[N, T] -> the mean over T through a weight."""

    def network(x, training):
        weight = paddle.create_parameter([1], "float32", attr=paddle.ParamAttr(name="w"))
        means = (x * weight).mean(axis=1)
        return {"loss": paddle.square(means - 1.0).mean()} if training else {"means": means}

    inputs = [Input("x", (None, None))]
    if not training:
        return build(network, inputs, name="means")
    options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.01)}
    return build(network, inputs, name="train", training=True, **options)


@pytest.mark.parametrize("captured", [False, True])
def test_what_is_kept_ends_with_the_program(captured):
    program = shrinking()
    engine = create("cpu")
    engine.load(initialise(program, seed=0))
    if captured:
        program = capture(program)
    engine.run(program, {"x": np.ones((2, 3), np.float32)})
    kept = weakref.ref(engine.compiled(program))
    other = shrinking()
    engine.run(other, {"x": np.ones((2, 3), np.float32)})
    del program
    gc.collect()
    assert kept() is None and engine.compiled(other).shapes == 1


def test_shapes_used_long_ago_go(monkeypatch):
    """An interactive user of many sizes; the results stay right for one that had gone."""
    monkeypatch.setattr(Recent.__init__, "__defaults__", (4,))
    engine, evaluate, train = create("cpu"), shrinking(), shrinking(training=True)
    engine.load({"w": np.array([2.0], np.float32)})
    for length in [*range(1, 8), 1]:
        outputs = engine.run(evaluate, {"x": np.full((2, length), 3.0, np.float32)})
        np.testing.assert_allclose(outputs["means"], [6.0, 6.0])
    assert engine.compiled(evaluate).shapes == 4
    for step, length in enumerate([*range(1, 8), 1]):
        before = engine.state(["w"])["w"]
        outputs = engine.run(train, {"x": np.ones((2, length), np.float32)}, step)
        np.testing.assert_allclose(outputs["loss"], (before[0] - 1.0) ** 2, rtol=1e-6)
    assert engine.compiled(train).shapes == 4 < MAX_SHAPES


def test_the_value_used_longest_ago_goes_first():
    recent, made = Recent(2), []

    def make(key):
        made.append(key)
        return key

    for key in ("a", "b", "a", "c", "a", "b"):
        assert recent.find(key, lambda key=key: make(key)) == key
    assert made == ["a", "b", "c", "b"] and recent.values() == ["a", "b"]
    assert not recent.is_new("a") and recent.is_new("c")
    recent.prepare("d", lambda: "d")
    assert recent.is_new("d") and recent.find("d", lambda: make("d")) == "d" and not recent.is_new("d")


def test_only_convolutions_keep_a_cpu_from_looping_in_one_call():
    assert not create("cpu").compiled(shrinking(training=True)).loops_on_host


def test_few_runs_are_compiled_sooner(monkeypatch):
    """On a CPU, by options that this XLA knows, to the same results; and only where nothing is trained."""
    quick, well, evaluate = create("cpu", few_runs=True), create("cpu"), shrinking()
    feed = {"x": np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)}
    for engine in (quick, well):
        engine.load({"w": np.array([2.0], np.float32)})
    means = [engine.run(evaluate, feed)["means"] for engine in (quick, well)]
    np.testing.assert_allclose(*means, rtol=1e-6)
    assert quick.compiled(evaluate).options["xla_backend_optimization_level"] == 0
    assert well.compiled(evaluate).options is None
    monkeypatch.setattr(compiled, "QUICK", {"xla_of_no_version": True, **compiled.QUICK})
    assert compiled.quick_options.__wrapped__() == quick_options()


@pytest.mark.parametrize(("runs", "schedule", "few"), [(1, None, True), (9, None, False), (1, Constant(0.1), False)])
def test_which_runs_are_few(runs, schedule, few):
    program = Interface(name="loop", inputs={}, outputs={}, recurrent=True, schedule=schedule)
    engine, _ = engines.create(device="cpu", runs=runs, programs=[program])
    assert engine.tuning.quick_code == few
