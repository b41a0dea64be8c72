"""`while` and `if`, the arrays that loops fill and the stacks that carry values to their gradients.

Loops. A loop whose counter can be followed without knowing any data - every recurrent network is one - runs a number of
times that is known while compiling, so it becomes `lax.scan` and can be differentiated; any other becomes
`lax.while_loop`. What a loop changes (its arguments, and outer values its body writes in place) is the carry.

Gradients. Paddle writes the backward pass of a loop as a second loop: the forward body ends in `cf.tuple_push` of
everything it computed, the backward body starts with `cf.tuple_pop`. Here a stack is an array with one entry per
iteration, filled as the stacked output of the forward scan and consumed, last entry first, as input of the backward
scan. Only the values that some gradient reads are kept (`Gradients.needed`); each `*_grad` operation in the backward
body repeats its forward rule on popped values under `jax.vjp`, and XLA drops whatever of that is not needed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from fluid.engine.xla.graph import Block, Operation, in_place_pairs, present, walk, written_outside
from fluid.engine.xla.layout import ChannelsLast, channels_first, channels_last_array
from fluid.engine.xla.registers import READ, WRITE, Plan, Registers, closed, opened, plan
from fluid.engine.xla.rules import RULES
from fluid.engine.xla.structure import STRUCTURE
from fluid.engine.xla.sums import scan
from fluid.engine.xla.trace import Handler, Trace
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

MAX_FOLLOWED = 100_000
"""A loop that is still running after so many iterations is not followed while compiling."""


@dataclass(frozen=True)
class Stack:
    """Values pushed for a backward pass: `frames[position]` has a leading axis of length `depth`."""

    depth: int = 0
    frames: dict[int, Any] = field(default_factory=dict)
    constants: dict[int, Any] = field(default_factory=dict)
    """Positions that hold the same known value every time."""
    keys: Any = None
    """Random keys of the pushing iterations, [depth]: a random operation repeated for its gradient draws the same."""


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class TensorArray:
    """Tensors of one shape in one `buffer` [capacity, ...]; None until the first is written."""

    buffer: Any = None
    capacity: int = 0

    def tree_flatten(self) -> tuple[tuple[Any], int]:
        return (self.buffer,), self.capacity

    @classmethod
    def tree_unflatten(cls, capacity: int, leaves: tuple[Any]) -> "TensorArray":
        return cls(leaves[0], capacity)

    def grown(self, capacity: int) -> "TensorArray":
        """With room for at least `capacity` tensors."""
        capacity = max(capacity, self.capacity)
        if self.buffer is None or len(self.buffer) >= capacity:
            return TensorArray(self.buffer, capacity)
        room = jnp.zeros((capacity - len(self.buffer), *self.buffer.shape[1:]), self.buffer.dtype)
        return TensorArray(jnp.concatenate([self.buffer, room]), capacity)


def _stack_create(trace: Trace, operation: Operation) -> list[Any]:
    return [Stack(), None, None]


def _nested(operation: Operation) -> EngineError:
    return EngineError(f"{operation}: the xla engine does not train a loop inside a loop; use one loop")


def _stack_of(trace: Trace, operation: Operation) -> int:
    return trace.gradients.stacks[operation.operand(0)]


def _push(trace: Trace, operation: Operation) -> list[Any]:
    number = _stack_of(trace, operation)
    if trace.env[number].depth:
        raise _nested(operation)
    values = trace.operands(operation)[1:]
    frames, constants = {}, {}
    for position in trace.gradients.needed[operation.index]:
        value = values[position]
        known = isinstance(value, np.ndarray) or (
            isinstance(value, list) and all(isinstance(v, np.ndarray) for v in value)
        )
        if known:
            constants[position] = value
        else:
            frames[position] = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], value)
    trace.env[number] = Stack(1, frames, constants, trace.key[None])
    return []


def _pop(trace: Trace, operation: Operation) -> list[Any]:
    number = _stack_of(trace, operation)
    stack: Stack = trace.env[number]
    last = stack.depth - 1
    trace.env[number] = replace(stack, depth=last)
    trace.key = stack.keys[last]
    results = []
    for position in range(len(operation.outputs)):
        if position in stack.frames:
            trace.fed.add(operation.result(position))
            results.append(jax.tree.map(lambda leaf: leaf[last], stack.frames[position]))
        else:
            results.append(stack.constants.get(position))
    return results


def _has_elements(trace: Trace, operation: Operation) -> list[Any]:
    return [np.array([trace.env[_stack_of(trace, operation)].depth > 0])]


def _while(trace: Trace, operation: Operation) -> list[Any]:
    loop = _Loop(trace, operation)
    followed = _follow(loop)
    if followed is None:
        _run_while(loop)
    elif followed.count:
        _run_scan(loop, followed)
    return [trace.env[number] for number in loop.arguments]


class _Loop:
    """A `while` operation with its variables: what the body changes, by value number."""

    def __init__(self, trace: Trace, operation: Operation) -> None:
        self.trace, self.operation, self.body = trace, operation, operation.blocks[0]
        self.arguments = self.body.arguments
        stacks = trace.gradients.stacks
        written = written_outside(operation)
        self.variables = [*self.arguments, *sorted(number for number in written if number not in stacks)]
        self.updates = {number: number for number in self.variables}
        self.updates.update(zip(self.arguments, self.body.results[1:], strict=True))
        self.condition = self.body.results[0]
        self.pushed = _stacks_used(trace, self.body, "cf.tuple_push")
        self.popped = _stacks_used(trace, self.body, "cf.tuple_pop")
        operands = trace.operands(operation)
        self.start = operands[0]
        self.placed = trace.placed
        trace.env.update(zip(self.arguments, operands[1:], strict=True))

    def body_trace(self, values: dict[int, Any], index: Any) -> Trace:
        """A trace for one iteration."""
        child = self.trace.child(values, jax.random.fold_in(self.trace.key, index))
        child.fed.update(self.variables)
        child.placed = self.placed
        return child

    def matched(self, values: dict[int, Any], wanted: dict[int, Any]) -> dict[int, Any]:
        """Initial values of the carry in the form they have after an iteration."""
        return {number: _matched(value, wanted[number], self.operation) for number, value in values.items()}


@dataclass
class _Followed:
    """What is known of a loop before it runs."""

    count: int
    history: dict[int, list[np.ndarray]]
    """Known variables -> their value at the start of each iteration."""
    final: dict[int, np.ndarray]
    capacity: dict[int, int]
    """Arrays written at a known place -> how many tensors they hold in the end."""
    places: dict[int, list[int]]
    """Operations on arrays at a known place -> that place in each iteration."""


def _follow(loop: _Loop) -> _Followed | None:
    """Run the part of a loop that depends on no data; None if its condition is not in that part."""
    trace = loop.trace
    known = {number for number in loop.variables if isinstance(trace.env[number], np.ndarray)}
    while True:
        operations, computed = _known_part(loop, known)
        stay = {number for number in known if loop.updates[number] in computed}
        if stay == known:
            break
        known = stay
    if loop.condition not in computed or not isinstance(loop.start, np.ndarray):
        return None

    child = trace.child({}, trace.key)
    followed = _Followed(0, {number: [] for number in known}, {}, {}, {})
    running = bool(loop.start.all())
    while running:
        if followed.count >= MAX_FOLLOWED:
            return None
        followed.count += 1
        for number in known:
            followed.history[number].append(child.env[number])
        for operation in operations:
            if operation.name in (READ, WRITE):
                place = int(child.env[_place(operation)].reshape(()))
                array = operation.operand(0)
                followed.places.setdefault(operation.index, []).append(place)
                if operation.name == WRITE:
                    followed.capacity[array] = max(place + 1, followed.capacity.get(array, 0))
            elif operation.name == "cf.tuple_pop":
                number = _stack_of(trace, operation)
                child.env[number] = replace(child.env[number], depth=child.env[number].depth - 1)
            else:
                child.operation(operation)
        child.env.update({number: child.env[loop.updates[number]] for number in known})
        running = bool(child.env[loop.condition].all())
    followed.final = {number: child.env[number] for number in known}
    return followed


def _known_part(loop: _Loop, known: set[int]) -> tuple[list[Operation], set[int]]:
    """Operations of the body that can be executed if the variables `known` are, and the values they compute."""
    trace, changing = loop.trace, set(loop.variables)
    operations: list[Operation] = []
    computed = set(known)

    def available(number: int | None) -> bool:
        if number is None or number in computed:
            return True
        return number not in changing and isinstance(trace.env.get(number), np.ndarray)

    for operation in loop.body.operations:
        if operation.name == "cf.has_elements":
            operations.append(operation)
            computed.update(present(operation.outputs))
        elif operation.name == "cf.tuple_pop":
            operations.append(operation)
        elif operation.name in (READ, WRITE):
            if available(_place(operation)):
                operations.append(operation)
        else:
            rule = RULES.get(operation.name)
            simple = operation.name in STRUCTURE or (rule is not None and not rule.random)
            if simple and all(available(number) for number in operation.inputs):
                operations.append(operation)
                computed.update(number for number in operation.outputs if number is not None)
                computed.update(old for old, _ in in_place_pairs(operation))
            else:
                computed -= written_outside(operation)
    return operations, computed


def _place(operation: Operation) -> int:
    """The value that says where in an array `READ` and `WRITE` are at work."""
    return operation.operand(1 if operation.name == READ else 2)


def _plans(loop: _Loop, followed: _Followed) -> dict[int, Plan]:
    """Arrays that an iteration finds as registers."""
    needed = loop.trace.gradients.needed

    def used(operation: Operation) -> Collection[int | None]:
        if operation.name == "cf.tuple_push":
            values = operation.inputs[1:]
            return [values[position] for position in needed[operation.index]]
        return () if operation.name == "cf.yield" else operation.inputs

    plans = {}
    for number in loop.variables:
        array = loop.trace.env[number]
        if isinstance(array, TensorArray) and loop.updates[number] == number:
            found = plan(number, loop.body, followed.places, followed.count, used)
            if found is not None and (array.buffer is not None or not any(found.read_first)):
                plans[number] = found
    return plans


def _run_scan(loop: _Loop, followed: _Followed) -> None:
    trace, env = loop.trace, loop.trace.env
    count = followed.count
    loop.placed = trace.placed | followed.places.keys()
    for number, capacity in followed.capacity.items():
        env[number] = env[number].grown(capacity)
    plans = _plans(loop, followed)
    carried = [number for number in loop.variables if number not in followed.final and number not in plans]
    constants: dict[int, dict[int, Any]] = {}

    def iteration(carry: dict[str, Any], item: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        values = {**carry["variables"], **item["known"], **{number: Stack() for number in loop.pushed}}
        for number, (frames, keys) in item["popped"].items():
            values[number] = Stack(1, frames, env[number].constants, keys)
        for number, found in plans.items():
            known = {**carry["registers"][number], **item["taken"][number]}
            content = tuple(known.get(slot) for slot in range(len(found.places)))
            buffer = env[number].buffer
            values[number] = Registers(found, content, None if buffer is None else buffer.dtype)
        child = loop.body_trace(values, item["index"])
        child.block(loop.body)
        if any(child.env[number].depth > 1 for number in loop.pushed):
            raise _nested(loop.operation)
        constants.update({number: child.env[number].constants for number in loop.pushed})
        pushed = {number: (child.env[number].frames, child.env[number].keys) for number in loop.pushed}
        slots = {number: child.env[number].values for number in plans}
        registers = {
            number: {slot: slots[number][found.source[slot]] for slot in found.handed_on}
            for number, found in plans.items()
        }
        given = {number: {slot: slots[number][slot] for slot in found.given_out} for number, found in plans.items()}
        after = {number: child.env[loop.updates[number]] for number in carried}
        return {"variables": after, "registers": registers}, (pushed, given)

    def popped_frames(number: int) -> tuple[Any, Any]:
        # One more axis of length 1: an iteration sees a stack of depth 1.
        stack: Stack = env[number]
        part = slice(stack.depth - count, stack.depth)
        return jax.tree.map(lambda leaf: leaf[part][:, None], (stack.frames, stack.keys))

    # What was pushed last is popped first: the loop runs over it from its end, which needs no copy.
    reverse = bool(loop.popped)
    order = slice(None, None, -1 if reverse else 1)
    registers = {number: opened(env[number].buffer, found, order) for number, found in plans.items()}
    items = {
        "taken": {number: taken for number, (_, taken) in registers.items()},
        # Not on the device yet: what follows from these alone is known while the loop is traced.
        "index": np.arange(count, dtype=np.int32)[order],
        "known": {number: np.stack(values)[order] for number, values in followed.history.items()},
        "popped": {number: popped_frames(number) for number in loop.popped},
    }
    carry: dict[str, Any] = {
        "variables": {number: jax.tree.map(jnp.asarray, env[number]) for number in carried},
        "registers": {number: first for number, (first, _) in registers.items()},
    }
    first = jax.tree.map(lambda leaf: leaf[0], items)
    after, _ = jax.eval_shape(iteration, carry, first)
    carry["variables"] = loop.matched(carry["variables"], after["variables"])
    carry, (pushed, given) = scan(iteration, carry, items, reverse=reverse, tuning=trace.tuning)

    env.update(carry["variables"])
    env.update(followed.final)
    for number, found in plans.items():
        array: TensorArray = env[number]
        last = carry["registers"][number]
        env[number] = TensorArray(
            closed(array.buffer, array.capacity, found, last, given[number], order), array.capacity
        )
    trace.fed.update([*carried, *plans])
    for number in loop.popped:
        env[number] = replace(env[number], depth=env[number].depth - count)
    for number, (frames, keys) in pushed.items():
        # Stacks hold their entries in the order of pushing, whichever way the loop ran.
        frames, keys = jax.tree.map(lambda leaf: leaf[order][:, 0], (frames, keys))
        env[number] = Stack(count, frames, constants[number], keys)


def _run_while(loop: _Loop) -> None:
    trace, env = loop.trace, loop.trace.env
    used = [item for item in walk(loop.body) if item.name == "cf.tuple_push" and trace.gradients.needed[item.index]]
    if used or loop.popped:
        raise EngineError(
            f"{loop.operation}: this loop is trained, but how often it runs depends on data; "
            "loop over a fixed number of steps and mask the rest"
        )

    def iteration(state: tuple[Any, Any, dict[int, Any]]) -> tuple[Any, Any, dict[int, Any]]:
        index, _, carry = state
        child = loop.body_trace({**carry, **{number: Stack() for number in loop.pushed}}, index)
        child.block(loop.body)
        condition = jnp.asarray(child.env[loop.condition]).reshape(())
        return index + 1, condition, {number: jnp_tree(child.env[loop.updates[number]]) for number in loop.variables}

    state = (
        jnp.int32(0),
        jnp.asarray(loop.start).reshape(()),
        {number: jnp_tree(env[number]) for number in loop.variables},
    )
    after = jax.eval_shape(iteration, state)
    state = (*state[:2], loop.matched(state[2], after[2]))
    _, _, carry = lax.while_loop(lambda item: item[1], iteration, state)
    env.update(carry)
    trace.fed.update(loop.variables)


def _if(trace: Trace, operation: Operation) -> list[Any]:
    condition = trace.env[operation.operand(0)]
    if isinstance(condition, np.ndarray):
        block = operation.blocks[0 if condition.all() else 1]
        trace.block(block)
        return [trace.env[number] for number in block.results]

    stacks = trace.gradients.stacks
    written = sorted(number for number in written_outside(operation) if number not in stacks)
    pushed = sorted({number for block in operation.blocks for number in _stacks_used(trace, block, "cf.tuple_push")})
    constants: dict[int, dict[int, Any]] = {}

    def branch(block: Block) -> Callable[[], tuple[list[Any], dict[int, Any]]]:
        def run() -> tuple[list[Any], dict[int, Any]]:
            child = trace.child({number: Stack() for number in pushed}, trace.key)
            child.block(block)
            values = [jnp_tree(channels_first(child.env[number])) for number in [*block.results, *written]]
            full = {number: child.env[number] for number in pushed if child.env[number].depth}
            constants.update({number: stack.constants for number, stack in full.items()})
            return values, {number: (stack.frames, stack.keys) for number, stack in full.items()}

        return run

    branches = [branch(block) for block in operation.blocks]
    types = [jax.eval_shape(run) for run in branches]
    wanted = [_common(one, other, operation) for one, other in zip(types[0][0], types[1][0], strict=True)]
    frames = {**types[0][1], **types[1][1]}

    def completed(run: Callable[[], tuple[list[Any], dict[int, Any]]]) -> Callable[[], Any]:
        def both() -> tuple[list[Any], dict[int, Any]]:
            values, own = run()
            values = [_matched(value, target, operation) for value, target in zip(values, wanted, strict=True)]
            absent = {number: jax.tree.map(_zeros, value) for number, value in frames.items() if number not in own}
            return values, {**own, **absent}

        return both

    # Paddle's `if` takes the first block if the condition holds; so does lax.cond.
    taken = jnp.asarray(condition).reshape(())
    values, filled = lax.cond(taken, completed(branches[0]), completed(branches[1]))
    for number, (content, keys) in filled.items():
        trace.env[number] = Stack(1, content, constants[number], keys)
    count = len(operation.outputs)
    trace.env.update(zip(written, values[count:], strict=True))
    trace.fed.update([*written, *present(operation.outputs)])
    return values[:count]


def _stacks_used(trace: Trace, block: Block, name: str) -> list[int]:
    return sorted({_stack_of(trace, operation) for operation in walk(block) if operation.name == name})


def jnp_tree(value: Any) -> Any:
    """Every leaf as a JAX array."""
    return jax.tree.map(jnp.asarray, value)


def _zeros(leaf: Any) -> Any:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jnp.broadcast_to(jax.random.key(0), leaf.shape)
    return jnp.zeros(leaf.shape, leaf.dtype)


def _common(one: Any, other: Any, operation: Operation) -> Any:
    """The type that both branches can return: they may differ between bfloat16 and float32."""
    if isinstance(one, TensorArray) or isinstance(other, TensorArray):
        raise EngineError(f"{operation}: its branches write to an array; let them return what is written after them")
    if one.shape != other.shape:
        raise EngineError(f"{operation}: its branches return {list(one.shape)} and {list(other.shape)}")
    return jax.ShapeDtypeStruct(one.shape, jnp.promote_types(one.dtype, other.dtype))


def _matched(value: Any, wanted: Any, operation: Operation) -> Any:
    """`value` in the type, the layout and (arrays) the capacity of `wanted`."""
    if isinstance(wanted, TensorArray):
        if value.buffer is None:
            return TensorArray(None if wanted.buffer is None else _zeros(wanted.buffer), wanted.capacity)
        return TensorArray(_matched(value.buffer, wanted.buffer, operation), wanted.capacity)
    if isinstance(wanted, list):
        return [_matched(item, target, operation) for item, target in zip(value, wanted, strict=True)]
    if isinstance(wanted, ChannelsLast):
        return ChannelsLast(_matched(channels_last_array(value), wanted.array, operation))
    value = channels_first(value)
    if value.shape != wanted.shape:
        raise EngineError(
            f"{operation}: a variable of this loop starts as {list(value.shape)} and becomes {list(wanted.shape)}; "
            "the xla engine needs shapes that stay: fill a buffer of the final size instead of appending"
        )
    return value.astype(wanted.dtype)


def _array_write(trace: Trace, operation: Operation) -> list[Any]:
    array, value, place = trace.operands(operation)
    value = jnp.asarray(channels_first(value))
    if isinstance(array, Registers):
        return [array.written(operation, value)]
    if isinstance(place, np.ndarray):
        array = array.grown(int(place.reshape(())) + 1)
    elif operation.index not in trace.placed and operation.operand(2) not in trace.gradients.pushed:
        # XLA would write to the last tensor what lies behind it.
        raise EngineError(
            f"{operation}: where this writes, and so the length of the array, depends on data; "
            "fill a buffer of fixed size instead"
        )
    if array.buffer is None:
        array = TensorArray(jnp.zeros((array.capacity, *value.shape), value.dtype), array.capacity)
    place = jnp.asarray(place).reshape(())
    # Not a scatter: this is written in place, and together with what computes the value.
    return [
        TensorArray(
            lax.dynamic_update_index_in_dim(array.buffer, value.astype(array.buffer.dtype), place, 0), array.capacity
        )
    ]


def _array_read(trace: Trace, operation: Operation) -> list[Any]:
    array, place = trace.operands(operation)
    if isinstance(array, Registers):
        return [array.read(operation)]
    return [lax.dynamic_index_in_dim(array.buffer, jnp.asarray(place).reshape(()), keepdims=False)]


def _array_length(trace: Trace, operation: Operation) -> list[Any]:
    if trace.inside:
        raise EngineError(
            f"{operation}: inside a loop or a branch the length of an array is not known; count the steps"
        )
    (array,) = trace.operands(operation)
    return [np.array([array.capacity], np.int64)]


def _array_to_tensor(trace: Trace, operation: Operation) -> list[Any]:
    (array,) = trace.operands(operation)
    axis, count = operation.attributes["axis"], len(array.buffer)
    lengths = np.full(count, sum(array.buffer.shape[1 + axis : 2 + axis]), np.int32)
    if operation.attributes["use_stack"]:
        return [jnp.moveaxis(array.buffer, 0, axis), lengths]
    return [jnp.concatenate(list(array.buffer), axis), lengths]


def _tensor_to_array(trace: Trace, operation: Operation) -> list[Any]:
    """The inverse of `array_to_tensor`, used for its gradient."""
    array, gradient = trace.operands(operation)
    gradient, axis, count = channels_first(gradient), operation.attributes["axis"], len(array.buffer)
    if operation.attributes["use_stack"]:
        return [TensorArray(jnp.moveaxis(gradient, axis, 0), count)]
    return [TensorArray(jnp.stack(jnp.split(gradient, count, axis)), count)]


def _array_like(trace: Trace, operation: Operation) -> list[Any]:
    (array,) = trace.operands(operation)
    return [TensorArray(jnp.full_like(array.buffer, operation.attributes["val"]), array.capacity)]


HANDLERS: dict[str, Handler] = {
    "pd_op.while": _while,
    "pd_op.if": _if,
    "cf.stack_create": _stack_create,
    "cf.tuple_push": _push,
    "cf.tuple_pop": _pop,
    "cf.has_elements": _has_elements,
    "pd_op.create_array": lambda trace, operation: [TensorArray()],
    "pd_op.create_array_like": _array_like,
    "pd_op.array_write_": _array_write,
    "pd_op.array_read": _array_read,
    "pd_op.array_length": _array_length,
    "pd_op.array_to_tensor": _array_to_tensor,
    "pd_op.tensor_to_array": _tensor_to_array,
}
