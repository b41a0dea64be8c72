"""`.safetensors` files: arrays by name and, beside them, words by name (the format's metadata)."""

import os
from collections.abc import Mapping

from fluid import files
from fluid.errors import WeightsError

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save

_TYPES = {
    **{f"F{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype("bool"),
}


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a file; bfloat16, which NumPy does not have, as float32 of the same values.

    Raises WeightsError if the file is damaged or truncated, or holds a type that is not known here.
    """
    try:
        stored = deserialize(files.read_plain(path))
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        raise WeightsError(f"{path}: not a complete .safetensors file ({error}).") from error
    return {name: _array(item, f"{path}: {name}") for name, item in stored}


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The words of a file, without reading its arrays. Raises WeightsError if it is damaged."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError, MemoryError) as error:
        raise WeightsError(f"{path}: not a complete .safetensors file ({error}).") from error


def write(path: str | os.PathLike, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file whole or not at all; raises WeightsError where that cannot be."""
    dense = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}
    try:
        # Not save_file, which writes for the owner alone, whatever the umask.
        content = save(dense, metadata=None if metadata is None else dict(metadata))
    except SafetensorError as error:
        raise WeightsError(f"{path}: cannot be written ({error})") from error
    with files.whole(path, WeightsError) as unfinished:
        unfinished.write_bytes(content)


def _array(item: Mapping, where: str) -> np.ndarray:
    dtype, shape, data = item["dtype"], tuple(item["shape"]), item["data"]
    if dtype == "BF16":
        # The upper half of a float32.
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if dtype not in _TYPES:
        raise WeightsError(f"{where}: {dtype} is a data type that is not read here; save it as float32 or bfloat16.")
    try:
        return np.frombuffer(data, _TYPES[dtype]).reshape(shape)
    except ValueError as error:
        raise WeightsError(f"{where}: an impossible shape ({error}).") from None
