"""Outputs that are kept: read together, whichever way they are kept."""

import weakref

from fluid.engine.collected import Outputs
from fluid.engine.xla import rows
from fluid.engine.xla.rows import Rows

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def outputs_of(step: int, runs: int | None = None) -> dict[str, jax.Array]:
    shape = () if runs is None else (runs,)
    return {"loss": jnp.full(shape, step / 2, jnp.float32), "finite": jnp.full((*shape, 3), step % 2 == 0)}


@pytest.mark.parametrize("kind", [Outputs, Rows])
def test_what_was_added_is_read_in_its_order(kind, monkeypatch):
    """Also of more runs than share an array, of several at a time, and once more after it was forgotten."""
    monkeypatch.setattr(rows, "ROWS", 3)
    kept = kind()
    added = [outputs_of(step) for step in range(4)] + [outputs_of(step, runs=2) for step in range(4, 9)]
    for number, outputs in enumerate(added, 1):
        kept.add(outputs)
        assert len(kept) == number
        if number % 2:
            assert len(kept.read()) == number
    for found, wanted in zip(kept.read(), added, strict=True):
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            assert isinstance(found[name], np.ndarray | np.generic) and np.array_equal(found[name], value)
            assert found[name].dtype == value.dtype
    kept.clear()
    assert len(kept) == 0 and kept.read() == []
    kept.add(outputs_of(6))
    assert [float(one["loss"]) for one in kept.read()] == [3.0]


def test_rows_stay_where_they_are_and_let_go_of_what_was_added():
    kept = Rows()
    kept.add(outputs_of(0))
    places = {value.unsafe_buffer_pointer() for value in kept._rows.values()}
    outputs = outputs_of(1)
    gone = weakref.ref(outputs["loss"])
    kept.add(outputs)
    del outputs
    assert gone() is None
    assert {value.unsafe_buffer_pointer() for value in kept._rows.values()} == places
