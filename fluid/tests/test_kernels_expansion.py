"""Products that widen, normalised and added up by kernels: the numbers of the rules, which multiply first."""

from functools import partial
from typing import Any

from fluid.engine.xla import create
from fluid.engine.xla.kernels import Kernels
from fluid.engine.xla.kernels import expansion as kernel
from fluid.interface import Input
from fluid.program import Program, build
from fluid.schedule import Constant
from fluid.tests.test_kernels import compiles_for_gpus, engine_with, of_gpu
from fluid.tests.test_kernels_pointwise import (
    SIDE,
    THIN,
    WIDE,
    agree,
    convolution,
    feed,
    numbers,
    of_groups,
    same,
    shrink,
)

import jax
import jax.numpy as jnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

SHAPE = (2, 4, 4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch.setattr)


def widened(clipped: bool = True) -> Program:
    """A bottleneck's end whose shortcut is a product as well, then another normalised sum."""

    def network(image: Any, label: Any, training: bool) -> dict[str, Any]:
        x = F.relu(convolution(image, 3, THIN, 3))
        y = F.relu(convolution(x, THIN, THIN, 3))
        total = convolution(x, THIN, WIDE) + convolution(y, THIN, WIDE)
        total = F.relu(total) if clipped else paddle.tanh(total)
        logits = paddle.nn.Linear(WIDE, 10)(paddle.mean(total, (2, 3)))
        return {"loss": paddle.mean(F.cross_entropy(logits, label))}

    return build(
        network,
        [Input("image", (None, 3, SIDE, SIDE)), Input("label", (None,), "int64")],
        name="widened",
        training=True,
        optimizer=lambda: paddle.optimizer.SGD(1.0),
        schedule=Constant(0.1),
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_moments_are_sums_over_pixels(groups):
    pixels = numbers(*SHAPE, THIN, seed=0)
    found = jax.jit(lambda x: kernel.moments(Kernels(create("cpu").devices.mesh), x, groups))(pixels)
    flat = np.asarray(pixels, np.float32).reshape(groups, -1, THIN)
    np.testing.assert_allclose(found.total, flat.sum(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.products, flat.swapaxes(1, 2) @ flat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "groups"), [(1, 1), (2, 2)])
def test_products_shift_and_shortcut_are_added_and_clipped(count, groups):
    kernels, shift = Kernels(create("cpu").devices.mesh), numbers(groups, WIDE, seed=3, dtype=jnp.float32)
    terms = [kernel.Term(numbers(*SHAPE, THIN, seed=n), numbers(groups, THIN, WIDE, seed=9 + n)) for n in range(count)]
    shortcut = numbers(*SHAPE, WIDE, seed=4)
    want = shift[:, None, None] + sum(np.matmul(*wide(term.pixels, term.weight[:, None])) for term in terms)
    for added in (shortcut, None):
        found = jax.jit(partial(kernel.join, kernels))(terms, shift, added)
        same(found, jnp.maximum(want if added is None else want + added, 0))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_gradient_is_its_formula(groups):
    by_sum, pixels, value = (numbers(*SHAPE, size, seed=n) for n, size in enumerate((WIDE, THIN, THIN)))
    weight, matrix = numbers(groups, WIDE, THIN, seed=3), numbers(groups, THIN, THIN, seed=4)
    shift = numbers(groups, THIN, seed=5, dtype=jnp.float32)
    kernels = Kernels(create("cpu").devices.mesh)
    found = jax.jit(partial(kernel.gradient, kernels))(by_sum, weight, pixels, matrix, shift, value)
    dz, x = wide(by_sum, pixels)
    want = np.matmul(dz, *wide(weight[:, None])) + np.matmul(x, *wide(matrix[:, None])) + shift[:, None, None]
    same(found.pixels, np.where(x > 0, want, 0))
    (rounded,) = wide(found.pixels)
    same(found.total, of_groups(rounded, groups))
    same(found.product, of_groups(rounded * wide(value)[0], groups))


def wide(*arrays: jax.Array) -> list[np.ndarray]:
    return [np.asarray(array, np.float32) for array in arrays]


@pytest.mark.parametrize("clipped", [True, False])
def test_only_what_is_clipped_waits(clipped, monkeypatch):
    joined = []
    whole = kernel.join
    monkeypatch.setattr(kernel, "join", lambda *operands: joined.append(len(operands[1])) or whole(*operands))
    engine_with(True, "bf16").lowered_text(widened(clipped), feed())
    assert joined == ([2] if clipped else [])


@pytest.mark.full
def test_two_products_make_a_sum():
    agree(widened())


def everything(kernels: Kernels, thin: Any, wide: Any, weight: Any, matrix: Any, shifts: Any) -> list[Any]:
    return [
        kernel.moments(kernels, thin, 2),
        kernel.join(kernels, [kernel.Term(thin, weight)] * 2, shifts[0], wide),
        kernel.gradient(kernels, wide, weight.swapaxes(1, 2), thin, matrix, shifts[1], thin),
    ]


def test_kernels_are_code_for_gpus(monkeypatch):
    monkeypatch.undo()
    kernels, shaped = of_gpu(), jax.ShapeDtypeStruct
    for depth in (64, 128):
        wide, thin = (shaped((64, 56, 56, channels), jnp.bfloat16) for channels in (4 * depth, depth))
        weight, matrix = (shaped((2, depth, size), jnp.bfloat16) for size in (4 * depth, depth))
        shifts = [shaped((2, size), jnp.float32) for size in (4 * depth, depth)]
        compiles_for_gpus(partial(everything, kernels), thin, wide, weight, matrix, shifts)
