"""What is frozen stays bit by bit, and rates grow towards the head."""

from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError
from fluid.optimizers import OptimizerFlags, optimizer
from fluid.program import build, initialise
from fluid.schedule import Constant
from image_classification.finetuning import Tuning
from image_classification.network import training_network
from image_classification.tests.tiny import CLASSIFIER, batch

import numpy as np
import pytest


def trained(tuning: Tuning, **flags) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The state before and after an update."""
    network, inputs = training_network(CLASSIFIER, tuning=tuning)
    made = lambda: optimizer(OptimizerFlags(lr=0.1, **flags))  # noqa: E731
    program = build(network, inputs, name="train", training=True, optimizer=made, schedule=Constant(0.1))
    before = initialise(program, seed=1)
    engine = PaddleEngine()
    engine.load(before)
    engine.run(program, batch(np.random.default_rng(0)))
    return before, engine.state()


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    names = [
        name for name in before if name.startswith(("conv", "fc")) and "velocity" not in name and "moment" not in name
    ]
    return {name for name in names if not np.array_equal(before[name], after[name])}


def test_what_is_frozen_stays():
    everything = changed(*trained(Tuning()))
    assert {"conv1_weights", "conv1_bn_mean", "conv3_bn_scale", "fc4_weights", "fc4_offset"} <= everything
    without = changed(*trained(Tuning("statistics")))
    assert without == {name for name in everything if not name.endswith(("_mean", "_variance"))}
    assert changed(*trained(Tuning("backbone"))) == {"fc4_weights", "fc4_offset"}
    parts = changed(*trained(Tuning(frozen=("conv1*", "conv2*"))))
    assert "conv1_weights" not in parts and "conv2_bn_scale" not in parts and "conv3_weights" in parts


def test_rates_grow_towards_the_head():
    def steps(tuning: Tuning) -> dict[str, np.ndarray]:
        before, after = trained(tuning)
        return {
            name: after[name] - before[name]
            for name in ("conv1_weights", "conv2_weights", "conv3_weights", "fc4_weights")
        }

    plain, tuned = steps(Tuning()), steps(Tuning(head_lr=10.0, first_layer_lr=0.125))
    for name, factor in (
        ("conv1_weights", 0.125),
        ("conv2_weights", 0.25),
        ("conv3_weights", 0.5),
        ("fc4_weights", 10.0),
    ):
        np.testing.assert_allclose(tuned[name], factor * plain[name], rtol=1e-3, atol=1e-7)


def test_patterns_that_fit_nothing_and_nothing_to_train():
    with pytest.raises(
        UserError, match="--freeze_params convolution: no parameter is called so; they are conv1_weights"
    ):
        trained(Tuning(frozen=("convolution",)))
    with pytest.raises(UserError, match="leave nothing to train"):
        trained(Tuning(frozen=("*",)))


@pytest.mark.parametrize("share, smoothing", [(None, 0.0), (0.25, 0.0), (0.25, 0.1)])
def test_classes_count_as_their_weights_say(share, smoothing):
    """The loss and its gradient by the logits against the formula: the mean over the rows of weight x cross-entropy."""
    weights = np.linspace(0, 2, 10).astype(np.float32)
    mixing = None if share is None else (1, 1)
    network, inputs = training_network(CLASSIFIER, weights=weights, mixing=mixing, label_smoothing=smoothing)
    made = lambda: optimizer(OptimizerFlags(optimizer="sgd", lr=1.0))  # noqa: E731
    program = build(network, inputs, name="train", training=True, optimizer=made, schedule=Constant(1.0))
    feed, before = batch(np.random.default_rng(3)), initialise(program, seed=1)
    if share is not None:
        feed["own_share"] = np.array([[share]], np.float32)
    engine = PaddleEngine()
    engine.load(before)
    found = engine.run(program, feed, fetch=["loss", "fc4"])

    def target(labels: np.ndarray) -> np.ndarray:
        return weights[labels][:, None] * ((1 - smoothing) * np.eye(10)[labels] + smoothing / 10)

    own, other = target(feed["label"]), target(feed["label"][::-1])
    targets = own if share is None else share * own + (1 - share) * other
    logits = found["fc4"].astype(np.float64)
    logarithms = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert found["loss"] == pytest.approx(-(targets * logarithms).sum() / 8, rel=1e-5)
    gradient = (targets.sum(axis=1, keepdims=True) * np.exp(logarithms) - targets).mean(axis=0)
    np.testing.assert_allclose(before["fc4_offset"] - engine.state()["fc4_offset"], gradient, rtol=1e-4, atol=1e-6)
