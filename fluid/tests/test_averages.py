"""Which weights evaluations in training measure."""

from fluid import engine as engines
from fluid.averages import MeasuredWeights
from fluid.config import EngineFlags
from fluid.program import initialise
from fluid.tests.toy import ToyFlags, build_programs

import numpy as np
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
