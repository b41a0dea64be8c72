"""State of the xla engine, and what of it is one array between the steps."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from fluid.engine.xla import create
from fluid.engine.xla.capture import capture
from fluid.engine.xla.powers import find_powers
from fluid.engine.xla.state import State
from fluid.errors import EngineError
from fluid.interface import Input
from fluid.program import build, initialise

import jax.numpy as jnp
import numpy as np
import paddle
import pytest

NUMBERS = {
    "one": np.full((1,), 0.9, np.float32),
    "two": np.full((), 0.98, np.float32),
    "three": np.ones((1, 1), np.float32),
}


def opened() -> State:
    state = State()
    state.update({name: jnp.asarray(value) for name, value in NUMBERS.items()} | {"large": jnp.arange(3.0)})
    return state


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].shape == np.shape(value) and np.array_equal(found[name], value), name


def test_packed_variables_are_found_and_replaced_by_themselves() -> None:
    state, names = opened(), ("one", "two", "three")
    np.testing.assert_array_equal(state.pack(names, "train"), np.array([0.9, 0.98, 1], np.float32))
    assert state.names() == ["large", "one", "three", "two"]
    state.update_pack(names, 2 * state.pack(names, "train"))
    doubled = {name: 2 * value for name, value in NUMBERS.items()}
    assert_same(state.on_host(list(NUMBERS)), doubled)
    assert_same({name: np.asarray(value) for name, value in zip(names, state.find(names, "eval"))}, doubled)
    state.pack(names, "train")
    state.update({"two": jnp.zeros(())})
    assert_same(state.on_host(["two", "one"]), {"two": np.zeros(()), "one": doubled["one"]})
    np.testing.assert_array_equal(state.pack(("three", "two"), "other"), [2, 0])


def test_two_programs_may_pack_some_of_the_same_variables() -> None:
    state = opened()
    for turn in range(2):
        for names in (("one", "two"), ("two", "three")):
            state.update_pack(names, 2 * state.pack(names, "train"))
        factors = {"one": 2, "two": 4, "three": 2}
        assert_same(
            state.on_host(list(NUMBERS)), {name: value * factors[name] ** (turn + 1) for name, value in NUMBERS.items()}
        )


def test_threads_that_pack_at_once_get_the_same() -> None:
    """Steps of several shapes are compiled by threads before the first of them runs."""
    state, joined = opened(), []

    def slowly(arrays: list[Any]) -> Any:
        joined.append(len(arrays))
        time.sleep(0.1)
        return jnp.concatenate([array.reshape(1) for array in arrays])

    with mock.patch("fluid.engine.xla.state._join", slowly), ThreadPoolExecutor(4) as pool:
        packs = list(pool.map(lambda _: state.pack(tuple(NUMBERS), "train"), range(4)))
    assert joined == [3] and all(pack is packs[0] for pack in packs)
    assert_same(state.on_host(list(NUMBERS)), NUMBERS)


def test_a_pack_needs_all_its_variables() -> None:
    with pytest.raises(EngineError, match="the Program 'train' needs variables that were not loaded: four"):
        opened().pack(("one", "four"), "train")


def program(optimizer: Any) -> Any:
    def network(x: Any, training: bool) -> dict[str, Any]:
        return {"loss": paddle.mean(paddle.nn.Linear(2, 1)(x) ** 2)}

    return build(network, [Input("x", (None, 2))], name="train", training=True, optimizer=optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [lambda: paddle.optimizer.Adam(0.1, beta1=0.8), lambda: paddle.optimizer.AdamW(0.1, beta1=0.8)],
    ids=["Adam", "AdamW"],
)
def test_powers_of_betas_are_those_of_the_steps(optimizer: Any) -> None:
    """One by one, in a loop, after they were loaded anew, and beside a Program that reads them."""
    train = program(optimizer)
    state, feed = initialise(train, seed=0), {"x": np.ones((4, 2), np.float32)}
    powers = find_powers(capture(train))
    assert sorted(powers) == sorted(name for name in state if "_pow_acc" in name) and len(powers) == 4
    engine = create("cpu")
    engine.load(state)
    for step in range(2):
        engine.run(train, feed, step)
    saved = engine.state()
    engine.run_many(train, [feed] * 3, 2)
    for name, factor in powers.items():
        wanted = state[name]
        for _ in range(2):
            wanted = wanted * factor
        assert saved[name].shape == (1,) and np.array_equal(saved[name], wanted)
        for _ in range(3):
            wanted = wanted * factor
        assert np.array_equal(engine.state([name])[name], wanted)
    # To go on from what was saved is to have gone on.
    other = create("cpu")
    other.load(saved)
    other.run_many(train, [feed] * 3, 2)
    assert_same(other.state(), engine.state())


def test_steps_of_several_shapes_are_compiled_at_once_and_run() -> None:
    train = program(lambda: paddle.optimizer.Adam(0.1))
    engine = create("cpu")
    engine.load(initialise(train, seed=0))
    engine.num_devices = 1  # Threads compile for one device.
    feeds = [{"x": np.ones((rows, 2), np.float32)} for rows in range(2, 10)]
    engine.compile([(train, feed) for feed in feeds])
    for step, feed in enumerate(feeds):
        assert np.isfinite(engine.run(train, feed, step)["loss"])


def test_a_variable_by_itself_is_no_power_of_many() -> None:
    assert find_powers(capture(program(lambda: paddle.optimizer.Momentum(0.1)))) == {}
