"""What several test modules need: references of real Caffe, a writer of caffemodels, a run without files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from caffe2fluid import quiet_paddle  # noqa: F401 before paddle
from caffe2fluid.caffemodel import read_caffemodel
from caffe2fluid.codegen import module_source
from caffe2fluid.network import read_network
from caffe2fluid.translate import Translation, translate

import numpy as np

HERE = Path(__file__).parent
MICRO = HERE / "caffe_micro"


def relative(ours: np.ndarray, reference: np.ndarray) -> float:
    """max |a - b| / max |b|; shapes and NaNs must agree."""
    assert ours.shape == reference.shape
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(reference))
    ours, reference = np.nan_to_num(ours.astype(np.float64)), np.nan_to_num(reference.astype(np.float64))
    difference = np.abs(ours - reference).max(initial=0.0)
    return float(difference / max(np.abs(reference).max(initial=0.0), 1e-30))


class LayerReferences:
    """Nets of one layer or a few, with the inputs and outputs of real Caffe (caffe_layers.npz; see its README)."""

    def __init__(self) -> None:
        with np.load(HERE / "caffe_layers.npz", allow_pickle=False) as archive:
            self._archive = dict(archive)
        self.index = json.loads(self._archive["index"].tobytes())

    def files(self, name: str, folder: Path) -> tuple[Path, Path]:
        """Writes the net into the folder: paths of prototxt and caffemodel."""
        prototxt, caffemodel = folder / f"{name}.prototxt", folder / f"{name}.caffemodel"
        prototxt.write_text(self.index[name]["prototxt"], "utf-8")
        caffemodel.write_bytes(self._archive[self.index[name]["caffemodel"]].tobytes())
        return prototxt, caffemodel

    def arrays(self, name: str, kind: str) -> dict[str, np.ndarray]:
        """``inputs`` or ``blobs`` by blob name."""
        return {blob: self._archive[key] for blob, key in self.index[name][kind].items()}


def translate_files(prototxt: Path, caffemodel: Path | None = None, **options) -> Translation:
    weights = read_caffemodel(caffemodel) if caffemodel else None
    return translate(read_network(prototxt, **options), weights, options.get("phase", "TEST"))


def load_source(translation: Translation):
    """The generated module, executed."""
    import types

    module = types.ModuleType("generated")
    exec(compile(module_source(translation, "test.prototxt"), "generated.py", "exec"), vars(module))
    return module


def run(translation: Translation, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All blobs of the generated code, by Paddle's plain executor."""
    import paddle

    paddle.enable_static()
    network, program, startup, inputs, blobs = load_source(translation).build()
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        for name, parameter in translation.parameters.items():
            tensor = paddle.static.global_scope().find_var(name).get_tensor()
            tensor.set(parameter.load(), paddle.CPUPlace())
        arrays = {inputs[name].name: np.ascontiguousarray(feed[name], np.float32) for name in inputs}
        return dict(zip(blobs, executor.run(program, feed=arrays, fetch_list=list(blobs.values())), strict=True))


# A writer of caffemodels, the wire format by hand


def varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    return bytes([*result, value])


def field(number: int, content: bytes | int | str) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    content = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def blob(array: np.ndarray, kind: str = "packed") -> bytes:
    """A BlobProto: packed (as Caffe writes), unpacked, double, float16 (raw, as NVIDIA's fork), legacy (4 axes)."""
    array = np.asarray(array)
    if kind == "legacy":
        dims = [1] * (4 - array.ndim) + list(array.shape)
        shape = b"".join(field(number, dim) for number, dim in enumerate(dims, 1))
    else:
        shape = field(7, field(1, b"".join(map(varint, array.shape))))
    if kind == "double":
        return shape + field(8, array.astype("<f8").tobytes())
    if kind == "float16":
        return shape + field(10, 2) + field(12, array.astype("<f2").tobytes())
    if kind == "unpacked":
        return shape + b"".join(b"\x2d" + struct.pack("<f", value) for value in array.ravel())
    return shape + field(5, array.astype("<f4").tobytes())


def caffemodel(layers: dict[str, tuple[str, list[np.ndarray]]], kind: str = "packed") -> bytes:
    """NetParameter with layers: name -> (type, blobs)."""
    return field(1, "test") + b"".join(
        field(100, field(1, name) + field(2, type_) + b"".join(field(7, blob(b, kind)) for b in blobs))
        for name, (type_, blobs) in layers.items()
    )


def random_weights(translation: Translation, seed: int = 0) -> dict[str, tuple[str, list[np.ndarray]]]:
    """Blobs as Caffe stores them for every layer of a net without weights, scaled so that activations stay of size 1."""
    generator = np.random.default_rng(seed)
    result = {}
    for node in translation.nodes:
        blobs = []
        for name, parameter in node.parameters.items():
            shape, suffix = parameter.shape, name.rpartition("_")[2]
            if suffix == "weights":
                shape = shape[::-1] if len(shape) == 2 else shape
                fan_in = np.prod(shape[1:])
                blobs.append(generator.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in)))
            elif suffix == "biases":
                blobs.append(generator.standard_normal(shape, np.float32) * np.float32(0.1))
        if node.layer.type == "BatchNorm":
            channels = node.shape[1]
            mean, variance = generator.standard_normal(channels) * 0.1, generator.uniform(0.5, 1.5, channels)
            blobs = [mean * 2, variance * 2, np.array([2.0])]
            if node.scale:
                scale, offset = generator.uniform(0.5, 1.2, channels), generator.standard_normal(channels) * 0.1
                result[node.scale.name] = ("Scale", [scale, offset])
        if blobs:
            result[node.layer.name] = (node.layer.type, blobs)
    return result
