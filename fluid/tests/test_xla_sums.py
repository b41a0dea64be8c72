"""Sums of products that a loop adds up, made after it."""

from collections.abc import Callable
from typing import Any

from fluid.engine.xla.sums import scan

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
