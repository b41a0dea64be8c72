"""MobileNet-SSD of Caffe (chuanqi305) under the names that Fluid gave: what `caffe2fluid` made of a caffemodel loads here.

It is the network of `ssd_mobilenet_v1` with two differences. Batch normalisation is folded into the convolutions: here it has
scale 1, mean 0, variance 1 - epsilon, and the bias as its offset. And the priors of a cell come in the order min, max,
2, 1/2, 3, 1/3 where Fluid has the max last, so the filters of the heads change places.
"""

from collections.abc import Iterator, Mapping

from fluid.errors import WeightsError

import numpy as np

MODEL = "ssd_mobilenet_v1"
FOLDED_VARIANCE = 1 - 1e-5
CAFFE_ORDER = (0, 2, 3, 4, 5, 1)
"""Prior k of a cell in Fluid's order is prior CAFFE_ORDER[k] of Caffe's."""
MAPS = ("conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2")
EXTRAS = tuple(f"conv{number}_{part}" for number in range(14, 18) for part in (1, 2))
BOXES_OF_CELL = (3, 6, 6, 6, 6, 6)


def is_caffe(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are the weights of such a net as `caffe2fluid` calls them."""
    return {"conv0_weights", "conv1_dw_weights", "conv11_mbox_loc_weights"} <= arrays.keys()


def from_caffe(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All 199 variables of `ssd_mobilenet_v1`, float32, from LAYER_weights and LAYER_biases of the deploy net.

    Raises WeightsError if a layer is missing or has another form.
    """

    def blob(layer: str, kind: str) -> np.ndarray:
        if (array := arrays.get(f"{layer}_{kind}")) is None:
            raise WeightsError(
                f"the converted Caffe net has no {layer}_{kind}; it must be MobileNetSSD_deploy, whose batch normalisation is "
                "merged into the convolutions"
            )
        return np.asarray(array, np.float32)

    weights: dict[str, np.ndarray] = {}
    for index, (name, layer) in enumerate(backbone()):
        bias = blob(layer, "biases").ravel()
        weights[f"{name}.w_0"] = blob(layer, "weights")
        weights[f"batch_norm_{index}.w_0"] = np.ones_like(bias)
        weights[f"batch_norm_{index}.b_0"] = bias
        weights[f"batch_norm_{index}.w_1"] = np.zeros_like(bias)
        weights[f"batch_norm_{index}.w_2"] = np.full_like(bias, FOLDED_VARIANCE)
    for index, (layer, boxes) in enumerate(zip(MAPS, BOXES_OF_CELL, strict=True)):
        for offset, part in enumerate(("loc", "conf")):
            name, kernel = f"conv2d_{22 + 2 * index + offset}", blob(f"{layer}_mbox_{part}", "weights")
            bias = blob(f"{layer}_mbox_{part}", "biases").ravel()
            if len(bias) % boxes:
                raise WeightsError(f"the converted Caffe net's {layer}_mbox_{part} is not of {boxes} priors a cell")
            columns = len(bias) // boxes
            order = CAFFE_ORDER if boxes == 6 else range(boxes)
            rows = np.concatenate([np.arange(prior * columns, (prior + 1) * columns) for prior in order])
            weights[f"{name}.w_0"], weights[f"{name}.b_0"] = np.ascontiguousarray(kernel[rows]), bias[rows]
    return weights


def backbone() -> Iterator[tuple[str, str]]:
    """Name of a convolution here, and of the layer there, in the order of the batch normalisations."""
    yield "conv2d_0", "conv0"
    for number in range(1, 14):
        yield f"depthwise_conv2d_{number - 1}", f"conv{number}_dw"
        yield f"conv2d_{number}", f"conv{number}"
    for number, layer in enumerate(EXTRAS, 14):
        yield f"conv2d_{number}", layer


def known_names(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays by the names of this folder's networks, whether they have them already or are Caffe's."""
    return from_caffe(arrays) if is_caffe(arrays) else arrays
