"""Which weights evaluations in training measure."""

from fluid import engine as engines
from fluid.averages import MeasuredWeights
from fluid.config import AverageFlags, EngineFlags
from fluid.errors import UserError
from fluid.interface import EMA_SUFFIX, Input, Window
from fluid.program import build, initialise
from fluid.schedule import Constant
from fluid.tests.toy import ToyFlags, build_programs

import numpy as np
import paddle
import pytest


@pytest.mark.parametrize("name", ["paddle", "xla"])
def test_moving_averages_are_measured_and_training_is_undisturbed(name):
    programs = build_programs(ToyFlags(dropout=0.0))
    train, names = programs["train"], programs["eval"].state_names
    engine, _ = engines.create(name, "cpu")
    engine.load(initialise(train, seed=1))
    weights = MeasuredWeights(engine, train, names, EngineFlags(device="cpu"))
    rng = np.random.default_rng(0)
    for step in range(3):
        feed = {"point": rng.normal(size=(8, 4)).astype(np.float32), "label": rng.integers(0, 2, 8)}
        engine.run(train, feed, step=step)
        before = engine.state()
        measured = weights.engine().state(names)
        for parameter in train.trainable:
            np.testing.assert_array_equal(measured[parameter], before[f"{parameter}_ema"])
            assert not np.array_equal(measured[parameter], before[parameter])
        after = engine.state()
        assert all(np.array_equal(after[key], before[key]) for key in before)


def test_without_averages_it_is_the_engine_that_trains():
    programs = build_programs(ToyFlags())
    engine, _ = engines.create("paddle", "cpu")
    assert MeasuredWeights(engine, programs["eval"], programs["eval"].state_names, EngineFlags()).engine() is engine


@pytest.mark.parametrize("name", ["paddle", "xla"])
def test_the_mean_over_a_window_is_that_of_the_latest_updates(name):
    """Gathered anew from 2 updates on, a half of all or 3; the updates gathered before count, too."""

    def network(x, training):
        weight = paddle.create_parameter([2], "float32", attr=paddle.ParamAttr(name="w"))
        return {"loss": (x * weight).sum()}

    options = {
        "optimizer": lambda: paddle.optimizer.SGD(1.0),
        "schedule": Constant(1.0),
        "ema_decay": Window(0.5, 2, 3),
    }
    program = build(network, [Input("x", (None, 2))], name="train", training=True, **options)
    engine, _ = engines.create(name, "cpu")
    engine.load(initialise(program, seed=1))
    rng, gathered, before = np.random.default_rng(0), [], []
    for step in range(12):
        engine.run(program, {"x": rng.normal(size=(1, 2)).astype(np.float32)}, step=step)
        state = engine.state()
        gathered.append(state["w"])
        if len(gathered) >= 2 and len(gathered) >= min(3, 0.5 * (step + 1)):
            before, gathered = gathered, []
        np.testing.assert_allclose(state["w" + EMA_SUFFIX], np.mean(before + gathered, axis=0), rtol=1e-5)
    assert len(before) == 3


def test_two_averages_at_once_are_refused():
    assert AverageFlags(average_window=0.15).averaging == Window(0.15, 10_000, 12_500)
    with pytest.raises(UserError, match="two averages"):
        _ = AverageFlags(use_ema=True, average_window=0.15).averaging
