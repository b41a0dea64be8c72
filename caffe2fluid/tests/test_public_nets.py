"""Miniatures of public nets whose layers are those of forks: they convert, and every way to run them gives the same.

The structure of each is that of its paper or repository, with few channels; written here.
"""

from __future__ import annotations

from caffe2fluid.convert import convert
from caffe2fluid.converted import Predictor, open_converted, run_blobs
from caffe2fluid.network import read_network
from caffe2fluid.tests.tools import caffemodel, random_weights, relative
from caffe2fluid.translate import translate

import numpy as np
import pytest


def layer(kind, name, bottoms, body="", tops=None):
    reads = " ".join(f'bottom: "{blob}"' for blob in bottoms)
    writes = " ".join(f'top: "{blob}"' for blob in tops or [name])
    return f'layer {{ name: "{name}" type: "{kind}" {reads} {writes} {body} }}\n'


def inputs(**shapes):
    return "".join(f'input: "{name}" input_shape {{ dim: {list(shape)} }}\n' for name, shape in shapes.items())


def conv(name, bottom, filters, body="kernel_size: 3 pad: 1", kind="Convolution", norm=True):
    text = layer(
        kind, name, [bottom], f"convolution_param {{ num_output: {filters} {body} bias_term: {str(not norm).lower()} }}"
    )
    if norm:
        text += layer("BatchNorm", f"{name}/bn", [name], tops=[name])
        text += layer("Scale", f"{name}/scale", [name], "scale_param { bias_term: true }", [name])
        text += layer("ReLU", f"{name}/relu", [name], tops=[name])
    return text


def yolo_v2():
    """YOLOv2 (Redmon, Farhadi, https://arxiv.org/abs/1612.08242): the finer map joins the coarser one by a Reorg."""
    text = inputs(data=(1, 3, 32, 32)) + conv("c1", "data", 4, "kernel_size: 3 pad: 1 stride: 2")
    text += conv("fine", "c1", 4, "kernel_size: 3 pad: 1 stride: 2") + conv(
        "coarse", "fine", 8, "kernel_size: 3 pad: 1 stride: 2"
    )
    text += layer("Reorg", "reorg", ["fine"], "reorg_param { stride: 2 }") + layer(
        "Concat", "joined", ["reorg", "coarse"]
    )
    text += conv("out", "joined", 2 * 8, "kernel_size: 1", norm=False)
    body = "num_classes: 3 num_box: 2 biases: 1 biases: 1.5 biases: 3 biases: 2 confidence_threshold: 0.1"
    return text + layer("YoloDetectionOutput", "detections", ["out"], f"yolo_detection_output_param {{ {body} }}")


def yolo_v3_mobilenet():
    """MobileNet-YOLO of eric612: depthwise convolutions, and two maps, one of them behind a deconvolution."""
    text = inputs(data=(1, 3, 32, 32)) + conv("c1", "data", 4, "kernel_size: 3 pad: 1 stride: 2")
    for name, bottom, filters in (("a", "c1", 4), ("b", "a", 8), ("c", "b", 8)):
        text += conv(
            f"{name}/dw",
            bottom,
            filters // (2 if name == "b" else 1),
            "kernel_size: 3 pad: 1 stride: 2",
            "DepthwiseConvolution",
        )
        text += conv(name, f"{name}/dw", filters, "kernel_size: 1")
    text += conv("out1", "c", 2 * 8, "kernel_size: 1", norm=False)
    text += layer(
        "Deconvolution",
        "up",
        ["c"],
        "convolution_param { num_output: 8 group: 8 kernel_size: 4 stride: 2 pad: 1 bias_term: false }",
    )
    text += layer("Eltwise", "sum", ["up", "b"]) + conv("out2", "sum", 2 * 8, "kernel_size: 1", norm=False)
    body = "num_classes: 3 num_box: 2 mask_group_num: 2 anchors_scale: 16 anchors_scale: 8 confidence_threshold: 0.1 "
    body += "mask: 2 mask: 3 mask: 0 mask: 1 " + " ".join(f"biases: {bias}" for bias in (4, 5, 9, 8, 20, 17, 30, 33))
    return text + layer(
        "Yolov3DetectionOutput", "detections", ["out1", "out2"], f"yolov3_detection_output_param {{ {body} }}"
    )


def enet():
    """ENet (Paszke et al., https://arxiv.org/abs/1606.02147): positions of maxima lead the way back up."""
    text = inputs(data=(1, 3, 16, 32)) + conv("initial", "data", 4, "kernel_size: 3 pad: 1 stride: 2")
    text += layer(
        "Pooling", "pool", ["initial"], "pooling_param { pool: MAX kernel_size: 2 stride: 2 }", ["pool", "mask"]
    )
    text += conv("flat", "pool", 4, "kernel_h: 1 kernel_w: 5 pad_h: 0 pad_w: 2") + conv(
        "far", "flat", 4, "kernel_size: 3 pad: 2 dilation: 2"
    )
    text += layer("SpatialDropout", "drop", ["far"], "spatial_dropout_param { dropout_ratio: 0.1 }")
    text += layer("Eltwise", "sum", ["drop", "pool"]) + layer("PReLU", "prelu", ["sum"], tops=["sum"])
    text += layer("Upsample", "up", ["sum", "mask"], "upsample_param { scale: 2 }")
    text += layer("Deconvolution", "out", ["up"], "convolution_param { num_output: 5 kernel_size: 2 stride: 2 }")
    return text


def sphereface():
    """SphereFace (Liu et al., https://arxiv.org/abs/1704.08063), as it trains: the margin's layer, and labels."""
    text = 'layer { name: "data" type: "ImageData" top: "data" top: "label" transform_param { crop_size: 16 } image_data_param { batch_size: 1 } }\n'
    text += conv("conv1_1", "data", 4, "kernel_size: 3 pad: 1 stride: 2", norm=False) + layer(
        "PReLU", "relu1_1", ["conv1_1"], tops=["conv1_1"]
    )
    text += conv("conv1_2", "conv1_1", 4, norm=False) + layer("PReLU", "relu1_2", ["conv1_2"], tops=["conv1_2"])
    text += layer("Eltwise", "res1", ["conv1_1", "conv1_2"])
    text += layer("InnerProduct", "fc5", ["res1"], "inner_product_param { num_output: 8 }")
    text += layer(
        "MarginInnerProduct",
        "fc6",
        ["fc5", "label"],
        "margin_inner_product_param { num_output: 10 type: QUADRUPLE base: 1000 gamma: 0.12 power: 1 lambda_min: 5 }",
        ["fc6", "lambda"],
    )
    return text + layer("SoftmaxWithLoss", "softmax_loss", ["fc6", "label"])


def crnn():
    """CRNN (Shi et al., https://arxiv.org/abs/1507.05717) with the layers of the warp-ctc forks: columns become steps."""
    text = inputs(data=(2, 3, 8, 24)) + conv("c1", "data", 4, norm=False)
    text += layer("Pooling", "pool", ["c1"], "pooling_param { kernel_h: 8 kernel_w: 2 stride_h: 8 stride_w: 2 }")
    text += layer("Transpose", "steps", ["pool"], "transpose_param { dim: 3 dim: 0 dim: 1 dim: 2 }")
    text += layer("Reshape", "rows", ["steps"], "reshape_param { shape { dim: 12 dim: 2 dim: 4 } }")
    text += 'layer { name: "cont" type: "ContinuationIndicator" top: "cont" continuation_indicator_param { time_step: 12 batch_size: 2 } }\n'
    text += layer(
        "LSTM", "forward", ["rows", "cont"], "recurrent_param { num_output: 3 weight_filler { type: 'xavier' } }"
    )
    text += layer("Reverse", "back_in", ["rows"], "reverse_param { axis: 0 }")
    text += layer(
        "LSTM", "back", ["back_in", "cont"], "recurrent_param { num_output: 3 weight_filler { type: 'xavier' } }"
    )
    text += layer("Reverse", "back_out", ["back"], "reverse_param { axis: 0 }") + layer(
        "Concat", "both", ["forward", "back_out"], "concat_param { axis: 2 }"
    )
    text += layer("InnerProduct", "fc", ["both"], "inner_product_param { num_output: 5 axis: 2 }")
    text += 'input: "label" input_shape { dim: 2 dim: 4 }\n'
    return text + layer("WarpCTCLoss", "ctc", ["fc", "label"], "warpctc_loss_param { blank_label: 4 }")


def pspnet_selu():
    """PSPNet (Zhao et al., https://arxiv.org/abs/1612.01105) with SELU: a pyramid of averages, enlarged and joined."""
    text = inputs(data=(1, 3, 17, 17)) + conv("c1", "data", 4, norm=False) + layer("SeLu", "selu", ["c1"], tops=["c1"])
    branches = ["c1"]
    for kernel in (17, 9, 6):
        text += layer(
            "Pooling", f"pool{kernel}", ["c1"], f"pooling_param {{ pool: AVE kernel_size: {kernel} stride: {kernel} }}"
        )
        text += conv(f"conv{kernel}", f"pool{kernel}", 2, "kernel_size: 1", norm=False)
        text += layer("SeLu", f"selu{kernel}", [f"conv{kernel}"], tops=[f"conv{kernel}"])
        text += layer("Interp", f"interp{kernel}", [f"conv{kernel}"], "interp_param { height: 17 width: 17 }")
        branches.append(f"interp{kernel}")
    text += layer("Concat", "joined", branches) + conv("out", "joined", 5, "kernel_size: 1", norm=False)
    return text + layer("Interp", "large", ["out"], "interp_param { zoom_factor: 4 }")


NETS = {
    "YOLOv2": (yolo_v2, "detections"),
    "YOLOv3-MobileNet": (yolo_v3_mobilenet, "detections"),
    "ENet": (enet, "out"),
    "SphereFace": (sphereface, "prob"),
    "CRNN": (crnn, "fc"),
    "PSPNet-SELU": (pspnet_selu, "large"),
}


@pytest.mark.parametrize("name", NETS)
def test_net_converts_and_runs(name, tmp_path):
    write, output = NETS[name]
    (tmp_path / "net.prototxt").write_text(write())
    weights = random_weights(translate(read_network(tmp_path / "net.prototxt"), None))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out", allow_missing=True)
    net = open_converted(tmp_path / "out")
    assert net.outputs == [output] and list(net.inputs) == ["data"]
    feed = {"data": np.random.default_rng(0).standard_normal(net.sizes["data"]).astype(np.float32)}
    expected = dict(run_blobs(net, feed, [output]))[output]
    assert expected.size > 7 and expected.std() > 1e-3
    for onednn in (True, False):
        assert relative(Predictor(net, onednn)(feed)[output], expected) < 1e-4
