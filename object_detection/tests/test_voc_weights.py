"""The detector that comes along: what it is made of, what storing it in 8 bits costs, and what it sees."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from fluid.engine.paddle import PaddleEngine
from fluid.errors import WeightsError
from fluid.weights import compact
from fluid.weights.registry import load_registry
from object_detection import boxes as box
from object_detection.caffe_names import MAPS, backbone, is_caffe, known_names
from object_detection.detector import VOC_CLASSES, Detector, NetworkFlags, normalise_array, rows
from object_detection.network import inference_program, prediction_program
from object_detection.nms import Nms
from object_detection.opening import open_detector
from object_detection.starting import load_weights

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

FOLDER = Path(__file__).resolve().parents[1]
PHOTOGRAPHS = sorted((FOLDER / "data" / "photographs").glob("*.jpg"))


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_voc_weights", FOLDER / "data" / "build_voc_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if importlib.util.find_spec(module.PACKAGE) is None and not os.environ.get("ZOO_LOCKED"):
        pytest.skip(f"the Caffe model, package {module.PACKAGE}, is not installed")
    return module


@pytest.fixture(scope="module")
def photographs() -> np.ndarray:
    return np.stack([cv2.resize(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), (300, 300)) for path in PHOTOGRAPHS])


def detections(weights: dict[str, np.ndarray], images: np.ndarray) -> list[np.ndarray]:
    engine = PaddleEngine()
    engine.load(weights)
    found = engine.run(prediction_program(Detector("ssd_mobilenet_v1", VOC_CLASSES), Nms()), {"image": images})
    return rows(np.asarray(found["detections"]), np.asarray(found["detections_num"]))


def test_as_opencv_runs_the_caffe_model(builder: ModuleType, photographs: np.ndarray) -> None:
    network = builder.caffe_network()
    for image, ours in zip(photographs, detections(builder.convert(network), photographs), strict=True):
        network.setInput(normalise_array(image[None]))
        found = network.forward()[0, 0]
        # Class from 1 and score come before the box; OpenCV lists more of the hardly probable ones.
        theirs = found[found[:, 2] > 0.25][:, 1:] - [1, 0, 0, 0, 0, 0]
        theirs = theirs[np.lexsort((-theirs[:, 1], theirs[:, 0]))]
        np.testing.assert_allclose(ours[ours[:, 1] > 0.25], theirs, atol=1e-5)
        assert len(theirs)


def test_as_caffe2fluid_converts_it(builder: ModuleType, photographs: np.ndarray, tmp_path: Path) -> None:
    """Its net finds the same, and its weights load here as they are, from the folder that it writes."""
    for name, content in zip(("net.prototxt", "net.caffemodel"), builder.caffe_files(), strict=True):
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "in.npz", data=normalise_array(photographs[:1]))
    converter, net = FOLDER.parent / "caffe2fluid", tmp_path / "net"
    for script, *words in (
        ("convert", tmp_path / "net.prototxt", "--caffemodel", tmp_path / "net.caffemodel", "--output", net),
        ("infer", net, "--feed", tmp_path / "in.npz", "--fetch", tmp_path / "out.npz"),
    ):
        command = [sys.executable, str(converter / f"{script}.py"), *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    opened = open_detector(NetworkFlags(pretrained_model=str(net)))
    assert opened.facts == Detector("ssd_mobilenet_v1", VOC_CLASSES)
    expected = builder.convert(builder.caffe_network())
    assert opened.state.keys() == expected.keys()
    assert [name for name in expected if not np.array_equal(expected[name], opened.state[name])] == []
    with np.load(tmp_path / "out.npz") as found:
        theirs = found["detection_out"][0, 0]
    theirs = theirs[theirs[:, 2] > 0.25][:, 1:] - [1, 0, 0, 0, 0, 0]
    (ours,) = detections(opened.state, photographs[:1])
    np.testing.assert_allclose(ours[ours[:, 1] > 0.25], theirs, atol=1e-5)
    assert len(theirs)


def test_other_caffe_nets_are_refused(builder: ModuleType) -> None:
    arrays = {name: np.zeros((6, 1, 1, 1)) for name in ("conv0_weights", "conv1_dw_weights", "conv11_mbox_loc_weights")}
    assert is_caffe(arrays)
    with pytest.raises(WeightsError, match="has no conv0_biases; it must be MobileNetSSD_deploy"):
        known_names(arrays)
    own = {"conv2d_0.w_0": np.zeros(3)}
    assert known_names(own) is own


def test_training_starts_from_the_converted_net(builder: ModuleType, tmp_path: Path) -> None:
    network, flat = builder.caffe_network(), {}
    for layer in [layer for _, layer in backbone()] + [
        f"{name}_mbox_{part}" for name in MAPS for part in ("loc", "conf")
    ]:
        for index, kind in enumerate(("weights", "biases")):
            flat[f"{layer}_{kind}"] = np.asarray(network.getParam(layer.replace("_dw", "/dw"), index), np.float32)
    save_file(flat, tmp_path / "net.safetensors")
    expected = builder.convert(network)
    fresh = {name: np.zeros_like(array) for name, array in expected.items()}
    state, _ = load_weights(fresh, list(fresh), str(tmp_path / "net.safetensors"))
    assert [name for name in expected if not np.array_equal(expected[name], state[name])] == []


def test_the_file_is_made_of_it(builder: ModuleType) -> None:
    weights = builder.convert(builder.caffe_network())
    stored, description = compact.read(builder.TARGET)
    assert description == builder.DESCRIPTION
    expected = compact.rounded(weights, "int8", builder.finer(weights))
    assert stored.keys() == expected.keys()
    assert [name for name, array in stored.items() if array.tobytes() != expected[name].tobytes()] == []


def test_eight_bits_change_nothing_that_counts(builder: ModuleType, photographs: np.ndarray) -> None:
    """The same detections above .3, within a pixel of 300 and .01."""
    full = detections(builder.convert(builder.caffe_network()), photographs)
    stored = detections(compact.read(builder.TARGET)[0], photographs)
    for one, other in zip(full, stored, strict=True):
        one, other = one[one[:, 1] > 0.3], other[other[:, 1] > 0.3]
        np.testing.assert_array_equal(one[:, 0], other[:, 0])
        assert np.abs(one[:, 1] - other[:, 1]).max() < 0.01
        assert np.abs(one[:, 2:] - other[:, 2:]).max() < 1 / 300


def test_what_it_sees(photographs: np.ndarray) -> None:
    """A person and a cat, about where people would draw their boxes."""
    entry = load_registry(FOLDER)["ssd_mobilenet_v1_voc"]
    assert entry.file is not None
    weights, description = compact.read(entry.file)
    assert description is not None
    detector = Detector.from_facts(description.facts["detector"])
    expected = {"astronaut": ("person", [0.04, 0.01, 0.72, 1]), "chelsea": ("cat", [0, 0.02, 0.93, 1])}
    for path, found in zip(PHOTOGRAPHS, detections(weights, photographs), strict=True):
        name, where = expected[path.stem]
        (best,) = found[found[:, 1] > 0.5]
        assert detector.class_names[int(best[0])] == name
        assert box.ious(best[None, 2:], np.array([where]))[0, 0] > 0.9


def test_raw_outputs_agree_with_those_of_pictures(photographs: np.ndarray) -> None:
    weights, _ = compact.read(FOLDER / "data" / "ssd_mobilenet_v1_voc.safetensors")
    detector = Detector("ssd_mobilenet_v1", VOC_CLASSES)
    engine = PaddleEngine()
    engine.load(weights)
    found = engine.run(inference_program(detector, Nms()), {"image": normalise_array(photographs)})
    shapes = {name: np.asarray(array).shape for name, array in found.items()}
    assert shapes == {
        "loc": (2, 1917, 4),
        "conf": (2, 1917, 21),
        "prior_boxes": (1917, 4),
        "prior_variances": (1917, 4),
        "detections": (2, 200, 6),
        "detections_num": (2,),
    }
    raw = rows(np.asarray(found["detections"]), np.asarray(found["detections_num"]))
    for one, other in zip(raw, detections(weights, photographs), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    np.testing.assert_array_equal(found["prior_variances"][7], np.array([0.1, 0.1, 0.2, 0.2], np.float32))
