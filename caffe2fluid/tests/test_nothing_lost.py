"""What a conversion must not lose in silence: blobs, layers, fields, settings of Python layers."""

from __future__ import annotations

import re

from caffe2fluid.convert import convert, main
from caffe2fluid.converted import Predictor, open_converted
from caffe2fluid.errors import ConvertError
from caffe2fluid.fillers import fill
from caffe2fluid.param_str import parse_param_str
from caffe2fluid.prototxt import parse_prototxt
from caffe2fluid.tests.tools import caffemodel, run, translate_files

import numpy as np
import pytest

INPUT = 'input: "data" input_shape { dim: 2 dim: 3 dim: 4 dim: 4 }\n'
RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 3, 4, 4)).astype(np.float32)


def layer(kind, body="", name="l", bottom="data", top=None):
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" {body} }}\n'


def files(folder, text, weights):
    (folder / "net.prototxt").write_text(text)
    (folder / "net.caffemodel").write_bytes(caffemodel(weights))
    return folder / "net.prototxt", folder / "net.caffemodel"


# NVIDIA's BatchNorm

MEAN, VARIANCE, FACTOR = RANDOM.standard_normal(3), RANDOM.uniform(0.5, 2, 3), np.array([2.0])
SCALE, BIAS = RANDOM.uniform(1, 2, 3), RANDOM.standard_normal(3)
FIVE = [MEAN * 2, VARIANCE * 2, FACTOR, SCALE, BIAS]


def normalised(x, scale, bias):
    lift = (slice(None), None, None)
    return (x - MEAN[lift]) / np.sqrt(VARIANCE[lift] + 1e-5) * scale[lift] + bias[lift]


@pytest.mark.parametrize(
    ("body", "blobs", "affine"),
    [
        ('scale_filler { type: "constant" value: 1 } bias_filler { value: 0 }', FIVE, True),
        ("scale_filler { value: 1 }", FIVE, True),
        ("bias_filler { value: 0 }", FIVE, True),
        ("scale_bias: true", FIVE, True),
        ("", FIVE, True),
        ("scale_bias: false", FIVE, False),
        ("", FIVE[:3], False),
    ],
)
def test_batch_norm_with_own_scale(body, blobs, affine, tmp_path):
    """As src/caffe/layers/batch_norm_layer.cpp of NVIDIA/caffe: a filler asks for scale and bias, too."""
    text = INPUT + layer("BatchNorm", f"batch_norm_param {{ {body} }}")
    translation = translate_files(*files(tmp_path, text, {"l": ("BatchNorm", blobs)}))
    expected = normalised(X, SCALE, BIAS) if affine else normalised(X, np.ones(3), np.zeros(3))
    np.testing.assert_allclose(run(translation, {"data": X})["l"], expected, rtol=1e-4, atol=1e-5)
    reported = [note for note in translation.notes if "blob 3" in note or "blob 4" in note]
    assert len(reported) == (2 if blobs is FIVE and not affine else 0)


def test_a_scale_behind_a_batch_norm_that_scales_itself(tmp_path):
    """Both have their effect; folded, the first one's would be lost."""
    text = INPUT + layer("BatchNorm") + layer("Scale", "scale_param { bias_term: true }", "s", "l", "l")
    weights = {"l": ("BatchNorm", FIVE), "s": ("Scale", [np.full(3, 2.0), np.full(3, -1.0)])}
    result = run(translate_files(*files(tmp_path, text, weights)), {"data": X})["l"]
    np.testing.assert_allclose(result, normalised(X, SCALE, BIAS) * 2 - 1, rtol=1e-4, atol=1e-5)


def test_factor_zero_and_weights_that_are_no_numbers_are_noted(tmp_path):
    text = INPUT + layer("BatchNorm") + layer("PReLU", name="p", bottom="l")
    slopes = np.array([np.nan, 0.5, np.inf])
    notes = translate_files(
        *files(tmp_path, text, {"l": ("BatchNorm", [MEAN, VARIANCE, np.zeros(1)]), "p": ("PReLU", [slopes])})
    ).notes
    assert any(re.match("l: its statistics are of no samples .factor 0.", note) for note in notes)
    assert "p: NaN or infinite: 2 values of blob 0" in notes


def test_layers_with_weights_that_are_called_alike(tmp_path):
    """A caffemodel tells them by their names."""
    weights = {"l": ("PReLU", [SCALE])}
    with pytest.raises(ConvertError, match="several with weights are called l; in the prototxt, give them names"):
        translate_files(*files(tmp_path, INPUT + layer("PReLU") + layer("PReLU", bottom="l", top="m"), weights))
    text = INPUT + layer("PReLU") + layer("ReLU", bottom="l", top="m") + layer("ReLU", bottom="m", top="n")
    prototxt, model = files(tmp_path, text, weights)
    assert not any("several" in note for note in translate_files(prototxt, model).notes)
    model.write_bytes(caffemodel({"l": ("PReLU", [BIAS])}) + caffemodel(weights))
    translation = translate_files(prototxt, model)
    np.testing.assert_array_equal(translation.parameters["l_slopes"].load(), SCALE.astype(np.float32))
    assert "l: several layers of the caffemodel have this name; the weights are the last one's" in translation.notes


# Blobs and layers without a partner

UNUSED = {
    "Convolution": ("convolution_param { num_output: 2 kernel_size: 1 bias_term: false }", [(2, 3, 1, 1), (2,)]),
    "Deconvolution": ("convolution_param { num_output: 2 kernel_size: 1 bias_term: false }", [(3, 2, 1, 1), (2,)]),
    "InnerProduct": ("inner_product_param { num_output: 2 bias_term: false }", [(2, 48), (2,)]),
    "Scale": ("scale_param { bias_term: false }", [(3,), (3,)]),
    "Bias": ("", [(3,), (3,)]),
    "PReLU": ("", [(3,), (3,)]),
    "Embed": ("embed_param { input_dim: 5 num_output: 2 bias_term: false }", [(5, 2), (2,)]),
    "Normalize": ("norm_param { channel_shared: false scale_filler { value: 1 } }", [(3,), (3,)]),
    "ReLU": ("", [(7,), (3,)]),
    "Dropout": ("", [(7,), (3,)]),
}


@pytest.mark.parametrize("kind", UNUSED)
def test_every_blob_without_use_is_reported(kind, tmp_path):
    body, shapes = UNUSED[kind]
    blobs = [np.ones(shape) for shape in shapes]
    notes = translate_files(*files(tmp_path, INPUT + layer(kind, body), {"l": (kind, blobs)})).notes
    reported = [note for note in notes if "of the caffemodel, of shape" in note]
    assert [note[:9] for note in reported] == (
        ["l: blob 1"] if kind not in ("ReLU", "Dropout") else ["l: blob 0", "l: blob 1"]
    )


CONVOLUTION = "convolution_param { num_output: 2 kernel_size: 1 %s }"


def test_missing_weights_name_the_layers_of_both_sides(tmp_path):
    text = INPUT + layer("Convolution", CONVOLUTION % "", "conv1") + layer("ReLU", name="r", bottom="conv1")
    with pytest.raises(ConvertError) as error:
        translate_files(*files(tmp_path, text, {"conv_1": ("Convolution", [np.ones((2, 3, 1, 1)), np.ones(2)])}))
    said = str(error.value)
    assert "lacks 2 parameters: conv1_weights, conv1_biases" in said
    assert "layers of the prototxt without weights: conv1\n" in said
    assert "layers of the caffemodel that the prototxt does not have: conv_1\n" in said
    assert "--allow_missing" in said


@pytest.mark.parametrize("new", ["InnerProduct", "BatchNorm", "BN", "PReLU", "Scale", "Convolution"])
def test_what_is_missing_starts_as_its_filler_says_and_runs(new, tmp_path, capsys):
    bodies = {
        "InnerProduct": 'inner_product_param { num_output: 4 weight_filler { type: "gaussian" std: 0.01 } }',
        "Convolution": CONVOLUTION % 'weight_filler { type: "xavier" }',
    }
    text = (
        INPUT + layer("Scale", "scale_param { bias_term: true }", "old") + layer(new, bodies.get(new, ""), "new", "old")
    )
    prototxt, model = files(tmp_path, text, {"old": ("Scale", [np.ones(3), np.zeros(3)])})
    with pytest.raises(ConvertError, match="the prototxt without weights: new"):
        convert(prototxt, model, tmp_path / "out")
    words = [str(prototxt), "--caffemodel", str(model), "--output", str(tmp_path / "out"), "--allow_missing"]
    assert main(words) == 0
    assert "starts as its filler says: new_" in capsys.readouterr().out
    result = Predictor(open_converted(tmp_path / "out"))({"data": X})["new"]
    assert np.isfinite(result).all() and result.std() > 0


def test_fillers():
    """include/caffe/filler.hpp of BVLC Caffe: the range of each."""

    def filled(text, kind="weights", shape=(200, 50)):
        spec = parse_prototxt(text) if text else None
        first = fill(spec, kind, "n", shape)
        np.testing.assert_array_equal(first, fill(spec, kind, "n", shape))
        assert first.dtype == np.float32
        return first

    assert (filled('type: "constant" value: 3') == 3).all()
    uniform = filled('type: "uniform" min: -1 max: 3')
    assert -1 <= uniform.min() < -0.99 and 2.99 < uniform.max() <= 3
    gaussian = filled('type: "gaussian" mean: 1 std: 0.1')
    assert abs(gaussian.mean() - 1) < 0.01 and abs(gaussian.std() - 0.1) < 0.01
    assert abs(filled('type: "msra"').std() - np.sqrt(2 / 50)) < 0.01
    for text in ('type: "xavier"', ""):
        assert np.sqrt(3 / 50) * 0.99 < np.abs(filled(text)).max() <= np.sqrt(3 / 50)
    assert (filled("", "variance") == 1).all() and (filled("", "biases") == 0).all()
    assert not np.array_equal(fill(None, "weights", "a", (9, 9)), fill(None, "weights", "b", (9, 9)))


# Fields

FIELDS = {
    "relu_params { negative_slope: 0.1 }": "relu_params",
    "pooling_param { kernel_size: 2 }": "pooling_param",
    "relu_param { negative_slop: 0.1 }": "relu_param.negative_slop",
    "param { lr_multi: 2 }": "param.lr_multi",
    "include { phases: TEST }": "include.phases",
    "bottoms: 'data'": "bottoms",
}


@pytest.mark.parametrize("body", FIELDS)
def test_foreign_and_misspelt_fields_are_noted(body, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + layer("ReLU", body))
    notes = translate_files(path).notes
    assert notes == [f"l: fields that were not understood and have no effect: {FIELDS[body]}"]


DEEP = {
    ("Convolution", CONVOLUTION % "weight_filler { type: 'xavier' val: 1 }"): "convolution_param.weight_filler.val",
    ("Reshape", "reshape_param { shape { dim: 0 dims: -1 dim: 48 } }"): "reshape_param.shape.dims",
    ("Scale", "scale_param { filler { value: 1 } bias_fill { value: 1 } }"): "scale_param.bias_fill",
}


@pytest.mark.parametrize(("kind", "body"), DEEP)
def test_misspelt_fields_deep_inside_are_noted(kind, body, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(INPUT + layer(kind, body))
    assert [note.rpartition(": ")[2] for note in translate_files(path).notes] == [DEEP[kind, body]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (INPUT + "inputs: 'x'\n" + layer("ReLU"), "fields of the net that were not understood.*: inputs"),
        (
            'layer { name: "data" type: "Input" top: "data" input_parm { } input_param { shape { dim: [1, 3, 2, 2] } } shap: 1 }'
            + layer("ReLU"),
            "data: fields that were not understood.*: input_parm, shap",
        ),
        (
            INPUT.replace("2 ", "1 ", 1)
            + 'layers { bottom: "data" top: "l" layer { name: "l" type: "relu" slope: 0.1 } }',
            "l: fields that were not understood.*: slope",
        ),
        (
            INPUT + layer("BatchNorm") + layer("Scale", "scale_param { bias_terms: true }", "s", "l", "l"),
            "l: fields that were not understood.*: scale_param.bias_terms",
        ),
    ],
)
def test_misspelt_fields_elsewhere_are_noted(text, expected, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    assert any(re.match(expected, note) for note in translate_files(path).notes)


# Python layers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'feat_stride': 16", {"feat_stride": 16}),
        (
            "'feat_stride': 16 \n'scales': !!python/tuple [4, 8, 16, 32]",
            {"feat_stride": 16, "scales": [4, 8, 16, 32]},
        ),
        (
            "{'feat_stride': 8, 'scales': (4, 8.5,), \"ratios\": [.5, 1e0]}",
            {"feat_stride": 8, "scales": [4, 8.5], "ratios": [0.5, 1.0]},
        ),
        (
            "---\nfeat_stride: 16\nnested: {a: {b: null}, c: yes}",
            {"feat_stride": 16, "nested": {"a": {"b": None}, "c": "yes"}},
        ),
        ("'a': 1\\n'b': true", {"a": 1, "b": True}),
        ("", {}),
    ],
)
def test_param_str(text, expected):
    assert parse_param_str(text) == expected


@pytest.mark.parametrize(
    "text", ["16", "{'a': 1", "'a' 1", "'a': [1 2]", "'a': }", "a: " + "[" * 1000, "'a': 1; 2", "{'a': 1} x"]
)
def test_param_str_that_is_something_else(text):
    with pytest.raises(ValueError, match="expected|cannot read|nested"):
        parse_param_str(text)


def proposals(anchors, settings):
    shapes = {"s": (1, 2 * anchors, 4, 4), "d": (1, 4 * anchors, 4, 4), "info": (1, 3)}
    text = "".join(f'input: "{name}" input_shape {{ dim: {list(shape)} }}\n' for name, shape in shapes.items())
    return text + (
        'layer { name: "p" type: "Python" bottom: "s" bottom: "d" bottom: "info" top: "rois" python_param '
        f'{{ module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{settings}" }} }}'
    )


@pytest.mark.parametrize(
    ("settings", "scales", "ratios", "stride", "base"),
    [
        ("'feat_stride': 16", [8, 16, 32], [0.5, 1, 2], 16, 16),
        ("{'feat_stride': 8, 'scales': [4, 8, 16]}", [4, 8, 16], [0.5, 1, 2], 8, 16),
        ("'feat_stride': 16\\n'scales': !!python/tuple [4, 8, 16, 32]", [4, 8, 16, 32], [0.5, 1, 2], 16, 16),
        ("{'feat_stride': 4, 'scales': [8], 'ratios': [0.5, 1, 2], 'base_size': 4}", [8], [0.5, 1, 2], 4, 4),
        ("{'anchor_scales': [2], 'anchor_ratios': (1,)}", [2], [1], 16, 16),
    ],
)
def test_all_settings_of_a_proposal_layer_reach_its_anchors(settings, scales, ratios, stride, base, tmp_path):
    """Sides of the anchors: base_size * scale, of the ratio, in a grid of feat_stride."""
    path = tmp_path / "net.prototxt"
    path.write_text(proposals(len(scales) * len(ratios), settings))
    (parameter,) = translate_files(path).parameters.values()
    anchors = (parameter.load or parameter.initial)().reshape(4, 4, -1, 4)
    sides = anchors[0, 0, :, 2:] - anchors[0, 0, :, :2] + 1
    areas = [(base * scale) ** 2 for _ in ratios for scale in scales]
    np.testing.assert_allclose(sides.prod(1), areas, rtol=0.2)  # widths are rounded before they are scaled
    np.testing.assert_allclose(sides[:, 1] / sides[:, 0], np.repeat(ratios, len(scales)), rtol=0.2)
    np.testing.assert_array_equal(anchors[1, 2] - anchors[0, 0], np.tile([2 * stride, stride] * 2, (len(sides), 1)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{'feat_stride': 8, 'scale': [4]}", "param_str has 'scale', which has no translation; known are"),
        ("{'feat_stride': 'x'}", "feat_stride is 'x', not a whole number"),
        ("{'scales': ['a']}", "not a list of numbers"),
        ("{'scales': []}", "not a list of numbers"),
        ("{'feat_stride': 0}", "feat_stride 0"),
        ("{'feat_stride': 8", "param_str .* expected"),
        ("{'scales': [4, 8, 16, 32]}", "for 12 anchors"),
    ],
)
def test_settings_that_are_not_understood_are_errors(settings, message, tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text(proposals(9, settings))
    with pytest.raises(ConvertError, match=message):
        translate_files(path)
