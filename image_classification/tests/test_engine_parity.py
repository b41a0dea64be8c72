"""Every network, training and evaluation, on both engines: the same state and batch, one step, in float64.

In float32 the comparison would say little: with small images some batch statistics come from a few dozen numbers, and
Paddle's own float32 gradients of ResNet50 then differ from its float64 ones by more than 10 percent.
"""

import gc
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.program import LEARNING_RATE, Program, build, initialise
from fluid.schedule import Constant
from image_classification.models import MODELS, find_model, layers

import jax
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

RATE = 0.01
ONE_OF_EACH_FAMILY = {"SmallNet": 28, "ResNet18": 32, "MobileNetV1_x0_25": 32, "VGG11": 32}
"""Those of the normal run, with the image size; the others take minutes to compile."""

NAMES = [pytest.param(name, id=name, marks=() if name in ONE_OF_EACH_FAMILY else pytest.mark.full) for name in MODELS]


def programs(name: str, size: int) -> tuple[Program, Program]:
    model = find_model(name)

    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        logits = model.build(image, 10, training)
        heads = logits if isinstance(logits, tuple) else (logits,)
        return {"loss": sum(F.cross_entropy(head, label) for head in heads), "logits": heads[0]}

    inputs = [Input("image", (None, model.image_shape[0], size, size), "float64"), Input("label", (None,), "int64")]
    train = build(
        network,
        inputs,
        name="train",
        training=True,
        optimizer=lambda: paddle.optimizer.Momentum(RATE, 0.9, weight_decay=1e-4),
        batch_axes={"logits": 0},
    )
    return train, build(network, inputs, name="eval")


@pytest.fixture(autouse=True)
def forget_what_was_compiled():
    """JAX keeps every compiled function, and Programs refer to themselves: the networks of a full run together take gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "dropout", lambda x, rate, *, training: x * (1 - rate))
    size = max(ONE_OF_EACH_FAMILY.get(name, 64), find_model(name).min_size)
    paddle.set_default_dtype("float64")
    try:
        train, evaluate = programs(name, size)
    finally:
        paddle.set_default_dtype("float32")
    state = initialise(train, seed=0)
    rng = np.random.default_rng(0)
    channels = find_model(name).image_shape[0]
    feed = {"image": rng.normal(size=(4, channels, size, size)), "label": rng.integers(0, 10, 4)}

    # The reference writes float32 learning rates; this one is float64 like the rest of the Program.
    train.schedule = None
    reference = PaddleEngine()
    reference.load({**state, LEARNING_RATE: np.float64(RATE)})
    expected = [reference.run(evaluate, feed)["logits"], reference.run(train, feed)["loss"]]
    wanted = reference.state(train.state_names)

    train.schedule = Constant(RATE)
    engine = create("cpu")
    engine.load(state)
    actual = [np.asarray(engine.run(evaluate, feed)["logits"]), np.asarray(engine.run(train, feed)["loss"])]
    for have, want in zip(actual, expected, strict=True):
        assert difference(have, want) < 1e-9
    for variable, have in engine.state(train.state_names).items():
        scale = max(np.abs(wanted[variable]).max(), 1e-6)  # the gradient of what batch norm cancels is rounding alone
        assert np.abs(have - wanted[variable]).max() / scale < 1e-7, variable


def difference(have: np.ndarray, want: np.ndarray) -> float:
    """max |a - b| / max |b|"""
    return float(np.max(np.abs(have - want)) / np.max(np.abs(want)))
