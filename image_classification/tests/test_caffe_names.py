"""Caffe's VGG nets under our names."""

from fluid.errors import WeightsError
from image_classification.caffe_names import FAMILIES, family_of, from_caffe
from image_classification.classifier import Classifier
from image_classification.fitting import translated
from image_classification.models import find_model
from image_classification.reader import Preprocess
from image_classification.tests.networks import build_classifier, shapes

import numpy as np
import pytest

MODEL = find_model("VGG11_bias")
VGG, RESNET, *_ = FAMILIES


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
    assert family_of(arrays) is VGG
    converted = translated(arrays, ours, classifier)
    assert {name: list(array.shape) for name, array in converted.items()} == ours
    np.testing.assert_array_equal(converted["fc8_weights"], arrays["fc8_weights"] * 2)


def test_the_first_convolution_sees_the_same(ours: dict[str, list[int]], arrays: dict[str, np.ndarray]) -> None:
    """Caffe's pixels (blue first, less its mean) and ours (red first, normalised) give it the same sums."""
    patch = np.random.default_rng(1).integers(0, 256, (3, 3, 3)).astype(np.float64)  # [red first, H, W]
    theirs = (patch - np.array(VGG.mean)[:, None, None])[::-1]
    expected = np.einsum("ochw,chw->o", arrays["conv1_1_weights"].astype(np.float64), theirs)
    converted = from_caffe("VGG11_bias", ours, arrays, MODEL.mean, MODEL.std)
    seen = (patch / 255 - np.array(MODEL.mean)[:, None, None]) / np.array(MODEL.std)[:, None, None]
    found = np.einsum("ochw,chw->o", converted["conv1_1_weights"], seen) + converted["conv1_1_offset"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_statistics_take_up_other_means_and_a_bias() -> None:
    """Caffe's pixels and ours give the same behind the batch normalisation of the first convolution."""
    model, rng = find_model("ResNet50_caffe"), np.random.default_rng(2)
    names = list(shapes(build_classifier("ResNet50_caffe", (3, 32, 32), 7)))
    arrays = {name: np.zeros((1, 1, 1, 1), "float32") for name in names if not name.startswith("fc_0")}
    arrays |= {
        "new_weights": np.zeros((2048, 7), "float32"),
        "new_biases": np.zeros(7, "float32"),
    }  # its head has another name
    filters, bias, means = rng.normal(size=(4, 3, 7, 7)), rng.normal(size=4), rng.normal(size=4)
    arrays |= {"conv1_weights": filters, "conv1_biases": bias, "bn_conv1_mean": means}
    assert family_of(arrays) is RESNET
    converted = from_caffe("ResNet50_caffe", names, arrays, model.mean, model.std)
    assert converted.keys() == set(names) and converted["fc_0.w_0"].shape == (2048, 7)
    patch = rng.integers(0, 256, (3, 7, 7)).astype(np.float64)  # [red first, H, W]
    theirs = (patch - np.array(RESNET.mean)[:, None, None])[::-1]
    expected = np.einsum("ochw,chw->o", filters, theirs) + bias - means
    seen = (patch / 255 - np.array(model.mean)[:, None, None]) / np.array(model.std)[:, None, None]
    found = np.einsum("ochw,chw->o", converted["conv1_weights"], seen) - converted["bn_conv1_mean"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-2)


def test_long_stages_are_counted() -> None:
    """res3b of ours is res3b1 in ResNet-101 and -152 of Caffe."""
    names = ["conv1_weights", "bn_conv1_mean", "res3a_branch1_weights", "res3b_branch2a_weights", "bn3h_branch2c_mean",
             "res4b35_branch2a_weights", "res5c_branch2a_weights", "fc_0.w_0", "fc_0.b_0"]  # fmt: skip
    theirs = ["conv1_weights", "bn_conv1_mean", "res3a_branch1_weights", "res3b1_branch2a_weights", "bn3b7_branch2c_mean",
              "res4b35_branch2a_weights", "res5c_branch2a_weights", "fc1000_weights", "fc1000_biases"]  # fmt: skip
    arrays = {name: np.full((1, 3, 1, 1), index, "float32") for index, name in enumerate(theirs)}
    arrays["res2a_branch2a_weights"] = arrays["res3a_branch1_weights"]
    names.append("res2a_branch2a_weights")
    converted = from_caffe("ResNet152_caffe", names, arrays, RESNET.mean, (1, 1, 1))
    for index, name in enumerate(names[2:8], 2):
        assert converted[name].flat[0] == index


def test_other_nets_are_refused(ours: dict[str, list[int]], arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(WeightsError, match="Caffe VGG cannot be converted for ResNet50.*They can for VGG11_bias"):
        from_caffe("ResNet50", ours, arrays, MODEL.mean, MODEL.std)
    with pytest.raises(WeightsError, match="conv9_1_biases is in only one of them"):
        from_caffe("VGG11_bias", [*ours, "conv9_1_offset"], arrays, MODEL.mean, MODEL.std)
    with pytest.raises(WeightsError, match="not one last layer but fc8, other"):
        from_caffe("VGG11_bias", ours, arrays | {"other_biases": np.zeros(1)}, MODEL.mean, MODEL.std)
    assert family_of({"conv1_1_weights": np.zeros(1), "conv1_1_offset": np.zeros(1)}) is None
