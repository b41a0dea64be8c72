"""Weights of the Caffe VGG nets, as `caffe2fluid` calls them, under the names of this folder.

VGG_ILSVRC_16_layers and _19_layers of the paper's authors are `VGG16_bias` and `VGG19_bias` here, with two differences. They
were shown blue, green, red in 0..255 less a mean: the first filters change their order and scale, and their biases take up
what the means differ by (less than half of one of 255 steps; at the border, where padding counts as the mean, this is not
exact). And our networks multiply by .5 behind each dropout in inference, so that the matrices behind it are doubled.

No other of Caffe's classic nets computes what a network here does: AlexNet and CaffeNet have groups and response
normalisation, GoogLeNet has the latter, ResNet-50 its strides in other convolutions.
"""

from collections.abc import Mapping, Sequence

from fluid.errors import WeightsError

import numpy as np

CAFFE_MEAN = (123.68, 116.779, 103.939)
"""Red, green, blue, as published with the nets."""


def is_caffe(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the weights of such a net as `caffe2fluid` calls them."""
    return {"conv1_1_weights", "conv1_1_biases", "fc8_biases"} <= arrays.keys()


def from_caffe(
    model: str, arrays: Mapping[str, np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> dict[str, np.ndarray]:
    """All variables of `model`, for images normalised by `mean` and `std` (red, green, blue; shares of 255).

    Raises WeightsError where `model` is no VGG with biases, or the arrays are of another one.
    """
    from image_classification.models.vgg import DEPTHS

    depth = next((depth for depth in DEPTHS if model == f"VGG{depth}_bias"), None)
    if depth is None:
        raise WeightsError(
            f"weights of a Caffe VGG cannot be converted for {model}: it computes something else. They can for "
            + ", ".join(f"VGG{depth}_bias" for depth in DEPTHS)
        )
    layers = [f"conv{block}_{index}" for block, count in enumerate(DEPTHS[depth], 1) for index in range(1, count + 1)]
    layers += ["fc6", "fc7", "fc8"]
    wanted = {f"{layer}_{kind}" for layer in layers for kind in ("weights", "biases")}
    if arrays.keys() != wanted:
        odd = sorted(arrays.keys() ^ wanted)
        raise WeightsError(f"{model}: the converted Caffe net is another one: {odd[0]} is in only one of them")
    converted = {}
    for layer in layers:
        gain = np.float32(2.0 if layer in ("fc7", "fc8") else 1.0)
        converted[f"{layer}_weights"] = np.asarray(arrays[f"{layer}_weights"], np.float32) * gain
        converted[f"{layer}_offset"] = np.asarray(arrays[f"{layer}_biases"], np.float32)
    red_first = converted["conv1_1_weights"][:, ::-1]
    scale = np.asarray(std, np.float32) * 255
    shift = np.asarray(mean, np.float32) * 255 - np.asarray(CAFFE_MEAN, np.float32)
    converted["conv1_1_weights"] = np.ascontiguousarray(red_first * scale[:, None, None])
    converted["conv1_1_offset"] = converted["conv1_1_offset"] + np.einsum("ochw,c->o", red_first, shift)
    return converted
