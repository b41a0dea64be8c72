"""The weights behind golden outputs of historical networks, which Fluid 1.8.5 computed: functions of a variable's name.

They are of a size that keeps signals alive through deep networks.
"""

import zlib
from collections.abc import Sequence

import numpy as np


def golden_value(name: str, shape: Sequence[int], slot: str = "") -> np.ndarray:
    """A variable's value; `slot` is Scale, Bias, Mean or Variance for those of a batch normalisation."""
    noise = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    if slot == "Variance":
        return (0.5 + noise.rand(*shape)).astype(np.float32)
    array = noise.randn(*shape)
    if slot == "Scale":
        array = 0.5 + 0.05 * array
    elif len(shape) == 1:
        array = 0.1 * array
    elif len(shape) == 2:
        array = array * np.sqrt(1.0 / shape[0])
    else:
        array = array * np.sqrt(2.0 / np.prod(shape[1:]))
    return array.astype(np.float32)
