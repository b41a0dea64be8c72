"""Caffe's VGG nets under our names."""

from fluid.errors import WeightsError
from image_classification.caffe_names import CAFFE_MEAN, from_caffe, is_caffe
from image_classification.classifier import Classifier
from image_classification.fitting import translated
from image_classification.models import find_model
from image_classification.reader import Preprocess
from image_classification.tests.networks import build_classifier, shapes

import numpy as np
import pytest

MODEL = find_model("VGG11_bias")


@pytest.fixture(scope="module")
def ours() -> dict[str, list[int]]:
    return shapes(build_classifier("VGG11_bias", (3, 32, 32), 10))


@pytest.fixture
def arrays(ours: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Of the shapes and names that a converted net has: [in, out] in its matrices."""
    rng = np.random.default_rng(0)
    small = {
        "conv1_1_weights": rng.normal(size=ours["conv1_1_weights"]),
        "fc8_weights": rng.normal(size=ours["fc8_weights"]),
    }
    named = {name.replace("_offset", "_biases"): np.zeros(shape, "float32") for name, shape in ours.items()}
    return named | {name: array.astype("float32") for name, array in small.items()}


def test_every_variable_has_its_place(ours: dict[str, list[int]], arrays: dict[str, np.ndarray]) -> None:
    classifier = Classifier(
        model="VGG11_bias",
        class_dim=10,
        preprocess=Preprocess((3, 32, 32), 32),
        mean=MODEL.mean,
        std=MODEL.std,
        class_names=[],
    )
    assert is_caffe(arrays)
    converted = translated(arrays, ours, classifier)
    assert {name: list(array.shape) for name, array in converted.items()} == ours
    np.testing.assert_array_equal(converted["fc8_weights"], arrays["fc8_weights"] * 2)


def test_the_first_convolution_sees_the_same(arrays: dict[str, np.ndarray]) -> None:
    """Caffe's pixels (blue first, less its mean) and ours (red first, normalised) give it the same sums."""
    patch = np.random.default_rng(1).integers(0, 256, (3, 3, 3)).astype(np.float64)  # [red first, H, W]
    theirs = (patch - np.array(CAFFE_MEAN)[:, None, None])[::-1]
    expected = np.einsum("ochw,chw->o", arrays["conv1_1_weights"].astype(np.float64), theirs)
    converted = from_caffe("VGG11_bias", arrays, MODEL.mean, MODEL.std)
    seen = (patch / 255 - np.array(MODEL.mean)[:, None, None]) / np.array(MODEL.std)[:, None, None]
    found = np.einsum("ochw,chw->o", converted["conv1_1_weights"], seen) + converted["conv1_1_offset"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_other_nets_are_refused(arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(WeightsError, match="cannot be converted for ResNet50.*They can for VGG11_bias"):
        from_caffe("ResNet50", arrays, MODEL.mean, MODEL.std)
    with pytest.raises(WeightsError, match="conv1_2_biases is in only one of them"):
        from_caffe("VGG16_bias", arrays, MODEL.mean, MODEL.std)
    assert not is_caffe({"conv1_1_weights": np.zeros(1), "conv1_1_offset": np.zeros(1)})
