"""The network: released names, outputs and gradients on both engines, sizes of every kind, the loss."""

from collections.abc import Callable
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.program import Program, build, initialise
from fluid.tests.golden_values import golden_value
from fluid.tests.gradients import gradients
from icnet.classes import IGNORE
from icnet.evaluation import Views
from icnet.model import ICNet
from icnet.network import (
    evaluation_program,
    inference_program,
    label_places,
    overlap_loss,
    padded_side,
    pixel_loss,
    training_network,
    window_starts,
)
from icnet.opening import blocks_of
from icnet.segmenter import BRANCHES, MEAN, LabelGrid, Segmenter

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

SLIM = Segmenter(0.25)
SLOTS = {"w_1": "Mean", "w_2": "Variance", "w_0": "Scale"}


def released(program: Program, seed: int = 0) -> dict[str, np.ndarray]:
    """The state of a Program with the golden values."""
    state = initialise(program, seed=seed)
    for name, array in state.items():
        suffix = name[-3:]
        slot = SLOTS.get(suffix, "Bias") if name.rpartition(".")[0].endswith("_bn") else ""
        state[name] = golden_value(name, array.shape, slot)
    return state


@pytest.fixture(scope="module")
def released_outputs() -> tuple[Program, dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """The released network on noise: Program, state, image, outputs of Paddle."""
    program = inference_program(Segmenter(rounding="ceil"), (128, 256), normalised=True)
    state, engine = released(program), PaddleEngine()
    engine.load(state)
    image = np.random.RandomState(0).uniform(-100, 100, (1, 3, 128, 256)).astype(np.float32)
    return program, state, image, engine.run(program, {"image": image})


def test_the_variables_are_those_of_the_release(released_outputs) -> None:
    program, state, _, _ = released_outputs
    statistics = sum(array.size for name, array in state.items() if name.endswith(("_bn.w_1", "_bn.w_2")))
    assert len(state) == 321 and sum(array.size for array in state.values()) == 6_707_321 + statistics
    assert program.parameter_count == 6_707_321
    shapes = {
        "conv1_1_3_3_s2.w_0": (32, 3, 3, 3),
        "conv3_1_1_1_proj.w_0": (256, 128, 1, 1),
        "conv5_3_3_3.w_0": (256, 256, 3, 3),
        "conv5_4_k1_bn.w_1": (256,),
        "conv3_1_sub2_proj.w_0": (128, 256, 1, 1),
        "conv_sub4.w_0": (128, 256, 3, 3),
        "conv3_sub1_proj_bn.b_0": (128,),
        "conv6_cls.w_0": (19, 128, 1, 1),
        "sub24_out.b_0": (19,),
        "sub4_out.w_0": (19, 256, 1, 1),
    }
    assert {name: state[name].shape for name in shapes} == shapes


# Mean, standard deviation and four places of each output, by another writing of the network from Paddle's own operations
# (`F.interpolate`, which is 1e-5 off).
GOLDEN = {
    "sub4": (0.100697, 3.870203, 3.467491, -5.172069, -0.203596, 4.776273),
    "sub24": (0.325347, 2.553989, 1.822149, 0.550255, -2.028030, 3.039620),
    "sub124": (0.688477, 5.848703, 3.621948, -3.433029, 10.866069, 1.748548),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_the_release(released_outputs, name: str) -> None:
    output = released_outputs[3][name]
    places = output.reshape(-1)[[0, 1000, output.size // 2, output.size - 1]]
    actual = [output.mean(dtype=np.float64), output.std(dtype=np.float64), *places]
    assert np.abs(np.array(actual) - GOLDEN[name]).max() < 1e-4 * np.abs(output).max()


def test_both_engines_agree(released_outputs) -> None:
    program, state, image, expected = released_outputs
    engine = create("cpu")
    engine.load(state)
    outputs = engine.run(program, {"image": image})
    for name in ("sub4", "sub24", "sub124", "logits"):
        difference = np.abs(np.asarray(outputs[name]) - expected[name]).max()
        assert difference < 1e-4 * np.abs(expected[name]).max(), name
    assert (np.asarray(outputs["labels"]) == expected["labels"]).mean() > 0.999
    assert np.asarray(outputs["labels"]).dtype == np.uint8


def test_gradients_agree_with_fixed_statistics() -> None:
    """Up to ten times what inputs moved by 1e-5 of their size change: where a relu flips, rounding decides."""
    network, inputs = training_network(SLIM, (128, 128))

    def make(optimizer: Any) -> Program:
        return build(network, inputs, name="train", training=False, optimizer=optimizer)

    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (2, 128, 128, 3)).astype(np.uint8),
        "label": rng.integers(0, 19, (2, 128, 128)).astype(np.uint8),
    }
    paddles, xlas = gradients(make, feed), gradients(make, feed, create("cpu"))
    differences = {
        name: float(np.abs(xlas[name] - array).max() / max(np.abs(array).max(), 1e-12))
        for name, array in paddles.items()
    }
    assert max(differences.values()) < 1e-2, max(differences, key=differences.__getitem__)
    assert np.median(list(differences.values())) < 1e-4


def test_the_smaller_forms() -> None:
    """Rounding matters where a side is no multiple of 32; a slim network has the same layers."""
    outputs = {}
    for rounding in ("ceil", "floor"):
        program = inference_program(Segmenter(0.25, rounding), (144, 176), ["sub4", "sub124"], normalised=True)
        engine = PaddleEngine()
        engine.load(initialise(program, seed=1))
        image = np.random.default_rng(0).uniform(-100, 100, (1, 3, 144, 176)).astype(np.float32)
        outputs[rounding] = engine.run(program, {"image": image})
        assert outputs[rounding]["sub4"].shape == (1, 19, 9, 11)
        assert outputs[rounding]["sub124"].shape == (1, 19, 36, 44)
    assert np.abs(outputs["ceil"]["sub4"] - outputs["floor"]["sub4"]).max() > 1e-3


def test_a_shallow_network_is_known_by_its_arrays() -> None:
    """Each further block of a group has three convolutions with their normalisations, the first of a group four."""
    names = {}
    for blocks in ((1, 1, 1, 1), (1, 2, 1, 1), (3, 4, 6, 3)):
        program = inference_program(Segmenter(0.25, blocks=blocks), (128, 128), ["sub124"])
        names[blocks] = set(program.state_names)
        assert blocks_of(program.state_names) == blocks
    assert len(names[1, 1, 1, 1]) == 321 - 12 * 3 * 5
    assert {name.partition(".")[0].removesuffix("_bn") for name in names[1, 2, 1, 1] - names[1, 1, 1, 1]} == {
        f"conv3_2_{part}" for part in ("1_1_reduce", "3_3", "1_1_increase")
    }
    assert names[1, 2, 1, 1] < names[3, 4, 6, 3] and blocks_of([]) == (3, 4, 6, 3)


def test_a_zoomed_network_sees_enlarged_images() -> None:
    """1.5 times 128 and 176 are 192 and, to the next multiple of 16, 256; labels have the image's own size."""
    image = np.random.default_rng(0).uniform(-100, 100, (1, 3, 128, 176)).astype(np.float32)
    enlarged = image
    for axis, after in ((2, 192), (3, 256)):
        places = np.linspace(0, image.shape[axis] - 1, after)
        enlarged = np.apply_along_axis(lambda line, p=places: np.interp(p, np.arange(len(line)), line), axis, enlarged)
    plain = inference_program(SLIM, (192, 256), ["sub124"], normalised=True)
    zoomed = inference_program(Segmenter(0.25, zoom=1.5), (128, 176), ["sub124", "labels"], normalised=True)
    engine = PaddleEngine()
    engine.load(initialise(plain, seed=1))
    expected = engine.run(plain, {"image": enlarged.astype(np.float32)})["sub124"]
    outputs = engine.run(zoomed, {"image": image})
    assert np.abs(outputs["sub124"] - expected).max() < 1e-4 * np.abs(expected).max()
    assert outputs["labels"].shape == (1, 128, 176)
    assert label_places(128, 48, "steps")[:4] == [0, 2, 5, 8] and len(label_places(128, 48, "corners")) == 48


def test_a_share_of_normalisation_is_an_images_own() -> None:
    """Of statistics that are an image's own alone nothing is left of its contrast; the images of a batch keep apart."""
    image = np.random.default_rng(0).uniform(-50, 50, (2, 3, 128, 128)).astype(np.float32)
    segmenters = {share: Segmenter(0.25, blocks=(1, 1, 1, 1), own_statistics=share) for share in (0.0, 0.1, 1.0)}
    programs = {s: inference_program(net, (128, 128), ["sub124"], normalised=True) for s, net in segmenters.items()}
    engine = PaddleEngine()
    engine.load(initialise(programs[0.0], seed=1))

    def outputs(share: float, images: np.ndarray) -> np.ndarray:
        return np.asarray(engine.run(programs[share], {"image": images})["sub124"])

    own = outputs(1.0, image)
    np.testing.assert_allclose(outputs(1.0, 2 * image), own, atol=1e-3 * np.abs(own).max())
    np.testing.assert_allclose(outputs(1.0, image[:1]), own[:1], atol=1e-3 * np.abs(own).max())
    plain, mixed = outputs(0.0, image), outputs(0.1, image)
    assert np.abs(outputs(0.0, 2 * image) - plain).max() > 0.1 * np.abs(plain).max()
    assert not np.allclose(mixed, plain, rtol=0.01) and not np.allclose(mixed, own, rtol=0.01)


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_onednn_computes_what_the_other_kernels_do(share: float) -> None:
    segmenter, size = Segmenter(0.25, zoom=1.25, blocks=(1, 1, 1, 1), own_statistics=share), (100, 131)
    image = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    fast, plain = (inference_program(segmenter, size) for _ in range(2))
    assert fast.onednn
    plain.onednn = False
    engine = PaddleEngine()
    engine.load(initialise(plain, seed=1))
    expected, outputs = engine.run(plain, {"image": image}), engine.run(fast, {"image": image})
    for name in BRANCHES:
        assert (
            0 < np.abs(outputs[name] - expected[name]).max() < 1e-4 * np.abs(expected[name]).max()
        )  # others, but no worse
    assert (outputs["labels"] == expected["labels"]).mean() > 0.999


@pytest.mark.parametrize(
    ("side", "padded"), [(1, 128), (100, 128), (128, 128), (144, 144), (150, 160), (720, 720), (721, 736)]
)
def test_sides_grow_only_where_they_must(side: int, padded: int) -> None:
    assert padded_side(side) == padded


def test_any_size_is_padded_with_the_mean_and_cut() -> None:
    """As if the image had been padded before, with what the mean makes zero."""
    size, grown = (90, 131), (128, 160)
    small, large = (inference_program(SLIM, shape, ["logits", "labels"], normalised=True) for shape in (size, grown))
    engine = PaddleEngine()
    engine.load(initialise(small, seed=1))
    image = np.random.default_rng(0).uniform(-100, 100, (2, 3, *size)).astype(np.float32)
    padded = np.zeros((2, 3, *grown), np.float32)
    padded[:, :, : size[0], : size[1]] = image
    cut, whole = engine.run(small, {"image": image}), engine.run(large, {"image": padded})
    assert cut["logits"].shape == (2, 19, *size) and cut["labels"].shape == (2, *size)
    np.testing.assert_array_equal(cut["logits"], whole["logits"][:, :, : size[0], : size[1]])


def test_images_are_normalised_in_one_way() -> None:
    raw = inference_program(SLIM, (128, 128), ["sub124"])
    prepared = inference_program(SLIM, (128, 128), ["sub124"], normalised=True)
    engine = PaddleEngine()
    engine.load(initialise(raw, seed=1))
    image = np.random.default_rng(0).integers(0, 256, (1, 128, 128, 3)).astype(np.uint8)
    floats = (image.astype(np.float32) - np.array(MEAN, np.float32))[..., ::-1].transpose(0, 3, 1, 2)
    one = engine.run(raw, {"image": image})["sub124"]
    np.testing.assert_allclose(one, engine.run(prepared, {"image": floats})["sub124"], rtol=1e-5, atol=1e-5)


def run_loss(logits: np.ndarray, label: np.ndarray, loss: Callable[..., Any] = pixel_loss, **how: Any) -> float:
    """`loss` of arrays."""

    def network(logits: Any, label: Any, training: bool) -> dict[str, Any]:
        return {"loss": loss(logits, label, **how)}

    from fluid.interface import Input

    inputs = [Input("logits", (None, *logits.shape[1:])), Input("label", (None, *label.shape[1:]), "int32")]
    program = build(network, inputs, name="loss")
    return float(PaddleEngine().run(program, {"logits": logits, "label": label})["loss"])


def test_the_loss_counts_labelled_pixels() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 6, 5)).astype(np.float32)
    label = rng.integers(0, 4, (2, 6, 5)).astype(np.int32)
    label[0, :3] = IGNORE
    shifted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    known = np.where(label == IGNORE, 0, label)
    losses, counted = -np.take_along_axis(shifted, known[:, None], 1)[:, 0], label != IGNORE
    assert run_loss(logits, label) == pytest.approx(losses[counted].mean(), rel=1e-5)
    weights = [1.0, 2.0, 0.5, 3.0]
    each = np.array(weights)[known] * counted
    assert run_loss(logits, label, class_weights=weights) == pytest.approx((losses * each).sum() / each.sum(), rel=1e-5)
    hardest = [np.sort((losses * counted)[row].reshape(-1))[-6:] for row in range(2)]
    assert run_loss(logits, label, hard_share=0.2) == pytest.approx(np.concatenate(hardest).mean(), rel=1e-5)
    assert run_loss(logits, np.full_like(label, IGNORE)) == 0.0


def test_the_loss_of_overlap_is_that_of_probabilities_over_the_batch() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2, 5, 6, 7)).astype(np.float32)
    label = rng.integers(0, 4, (2, 6, 7)).astype(np.int32)  # the fifth class occurs nowhere
    label[rng.random(label.shape) < 0.2] = IGNORE
    likely = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    lost = []
    for number in range(4):
        own, at = label == number, likely[:, number] * (label != IGNORE)
        both = (at * own).sum()
        lost.append(1 - both / (at.sum() + own.sum() - both))
    assert run_loss(logits, label, overlap_loss) == pytest.approx(np.mean(lost), rel=1e-5)
    right = np.where(label == IGNORE, 0, label)
    sure = 100 * (right[:, None] == np.arange(5)[None, :, None, None]).astype(np.float32)
    assert run_loss(sure, label, overlap_loss) == pytest.approx(0.0, abs=1e-6)
    assert run_loss(logits, np.full_like(label, IGNORE), overlap_loss) == 0.0


def test_the_finest_loss_may_take_every_label() -> None:
    """Labels between those that are taken change it, which they do not otherwise. The other outputs' losses stay."""
    engine, rng, losses = PaddleEngine(), np.random.default_rng(0), {}
    feed = {
        "image": rng.integers(0, 256, (1, 128, 128, 3)).astype(np.uint8),
        "label": rng.integers(0, 19, (1, 128, 128)).astype(np.uint8),
    }
    other = {**feed, "label": feed["label"].copy()}
    taken = [row for count in (8, 16, 32) for row in label_places(128, count, "corners")]
    other["label"][:, np.setdiff1d(range(128), taken)] = 3
    for every in (True, False):
        network, inputs = training_network(SLIM, (128, 128), every_pixel=every, overlap=0.5)
        program = build(network, inputs, name="train")
        engine.load(initialise(program, seed=0))
        losses[every] = [engine.run(program, values) for values in (feed, other)]
    for name in ("loss_sub124", "loss_overlap"):
        assert losses[True][0][name] != losses[True][1][name] and losses[False][0][name] == losses[False][1][name]
    assert losses[True][0]["loss_sub24"] == losses[False][0]["loss_sub24"]
    whole = losses[True][0]
    parts = [whole[f"loss_{name}"] * weight for name, (_, weight) in BRANCHES.items()]
    assert whole["loss"] == pytest.approx(sum(parts) + 0.5 * whole["loss_overlap"], rel=1e-5)


@pytest.mark.parametrize("grid", ["corners", "steps"])
def test_labels_are_taken_by_nearest(grid: LabelGrid) -> None:
    """The losses follow from the labels of some pixels alone."""
    network, inputs = training_network(SLIM, (128, 128), label_grid=grid)
    program = build(network, inputs, name="train")
    engine, label = PaddleEngine(), np.full((1, 128, 128), 3, np.uint8)
    engine.load(initialise(program, seed=0))
    image = np.zeros((1, 128, 128, 3), np.uint8)
    before = engine.run(program, {"image": image, "label": label})
    changed = np.full_like(label, 5)
    for count in (8, 16, 32):
        places = label_places(128, count, grid)
        rows, columns = np.ix_(places, places)
        changed[:, rows, columns] = 3
    after = engine.run(program, {"image": image, "label": changed})
    assert before == after
    whole = 0.16 * before["loss_sub4"] + 0.4 * before["loss_sub24"] + before["loss_sub124"]
    assert float(before["loss"]) == pytest.approx(float(whole), rel=1e-5)


def test_labels_lie_where_outputs_are_enlarged_to() -> None:
    assert label_places(128, 32, "steps") == list(range(0, 128, 4))
    for length, count in ((128, 32), (150, 40), (720, 45)):
        places, padded = label_places(length, count, "corners"), padded_side(length)
        exact = np.arange(count) * (padded - 1) / (count - 1)
        assert np.abs(np.array(places) - exact[: len(places)]).max() <= 0.5
        assert len(places) == (np.round(exact) < length).sum() and max(places) < length
    assert label_places(128, 32, "corners")[-1] == 127


def test_windows_cover_a_side() -> None:
    for length, window in ((100, 30), (100, 100), (2048, 720), (7, 3), (50, 49)):
        starts = window_starts(length, window)
        assert starts[0] == 0 and starts[-1] == length - window
        assert all(0 < after - before <= window * 2 / 3 + 1 for before, after in zip(starts, starts[1:]))


def test_what_is_averaged_over_in_evaluation() -> None:
    """Against the plain Program on mirrored, resized and cut images, put together by hand."""
    size = (128, 160)
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (1, *size, 3)).astype(np.uint8),
        "label": np.zeros((1, *size), np.uint8),
        "mask": np.ones(1, bool),
    }
    plain = inference_program(SLIM, size, ["logits"])
    engine = PaddleEngine()
    engine.load(initialise(plain, seed=2))

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def probabilities(image: np.ndarray, program: Program = plain) -> np.ndarray:
        return softmax(engine.run(program, {"image": np.ascontiguousarray(image)})["logits"])

    def labels(views: Views) -> np.ndarray:
        return engine.run(evaluation_program(SLIM, size, views), feed)["labels"]

    straight, mirrored = probabilities(feed["image"]), probabilities(feed["image"][:, :, ::-1])[:, :, :, ::-1]
    assert (labels(Views(flip=True)) == (straight + mirrored).argmax(axis=1)).mean() > 0.999
    assert (labels(Views(window=(500, 500))) == straight.argmax(axis=1)).mean() > 0.999
    part = inference_program(SLIM, (128, 96), ["logits"])
    total, counts = np.zeros_like(straight), np.zeros((1, 1, *size))
    for left in window_starts(160, 96):
        total[:, :, :, left : left + 96] += probabilities(feed["image"][:, :, left : left + 96], part)
        counts[:, :, :, left : left + 96] += 1
    assert (labels(Views(window=(128, 96))) == (total / counts).argmax(axis=1)).mean() > 0.999


def test_the_network_can_be_applied_twice_with_the_same_parameters() -> None:
    def network(image: Any, training: bool) -> dict[str, Any]:
        net = ICNet(3, training, 0.25)
        return {"one": net(image)[2], "two": net(F.relu(image))[2]}

    from fluid.interface import Input

    program = build(network, [Input("image", (None, 3, 128, 128))], name="twice")
    assert len(program.state_names) == 321
    created = [op for op in program.main.global_block().ops if op.name() == "builtin.parameter"]
    assert len(created) == 321 and paddle is not None
