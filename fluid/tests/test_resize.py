"""Bilinear resizing against its formula in NumPy, on both engines."""

from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.program import Input, Program, build
from fluid.resize import gather_bilinear, resize_bilinear
from fluid.tests.gradients import gradients

import numpy as np
import paddle
import pytest

HEIGHT, WIDTH = 5, 8
# Pixels are at most 1: four products and three sums are each rounded.
FLOAT32 = 4 * float(np.finfo(np.float32).eps)
SIZES = [(10, 16), (9, 15), (3, 4), (1, 20), (7, 2), (5, 8)]
MODES = [(True, 1), (False, 0), (False, 1)]


def place(index: int, before: int, after: int, align_corners: bool, align_mode: int) -> float:
    """Where a pixel is taken from."""
    if after == 1:
        return 0.0
    if align_corners:
        return index * (before - 1) / (after - 1)
    return (index + 0.5) * before / after - 0.5 if align_mode == 0 else index * before / after


def resized(image: np.ndarray, size: tuple[int, int], *mode: Any) -> np.ndarray:
    """Axis by axis, pixel by pixel."""
    for axis, after in ((2, size[0]), (3, size[1])):
        before, pixels = image.shape[axis], []
        for index in range(after):
            source = min(max(place(index, before, after, *mode), 0), before - 1)
            low = int(source)
            high = min(low + 1, before - 1)
            share = source - low
            pixels.append((1 - share) * image.take(low, axis) + share * image.take(high, axis))
        image = np.stack(pixels, axis)
    return image


@pytest.mark.parametrize(("align_corners", "align_mode"), MODES)
def test_every_mode_computes_its_formula(align_corners: bool, align_mode: int) -> None:
    def network(image: Any, training: bool) -> dict[str, Any]:
        modes = {"align_corners": align_corners, "align_mode": align_mode}
        return {str(size): resize_bilinear(image, size, **modes) for size in SIZES}

    for dtype, tolerance in (("float64", 1e-14), ("float32", FLOAT32)):
        program = build(network, [Input("image", (None, 2, HEIGHT, WIDTH), dtype)], name="resize")
        image = np.random.default_rng(0).uniform(-1, 1, (3, 2, HEIGHT, WIDTH)).astype(dtype)
        for engine in (PaddleEngine(), create("cpu")):
            outputs = engine.run(program, {"image": image})
            for size in SIZES:
                expected = resized(image.astype("float64"), size, align_corners, align_mode)
                np.testing.assert_allclose(outputs[str(size)], expected, rtol=0, atol=tolerance, err_msg=str(size))


@pytest.mark.parametrize("dense_rows", [False, True])
def test_gathering_computes_the_same_formula(dense_rows: bool) -> None:
    def network(image: Any, training: bool) -> dict[str, Any]:
        return {str(size): gather_bilinear(image, size, dense_rows=dense_rows) for size in SIZES}

    for dtype, tolerance in (("float64", 1e-14), ("float32", FLOAT32)):
        program = build(network, [Input("image", (None, 2, HEIGHT, WIDTH), dtype)], name="resize")
        image = np.random.default_rng(0).uniform(-1, 1, (3, 2, HEIGHT, WIDTH)).astype(dtype)
        for engine in (PaddleEngine(), create("cpu")):
            outputs = engine.run(program, {"image": image})
            for size in SIZES:
                expected = resized(image.astype("float64"), size, True, 1)
                np.testing.assert_allclose(outputs[str(size)], expected, rtol=0, atol=tolerance, err_msg=str(size))


def test_the_gradient_is_the_transposed_resizing() -> None:
    weight = np.random.default_rng(1).normal(size=(1, 1, 9, 15))

    def network(weight: Any, training: bool) -> dict[str, Any]:
        image = paddle.create_parameter([1, 1, HEIGHT, WIDTH], "float64", "image")
        return {"loss": paddle.sum(resize_bilinear(image, (9, 15)) * weight)}

    def make(optimizer: Any) -> Program:
        inputs = [Input("weight", weight.shape, "float64")]
        return build(network, inputs, name="resize", training=True, optimizer=optimizer)

    pixels = np.eye(HEIGHT * WIDTH).reshape(-1, 1, HEIGHT, WIDTH)
    expected = (resized(pixels, (9, 15), True, 1) * weight).sum(axis=(1, 2, 3)).reshape(HEIGHT, WIDTH)
    for engine in (PaddleEngine(), create("cpu")):
        actual = gradients(make, {"weight": weight}, engine)["image"]
        np.testing.assert_allclose(actual[0, 0], expected, rtol=0, atol=1e-12)


def test_an_image_of_unknown_size_is_refused() -> None:
    inputs = [Input("image", (None, 2, None, WIDTH))]
    for resize in (resize_bilinear, gather_bilinear):
        with pytest.raises(ValueError, match=r"known height and width"):
            build(lambda image, training, resize=resize: {"image": resize(image, (4, 4))}, inputs, name="resize")
