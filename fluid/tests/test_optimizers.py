"""Update rules and learning rates by flags."""

from fluid import engine as engines
from fluid import schedule as schedules
from fluid.config import from_dict, parse
from fluid.errors import UserError
from fluid.interface import Input
from fluid.optimizers import OptimizerFlags, optimizer, schedule
from fluid.program import build, initialise

import numpy as np
import paddle
import pytest


def rate(**flags):
    return schedule(OptimizerFlags(lr=0.4, **flags), steps_per_epoch=10, num_epochs=6, warmup_steps=20)


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({}, schedules.Cosine(0.4, 60)),
        ({"lr_strategy": "constant"}, schedules.Constant(0.4)),
        ({"lr_strategy": "cosine_decay_by_epoch"}, schedules.CosineByEpoch(0.4, 10, 6)),
        ({"lr_strategy": "cosine_decay_warmup"}, schedules.Warmup(20, schedules.Cosine(0.4, 40))),
        ({"lr_strategy": "cosine_decay_warmup", "warmup_steps": 0}, schedules.Warmup(0, schedules.Cosine(0.4, 60))),
        ({"lr_strategy": "cosine_decay_warmup", "warmup_epochs": 1.5}, schedules.Warmup(15, schedules.Cosine(0.4, 45))),
        ({"lr_strategy": "linear_decay"}, schedules.Polynomial(0.4, 60)),
        ({"lr_strategy": "polynomial_decay", "lr_power": 3.0}, schedules.Polynomial(0.4, 60, power=3.0)),
        (
            {"lr_strategy": "exponential_decay_warmup", "warmup_steps": 5},
            schedules.Warmup(5, schedules.Exponential(0.4, 24.0, 0.97)),
        ),
    ],
)
def test_schedules(flags, expected):
    assert rate(**flags) == expected


def test_steps_fall_by_tens():
    steps = rate(lr_strategy="piecewise_decay", step_epochs=(2, 4))
    assert [steps(step) for step in (0, 19, 20, 39, 40)] == pytest.approx([0.4, 0.4, 0.04, 0.04, 0.004])


def test_noam_needs_a_width_and_inverse_sqrt_none():
    with pytest.raises(UserError, match="noam: this network has no width"):
        rate(lr_strategy="noam")
    inverse = rate(lr_strategy="inverse_sqrt")
    assert max(inverse(step) for step in range(100)) == pytest.approx(0.4) == inverse(19)
    flags = OptimizerFlags(lr=2.0, lr_strategy="noam", warmup_steps=400)
    assert schedule(flags, steps_per_epoch=1, num_epochs=1, width=512) == schedules.Noam(512, 400, 2.0)


def test_the_warm_up_has_one_unit():
    with pytest.raises(UserError, match="two units"):
        rate(warmup_steps=5, warmup_epochs=1.0)


@pytest.mark.parametrize("name", ["momentum", "sgd", "adam", "adamw", "rmsprop"])
def test_every_update_rule_can_be_made(name):
    made = optimizer(OptimizerFlags(optimizer=name, lr=0.25, l2_decay=1e-4, grad_clip=1.0))
    assert type(made).__name__.lower() == name and made.get_lr() == 0.25


@pytest.mark.parametrize(
    "words, expected",
    [
        ("--label_smooth_eps 0.2", 0.2),
        ("--use_label_smoothing=True", 0.1),
        ("--use_label_smoothing=True --label_smoothing_epsilon=0.2", 0.2),
        ("--label_smoothing_epsilon=0.2 --use_label_smoothing True", 0.2),
        ("--label_smoothing_epsilon 0.2 --use_label_smoothing False", 0.0),
        ("--use_label_smoothing=0 --label_smoothing 0.3", 0.0),
    ],
)
def test_spellings_of_label_smoothing(words, expected):
    assert parse(OptimizerFlags, words.split()).label_smoothing == expected


@pytest.mark.parametrize(
    "kept, expected",
    [
        ({"use_label_smoothing": False, "label_smoothing_epsilon": 0.1}, 0.0),
        ({"use_label_smoothing": True, "label_smoothing_epsilon": 0.2}, 0.2),
        ({"use_label_smoothing": True}, 0.1),
        ({"label_smooth_eps": 0.3}, 0.3),
        ({"eps": 1e-9}, 0.0),
    ],
)
def test_runs_of_earlier_versions_mean_the_same(kept, expected):
    flags = from_dict(OptimizerFlags, kept)
    assert flags.label_smoothing == expected and flags.adam_epsilon == kept.get("eps", 1e-8)


def updated(engine: str, steps: int = 1, gradient: float = 0.0, **flags) -> tuple[np.ndarray, np.ndarray]:
    """A matrix and a vector of ones after updates in which the loss has this gradient by each number."""

    def network(x, training):
        one = paddle.nn.initializer.Constant(1.0)
        weight = paddle.create_parameter([2, 3], "float32", attr=paddle.ParamAttr(name="w", initializer=one))
        bias = paddle.create_parameter([3], "float32", attr=paddle.ParamAttr(name="b", initializer=one))
        return {"loss": gradient * (paddle.sum(weight) + paddle.sum(bias)) + 0.0 * paddle.sum(x)}

    rule = lambda: optimizer(OptimizerFlags(lr=0.1, l2_decay=0.5, **flags))  # noqa: E731
    rate = schedules.Constant(0.1)
    program = build(network, [Input("x", (None,))], name="t", training=True, optimizer=rule, schedule=rate)
    chosen, _ = engines.create(engine, "cpu", "fp32", 0, programs=[program])
    chosen.load(initialise(program, seed=0))
    for step in range(steps):
        chosen.run(program, {"x": np.ones(1, np.float32)}, step)
    state = chosen.state()
    return np.asarray(state["w"]), np.asarray(state["b"])


@pytest.mark.parametrize("engine", ["paddle", "xla"])
def test_vectors_may_be_left_without_decay(engine):
    for name in ("momentum", "sgd", "adam", "adamw"):
        decayed, kept = updated(engine, optimizer=name, decay_vectors=False)
        assert (decayed < 0.99).all() and (kept == 1).all(), name
        assert (updated(engine, optimizer=name)[1] < 0.99).all(), name
    # AdamW decays the parameters by themselves; added to the gradient, Adam makes a whole step of it.
    np.testing.assert_allclose(updated(engine, optimizer="adamw")[0], 0.95, rtol=1e-6)
    np.testing.assert_allclose(updated(engine, optimizer="adam")[0], 0.9, rtol=1e-5)


@pytest.mark.parametrize("engine", ["paddle", "xla"])
def test_nesterov_looks_a_step_ahead(engine):
    flags = {"gradient": 1.0, "steps": 1, "decay_vectors": False, "momentum_rate": 0.5}
    assert updated(engine, **flags)[1] == pytest.approx(1 - 0.1)
    assert updated(engine, nesterov=True, **flags)[1] == pytest.approx(1 - 0.1 * 1.5)
