"""Suppression by the kernel: in order, as it is defined."""

from functools import partial
from types import SimpleNamespace

from fluid.engine.xla import create, suppression
from fluid.engine.xla.graph import YIELD, Block, Operation
from fluid.engine.xla.kernels import Kernels
from fluid.engine.xla.kernels import suppression as kernel
from fluid.tests.test_kernels import compiles_for_gpus, of_gpu

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def greedy(valid: np.ndarray, overlaps: np.ndarray) -> np.ndarray:
    """Of one set."""
    stays = valid.copy()
    for first in range(len(valid)):
        for later in range(first + 1, len(valid)):
            stays[later] = stays[later] and not (stays[first] and overlaps[first, later])
    return stays


def test_candidates_are_gone_through_in_order():
    rng = np.random.default_rng(0)
    valid, overlaps = rng.random((2, 3, 21)) < 0.8, rng.random((2, 3, 21, 21)) < 0.15
    kernels = Kernels(create("cpu").devices.mesh)
    assert kernel.fits(kernels, jnp.asarray(valid, jnp.float32), jnp.asarray(overlaps))
    stays = jax.jit(partial(kernel.suppress, kernels))(jnp.asarray(valid, jnp.float32), jnp.asarray(overlaps))
    want = [[greedy(*pair) for pair in zip(*sets, strict=True)] for sets in zip(valid, overlaps, strict=True)]
    assert stays.dtype == jnp.float32 and 0 < np.sum(want) < valid.sum()
    np.testing.assert_array_equal(np.asarray(stays) > 0, want)


def test_the_kernel_is_code_for_gpus():
    valid, overlaps = (jax.ShapeDtypeStruct((8, 20, *shape), dtype) for shape, dtype in (((400,), jnp.float32), ((400, 400), jnp.bool_)))  # fmt: skip
    with jax.enable_x64(True):
        compiles_for_gpus(partial(kernel.suppress, of_gpu()), valid, overlaps)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_another_loop_is_none(count):
    """One that carries no value, one, or two."""
    carried = list(range(1, count + 1))
    body = Block(carried, [Operation(YIELD, 1, [9, *carried], [])])
    loop = Operation("pd_op.while", 0, [0, *carried], carried, blocks=[body])
    trace = SimpleNamespace(env=dict.fromkeys(carried, 0.0), gradients=SimpleNamespace(wanted=False))
    assert suppression._overlaps(trace, loop) is None


def test_too_many_candidates_are_left_to_the_rules():
    kernels = Kernels(create("cpu").devices.mesh)
    for count, fits in ((kernel.LARGEST, True), (kernel.LARGEST + 1, False)):
        overlaps = jax.ShapeDtypeStruct((2, count, count), jnp.bool_)
        assert kernel.fits(kernels, jax.ShapeDtypeStruct((2, count), jnp.float32), overlaps) is fits
