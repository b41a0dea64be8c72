"""All networks: parameters, arithmetic and outputs of the historical ones; gradients; what they admit."""

import functools

from fluid import engine
from fluid.arrays import read_npz
from fluid.errors import UserError
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.tests.golden_values import golden_value
from image_classification.models import MODELS, find_model, layers
from image_classification.network import label_ranks
from image_classification.tests.networks import (
    GOLDEN,
    build_classifier,
    golden_image,
    integers,
    read_table,
    relative_difference,
    run,
    shapes,
)

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

RELEASED = read_table("released_parameters.tsv.gz")

# the cheapest member of each family; the others run with --full
REPRESENTATIVES = {
    "AlexNet",
    "VGG11",
    "GoogLeNet",
    "ResNet18",
    "ResNet50_vd",
    "InceptionV4",
    "MobileNetV1_x0_25",
    "MobileNetV2_x0_25",
    "DPN68",
    "SE_ResNeXt50_32x4d",
    "SmallNet",
}
EACH_FAMILY = [
    pytest.param(name, marks=[] if name in REPRESENTATIVES else pytest.mark.full, id=name) for name in MODELS
]
DEEP = ("ResNet152", "ResNet101_v", "ResNet200", "SE_ResNeXt101", "SE_ResNeXt152", "DPN98", "DPN107", "DPN131")
EACH_RELEASED = [
    pytest.param(name, marks=pytest.mark.full if name.startswith(DEEP) else [], id=name) for name in RELEASED
]


def operators(program) -> dict[str, dict]:
    """Parameter name -> the operator that reads it, its slot and attributes, in the order of the operators."""
    found = {}

    def record(value, **facts):
        found[value.name] = {"shape": list(value.shape), **facts}

    for op in program.main.global_block().ops:
        kind, operands, attributes = op.name().removeprefix("pd_op."), op.operands_source(), op.attrs()
        if kind in ("conv2d", "depthwise_conv2d"):
            window = {name: attributes[name] for name in ("strides", "paddings", "groups")}
            assert attributes["dilations"] == [1, 1] and attributes["padding_algorithm"] == "EXPLICIT"
            record(operands[1], op=kind, **window)
        elif kind == "batch_norm_":
            constants = {"epsilon": attributes["epsilon"], "momentum": attributes["momentum"]}
            for value, slot in zip(operands[1:5], ("Mean", "Variance", "Scale", "Bias"), strict=True):
                record(value, op="batch_norm", slot=slot, **constants)
        elif kind == "matmul":
            record(operands[1], op="mul")
        elif kind in ("add", "reshape"):
            for operand in operands:
                if operand.get_defining_op().name() == "builtin.parameter":
                    record(operand, op="elementwise_add")
    return found


@functools.cache
def released_form(name: str) -> Program:
    """The inference Program with 1000 classes for images of the network's own size."""
    return build_classifier(name)


@pytest.mark.parametrize("name", EACH_RELEASED)
def test_parameters_and_operators_are_those_of_the_released_weights(name):
    program = released_form(name)
    found = operators(program)
    assert set(found) == set(program.state_names) == {row["name"] for row in RELEASED[name]}
    for row in RELEASED[name]:
        facts = found[row["name"]]
        assert facts["shape"] == integers(row["shape"]), row["name"]
        assert facts["op"] == row["op"], row["name"]
        if "conv2d" in row["op"]:
            assert facts["strides"] == integers(row["strides"]), row["name"]
            assert facts["paddings"] == integers(row["paddings"]), row["name"]
            assert facts["groups"] == int(row["groups"]), row["name"]
        elif row["op"] == "batch_norm":
            assert facts["slot"] == row["slot"], row["name"]
            assert facts["epsilon"] == pytest.approx(float(row["epsilon"])), row["name"]
            assert facts["momentum"] == pytest.approx(float(row["momentum"])), row["name"]


def test_every_network_has_released_parameters_but_those_with_other_weights():
    """Weights that come along, or a converted Caffe net's."""
    caffe = {"ResNet50_caffe", "ResNet101_caffe", "ResNet152_caffe"}
    caffe |= {"SE_ResNeXt50_32x4d_caffe", "SE_ResNeXt101_32x4d_caffe"}
    caffe |= {"AlexNet_caffe", "AlexNet_caffenet", "GoogLeNet_caffe"}
    assert set(MODELS) - set(RELEASED) == {"SmallNet", "MobileNetV2_tf"} | caffe


# Published numbers of trainable parameters (torchvision, timm, Keras for MobileNetV1) and where ours differ.
FIRST_PROJECTION = 64 * 64 + 2 * 64  # ResNet18/34: torchvision adds the input of the first block as it is
DEEP_STEM = (3 * 32 + 32 * 32 + 32 * 64) * 9 - 3 * 64 * 49 + 2 * (32 + 32)  # three 3x3 in place of one 7x7
FIRST_EXPANSION = 32 * 32 + 2 * 32  # MobileNetV2: others have no expansion in the first bottleneck
VGG_BIASES = {
    11: 64 + 128 + 2 * 256 + 2 * 512 + 2 * 512,
    13: 2 * 64 + 2 * 128 + 2 * 256 + 2 * 512 + 2 * 512,
    16: 2 * 64 + 2 * 128 + 3 * 256 + 3 * 512 + 3 * 512,
    19: 2 * 64 + 2 * 128 + 4 * 256 + 4 * 512 + 4 * 512,
}


def inception_count(channels, f1, f3_reduce, f3, f5_reduce, f5, projection):
    return channels * (f1 + f3_reduce + f5_reduce + projection) + 9 * f3_reduce * f3 + 25 * f5_reduce * f5


# GoogLeNet without biases in the convolutions, from table 1 of its paper
GOOGLENET = (
    3 * 64 * 49
    + 64 * 64
    + 64 * 192 * 9
    + inception_count(192, 64, 96, 128, 16, 32, 32)
    + inception_count(256, 128, 128, 192, 32, 96, 64)
    + inception_count(480, 192, 96, 208, 16, 48, 64)
    + inception_count(512, 160, 112, 224, 24, 64, 64)
    + inception_count(512, 128, 128, 256, 24, 64, 64)
    + inception_count(512, 112, 144, 288, 32, 64, 64)
    + inception_count(528, 256, 160, 320, 32, 128, 128)
    + inception_count(832, 256, 160, 320, 32, 128, 128)
    + inception_count(832, 384, 192, 384, 48, 128, 128)
    + (1024 * 1000 + 1000)
    # the auxiliary heads on 512 and 528 channels, pooled to 3x3
    + (512 * 128 + (128 * 9 * 1024 + 1024) + (1024 * 1000 + 1000))
    + (528 * 128 + (128 * 9 * 1024 + 1024) + (1024 * 1000 + 1000))
)

PARAMETER_COUNTS = {
    "AlexNet": 61_100_840,
    "VGG11_bias": 132_863_336,
    "VGG13_bias": 133_047_848,
    "VGG16_bias": 138_357_544,
    "VGG19_bias": 143_667_240,
    "VGG11": 132_863_336 - VGG_BIASES[11],
    "VGG13": 133_047_848 - VGG_BIASES[13],
    "VGG16": 138_357_544 - VGG_BIASES[16],
    "VGG19": 143_667_240 - VGG_BIASES[19],
    "GoogLeNet": GOOGLENET,
    "ResNet18": 11_689_512 + FIRST_PROJECTION,
    "ResNet34": 21_797_672 + FIRST_PROJECTION,
    "ResNet50": 25_557_032,
    "ResNet101": 44_549_160,
    "ResNet152": 60_192_808,
    "ResNet18_vd": 11_689_512 + FIRST_PROJECTION + DEEP_STEM,
    "ResNet34_vd": 21_797_672 + FIRST_PROJECTION + DEEP_STEM,
    "ResNet50_vc": 25_557_032 + DEEP_STEM,
    "ResNet50_vd": 25_557_032 + DEEP_STEM,
    "ResNet101_vd": 44_549_160 + DEEP_STEM,
    "ResNet152_vd": 60_192_808 + DEEP_STEM,
    "InceptionV4": 42_679_816,
    "MobileNetV1_x0_25": 470_072,
    "MobileNetV1_x0_5": 1_331_592,
    "MobileNetV1_x0_75": 2_585_560,
    "MobileNetV1": 4_231_976,
    "MobileNetV2": 3_504_872 + FIRST_EXPANSION,
    "MobileNetV2_tf": 3_504_872,
    "DPN68": 12_611_602,
    "DPN92": 37_668_392,
    "DPN107": 86_917_800,
    "DPN131": 79_254_504,
    "SE_ResNeXt50_32x4d": 27_559_896,
    "SE_ResNeXt101_32x4d": 48_955_416,
}


@pytest.mark.parametrize("name", [case for case in EACH_RELEASED if case.id in PARAMETER_COUNTS])
def test_parameter_count(name):
    assert released_form(name).parameter_count == PARAMETER_COUNTS[name]


@pytest.mark.parametrize("name", ["ResNet18", "ResNet50", "MobileNetV1", "GoogLeNet"])
def test_logits_are_those_of_the_historical_network(name):
    program = released_form(name)
    rows = RELEASED[name]
    state = {row["name"]: golden_value(row["name"], integers(row["shape"]), row["slot"]) for row in rows}
    outputs = run(program, state, golden_image())
    historical = read_npz(GOLDEN / "historical_logits.npz")
    for output, key in (("logits", name), ("aux1", f"{name}/aux1"), ("aux2", f"{name}/aux2")):
        assert (output in outputs) == (key in historical)
        if output in outputs:
            assert relative_difference(outputs[output][0], historical[key]) < 1e-5


def small_image_shape(name: str) -> tuple[int, int, int]:
    return 3, max(MODELS[name].min_size, 64), max(MODELS[name].min_size, 64)


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_every_parameter_gets_a_gradient(name):
    model, shape = MODELS[name], small_image_shape(name)

    def network(image, label, training):
        outputs = model.build(image, 5, training)
        heads = outputs if isinstance(outputs, tuple) else (outputs,)
        weights = (1.0, *model.aux_weights)
        loss = sum(weight * paddle.mean(F.cross_entropy(x, label)) for weight, x in zip(weights, heads, strict=True))
        gradients = paddle.static.append_backward(loss)
        return {
            parameter.name: paddle.max(paddle.abs(gradient))
            for parameter, gradient in gradients
            if gradient is not None
        }

    inputs = [Input("image", (None, *shape)), Input("label", (None,), "int64")]
    program = build(network, inputs, name=name, training=True)
    assert set(program.outputs) == set(program.trainable)

    executor, _ = engine.create("paddle", "cpu")
    executor.load(initialise(program, seed=1))
    rng = np.random.RandomState(2)
    feed = {"image": rng.randn(4, *shape).astype("float32"), "label": np.array([0, 1, 2, 4])}
    sizes = executor.run(program, feed)
    assert [name for name, size in sizes.items() if not (np.isfinite(size) and size > 0)] == []


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_admits_other_classes_channels_and_shapes(name):
    model = MODELS[name]
    height, width = max(model.min_size, 32) + 1, max(model.min_size, 32) + 38
    program = build_classifier(name, (1, height, width), class_dim=7)
    image = np.random.RandomState(3).randn(2, 1, height, width).astype("float32")
    logits = run(program, initialise(program, seed=4), image)["logits"]
    assert logits.shape == (2, 7)
    assert np.isfinite(logits).all() and np.ptp(logits) > 0


def windows_fit(program) -> bool:
    """Whether no convolution or pooling has a window larger than its padded input (Paddle itself lets some pass)."""
    for op in program.main.global_block().ops:
        attributes, operands = op.attrs(), op.operands_source()
        if op.name() == "pd_op.pool2d" and not attributes["adaptive"] and not attributes["ceil_mode"]:
            window = operands[1].get_defining_op().attrs()["value"]
        elif op.name() in ("pd_op.conv2d", "pd_op.depthwise_conv2d"):
            window = operands[1].shape[2:]
        else:
            continue
        if attributes["padding_algorithm"] == "SAME":
            continue
        padded = [size + 2 * pad for size, pad in zip(operands[0].shape[2:], attributes["paddings"], strict=True)]
        if any(size < extent for size, extent in zip(padded, window, strict=True)):
            return False
    return True


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_smallest_image(name):
    size = MODELS[name].min_size
    assert windows_fit(build_classifier(name, (3, size, size)))
    if size == 1:
        return
    with pytest.raises(
        UserError, match=rf"{name} needs images of at least {size} x {size} pixels, not {size} x {size - 1}"
    ):
        build_classifier(name, (3, size, size - 1))
    try:
        too_small = build_classifier(name, (3, size - 1, size - 1), check=False)
    except (ValueError, ZeroDivisionError):
        return
    assert not windows_fit(too_small)


def test_class_dim_must_be_positive():
    with pytest.raises(UserError, match="--class_dim must be at least 1, not 0"):
        build_classifier("ResNet18", class_dim=0)


def test_dropout_scales_in_inference_and_masks_in_training():
    """The semantics of 2018: training x * mask, inference x * (1 - rate)."""

    def network(x, training):
        return {"y": layers.dropout(x, 0.7, training=training)}

    executor, _ = engine.create("paddle", "cpu", seed=5)
    x = np.full((100, 100), 2.0, "float32")
    inference = executor.run(build(network, [Input("x", (100, 100))], name="inference"), {"x": x})["y"]
    np.testing.assert_allclose(inference, 0.3 * x, rtol=1e-6)
    training = executor.run(build(network, [Input("x", (100, 100))], name="training", training=True), {"x": x})["y"]
    assert set(np.unique(training)) == {0.0, 2.0}
    assert 0.27 < np.mean(training > 0) < 0.33


@pytest.mark.parametrize("name", EACH_FAMILY)
def test_layers_can_be_fetched(name):
    program = build_classifier(name, small_image_shape(name))
    weights = {
        row["name"].removesuffix("_weights") for row in RELEASED.get(name, []) if row["name"].endswith("_weights")
    }
    assert weights <= set(program.layers)
    assert all(value.shape[0] == -1 for value in [program.values[name] for name in program.layers])


def test_features_before_the_classifier():
    program = build_classifier("ResNet18", (3, 64, 64))
    executor, _ = engine.create("paddle", "cpu")
    state = initialise(program, seed=6)
    executor.load(state)
    image = np.random.RandomState(7).randn(2, 3, 64, 64).astype("float32")
    fetched = executor.run(program, {"image": image}, fetch=["pool5", "logits", "res5b"])
    assert fetched["res5b"].shape == (2, 512, 2, 2)
    np.testing.assert_allclose(fetched["pool5"], fetched["res5b"].mean((2, 3)), rtol=1e-4, atol=1e-6)
    logits = fetched["pool5"] @ state["fc_0.w_0"] + state["fc_0.b_0"]
    assert relative_difference(fetched["logits"], logits) < 1e-5


@pytest.mark.parametrize(
    "given, found",
    [
        ("ResNet50", "ResNet50"),
        ("resnet50_VD", "ResNet50_vd"),
        ("GoogleNet", "GoogLeNet"),
        ("MobileNet", "MobileNetV1"),
    ],
)
def test_find_model(given, found):
    assert find_model(given) is MODELS[found]


@pytest.mark.parametrize(
    "given, nearest", [("ResNet51", "ResNet50"), ("SE_ResNext50", "SE_ResNeXt50_32x4d"), ("VGG", "VGG")]
)
def test_unknown_model_suggests_the_nearest(given, nearest):
    with pytest.raises(UserError, match=f"There is no model '{given}'; did you mean {nearest}"):
        find_model(given)


def test_shapes_of_the_first_fully_connected_layer_follow_the_image():
    assert shapes(build_classifier("VGG11", (3, 64, 96)))["fc6_weights"] == [512 * 2 * 3, 4096]
    assert shapes(build_classifier("AlexNet", (3, 227, 227)))["fc6_weights"] == [256 * 6 * 6, 4096]


@pytest.mark.parametrize("kind", ["paddle", "xla"])
def test_ranks_of_labels_are_their_places_in_a_stable_sort(kind: str) -> None:
    def network(logits, label, training):
        return {"ranks": label_ranks(logits, label)}

    program = build(network, [Input("logits", (None, 7)), Input("label", (None,), "int64")], name="ranks")
    executor, _ = engine.create(kind, "cpu")
    rng = np.random.default_rng(8)
    logits = rng.integers(0, 3, (40, 7)).astype(np.float32)
    logits[-1] = np.nan
    label = rng.integers(0, 7, 40)
    ranks = np.asarray(executor.run(program, {"logits": logits, "label": label})["ranks"])
    order = np.argsort(-logits[:-1], axis=1, kind="stable")
    assert np.array_equal(ranks[:-1], np.argmax(order == label[:-1, None], axis=1))
    assert ranks[-1] >= 6
