"""export.py --onnx: ONNX Runtime computes what Paddle does, detectors included, or nothing is written."""

from __future__ import annotations

from pathlib import Path

from caffe2fluid import export, to_onnx
from caffe2fluid.convert import convert
from caffe2fluid.converted import WEIGHTS, Converted, open_converted, random_feed, run_blobs
from caffe2fluid.errors import ConvertError
from caffe2fluid.tests.test_forks import EVERYWHERE
from caffe2fluid.tests.test_public_nets import NETS, enet
from caffe2fluid.tests.test_sizes import FREE, SSD
from caffe2fluid.tests.tools import caffemodel, random_weights, translate_files
from fluid.tests.extras import need_onnx

import numpy as np
import pytest


@pytest.fixture
def in_this_process(monkeypatch):
    """paddle2onnx runs here, which spares the start of a process; an operation that it lacks would end this one."""
    need_onnx()
    import paddle2onnx

    def export_here(*files: str) -> None:
        paddle2onnx.export(*files, opset_version=to_onnx.OPSET, optimize_tool="None")

    monkeypatch.setattr(to_onnx, "by_paddle2onnx", export_here)


def converted(folder: Path, text: str, **options) -> Converted:
    (folder / "net.prototxt").write_text(text)
    weights = random_weights(translate_files(folder / "net.prototxt")) or {"none": ("ReLU", [np.zeros(1)])}
    (folder / "net.caffemodel").write_bytes(caffemodel(weights))
    files = folder / "net.prototxt", folder / "net.caffemodel"
    convert(*files, folder / "net", allow_missing=True, **options)
    return open_converted(folder / "net")


def image(body: str) -> str:
    return 'input: "data" input_shape { dim: 2 dim: 3 dim: 12 dim: 12 }\n' + body


NETS_OF_LAYERS = {
    "padding": image(FREE["AVE, padded"] + FREE["LRN"].replace('"l"', '"n"') + FREE["FCN"].replace('"s"', '"fcn"')),
    "resizing": image(FREE["Interp to a blob"] + FREE["MVN"]),
    "compared": image(f'layer {{ name: "k" type: "Correlation" bottom: "data" bottom: "data" top: "k" {EVERYWHERE["Correlation"][1]} }}'),
    "CRNN": NETS["CRNN"][0](),
    "YOLOv2": NETS["YOLOv2"][0](),
    "YOLOv3-MobileNet": NETS["YOLOv3-MobileNet"][0](),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS_OF_LAYERS)
def test_nets(name, in_this_process, tmp_path):
    """write_onnx itself compares."""
    net = converted(tmp_path, NETS_OF_LAYERS[name])
    feed = {blob: array / 50 for blob, array in random_feed(net, seed=0).items()}
    to_onnx.write_onnx(net, tmp_path / "net.onnx", net.folder / WEIGHTS, net.outputs, feed)
    assert (tmp_path / "net.onnx").stat().st_size > 1000


@pytest.mark.parametrize(
    ("settings", "any_size", "rows"),
    [
        ("keep_top_k: 10", True, None),
        ("keep_top_k: 3", False, 6),
        ("keep_top_k: -1 confidence_threshold: 0.999", False, 2),
    ],
)
def test_boxes_of_an_ssd(settings, any_size, rows, in_this_process, tmp_path):
    """Two images; few are kept, and where nothing is found, a row of -1 for each."""
    import onnxruntime

    text = image(SSD % "").replace("keep_top_k: 10", settings)
    net = converted(tmp_path, text, any_size=any_size)
    feed = {"data": np.random.default_rng(0).standard_normal((2, 3, 12, 12)).astype(np.float32)}
    to_onnx.write_onnx(net, tmp_path / "net.onnx", net.folder / WEIGHTS, ["out"], feed)
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in (*session.get_inputs(), *session.get_outputs())] == ["data", "out"]
    for seed in range(1, 4):  # another one than it was compared on, of another size where it takes that
        size = (17, 21) if any_size else (12, 12)
        data = np.random.default_rng(seed).standard_normal((2, 3, *size)).astype(np.float32)
        (ours,) = session.run(None, {"data": data})
        theirs = dict(run_blobs(net, {"data": data}, ["out"]))["out"]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        assert rows is None or len(ours[0, 0]) == rows


def test_the_value_of_padding(in_this_process, tmp_path):
    """paddle2onnx 2.1 leaves it to chance."""
    text = image(
        'layer { name: "p" type: "Pad" bottom: "data" top: "p" pad_param { pad_u: 1 pad_l: 2 pad_value: 1.5 } }'
    )
    net = converted(tmp_path, text)
    import onnx

    to_onnx.write_onnx(net, tmp_path / "net.onnx", net.folder / WEIGHTS, ["p"], random_feed(net, seed=0))
    (value,) = onnx.load(str(tmp_path / "net.onnx")).graph.initializer
    assert onnx.numpy_helper.to_array(value) == 1.5


def test_operations_without_onnx(tmp_path, capsys):
    need_onnx()
    net = converted(tmp_path, enet())
    words = [str(net.folder), "--onnx", str(tmp_path / "net.onnx")]
    with pytest.raises(ConvertError, match="paddle2onnx cannot write this net: .*unsupported operators.*--blobs"):
        export.main(words)
    assert not (tmp_path / "net.onnx").exists()
    assert export.main([*words, "--blobs", "sum"]) == 0
    assert "net.onnx: outputs sum, as in Paddle" in capsys.readouterr().out


def test_other_results_are_not_written(in_this_process, tmp_path, monkeypatch):
    net = converted(tmp_path, image(FREE["LRN"]))
    monkeypatch.setattr(to_onnx, "run_blobs", lambda *a: [(name, array * 1.001) for name, array in run_blobs(*a)])
    with pytest.raises(ConvertError, match="ONNX Runtime computes something else for l: 0.001 of the largest value"):
        export.main([str(net.folder), "--onnx", str(tmp_path / "net.onnx")])
    assert not (tmp_path / "net.onnx").exists()
