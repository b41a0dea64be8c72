"""1 x 1 convolutions, normalisation and relu by kernels: the numbers of the rules, on one device and on two.

This module is also the script that a test starts, because the number of devices is settled before JAX starts.
"""

import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.engine.xla import create
from fluid.engine.xla.kernels import Kernels, expansion
from fluid.engine.xla.kernels import pointwise as kernel
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.schedule import Constant
from fluid.tests.devices import with_devices
from fluid.tests.test_kernels import compiles_for_gpus, engine_with, of_gpu

import jax
import jax.numpy as jnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

SAMPLES, SIDE, WIDE, THIN = 8, 4, 32, 16


def shrink(patch: Any) -> None:
    """Kernels in blocks of 16."""
    sizes = {"SMALLEST": 1, "UNEQUAL": 2, "ROWS": 16, "COLUMNS": 16, "WIDTHS": (16,), "DEPTH": 16, "PROGRAMS": 8}
    for name, value in sizes.items():
        patch(kernel, name, value)
    patch(expansion, "ROWS", 16)
    patch(expansion, "WIDTHS", (16,))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch.setattr)


def normalised(x: Any, channels: int) -> Any:
    norm = paddle.nn.BatchNorm2D(channels)
    norm.training = True
    return norm(x)


def convolution(x: Any, inputs: int, outputs: int, size: int = 1) -> Any:
    convolved = paddle.nn.Conv2D(inputs, outputs, size, padding=size // 2, bias_attr=False)(x)
    return normalised(convolved, outputs)


def residual(statistics_batch: int | None = None) -> Program:
    """A bottleneck between a 3 x 3 convolution and a 1 x 1 one."""

    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        x = F.relu(convolution(image, 3, WIDE, 3))
        y = F.relu(convolution(x, WIDE, THIN))
        x = F.relu(x + convolution(y, THIN, WIDE))
        x = F.relu(convolution(x, WIDE, THIN))
        logits = paddle.nn.Linear(THIN, 10)(paddle.mean(x, (2, 3)))
        return {"loss": paddle.mean(F.cross_entropy(logits, label))}

    return build(
        network,
        [Input("image", (None, 3, SIDE, SIDE)), Input("label", (None,), "int64")],
        name="residual",
        training=True,
        statistics_batch=statistics_batch,
        optimizer=lambda: paddle.optimizer.SGD(1.0),
        schedule=Constant(0.1),
    )


def feed() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(SAMPLES, 3, SIDE, SIDE)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, 10, SAMPLES)}


def step(program: Program, precision: str, kernels: bool) -> dict[str, np.ndarray]:
    """By how much a step moves the variables."""
    state = initialise(program, seed=1)
    engine = engine_with(kernels, precision)
    engine.load(state)
    engine.run(program, feed())
    return {name: array - state[name] for name, array in engine.state().items() if array.dtype == np.float32}


def difference(have: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> float:
    """Of two steps, beside the second."""
    parts = [(have[name] - array, array) for name, array in want.items()]
    apart, whole = (np.sqrt(sum(np.sum(np.square(part[place])) for part in parts)) for place in (0, 1))
    return float(apart / whole)


def agree(program: Program) -> None:
    """A step in bfloat16 by kernels is as near to one in float32 as one by rules."""
    exact = step(program, "fp32", False)
    by_rules, by_kernels = (step(program, "bf16", kernels) for kernels in (False, True))
    assert difference(by_kernels, exact) < 1.2 * difference(by_rules, exact) < 0.2


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each kernel is called."""
    found: Counter[str] = Counter()

    def count(name: str) -> None:
        whole = getattr(kernel, name)

        def counted(*operands: Any) -> Any:
            found[name] += 1
            return whole(*operands)

        monkeypatch.setattr(kernel, name, counted)

    for name in ("gradient", "by_weight"):
        count(name)
    return found


def test_every_kernel_takes_what_fits(calls):
    engine_with(True, "bf16").lowered_text(residual(), feed())
    assert calls == {"gradient": 2, "by_weight": 2}


@pytest.mark.parametrize("name", ["SMALLEST", "UNEQUAL"])
def test_others_are_left_to_the_rules(name, calls, monkeypatch):
    """Few pixels, and channels of nearly equal number, see the same operations as without kernels."""
    monkeypatch.setattr(kernel, name, 10**6)
    program = residual()
    by_kernels, by_rules = (engine_with(kernels, "bf16").lowered_text(program, feed()) for kernels in (True, False))
    assert by_kernels == by_rules and not calls


@pytest.mark.full
def test_a_step_by_kernels_is_one_by_rules():
    agree(residual())


@pytest.mark.full
def test_groups_of_samples_have_statistics_of_their_own():
    agree(residual(SAMPLES // 2))


@pytest.mark.full
def test_two_devices_make_a_step_by_kernels():
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=with_devices(2), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_float32_is_left_to_the_rules(calls):
    engine_with(True, "fp32").lowered_text(residual(), feed())
    assert not calls


def numbers(*shape: int, seed: int, dtype: Any = jnp.bfloat16) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def same(have: jax.Array, want: jax.Array) -> None:
    have, want = (np.asarray(value, np.float32) for value in (have, want))
    assert np.linalg.norm(have - want) < 5e-3 * np.linalg.norm(want)


def of_groups(pixels: np.ndarray, groups: int) -> np.ndarray:
    """Sums by channel."""
    return pixels.reshape(groups, -1, pixels.shape[-1]).sum(1)


def both(kernels: Kernels, value: Any, pixels: Any, shortcut: Any, weight: Any, by_result: kernel.Unmade) -> list[Any]:
    """The two kernels, the first with a shortcut and without."""
    return [
        kernel.gradient(kernels, by_result, weight, pixels, value, shortcut),
        kernel.gradient(kernels, by_result, weight, pixels, value, None),
        kernel.by_weight(kernels, pixels, by_result),
    ]


@pytest.mark.parametrize("groups", [1, 2])
def test_kernels_are_their_formulas(groups):
    """Sums are of what was rounded."""
    shape = (2, 4, 4)
    value, pixels, shortcut = (numbers(*shape, WIDE, seed=seed) for seed in (0, 1, 2))
    by_normalised, y = (numbers(*shape, THIN, seed=seed) for seed in (3, 4))
    weight = numbers(THIN, WIDE, seed=5)
    of_y = tuple(numbers(groups, THIN, seed=seed, dtype=jnp.float32) for seed in (6, 7, 8))
    kernels = Kernels(create("cpu").devices.mesh)
    by_result = kernel.Unmade(by_normalised, y, *of_y)
    *results, by_weight = jax.jit(partial(both, kernels))(value, pixels, shortcut, weight, by_result)

    value, pixels, shortcut, dz, y, weight = (
        np.asarray(array, np.float32) for array in (value, pixels, shortcut, by_normalised, y, weight)
    )
    # Two samples: both are one group, or each is.
    factor, slope, shift = (np.asarray(vector)[:, None, None] for vector in of_y)
    by_y = dz * factor + y * slope + shift
    same(by_result.made(), by_y)
    for result, added in zip(results, (shortcut, 0), strict=True):
        same(result.pixels, np.where(pixels > 0, np.einsum("nhwc,ck->nhwk", by_y, weight) + added, 0))
        rounded = np.asarray(result.pixels, np.float32)
        same(result.total, of_groups(rounded, groups))
        same(result.product, of_groups(rounded * value, groups))
    same(by_weight, np.einsum("nhwk,nhwc->kc", pixels, by_y))


def test_kernels_are_code_for_gpus(monkeypatch):
    monkeypatch.undo()
    kernels = of_gpu()
    wide, thin = (jax.ShapeDtypeStruct((16, 112, 112, channels), jnp.bfloat16) for channels in (256, 64))
    of_thin, weight = jax.ShapeDtypeStruct((2, 64), jnp.float32), jax.ShapeDtypeStruct((64, 256), jnp.bfloat16)
    assert kernel.fits(kernels, wide, 64) and not kernel.fits(kernels, wide, 128)
    by_result = kernel.Unmade(thin, thin, of_thin, of_thin, of_thin)
    compiles_for_gpus(partial(both, kernels), wide, wide, wide, weight, by_result)


if __name__ == "__main__":
    assert jax.device_count() == 2
    shrink(setattr)
    for samples in (None, SAMPLES // 2):
        agree(residual(samples))
