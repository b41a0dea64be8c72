"""Paddle's PIR Program -> Graph. The only module of this engine that imports Paddle."""

import copy
import dataclasses
import math
import os
from collections.abc import Iterable
from typing import Any

from fluid.engine.xla.graph import DATA, PARAMETER, Block, Graph, Operation, Type
from fluid.errors import EngineError
from fluid.interface import Interface
from fluid.program import Program

import paddle

_PADDLE_FOLDER = os.path.dirname(os.path.abspath(paddle.__file__)) + os.sep
_NOT_ATTRIBUTES = {"op_callstack", "struct_name", "stop_gradient", "place", "persistable", "is_distributed"}
"""What Paddle keeps with an operation that says nothing about what it computes."""


def capture(program: Program) -> Graph:
    """The plain-data form of a built Program. Raises EngineError if an output is not a value of the Program."""
    reader = _Reader()
    block = reader.block(program.main.global_block())
    fed: dict[str, int] = {}
    state: dict[str, int] = {}
    for operation in block.operations:
        if operation.name == PARAMETER:
            state[operation.attributes["parameter_name"]] = operation.result(0)
        elif operation.name == DATA:
            name = operation.attributes["name"]
            (fed if name in program.inputs else state)[name] = operation.result(0)
    interface = {item.name: copy.copy(getattr(program, item.name)) for item in dataclasses.fields(Interface)}
    values = reader.numbers_of(program.values, program.name)
    return Graph(**interface, block=block, types=reader.types, fed=fed, values=values, state=state)


def initialisers(programs: Iterable[Program]) -> dict[str, dict[str, Any]]:
    """How the variables of Programs begin, by name: `constant`, `uniform` or `gaussian` with its numbers, shape and dtype.

    Variables that begin in another way are left out; where several Programs initialise one, the first counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for program in programs:
        for operation in program.startup.global_block().ops:
            attributes = operation.attrs()
            name = attributes.get("parameter_name") or attributes.get("output_name")
            if name in program.state_names and name not in found:
                value = operation.operands()[0].source()
                found[name] = _initialiser(value) | {"shape": list(value.shape), "dtype": _dtype(value.dtype)}
    return {name: how for name, how in found.items() if "kind" in how}


def _initialiser(value: "paddle.pir.Value") -> dict[str, Any]:
    operation = value.get_defining_op()
    attributes = operation.attrs()
    if operation.name() == "pd_op.full":
        return {"kind": "constant", "value": attributes["value"]}
    if operation.name() == "pd_op.gaussian":
        return {"kind": "gaussian", "mean": attributes["mean"], "std": attributes["std"]}
    if operation.name() == "pd_op.uniform":
        _, low, high = (operand.source().get_defining_op().attrs()["value"] for operand in operation.operands())
        return {"kind": "uniform", "low": low, "high": high}
    return {}


class _Reader:
    """Numbers the values of one Program in the order in which they appear."""

    def __init__(self) -> None:
        self.types: dict[int, Type] = {}
        self._numbers: dict[Any, int] = {}
        self._variables: dict[str, int] = {}
        self._operations = 0

    def block(self, block: "paddle.pir.Block") -> Block:
        arguments = [self._number_of(value) for value in block.args()]
        return Block(arguments, [self._operation(operation) for operation in block.ops])

    def numbers_of(self, values: dict[str, "paddle.pir.Value"], program_name: str) -> dict[str, int]:
        foreign = [name for name, value in values.items() if value.id not in self._numbers]
        if foreign:
            raise EngineError(f"the Program '{program_name}' does not compute its outputs {', '.join(foreign)}")
        return {name: self._numbers[value.id] for name, value in values.items()}

    def _operation(self, operation: "paddle.pir.Operation") -> Operation:
        attributes = operation.attrs()
        if operation.name() == PARAMETER:
            # Layers of one Program may ask for one variable each by itself, as every nn.LSTM does for the state of its
            # dropout: to Paddle the name decides, and so all of them are one value.
            result = operation.results()[0]
            number = self._number_of(result)
            self._numbers[result.id] = self._variables.setdefault(attributes["parameter_name"], number)
        # Operations of other dialects (builtin, cf) and `while`/`if` have no table of operand names.
        named = operation.name().startswith("pd_op.") and operation.num_regions() == 0
        index, self._operations = self._operations, self._operations + 1
        return Operation(
            name=operation.name(),
            index=index,
            inputs=[self._number(value) for value in operation.operands_source()],
            outputs=[self._number(value) for value in operation.results()],
            input_names=list(operation.get_input_names()) if named else [],
            output_names=list(operation.get_output_names()) if named else [],
            attributes={name: _plain(value) for name, value in attributes.items() if name not in _NOT_ATTRIBUTES},
            blocks=[self.block(block) for block in operation.blocks()] if operation.num_regions() else [],
            source=_user_line(attributes.get("op_callstack", [])),
        )

    def _number(self, value: "paddle.pir.Value | None") -> int | None:
        return None if value is None or not value.initialized() else self._number_of(value)

    def _number_of(self, value: "paddle.pir.Value") -> int:
        if value.id not in self._numbers:
            number = self._numbers[value.id] = len(self._numbers)
            if value.is_dense_tensor_type():
                self.types[number] = Type(tuple(value.shape), _dtype(value.dtype))
        return self._numbers[value.id]


def _dtype(dtype: Any) -> str:
    return str(dtype).rpartition(".")[2]


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no infinity; float() reads this back
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (paddle.base.core.DataType, paddle.dtype)):
        return _dtype(getattr(value, "name", value)).lower()
    return str(value)


def _user_line(callstack: list[str]) -> str:
    """`FILE:LINE` of the innermost frame outside Paddle itself."""
    for frame in reversed(callstack):
        words = frame.strip().split('"')
        if frame.lstrip().startswith("File ") and len(words) == 3 and not words[1].startswith(_PADDLE_FOLDER):
            return f"{words[1]}:{words[2].split(',')[1].replace('line', '').strip()}"
    return ""
