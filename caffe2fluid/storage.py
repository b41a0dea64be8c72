"""Writes the weights of a converted net: safetensors, a Fluid folder (one file a variable), an archive of arrays."""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .errors import ConvertError
from .layers.node import PIECE, Parameter


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of writing, which names no file (that of a full disk), names ``path``."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def replaced_folder(path: Path, ours: Sequence[str], overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its place when the block ends well, and leaves no trace if not.

    ``ours`` are the names of what this script writes there; an existing folder must have the last of them, the mark of an
    earlier result, or be empty. What else it holds stays. Raises ConvertError otherwise, and unless ``overwrite`` for
    every earlier result.
    """
    path = path.resolve()
    if path.exists() and (not path.is_dir() or (any(path.iterdir()) and not (path / ours[-1]).is_file())):
        raise ConvertError(f"{path} exists and is no earlier result of this script; choose another folder or remove it")
    if path.exists() and any(path.iterdir()) and not overwrite:
        raise ConvertError(
            f"{path} holds an earlier result, perhaps with changes of yours: add --overwrite to write "
            f"{', '.join(ours)} again (other files stay), or choose another folder"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _partial(path)
    temporary.mkdir()
    try:
        with naming(path):
            yield temporary
        if path.exists():
            _exchange(temporary, path, ours)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends well, and leaves no trace if not.

    Raises ConvertError where ``path`` is a device or a pipe, whose place no file may take.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConvertError(f"{path} is a device or a pipe; give the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _partial(path)
    try:
        with naming(path):
            yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _partial(path: Path) -> Path:
    """The name of ``path`` until it is whole; what killed processes left under such names of it is deleted."""
    start = f".{path.name}.partial-"
    for left in [left for left in path.parent.iterdir() if left.name.startswith(start)]:
        process = left.name.removeprefix(start).partition(".")[0]
        # In a container every process may have the number of the one that was killed before it.
        if process.isdecimal() and (int(process) == os.getpid() or not _is_alive(int(process))):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f"{start}{os.getpid()}")


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _exchange(new: Path, path: Path, ours: Sequence[str]) -> None:
    """Puts the entries of ``new`` into ``path`` in the place of ``ours``; where that fails, all is as before."""
    old = new.with_name(f"{new.name}.old")
    old.mkdir()
    moved: list[tuple[Path, Path]] = []
    try:
        for name in ours:
            if (path / name).exists():
                moved.append((path / name, old / name))
                os.replace(*moved[-1])
        for entry in sorted(new.iterdir()):
            moved.append((entry, path / entry.name))
            os.replace(*moved[-1])
    except BaseException:
        for source, target in reversed(moved):
            if target.exists() and not source.exists():
                os.replace(target, source)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_safetensors(path: Path, parameters: dict[str, Parameter], release: Callable[[], None]) -> None:
    """Streams float32 arrays piece by piece, so that a file of any size needs little memory.

    ``release`` gives back what reading the pieces took. Format: https://huggingface.co/docs/safetensors
    """
    header, offset = {}, 0
    for name, parameter in parameters.items():
        size = 4 * math.prod(parameter.shape)
        header[name] = {"dtype": "F32", "shape": parameter.shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for parameter in parameters.values():
            for piece in parameter.pieces():
                file.write(np.ascontiguousarray(piece, "<f4"))
            release()


_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Arrays by name of a .safetensors file (mapped, not loaded) or of an archive of arrays. Raises ConvertError."""
    if not path.is_file():
        raise ConvertError(f"{path} does not exist; give the weights with --weights, or convert with --caffemodel")
    if path.suffix != ".safetensors":
        return read_arrays(path)
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 1 << 28)))
        start, result = 8 + length, {}
        for name, entry in header.items():
            if name != "__metadata__":
                first, shape = entry["data_offsets"][0], tuple(entry["shape"])
                dtype = np.dtype(_DTYPES[entry["dtype"]])
                empty = math.prod(shape) == 0
                result[name] = np.zeros(shape, dtype) if empty else np.memmap(path, dtype, "r", start + first, shape)
        return result
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error, OSError) as error:
        raise ConvertError(f"{path} is no whole file of safetensors in F32, F16 or F64 ({error})") from None


def write_combined(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """The parameters of an inference model: one after the other, sorted by name, each as Fluid kept it."""
    with open(path, "wb") as file:
        for name in sorted(arrays):
            _write_variable(file, arrays[name])


def write_fluid_folder(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """One file a variable in the format that Fluid's ``save_vars`` wrote."""
    path.mkdir(parents=True)
    for name, array in arrays.items():
        with open(path / name, "wb") as file:
            _write_variable(file, array)


def _write_variable(file: BinaryIO, array: np.ndarray) -> None:
    """Version, LoD, TensorDesc, data. A mapped array is copied by pieces and leaves the memory again."""
    dims = b"".join(b"\x10" + _varint(dim) for dim in array.shape)
    description = b"\x08\x05" + dims  # data_type FP32, then each dimension
    file.write(struct.pack("<IQIi", 0, 0, 0, len(description)) + description)
    flat = array.reshape(-1)
    for start in range(0, flat.size, PIECE):
        file.write(np.ascontiguousarray(flat[start : start + PIECE], "<f4"))
    mapped = getattr(array, "_mmap", None)
    if mapped is not None and hasattr(mapped, "madvise"):
        mapped.madvise(mmap.MADV_DONTNEED)


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises ConvertError; never executes a pickle."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise ConvertError(f"{path} does not exist") from None
    except Exception as error:
        raise ConvertError(f"{path} is no archive of arrays as np.savez writes it ({error})") from None


def write_arrays(path: Path, parameters: dict[str, Parameter]) -> None:
    """An archive for ``np.load``, without pickle whatever its file name."""
    with open(path, "wb") as file:
        np.savez(file, **{name: parameter.load() for name, parameter in parameters.items()})


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
