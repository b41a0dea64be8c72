"""Which forward operation a `*_grad` operation belongs to.

Paddle's backward pass is written out in the Program: `conv2d_grad(input, filter, out_grad) -> input_grad, filter_grad`.
The engine needs no rule for it, because `jax.vjp` of the forward rule computes the same thing. It only has to find the
forward operation, and that one shares its operands and results with the gradient by name. Inside the gradient of a loop
or a branch the shared values come off a stack (`cf.tuple_pop`) that the forward pass filled (`cf.tuple_push`).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from fluid.engine.xla.graph import Graph, Operation, present, walk

SUFFIX = "_grad"


@dataclass
class Gradients:
    """The result of `match`, by `Operation.index`."""

    forward: dict[int, Operation] = field(default_factory=dict)
    """Gradient operation -> its forward operation."""
    wanted: dict[int, list[int]] = field(default_factory=dict)
    """Forward operation -> positions of the operands to differentiate by, over all its gradient operations."""
    pushed: dict[int, int] = field(default_factory=dict)
    """Value popped off a stack in the backward pass -> the value pushed in the forward pass."""
    stacks: dict[int, int] = field(default_factory=dict)
    """Each of the three handles of a stack (stack, inlet, outlet) -> the first of them."""
    lists: dict[int, list[int | None]] = field(default_factory=dict)
    """Value of a list of tensors -> their value numbers; Paddle makes a new list of the same tensors for a gradient."""
    needed: dict[int, list[int]] = field(default_factory=dict)
    """`cf.tuple_push` operation -> positions of the pushed values that the backward pass uses."""


def match(graph: Graph, is_rule: Callable[[str], bool]) -> Gradients:
    """Pair every gradient operation for which `is_rule(name)` is false with its forward operation."""
    found = Gradients()
    operations = list(walk(graph.block))
    _match_stacks(operations, found)
    by_name: dict[str, list[Operation]] = {}
    for operation in operations:
        by_name.setdefault(operation.name.rstrip("_"), []).append(operation)
        if operation.name == "builtin.combine":
            found.lists[operation.result(0)] = operation.inputs
        elif operation.name == "builtin.split":
            found.lists.setdefault(operation.operand(0), operation.outputs)
    for operation in operations:
        if not operation.name.endswith(SUFFIX) or is_rule(operation.name):
            continue
        base = operation.name.removesuffix(SUFFIX).removesuffix("_sparse")
        candidates = [other for other in by_name.get(base, []) if _belongs(operation, other, graph, found)]
        if candidates:
            forward = candidates[-1]
            found.forward[operation.index] = forward
            wanted = found.wanted.setdefault(forward.index, [])
            for name, result in zip(operation.output_names, operation.outputs, strict=True):
                position = forward.input_names.index(name.removesuffix(SUFFIX))
                if result is not None and position not in wanted:
                    wanted.append(position)
    _find_needed(operations, found)
    return found


def operands_by_name(gradient: Operation, forward: Operation) -> tuple[dict[str, int | None], dict[str, int | None]]:
    """Operands of a gradient operation as (values shared with the forward operation, gradients of its results)."""
    shared, cotangents = {}, {}
    forward_names = {*forward.input_names, *forward.output_names}
    for name, value in zip(gradient.input_names, gradient.inputs, strict=True):
        if name not in forward_names and name.removesuffix(SUFFIX) in forward.output_names:
            cotangents[name.removesuffix(SUFFIX)] = value
        else:
            shared[name] = value
    return shared, cotangents


def _belongs(gradient: Operation, forward: Operation, graph: Graph, found: Gradients) -> bool:
    shared, cotangents = operands_by_name(gradient, forward)
    own = {
        **dict(zip(forward.input_names, forward.inputs, strict=True)),
        **dict(zip(forward.output_names, forward.outputs, strict=True)),
    }
    for name, value in shared.items():
        if value is not None and name in own and not _same_value(value, own[name], found):
            return False
    for name, value in forward.attributes.items():
        if name in gradient.attributes and gradient.attributes[name] != value:
            return False
    return all(_same_type(graph, value, own[name]) for name, value in cotangents.items())


def _same_value(value: int, other: int | None, found: Gradients) -> bool:
    value = found.pushed.get(value, value)
    if value in found.lists and other in found.lists:
        return [None if item is None else found.pushed.get(item, item) for item in found.lists[value]] == found.lists[
            other
        ]
    return value == other


def _same_type(graph: Graph, first: int | None, second: int | None) -> bool:
    if first not in graph.types or second not in graph.types:
        return True
    one, other = graph.types[first].shape, graph.types[second].shape
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))


def _match_stacks(operations: list[Operation], found: Gradients) -> None:
    for operation in operations:
        if operation.name == "cf.stack_create":
            handles = present(operation.outputs)
            found.stacks.update(dict.fromkeys(handles, handles[0]))
    pushes = {found.stacks[item.operand(0)]: item for item in operations if item.name == "cf.tuple_push"}
    for operation in operations:
        if operation.name == "cf.tuple_pop":
            push = pushes[found.stacks[operation.operand(0)]]
            pairs = zip(operation.outputs, push.inputs[1:], strict=True)
            found.pushed.update({out: into for out, into in pairs if out is not None and into is not None})


def _find_needed(operations: list[Operation], found: Gradients) -> None:
    """Of everything pushed, only what a gradient reads is kept: the operands of forward operations, for `jax.vjp`."""
    used: set[int] = set()
    for operation in operations:
        if operation.name != "cf.tuple_push":
            used.update(found.pushed[value] for value in operation.inputs if value in found.pushed)
        if operation.index in found.forward:
            used.update(present(found.forward[operation.index].inputs))
    for operation in operations:
        if operation.name == "cf.tuple_push":
            found.needed[operation.index] = [
                position for position, value in enumerate(operation.inputs[1:]) if value in used
            ]
