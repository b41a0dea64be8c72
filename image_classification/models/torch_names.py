"""Weights of PyTorch networks (torchvision, timm) under the names of this folder, such that the logits are identical.

    weights = from_torch("ResNet50", safetensors.numpy.load_file("model.safetensors"))

What can be converted, by the names of torchvision and timm:

* ResNet18, 34, 50, 101, 152: `resnet18` ... `resnet152` of both; ResNet18_vd ... ResNet152_vd: timm's `resnet18d` ...
  `resnet152d` (not `resnet200d`, which distributes its blocks differently). Our ResNet18 and 34 have a projection in the
  first block where theirs have none: it becomes an identity.
* VGG11_bias, 13, 16, 19: `vgg11` ... `vgg19` of both. Our VGG without `_bias` cannot hold the biases of the convolutions.
* AlexNet: torchvision's `alexnet`. MobileNetV2: torchvision's `mobilenet_v2`, timm's `mobilenetv2_100`; our expansion in
  the first bottleneck becomes an identity.
* SE_ResNeXt50_32x4d, 101: timm's `seresnext50_32x4d`, `seresnext101_32x4d`. The 152-layer network here (64 groups, three
  convolutions in the stem) has no counterpart.
* Not GoogLeNet: torchvision's has batch normalisation and a relu behind every convolution, ours has neither.

Where our networks multiply by 1 - rate in inference, because of the dropout of 2018, the matrix behind it is divided
by that factor.
"""

from collections.abc import Callable
from functools import partial

from fluid.errors import WeightsError
from image_classification.models.mobilenet_v2 import STAGES
from image_classification.models.resnet import DEPTHS as RESNET_DEPTHS
from image_classification.models.resnet import FILTERS, block_name
from image_classification.models.se_resnext import DEPTHS as SE_RESNEXT_DEPTHS
from image_classification.models.vgg import DEPTHS as VGG_DEPTHS

import numpy as np

Arrays = dict[str, np.ndarray]
OTHERWISE = (
    "they are of a network that is not here, or not all of it, or under a prefix other than `module.` and `model.`"
)


def from_torch(model: str, state: Arrays) -> Arrays:
    """Convert a PyTorch state dict.

    Args:
        model: name of the network in this folder.
        state: PyTorch's names -> arrays in PyTorch's layouts.

    Returns:
        parameter names of `model` -> arrays in its layouts, complete.

    Raises:
        WeightsError: this network has no PyTorch counterpart, an array is missing, or one is left over.
    """
    if model not in CONVERTERS:
        raise WeightsError(
            f"PyTorch weights cannot be converted for {model}: no PyTorch network computes the same. "
            f"They can for {', '.join(CONVERTERS)}"
        )
    converted, problem = _converted(model, state)
    if problem is None:
        return converted
    others = [name for name in CONVERTERS if name != model and _converted(name, state)[1] is None]
    raise WeightsError(f"{model}: {problem}; " + (f"they fit {', '.join(others)}" if others else OTHERWISE))


def _converted(model: str, state: Arrays) -> tuple[Arrays, str | None]:
    """The arrays under our names, and what is wrong with them."""
    converter = Converter(state)
    try:
        CONVERTERS[model](converter)
        converter.check_all_used()
    except WeightsError as error:
        return {}, str(error)
    return converter.converted, None


class Converter:
    """Takes arrays out of a PyTorch state dict and puts them under our names."""

    def __init__(self, state: Arrays):
        self.state = state
        self.converted: Arrays = {}
        self.used: set[str] = set()

    def __contains__(self, layer: str) -> bool:
        return f"{layer}.weight" in self.state

    def take(self, key: str) -> np.ndarray:
        """The array that PyTorch calls so. Raises WeightsError if there is none."""
        if key not in self.state:
            under = next((name for name in self.state if name.endswith(f".{key}")), None)
            instead = f" but {under}" if under else f", {len(self.used)} arrays were found before it"
            raise WeightsError(f"the PyTorch weights have no {key}{instead}")
        self.used.add(key)
        return np.asarray(self.state[key])

    def conv(self, ours: str, theirs: str, bias: bool = False) -> None:
        """A convolution, [out, in / groups, h, w] on both sides."""
        self.converted[f"{ours}_weights"] = self.take(f"{theirs}.weight")
        if bias:
            self.converted[f"{ours}_offset"] = self.take(f"{theirs}.bias")

    def bn(self, ours: str, theirs: str) -> None:
        """A batch normalisation, whose four arrays have other names."""
        self.converted[f"{ours}_scale"] = self.take(f"{theirs}.weight")
        self.converted[f"{ours}_offset"] = self.take(f"{theirs}.bias")
        self.converted[f"{ours}_mean"] = self.take(f"{theirs}.running_mean")
        self.converted[f"{ours}_variance"] = self.take(f"{theirs}.running_var")

    def fc(
        self, ours: str, theirs: str, gain: float = 1.0, weight_suffix: str = "_weights", bias_suffix: str = "_offset"
    ) -> None:
        """A matrix [out, in], or the equivalent convolution [out, C, H, W] over its whole input, becomes [in, out]."""
        weight = self.take(f"{theirs}.weight")
        matrix = weight.reshape(weight.shape[0], -1).T
        self.converted[f"{ours}{weight_suffix}"] = np.ascontiguousarray(matrix) * weight.dtype.type(gain)
        self.converted[f"{ours}{bias_suffix}"] = self.take(f"{theirs}.bias")

    def identity(self, conv: str, bn: str, channels: int) -> None:
        """A 1x1 convolution and its batch normalisation that change nothing."""
        ones, zeros = np.ones(channels, "float32"), np.zeros(channels, "float32")
        self.converted[f"{conv}_weights"] = np.eye(channels, dtype="float32").reshape(channels, channels, 1, 1)
        self.converted |= {f"{bn}_scale": ones, f"{bn}_offset": zeros, f"{bn}_mean": zeros}
        self.converted[f"{bn}_variance"] = ones - np.float32(1e-5)  # epsilon is added before the square root

    def check_all_used(self) -> None:
        """Raise WeightsError for what no layer here took: it would be missing from the logits."""
        left = [key for key in self.state if key not in self.used and not key.endswith("num_batches_tracked")]
        if left:
            raise WeightsError(f"{len(left)} of the PyTorch arrays, such as {left[0]}, have no place in this network")


def convert_resnet(read: Converter, *, depth: int, variant: str = "") -> None:
    """ResNet of torchvision and timm; `variant` vd is timm's `resnet50d` and its kin."""
    if variant == "vd":
        for number, (conv, bn) in enumerate([("conv1.0", "conv1.1"), ("conv1.3", "conv1.4"), ("conv1.6", "bn1")], 1):
            read.conv(f"conv1_{number}", conv)
            read.bn(f"bnv1_{number}", bn)
    else:
        read.conv("conv1", "conv1")
        read.bn("bn_conv1", "bn1")
    convolutions = "abc" if depth >= 50 else "ab"
    for stage, blocks in enumerate(RESNET_DEPTHS[depth], 2):
        for index in range(blocks):
            name, theirs = block_name(depth, stage, index), f"layer{stage - 1}.{index}"
            bn_name = "bn" + name.removeprefix("res")
            for number, letter in enumerate(convolutions, 1):
                read.conv(f"{name}_branch2{letter}", f"{theirs}.conv{number}")
                read.bn(f"{bn_name}_branch2{letter}", f"{theirs}.bn{number}")
            if index == 0 and stage == 2 and depth < 50:
                read.identity(f"{name}_branch1", f"{bn_name}_branch1", FILTERS[0])
            elif index == 0:
                conv, bn = ("downsample.1", "downsample.2") if variant == "vd" else ("downsample.0", "downsample.1")
                read.conv(f"{name}_branch1", f"{theirs}.{conv}")
                read.bn(f"{bn_name}_branch1", f"{theirs}.{bn}")
    read.fc("fc_0", "fc", weight_suffix=".w_0", bias_suffix=".b_0")


def convert_vgg(read: Converter, *, depth: int) -> None:
    """VGG of torchvision and timm."""
    position = 0
    for block, convolutions in enumerate(VGG_DEPTHS[depth], 1):
        for index in range(1, convolutions + 1):
            read.conv(f"conv{block}_{index}", f"features.{position}", bias=True)
            position += 2
        position += 1
    torchvision, timm = (
        ("classifier.0", "classifier.3", "classifier.6"),
        ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    )
    fc6, fc7, fc8 = timm if timm[0] in read else torchvision
    read.fc("fc6", fc6)
    read.fc("fc7", fc7, gain=2.0)
    read.fc("fc8", fc8, gain=2.0)


def convert_alexnet(read: Converter) -> None:
    """AlexNet of torchvision."""
    for number, position in enumerate((0, 3, 6, 8, 10), 1):
        read.conv(f"conv{number}", f"features.{position}", bias=True)
    read.fc("fc6", "classifier.1", gain=2.0)
    read.fc("fc7", "classifier.4", gain=2.0)
    read.fc("fc8", "classifier.6")


def convert_mobilenet_v2(read: Converter) -> None:
    """MobileNetV2 of torchvision and timm."""

    def conv_bn(ours: str, conv: str, bn: str) -> None:
        read.conv(ours, conv)
        read.bn(f"{ours}_bn", bn)

    timm = "conv_stem" in read
    conv_bn("conv1_1", *(("conv_stem", "bn1") if timm else ("features.0.0", "features.0.1")))
    position = 0
    for stage, (name, expansion, _, repetitions, _) in enumerate(STAGES):
        for index in range(repetitions):
            position += 1
            ours = f"{name}_{index + 1}"
            if timm:
                theirs = f"blocks.{stage}.{index}"
                expand, depthwise, linear = [("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")]
                if expansion == 1:
                    depthwise, linear = ("conv_dw", "bn1"), ("conv_pw", "bn2")
            else:
                theirs = f"features.{position}.conv"
                expand, depthwise, linear = [("0.0", "0.1"), ("1.0", "1.1"), ("2", "3")]
                if expansion == 1:
                    depthwise, linear = ("0.0", "0.1"), ("1", "2")
            if expansion == 1:
                read.identity(f"{ours}_expand", f"{ours}_expand_bn", 32)
            else:
                conv_bn(f"{ours}_expand", *(f"{theirs}.{layer}" for layer in expand))
            conv_bn(f"{ours}_dwise", *(f"{theirs}.{layer}" for layer in depthwise))
            conv_bn(f"{ours}_linear", *(f"{theirs}.{layer}" for layer in linear))
    conv_bn("conv9", *(("conv_head", "bn2") if timm else ("features.18.0", "features.18.1")))
    read.fc("fc10", "classifier" if timm else "classifier.1")


def convert_se_resnext(read: Converter, *, depth: int) -> None:
    """SE-ResNeXt of timm."""
    read.conv("conv1", "conv1")
    read.bn("conv1_bn", "bn1")
    for stage, blocks in enumerate(SE_RESNEXT_DEPTHS[depth], 2):
        for index in range(blocks):
            name, theirs = f"{stage}_{index + 1}", f"layer{stage - 1}.{index}"
            for number in (1, 2, 3):
                read.conv(f"conv{name}_x{number}", f"{theirs}.conv{number}")
                read.bn(f"conv{name}_x{number}_bn", f"{theirs}.bn{number}")
            read.fc(f"fc{name}_sqz", f"{theirs}.se.fc1")
            read.fc(f"fc{name}_exc", f"{theirs}.se.fc2")
            if index == 0:
                read.conv(f"conv{name}_prj", f"{theirs}.downsample.0")
                read.bn(f"conv{name}_prj_bn", f"{theirs}.downsample.1")
    read.fc("fc6", "fc", gain=2.0)


CONVERTERS: dict[str, Callable[[Converter], None]] = {
    "AlexNet": convert_alexnet,
    **{f"VGG{depth}_bias": partial(convert_vgg, depth=depth) for depth in (11, 13, 16, 19)},
    **{f"ResNet{depth}": partial(convert_resnet, depth=depth) for depth in (18, 34, 50, 101, 152)},
    **{f"ResNet{depth}_vd": partial(convert_resnet, depth=depth, variant="vd") for depth in (18, 34, 50, 101, 152)},
    "MobileNetV2": convert_mobilenet_v2,
    **{f"SE_ResNeXt{depth}_32x4d": partial(convert_se_resnext, depth=depth) for depth in (50, 101)},
}
"""Our networks that a PyTorch network equals."""
