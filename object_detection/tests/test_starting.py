"""What training starts from, and what of it is trained."""

import tarfile
from pathlib import Path
from typing import Any

from fluid import cache
from fluid.errors import UserError, WeightsError
from fluid.formats import legacy
from fluid.program import Program, initialise
from fluid.weights import compact, registry
from object_detection.detector import (
    COCO_CLASSES,
    DETECTION_VARIABLES,
    HEAD_VARIABLES,
    TASK,
    VOC_CLASSES,
    Detector,
    NetworkFlags,
    classes_of,
)
from object_detection.network import Freeze, prediction_program
from object_detection.nms import Nms
from object_detection.opening import open_detector
from object_detection.starting import load_weights, matches
from object_detection.tests.networks import DETECTOR, NARROW, SHAPES, SIZE, after_one_step, training

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[1]
ENTRIES = registry.load_registry(FOLDER)
VARIABLES = {"ssd_mobilenet_v1_pascalvoc": 199, "ssd_mobilenet_v1_coco": 175, "mobilenet_v1_imagenet": 135}
"""Of the releases of 2018."""


@pytest.fixture(scope="module")
def released() -> dict[str, np.ndarray]:
    """Random numbers as all variables of the release for PASCAL VOC; variances are positive."""
    program = prediction_program(Detector("ssd_mobilenet_v1", VOC_CLASSES), Nms())
    rng = np.random.default_rng(0)
    shapes = {name: array.shape for name, array in initialise(program, seed=0).items()}
    return {name: np.abs(rng.normal(0, 0.1, shape)).astype(np.float32) for name, shape in shapes.items()}


def part_of(name: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What an archive holds, beside the state of its optimizer."""
    left = {"ssd_mobilenet_v1_coco": HEAD_VARIABLES, "mobilenet_v1_imagenet": DETECTION_VARIABLES}.get(name, ())
    return {key: array for key, array in arrays.items() if not matches(key, left)}


@pytest.fixture
def archived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, released: dict[str, np.ndarray]) -> Any:
    """Puts a made archive where a download would lie: a folder of a file a variable, with moments of RMSProp."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))

    def make(name: str) -> dict[str, np.ndarray]:
        arrays = part_of(name, released)
        folder = tmp_path / name
        moments = {f"{key}_momentum_0": array for key, array in arrays.items() if key.endswith(".w_0")}
        legacy.write_folder(folder, {**arrays, **moments})
        place = registry.cache_folder(ENTRIES[name])
        place.mkdir(parents=True)
        with tarfile.open(place / ENTRIES[name].archive_name, "w:gz", compresslevel=1) as file:
            file.add(folder, arcname=name)
        return arrays

    return make


@pytest.mark.parametrize("name", VARIABLES)
def test_the_list_agrees_with_the_network(name: str, released: dict[str, np.ndarray]) -> None:
    entry, arrays = ENTRIES[name], part_of(name, released)
    assert entry.variables == len(arrays) == VARIABLES[name]
    assert entry.size == sum(array.nbytes for array in arrays.values())
    assert "Apache-2.0" in entry.licence and entry.naming == "auto_2018"
    assert all(matches(key, entry.optional) for key in released.keys() - arrays.keys())
    assert not any(matches(key, entry.optional) for key in arrays)


def test_the_release_for_voc_is_used_as_it_is(archived: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = archived("ssd_mobilenet_v1_pascalvoc")
    opened = open_detector(NetworkFlags(pretrained_model="ssd_mobilenet_v1_pascalvoc"))
    assert opened.facts == Detector("ssd_mobilenet_v1", VOC_CLASSES)
    assert opened.state.keys() == arrays.keys()
    assert all(np.array_equal(opened.state[name], array) for name, array in arrays.items())
    assert "UNVERIFIED" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["ssd_mobilenet_v1_coco", "mobilenet_v1_imagenet"])
def test_a_release_without_heads_is_trained_from(archived: Any, name: str) -> None:
    arrays = archived(name)
    with pytest.raises(WeightsError, match="to be trained from alone"):
        open_detector(NetworkFlags(pretrained_model=name))
    state = initialise(training(Detector("ssd_mobilenet_v1", ("cat",))), seed=0)
    names = prediction_program(Detector("ssd_mobilenet_v1", ("cat",)), Nms()).state_names
    loaded, report = load_weights(state, names, name)
    assert sorted(report.loaded) == sorted(arrays)
    assert sorted(report.default) == sorted(set(names) - arrays.keys())
    assert all(np.array_equal(loaded[key], array) for key, array in arrays.items())
    assert "initial value" in str(report)


def test_other_classes_keep_the_boxes(archived: Any, released: dict[str, np.ndarray]) -> None:
    archived("ssd_mobilenet_v1_pascalvoc")
    program = prediction_program(Detector("ssd_mobilenet_v1", ("cat", "dog")), Nms())
    state = initialise(program, seed=0)
    loaded, report = load_weights(state, program.state_names, "ssd_mobilenet_v1_pascalvoc")
    assert len(report.head) == 12 and len(report.loaded) == 187
    assert np.array_equal(loaded["conv2d_22.w_0"], released["conv2d_22.w_0"])
    assert np.array_equal(loaded["conv2d_23.w_0"], state["conv2d_23.w_0"])


def test_another_backbone_is_an_error(archived: Any) -> None:
    archived("mobilenet_v1_imagenet")
    program = prediction_program(DETECTOR, Nms())
    with pytest.raises(WeightsError, match="not one variable fits"):
        load_weights(initialise(program, seed=0), program.state_names, "mobilenet_v1_imagenet")


def test_names_of_classes() -> None:
    assert classes_of(20) == VOC_CLASSES and classes_of(80) == COCO_CLASSES and len(COCO_CLASSES) == 80
    ids = classes_of(90)
    assert (ids[0], ids[12], ids[43], ids[89]) == ("person", "stop sign", "bottle", "toothbrush")
    assert [name for name in ids if not name.startswith("unused")] == list(COCO_CLASSES)
    assert classes_of(2) == ("class 0", "class 1")


def test_a_network_must_be_named(tmp_path: Path, released: dict[str, np.ndarray]) -> None:
    compact.write(tmp_path / "bare.safetensors", released, compact.Description(TASK))
    spec = str(tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="give --model too"):
        open_detector(NetworkFlags(pretrained_model=spec))
    assert open_detector(NetworkFlags(pretrained_model=spec, model="ssd_mobilenet_v1")).facts.class_names == VOC_CLASSES


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    return {name for name in before if not np.array_equal(before[name], after[name])}


@pytest.fixture(scope="module")
def programs() -> dict[Freeze, Program]:
    choices: tuple[Freeze, ...] = ("none", "statistics", "backbone")
    return {freeze: training(freeze=freeze) for freeze in choices}


@pytest.fixture(scope="module")
def steps(programs: dict[Freeze, Program]) -> dict[Freeze, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The state before and after an update, by what is frozen."""
    return {freeze: after_one_step(program) for freeze, program in programs.items()}


def test_what_is_frozen_stays(programs: Any, steps: Any) -> None:
    moved = {freeze: changed(*states) for freeze, states in steps.items()}
    statistics = {name for name in moved["none"] if name.endswith((".w_1", ".w_2"))}
    assert statistics and moved["statistics"] == moved["none"] - statistics
    assert moved["backbone"] == {name for name in moved["statistics"] if matches(name, DETECTION_VARIABLES)}
    assert moved["backbone"] and programs["backbone"].trainable == [
        name for name in programs["none"].trainable if matches(name, DETECTION_VARIABLES)
    ]


def test_convolutions_learn_at_a_rate_of_their_own(steps: Any) -> None:
    (before, full), (_, tenth) = steps["statistics"], after_one_step(training(freeze="statistics", conv_lr=0.1))
    for name in changed(before, full):
        own = before[name].ndim == 4 and not matches(name, HEAD_VARIABLES)
        expected = (full[name] - before[name]) * (0.1 if own else 1)
        np.testing.assert_allclose(tenth[name] - before[name], expected, atol=1e-6, err_msg=name)


def test_another_size_of_the_input() -> None:
    model = Detector(NARROW, SHAPES, image_size=608).network
    assert list(model.cells.values()) == [152, 76, 38, 19, 10, 5, 3, 2]
    assert len(model.prior_boxes) == 3 * 38**2 + 6 * (19**2 + 10**2 + 5**2 + 3**2 + 2**2)
    small = Detector(NARROW, SHAPES, image_size=SIZE).network
    assert list(small.cells.values()) == [16, 8, 4, 2, 1]
    program = prediction_program(Detector(NARROW, SHAPES, image_size=SIZE), Nms())
    assert program.inputs["image"].shape == (None, SIZE, SIZE, 3)
    for name, size, message in ((NARROW, 30, "at least 64"), ("ssd_vgg16_300", 320, "300 pixels alone")):
        with pytest.raises(UserError, match=message):
            _ = Detector(name, SHAPES, image_size=size).network
