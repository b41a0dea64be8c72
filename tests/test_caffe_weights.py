"""What `./zoo convert` makes of a Caffe net and what image_classification makes of its weights compute the same."""

from __future__ import annotations

from pathlib import Path

from caffe2fluid.convert import convert
from caffe2fluid.converted import WEIGHTS, Predictor, open_converted
from caffe2fluid.storage import read_weights
from caffe2fluid.tests.architectures import Prototxt, resnet
from caffe2fluid.tests.tools import caffemodel, random_weights, translate_files
from fluid.program import initialise
from image_classification.caffe_names import family_of, from_caffe
from image_classification.models.mobilenet_v1 import BLOCKS
from image_classification.tests.networks import build_classifier, run, shapes

import numpy as np
import pytest

SIDE = 64


def mobilenet(scale: float) -> str:
    """Table 1 of arXiv:1704.04861, its layers called as in shicai/MobileNet-Caffe."""
    net = Prototxt("MobileNet", SIDE, 1.0)

    def conv_bn(name: str, x: str, filters: int, body: str) -> str:
        body = f"convolution_param {{ num_output: {filters} bias_term: false {body} }}"
        net.layer(name, "Convolution", x, body)
        net.layer(f"{name}/bn", "BatchNorm", name, "batch_norm_param { use_global_stats: true eps: 1e-5 }")
        net.layer(f"{name}/scale", "Scale", f"{name}/bn", "scale_param { bias_term: true }", top=f"{name}/bn")
        return net.layer(f"relu{name}", "ReLU", f"{name}/bn", top=f"{name}/bn")

    channels = int(32 * scale)
    x = conv_bn("conv1", "data", channels, "kernel_size: 3 stride: 2 pad: 1")
    for name, filters, stride in BLOCKS:
        x = conv_bn(f"{name}/dw", x, channels, f"kernel_size: 3 pad: 1 stride: {stride} group: {channels}")
        channels = int(filters * scale)
        x = conv_bn(f"{name}/sep", x, channels, "kernel_size: 1")
    x = net.layer("pool6", "Pooling", x, "pooling_param { pool: AVE global_pooling: true }")
    x = net.layer("fc7", "Convolution", x, "convolution_param { num_output: 10 kernel_size: 1 }")
    return net.text


def resnet50() -> str:
    text = resnet(50).replace("dim: 224", f"dim: {SIDE}").replace("num_output: 1000", "num_output: 10")
    text = text.replace("pool: AVE kernel_size: 7 stride: 1 pad: 0", "pool: AVE global_pooling: true")
    return text[: text.index('layer { name: "prob"')]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("MobileNetV1_x0_25", mobilenet(0.25)),
        pytest.param("ResNet50_caffe", resnet50(), marks=pytest.mark.full),
    ],
)
def test_the_same_logits(model: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_weights(translate_files(tmp_path / "net.prototxt"))))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "net")
    arrays = read_weights(tmp_path / "net" / WEIGHTS)
    family = family_of(arrays)
    assert family is not None

    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, SIDE, SIDE)).astype(np.float32)  # red first
    means = np.float32(family.mean)[:, None, None]
    theirs = ((pixels - means) * np.float32(family.scale))[:, ::-1]
    net = open_converted(tmp_path / "net")
    (expected,) = Predictor(net)({"data": np.ascontiguousarray(theirs)}).values()

    program = build_classifier(model, (3, SIDE, SIDE), class_dim=10)
    mean, std = [value / 255 for value in family.mean], (0.25, 0.5, 0.2)  # their mean, so that the border agrees too
    state = initialise(program, seed=0) | from_caffe(model, shapes(program), arrays, mean, std)
    ours = run(program, state, (pixels / 255 - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None])
    difference = np.abs(ours["logits"] - expected.reshape(2, 10)).max()
    assert np.ptp(expected) > 0.1 and difference < 1e-4 * np.abs(expected).max()
