"""What `./zoo convert` makes of a Caffe net and what image_classification makes of its weights compute the same."""

from __future__ import annotations

import re
from pathlib import Path

from caffe2fluid.convert import convert
from caffe2fluid.converted import WEIGHTS, Predictor, open_converted
from caffe2fluid.storage import read_weights
from caffe2fluid.tests.architectures import Prototxt, alexnet, googlenet, resnet
from caffe2fluid.tests.tools import caffemodel, random_weights, translate_files
from fluid.program import initialise
from image_classification.caffe_names import family_of, from_caffe
from image_classification.models.dpn import CONFIGS
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


def se_resnext50() -> str:
    """SE-ResNeXt-50 of arXiv:1709.01507, its layers called as by its authors."""
    net = Prototxt("SE-ResNeXt-50", SIDE, 1.0)

    def conv(name: str, x: str, filters: int, body: str = "kernel_size: 1", relu: bool = True) -> str:
        body = f"convolution_param {{ num_output: {filters} bias_term: false {body} }}"
        net.layer(name, "Convolution", x, body)
        net.layer(f"{name}/bn", "BatchNorm", name, "batch_norm_param { use_global_stats: true }", top=name)
        net.layer(f"{name}/bn/scale", "Scale", name, "scale_param { bias_term: true }", top=name)
        return net.layer(f"{name}/relu", "ReLU", name, top=name) if relu else name

    def squeeze(name: str, x: str, filters: int, kind: str, relu: str) -> str:
        net.layer(name, "Convolution", x, f"convolution_param {{ num_output: {filters} kernel_size: 1 }}")
        return net.layer(relu, kind, name, top=name)

    x = conv("conv1/7x7_s2", "data", 64, "kernel_size: 7 stride: 2 pad: 3")
    x = net.pool("pool1/3x3_s2", x, "MAX", 3, 2)
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (128, 256, 512, 1024), strict=True), 2):
        for index in range(1, blocks + 1):
            name, stride = f"conv{stage}_{index}", 2 if index == 1 and stage > 2 else 1
            y = conv(f"{name}_1x1_reduce", x, width)
            y = conv(f"{name}_3x3", y, width, f"kernel_size: 3 pad: 1 group: 32 stride: {stride}")
            y = conv(f"{name}_1x1_increase", y, width * 2, relu=False)
            gate = net.layer(f"{name}_global_pool", "Pooling", y, "pooling_param { pool: AVE global_pooling: true }")
            gate = squeeze(f"{name}_1x1_down", gate, width // 8, "ReLU", f"{name}_1x1_down/relu")
            gate = squeeze(f"{name}_1x1_up", gate, width * 2, "Sigmoid", f"{name}_prob")
            if index == 1:
                x = conv(f"{name}_1x1_proj", x, width * 2, f"kernel_size: 1 stride: {stride}", relu=False)
            x = net.layer(name, "Axpy", [gate, y, x])
            x = net.layer(f"{name}/relu", "ReLU", x, top=x)
    x = net.layer("pool5", "Pooling", x, "pooling_param { pool: AVE global_pooling: true }")
    return (
        net.text
        + f'layer {{ name: "classifier" type: "InnerProduct" bottom: "{x}" top: "classifier" inner_product_param {{ num_output: 10 }} }}'
    )


def dpn(depth: int) -> str:
    """Table 1 of arXiv:1707.01629, its layers called as in soeaver/caffe-model."""
    net, config, number = Prototxt("DPN", SIDE, 1.0), CONFIGS[depth], 0

    def norm(name: str, x: str, top: str) -> str:
        net.layer(f"{name}_bn", "BatchNorm", x, "batch_norm_param { use_global_stats: true eps: 0.001 }", top=top)
        net.layer(f"{name}_scale", "Scale", top, "scale_param { bias_term: true }", top=top)
        return net.layer(f"{name}_relu", "ReLU", top, top=top)

    def conv(name: str, x: str, filters: int, size: int = 1, stride: int = 1, group: int = 1) -> str:
        body = f"num_output: {filters} kernel_size: {size} pad: {size // 2} stride: {stride} group: {group}"
        return net.layer(name, "Convolution", x, f"convolution_param {{ {body} bias_term: false }}")

    def divided(name: str, x: str, point: int) -> list[str]:
        tops = [f"{x}_split1", f"{x}_split2"]
        net.text += f'layer {{ name: "{name}" type: "Slice" bottom: "{x}" top: "{tops[0]}" top: "{tops[1]}" '
        net.text += f"slice_param {{ axis: 1 slice_point: {point} }} }}\n"
        return tops

    x = conv("conv1", "data", *config.stem, stride=2)
    pooling = "pooling_param { pool: MAX kernel_size: 3 stride: 2 pad: 1 ceil_mode: false }"
    residual = net.layer("pool1", "Pooling", norm("conv1", x, "conv1"), pooling)
    dense: list[str] = []
    for stage, blocks in enumerate(config.blocks):
        width, step = config.residual_width[stage], config.increment[stage]
        for index in range(blocks):
            number += 1
            name, stride = f"dpn{number}", 2 if index == 0 and stage else 1
            x = net.layer(f"{name}_concat_input", "Concat", [residual, *dense])
            if index == 0:
                match = conv(
                    f"{name}_match_conv", norm(f"{name}_match", x, f"{name}_match_bn"), width + 2 * step, 1, stride
                )
                residual, *dense = divided(f"{name}_match_conv_Slice", match, width)
            grouped = config.grouped_width * 2**stage
            x = conv(f"{name}_conv1", norm(name, x, f"{name}_bn"), grouped)
            x = conv(f"{name}_conv2", norm(f"{name}_conv1", x, x), grouped, 3, stride, config.groups)
            x = conv(f"{name}_conv3", norm(f"{name}_conv2", x, x), width + step)
            more, rest = divided(f"{name}_conv3_Slice", x, width)
            residual = net.layer(f"{name}_elewise", "Eltwise", [residual, more])
            dense = [net.layer(f"{name}_concat", "Concat", [*dense, rest])]
    x = net.layer("pool_ave_concat", "Concat", [residual, *dense])
    x = norm("pool_ave_concat", x, "pool_ave_concat_bn")
    x = net.layer("pool_ave", "Pooling", x, "pooling_param { pool: AVE global_pooling: true }")
    net.layer("classifier", "InnerProduct", x, "inner_product_param { num_output: 10 }")
    return net.text


def small(text: str, side: int = SIDE) -> str:
    """For images of that side and ten classes, with logits as outputs."""
    text = re.sub(r"dim: 22[47]", f"dim: {side}", text).replace("num_output: 1000", "num_output: 10")
    text = text.replace("pool: AVE kernel_size: 7 stride: 1 pad: 0", "pool: AVE global_pooling: true")
    return text[: text.index('layer { name: "prob"')]


@pytest.mark.parametrize(
    ("model", "text"),
    [
        ("MobileNetV1_x0_25", mobilenet(0.25)),
        ("GoogLeNet_caffe", small(googlenet())),
        pytest.param("AlexNet_caffe", small(alexnet(), 67), marks=pytest.mark.full),
        pytest.param("AlexNet_caffenet", small(alexnet(caffenet=True), 67), marks=pytest.mark.full),
        pytest.param("DPN68", dpn(68), marks=pytest.mark.full),
        pytest.param("ResNet50_caffe", small(resnet(50)), marks=pytest.mark.full),
        pytest.param("SE_ResNeXt50_32x4d_caffe", se_resnext50(), marks=pytest.mark.full),
    ],
)
def test_the_same_logits(model: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(random_weights(translate_files(tmp_path / "net.prototxt"))))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "net")
    arrays = read_weights(tmp_path / "net" / WEIGHTS)
    family = family_of(arrays)
    assert family is not None

    # Red first; of little contrast, for the gates of random weights would saturate, and then enlarge rounding to per cents.
    means = np.float32(family.mean)[:, None, None]
    net = open_converted(tmp_path / "net")
    side = net.sizes["data"][2]
    pixels = means + np.random.default_rng(0).uniform(-3, 3, (2, 3, side, side)).astype(np.float32)
    theirs = ((pixels - means) * np.float32(family.scale))[:, ::-1]
    (expected,) = Predictor(net)({"data": np.ascontiguousarray(theirs)}).values()

    program = build_classifier(model, (3, side, side), class_dim=10)
    mean, std = [value / 255 for value in family.mean], (0.25, 0.5, 0.2)  # their mean, so that the border agrees too
    state = initialise(program, seed=0) | from_caffe(model, shapes(program), arrays, mean, std)
    ours = run(program, state, (pixels / 255 - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None])
    difference = np.abs(ours["logits"] - expected.reshape(2, 10)).max()
    assert np.ptp(expected) > 0.1 and difference < 1e-4 * np.abs(expected).max()
