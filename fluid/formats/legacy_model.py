"""Inference models that Fluid saved in 2018-2020: reading them, running them, converting them to today's format.

A model is a ProgramDesc (`__model__`, `model` or `NAME.pdmodel`, protobuf) beside its parameters (one file a variable,
one combined file, or a pickled dictionary). Reading is pure Python and checks every name and size. Running and
converting hand checked copies to Paddle, in a process of its own: a model that Paddle cannot digest ends as an error
message, whatever it does to that process.

The schema is that of Fluid's framework.proto:

    ProgramDesc {1: blocks}
    BlockDesc   {1: index, 2: parent, 3: variables, 4: operators}
    VarDesc     {1: name, 2: VarType {1: type, 3: LoDTensorDesc {1: TensorDesc}}, 3: persistable}
    OpDesc      {1: inputs, 2: outputs, 3: type, 4: attributes}, its inputs and outputs {1: parameter, 2: arguments}
    Attr        {1: name, 2: type, 3: i, 4: f, 5: s, 6: ints, 7: floats, 8: strings, 10: b, 11: bools, 12: block, 13: l,
                 14: blocks, 15: longs}
"""

import contextlib
import itertools
import os
import struct
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from fluid import files, isolated
from fluid.errors import WeightsError
from fluid.formats import legacy, pdparams, wire

import numpy as np

Result = TypeVar("Result")

DENSE_TENSOR = 7  # VarType.LOD_TENSOR
INT, FLOAT, INTS, FLOATS, STRINGS, BOOLEANS, BLOCK, LONG, BLOCKS, LONGS = 0, 1, 3, 4, 5, 7, 8, 9, 10, 11
"""Types of attributes."""
_SCALAR_TO_LIST = {(INT, INTS): (3, 6), (INT, LONGS): (3, 15), (LONG, LONGS): (13, 15), (FLOAT, FLOATS): (4, 7)}
"""(stored attribute type, today's type) -> (field it is stored in, field it belongs in)."""

MAX_PROGRAM = 32 * 2**20
MAX_PARTS = 500_000
"""Fields of a program, each of which takes far more memory than its two bytes at least."""
_NESTED: dict[int, dict] = {1: {3: {2: {3: {1: {}}}}, 4: {1: {}, 2: {}, 4: {}}}}
"""The messages inside a ProgramDesc, by field."""


@dataclass
class Variable:
    """A variable of a Fluid program; -1 in the shape stands for the batch."""

    name: str
    type: int | None = None
    data_type: int | None = None
    shape: list[int] = field(default_factory=list)
    persistable: bool = False


@dataclass
class Operator:
    """An operator of a Fluid program: variable names by parameter, attribute values by name."""

    type: str = ""
    inputs: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, list[str]] = field(default_factory=dict)
    attributes: dict[str, object] = field(default_factory=dict)


@dataclass
class Block:
    """A block of a Fluid program: the main one, or the body of a loop or a condition."""

    parent: int = -1
    variables: dict[str, Variable] = field(default_factory=dict)
    operators: list[Operator] = field(default_factory=list)


@dataclass
class LegacyModel:
    """A saved inference model: its program, the names it is fed and fetched by, and its parameters."""

    program: bytes
    blocks: list[Block]
    feeds: list[str]
    fetches: list[str]
    weights: dict[str, np.ndarray]


def find_model(folder: str | os.PathLike) -> tuple[Path, Path | None] | None:
    """The program file of a folder that has one, and its combined or pickled parameters (None: one file a variable)."""
    folder = Path(folder)
    for program in (*(folder / name for name in legacy.PROGRAM_FILES), *sorted(folder.glob("*.pdmodel"))):
        if _is_program(program):
            parameters = (
                folder / "params",
                folder / "__params__",
                program.with_suffix(".pdiparams"),
                program.with_suffix(".pdparams"),
            )
            return program, next((file for file in parameters if file.is_file()), None)
    return None


def read_model(folder: str | os.PathLike) -> LegacyModel:
    """Read the inference model of a folder. Raises WeightsError if there is none, or it is damaged or incomplete."""
    found = find_model(folder)
    if found is None:
        raise WeightsError(f"{folder}: no Fluid inference model in it (a file __model__, model or NAME.pdmodel).")
    program_file, parameter_file = found
    if program_file.stat().st_size > MAX_PROGRAM:
        raise WeightsError(f"{program_file}: too large for a program.")
    program = program_file.read_bytes()
    try:
        blocks = parse_program(program)
    except (ValueError, struct.error) as error:
        raise WeightsError(f"{program_file}: not a readable Fluid program ({error}).") from error
    if not blocks or not blocks[0].operators:
        raise WeightsError(f"{program_file}: a Fluid program without operators.")
    operators, variables = blocks[0].operators, blocks[0].variables.values()
    feeds = [name for item in operators if item.type == "feed" for name in item.outputs.get("Out", [])]
    fetches = [name for item in operators if item.type == "fetch" for name in item.inputs.get("X", [])]
    parameters = {v.name: v for v in variables if v.persistable and v.type == DENSE_TENSOR}
    if parameter_file is None:
        weights = {name: legacy.read_tensor(legacy.variable_file(folder, name)) for name in parameters}
    elif parameter_file.suffix == ".pdparams" and not legacy.starts_like_record(parameter_file):
        weights = pdparams.read_pdparams(parameter_file)
    else:
        weights = legacy.read_combined(parameter_file, parameters)
    for name, variable in parameters.items():
        if name not in weights:
            raise WeightsError(f"{parameter_file}: the program's parameter {name} is not in it.")
        dtype, shape = weights[name].dtype, list(weights[name].shape)
        if shape != variable.shape or dtype != legacy.DATA_TYPES.get(variable.data_type):
            raise WeightsError(
                f"{folder}: {name} is {dtype.name} {shape} in its file, but the program declares {variable.shape} of data "
                f"type {variable.data_type}. The files do not belong together."
            )
    return LegacyModel(program, blocks, feeds, fetches, weights)


def run_model(folder: str | os.PathLike, feed: Mapping[str, np.ndarray], onednn: bool = False) -> dict[str, np.ndarray]:
    """Run a legacy inference model on the CPU with `paddle.inference`.

    Args:
        folder: the model's folder.
        feed: arrays by input name. If input NAME holds sequences, `NAME.lod` are their offsets [num_sequences + 1].
        onednn: use the oneDNN kernels (several times faster convolutions).

    Returns:
        Arrays by output name, and `NAME.lod` for outputs that are sequences.

    Raises:
        WeightsError: the model is damaged, or Paddle cannot run it; the feed does not fit its inputs.
    """
    model = _runnable(folder)
    _check_feed(model, feed)
    return _isolated(_run, model, dict(feed), onednn)


def convert_model(folder: str | os.PathLike, target: str | os.PathLike) -> list[Path]:
    """Write a legacy inference model as a current one: `inference.json` and `inference.pdiparams` in a new folder.

    Input and output names stay. Raises WeightsError if the model is damaged, Paddle cannot translate it, or `target` is
    taken.
    """
    model = _runnable(folder)
    with files.new_folder(target, WeightsError) as partial:
        _isolated(_translate, model, str(partial))
    return sorted(Path(target).iterdir())


def parse_program(data: bytes) -> list[Block]:
    """Parse a ProgramDesc. Raises ValueError where it is malformed, or has more parts than any model."""
    _without_parts(data, _NESTED, MAX_PARTS)
    return [_parse_block(value) for number, value in _messages(data, 1) if number == 1]


def repair(program: bytes, attribute_types: Mapping[tuple[str, str], int]) -> bytes:
    """Store attributes that have become lists since 2018 as lists; `reduce_mean.dim` was one integer.

    Args:
        program: a ProgramDesc.
        attribute_types: today's type of each (operator, attribute).
    """

    def in_attribute(operator: str, attribute: bytes) -> bytes:
        items = list(wire.fields(attribute))
        name = next(wire.bytes_in(value).decode() for number, _, value in items if number == 1)
        stored = next(wire.number_in(value) for number, _, value in items if number == 2)
        wanted = attribute_types.get((operator, name))
        if wanted is None or (stored, wanted) not in _SCALAR_TO_LIST:
            return attribute
        move = _SCALAR_TO_LIST[stored, wanted]
        return wire.encode((move[1] if n == move[0] else n, w, wanted if n == 2 else v) for n, w, v in items)

    def in_operator(operator: bytes) -> bytes:
        items = list(wire.fields(operator))
        kind = next(wire.bytes_in(value).decode() for number, _, value in items if number == 3)
        return wire.encode((n, w, in_attribute(kind, wire.bytes_in(v)) if n == 4 else v) for n, w, v in items)

    def in_block(block: bytes) -> bytes:
        return wire.encode((n, w, in_operator(wire.bytes_in(v)) if n == 4 else v) for n, w, v in wire.fields(block))

    return wire.encode((n, w, in_block(wire.bytes_in(v)) if n == 1 else v) for n, w, v in wire.fields(program))


def _is_program(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(1) == b"\x0a"  # field 1, length-delimited: the first block


def _messages(data: bytes, *numbers: int) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a message; those in `numbers` must be of that kind."""
    for number, wire_type, value in wire.fields(data):
        if wire_type == wire.BYTES:
            yield number, wire.bytes_in(value)
        elif number in numbers:
            raise ValueError(f"field {number} has wire type {wire_type}")


def _without_parts(data: bytes, nested: dict[int, dict], left: int) -> int:
    """How many parts are left to a program after those of a message. Raises ValueError if it is too many."""
    for number, wire_type, value in wire.fields(data):
        left -= 1
        if left < 0:
            raise ValueError(f"it has more than {MAX_PARTS:,} parts")
        if number in nested and wire_type == wire.BYTES:
            left = _without_parts(wire.bytes_in(value), nested[number], left)
    return left


def _parse_block(data: bytes) -> Block:
    block = Block()
    for number, wire_type, value in wire.fields(data):
        if number == 2 and wire_type == wire.VARINT:
            block.parent = wire.signed(wire.number_in(value))
    for number, value in _messages(data, 3, 4):
        if number == 3:
            variable = _parse_variable(value)
            block.variables[variable.name] = variable
        elif number == 4:
            block.operators.append(_parse_operator(value))
    return block


def _parse_variable(data: bytes) -> Variable:
    variable = Variable(name="")
    for number, wire_type, value in wire.fields(data):
        if number == 1 and wire_type == wire.BYTES:
            variable.name = wire.bytes_in(value).decode()
        elif number == 3 and wire_type == wire.VARINT:
            variable.persistable = bool(value)
        elif number == 2 and wire_type == wire.BYTES:
            _parse_type(wire.bytes_in(value), variable)
    if not variable.name:
        raise ValueError("a variable without a name")
    return variable


def _parse_type(data: bytes, variable: Variable) -> None:
    for number, wire_type, value in wire.fields(data):
        if number == 1 and wire_type == wire.VARINT:
            variable.type = wire.number_in(value)
        elif number == 3 and wire_type == wire.BYTES:
            for inner, tensor in _messages(wire.bytes_in(value)):
                if inner == 1:
                    variable.data_type, variable.shape = legacy.parse_tensor_desc(tensor)


def _parse_operator(data: bytes) -> Operator:
    operator = Operator()
    for number, value in _messages(data, 1, 2, 3, 4):
        if number == 3:
            operator.type = value.decode()
        elif number in (1, 2):
            parameter, arguments = "", []
            for part, text in _messages(value, 1, 2):
                if part == 1:
                    parameter = text.decode()
                elif part == 2:
                    arguments.append(text.decode())
            (operator.inputs if number == 1 else operator.outputs)[parameter] = arguments
        elif number == 4:
            name, content = _parse_attribute(value)
            operator.attributes[name] = content
    if not operator.type:
        raise ValueError("an operator without a type")
    return operator


def _parse_attribute(data: bytes) -> tuple[str, object]:
    name, kind = "", None
    single: object = None
    many: list[object] = []
    for number, wire_type, value in wire.fields(data):
        if number == 1:
            name = wire.bytes_in(value).decode()
        elif number == 2:
            kind = value
        elif number in (6, 11, 14, 15):
            many += wire.integers(wire_type, value)
        elif number == 7:
            many += [x for (x,) in struct.iter_unpack("<f", wire.bytes_in(value))]
        elif number == 8 and wire_type == wire.BYTES:
            many.append(wire.bytes_in(value).decode(errors="replace"))
        elif wire_type == wire.VARINT:
            single = wire.signed(wire.number_in(value))
        elif wire_type == wire.FIXED32:
            (single,) = struct.unpack("<f", wire.bytes_in(value))
        elif number == 5 and wire_type == wire.BYTES:
            single = wire.bytes_in(value).decode(errors="replace")
    if not name or kind is None:
        raise ValueError("an attribute without a name or a type")
    return name, many if kind in (INTS, FLOATS, STRINGS, BOOLEANS, BLOCKS, LONGS) else single


def _runnable(folder: str | os.PathLike) -> LegacyModel:
    model = read_model(folder)
    if not model.feeds or not model.fetches:
        raise WeightsError(
            f"{folder}: the program says neither what it is fed nor what it returns; it is not an inference model."
        )
    known = {"@EMPTY@", *(name for block in model.blocks for name in block.variables)}
    for index, block in enumerate(model.blocks):
        # A block that is its own ancestor makes Paddle search for ever.
        if not (block.parent == -1 if index == 0 else 0 <= block.parent < index):
            raise WeightsError(f"{folder}: the program's block {index} says it belongs to block {block.parent}.")
        for operator in block.operators:
            used = itertools.chain(*operator.inputs.values(), *operator.outputs.values())
            if undeclared := [name for name in used if name not in known]:
                raise WeightsError(
                    f"{folder}: operator {operator.type} uses {undeclared[0]}, which the program does not declare."
                )
            for inner in (operator.attributes.get(name) for name in ("sub_block", "true_block", "false_block")):
                if inner is not None and inner not in range(index + 1, len(model.blocks)):
                    raise WeightsError(
                        f"{folder}: operator {operator.type} refers to block {inner}, which is not inside."
                    )
    return model


def _check_feed(model: LegacyModel, feed: Mapping[str, np.ndarray]) -> None:
    expected = {name: model.blocks[0].variables[name] for name in model.feeds}
    given = {name for name in feed if not name.endswith(".lod")}
    if given != set(expected):
        inputs = ", ".join(f"{v.name} {v.shape}" for v in expected.values())
        raise WeightsError(f"The feed holds {', '.join(sorted(given)) or 'nothing'}; the model's inputs are {inputs}.")
    for name, variable in expected.items():
        dtype, shape = legacy.DATA_TYPES.get(variable.data_type), feed[name].shape
        if dtype is not None and not np.can_cast(feed[name].dtype, dtype, "same_kind"):
            raise WeightsError(f"The feed's {name} is {feed[name].dtype}, the model needs {dtype}.")
        fits = len(shape) == len(variable.shape) and all(
            want in (-1, have) for have, want in zip(shape, variable.shape, strict=True)
        )
        if not fits:
            raise WeightsError(
                f"The feed's {name} has shape {list(shape)}, the model needs {variable.shape} (-1: any)."
            )
        lod = feed.get(f"{name}.lod")
        if lod is not None and not _rises(lod, shape[0]):
            raise WeightsError(f"The feed's {name}.lod must rise from 0 to the {shape[0]} rows of {name}.")


def _rises(lod: np.ndarray, rows: int) -> bool:
    """Whether these are the offsets of sequences that `rows` are made of."""
    return lod.ndim == 1 and lod.size > 1 and lod[0] == 0 and lod[-1] == rows and bool(np.all(np.diff(lod) >= 0))


def _isolated(function: Callable[..., Result], *arguments: object) -> Result:
    """Call a function in a fresh process and return its result; a crash there becomes a WeightsError here."""
    try:
        return isolated.call(function, *arguments)
    except isolated.Crashed as crash:
        raise WeightsError(f"Paddle crashed on this model (exit code {crash}); it cannot be used.") from None
    except (RuntimeError, WeightsError) as error:
        raise WeightsError(f"Paddle cannot use this model: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Paddle's C++ errors put the reason behind a stack trace, on the line after a heading.
    for heading, line in zip(lines, lines[1:], strict=False):
        if heading.startswith("Error Message Summary"):
            return lines[min(lines.index(heading) + 2, len(lines) - 1)] if line.startswith("---") else line
    return lines[0] if lines else type(error).__name__


def _current_program(model: LegacyModel) -> bytes:
    from paddle.base.framework import get_all_op_protos

    protos = {proto.type: proto for proto in get_all_op_protos()}
    unknown = sorted({o.type for block in model.blocks for o in block.operators} - set(protos) - {"feed", "fetch"})
    if unknown:
        raise WeightsError(f"it has operators that Paddle no longer knows: {', '.join(unknown)}")
    return repair(model.program, {(name, a.name): a.type for name, proto in protos.items() for a in proto.attrs})


def _run(model: LegacyModel, feed: dict[str, np.ndarray], onednn: bool) -> dict[str, np.ndarray]:
    warnings.filterwarnings("ignore")
    from paddle import inference

    with files.scratch("legacy-model") as folder:
        program, parameters = Path(folder, "model"), Path(folder, "params")
        program.write_bytes(_current_program(model))
        legacy.write_combined(parameters, model.weights)
        config = inference.Config(str(program), str(parameters))
        config.disable_gpu()
        config.disable_glog_info()
        (config.enable_mkldnn if onednn else config.disable_mkldnn)()
        predictor = inference.create_predictor(config)
        for name in model.feeds:
            dtype = legacy.DATA_TYPES.get(model.blocks[0].variables[name].data_type, feed[name].dtype)
            handle = predictor.get_input_handle(name)
            handle.copy_from_cpu(np.ascontiguousarray(feed[name], dtype=dtype))
            if f"{name}.lod" in feed:
                handle.set_lod([feed[f"{name}.lod"].tolist()])
        predictor.run()
        outputs = {}
        for name, label in zip(predictor.get_output_names(), model.fetches, strict=True):
            handle = predictor.get_output_handle(name)
            outputs[label] = handle.copy_to_cpu()
            if handle.lod():
                outputs[f"{label}.lod"] = np.array(handle.lod()[-1])
        return outputs


def _translate(model: LegacyModel, folder: str) -> None:
    """Write the model in Paddle's present format and see whether Paddle loads it."""
    warnings.filterwarnings("ignore")
    import paddle
    from paddle import inference
    from paddle.pir_utils import OldIrGuard

    paddle.enable_static()
    with OldIrGuard(), open(os.devnull, "w") as quiet, contextlib.redirect_stdout(quiet):
        program = paddle.static.Program.parse_from_string(_current_program(model))
        for block in program.blocks:
            for operator in block.ops:
                # Attributes that did not exist when the program was written get their defaults.
                operator.desc.check_attrs()
    translated = paddle.pir.translate_to_pir(program.desc)
    program_file, parameter_file = (str(Path(folder, f"inference.{suffix}")) for suffix in ("json", "pdiparams"))
    paddle.core.serialize_pir_program(translated, program_file, True, False, True)
    operators = translated.global_block().ops
    names = [operator.attrs()["parameter_name"] for operator in operators if operator.name() == "builtin.parameter"]
    legacy.write_combined(parameter_file, {name: model.weights[name] for name in names})
    config = inference.Config(program_file, parameter_file)
    config.disable_gpu()
    config.disable_glog_info()
    inference.create_predictor(config)
