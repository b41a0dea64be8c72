"""Every layer against real Caffe."""

from __future__ import annotations

from caffe2fluid.convert import convert
from caffe2fluid.converted import Predictor, open_converted, read_arrays, run_blobs
from caffe2fluid.tests.tools import MICRO, LayerReferences, relative, run, translate_files

import numpy as np
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
