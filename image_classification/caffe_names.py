"""Weights of Caffe's nets, as `caffe2fluid` calls them, under the names of this folder.

The same are VGG_ILSVRC_16_layers and _19_layers of the paper's authors (`VGG16_bias`, `VGG19_bias`), ResNet-50, -101 and -152
of theirs (`ResNet50_caffe` and so on), SE-ResNeXt-50 and -101 of theirs (`SE_ResNeXt50_32x4d_caffe`), BVLC's AlexNet, CaffeNet and
GoogLeNet (`AlexNet_caffe`, `CaffeNet`, `GoogLeNet_caffe`; AlexNet and CaffeNet cannot be told apart by their weights), the
MobileNet of shicai/MobileNet-Caffe (`MobileNetV1`) and the DPNs of soeaver/caffe-model (`DPN92`), with two differences. They were shown blue, green, red in 0..255 less a mean:
the first filters change their order and scale, and what follows them takes up what the means differ by (less than one of 255
steps; at the border, where padding counts as the mean, this is not exact). And ours multiply by 1 - rate behind each dropout in
inference, so that the matrices behind it are divided by that.

Other classic nets of Caffe compute what no network here does: Inception-v4 averages over padding, shicai's MobileNetV2 has plain
relus.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from fluid.errors import WeightsError

import numpy as np

Arrays = Mapping[str, np.ndarray]

EPSILON = 1e-5
"""Of our batch normalisation."""


@dataclass(frozen=True)
class Family:
    """Nets of one kind: what they are known by, our networks that compute the same, and how their images were prepared."""

    name: str
    mark: str
    """A variable that only they have."""
    models: str
    """Pattern of our names."""
    mean: tuple[float, float, float]
    """Red, green, blue of 0..255, subtracted before ..."""
    scale: float
    """... they were multiplied by this."""
    first: str
    """Layer that sees the image."""
    head: str
    """Our last layer."""
    norm: str | None = None
    """Batch normalisation behind the first layer."""
    hidden: tuple[str, ...] = ()
    """Layers with biases before the last one that are no convolutions."""
    gains: Mapping[str, float] = field(default_factory=dict)
    """Of matrices behind a dropout."""
    epsilon: float = EPSILON
    """Of batch normalisation."""


FC = {"hidden": ("fc6", "fc7"), "gains": {"fc7_weights": 2.0, "fc8_weights": 2.0}}
BVLC = (123.0, 117.0, 104.0)
RESNET = (123.1516, 115.9029, 103.0626)
"""The mean colour of ResNet_mean.binaryproto."""
FAMILIES = (
    Family("VGG", "conv1_1_biases", r"VGG\d+_bias", (123.68, 116.779, 103.939), 1.0, "conv1_1", "fc8", **FC),
    Family("ResNet", "res2a_branch2a_weights", r"ResNet\d+_caffe", RESNET, 1.0, "conv1", "fc_0", "bn_conv1"),
    Family("MobileNet", "conv2_1_dw_weights", r"MobileNetV1\w*", (123.68, 116.78, 103.94), 0.017, "conv1", "fc7", "conv1_bn"),
    Family("SE-ResNeXt", "conv2_1_1x1_reduce_weights", r"SE_ResNeXt\d+_32x4d_caffe", BVLC, 1.0, "conv1", "fc6", "conv1_bn",
           gains={"fc6_weights": 2.0}),
    Family("AlexNet or CaffeNet", "conv5_biases", r"AlexNet_caffe(net)?", BVLC, 1.0, "conv1", "fc8", **FC),
    Family("GoogLeNet", "inception_3a_1x1_weights", "GoogLeNet_caffe", BVLC, 1.0, "conv1_7x7_s2", "loss3_classifier",
           gains={"loss3_classifier_weights": 1 / 0.6}),
    Family("DPN", "dpn1_match_conv_weights", r"DPN\d+", (124, 117, 104), 0.0167, "conv1", "fc", "conv1_bn", epsilon=1e-3),
)  # fmt: skip
SE_RESNEXT = {
    "x1": "1x1_reduce",
    "x2": "3x3",
    "x3": "1x1_increase",
    "prj": "1x1_proj",
    "sqz": "1x1_down",
    "exc": "1x1_up",
}

DPN = {"conv1_bn": "bn", "conv2_bn": "conv1_bn", "conv3_bn": "conv2_bn", "match": "match_conv"}
"""Names there say which layer a normalisation follows, not which one it precedes."""


def family_of(arrays: Arrays) -> Family | None:
    """Whose weights these are, if `caffe2fluid` wrote them: nobody else here calls a bias `biases`."""
    if not any(name.endswith("_biases") for name in arrays):
        return None
    return next((family for family in FAMILIES if family.mark in arrays), None)


def from_caffe(
    model: str, names: Collection[str], arrays: Arrays, mean: Sequence[float], std: Sequence[float]
) -> dict[str, np.ndarray]:
    """All variables of `model`, whose names are `names`, for images normalised by `mean` and `std` (red, green, blue; of 1).

    Raises WeightsError where `model` computes something else, or the arrays are of another net.
    """
    family = family_of(arrays)
    if family is None or not re.fullmatch(family.models, model):
        from image_classification.models import MODELS

        same = [name for name in MODELS if family and re.fullmatch(family.models, name)]
        raise WeightsError(
            f"weights of a Caffe {family.name if family else 'net'} cannot be converted for {model}: it computes something "
            f"else. They can for {', '.join(same)}"
        )
    head = _head(model, family, arrays)
    theirs = {name: _name_in_caffe(name, head, model, family) for name in names}
    theirs |= {"": f"{family.first}_biases"} if f"{family.first}_biases" in arrays and family.norm else {}
    if odd := sorted(arrays.keys() ^ set(theirs.values())):
        raise WeightsError(f"{model}: the converted Caffe net is another one: {odd[0]} is in only one of them")
    found = {name: np.asarray(arrays[other], np.float32) for name, other in theirs.items()}
    for name, array in found.items():
        if name.startswith("fc") and array.ndim == 4:  # a 1x1 convolution there
            found[name] = array.reshape(array.shape[:2]).T
        if name.endswith("_variance"):
            found[name] = array + np.float32(family.epsilon - EPSILON)
        if name in family.gains:
            found[name] = found[name] * np.float32(family.gains[name])
    _show_red_first(found, family, mean, std)
    found.pop("", None)
    return found


def _head(model: str, family: Family, arrays: Arrays) -> str:
    """The last layer, whatever it is called: fc8, fc1000, fc7, or what a net was trained further with."""
    layers = [name.removesuffix("_biases") for name in arrays if name.endswith("_biases")]
    heads = [name for name in layers if not re.match(r"conv\d|inception_", name) and name not in family.hidden]
    if len(heads) != 1:
        raise WeightsError(f"{model}: the converted Caffe net has not one last layer but {', '.join(heads) or 'none'}")
    return heads[0]


def _name_in_caffe(name: str, head: str, model: str, family: Family) -> str:
    """Of our variable in the converted net."""
    layer, _, kind = name.replace(".w_0", "_weights").replace(".b_0", "_offset").rpartition("_")
    normalised = layer.startswith("bn") or layer.endswith("_bn")
    if layer == family.head:
        layer = head
    elif family.name == "SE-ResNeXt":
        part = re.match(r"(?:conv|fc)(\d+_\d+)_(x\d|prj|sqz|exc)(?=_|$)", layer)
        layer = layer if part is None else f"conv{part[1]}_{SE_RESNEXT[part[2]]}{layer[part.end() :]}"
        layer = re.sub("^conv1(?=_bn|$)", "conv1_7x7_s2", layer)
    elif family.name == "DPN":
        block, _, part = layer.partition("_")
        layer = f"{block}_{DPN.get(part, part)}" if block.startswith("dpn") else layer.replace("final", "pool_ave")
    elif re.match(r"ResNet1\d\d", model):  # the long stages count res3b1, res3b2, ...
        number = re.match(r"(res|bn)3([b-z])_", layer)
        layer = layer if number is None else f"{number[1]}3b{ord(number[2]) - ord('a')}_{layer[number.end() :]}"
    return f"{layer}_{'biases' if kind == 'offset' and not normalised else kind}"


def _show_red_first(found: dict[str, np.ndarray], family: Family, mean: Sequence[float], std: Sequence[float]) -> None:
    """Changes the first filters, and what is added behind them, to images as ours are."""
    red_first = found[f"{family.first}_weights"][:, ::-1] * np.float32(family.scale)
    shift = np.asarray(mean, np.float32) * 255 - np.asarray(family.mean, np.float32)
    added = np.einsum("ochw,c->o", red_first, shift)
    found[f"{family.first}_weights"] = np.ascontiguousarray(
        red_first * (np.asarray(std, np.float32) * 255)[:, None, None]
    )
    if family.norm is None:
        found[f"{family.first}_offset"] = found[f"{family.first}_offset"] + added
    else:
        added = added + found.get("", np.float32(0))
        found[f"{family.norm}_mean"] = found[f"{family.norm}_mean"] - added
