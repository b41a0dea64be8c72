"""Our own kernels do what the rules do, on one device and on two, and only where they fit.

This module is also the script that a test starts, because the number of devices is settled before JAX starts.
"""

import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid import engine as engines
from fluid.engine.xla import XlaEngine, compiled, create
from fluid.engine.xla import engine as engine_module
from fluid.engine.xla.kernels import Kernels, run_on
from fluid.engine.xla.kernels import cross_entropy as kernel
from fluid.engine.xla.tuning import Tuning
from fluid.errors import EngineError
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.schedule import Constant
from fluid.tests.devices import with_devices

import jax
import jax.numpy as jnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

WORDS, SIZE, SAMPLES, LENGTH = 300, 16, 4, 5
BLOCKS = {"SMALLEST": 1, "BLOCK": 64, "READ": 2, "WRITTEN": 1}
"""A row takes whole rounds and one with places beyond its end."""
INPUTS = [Input("x", (None, LENGTH, SIZE), "float32"), Input("label", (None, LENGTH), "int64")]
Losses = Callable[[Any, Any], tuple[Any, Any]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels take what is small as well, in several blocks."""
    for name, number in BLOCKS.items():
        monkeypatch.setattr(kernel, name, number)


def feed() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    label = rng.integers(0, WORDS, (SAMPLES, LENGTH))
    label[0, 3:] = -100
    return {"x": rng.normal(size=(SAMPLES, LENGTH, SIZE)).astype(np.float32), "label": label}


def plain(logits: Any, label: Any) -> tuple[Any, Any]:
    losses = F.cross_entropy(logits, label, reduction="none")
    return losses, losses


def smoothed(logits: Any, label: Any) -> tuple[Any, Any]:
    label = paddle.maximum(label, paddle.zeros_like(label))
    losses = F.cross_entropy(logits, label, reduction="none", label_smoothing=0.1)
    return paddle.squeeze(losses, 2), F.cross_entropy(logits, label, reduction="none")


def without_a_word(logits: Any, label: Any) -> tuple[Any, Any]:
    """A word that training ignores is reported."""
    label = paddle.maximum(label, paddle.zeros_like(label))
    ignored = F.cross_entropy(logits, label, reduction="none", ignore_index=int(feed()["label"][1, 0]))
    return ignored, F.cross_entropy(logits, label, reduction="none")


def of_soft_labels(logits: Any, label: Any) -> tuple[Any, Any]:
    target = 0.9 * F.one_hot(paddle.maximum(label, paddle.zeros_like(label)), WORDS) + 0.1
    losses = paddle.squeeze(F.cross_entropy(logits, target, reduction="none", soft_label=True), 2)
    return losses, losses


def of_two(logits: Any, label: Any) -> tuple[Any, Any]:
    trained, reported = smoothed(logits, label)
    return trained + reported, reported


def of_read_softmax(logits: Any, label: Any) -> tuple[Any, Any]:
    losses, probability = F.softmax_with_cross_entropy(logits, paddle.unsqueeze(label, 2), return_softmax=True)
    return losses, paddle.max(probability)


def of_two_gradients(logits: Any, label: Any) -> tuple[Any, Any]:
    losses, _ = plain(logits, label)
    (gradient,) = paddle.static.gradients([paddle.sum(losses)], [logits])
    return losses, paddle.abs(gradient)


def of_an_image(logits: Any, label: Any) -> tuple[Any, Any]:
    image = paddle.nn.Conv2D(1, 2, 3, padding=1)(paddle.unsqueeze(logits, 1))
    words = paddle.matmul(image, paddle.create_parameter([WORDS, WORDS], "float32", name="more"))
    return plain(words, paddle.stack([label, label], 1))


def program(losses: Losses, bias: bool = False) -> Program:
    """A classifier over words, trained on the first of `losses`; both are outputs."""

    def network(x: Any, label: Any, training: bool) -> dict[str, Any]:
        hidden = F.tanh(paddle.nn.Linear(SIZE, SIZE)(x))
        weight = paddle.create_parameter([WORDS, SIZE], "float32", name="words")
        logits = paddle.matmul(hidden, weight, transpose_y=True)
        if bias:
            logits = logits + paddle.create_parameter([WORDS], "float32", name="bias", is_bias=True)
        trained, reported = losses(logits, label)
        return {"loss": paddle.sum(trained * 0.1), "reported": paddle.sum(reported)}

    return build(
        network,
        INPUTS,
        name="words",
        training=True,
        optimizer=lambda: paddle.optimizer.SGD(1.0),
        schedule=Constant(0.5),
    )


def engine_with(kernels: bool, precision: str = "fp32") -> XlaEngine:
    engine = create("cpu", precision)
    engine.tuning = dataclasses.replace(engine.tuning, kernels=kernels)
    return engine


def step(engine: XlaEngine, made: Program) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The outputs of a step, and by how much it moves each parameter."""
    state = initialise(made, seed=1)
    engine.load(state)
    outputs = {name: float(np.asarray(value)) for name, value in engine.run(made, feed()).items() if name != "finite"}
    return outputs, {name: array - state[name] for name, array in engine.state(made.trainable).items()}


def agree(made: Program, precision: str, tolerance: float) -> None:
    """The same step by kernels and by rules."""
    outputs, moved = step(engine_with(True, precision), made)
    wanted, should = step(engine_with(False, precision), made)
    assert outputs == pytest.approx(wanted, rel=tolerance)
    for name, array in should.items():
        assert np.linalg.norm(moved[name] - array) <= tolerance * np.linalg.norm(array), name


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The logits for which the kernel is called."""
    found = []
    whole = kernel.cross_entropy

    def counted(kernels: Kernels, logits: Any, *rest: Any) -> Any:
        found.append(logits)
        return whole(kernels, logits, *rest)

    monkeypatch.setattr(kernel, "cross_entropy", counted)
    return found


FULL = pytest.mark.full


@pytest.mark.parametrize(
    ("losses", "precision", "tolerance"),
    [
        (smoothed, "fp32", 2e-5),
        (without_a_word, "fp32", 2e-5),
        pytest.param(plain, "fp32", 2e-5, marks=FULL),
        pytest.param(smoothed, "bf16", 2e-2, marks=FULL),
        pytest.param(plain, "bf16", 2e-2, marks=FULL),
    ],
)
def test_a_step_by_the_kernel_is_a_step_by_rules(losses, precision, tolerance, calls):
    agree(program(losses), precision, tolerance)
    assert len(calls) == 1


@pytest.mark.filterwarnings("ignore:(?s).*softmax_with_cross_entropy")
@pytest.mark.parametrize(
    ("losses", "bias"),
    [
        (plain, True),
        (of_soft_labels, False),
        (of_two, False),
        (of_read_softmax, False),
        (of_two_gradients, False),
        (of_an_image, False),
    ],
    ids=["bias", "soft labels", "two losses", "softmax is read", "two gradients", "pixels"],
)
def test_rules_take_what_the_kernel_does_not(losses, bias, calls):
    made = program(losses, bias)
    by_kernels, by_rules = (engine_with(kernels).lowered_text(made, feed()) for kernels in (True, False))
    assert not calls and by_kernels == by_rules


def test_few_logits_are_left_to_the_rules(calls, monkeypatch):
    monkeypatch.setattr(kernel, "SMALLEST", SAMPLES * LENGTH * WORDS + 1)
    engine_with(True).lowered_text(program(plain), feed())
    assert not calls


def test_two_devices_make_a_step_by_kernels():
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=with_devices(2), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_classes_of_pixels_are_left_to_the_rules():
    """Their logits lie channels-last."""

    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        logits = paddle.nn.Conv2D(3, 4, 1)(image)
        return {"loss": paddle.mean(F.cross_entropy(logits, label, axis=1))}

    inputs = [Input("image", (None, 3, 4, 4)), Input("label", (None, 1, 4, 4), "int64")]
    options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.1)}
    program = build(network, inputs, name="pixels", training=True, **options)
    image, label = np.zeros((2, 3, 4, 4), np.float32), np.zeros((2, 1, 4, 4), np.int64)
    by_kernels, by_rules = (
        engine_with(kernels).lowered_text(program, {"image": image, "label": label}) for kernels in (True, False)
    )
    assert by_kernels == by_rules


def of_gpu() -> Kernels:
    """As on one GPU, which need not be there."""
    mesh: Any = SimpleNamespace(size=1, devices=np.array([SimpleNamespace(platform="gpu")]))
    return Kernels(mesh)


def compiles_for_gpus(function: Callable[..., Any], *shapes: jax.ShapeDtypeStruct) -> None:
    """Down to Triton's language, which needs no GPU; newer JAX wants to know which one it is for."""
    facts = {"device_kind": "NVIDIA H100 80GB HBM3", "num_cores": None, "platform": "gpu"}
    known = inspect.signature(jax.sharding.AbstractDevice).parameters
    device = jax.sharding.AbstractDevice(**{name: value for name, value in facts.items() if name in known})
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((1,), ("batch",), abstract_device=device)):
        text = jax.jit(function).trace(*shapes).lower(lowering_platforms=("cuda",)).as_text()
    assert "triton" in text


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_the_kernel_is_code_for_gpus(dtype, monkeypatch):
    monkeypatch.undo()
    kernels = of_gpu()
    logits, label = jax.ShapeDtypeStruct((64, 32, 32000), dtype), jax.ShapeDtypeStruct((64, 32), jnp.int64)
    with jax.enable_x64(True):
        assert kernel.fits(kernels, logits)
        compiles_for_gpus(partial(kernel.cross_entropy, kernels, smoothing=0.1), logits, label)


@pytest.mark.parametrize(
    ("device", "fits"),
    [
        ({"platform": "gpu", "compute_capability": "9.0"}, True),
        ({"platform": "gpu", "compute_capability": "7.5"}, False),
        ({"platform": "gpu"}, False),
        ({"platform": "cpu"}, True),
    ],
    ids=["H100", "T4", "unknown", "CPU"],
)
def test_kernels_are_for_gpus_on_which_they_were_measured(device, fits, calls, monkeypatch):
    device = SimpleNamespace(**device)
    assert run_on(device) is fits
    monkeypatch.setattr(compiled, "run_on", lambda _: run_on(device))
    engine_with(True).lowered_text(program(plain), feed())
    assert len(calls) == fits


def test_kernels_can_be_left_out(monkeypatch):
    monkeypatch.setattr(engine_module, "for_platform", lambda platform: Tuning(kernels=True))
    assert create("cpu").tuning.kernels and not create("cpu", kernels="off").tuning.kernels
    assert not engines.create("xla", "cpu", kernels="off")[0].tuning.kernels
    with pytest.raises(EngineError, match="--kernels all: choose one of auto, off"):
        engines.create("xla", "cpu", kernels="all")


if __name__ == "__main__":
    assert jax.device_count() == 2
    vars(kernel).update(BLOCKS)
    agree(program(smoothed), "fp32", 2e-5)
