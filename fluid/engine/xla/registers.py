"""The arrays of a loop as values that it hands from step to step.

A recurrence keeps its states in an array: each step reads one tensor of it and writes the next. Carried as one buffer, XLA copies
the whole array in every step, since it is read and written at different places: the time grows with the square of the steps. Where
the places are known before the loop runs, no buffer need be carried. A slot is a place relative to the step; what the next step
finds there is handed on, what was there before the loop comes in step by step, and what no later step touches goes out.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fluid.engine.xla.graph import Block, Operation, walk

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

READ, WRITE = "pd_op.array_read", "pd_op.array_write_"


@dataclass(frozen=True)
class Plan:
    """How the steps of a loop use an array."""

    places: tuple[np.ndarray, ...]
    """Of each slot: its place in each step, [steps]."""
    slot_of: Mapping[int, int]
    """Number of an operation -> the slot that it reads or writes."""
    source: tuple[int | None, ...]
    """Of each slot: the one that had its place in the step before; None: no step had it."""
    read_first: tuple[bool, ...]
    """Of each slot: whether a step reads what it finds there."""

    @property
    def handed_on(self) -> list[int]:
        """Slots whose content comes from the step before."""
        return [slot for slot, source in enumerate(self.source) if source is not None and self.read_first[slot]]

    @property
    def taken(self) -> list[int]:
        """Slots whose content comes from the array as it was before the loop."""
        return [slot for slot, source in enumerate(self.source) if source is None and self.read_first[slot]]

    @property
    def given_out(self) -> list[int]:
        """Slots whose content no later step needs."""
        return [slot for slot in range(len(self.places)) if slot not in {self.source[one] for one in self.handed_on}]


@dataclass(frozen=True)
class Registers:
    """What a step finds in an array in place of it: the content of each slot, None where nothing is known."""

    plan: Plan
    values: tuple[Any, ...]
    dtype: Any
    """Of the array, None before its first tensor."""

    def read(self, operation: Operation) -> Any:
        """What an `array_read` reads."""
        return self.values[self.plan.slot_of[operation.index]]

    def written(self, operation: Operation, value: jax.Array) -> "Registers":
        """After an `array_write_`."""
        slot = self.plan.slot_of[operation.index]
        value = value if self.dtype is None else value.astype(self.dtype)
        return replace(self, values=(*self.values[:slot], value, *self.values[slot + 1 :]))


def plan(
    number: int,
    body: Block,
    places: Mapping[int, Sequence[int]],
    steps: int,
    read: Callable[[Operation], Collection[int | None]],
) -> Plan | None:
    """The slots of the array `number` in a loop; None if a step uses it otherwise, or at places that are not known.

    Args:
        number: of the array's value.
        body: of the loop.
        places: number of an operation -> the place that it reads or writes in each step, as far as they are known.
        steps: of the loop.
        read: the operands that an operation makes use of.
    """
    uses = [operation for operation in walk(body) if number in read(operation)]
    results = {operation.outputs[0] for operation in uses if operation.name == WRITE}
    if any(results & set(read(operation)) for operation in walk(body)) or results & set(body.results):
        return None
    slots: list[np.ndarray] = []
    slot_of, read_first = {}, []
    for operation in uses:
        known = np.array(places.get(operation.index, ()))
        simple = operation.name in (READ, WRITE) and operation.inputs[0] == number and operation in body.operations
        if not simple or len(known) != steps:
            return None
        slot = next((slot for slot, other in enumerate(slots) if np.array_equal(known, other)), len(slots))
        if slot == len(slots):
            if any((known == other).any() for other in slots):
                return None
            slots.append(known)
            read_first.append(operation.name == READ)
        slot_of[operation.index] = slot
    sources = [_source(slots, slot) for slot in range(len(slots))]
    if not slots or any(source is False for source in sources):
        return None
    return Plan(tuple(slots), slot_of, tuple(sources), tuple(read_first))


def _source(slots: Sequence[np.ndarray], slot: int) -> int | None | bool:
    """The slot that always had the place in the step before, None if no step before had it; False: neither."""
    places = slots[slot]
    for other, before in enumerate(slots):
        if len(places) > 1 and np.array_equal(places[1:], before[:-1]):
            return other
    touched: set[int] = set()
    for step, place in enumerate(places.tolist()):
        if place in touched:
            return False
        touched.update(int(other[step]) for other in slots)
    return None


def opened(buffer: Any, plan: Plan, order: slice) -> tuple[dict[int, Any], dict[int, Any]]:
    """Of an array [capacity, ...]: the slots that are handed on, as before the first step, and those that are taken, [steps, ...]
    in the `order` that the loop runs through its items."""
    first = {slot: buffer[int(plan.places[slot][0])] for slot in plan.handed_on}
    return first, {slot: _rows(buffer, plan.places[slot][order]) for slot in plan.taken}


def closed(
    buffer: Any, capacity: int, plan: Plan, last: Mapping[int, Any], given: Mapping[int, Any], order: slice
) -> jax.Array:
    """The array after the loop.

    Args:
        buffer: before it, None if it held nothing.
        capacity: tensors that it has room for.
        plan: of the loop.
        last: what the slots that are handed on hold after the last step.
        given: [steps, ...] of the slots that are given out, in the `order` of the loop's items.
    """
    some = next(iter(last.values())) if last else next(iter(given.values()))[0]
    whole = jnp.zeros((capacity, *some.shape), some.dtype) if buffer is None else buffer
    handed = {source: plan.places[source][-1] for slot in plan.handed_on if (source := plan.source[slot]) is not None}
    for slot in plan.handed_on:
        source = plan.source[slot]
        assert source is not None
        whole = whole.at[int(handed[source])].set(last[slot])
    overwritten = {source for source in plan.source if source is not None} - set(handed)
    for slot, rows in given.items():
        places = plan.places[slot]
        if slot in overwritten:
            # The next step wrote there without reading: only the last of them stays.
            whole = whole.at[int(places[-1])].set(rows[order][-1])
        else:
            whole = _with_rows(whole, places[order], rows)
    return whole


def _rows(buffer: jax.Array, places: np.ndarray) -> jax.Array:
    if (np.diff(places) == 1).all():
        return lax.slice_in_dim(buffer, int(places[0]), int(places[-1]) + 1)
    return buffer[places]


def _with_rows(buffer: jax.Array, places: np.ndarray, rows: jax.Array) -> jax.Array:
    if (np.diff(places) == 1).all():
        return lax.dynamic_update_slice_in_dim(buffer, rows, int(places[0]), 0)
    return buffer.at[places].set(rows)
