"""Sorting only as far as its result is used.

`paddle.argsort(x, descending=True, stable=True)[..., :k]` is how a Program takes the k largest with ties in order, because
Paddle's own `topk` leaves ties open. XLA would sort everything for it, on a CPU a hundred times slower than it finds the
first ten of a vocabulary.
"""

import dataclasses
from collections import Counter

from fluid.engine.xla.graph import Block, Graph, Operation, present, walk

FIRST = "first"
"""Attribute of an `argsort`: how many places are wanted."""


def only_first(graph: Graph) -> Graph:
    """The graph with every `argsort` of whose indices one slice `[..., :k]` is all that is used as an `argsort` of these k."""
    operations = list(walk(graph.block))
    uses = Counter(value for operation in operations for value in present(operation.inputs))
    uses.update(graph.values.values())
    numbers = {item.result(0): item.attributes["value"] for item in operations if item.name == "pd_op.full_int_array"}
    sorts = {
        item.result(1): item
        for item in operations
        if item.name == "pd_op.argsort"
        and item.attributes["descending"]
        and uses[item.result(0)] == 0
        and uses[item.result(1)] == 1
    }
    shortened: dict[int, Operation] = {}
    gone: set[int] = set()
    for item in operations:
        sort = sorts.get(item.operand(0)) if item.name == "pd_op.slice" else None
        count = None if sort is None else _first(item, sort, numbers, graph)
        if sort is not None and count is not None:
            # Where the sort stands: what it sorts may be written over before it is sliced.
            attributes = {**sort.attributes, FIRST: count}
            shortened[sort.index] = dataclasses.replace(sort, attributes=attributes, outputs=[None, item.result(0)])
            gone.add(item.index)
    return dataclasses.replace(graph, block=_replaced(graph.block, shortened, gone)) if shortened else graph


def _first(item: Operation, sort: Operation, numbers: dict[int, list[int]], graph: Graph) -> int | None:
    """k, if the slice `item` is `[..., :k]` along the axis that `sort` sorts; None otherwise."""
    rank = len(graph.types[sort.operand(0)].shape)
    starts, ends = (numbers.get(item.operand(position)) for position in (1, 2))
    whole = item.attributes["axes"] == [sort.attributes["axis"] % rank] and not item.attributes["decrease_axis"]
    return ends[0] if whole and starts == [0] and ends is not None and ends[0] > 0 else None


def _replaced(block: Block, instead: dict[int, Operation], gone: set[int]) -> Block:
    kept = [instead.get(item.index, item) for item in block.operations if item.index not in gone]
    inner = [
        dataclasses.replace(item, blocks=[_replaced(part, instead, gone) for part in item.blocks])
        if item.blocks
        else item
        for item in kept
    ]
    return Block(block.arguments, inner)
