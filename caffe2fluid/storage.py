"""Writes the weights of a converted net: safetensors, a Fluid folder (one file a variable), an archive of arrays."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .errors import ConvertError
from .layers.node import Parameter


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
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            _exchange(temporary, path, ours)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exchange(new: Path, path: Path, ours: Sequence[str]) -> None:
    """Puts the entries of ``new`` into ``path`` in the place of ``ours``; where that fails, all is as before."""
    old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
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


def write_safetensors(path: Path, parameters: dict[str, Parameter]) -> None:
    """Streams float32 arrays one by one, so that a file of any size needs the memory of its largest array.

    Format: https://huggingface.co/docs/safetensors
    """
    header, offset = {}, 0
    for name, parameter in parameters.items():
        size = 4 * int(np.prod(parameter.shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": parameter.shape, "data_offsets": [offset, offset + size]}
        offset += size
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for parameter in parameters.values():
            parameter.load().astype("<f4", copy=False).tofile(file)


def write_fluid_folder(path: Path, parameters: dict[str, Parameter]) -> None:
    """One file a variable in the format that Fluid's ``save_vars`` wrote: version, LoD, TensorDesc, data."""
    path.mkdir(parents=True)
    for name, parameter in parameters.items():
        dims = b"".join(b"\x10" + _varint(dim) for dim in parameter.shape)
        description = b"\x08\x05" + dims  # data_type FP32, then each dimension
        header = struct.pack("<IQIi", 0, 0, 0, len(description)) + description
        with open(path / name, "wb") as file:
            file.write(header)
            parameter.load().astype("<f4", copy=False).tofile(file)


def write_arrays(path: Path, parameters: dict[str, Parameter]) -> None:
    """An archive for ``np.load``, without pickle whatever its file name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            np.savez(file, **{name: parameter.load() for name, parameter in parameters.items()})
            os.chmod(file.name, 0o644)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])
