"""A captured Program as plain data: what `capture.py` writes and `lower.py` reads.

A `Graph` is a block of operations over numbered values. It holds everything needed to train or infer - interface, types,
learning-rate schedule - and nothing of Paddle, so it can be written to a folder, carried to a machine that has only JAX
and run there.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid import files
from fluid.errors import EngineError
from fluid.interface import Input, Interface, Output
from fluid.schedule import from_json as schedule_from_json
from fluid.schedule import to_json as schedule_to_json

import numpy as np
from safetensors.numpy import load_file, save_file

FORMAT = 2
"""Version of the folder layout written by `save`."""

PARAMETER, DATA, YIELD = "builtin.parameter", "pd_op.data", "cf.yield"


@dataclass(frozen=True)
class Type:
    """Type of a tensor value: `-1` in `shape` is a length known only when a batch is fed."""

    shape: tuple[int, ...]
    dtype: str


@dataclass
class Operation:
    """One operation: operands and results are value numbers, None where an optional one is absent."""

    name: str
    """With its dialect: `pd_op.conv2d`, `builtin.combine`, `cf.yield`."""
    index: int
    """Position in the captured Program; random operations draw from (seed, step, index)."""
    inputs: list[int | None]
    outputs: list[int | None]
    input_names: list[str] = field(default_factory=list)
    output_names: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)
    blocks: list["Block"] = field(default_factory=list)
    source: str = ""
    """The line of user code that created it, `FILE:LINE`."""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})" if self.source else self.name

    def result(self, position: int) -> int:
        """The value number of a result that cannot be absent."""
        value = self.outputs[position]
        if value is None:
            raise EngineError(f"{self}: its result {position} is absent")
        return value

    def operand(self, position: int) -> int:
        """The value number of an operand that cannot be absent."""
        value = self.inputs[position]
        if value is None:
            raise EngineError(f"{self}: its operand {position} is absent")
        return value


@dataclass
class Block:
    """A list of operations; `arguments` are the values that a loop hands to its body."""

    arguments: list[int] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)

    @property
    def results(self) -> list[int]:
        """Operands of the closing `cf.yield`."""
        last = self.operations[-1] if self.operations else None
        return present(last.inputs) if last is not None and last.name == YIELD else []


@dataclass(kw_only=True, eq=False)
class Graph(Interface):
    """A captured Program: its interface, its operations, and the value numbers behind its names."""

    block: Block
    types: dict[int, Type]
    fed: dict[str, int]
    """Input -> value number."""
    values: dict[str, int]
    """Output or layer -> value number."""
    state: dict[str, int]
    """Variable, the learning rate among them -> value number."""

    def pruned(self, fetch: Iterable[str]) -> "Graph":
        """Without the operations that neither the outputs or layers in `fetch` nor the state depend on.

        Raises EngineError for a name that is neither an output nor a layer.
        """
        known = {**self.layers, **self.outputs}
        outputs = {name: known[name] for name in fetch if name in known}
        unknown = [name for name in fetch if name not in known]
        if unknown:
            raise EngineError(
                f"the Program '{self.name}' has no output or layer called {', '.join(unknown)}; "
                f"it has: {', '.join(known)}"
            )
        live = {self.values[name] for name in outputs}
        kept: list[Operation] = []
        state = set(self.state.values())
        for operation in reversed(self.block.operations):
            results = set(present(operation.outputs))
            written = written_outside(operation)
            if results & live or written & (live | state) or operation.name == "cf.tuple_push":
                kept.append(operation)
                live |= values_read(operation)
                live |= written
        return dataclasses.replace(
            self,
            block=Block(self.block.arguments, kept[::-1]),
            outputs=outputs,
            layers={},
            values={name: self.values[name] for name in outputs},
        )


def present(values: Iterable[int | None]) -> list[int]:
    """The value numbers that are not absent."""
    return [value for value in values if value is not None]


def in_place_pairs(operation: Operation) -> list[tuple[int, int]]:
    """(operand, result) value numbers where the result replaces the operand, as Paddle's kernels share their memory.

    Operations that end in `_` name such results after their operands (`mean` -> `mean_out`), or have a single result that
    replaces the first operand; `_RENAMED` has the exceptions. Raises EngineError for an operation that does neither.
    """
    if not operation.name.endswith("_") or not operation.inputs or _keeps_statistics(operation):
        return []
    operands = dict(zip(operation.input_names, operation.inputs, strict=True))
    results = dict(zip(operation.output_names, operation.outputs, strict=True))
    renamed = _RENAMED.get(operation.name, {})
    named = {name: renamed.get(name, name.removesuffix("_out")) for name in results if name.endswith("_out") or renamed}
    if not named:
        named = {operation.output_names[0]: operation.input_names[0]}
    pairs = []
    for new, old in named.items():
        replaced, result = operands.get(old), results[new]
        if result is None:
            continue
        if replaced is None:
            raise EngineError(f"{operation}: the xla engine does not know which operand it replaces")
        pairs.append((replaced, result))
    return pairs


_RENAMED = {
    "pd_op.assign_out_": {"out": "output"},
    "pd_op.adadelta_": {"moment_out": "avg_squared_grad", "inf_norm_out": "avg_squared_update"},
}


def _keeps_statistics(operation: Operation) -> bool:
    attributes = operation.attributes
    return operation.name == "pd_op.batch_norm_" and (attributes["is_test"] or attributes["use_global_stats"])


OUTPUT = "output"
"""Name of what stands for the caller among the readers of an output."""


class Uses:
    """Who makes a value and who reads it."""

    def __init__(self, block: Block, outputs: Iterable[int] = ()):
        """Of a block and those inside it; `outputs` are what the caller gets."""
        self._producers: dict[int, Operation] = {}
        self._readers: dict[int, list[Operation]] = {}
        for operation in walk(block):
            self._producers.update(dict.fromkeys(present(operation.outputs), operation))
            for value in dict.fromkeys(present(operation.inputs)):
                self._readers.setdefault(value, []).append(operation)
        for value in outputs:
            self._readers.setdefault(value, []).append(Operation(OUTPUT, -1, [value], []))

    def producer(self, value: int) -> Operation | None:
        """None for an argument of a block."""
        return self._producers.get(value)

    def readers(self, value: int | None) -> list[Operation]:
        """In program order; the caller last, who gets outputs."""
        return [] if value is None else self._readers.get(value, [])


def walk(block: Block) -> Iterator[Operation]:
    """Every operation of a block and of the blocks inside it, in program order."""
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from walk(inner)


def values_read(operation: Operation) -> set[int]:
    """Values from outside that an operation uses, those used inside its blocks included."""
    read = set(present(operation.inputs))
    for block in operation.blocks:
        own = set(block.arguments)
        for inner in block.operations:
            read |= values_read(inner) - own
            own |= set(present(inner.outputs))
    return read


def written_outside(operation: Operation) -> set[int]:
    """Values from outside that an operation changes in place, itself or inside its blocks."""
    written = {old for old, _ in in_place_pairs(operation)}
    if operation.name in ("cf.tuple_push", "cf.tuple_pop"):
        written.add(operation.operand(0))
    for block in operation.blocks:
        own = set(block.arguments)
        for inner in block.operations:
            written |= written_outside(inner) - own
            own |= set(present(inner.outputs))
    return written


def save(folder: str | Path, graphs: Iterable[Graph], state: Mapping[str, np.ndarray]) -> None:
    """Write captured Programs and the state they share: `<name>.json` per graph and `state.safetensors`."""
    for graph in graphs:
        save_graph(Path(folder) / f"{graph.name}.json", graph)
    save_file(
        {name: np.require(array, requirements="C") for name, array in state.items()}, Path(folder) / "state.safetensors"
    )


def save_graph(file: str | Path, graph: Graph) -> None:
    """Write one captured Program to a JSON file, whose folder is made."""
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(json.dumps(to_json(graph)))


def load(folder: str | Path) -> tuple[dict[str, Graph], dict[str, np.ndarray]]:
    """Read what `save` wrote: graphs by name, and the state. Raises EngineError for anything else."""
    folder = Path(folder)
    files = sorted(folder.glob("*.json"))
    if not files or not (folder / "state.safetensors").is_file():
        raise EngineError(f"{folder}: not a folder of captured Programs (it needs *.json and state.safetensors)")
    graphs = [load_graph(file) for file in files]
    return {graph.name: graph for graph in graphs}, load_file(folder / "state.safetensors")


def load_graph(file: str | Path) -> Graph:
    """Read one captured Program; raises EngineError if the file holds something else."""
    try:
        return from_json(json.loads(files.read_plain(file)))
    except OSError as error:
        raise EngineError(f"{file}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EngineError(f"{file}: not a captured Program of format {FORMAT} ({error})") from None


def to_json(graph: Graph) -> dict[str, Any]:
    """A captured Program as JSON-able data."""
    plain = {item.name: getattr(graph, item.name) for item in dataclasses.fields(Graph)}
    return plain | {
        "format": FORMAT,
        "inputs": [dataclasses.asdict(item) for item in graph.inputs.values()],
        "outputs": {name: dataclasses.asdict(item) for name, item in graph.outputs.items()},
        "layers": {name: dataclasses.asdict(item) for name, item in graph.layers.items()},
        "schedule": None if graph.schedule is None else schedule_to_json(graph.schedule),
        "types": [[value, list(item.shape), item.dtype] for value, item in graph.types.items()],
        "block": dataclasses.asdict(graph.block),
    }


def from_json(data: dict[str, Any]) -> Graph:
    """The inverse of `to_json`, which takes `data` apart; raises ValueError, KeyError or TypeError for anything else."""
    if data.pop("format") != FORMAT:
        raise ValueError("written by another version: capture the Program again")
    inputs = [Input(**{**item, "shape": tuple(item["shape"])}) for item in data["inputs"]]
    return Graph(
        **data
        | {
            "inputs": {item.name: item for item in inputs},
            "outputs": {name: Output(**item) for name, item in data["outputs"].items()},
            "layers": {name: Output(**item) for name, item in data["layers"].items()},
            "schedule": None if data["schedule"] is None else schedule_from_json(data["schedule"]),
            "types": {value: Type(tuple(shape), dtype) for value, shape, dtype in data["types"]},
            "block": _block_from_json(data["block"]),
        }
    )


def _block_from_json(data: dict[str, Any]) -> Block:
    operations = [
        Operation(**{**item, "blocks": [_block_from_json(block) for block in item["blocks"]]})
        for item in data["operations"]
    ]
    return Block(data["arguments"], operations)
