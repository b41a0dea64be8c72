"""The networks: names and shapes of the released one, published numbers of priors and parameters, both engines."""

import dataclasses
from pathlib import Path

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.errors import UserError
from fluid.interface import Input
from fluid.program import Program, Value, build, initialise
from fluid.tests.gradients import gradients
from object_detection.loss import ssd_loss
from object_detection.models import MODELS, Model, find_model
from object_detection.models.layers import l2_norm
from object_detection.priors import PriorMap

import numpy as np
import pytest

RELEASED = Path(__file__).parent / "golden" / "ssd_mobilenet_v1_pascalvoc.tsv"
TINY = dataclasses.replace(
    find_model("ssd_mobilenet_v1"),
    width=0.1,
    image_size=64,
    priors={"conv2d_3": PriorMap(16, (0.2,), ratios=(2.0,)), "conv2d_5": PriorMap(8, (0.5,), (0.8,))},
)
"""With maps of 16 and of 8 cells; what would lie behind them is not built."""


def program(model: Model, num_classes: int = 20) -> Program:
    def network(image: Value, training: bool) -> dict[str, Value]:
        offsets, logits = model.build(image, num_classes, training)
        return {"offsets": offsets, "logits": logits}

    return build(network, [Input("image", (None, 3, model.image_size, model.image_size))], name=model.name)


def test_names_and_shapes_of_the_release() -> None:
    rows = [line.split("\t") for line in RELEASED.read_text().splitlines()[1:]]
    built = program(find_model("ssd_mobilenet_v1"))
    values = {value.name: value for value in built.main.global_block().all_parameters()}
    found = [[name, str(list(values[name].shape)), str(name in built.trainable)] for name in built.state_names]
    assert len(rows) == 199
    assert sorted(found) == sorted(rows)


@pytest.mark.parametrize("name", MODELS)
def test_maps_and_priors(name: str) -> None:
    """The network makes maps of as many cells as the table says; as many predictions as priors."""
    model = find_model(name)
    narrow = dataclasses.replace(model, width=0.01)
    built = program(narrow, 3)
    priors = {"ssd_vgg16_300": 8732, "ssd_vgg16_512": 24564}.get(name, 1917)
    assert model.prior_boxes.shape == (priors, 4)
    assert list(built.values["offsets"].shape) == [-1, priors, 4]
    assert list(built.values["logits"].shape) == [-1, priors, 4]

    def maps(image: Value, training: bool) -> dict[str, Value]:
        return narrow.network(image, training, narrow.width, narrow.cells)

    made = build(maps, [Input("image", (None, 3, model.image_size, model.image_size))], name="maps")
    assert {layer: tuple(value.shape[2:]) for layer, value in made.values.items() if layer in model.cells} == {
        layer: (cells, cells) for layer, cells in model.cells.items()
    }


def test_parameters_of_vgg() -> None:
    """Of SSD300 for VOC, as the sum of its layers."""

    def convolutions(*sizes: tuple[int, int, int]) -> int:
        return sum(before * after * side**2 + after for before, after, side in sizes)

    widths = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    backbone = convolutions(*[(before, after, 3) for before, after in zip(widths[:-1], widths[1:])])
    backbone += convolutions((512, 1024, 3), (1024, 1024, 1)) + 512
    extras = convolutions((1024, 256, 1), (256, 512, 3), (512, 128, 1), (128, 256, 3))
    extras += 2 * convolutions((256, 128, 1), (128, 256, 3))
    heads = convolutions(
        *[
            (channels, priors * columns, 3)
            for channels, priors in ((512, 4), (1024, 6), (512, 6), (256, 6), (256, 4), (256, 4))
            for columns in (4, 21)
        ]
    )
    assert backbone + extras + heads == 26_285_486
    assert program(find_model("ssd_vgg16_300")).parameter_count == 26_285_486


def test_both_engines_and_every_gradient() -> None:
    """With fixed statistics: over few samples of a small map those of a batch let rounding alone move gradients."""
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32),
        "boxes": np.array(
            [[[0.1, 0.1, 0.4, 0.5], [0.5, 0.3, 0.95, 0.9]], [[0.2, 0.3, 0.35, 0.5], [0, 0, 0, 0]]], "float32"
        ),
        "labels": np.array([[0, 2], [1, -1]]),
    }

    def network(image: Value, boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        offsets, logits = TINY.build(image, 3, training=False)
        return ssd_loss(offsets, logits, TINY.prior_boxes, boxes, labels)

    inputs = [Input("image", (None, 3, 64, 64)), Input("boxes", (None, 2, 4)), Input("labels", (None, 2), "int64")]

    def make(optimizer):
        return build(network, inputs, name="train", training=True, optimizer=optimizer)

    found = [gradients(make, feed, engine) for engine in (PaddleEngine(), create("cpu"))]
    assert len(found[0]) == 3 * (1 + 2 * 5) + 8
    for name, gradient in found[0].items():
        assert gradient.any(), name
        assert np.abs(gradient - found[1][name]).max() < 1e-4 * np.abs(gradient).max(), name


def test_l2_norm_and_vgg_on_both_engines() -> None:
    model = dataclasses.replace(find_model("ssd_vgg16_300"), width=0.02)

    def network(image: Value, training: bool) -> dict[str, Value]:
        offsets, logits = model.build(image, 2, training)
        return {"offsets": offsets, "logits": logits, "normed": l2_norm(image, name="normed", scale=3.0)}

    built = build(network, [Input("image", (None, 3, 300, 300))], name="vgg")
    state = initialise(built, seed=0)
    feed = {"image": np.random.default_rng(1).normal(size=(1, 3, 300, 300)).astype(np.float32)}
    results = []
    for engine in (PaddleEngine(), create("cpu")):
        engine.load(state)
        results.append({name: np.asarray(value) for name, value in engine.run(built, feed).items()})
    for name, array in results[0].items():
        assert np.abs(array - results[1][name]).max() < 1e-4 * np.abs(array).max(), name
    image = feed["image"]
    np.testing.assert_allclose(
        results[0]["normed"], 3 * image / np.linalg.norm(image, axis=1, keepdims=True), rtol=1e-4
    )


def test_training_statistics_differ_from_fixed_ones() -> None:
    def outputs(training: bool) -> np.ndarray:
        def network(image: Value, training: bool) -> dict[str, Value]:
            return {"offsets": TINY.build(image, 3, training)[0]}

        inputs = [Input("image", (None, 3, 64, 64))]
        built = build(network, inputs, name="statistics", training=training)
        engine = PaddleEngine()
        engine.load(initialise(built, seed=0))
        feed = {"image": np.random.default_rng(2).normal(size=(4, 3, 64, 64)).astype(np.float32)}
        return np.asarray(engine.run(built, feed)["offsets"])

    assert np.abs(outputs(True) - outputs(False)).max() > 0.1


def test_other_priors() -> None:
    model = find_model("ssd_mobilenet_v1")
    changed = model.with_priors([PriorMap(38, (0.1, 0.15)), PriorMap(19, (0.3,), ratios=(2.0,))])
    assert list(changed.priors) == ["conv2d_5", "conv2d_11"]
    built = program(changed)
    assert list(built.values["offsets"].shape) == [-1, 38 * 38 * 2 + 19 * 19 * 3, 4]
    with pytest.raises(UserError, match="no map of 40 x 40 cells, only of 75, 38"):
        model.with_priors([PriorMap(40, (0.1,))])


def test_an_unknown_model() -> None:
    with pytest.raises(UserError, match="did you mean ssd_vgg16_300"):
        find_model("ssd_vgg_300")


def test_the_released_priors() -> None:
    """First and last, by hand: 60 pixels at the first cell of 19, sqrt(285 * 300) in the middle."""
    boxes = find_model("ssd_mobilenet_v1").prior_boxes
    np.testing.assert_allclose(boxes[0], [0.5 / 19 - 0.1, 0.5 / 19 - 0.1, 0.5 / 19 + 0.1, 0.5 / 19 + 0.1], rtol=1e-5)
    half = (285 * 300) ** 0.5 / 600
    np.testing.assert_allclose(boxes[-1], [0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half], atol=1e-6)
