"""Arrays in fewer bytes without loss: zlib's deflate (RFC 1950) over an array's little-endian bytes, those of one place together,
all first bytes of its numbers and then all second ones.

Weights repeat nothing, so what deflate finds is that small numbers are more frequent; Z_FILTERED is its way for such data.
"""

import math
import zlib
from collections.abc import Sequence

import numpy as np

DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("int8", "float16", "float32")}
"""What is stored so, by name."""


def deflate(array: np.ndarray) -> np.ndarray:
    """[bytes] uint8. `array` is of one of DTYPES and not empty."""
    dtype = DTYPES[array.dtype.name]
    data = np.ascontiguousarray(array, dtype).reshape(-1, 1).view(np.uint8).T.tobytes()
    deflating = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL + 1, zlib.Z_FILTERED)
    return np.frombuffer(deflating.compress(data) + deflating.flush(), np.uint8)


def inflate(data: np.ndarray, dtype: str, shape: Sequence[int]) -> np.ndarray:
    """The array whose `deflate` is `data`.

    Takes no more memory than the data make, whatever `shape` claims. Raises ValueError if that is not the array's size, or the
    data are damaged.
    """
    if dtype not in DTYPES or not all(type(length) is int and length > 0 for length in shape):
        raise ValueError(f"{dtype} {shape} is not what is stored so")
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if size > 1032 * data.size:  # deflate's best
        raise ValueError(f"{data.size} bytes cannot make {size}")
    inflating = zlib.decompressobj()
    try:
        whole = inflating.decompress(data.tobytes(), size) + inflating.decompress(inflating.unconsumed_tail, 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(whole) != size or not inflating.eof or inflating.unused_data:
        raise ValueError(f"not the {size} bytes that it should be")
    ranks = np.frombuffer(whole, np.uint8).reshape(DTYPES[dtype].itemsize, -1)
    return np.ascontiguousarray(ranks.T).view(DTYPES[dtype]).reshape(shape)
