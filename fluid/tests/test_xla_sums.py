"""What loops need not do step by step: sums of products, outputs made of few others, sums over rows."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fluid.engine.xla.sums import scan
from fluid.engine.xla.tuning import Tuning

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

STEPS, ROWS, INSIDE, OUTSIDE = 6, 3, 4, 5
Iteration = Callable[[Any, Any], tuple[Any, Any]]


def made(seed: int = 0) -> tuple[Any, Any]:
    """Carry and items of a recurrence."""
    rng = np.random.default_rng(seed)
    items = {"x": rng.normal(size=(STEPS, 1, ROWS, INSIDE)), "y": rng.normal(size=(STEPS, ROWS, OUTSIDE))}
    carry = {"state": rng.normal(size=(ROWS, OUTSIDE)), "weight": rng.normal(size=(OUTSIDE, INSIDE))}
    return jax.tree.map(lambda array: jnp.asarray(array, jnp.float32), (carry, items))


def gradient_of_a_weight(carry: Any, item: Any) -> tuple[Any, Any]:
    state = jnp.tanh(carry["state"] + item["y"])
    x = lax.squeeze(item["x"], (0,)).astype(jnp.bfloat16).astype(jnp.float32)
    product = lax.dot_general(x, state, (((0,), (0,)), ((), ())))
    return {"state": state, "weight": carry["weight"] + product.T}, {"norm": jnp.sum(state**2)}


def loops_of(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    jaxpr = jax.make_jaxpr(function)(*arguments).jaxpr
    return [equation for equation in jaxpr.eqns if equation.primitive.name == "scan"]


def carried_and_left(loop: Any) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Shapes of what a step passes on, and of what it leaves, which the loop stacks (parameters' names differ between JAX's versions)."""
    carried, left = [], []
    for of_step, of_loop in zip(loop.params["jaxpr"].jaxpr.outvars, loop.outvars, strict=True):
        (carried if of_step.aval.shape == of_loop.aval.shape else left).append(of_step.aval.shape)
    return carried, left


@pytest.mark.parametrize("reverse", [False, True])
def test_a_sum_of_products_is_made_after_the_loop(reverse: bool) -> None:
    carry, items = made()
    (loop,) = loops_of(lambda *given: scan(gradient_of_a_weight, *given, reverse=reverse), carry, items)
    assert [value.aval.shape for value in loop.invars[:1]] == [(ROWS, OUTSIDE)], "the weight is not carried"
    assert "dot_general" not in str(loop.params["jaxpr"])
    for one, other in zip(
        jax.tree.leaves(scan(gradient_of_a_weight, carry, items, reverse=reverse)),
        jax.tree.leaves(lax.scan(gradient_of_a_weight, carry, items, reverse=reverse)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def read_in_between(carry: Any, item: Any) -> tuple[Any, Any]:
    after, outputs = gradient_of_a_weight(carry, item)
    return after, {**outputs, "sum": carry["weight"].sum()}


def handed_out(carry: Any, item: Any) -> tuple[Any, Any]:
    after, _ = gradient_of_a_weight(carry, item)
    return after, after["weight"]


def not_a_product(carry: Any, item: Any) -> tuple[Any, Any]:
    after, outputs = gradient_of_a_weight(carry, item)
    return {**after, "weight": carry["weight"] + jnp.tanh(after["weight"] - carry["weight"])}, outputs


@pytest.mark.parametrize("iteration", [read_in_between, handed_out, not_a_product])
def test_what_is_more_than_a_sum_of_products_stays_in_the_loop(iteration: Iteration) -> None:
    carry, items = made(1)
    (loop,) = loops_of(lambda *given: scan(iteration, *given), carry, items)
    assert "dot_general" in str(loop.params["jaxpr"])
    for one, other in zip(
        jax.tree.leaves(scan(iteration, carry, items)), jax.tree.leaves(lax.scan(iteration, carry, items)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_never_changes_is_made_before_the_loop() -> None:
    """A weight in another type, but not a vector spread over a matrix, which would have to be read."""
    carry, items = made(2)
    weight, bias = jnp.asarray(np.random.default_rng(3).normal(size=(OUTSIDE, OUTSIDE)), jnp.float32), jnp.ones(OUTSIDE)

    def iteration(carry: Any, item: Any) -> tuple[Any, Any]:
        state = carry["state"].astype(jnp.bfloat16) @ weight.T.astype(jnp.bfloat16)
        spread = jnp.broadcast_to(bias, (ROWS, OUTSIDE))
        return {**carry, "state": jnp.tanh(state.astype(jnp.float32) + spread + item["y"])}, state

    (loop,) = loops_of(lambda *given: scan(iteration, *given), carry, items)
    body = loop.params["jaxpr"].jaxpr
    converted = [
        equation.invars[0].aval.shape
        for equation in body.eqns
        if equation.primitive.name == "convert_element_type" and equation.params["new_dtype"] == jnp.bfloat16
    ]
    assert converted == [(ROWS, OUTSIDE)], "the state alone"
    assert any(equation.primitive.name == "broadcast_in_dim" for equation in body.eqns)
    for one, other in zip(
        jax.tree.leaves(scan(iteration, carry, items)), jax.tree.leaves(lax.scan(iteration, carry, items)), strict=True
    ):
        np.testing.assert_allclose(np.asarray(one, np.float32), np.asarray(other, np.float32), rtol=1e-2, atol=1e-2)


def lstm_like(carry: Any, item: Any, together: bool = False) -> tuple[Any, Any]:
    """A recurrence that keeps what a gradient would need, and sums over rows, added up before (`together`) or one by one."""
    gates = lax.dot_general(carry["state"], ROTATION, (((1,), (0,)), ((), ()))) + item["y"]
    opened, other = jnp.tanh(gates), 1 / (1 + jnp.exp(-gates))
    state = opened * other
    peep = (state * carry["state"]).sum(axis=0).reshape(1, OUTSIDE)
    zero = np.float32(0)
    left = lax.pad(peep, zero, [(0, 0, 0), (0, OUTSIDE, 0)])
    right = lax.pad(opened.sum(axis=0).reshape(1, OUTSIDE), zero, [(0, 0, 0), (OUTSIDE, 0, 0)])
    both = (left + right) + carry["rows"] if together else carry["rows"] + left + right
    kept = {"opened": opened, "other": other, "masked": item["y"] > 0, "gates": gates[None], "same": jnp.full(2, 3.0)}
    return {**carry, "state": state, "rows": both}, {**kept, "before": carry["state"]}


ROTATION = jnp.asarray(np.random.default_rng(4).normal(size=(OUTSIDE, OUTSIDE)), jnp.float32)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_outputs_and_sums_over_rows_are_made_after_the_loop(reverse: bool, together: bool) -> None:
    """Of five outputs and two sums the loop hands out the state before a step and the one product."""
    carry, items = made(5)
    carry["rows"] = jnp.ones((1, 2 * OUTSIDE))
    iteration = partial(lstm_like, together=together)
    (loop,) = loops_of(lambda *given: scan(iteration, *given, reverse=reverse), carry, items)
    assert carried_and_left(loop)[1] == [(ROWS, OUTSIDE)] * 2
    assert "reduce_sum" not in str(loop.params["jaxpr"])
    for one, other in zip(
        jax.tree.leaves(scan(iteration, carry, items, reverse=reverse)),
        jax.tree.leaves(lax.scan(iteration, carry, items, reverse=reverse)),
        strict=True,
    ):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 4, STEPS])
def test_steps_of_a_turn_change_nothing(steps: int, reverse: bool) -> None:
    """Fewer than a turn has, as many, and some left over."""
    carry, items = made(7)
    carry["rows"] = jnp.ones((1, 2 * OUTSIDE))
    items = jax.tree.map(lambda leaf: leaf[:steps], items)
    turns = partial(scan, tuning=Tuning(steps_in_a_turn=4), reverse=reverse)
    assert [loop.params["unroll"] for loop in loops_of(partial(turns, lstm_like), carry, items)] == [4]
    for one, other in zip(
        jax.tree.leaves(turns(lstm_like, carry, items)),
        jax.tree.leaves(lax.scan(lstm_like, carry, items, reverse=reverse)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_what_is_made_of_something_much_larger_is_handed_out_itself() -> None:
    carry, items = made(6)

    def iteration(carry: Any, item: Any) -> tuple[Any, Any]:
        large = lax.dot_general(carry["state"], jnp.tile(ROTATION, (1, 9)), (((1,), (0,)), ((), ())))
        return {**carry, "state": jnp.tanh(carry["state"])}, jnp.tanh(large[:, :OUTSIDE])

    (loop,) = loops_of(lambda *given: scan(iteration, *given), carry, items)
    shapes = [value.aval.shape for value in loop.params["jaxpr"].jaxpr.outvars]
    assert (ROWS, OUTSIDE) in shapes and (ROWS, 9 * OUTSIDE) not in shapes
    np.testing.assert_allclose(scan(iteration, carry, items)[1], lax.scan(iteration, carry, items)[1], rtol=1e-6)


def read_row_by_row(carry: Any, item: Any) -> tuple[Any, Any]:
    """The gradient of an array that a loop reads a row of in each step, and the place of that row."""
    state = jnp.tanh(carry["state"] + item["y"])
    spread = lax.dynamic_update_slice(
        lax.broadcast(np.float32(0), (STEPS, ROWS, OUTSIDE)), state[None], (item["place"], 0, 0)
    )
    return {"state": state, "gradient": carry["gradient"] + spread}, item["place"].reshape(1) + 1


@pytest.mark.parametrize("places", [range(STEPS), [0, 1, 2, 3, 3, 5]])
def test_rows_that_steps_write_one_after_the_other_are_stacked(places: Sequence[int]) -> None:
    """Where it is known that each step writes the row of its number; a row that is written twice is added up in the loop."""
    carry, items = made(7)
    items["place"] = np.array(places, np.int32)
    carry = {"state": carry["state"], "gradient": jnp.ones((STEPS, ROWS, OUTSIDE))}

    (loop,) = loops_of(lambda carry, x: scan(read_row_by_row, carry, {**items, "x": x}), carry, items["x"])
    assert ((STEPS, ROWS, OUTSIDE) in carried_and_left(loop)[0]) == (len(set(places)) < STEPS)
    after, outputs = scan(read_row_by_row, carry, items, reverse=True)
    assert isinstance(outputs, np.ndarray), "known while tracing"
    expected, wanted = lax.scan(read_row_by_row, carry, items, reverse=True)
    np.testing.assert_array_equal(outputs, wanted)
    np.testing.assert_allclose(after["gradient"], expected["gradient"], rtol=1e-5)
    np.testing.assert_allclose(after["state"], expected["state"], rtol=1e-5)


def test_the_same_loop_is_the_same_code_however_often_it_is_traced() -> None:
    """What is compiled is looked for by its text: an order that memory decides would never be found again."""

    def traced() -> Any:
        def many_parts(carry: Any, item: Any) -> tuple[Any, Any]:
            parts = [jnp.sin(carry + number * item) for number in range(6)]
            return jnp.tanh(sum(parts)), jnp.exp(parts[0] * parts[1] + parts[2] * parts[3] - parts[4] / (2 + parts[5]))

        return jax.make_jaxpr(lambda *given: scan(many_parts, *given))(jnp.ones(4), jnp.ones((3, 4)))

    # All are kept, so that each has its variables at other addresses.
    assert len({str(jaxpr) for jaxpr in [traced() for _ in range(8)]}) == 1
