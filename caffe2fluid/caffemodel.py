"""Reads weights from Caffe's binary files (.caffemodel, .binaryproto) without protobuf.

Only names, types and blobs are read; the structure of a net comes from its prototxt, because the numbers of the other
fields differ between forks. The file is mapped, not loaded: arrays are views of it and cost nothing until used.

Wire format: https://protobuf.dev/programming-guides/encoding/; field numbers: BVLC caffe.proto and, for the raw blobs
that NVIDIA's fork and OpenCV write, NVCaffe's.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .errors import ConvertError, check_is_file_itself

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_AXES = 32  # Caffe's kMaxBlobAxes
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}

# V1LayerParameter.LayerType: the numbers in old binary files, the names in old prototxt files.
V1_TYPES = {
    35: ("ABSVAL", "AbsVal"),
    1: ("ACCURACY", "Accuracy"),
    30: ("ARGMAX", "ArgMax"),
    2: ("BNLL", "BNLL"),
    3: ("CONCAT", "Concat"),
    37: ("CONTRASTIVE_LOSS", "ContrastiveLoss"),
    4: ("CONVOLUTION", "Convolution"),
    5: ("DATA", "Data"),
    39: ("DECONVOLUTION", "Deconvolution"),
    6: ("DROPOUT", "Dropout"),
    32: ("DUMMY_DATA", "DummyData"),
    7: ("EUCLIDEAN_LOSS", "EuclideanLoss"),
    25: ("ELTWISE", "Eltwise"),
    38: ("EXP", "Exp"),
    8: ("FLATTEN", "Flatten"),
    9: ("HDF5_DATA", "HDF5Data"),
    10: ("HDF5_OUTPUT", "HDF5Output"),
    28: ("HINGE_LOSS", "HingeLoss"),
    11: ("IM2COL", "Im2col"),
    12: ("IMAGE_DATA", "ImageData"),
    13: ("INFOGAIN_LOSS", "InfogainLoss"),
    14: ("INNER_PRODUCT", "InnerProduct"),
    15: ("LRN", "LRN"),
    29: ("MEMORY_DATA", "MemoryData"),
    16: ("MULTINOMIAL_LOGISTIC_LOSS", "MultinomialLogisticLoss"),
    34: ("MVN", "MVN"),
    17: ("POOLING", "Pooling"),
    26: ("POWER", "Power"),
    18: ("RELU", "ReLU"),
    19: ("SIGMOID", "Sigmoid"),
    27: ("SIGMOID_CROSS_ENTROPY_LOSS", "SigmoidCrossEntropyLoss"),
    36: ("SILENCE", "Silence"),
    20: ("SOFTMAX", "Softmax"),
    21: ("SOFTMAX_LOSS", "SoftmaxWithLoss"),
    22: ("SPLIT", "Split"),
    33: ("SLICE", "Slice"),
    23: ("TANH", "TanH"),
    24: ("WINDOW_DATA", "WindowData"),
    31: ("THRESHOLD", "Threshold"),
}


@dataclass
class LayerWeights:
    """One layer of a .caffemodel: its blobs have the shape in the file, dtype float16, float32 or float64."""

    name: str
    type: str
    blobs: list[np.ndarray] = field(default_factory=list)


class Caffemodel(dict[str, LayerWeights]):
    """Layers with blobs by name; of those that are called alike, whose names are ``repeated``, the last one."""

    def __init__(self, data: mmap.mmap):
        super().__init__()
        self.repeated: set[str] = set()
        self._data = data

    def release(self) -> None:
        """Gives back the memory that looking at the blobs took; they are read from the file again when needed."""
        if hasattr(self._data, "madvise"):
            self._data.madvise(mmap.MADV_DONTNEED)


def read_caffemodel(path: str | Path) -> Caffemodel:
    """Reads all layers that have blobs, by name (V0, V1 and current format).

    Raises ConvertError where the file is no such file, is cut short, or contradicts itself.
    """
    reader = _Reader(path)
    layers = Caffemodel(reader.data)
    count = 0
    for number, wire, value in reader.fields(0, reader.size):
        if wire == BYTES and number in (2, 100):
            count += 1
            layer = reader.layer(number == 2, *value)
            if layer.blobs and layer.name in layers:
                layers.repeated.add(layer.name)
            if layer.blobs:
                layers[layer.name] = layer
    if count == 0:
        raise ConvertError(f"{path}: no layers in it; is this a .caffemodel?")
    return layers


def read_mean(path: str | Path) -> np.ndarray:
    """Reads a mean image (.binaryproto): [C, H, W], float32."""
    reader = _Reader(path)
    mean = reader.blob(0, reader.size)
    shape = mean.shape[1:] if mean.ndim == 4 and mean.shape[0] == 1 else mean.shape
    if len(shape) != 3:
        raise ConvertError(f"{path}: a mean image has the shape [C, H, W], this has {list(mean.shape)}")
    return mean.reshape(shape).astype(np.float32)


class _Reader:
    def __init__(self, path: str | Path):
        self.path = path
        with open(path, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConvertError(f"{path}: a pipe or a device; it is mapped into memory, so write it to a file first")
            self.size = file.seek(0, 2)
            if self.size == 0:
                raise ConvertError(f"{path}: the file is empty")
            file.seek(0)
            start = file.read(64)
            check_is_file_itself(path, start)
            if start.startswith(b"\x89HDF"):
                raise ConvertError(
                    f"{path}: a snapshot in HDF5; save it as .caffemodel with Caffe's snapshot_format: BINARYPROTO"
                )
            self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def error(self, position: int, what: str) -> ConvertError:
        return ConvertError(
            f"{self.path}: {what} (at byte {position:,} of {self.size:,}); the file is damaged or no Caffe file"
        )

    def varint(self, position: int, end: int) -> tuple[int, int]:
        result = shift = 0
        while position < end:
            byte = self.data[position]
            position += 1
            result |= (byte & 127) << shift
            if byte < 128:
                return result, position
            shift += 7
            if shift > 63:
                raise self.error(position, "a number of more than 10 bytes")
        raise self.error(position, "cut off inside a number")

    def fields(self, position: int, end: int) -> Iterator[tuple[int, int, int | tuple[int, int]]]:
        """Yields (field number, wire type, value): an int, or (start, end) for all that has a length."""
        while position < end:
            key, position = self.varint(position, end)
            number, wire = key >> 3, key & 7
            if number == 0:
                raise self.error(position, "a field numbered 0, which no file of Caffe has")
            if wire == VARINT:
                value, position = self.varint(position, end)
                yield number, wire, value
                continue
            if wire == BYTES:
                length, position = self.varint(position, end)
            elif wire in (FIXED32, FIXED64):
                length = 4 if wire == FIXED32 else 8
            else:
                raise self.error(position, f"wire type {wire}, which Caffe never writes")
            if length > end - position:
                raise self.error(position, f"field {number} claims {length:,} bytes, {end - position:,} are left")
            yield number, wire, (position, position + length)
            position += length

    def text(self, start: int, end: int) -> str:
        return self.data[start:end].decode("utf-8", "surrogateescape")

    def layer(self, old: bool, start: int, end: int) -> LayerWeights:
        name_field, type_field, blobs_field = (4, 5, 6) if old else (1, 2, 7)
        result = LayerWeights("", "")
        for number, wire, value in self.fields(start, end):
            if number == name_field and wire == BYTES:
                result.name = self.text(*value)
            elif number == type_field:
                result.type = self.text(*value) if wire == BYTES else V1_TYPES.get(value, ("", f"type {value}"))[1]
            elif number == blobs_field and wire == BYTES:
                result.blobs.append(self.blob(*value))
            elif old and number == 1 and wire == BYTES:  # a V0LayerParameter inside
                for inner, inner_wire, inner_value in self.fields(*value):
                    if inner == 1 and inner_wire == BYTES:
                        result.name = self.text(*inner_value)
                    elif inner == 2 and inner_wire == BYTES:
                        result.type = self.text(*inner_value)
                    elif inner == 50 and inner_wire == BYTES:
                        result.blobs.append(self.blob(*inner_value))
        return result

    def blob(self, start: int, end: int) -> np.ndarray:
        legacy: dict[int, int] = {}
        shape: list[int] | None = None
        parts: dict[str, list[np.ndarray]] = {"<f4": [], "<f8": []}
        singles: dict[str, bytearray] = {"<f4": bytearray(), "<f8": bytearray()}
        raw_type, raw = 1, None
        for number, wire, value in self.fields(start, end):
            if number in (1, 2, 3, 4) and wire == VARINT:  # num, channels, height, width
                legacy[number] = value
            elif number == 7 and wire == BYTES:
                shape = self.shape(*value)
            elif number in (5, 8):  # data, double_data
                dtype = "<f4" if number == 5 else "<f8"
                if wire == BYTES:
                    parts[dtype].append(self.array(dtype, *value))
                elif wire == (FIXED32 if number == 5 else FIXED64):
                    singles[dtype] += self.data[slice(*value)]
            elif number == 10 and wire == VARINT:
                raw_type = value
            elif number == 12 and wire == BYTES:
                raw = value
        for dtype, data in singles.items():
            if data:
                parts[dtype].append(np.frombuffer(bytes(data), dtype))
        found = parts["<f4"] or parts["<f8"]
        if not found and raw is not None:
            if raw_type not in _RAW_TYPES:
                raise self.error(start, f"raw data of the unknown type {raw_type}")
            found = [self.array(_RAW_TYPES[raw_type], *raw)]
        data = found[0] if len(found) == 1 else np.concatenate(found) if found else np.zeros(0, "<f4")
        if shape is None:
            shape = [legacy.get(axis, 1) for axis in (1, 2, 3, 4)] if legacy else [data.size]
        if math.prod(shape) != data.size:
            raise self.error(start, f"a blob of shape {shape[:8]} with {data.size:,} values")
        return data.reshape(shape)

    def array(self, dtype: str, start: int, end: int) -> np.ndarray:
        size = np.dtype(dtype).itemsize
        if (end - start) % size:
            raise self.error(start, f"{end - start:,} bytes are no whole number of values")
        return np.frombuffer(self.data, dtype, (end - start) // size, start)

    def shape(self, start: int, end: int) -> list[int]:
        dims: list[int] = []
        for number, wire, value in self.fields(start, end):
            if number != 1:
                continue
            if wire == VARINT:
                dims.append(value)
            elif wire == BYTES:
                position, stop = value
                while position < stop:
                    dim, position = self.varint(position, stop)
                    dims.append(dim)
            if len(dims) > MAX_AXES:
                raise self.error(start, f"a blob of more than {MAX_AXES} axes")
        if any(dim >= 1 << 31 for dim in dims):
            raise self.error(start, f"a blob of shape {dims[:8]}")
        return dims
