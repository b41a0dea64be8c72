"""Arrays of loops that are carried as registers: which, and that every loop computes what it did."""

from collections.abc import Callable
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import control, create, registers
from fluid.errors import EngineError
from fluid.program import Input, Program, Value, build

import numpy as np
import paddle
import pytest

STEPS, ROWS = 5, 3
Step = Callable[[Any, Value, Value, Value], None]


def looped(step: Step, *, initial: int = 1) -> Program:
    """A loop over five steps that reads and writes an array of tensors [3, 2], of which `initial` are there before.

    Outputs all of them, stacked.
    """

    def network(x: Value, training: bool) -> dict[str, Value]:
        array = paddle.tensor.create_array("float32")
        for place in range(initial):
            at = paddle.full([1], place, "int64")
            paddle.tensor.array_write(x * (place + 1.0), at, array)
        number, end = paddle.full([1], 0, "int64"), paddle.full([1], STEPS, "int64")

        def advance(number: Value) -> list[Value]:
            step(array, number, number + 1, x)
            return [number + 1]

        paddle.static.nn.while_loop(lambda number: number < end, advance, [number])
        stacked, _ = paddle.tensor.manipulation.tensor_array_to_tensor(array, axis=0, use_stack=True)
        return {"stacked": stacked}

    return build(network, [Input("x", (None, 2))], name="eval")


def recurrence(array: Any, here: Value, after: Value, x: Value) -> None:
    """The usual one: the state of this step, and the next."""
    paddle.tensor.array_write(paddle.tanh(paddle.tensor.array_read(array, here)) + x, after, array)


def rewritten(array: Any, here: Value, after: Value, x: Value) -> None:
    """A place is written twice, and read in between."""
    paddle.tensor.array_write(paddle.tensor.array_read(array, here) * 0.5, after, array)
    paddle.tensor.array_write(paddle.tensor.array_read(array, after) + x, after, array)


def cleared(array: Any, here: Value, after: Value, x: Value) -> None:
    """What was read is overwritten."""
    state = paddle.tensor.array_read(array, here)
    paddle.tensor.array_write(x * 0.0, here, array)
    paddle.tensor.array_write(state * 0.5 + x, after, array)


def filled(array: Any, here: Value, after: Value, x: Value) -> None:
    """Nothing is read."""
    paddle.tensor.array_write(x * paddle.cast(after, "float32"), here, array)


def read_only_then_next(array: Any, here: Value, after: Value, x: Value) -> None:
    """Both are there before the loop; the next is written without being read."""
    paddle.tensor.array_write(paddle.tensor.array_read(array, here) + 1.0, after, array)


def at_the_beginning(array: Any, here: Value, after: Value, x: Value) -> None:
    """The first tensor is read in every step."""
    paddle.tensor.array_write(paddle.tensor.array_read(array, here * 0) * 0.5 + x, after, array)


def half_way_back(array: Any, here: Value, after: Value, x: Value) -> None:
    """What was written a changing number of steps before: no slot has it."""
    paddle.tensor.array_write(paddle.tensor.array_read(array, here // 2) * 0.5 + x, after, array)


def overtaken(array: Any, here: Value, after: Value, x: Value) -> None:
    """What a step writes, the next overwrites unseen."""
    paddle.tensor.array_write(x * 2.0, after, array)
    paddle.tensor.array_write(x * 3.0, here, array)


@pytest.mark.parametrize(
    ("step", "initial", "buffered"),
    [
        (recurrence, 1, False),
        (rewritten, 1, False),
        (cleared, 1, False),
        (filled, 0, False),
        (read_only_then_next, STEPS + 1, False),
        (overtaken, STEPS + 1, False),
        (at_the_beginning, 1, False),
        (half_way_back, 1, True),
    ],
)
def test_a_loop_computes_the_same(step: Step, initial: int, buffered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[Any] = []
    monkeypatch.setattr(control, "plan", lambda *given: plans.append(registers.plan(*given)) or plans[-1])
    program = looped(step, initial=initial)
    feed = {"x": np.random.default_rng().normal(size=(ROWS, 2)).astype(np.float32)}
    found = {}
    for name, engine in (("paddle", PaddleEngine()), ("xla", create("cpu"))):
        engine.load({})
        found[name] = np.asarray(engine.run(program, feed)["stacked"])
    assert found["xla"].shape == found["paddle"].shape
    np.testing.assert_allclose(found["xla"], found["paddle"], rtol=1e-6)
    assert plans and all((found is None) == buffered for found in plans)


def test_how_many_tensors_an_array_has() -> None:
    def network(x: Value, training: bool) -> dict[str, Value]:
        array = paddle.tensor.create_array("float32")
        for place in range(3):
            paddle.tensor.array_write(x, paddle.full([1], place, "int64"), array)
        joined, lengths = paddle.tensor.manipulation.tensor_array_to_tensor(array, axis=1, use_stack=True)
        return {"count": paddle.tensor.array_length(array), "joined": joined, "lengths": lengths}

    program, feed = build(network, [Input("x", (ROWS, 2))], name="eval"), {"x": np.ones((ROWS, 2), np.float32)}
    expected, found = PaddleEngine().run(program, feed), create("cpu").run(program, feed)
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), value, name)


def written_while_small(array: Any, x: Value) -> None:
    """At a place that data decides: XLA would write to the last tensor again and again."""

    def going(number: Value, total: Value) -> Value:
        return paddle.sum(total) < 30

    def advance(number: Value, total: Value) -> list[Value]:
        paddle.tensor.array_write(total, number + 1, array)
        return [number + 1, total * 2.0]

    paddle.static.nn.while_loop(going, advance, [paddle.full([1], 0, "int64"), x])


def written_in_a_branch(array: Any, x: Value) -> None:
    def write(factor: float) -> None:
        paddle.tensor.array_write(x * factor, paddle.full([1], 0, "int64"), array)

    paddle.static.nn.cond(paddle.sum(x) > 0, lambda: write(2.0), lambda: write(3.0))


def counted_in_a_loop(array: Any, x: Value) -> None:
    def advance(number: Value) -> list[Value]:
        paddle.tensor.array_write(x, paddle.tensor.array_length(array), array)
        return [number + 1]

    paddle.static.nn.while_loop(lambda number: number < 4, advance, [paddle.full([1], 0, "int64")])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (written_while_small, "fill a buffer of fixed size"),
        (written_in_a_branch, "its branches write to an array"),
        (counted_in_a_loop, "count the steps"),
    ],
)
def test_an_array_whose_length_or_content_data_decides_is_refused(use: Callable[..., None], message: str) -> None:
    def network(x: Value, training: bool) -> dict[str, Value]:
        array = paddle.tensor.create_array("float32")
        first = paddle.full([1], 0, "int64")
        paddle.tensor.array_write(x, first, array)
        use(array, x)
        return {"first": paddle.tensor.array_read(array, first)}

    program = build(network, [Input("x", (None, 2))], name="eval")
    with pytest.raises(EngineError, match=message):
        create("cpu").run(program, {"x": np.ones((ROWS, 2), np.float32)})
