"""Convolutions of few channels that make several columns of the result at once."""

from types import SimpleNamespace

from fluid.engine.xla import create
from fluid.engine.xla.rules.conv import _columns_at_once, _on_columns
from fluid.engine.xla.tuning import DEFAULT, for_platform
from fluid.interface import Input
from fluid.program import build

import jax.numpy as jnp
import numpy as np
import paddle
import pytest
from jax import lax

SHAPES = {
    "speech": ((11, 80, 3), (32, 3, 3), [(1, 1), (1, 1)], 8),
    "grey": ((9, 16, 1), (16, 5, 5), [(2, 2), (2, 2)], 16),
    "padded on one side": ((7, 18, 3), (64, 3, 3), [(0, 1), (0, 0)], 4),
    "kernel of even width": ((7, 20, 2), (32, 1, 6), [(0, 0), (3, 2)], 4),
    "kernel wider than what is made at once": ((5, 12, 4), (100, 3, 7), [(1, 1), (3, 3)], 2),
    "width of no even number": ((7, 15, 3), (64, 3, 3), [(1, 1), (1, 1)], 1),
    "channels enough": ((7, 16, 3), (256, 3, 3), [(1, 1), (1, 1)], 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_columns_at_once_are_the_same_convolution(name: str) -> None:
    (height, width, channels), (made, *window), padding, expected = SHAPES[name]
    rng = np.random.default_rng(0)
    # Whole numbers: sums in any order are equal.
    image = jnp.asarray(rng.integers(-4, 5, (2, height, width, channels)), jnp.float32)
    kernel = jnp.asarray(rng.integers(-4, 5, (made, channels, *window)), jnp.float32)
    count = _columns_at_once(image, kernel, padding, 256)
    assert count == expected
    op = SimpleNamespace(channels_last=True, tuning=DEFAULT)
    result = _on_columns(op, image, kernel, padding, count)
    plain = lax.conv_general_dilated(image, kernel, (1, 1), padding, dimension_numbers=("NHWC", "OIHW", "NHWC"))
    np.testing.assert_array_equal(result, plain)


@pytest.mark.parametrize(("precision", "channels"), [("bf16", 24), ("fp32", 3)])
def test_of_images_in_bfloat16_on_gpus_columns_are_made_at_once(precision: str, channels: int) -> None:
    def network(image: paddle.Tensor, training: bool) -> dict[str, paddle.Tensor]:
        return {"y": paddle.nn.Conv2D(3, 32, 3, padding=1)(image)}

    engine = create("cpu", precision)
    engine.tuning = for_platform("gpu")
    program = build(network, [Input("image", (None, 3, 16, 16))], name="test")
    # Enough of them that the convolution is not small.
    text = engine.lowered_text(program, {"image": np.zeros((4096, 3, 16, 16), np.float32)})
    (line,) = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert f"x{channels}x" in line
