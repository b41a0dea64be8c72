"""Every layer against real Caffe."""

from __future__ import annotations

from caffe2fluid.convert import convert
from caffe2fluid.converted import Predictor, open_converted, read_arrays, run_blobs
from caffe2fluid.operators import caffe_lstm, caffe_lstm_from
from caffe2fluid.tests.tools import MICRO, LayerReferences, caffemodel, load_source, relative, run, translate_files

import numpy as np
import paddle
import pytest

REFERENCES = LayerReferences()
MICRO_NETS = sorted(path.stem for path in MICRO.glob("*.prototxt"))
TOLERANCE = 1e-5


def test_that_no_reference_is_missing():
    assert len(MICRO_NETS) == 30
    assert len(REFERENCES.index) == 244


@pytest.mark.parametrize("name", MICRO_NETS)
def test_micro_net_from_files_to_inference_model(name, tmp_path):
    """The whole way: files on disk, plain executor and predictor with and without oneDNN."""
    arrays = read_arrays(MICRO / f"{name}.npz")
    convert(MICRO / f"{name}.prototxt", MICRO / f"{name}.caffemodel", tmp_path / "out")
    converted = open_converted(tmp_path / "out")
    feed = {blob: arrays[f"in__{blob}"] for blob in converted.inputs}
    blobs = dict(run_blobs(converted, feed))
    compared = [key for key in arrays if key.startswith("blob__")]
    assert compared
    for key in compared:
        assert relative(blobs[key.removeprefix("blob__")], arrays[key]) < TOLERANCE, key
    for onednn in (True, False):
        outputs = Predictor(converted, onednn)(feed)
        assert list(outputs) == converted.outputs
        for blob, array in outputs.items():
            assert relative(array, arrays[f"blob__{blob}"]) < TOLERANCE, (blob, onednn)


@pytest.mark.parametrize("name", sorted(REFERENCES.index))
def test_layer_in_plain_executor(name, tmp_path):
    translation = translate_files(*REFERENCES.files(name, tmp_path))
    blobs = run(translation, REFERENCES.arrays(name, "inputs"))
    compared = 0
    for blob, array in REFERENCES.arrays(name, "blobs").items():
        if blob in blobs:
            assert relative(blobs[blob], array) < TOLERANCE, blob
            compared += 1
    assert compared


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(REFERENCES.index))
def test_layer_in_predictor(name, tmp_path):
    convert(*REFERENCES.files(name, tmp_path), tmp_path / "out")
    converted = open_converted(tmp_path / "out")
    inputs, blobs = REFERENCES.arrays(name, "inputs"), REFERENCES.arrays(name, "blobs")
    for onednn in (True, False):
        outputs = Predictor(converted, onednn)({blob: inputs[blob] for blob in converted.inputs})
        for blob, array in outputs.items():
            assert relative(array, blobs[blob]) < TOLERANCE, (blob, onednn)


@pytest.mark.parametrize(
    "name", ["det_none", "c_leakyconv", "mvn_0", "bn_glob", "upsample", "pool_MAX_4", "lstm_static"]
)
def test_what_onednn_does_not_survive_otherwise(name, tmp_path):
    """Layers whose obvious translation crashes Paddle 3.3's CPU predictor or gives wrong values in it."""
    test_layer_in_predictor(name, tmp_path)


@pytest.mark.parametrize("name", ["c_bnscale", "ip_2d", "det_0", "argmax_3", "reshape_0", "lrn_0", "pool_AVE_2"])
def test_any_batch_size(name, tmp_path):
    """A net converted for one batch gives each image of another batch what it gave before."""
    translation = translate_files(*REFERENCES.files(name, tmp_path))
    inputs = REFERENCES.arrays(name, "inputs")
    assert all(translation.free_shapes[blob][0] is None for blob in translation.outputs if name != "det_0")
    batched = {blob for blob in translation.network.inputs if inputs[blob].shape[0] > 1}
    one = run(translation, {blob: inputs[blob][:1] if blob in batched else inputs[blob] for blob in inputs})
    three = run(
        translation,
        {blob: np.concatenate([inputs[blob][:1]] * 3) if blob in batched else inputs[blob] for blob in inputs},
    )
    for blob in translation.outputs:
        if name == "det_0":
            rows = one[blob][0, 0]
            np.testing.assert_array_equal(three[blob][0, 0][:, 0], np.repeat([0, 1, 2], len(rows)))
            np.testing.assert_allclose(three[blob][0, 0][:, 1:], np.concatenate([rows[:, 1:]] * 3), rtol=1e-6)
        else:
            np.testing.assert_allclose(three[blob], np.concatenate([one[blob]] * 3), rtol=1e-5, atol=1e-6)


def test_lstm_is_one_operation_that_trains(tmp_path):
    """Whatever the number of steps; its gradients, with starts inside, are those of the recurrence step by step."""
    steps, items, features, units = 7, 3, 5, 4
    generator = np.random.default_rng(0)
    continues = (generator.uniform(size=(steps, items)) > 0.4).astype(np.float32)
    shapes = {
        "x": (steps, items, features),
        "w_x": (4 * units, features),
        "bias": (4 * units,),
        "w_h": (4 * units, units),
    }
    arrays = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    paddle.disable_static()
    try:
        results = []
        for function in (caffe_lstm, caffe_lstm_from):
            given = {name: paddle.to_tensor(array, stop_gradient=False) for name, array in arrays.items()}
            x, w_x, bias, w_h = given.values()
            zero = [paddle.zeros([1, items, units])] * (2 if function is caffe_lstm_from else 0)
            values = function(x, paddle.to_tensor(continues), steps, units, w_x, bias, w_h, *zero)
            paddle.sum(paddle.sin(values[0]) + values[1] * values[2]).backward()
            results.append([*values, *(tensor.grad for tensor in given.values())])
    finally:
        paddle.enable_static()
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-5)
    lengths = []
    for steps in (2, 50):
        text = f'input: "x" input_shape {{ dim: {steps} dim: 2 dim: 3 }} input: "cont" input_shape {{ dim: {steps} dim: 2 }}'
        (tmp_path / "net.prototxt").write_text(
            text
            + 'layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "l" recurrent_param { num_output: 4 } }'
        )
        program = load_source(translate_files(tmp_path / "net.prototxt")).build()[1]
        lengths.append(len(program.global_block().ops))
    assert lengths[0] == lengths[1]


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Reshape" reshape_param { shape { dim: 2 dim: 4 dim: -1 } }',
        'type: "Flatten"',
        'type: "InnerProduct" inner_product_param { num_output: 3 weight_filler { type: "constant" value: 0.1 } bias_filler { value: 0 } }',
    ],
)
def test_a_transpose_of_fixed_size_and_what_follows(layer, tmp_path):
    """In the predictor, whose passes fuse the two."""
    text = 'input: "data" input_shape { dim: 2 dim: 3 dim: 4 dim: 5 }\n'
    text += 'layer { name: "p" type: "Permute" bottom: "data" top: "p" permute_param { order: 0 order: 2 order: 3 order: 1 } }\n'
    text += f'layer {{ name: "l" bottom: "p" top: "l" {layer} }}\n'
    text += 'layer { name: "f" type: "Reshape" bottom: "data" top: "f" reshape_param { shape { dim: 2 dim: 60 } } }'
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"none": ("ReLU", [np.zeros(1)])}))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out")
    converted = open_converted(tmp_path / "out")
    assert None not in converted.inputs["data"]
    feed = {"data": np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)}
    expected = dict(run_blobs(converted, feed, ["l"]))["l"]
    for onednn in (True, False):
        assert relative(Predictor(converted, onednn)(feed)["l"], expected) < TOLERANCE
