"""Inputs and outputs say which axis holds the samples, or that none does: on two devices each has what was declared.

This module is also the script that the test starts, because the number of devices is settled before JAX starts.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.engine.xla import create
from fluid.errors import EngineError
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.schedule import Constant
from fluid.tests.devices import with_devices

import numpy as np
import paddle
import pytest

IMAGE, BOXES = Input("image", (None, 8)), Input("boxes", (None, 4), batch=None)
PACKED = {
    "image": np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32),
    "boxes": np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32),
    "owner": np.array([0, 0, 1, 2, 2, 2, 3]),
}


def packed(boxes: Input = BOXES) -> Program:
    """Boxes of four images in one list, as 2018 fed them, with the image that each belongs to."""

    def network(image: Any, boxes: Any, owner: Any, training: bool) -> dict[str, Any]:
        hidden = paddle.nn.Linear(8, 4, weight_attr=paddle.ParamAttr(name="w"), bias_attr=False)(image)
        losses = paddle.square(paddle.gather(hidden, owner) - boxes)
        return {"loss": losses.mean(), "losses": losses}

    return build(
        network,
        [IMAGE, boxes, Input("owner", (None,), "int64", batch=None)],
        name="packed",
        training=True,
        optimizer=lambda: paddle.optimizer.SGD(1.0),
        schedule=Constant(0.1),
        batch_axes={"losses": None},
    )


def trained_on_packed_boxes() -> list[Any]:
    """Losses of three steps and the weights after them."""
    engine, program = create("cpu"), packed()
    engine.load(initialise(program, seed=0))
    losses = [float(engine.run(program, PACKED, step)["loss"]) for step in range(3)]
    return [losses, engine.state(["w"])["w"].tolist()]


def packed_boxes_declared_as_samples() -> str:
    """The message."""
    engine, program = create("cpu"), packed(Input("boxes", (None, 4)))
    engine.load(initialise(program, seed=0))
    try:
        engine.run(program, PACKED)
    except EngineError as error:
        return str(error)
    return "accepted"


def placing_before_and_after_another_program() -> list[str]:
    """How `x` of one Program lies on the devices before and after another one, with an `x` of its own, was run."""
    rows = build(lambda x, training: {"y": x + 1.0}, [Input("x", (None, 4))], name="rows")
    matrix = build(lambda x, training: {"y": x + 1.0}, [Input("x", (4, 4), batch=None)], name="matrix")
    engine, x = create("cpu"), np.ones((4, 4), np.float32)
    found = []
    for other in (rows, matrix):
        engine.run(other, {"x": x})
        found.append(str(engine.put({"x": x}, rows)["x"].sharding.spec))
        found.append(str(engine.run(rows, {"x": x})["y"].sharding.spec))
    return found


def time_major() -> list[str]:
    """How [T, N, C] lies on the devices, put and returned."""
    program = build(
        lambda x, training: {"y": x * 2.0}, [Input("x", (None, None, 4), batch=1)], name="ctc", batch_axes={"y": 1}
    )
    engine, x = create("cpu"), np.ones((5, 2, 4), np.float32)
    stacked = engine.run_many(program, [{"x": x}, {"x": x}])["y"]
    return [
        str(engine.put({"x": x}, program)["x"].sharding.spec),
        str(engine.run(program, {"x": x})["y"].sharding.spec),
        str(stacked.sharding.spec),
    ]


def trained_on_positives() -> list[Any]:
    """Three of the first image's boxes count and one of the last: losses are divided by all that do."""

    def network(image: Any, counts: Any, training: bool) -> dict[str, Any]:
        hidden = paddle.nn.Linear(8, 4, weight_attr=paddle.ParamAttr(name="w"), bias_attr=False)(image)
        weight = counts.sum()
        return {"loss": (paddle.square(hidden - 1.0) * counts).sum() / weight, "loss_weight": weight}

    options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.1)}
    program = build(network, [IMAGE, Input("counts", (None, 4))], name="positives", training=True, **options)
    engine = create("cpu")
    engine.load(initialise(program, seed=0))
    counts = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], np.float32)
    outputs = engine.run(program, {"image": PACKED["image"], "counts": counts})
    return [float(outputs["loss"]), float(outputs["loss_weight"]), engine.state(["w"])["w"].tolist()]


def odd(**options: Any) -> Program:
    """Returns one row more than it is fed."""

    def network(image: Any, training: bool) -> dict[str, Any]:
        hidden = paddle.nn.Linear(8, 4, weight_attr=paddle.ParamAttr(name="w"), bias_attr=False)(image)
        return {"loss": hidden.mean(), "odd": paddle.concat([hidden, hidden[:1]], 0)}

    return build(network, [IMAGE], name="odd", batch_axes={"odd": 0}, **options)


def rows_that_nobody_can_share() -> list[Any]:
    """What an evaluation and a training step return of 5 rows, in one call and in a call of two steps."""
    update = {"training": True, "optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.1)}
    engine, feed, found = create("cpu"), {"image": PACKED["image"]}, []
    for program in (odd(), odd(**update)):
        engine.load(initialise(program, seed=0))
        found += [engine.run(program, feed)["odd"], engine.run_many(program, [feed, feed], 1)["odd"]]
    return [np.asarray(value).tolist() for value in found]


def rows_that_no_process_can_call_its_own() -> str:
    """The message where the two devices are of two processes."""
    engine, program = create("cpu"), odd()
    engine.load(initialise(program, seed=0))
    engine.devices.local = 1
    try:
        engine.run(program, {"image": PACKED["image"]})
    except EngineError as error:
        return str(error)
    return "accepted"


PROBES: list[Callable[[], Any]] = [
    trained_on_packed_boxes,
    packed_boxes_declared_as_samples,
    trained_on_positives,
    placing_before_and_after_another_program,
    time_major,
    rows_that_nobody_can_share,
    rows_that_no_process_can_call_its_own,
]


@pytest.fixture(scope="module")
def on_two_devices() -> dict[str, Any]:
    """What each probe returned."""
    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, env=with_devices(2), check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_packed_boxes_train_on_two_devices_as_on_one(on_two_devices: dict[str, Any]) -> None:
    for two, one in zip(on_two_devices["trained_on_packed_boxes"], trained_on_packed_boxes(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)
    message = on_two_devices["packed_boxes_declared_as_samples"]
    assert "'boxes'" in message and "'image' has 4" in message and "batch=None" in message
    assert "--batch_size" not in message


def test_a_loss_divided_by_its_positives_is_the_same_on_two_devices(on_two_devices: dict[str, Any]) -> None:
    for two, one in zip(on_two_devices["trained_on_positives"], trained_on_positives(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)


def test_another_program_changes_nothing(on_two_devices: dict[str, Any]) -> None:
    assert on_two_devices["placing_before_and_after_another_program"] == ["P('batch',)"] * 4


def test_time_is_not_split(on_two_devices: dict[str, Any]) -> None:
    assert on_two_devices["time_major"] == ["P(None, 'batch')", "P(None, 'batch')", "P(None, None, 'batch')"]


def test_rows_that_devices_cannot_share_are_whole_on_each(on_two_devices: dict[str, Any]) -> None:
    for two, one in zip(on_two_devices["rows_that_nobody_can_share"], rows_that_nobody_can_share(), strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-5)
    message = on_two_devices["rows_that_no_process_can_call_its_own"]
    assert "output 'odd' of the Program 'odd' has 5 rows" in message and "batch_axes={'odd': None}" in message


if __name__ == "__main__":
    print(json.dumps({probe.__name__: probe() for probe in PROBES}))
