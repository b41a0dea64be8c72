"""Max pooling's gradient, back to what was normalised, by the kernels: the numbers of the rules, on one device and on two.

This module is also the script that a test starts, because the number of devices is settled before JAX starts.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.engine.xla import create
from fluid.engine.xla.kernels import Kernels
from fluid.engine.xla.kernels import pooling as kernel
from fluid.engine.xla.rules.pool import max_pool_and_winners
from fluid.interface import Input
from fluid.program import Program, build
from fluid.schedule import Constant
from fluid.tests.devices import with_devices
from fluid.tests.test_kernels import compiles_for_gpus, engine_with, of_gpu
from fluid.tests.test_kernels_pointwise import SAMPLES, agree, convolution, feed, numbers, of_groups, same

import jax
import jax.numpy as jnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

CHANNELS = 16


def shrink(patch: Any) -> None:
    """Kernels take what is small as well."""
    patch(kernel, "SMALLEST", 1)
    patch(kernel, "PIXELS", 4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch.setattr)


def stem(kind: str = "max", statistics_batch: int | None = None) -> Program:
    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        x = F.relu(convolution(image, 3, CHANNELS, 3))
        pools = {"max": [F.max_pool2d], "average": [F.avg_pool2d], "both": [F.max_pool2d, F.avg_pool2d]}
        x = sum(pool(x, 3, 2, 1) for pool in pools[kind])
        logits = paddle.nn.Linear(CHANNELS, 10)(paddle.mean(x, (2, 3)))
        return {"loss": paddle.mean(F.cross_entropy(logits, label))}

    return build(
        network,
        [Input("image", (None, 3, 4, 4)), Input("label", (None,), "int64")],
        name="stem",
        training=True,
        statistics_batch=statistics_batch,
        optimizer=lambda: paddle.optimizer.SGD(1.0),
        schedule=Constant(0.1),
    )


def both(kernels: Kernels, spread: kernel.Spread, value: Any, affine: Any) -> Any:
    return *kernel.sums(kernels, spread, value, len(affine[0])), kernel.gradient(kernels, spread, value, *affine)


@pytest.mark.parametrize(
    ("size", "stride", "before", "groups"), [(3, 2, 1, 2), (3, 2, 0, 1), (2, 2, 0, 1), (3, 1, 1, 1)]
)
def test_the_kernels_are_the_gradient_of_pooling(size, stride, before, groups):
    pixels, value = (numbers(2, 8, 8, CHANNELS, seed=seed) for seed in (0, 1))
    pixels = jnp.maximum(pixels, 0)
    after = 8 - stride + size - 8 - before
    window = ((size, size), (stride, stride), ((before, after),) * 2)
    pooled, (winner, _) = max_pool_and_winners(pixels, *window)
    by_pooled = numbers(*pooled.shape, seed=2)
    affine = [numbers(groups, CHANNELS, seed=seed, dtype=jnp.float32) for seed in (3, 4, 5)]
    windows = kernel.Windows((size, size), (stride, stride), (before, before))
    kernels = Kernels(create("cpu").devices.mesh)
    assert kernel.fits(kernels, pixels, pooled.shape, windows, groups)

    def ours(by_pooled: Any, winner: Any, value: Any, affine: Any) -> Any:
        return both(kernels, kernel.Spread(jnp.where(pooled > 0, by_pooled, 0), winner, windows), value, affine)

    total, product, made = jax.jit(ours)(by_pooled, winner, value, affine)
    *_, pullback = jax.vjp(lambda x: jnp.asarray(max_pool_and_winners_of(x, window), jnp.float32), pixels)
    (dz,) = (
        np.where(pixels > 0, np.asarray(array, np.float32), 0) for array in pullback(by_pooled.astype(jnp.float32))
    )
    y = np.asarray(value, np.float32)
    same(total, of_groups(dz, groups))
    same(product, of_groups(dz * y, groups))
    factor, slope, shift = (np.asarray(vector)[:, None, None] for vector in affine)
    same(made, dz * factor + y * slope + shift)


def max_pool_and_winners_of(pixels: Any, window: Any) -> Any:
    """The maxima alone, by an operation of JAX."""
    (height, width), strides, padding = window
    around = ((0, 0), *padding, (0, 0))
    return jax.lax.reduce_window(
        pixels, np.asarray(-np.inf, pixels.dtype), jax.lax.max, (1, height, width, 1), (1, *strides, 1), around
    )


@pytest.mark.parametrize("kind", ["max", "average", "both"])
def test_only_maxima_are_taken(kind, monkeypatch):
    found = []
    whole = kernel.gradient
    monkeypatch.setattr(kernel, "gradient", lambda *operands: found.append(operands[1].windows) or whole(*operands))
    engine_with(True, "bf16").lowered_text(stem(kind), feed())
    assert found == ([kernel.Windows((3, 3), (2, 2), (1, 1))] if kind == "max" else [])


@pytest.mark.full
def test_a_stem_by_kernels_is_one_by_rules():
    agree(stem())


@pytest.mark.full
def test_two_devices_make_a_stem_by_kernels():
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=with_devices(2), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_kernels_are_code_for_gpus(monkeypatch):
    monkeypatch.undo()
    kernels, shaped = of_gpu(), jax.ShapeDtypeStruct
    small, large = (256, 56, 56, 64), (256, 112, 112, 64)
    windows, value = kernel.Windows((3, 3), (2, 2), (1, 1)), shaped(large, jnp.bfloat16)
    assert kernel.fits(kernels, value, small, windows, 1)
    assert not kernel.fits(kernels, value, (256, 55, 55, 64), windows, 1)

    def made(by_pooled: Any, winner: Any, value: Any, affine: Any) -> Any:
        return both(kernels, kernel.Spread(by_pooled, winner, windows), value, affine)

    affine = [shaped((2, 64), jnp.float32)] * 3
    compiles_for_gpus(made, shaped(small, jnp.bfloat16), shaped(small, jnp.uint8), value, affine)


if __name__ == "__main__":
    assert jax.device_count() == 2
    shrink(setattr)
    for samples in (None, SAMPLES // 2):
        agree(stem(statistics_batch=samples))
