"""Reading weights of any kind, fitting them to a network, converting them."""

import json
import os
import re
import shutil
import struct
import tarfile
from pathlib import Path

from fluid import checkpoint, weights
from fluid.errors import UserError, WeightsError
from fluid.formats import legacy

import numpy as np
import pytest
from safetensors.numpy import save_file

FORMATS = Path(__file__).parent / "golden" / "formats"


def network(classes=10, width=4) -> dict[str, np.ndarray]:
    """A classifier's state: convolution, batch normalisation, two fully connected layers, momentum."""
    rng = np.random.default_rng(classes)
    shapes = {
        "conv1_weights": (width, 3, 3, 3),
        "bn1_scale": (width,),
        "bn1_offset": (width,),
        "fc6_weights": (width, 8),
        "fc6_offset": (8,),
        "fc7_weights": (8, classes),
        "fc7_offset": (classes,),
    }
    state = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return state | {f"{name}_velocity_0": np.zeros_like(array) for name, array in state.items()}


def parameters(state) -> dict[str, np.ndarray]:
    return {name: array for name, array in state.items() if not name.endswith("_velocity_0")}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[n].dtype == b[n].dtype and np.array_equal(a[n], b[n]) for n in a)


def test_every_format_gives_the_same_arrays(tmp_path):
    expected = legacy.read_folder(FORMATS / "inference_model")
    save_file(expected, tmp_path / "x.safetensors")
    shutil.copytree(FORMATS / "inference_model", tmp_path / "resnet_50" / "115")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "resnet_50", "resnet_50")
    shutil.make_archive(str(tmp_path / "y"), "zip", tmp_path, "resnet_50")
    (tmp_path / "graph").mkdir()
    shutil.copy(FORMATS / "fluid_save" / "model.pdparams", tmp_path / "graph" / "transformer.pdparams")
    for source in (
        FORMATS / "inference_model",
        FORMATS / "inference_model_combined",
        FORMATS / "fluid_save",
        FORMATS / "fluid_save" / "model.pdparams",
        tmp_path / "x.safetensors",
        tmp_path / "resnet_50",
        tmp_path / "x.tar",
        tmp_path / "y.zip",
        tmp_path / "graph",
    ):
        assert same(weights.read_weights(source), expected), source
    combined = FORMATS / "inference_model_combined" / "params"
    assert same(weights.read_weights(combined, list(expected)), expected)
    # Released as `params.pdparams`: a combined file under the suffix of a pickle.
    shutil.copy(combined, tmp_path / "params.pdparams")
    assert same(weights.read_weights(tmp_path / "params.pdparams", list(expected)), expected)
    # A combined file under any name, alone in its folder, for a network that is being trained.
    (tmp_path / "ocr").mkdir()
    shutil.copy(combined, tmp_path / "ocr" / "model_00120")
    names = [*expected, "fc_0.w_0_velocity_0", "learning_rate_0"]
    assert same(weights.read_weights(tmp_path / "ocr", names), expected)


@pytest.mark.parametrize("suffix", [".safetensors", ".pdparams", ""])
def test_conversion_there_and_back(tmp_path, suffix):
    source = FORMATS / "inference_model"
    weights.convert(source, tmp_path / f"a{suffix}")
    weights.convert(tmp_path / f"a{suffix}", tmp_path / "back")
    for name in legacy.read_folder(source):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    with pytest.raises(WeightsError, match="exists already"):
        weights.convert(source, tmp_path / f"a{suffix}")
    with pytest.raises(WeightsError, match=r"a \.npz file is not written here"):
        weights.convert(source, tmp_path / "a.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"a{suffix}", "back"])


def test_a_checkpoint_is_weights(tmp_path):
    state = network()
    checkpoint.save(tmp_path, state, checkpoint.Meta(task="image_classification", step=1))
    assert same(weights.read_weights(tmp_path), parameters(state))
    assert same(weights.read_weights(tmp_path / "checkpoints" / "step_00000001"), parameters(state))
    (file,) = tmp_path.glob("checkpoints/*/state.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="damaged"):
        weights.read_weights(tmp_path)


def test_a_folder_of_several_files_of_weights(tmp_path):
    for name in ("model-1-of-2.safetensors", "model-2-of-2.safetensors"):
        weights.write_weights(tmp_path / name, {"w": np.ones(2, np.float32)})
    with pytest.raises(WeightsError, match=r"several files of weights \(model-1-of-2.safetensors, model-2-of-2.saf"):
        weights.read_weights(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").rename(tmp_path / "._model-1-of-2.safetensors")
    assert weights.read_weights(tmp_path)["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("missing", None, "no such file or folder"),
        ("empty", b"", "an empty file"),
        ("text", b"hello, weights", "neither a Fluid parameter file"),
        ("x.safetensors", b"\x10\0\0\0\0\0\0\0{", "not a complete .safetensors"),
        ("x.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "not a complete .safetensors"),
        ("x.pdparams", b"not a pickle", "not a readable file of pickled arrays"),
        ("x.tar", b"PK\3\4 and nothing else", "neither"),
    ],
)
def test_unreadable_files(tmp_path, name, data, message):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        weights.read_weights(tmp_path / name)


@pytest.mark.parametrize("name", ["w", "w.safetensors", "w.pdparams", "w.tar.gz"])
def test_a_pipe_is_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(WeightsError, match="a pipe, a socket or a device, not a file"):
        weights.read_weights(tmp_path / name)


def test_an_array_of_a_hundred_dimensions(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(WeightsError, match="x.safetensors: w: an impossible shape"):
        weights.read_weights(tmp_path / "x.safetensors")


def test_pytorch_files_are_not_unpickled(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "data.pkl").write_bytes(b"cos\nsystem\n(S'touch executed'\ntR.")
    shutil.make_archive(str(tmp_path / "resnet"), "zip", tmp_path, "archive")
    os.rename(tmp_path / "resnet.zip", tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match=r"Save the arrays as \.safetensors first"):
        weights.read_weights(tmp_path / "resnet.pth")


def test_weights_that_fit():
    state, pretrained = network(), {name: array + 1 for name, array in network().items()}
    new, report = weights.load_into(state, pretrained)
    assert report.loaded == list(parameters(state)) and report.fits
    assert same(parameters(new), parameters(pretrained))
    assert all(not np.any(new[name]) for name in new if name.endswith("_velocity_0"))
    assert list(new) == list(state)
    half = {name: array.astype(np.float16) for name, array in parameters(pretrained).items()}
    assert all(array.dtype == np.float32 for array in weights.load_into(state, half)[0].values())


def test_a_head_with_other_classes_is_found():
    state, pretrained = network(classes=5), parameters(network(classes=1000))
    new, report = weights.load_into(state, pretrained)
    assert report.head == {"fc7_weights": ((8, 1000), (8, 5)), "fc7_offset": ((1000,), (5,))}
    assert np.array_equal(new["fc7_weights"], state["fc7_weights"])
    assert np.array_equal(new["fc6_weights"], pretrained["fc6_weights"])
    assert "replaced head" in str(report) and "fc7_weights [8, 1000] -> [8, 5]" in str(report)
    _, named = weights.load_into(state, pretrained, head=["fc7_*"])
    assert named.head == report.head
    with pytest.raises(WeightsError, match="The weights are for 1000 classes, the network has 5") as caught:
        weights.load_into(state, pretrained, head=[])
    assert "fc7_weights [8, 1000] -> [8, 5]" in str(caught.value)
    # Of all flags every script has this one alone.
    assert re.findall(r"--\w+", str(caught.value)) == ["--allow_partial"]


def test_a_network_of_another_width_is_not_a_head():
    with pytest.raises(WeightsError) as caught:
        weights.load_into(network(width=8), parameters(network(width=4)))
    assert "skipped (shape)     4" in str(caught.value)
    assert "conv1_weights [4, 3, 3, 3] -> [8, 3, 3, 3]" in str(caught.value)
    # Other classes as well: the head alone would be fine, the rest is not, so all of it is reported.
    with pytest.raises(WeightsError, match=r"skipped \(shape\)     6"):
        weights.load_into(network(width=8, classes=5), parameters(network(width=4)))


def test_missing_and_unused():
    state, pretrained = network(), parameters(network())
    short = {name: array for name, array in pretrained.items() if name != "bn1_offset"}
    with pytest.raises(WeightsError, match=r"missing     1  bn1_offset"):
        weights.load_into(state, short)
    new, report = weights.load_into(state, short, allow_partial=True)
    assert report.missing == ["bn1_offset"] and not report.fits
    assert np.array_equal(new["bn1_offset"], state["bn1_offset"])
    # A deeper network's weights hold everything a shallower one needs; that must not pass for a fit.
    with pytest.raises(WeightsError, match=r"unused     1  res9_weights"):
        weights.load_into(state, pretrained | {"res9_weights": np.ones(3, np.float32)})
    with pytest.raises(WeightsError, match="not one variable fits"):
        weights.load_into(state, {"elsewhere": np.ones(3, np.float32)}, allow_partial=True)


def test_offsets_that_are_zero_may_come_and_go():
    state, pretrained = network(), parameters(network())
    _, report = weights.load_into(state, pretrained | {"conv1_offset": np.zeros(4, np.float32)})
    assert report.ignored == ["conv1_offset"] and report.fits
    with pytest.raises(WeightsError, match="unused     1  conv1_offset"):
        weights.load_into(state, pretrained | {"conv1_offset": np.ones(4, np.float32)})
    with_offset = state | {"conv1_offset": np.zeros(4, np.float32)}
    with pytest.raises(WeightsError, match="missing     1  conv1_offset"):
        weights.load_into(with_offset, pretrained)
    new, report = weights.load_into(with_offset, pretrained, optional=["conv*_offset"])
    assert report.default == ["conv1_offset"] and not np.any(new["conv1_offset"])


def test_exclusion():
    state, pretrained = network(), parameters(network(classes=10))
    new, report = weights.load_into(
        state, {n: a + 1 for n, a in pretrained.items()}, exclude=["fc7_weights", "fc7_offset"]
    )
    assert report.excluded == ["fc7_weights", "fc7_offset"] and report.fits
    assert np.array_equal(new["fc7_weights"], state["fc7_weights"])
    with pytest.raises(WeightsError, match=r"No variable named fc7_weight to leave out.*Nearest: fc7_weights"):
        weights.load_into(state, pretrained, exclude=["fc7_weight"])


def test_integers_are_not_weights():
    with pytest.raises(WeightsError, match="fc7_offset: the file holds int64, the network needs float32"):
        weights.load_into(network(), parameters(network()) | {"fc7_offset": np.zeros(10, np.int64)})


def test_renaming():
    pretrained = {"conv2d_0.w_0": np.ones(1), "fc_0.w_0": np.zeros(1)}
    assert weights.has_automatic_names(pretrained) and not weights.has_automatic_names(network())
    assert list(weights.rename(pretrained, {"conv2d_0.w_0": "conv1_weights"})) == ["conv1_weights", "fc_0.w_0"]
    with pytest.raises(WeightsError, match="both renamed to fc_0.w_0"):
        weights.rename(pretrained, {"conv2d_0.w_0": "fc_0.w_0"})


def test_bfloat16_is_read_as_float32(tmp_path):
    values = np.array([[1.0, -2.5], [3.140625, np.float32(2**-130)]], np.float32)
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}).encode()
    halves = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + halves)
    (array,) = weights.read_weights(tmp_path / "w.safetensors").values()
    assert array.dtype == np.float32 and np.array_equal(array, values)
    header = header.replace(b"BF16", b"F8_E5M2").replace(b"8]", b"4]")
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"abcd")
    with pytest.raises(WeightsError, match="w: F8_E5M2 is a data type that is not read here"):
        weights.read_weights(tmp_path / "x.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.model."])
def test_wrappers_of_pytorch_are_taken_off(prefix):
    arrays = {"conv.weight": np.ones(1), "model.weight": np.zeros(1)}
    assert weights.unwrapped({prefix + name: array for name, array in arrays.items()}) == arrays
    assert weights.unwrapped(arrays) == arrays and weights.unwrapped({}) == {}


def test_what_is_not_finite_is_refused_by_name():
    state, pretrained = network(), parameters(network())
    pretrained["fc6_weights"][0, 0], pretrained["bn1_scale"][1] = np.nan, -np.inf
    with pytest.raises(WeightsError, match="NaN or infinity in bn1_scale, fc6_weights"):
        weights.load_into(state, pretrained)
    _, report = weights.load_into(state, pretrained, exclude=["fc6_weights", "bn1_scale"])
    assert report.fits


def test_a_run_is_its_best_checkpoint(tmp_path):
    for step in (1, 2):
        meta = checkpoint.Meta("task", step, best=0.5, best_step=1)
        checkpoint.save(tmp_path, {"w": np.full(2, float(step))}, meta, best=step == 1)
    assert weights.read_weights(tmp_path)["w"][0] == 1
