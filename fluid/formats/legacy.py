"""Parameter files of PaddlePaddle Fluid (2018-2020): reading and writing with numpy alone.

A parameter is one LoDTensor record (little-endian):

    uint32 version = 0 | uint64 n, then n times (uint64 size, size bytes of sequence offsets)
    uint32 tensor version = 0 | int32 size of the description
    description: protobuf TensorDesc {1: data type, 2: dimensions} | the elements in C order

Records lie in a folder with one file a variable (the file name is the variable's name; slashes make sub-folders), or
one after the other without names in one combined file, in lexicographic order of the names.

Every size a file states is compared with what the file holds before memory is asked for, so a damaged or hostile file
costs one WeightsError and nothing else.
"""

import contextlib
import math
import os
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from fluid import files
from fluid.errors import WeightsError
from fluid.formats import wire

import numpy as np

DATA_TYPES: dict[int | None, np.dtype] = {
    0: np.dtype("bool"),
    1: np.dtype("<i2"),
    2: np.dtype("<i4"),
    3: np.dtype("<i8"),
    4: np.dtype("<f2"),
    5: np.dtype("<f4"),
    6: np.dtype("<f8"),
    20: np.dtype("u1"),
    21: np.dtype("i1"),
}
"""VarType.Type of Fluid's framework.proto -> numpy."""

MAX_RANK = 9  # the limit of Fluid's own DDim
MAX_LOD_LEVELS = 16
MAX_DESCRIPTION = 4096

PROGRAM_FILES = ("__model__", "model")
"""Names under which a folder holds the ProgramDesc of an inference model beside its parameters."""

_ACCUMULATORS = (
    "velocity|momentum|mean_square|mean_grad|moment|moment1|moment2|moment2_max|beta1_pow_acc|beta2_pow_acc|inf_norm"
    "|_avg_squared_grad|_avg_squared_update|avg_squared_grad|avg_squared_update|squared|linear"
    "|sum_1|sum_2|sum_3|num_accumulates|old_num_accumulates|num_updates|fp32_master"
)
_ACCUMULATOR = re.compile(rf"(?P<parameter>.+?)_(?:{_ACCUMULATORS})_\d+$")
_OWN = re.compile(r"(?P<parameter>.+)_(?:ema|gradient_sum)$")  # of this project's checkpoints
_COUNTER = re.compile(r"learning_rate_\d+$|@.*@$|(?:momentum|beta\d_pow_acc)_\d+$")


def is_optimizer_state(name: str, names: Collection[str]) -> bool:
    """Whether a variable is what an optimizer remembers (velocity, moments, learning rate) rather than a weight.

    An accumulator is recognised by its suffix only where the parameter it belongs to is in `names` as well.
    """
    if _COUNTER.match(name):
        return True
    match = _ACCUMULATOR.match(name) or _OWN.match(name)
    return match is not None and match["parameter"] in names


def read_tensor(path: str | os.PathLike) -> np.ndarray:
    """Read a file that holds exactly one record. Raises WeightsError."""
    with _open(path) as (file, size):
        array = _read_record(file, size, f"{path}")
        if file.tell() != size:
            raise WeightsError(
                f"{path}: {size - file.tell()} bytes follow the first array. If this is a combined parameter file, "
                "the names of its variables are needed: give the folder that also holds its __model__ or model file."
            )
    return array


def read_folder(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read a folder of one file a variable, sub-folders included. Raises WeightsError.

    Optimizer state is left out unread. Text files (a README, a label list), a ProgramDesc and what desktop systems
    leave behind are not variables.
    """
    variables = {name: file for name, file in _files(path) if _may_be_variable(name, file)}
    names = [name for name in variables if not is_optimizer_state(name, variables)]
    if not names:
        raise WeightsError(f"{path}: no Fluid parameter file in this folder.")
    return {name: read_tensor(variables[name]) for name in names}


def read_combined(path: str | os.PathLike, names: Collection[str]) -> dict[str, np.ndarray]:
    """Read a combined file whose variables are `names` (in any order: the file is sorted by name).

    Raises WeightsError.
    """
    weights: dict[str, np.ndarray] = {}
    with _open(path) as (file, size):
        for name in sorted(names):
            if file.tell() == size:
                raise WeightsError(
                    f"{path}: holds {len(weights)} arrays, {len(names)} are expected (the next is {name})."
                )
            weights[name] = _read_record(file, size, f"{path}: {name}")
        if file.tell() != size:
            raise WeightsError(
                f"{path}: more arrays than the {len(names)} expected ({size - file.tell()} bytes are left)."
            )
    return weights


def write_tensor(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write one record, byte for byte as Fluid did. Raises WeightsError for a data type Fluid's files do not have."""
    write_combined(path, {os.fspath(path): array})


def write_folder(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Write one file a variable into a new folder, complete or not at all. Raises WeightsError."""
    targets = {name: variable_file(path, name).relative_to(path) for name in weights}
    with files.new_folder(path, WeightsError) as partial:
        for name, array in weights.items():
            target = partial / targets[name]
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as file:
                _write_record(file, array, f"{path}: {name}")


def write_combined(path: str | os.PathLike, weights: Mapping[str, np.ndarray]) -> None:
    """Write a combined file: records in lexicographic order of the names, without the names. Raises WeightsError."""
    with files.whole(path, WeightsError) as unfinished, open(unfinished, "wb") as file:
        for name in sorted(weights):
            _write_record(file, weights[name], name)


def variable_file(folder: str | os.PathLike, name: str) -> Path:
    """The file of a variable in a Fluid folder. Raises WeightsError for a name that would lead out of the folder."""
    parts = PurePosixPath(name).parts
    leads_out = not parts or name.startswith("/") or ".." in parts
    if leads_out or "\0" in name or "\\" in name or str(PurePosixPath(name)) != name:
        raise WeightsError(f"{folder}: a variable named {name!r} cannot be a file of a Fluid folder.")
    if max(len(part.encode()) for part in parts) > 255:
        raise WeightsError(f"{folder}: a variable's name is longer than a file name can be: {name[:80]}...")
    return Path(folder, name)


def parse_tensor_desc(data: bytes) -> tuple[int | None, list[int]]:
    """The data type number and the dimensions of a TensorDesc message. Raises ValueError where it is malformed."""
    data_type: int | None = None
    shape: list[int] = []
    for number, wire_type, value in wire.fields(data):
        if number == 1 and wire_type == wire.VARINT:
            data_type = wire.number_in(value)
        elif number == 2:
            shape += wire.integers(wire_type, value)
    return data_type, shape


def starts_like_record(path: str | os.PathLike) -> bool:
    """Whether a file begins as a record does: version 0, a small number of LoD levels, and room for a header."""
    with _open(path) as (file, size):
        head = file.read(12)
    if size < 20:
        return False
    version, levels = struct.unpack("<IQ", head)
    return version == 0 and levels <= MAX_LOD_LEVELS


@contextlib.contextmanager
def _open(path: str | os.PathLike) -> Iterator[tuple[BinaryIO, int]]:
    try:
        with files.open_plain(path) as file:
            yield file, os.fstat(file.fileno()).st_size
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _read_record(file: BinaryIO, size: int, where: str) -> np.ndarray:
    def take(layout: str) -> tuple:
        data = file.read(struct.calcsize(layout))
        if len(data) < struct.calcsize(layout):
            raise WeightsError(
                f"{where}: the file ends inside a header; it is truncated or not a Fluid parameter file."
            )
        return struct.unpack(layout, data)

    version, levels = take("<IQ")
    if version != 0 or levels > MAX_LOD_LEVELS:
        raise WeightsError(f"{where}: not a Fluid parameter file (version {version}, {levels} LoD levels).")
    for _ in range(levels):
        (num_bytes,) = take("<Q")
        if num_bytes > size - file.tell():
            raise WeightsError(f"{where}: the file ends inside its sequence offsets; it is truncated or damaged.")
        file.seek(num_bytes, os.SEEK_CUR)
    version, description_size = take("<Ii")
    if version != 0 or not 0 < description_size <= MAX_DESCRIPTION:
        raise WeightsError(
            f"{where}: damaged header (tensor version {version}, description of {description_size} bytes)."
        )
    try:
        data_type, shape = parse_tensor_desc(file.read(description_size))
    except ValueError as error:
        raise WeightsError(f"{where}: damaged tensor description ({error}).") from error
    if data_type not in DATA_TYPES:
        raise WeightsError(f"{where}: data type {data_type} is not one that Fluid's parameters have.")
    dtype = DATA_TYPES[data_type]
    if len(shape) > MAX_RANK or any(dimension < 1 for dimension in shape):
        raise WeightsError(f"{where}: impossible shape {shape}.")
    count = math.prod(shape)
    left = size - file.tell()
    if count * dtype.itemsize > left:
        raise WeightsError(
            f"{where}: shape {shape} of {dtype.name} needs {count * dtype.itemsize} bytes, the file has {left} left; "
            "it is truncated."
        )
    return np.fromfile(file, dtype, count).reshape(shape)


def _write_record(file: BinaryIO, array: np.ndarray, where: str) -> None:
    array = np.asarray(array)
    data_type = next((number for number, dtype in DATA_TYPES.items() if dtype == array.dtype), None)
    if data_type is None or not array.size:
        raise WeightsError(f"{where}: {array.dtype} {list(array.shape)} cannot be stored in a Fluid parameter file.")
    dimensions = [(2, wire.VARINT, dimension) for dimension in array.shape]
    description = wire.encode([(1, wire.VARINT, data_type), *dimensions])
    file.write(struct.pack("<IQIi", 0, 0, 0, len(description)) + description)
    file.write(np.ascontiguousarray(array, dtype=DATA_TYPES[data_type]).tobytes())


def _files(folder: str | os.PathLike) -> Iterator[tuple[str, Path]]:
    folder = Path(folder)
    for parent, folders, names in os.walk(folder, onerror=_raise_unreadable):
        folders[:] = sorted(name for name in folders if name != "__MACOSX")
        for name in sorted(names):
            file = Path(parent, name)
            yield file.relative_to(folder).as_posix(), file


def _raise_unreadable(error: OSError) -> None:
    raise WeightsError(f"{error.filename}: cannot be read ({error.strerror}).") from error


def _may_be_variable(name: str, file: Path) -> bool:
    if PurePosixPath(name).name.startswith((".DS_Store", "._")) or name in PROGRAM_FILES:
        return False
    with _open(file) as (stream, size):
        head = stream.read(64)
    # A record has zero bytes in its first 16; text has none. An empty file is a variable that was never completely
    # written.
    return size == 0 or b"\0" in head
