"""From prototxt to layers: rules, inputs, old formats, and what is refused."""

from __future__ import annotations

from caffe2fluid.errors import ConvertError
from caffe2fluid.network import output_blobs, read_network
from caffe2fluid.tests.tools import caffemodel, run, translate_files

import numpy as np
import pytest

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }\n'


def write(folder, text, weights=None):
    path = folder / "net.prototxt"
    path.write_text(text)
    if weights is None:
        return path
    model = folder / "net.caffemodel"
    model.write_bytes(caffemodel(weights))
    return path, model


def relu(name, rule="", bottom="data", top=None):
    return f'layer {{ name: "{name}" type: "ReLU" bottom: "{bottom}" top: "{top or name}" {rule} }}\n'


@pytest.mark.parametrize(
    ("rule", "options", "kept"),
    [
        ("include { phase: TRAIN }", {}, False),
        ("include { phase: TRAIN }", {"phase": "TRAIN"}, True),
        ("include { phase: TRAIN } include { phase: TEST }", {}, True),
        ("exclude { phase: TEST }", {}, False),
        ("exclude { phase: TRAIN }", {}, True),
        ("include { min_level: 1 }", {}, False),
        ("include { min_level: 1 }", {"level": 2}, True),
        ("include { max_level: 1 }", {"level": 2}, False),
        ('include { stage: "deploy" }', {}, False),
        ('include { stage: "deploy" }', {"stages": ("deploy", "x")}, True),
        ('include { not_stage: "x" }', {"stages": ("x",)}, False),
        ('exclude { stage: "a" } exclude { stage: "b" }', {"stages": ("b",)}, False),
    ],
)
def test_rules(rule, options, kept, tmp_path):
    network = read_network(write(tmp_path, INPUT + relu("a", rule) + relu("b")), **options)
    assert [layer.name for layer in network.layers] == (["a", "b"] if kept else ["b"])


def test_one_name_in_two_phases(tmp_path):
    text = INPUT + relu("x", "include { phase: TRAIN }") + relu("x", "include { phase: TEST }", top="y")
    assert output_blobs(read_network(write(tmp_path, text))) == ["y"]


def test_training_net(tmp_path):
    """Data layers become inputs, losses and accuracies go, labels go with them."""
    text = """
    layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST }
            transform_param { crop_size: 8 mean_value: 104 scale: 0.5 } data_param { batch_size: 4 source: "x" } }
    layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
    layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    layer { name: "half" type: "Power" bottom: "loss" top: "half" power_param { scale: 0.5 } }
    """
    network = read_network(write(tmp_path, text))
    assert network.inputs == {"data": [4, 3, 8, 8]}
    assert [(layer.name, layer.type) for layer in network.layers] == [("ip", "InnerProduct"), ("prob", "Softmax")]
    assert output_blobs(network) == ["prob"]
    assert output_blobs(read_network(write(tmp_path, text), logits=True)) == ["ip"]
    assert len([note for note in network.notes if note.startswith("dropped")]) == 4
    assert network.transform.number("scale") == 0.5


@pytest.mark.parametrize(
    "text",
    [
        'input: "data" input_dim: 2 input_dim: 3 input_dim: 8 input_dim: 8\n',
        'input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }\n',
        'layer { name: "m" type: "MemoryData" top: "data" top: "label" '
        "memory_data_param { batch_size: 2 channels: 3 height: 8 width: 8 } }\n",
        'layer { name: "m" type: "DummyData" top: "data" dummy_data_param { num: 2 channels: 3 height: 8 width: 8 } }\n',
        'layer { name: "i" type: "ImageData" top: "data" top: "label" image_data_param '
        '{ batch_size: 2 new_height: 8 new_width: 8 source: "x" } }\n',
    ],
)
def test_ways_to_declare_an_input(text, tmp_path):
    assert read_network(write(tmp_path, text + relu("r"))).inputs == {"data": [2, 3, 8, 8]}


def test_shapes_from_outside(tmp_path):
    path = write(tmp_path, 'layer { name: "d" type: "Data" top: "data" }\n' + relu("r"))
    with pytest.raises(ConvertError, match="--input_shape 'data=1,3,224,224'"):
        read_network(path)
    assert read_network(path, input_shapes={"data": [1, 1, 4, 4]}).inputs == {"data": [1, 1, 4, 4]}
    with pytest.raises(ConvertError, match="--input_shape names nothing"):
        read_network(path, input_shapes={"data": [1, 1, 4, 4], "nothing": [1]})


IP = """layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }\n"""
PYTHON = """layer { name: "d" type: "Python" top: "data" top: "label" %s
    python_param { module: "m" layer: "VOCSegDataLayer" param_str: "1" } }\n"""


@pytest.mark.parametrize(
    "source",
    [
        PYTHON % "",
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "x" batch_size: 9 } }\n',
        'layer { name: "d" type: "SomebodysData" top: "data" top: "label" some_param { batch_size: 9 } }\n',
    ],
)
def test_layers_that_bring_data_become_inputs(source, tmp_path):
    """Labels, that only layers read which are dropped, need no shape."""
    path = write(tmp_path, source + IP)
    with pytest.raises(
        ConvertError, match="the inputs data are not in the file; give them: --input_shape 'data=1,3,224,224'$"
    ):
        read_network(path)
    assert read_network(path, input_shapes={"data": [1, 3, 8, 8]}).inputs == {"data": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    "passing",
    [
        'layer { name: "f" type: "Flatten" bottom: "label" top: "flat" }\n',
        'layer { name: "s" type: "Slice" bottom: "label" top: "flat" top: "other" }\n'
        'layer { name: "q" type: "Silence" bottom: "other" }\n',
    ],
)
def test_what_passes_labels_on_goes_with_them(passing, tmp_path):
    text = PYTHON % "" + passing + IP.replace('bottom: "label"', 'bottom: "flat"')
    network = read_network(write(tmp_path, text), input_shapes={"data": [1, 3, 8, 8]})
    assert [layer.name for layer in network.layers] == ["ip", "prob"]
    kept = read_network(
        write(tmp_path, text + relu("r", bottom="flat")), input_shapes={"data": [1, 3, 8, 8], "label": [1, 2]}
    )
    assert "label" in kept.inputs and kept.layers[0].bottoms == ["label"]


@pytest.mark.parametrize(("phase", "other"), [("TEST", "train"), ("TRAIN", "test")])
def test_data_of_the_other_phase(phase, other, tmp_path):
    path = write(tmp_path, PYTHON % f"include {{ phase: {other.upper()} }}" + IP)
    with pytest.raises(
        ConvertError, match=f"with --phase {other}, or make the blob an input: --input_shape 'data=1,3,224,224'"
    ):
        read_network(path, phase)
    shapes = {"data": [1, 3, 8, 8], "label": [1]}
    assert read_network(path, phase, input_shapes=shapes).inputs == {"data": [1, 3, 8, 8]}


@pytest.mark.parametrize(
    ("transform", "size"),
    [
        ("resize_param { prob: 1 resize_mode: WARP height: 300 width: 200 }", [300, 200]),
        ("resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 300 width: 200 }", [300, 200]),
        ("crop_size: 64 resize_param { height: 300 width: 200 }", [64, 64]),
        ("resize_param { resize_mode: FIT_SMALL_SIZE height: 300 width: 200 }", None),
    ],
)
def test_sizes_that_ssd_s_data_layers_give(transform, size, tmp_path):
    text = f"""layer {{ name: "d" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {transform} }}
        data_param {{ source: "x" batch_size: 4 }} annotated_data_param {{ }} }}\n""" + relu("r")
    if size is None:
        with pytest.raises(ConvertError, match="--input_shape 'data="):
            read_network(write(tmp_path, text))
    else:
        assert read_network(write(tmp_path, text)).inputs == {"data": [4, 3, *size]}


def test_probabilities_of_several_losses(tmp_path):
    """Each beside its logits, along the loss's axis; a blob called prob keeps its name."""
    loss = 'layer { name: "%s" type: "SoftmaxWithLoss" bottom: "%s" bottom: "label" top: "%s" softmax_param { axis: 2 } }\n'
    label = 'input: "label" input_shape { dim: 2 }\n'
    text = (
        INPUT.replace("layer", label + "layer", 1)
        + relu("a")
        + relu("b")
        + loss % ("l1", "a", "l1")
        + loss % ("l2", "b", "l2")
    )
    network = read_network(write(tmp_path, text))
    assert output_blobs(network) == ["a_prob", "b_prob"]
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    result = run(translate_files(tmp_path / "net.prototxt"), {"data": x})
    np.testing.assert_allclose(result["b_prob"].sum(2), 1, rtol=1e-5)
    text = label + INPUT + relu("prob") + loss % ("l", "prob", "l")
    assert output_blobs(read_network(write(tmp_path, text))) == ["prob_"]


def test_last_layer_in_place_is_the_output(tmp_path):
    assert output_blobs(read_network(write(tmp_path, INPUT + relu("a") + relu("b", bottom="a", top="a")))) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INPUT + relu("a", bottom="nothing"), "reads the blob 'nothing'"),
        (
            INPUT + relu("a", bottom="b") + relu("b", bottom="a"),
            "reads the blob 'b', which no layer before it writes, but 'b' behind; Caffe runs layers as they follow",
        ),
        (INPUT + relu("a", bottom='data" bottom: "data'), "has 2 bottoms, ReLU takes 1"),
        (
            INPUT
            + relu("a").replace("ReLU", "Pooling").replace('top: "a"', 'top: "data" pooling_param { kernel_size: 2 }'),
            r"works in place on the blob 'data' of shape \[.*8, 8\], and its output is \[.*7, 7\]",
        ),
        (INPUT + relu("a") + relu("b", top="a"), "writes the blob 'a', which another layer wrote already"),
        (INPUT + 'layer { name: "x" top: "y" }', "has no type"),
        (INPUT + relu("a", "include { phase: TEST } exclude { phase: TRAIN }"), "include and exclude"),
        (INPUT, "nothing to convert"),
        (INPUT.replace("layer {", "layers {") + relu("a"), "both `layers` .* and `layer`"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "Git LFS pointer"),
        ("\n<!DOCTYPE html>\n<html><head>", "a web page, not the file"),
        ("<html>", "a web page, not the file"),
        ('net: "train_val.prototxt" base_lr: 0.01', "is this a solver"),
        (INPUT.replace("dim: 8", "dim: -8", 1) + relu("a"), "has the dimension -8"),
        (INPUT.replace("dim: 8", "dim: 0", 1) + relu("a"), "is empty"),
        (INPUT.replace("dim: 8", "dim: 99999999", 1) + relu("a"), "larger than a Caffe blob can be"),
    ],
)
def test_what_contradicts_itself(text, message, tmp_path):
    with pytest.raises(ConvertError, match=message):
        translate_files(write(tmp_path, text))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ('type: "Convolution" convolution_param { kernel_size: 3 }', "the field num_output is missing"),
        (
            'type: "Convolution" convolution_param { num_output: 0 kernel_size: 3 }',
            "num_output must be 1 or more, but is 0",
        ),
        ('type: "InnerProduct" inner_product_param { num_output: -1 }', "num_output must be 1 or more, but is -1"),
        ('type: "Embed" embed_param { num_output: 3 input_dim: 0 }', "input_dim must be 1 or more, but is 0"),
        ('type: "Convolution" convolution_param { num_output: 4 }', "neither kernel_size nor kernel_h"),
        ('type: "Convolution" convolution_param { num_output: 4 kernel_size: 30 }', "does not fit into"),
        ('type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 group: 2 }', "into 2 groups"),
        ('type: "Convolution" convolution_param { num_output: "4" kernel_size: 3 }', "must be an integer"),
        ('type: "Convolution" convolution_param { num_output: 4 kernel_size: 3 stride: 0 }', "out of range"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }', "is not smaller than the kernel"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pool: STOCHASTIC }', "STOCHASTIC"),
        ('type: "LRN" lrn_param { local_size: 4 }', "is not odd"),
        ('type: "Softmax" softmax_param { axis: 4 }', "axis 4 of a blob with 4 axes"),
        ('type: "Reshape" reshape_param { shape { dim: 7 dim: -1 } }', "cannot be reshaped"),
        ('type: "Tile" tile_param { tiles: 50000000 }', "larger than a Caffe blob"),
        ('type: "Slice" slice_param { slice_point: 9 }', "slice points"),
        ('type: "Eltwise"', "has 1 bottom, Eltwise takes at least 2"),
        ('type: "Power" power_param { shift: nan }', "shift must be a number .nan is none., but is 'nan'"),
        ('type: "ReLU6" relu6_param { threshold: -inf }', "threshold -inf"),
        ('type: "Dropout" dropout_param { dropout_ratio: 1.5 }', "not between 0 and 1"),
    ],
)
def test_bad_parameters_name_layer_and_line(layer, message, tmp_path):
    path = write(tmp_path, INPUT + f'layer {{ name: "bad" bottom: "data" top: "y" {layer} }}')
    with pytest.raises(ConvertError, match=message) as error:
        translate_files(path)
    assert "bad" in str(error.value)


def test_misspelt_fields_are_noted(tmp_path):
    layer = 'layer { name: "p" type: "Pooling" bottom: "data" top: "p" pooling_param { kernel_size: 2 strid: 2 } }'
    assert any("pooling_param.strid" in note for note in translate_files(write(tmp_path, INPUT + layer)).notes)


NUMBERS = {
    "ReLU": ("relu_param { negative_slope: %s }", lambda x, v: np.maximum(x, 0) + v * np.minimum(x, 0)),
    "ELU": ("elu_param { alpha: %s }", lambda x, v: np.where(x > 0, x, v * np.expm1(x))),
    "Swish": ("swish_param { beta: %s }", lambda x, v: x / (1 + np.exp(-v * x))),
    "Power": ("power_param { scale: %s }", lambda x, v: x * v),
    "Exp": ("exp_param { scale: %s }", lambda x, v: np.exp(x * v)),
    "Log": ("log_param { shift: %s }", lambda x, v: np.log(x + v)),
    "Threshold": ("threshold_param { threshold: %s }", lambda x, v: x > v),
    "Eltwise": ('bottom: "data" eltwise_param { coeff: 1 coeff: %s }', lambda x, v: x + x * v),
    "Reduction": ("reduction_param { axis: 1 coeff: %s }", lambda x, v: x.sum((1, 2, 3)) * v),
    "HardSigmoid": ("hardsigmoid_param { alpha: %s }", lambda x, v: np.clip(x * v + 0.5, 0, 1)),
    "Pad": (
        "pad_param { pad_l: 1 pad_value: %s }",
        lambda x, v: np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 0)), constant_values=v),
    ),
}


@pytest.mark.parametrize("value", ["inf", "-inf", "1e400"])
@pytest.mark.parametrize("kind", NUMBERS)
def test_numbers_that_are_none_in_python(kind, value, tmp_path):
    """Caffe computes with them; so does the code, or the message names the layer."""
    body, formula = NUMBERS[kind]
    path = write(tmp_path, INPUT + f'layer {{ name: "l" type: "{kind}" bottom: "data" top: "l" {body % value} }}')
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    with np.errstate(all="ignore"):
        expected = np.asarray(formula(x.astype(np.float64), float(value)), np.float64).astype(np.float32)
    result = run(translate_files(path), {"data": x})["l"]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-38)


def test_all_unknown_layers_in_one_error(tmp_path):
    text = INPUT + 'layer { name: "a" type: "Warp" bottom: "data" top: "a" }\n' + relu("r", bottom="a")
    text += (
        'layer { name: "b" type: "Python" bottom: "r" top: "b" python_param { module: "m" layer: "MyLayer" } }\n'
        'layer { name: "p" type: "Flow" bottom: "b" top: "c" }\n'
    )
    with pytest.raises(ConvertError) as error:
        translate_files(write(tmp_path, text))
    for expected in ("a (Warp)", "b (MyLayer)", "p (Flow)", "--custom_layers FILE.py"):
        assert expected in str(error.value)


CONVOLUTION = """layer { name: "c" type: "Convolution" bottom: "data" top: "c"
    convolution_param { num_output: 2 kernel_size: 3 bias_term: false %s } }"""


def test_weights_of_another_shape(tmp_path):
    files = write(tmp_path, INPUT + CONVOLUTION % "", {"c": ("Convolution", [np.zeros((2, 4, 3, 3))])})
    with pytest.raises(ConvertError, match=r"blob 0 of the caffemodel has the shape \[2, 4, 3, 3\], .* \[2, 3, 3, 3\]"):
        translate_files(*files)


def test_missing_weights(tmp_path):
    files = write(tmp_path, INPUT + CONVOLUTION % "", {"other": ("Convolution", [np.zeros((2, 3, 3, 3))])})
    with pytest.raises(ConvertError, match="(?s)lacks 1 parameter: c_weights.*--allow_missing"):
        translate_files(*files)


def test_missing_weights_with_a_deterministic_filler(tmp_path):
    """As Caffe: bilinear upsampling that was never saved."""
    layer = """layer { name: "up" type: "Deconvolution" bottom: "data" top: "up" convolution_param { num_output: 3 group: 3
        kernel_size: 4 stride: 2 pad: 1 bias_term: false weight_filler { type: "bilinear" } } }"""
    files = write(tmp_path, INPUT + layer, {"other": ("ReLU", [np.zeros(1)])})
    constant = run(translate_files(*files), {"data": np.ones((2, 3, 8, 8))})["up"]
    np.testing.assert_allclose(constant[:, :, 1:-1, 1:-1], 1.0)  # interpolation keeps a constant


def test_batch_norm_without_samples(tmp_path):
    """A scale factor of 0 stands for no statistics: mean and variance 0."""
    layer = 'layer { name: "b" type: "BatchNorm" bottom: "data" top: "b" batch_norm_param { eps: 0.25 } }'
    files = write(tmp_path, INPUT + layer, {"b": ("BatchNorm", [np.ones(3), np.ones(3), np.zeros(1)])})
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8))
    np.testing.assert_allclose(run(translate_files(*files), {"data": x})["b"], x / 0.5, rtol=1e-5)


def test_two_inputs_and_two_outputs(tmp_path):
    text = INPUT + INPUT.replace('"data"', '"image"') + relu("a") + relu("b", bottom="image")
    translation = translate_files(write(tmp_path, text))
    assert list(translation.network.inputs) == ["data", "image"]
    assert translation.outputs == ["a", "b"]


# Layers of forks that no Caffe at hand can run on a CPU: their definition in numpy


def test_axpy(tmp_path):
    shapes = "".join(INPUT.replace('"data"', f'"{name}"') for name in "xy")
    shapes += 'layer { name: "a" type: "Input" top: "a" input_param { shape { dim: 2 dim: 3 dim: 1 dim: 1 } } }\n'
    text = shapes + 'layer { name: "o" type: "Axpy" bottom: "a" bottom: "x" bottom: "y" top: "o" }'
    generator = np.random.default_rng(0)
    a, x, y = (generator.standard_normal(shape) for shape in ((2, 3, 1, 1), (2, 3, 8, 8), (2, 3, 8, 8)))
    result = run(translate_files(write(tmp_path, text)), {"a": a, "x": x, "y": y})["o"]
    np.testing.assert_allclose(result, a * x + y, rtol=1e-5, atol=1e-6)


def test_select(tmp_path):
    layer = 'layer { name: "s" type: "Select" bottom: "data" top: "s" select_param { axis: 1 slice_point: 1 slice_point: 3 } }'
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_array_equal(run(translate_files(write(tmp_path, INPUT + layer)), {"data": x})["s"], x[:, 1:3])


def test_batch_normalisation_of_forks(tmp_path):
    layer = 'layer { name: "b" type: "BN" bottom: "data" top: "b" bn_param { eps: 0.001 } }'
    generator = np.random.default_rng(0)
    x = generator.standard_normal((2, 3, 8, 8))
    slope, bias, mean, variance = (generator.uniform(0.5, 2, 3) for _ in range(4))
    pspnet = write(tmp_path, INPUT + layer, {"b": ("BN", [a.reshape(1, 3) for a in (slope, bias, mean, variance)])})
    lift = (slice(None), None, None)
    expected = (x - mean[lift]) / np.sqrt(variance[lift] + 1e-3) * slope[lift] + bias[lift]
    np.testing.assert_allclose(run(translate_files(*pspnet), {"data": x})["b"], expected, rtol=1e-4, atol=1e-5)
    segnet = write(tmp_path, INPUT + layer, {"b": ("BN", [a.reshape(1, 3, 1, 1) for a in (slope, bias)])})
    expected = x * slope[lift] + bias[lift]
    np.testing.assert_allclose(run(translate_files(*segnet), {"data": x})["b"], expected, rtol=1e-4, atol=1e-5)


def test_segnet_upsample(tmp_path):
    layers = """layer { name: "p" type: "Pooling" bottom: "data" top: "p" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }
        layer { name: "u" type: "Upsample" bottom: "p" bottom: "mask" top: "u" upsample_param { scale: 2 } }"""
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    blocks = x.reshape(2, 3, 4, 2, 4, 2)
    largest = blocks == blocks.max((3, 5), keepdims=True)
    expected = np.where(largest, blocks, 0).reshape(x.shape)
    np.testing.assert_array_equal(run(translate_files(write(tmp_path, INPUT + layers)), {"data": x})["u"], expected)


@pytest.mark.parametrize("kind", ["DepthwiseConvolution", "ConvolutionDepthwise"])
def test_depthwise_convolution_is_a_convolution_with_one_group_a_channel(kind, tmp_path):
    layer = """layer { name: "c" type: "%s" bottom: "data" top: "c"
        convolution_param { num_output: 3 kernel_size: 3 pad: 1 %s } }"""
    generator = np.random.default_rng(0)
    blobs = [generator.standard_normal((3, 1, 3, 3)), generator.standard_normal(3)]
    x = generator.standard_normal((2, 3, 8, 8))
    plain = run(
        translate_files(*write(tmp_path, INPUT + layer % ("Convolution", "group: 3"), {"c": ("Convolution", blobs)})),
        {"data": x},
    )
    short = run(translate_files(*write(tmp_path, INPUT + layer % (kind, ""), {"c": (kind, blobs)})), {"data": x})
    np.testing.assert_array_equal(short["c"], plain["c"])
