"""The class of each pixel of enlarged logits: the kernel, interpreted, beside the rules; and where it does not stand in."""

from dataclasses import replace
from typing import Any

from fluid.engine.xla import create, enlarged
from fluid.engine.xla.kernels import labels as kernel
from fluid.interface import Input
from fluid.program import Program, build
from fluid.resize import gather_bilinear, resize_bilinear

import numpy as np
import paddle
import pytest

CLASSES, HEIGHT, WIDTH, SIZE = 5, 6, 33, (16, 128)
LOGITS = np.random.default_rng(0).normal(size=(2, CLASSES, HEIGHT, WIDTH)).astype(np.float32)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the kernel was called with."""
    seen: list[Any] = []
    plain = kernel.labels

    def counted(*given: Any) -> Any:
        seen.append(given)
        return plain(*given)

    monkeypatch.setattr(kernel, "labels", counted)
    return seen


def labels_of(program: Program, kernels: bool) -> np.ndarray:
    engine = create("cpu")
    engine.tuning = replace(engine.tuning, kernels=kernels)
    return np.asarray(engine.run(program, {"logits": LOGITS}, fetch=["labels"])["labels"])


def enlarged_labels(resize: Any, size: tuple[int, int], axis: int = 1) -> Program:
    def network(logits: Any, training: bool) -> dict[str, Any]:
        grown = resize(logits, size)
        return {"grown": grown, "labels": paddle.cast(paddle.argmax(grown, axis=axis), "uint8")}

    return build(network, [Input("logits", (None, CLASSES, HEIGHT, WIDTH))], name="labels")


def dense(logits: Any, size: tuple[int, int]) -> Any:
    return gather_bilinear(logits, size, dense_rows=True)


def test_the_kernel_gives_the_labels_of_the_rules(calls: list[Any]) -> None:
    program = enlarged_labels(dense, SIZE)
    expected = labels_of(program, False)
    assert not calls and len(np.unique(expected)) == CLASSES
    np.testing.assert_array_equal(labels_of(program, True), expected)
    assert len(calls) == 1


@pytest.mark.parametrize("change", ["size", "resize", "axis"])
def test_what_is_written_otherwise_is_left_to_the_rules(calls: list[Any], change: str) -> None:
    """Pixels that are no whole blocks, products alone, and another axis."""
    programs = {
        "size": lambda: enlarged_labels(dense, (12, 128)),
        "resize": lambda: enlarged_labels(resize_bilinear, SIZE),
        "axis": lambda: enlarged_labels(dense, SIZE, axis=2),
    }
    program = programs[change]()
    np.testing.assert_array_equal(labels_of(program, True), labels_of(program, False))
    assert not calls


def test_logits_that_are_read_otherwise_are_made(calls: list[Any]) -> None:
    program = enlarged_labels(dense, SIZE)
    engine = create("cpu")
    engine.tuning = replace(engine.tuning, kernels=True)
    outputs = engine.run(program, {"logits": LOGITS})
    assert not calls
    np.testing.assert_array_equal(outputs["labels"], np.asarray(outputs["grown"]).argmax(1))


def test_rows_that_mix_more_than_two_are_no_places() -> None:
    assert enlarged._places_of_rows(np.array([[0.5, 0.25, 0.25]])) is None
    assert enlarged._places_of_rows(np.array([[0.5, 0.0, 0.5]])) is None
    found = enlarged._places_of_rows(np.array([[1.0, 0.0, 0.0], [0.0, 0.25, 0.75], [0.0, 0.0, 1.0]]))
    assert found is not None
    np.testing.assert_allclose(found.low + found.share, [0, 1.75, 2])
