"""compare.py, infer.py and eval.py on a small net with known weights."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys

from caffe2fluid import compare, eval, export, images, infer
from caffe2fluid import convert as convert_script
from caffe2fluid.convert import convert
from caffe2fluid.converted import open_converted, read_arrays, run_blobs
from caffe2fluid.errors import ConvertError
from caffe2fluid.tests.tools import MICRO, LayerReferences, caffemodel

import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

BRIGHTNESS = """name: "Brightness"
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 8 mean_value: 100 scale: 0.01 }
        data_param { batch_size: 2 } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "mean" top: "fc" inner_product_param { num_output: 3 bias_term: false } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A net whose class is the strongest of blue, green and red, and pictures of each colour."""
    folder = tmp_path_factory.mktemp("scripts")
    (folder / "net.prototxt").write_text(BRIGHTNESS)
    (folder / "net.caffemodel").write_bytes(caffemodel({"fc": ("InnerProduct", [np.eye(3) * 5])}))
    convert(folder / "net.prototxt", folder / "net.caffemodel", folder / "net")
    for name, colour in {"red": (250, 90, 80), "green": (60, 200, 10), "blue": (0, 30, 180)}.items():
        Image.new("RGB", (20, 12), colour).save(folder / f"{name}.png")
    (folder / "labels.txt").write_text("blue\ngreen\nred\n", "utf-8-sig")
    return folder


@pytest.mark.parametrize("script", [compare, convert_script, eval, export, infer], ids=lambda script: script.__name__)
def test_help_and_a_wrong_flag(script, capsys):
    """The same contract as that of the other tasks."""
    for words, code in ((["--help"], 0), (["net", "--no_such_flag", "1"], 2)):
        with pytest.raises(SystemExit) as stopped:
            script.main(words)
        assert stopped.value.code == code
    said = capsys.readouterr()
    assert "usage: " in said.out and "no_such_flag" in said.err


# infer.py


def test_classes_of_pictures(folder, capsys, tmp_path):
    pictures = [str(folder / f"{name}.png") for name in ("red", "green", "blue")]
    target = tmp_path / "out.jsonl"
    arguments = [str(folder / "net"), *pictures, "--labels", str(folder / "labels.txt"), "--top_k", "2"]
    assert (
        infer.main(
            [*arguments, "--json", str(target), "--fetch", str(tmp_path / "all.npz"), "--save_dir", str(tmp_path / "p")]
        )
        == 0
    )
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["prob"][0]["name"] for line in lines] == ["red", "green", "blue"]
    assert list(lines[0]["prob"][0]) == ["class", "name", "score"], "as image_classification has them"
    assert [len(line["prob"]) for line in lines] == [2, 2, 2]
    # (250 - 100) * 0.01 * 5, ... through a softmax, in the net's order blue, green, red
    logits = (np.array([80, 90, 250]) - 100) * 0.01 * 5
    expected = np.exp(logits) / np.exp(logits).sum()
    assert lines[0]["prob"][0]["score"] == pytest.approx(expected[2], rel=1e-5)
    np.testing.assert_allclose(read_arrays(tmp_path / "all.npz")["prob"][0], expected, rtol=1e-5)
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["blue.png", "green.png", "red.png"]
    assert "red" in capsys.readouterr().out


@pytest.fixture
def full_disk():
    """No file can grow beyond 100 kB, which fails as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))

    yield fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_is_told_with_the_name_and_leaves_nothing(tmp_path, full_disk):
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    files[0].write_text(
        'input: "data" input_shape { dim: 200 dim: 200 } layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" '
        "inner_product_param { num_output: 200 bias_term: false } }"
    )
    files[1].write_bytes(caffemodel({"fc": ("InnerProduct", [np.ones((200, 200))])}))
    convert(*files, tmp_path / "net")
    np.savez(tmp_path / "in.npz", data=np.ones((200, 200)))
    feed = [str(tmp_path / "net"), "--feed", str(tmp_path / "in.npz"), "--fetch", str(tmp_path / "out.npz")]
    (tmp_path / "out.npz").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    full_disk()
    for path, use in {
        tmp_path / "new": lambda path: convert(*files, path),
        tmp_path / "net": lambda path: convert(*files, path, overwrite=True),
        tmp_path / "a.npz": lambda path: convert(*files, data_path=path),
        tmp_path / "a.safetensors": lambda path: convert(*files, data_path=path),
        tmp_path / "net/inference/model.pdiparams": lambda path: infer.main(feed),
        tmp_path / "deploy": lambda path: export.main([str(tmp_path / "net"), "--export_dir", str(path)]),
        tmp_path / "out.npz": lambda path: infer.main([*feed, "--blobs", "fc"]),
    }.items():
        with pytest.raises(OSError, match="File too large") as error:
            use(path)
        assert error.value.filename == str(path)
        assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "out.npz").read_text() == "mine"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("flags", [[], ["--output_file", "found.jsonl"]])
def test_output_that_cannot_be_written_is_named(folder, tmp_path, flags, unbuffered):
    command = [sys.executable, infer.__file__, str(folder / "net"), str(folder / "red.png"), *flags]
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "error: standard output: No space left on device\n")


def test_no_file_takes_the_place_of_a_device_or_a_pipe(folder, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    np.savez(tmp_path / "in.npz", data=np.ones((2, 3, 8, 8)))
    net, pipe = str(folder / "net"), str(tmp_path / "pipe")
    for use in (
        lambda: infer.main([net, "--feed", str(tmp_path / "in.npz"), "--fetch", pipe]),
        lambda: convert(folder / "net.prototxt", folder / "net.caffemodel", data_path=pipe, overwrite=True),
        lambda: convert(folder / "net.prototxt", folder / "net.caffemodel", code_path=pipe, overwrite=True),
    ):
        with pytest.raises(ConvertError, match="pipe is a device or a pipe; give the name of a file"):
            use()
    assert (tmp_path / "pipe").is_fifo()


def test_ways_to_name_pictures(folder, monkeypatch):
    listing = folder / "list.txt"
    listing.write_text(f"{folder / 'red.png'}\n\n{folder / 'blue.png'}\n")
    assert len(images.find_images([str(folder)])) == 3
    assert len(images.find_images([str(folder / "*.png")])) == 3
    assert len(images.find_images([str(listing)])) == 2
    assert images.find_images(["-"], io.StringIO("a.png\nb.png\n")) == ["a.png", "b.png"]
    with pytest.raises(ConvertError, match="no such files"):
        images.find_images([str(folder / "*.gif")])


def test_byte_order_marks_are_no_part_of_names(folder):
    """Of lists; the names of classes above have one, too."""
    (folder / "list.txt").write_text(f"{folder / 'red.png'}\n", "utf-8-sig")
    assert images.find_images([str(folder / "list.txt")]) == [str(folder / "red.png")]
    (folder / "val.txt").write_text("red.png 2\n", "utf-8-sig")
    assert eval.read_list(folder / "val.txt", folder) == [(folder / "red.png", 2)]


def test_arrays_in_and_out(tmp_path):
    """Keys are blob names; a dump with prefixes is accepted as it is."""
    convert(MICRO / "scale_two.prototxt", MICRO / "scale_two.caffemodel", tmp_path / "net")
    dump = read_arrays(MICRO / "scale_two.npz")
    np.savez(tmp_path / "in.npz", data=dump["in__data"], data2=dump["in__data2"])
    for feed in (tmp_path / "in.npz", MICRO / "scale_two.npz"):
        assert infer.main([str(tmp_path / "net"), "--feed", str(feed), "--fetch", str(tmp_path / "out.npz")]) == 0
        out = read_arrays(tmp_path / "out.npz")
        assert list(out) == ["out"]
        np.testing.assert_allclose(out["out"], dump["blob__out"], rtol=1e-5, atol=1e-6)
    arguments = [str(tmp_path / "net"), "--feed", str(tmp_path / "in.npz"), "--fetch", str(tmp_path / "out.npz")]
    infer.main([*arguments, "--blobs", "data2,out"])
    assert set(read_arrays(tmp_path / "out.npz")) == {"data2", "out"}
    with pytest.raises(ConvertError, match="the net has data, data2, out"):
        infer.main([*arguments, "--blobs", "nothing"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"data": np.zeros((2, 3, 8, 8)), "x": np.zeros(1)}, "x unknown"),
        ({}, "data missing"),
        ({"data": np.zeros((2, 3, 8))}, r"has the shape \[2, 3, 8\], the net takes \[None, 3, None, None\]"),
        ({"data": np.zeros((0, 3, 8, 8))}, "has the shape"),
        ({"data": np.array("text")}, "must be numbers"),
        ({"data": np.array([{}], dtype=object)}, "is no archive of arrays"),
    ],
)
def test_wrong_arrays(folder, arrays, message, tmp_path):
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(ConvertError, match=message):
        infer.main([str(folder / "net"), "--feed", str(tmp_path / "in.npz"), "--fetch", str(tmp_path / "out.npz")])
    assert not (tmp_path / "out.npz").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mean", "1,2"], "2 mean values for 3 channels"),
        (["--mean", "a"], "write numbers"),
        (["--mean", "1,nan,2"], "not all of its values are finite"),
        (["--scale", "inf"], "--scale inf: must be a finite number"),
        (["--resize", "4"], "smaller than the input"),
        (["--resize", "x"], "write 256, 256x340 or short:256"),
    ],
)
def test_wrong_preprocessing(folder, flags, message):
    with pytest.raises(ConvertError, match=message):
        infer.main([str(folder / "net"), str(folder / "red.png"), *flags])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 8, 8)), r"an array of shape \[2, 3, 8, 8\]; a mean image is \[3, H, W\]"),
        (np.zeros((8, 8, 3)), r"an array of shape \[8, 8, 3\]"),
        (np.zeros(4), "4 mean values for 3 channels"),
        (np.zeros((3, 12, 16)), "for images .3, 8, 8.; --resize 12x16 makes images of its size"),
        (np.zeros((3, 4, 4)), "for images .3, 8, 8.$"),
        (np.array(["text"]), "could not convert string"),
        (np.full((3, 8, 8), np.inf), "not all of its values are finite"),
    ],
)
def test_means_of_other_shapes(folder, array, message, tmp_path):
    np.save(tmp_path / "mean.npy", array)
    with pytest.raises(ConvertError, match=message):
        infer.main([str(folder / "net"), str(folder / "red.png"), "--mean", str(tmp_path / "mean.npy")])


def test_an_archive_is_no_mean(folder, tmp_path):
    with open(tmp_path / "mean.npy", "wb") as file:
        np.savez(file, mean=np.zeros(3))
    with pytest.raises(ConvertError, match="mean.npy: the magic string is not correct"):
        infer.main([str(folder / "net"), str(folder / "red.png"), "--mean", str(tmp_path / "mean.npy")])


def test_not_a_picture(folder, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ConvertError, match="text.png cannot be read as an image"):
        infer.main([str(folder / "net"), str(tmp_path / "text.png")])
    lines, both = tmp_path / "out.jsonl", [str(tmp_path / "text.png"), str(folder / "red.png")]
    with pytest.raises(ConvertError, match="^1 of 2 files cannot be read:\n.*text.png cannot be read as an image"):
        infer.main([str(folder / "net"), *both, "--json", str(lines), "--fetch", str(tmp_path / "out.npz")])
    assert [json.loads(line)["image"] for line in lines.read_text().splitlines()] == both[1:]
    assert read_arrays(tmp_path / "out.npz")["prob"].shape == (1, 3)
    with pytest.raises(ConvertError, match="is no converted net"):
        infer.main([str(tmp_path), str(folder / "red.png")])


def test_resizing_is_opencv_s():
    image = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    for height, width in ((20, 31), (80, 90), (37, 100)):
        expected = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        assert (
            np.abs(images.resize_bilinear(image, height, width) - expected).max() <= 1
        )  # OpenCV computes in fixed point


def test_cropping_the_middle():
    """Stretched to `size` or with the shorter side at `short`, then the middle."""
    image = np.zeros((8, 16, 3), np.uint8)
    image[:, 7:9] = 255
    cut = images.Preprocessing((4, 4), size=(8, 16))(image)
    np.testing.assert_array_equal(cut[:, :, 1:3], 255)
    np.testing.assert_array_equal(cut[:, :, [0, 3]], 0)
    assert images.Preprocessing((4, 4), short=4)(image).shape == (3, 4, 4)


def test_running_a_net_of_a_stranger_runs_none_of_its_code(folder, tmp_path):
    """Only what says so runs model.py."""
    shutil.copytree(folder / "net", tmp_path / "net")
    (tmp_path / "net/model.py").write_text("raise SystemExit('model.py ran')")
    (folder / "one.txt").write_text("red.png 2\n")
    words = [str(tmp_path / "net"), str(folder / "red.png"), "--fetch", str(tmp_path / "out.npz")]
    assert infer.main(words) == 0
    assert eval.main([str(tmp_path / "net"), str(folder / "one.txt")]) == 0
    with pytest.raises(SystemExit, match="model.py ran"):
        infer.main([*words, "--blobs", "fc"])


# export.py


def test_weights_and_blobs_of_one_s_own_are_exported(folder, tmp_path, capsys):
    """Weights that were trained further go into DIR/inference; other outputs go elsewhere."""
    shutil.copytree(folder / "net", tmp_path / "net")
    save_file({"fc_weights": np.eye(3, dtype=np.float32)[::-1].copy()}, tmp_path / "trained.safetensors")
    assert export.main([str(tmp_path / "net"), "--weights", str(tmp_path / "trained.safetensors")]) == 0
    infer.main([str(tmp_path / "net"), str(folder / "red.png"), "--fetch", str(tmp_path / "out.npz")])
    logits = (np.array([80, 90, 250]) - 100)[::-1] * 0.01
    expected = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(read_arrays(tmp_path / "out.npz")["prob"][0], expected, rtol=1e-5)

    assert export.main([str(folder / "net"), "--blobs", "mean,fc", "--export_dir", str(tmp_path / "deploy")]) == 0
    assert sorted(path.name for path in (tmp_path / "deploy").iterdir()) == ["model.json", "model.pdiparams"]
    assert "outputs mean,fc" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--weights", "/nowhere"], "/nowhere does not exist"),
        (["--weights", "WRONG"], "wrong.safetensors has no fc_weights"),
        (["--blobs", "nothing", "--export_dir", "x"], "the net has data, mean, fc, prob"),
        (["--export_dir", "."], "exists and is no earlier result"),
    ],
)
def test_what_cannot_be_exported(folder, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    save_file({"other": np.zeros(1, np.float32)}, tmp_path / "wrong.safetensors")
    flags = [str(tmp_path / "wrong.safetensors") if flag == "WRONG" else flag for flag in flags]
    with pytest.raises(ConvertError, match=message):
        export.main([str(folder / "net"), *flags])
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.safetensors"]


# eval.py


def test_accuracy(folder, tmp_path, capsys):
    """Two of three labels right; the batch of two does not divide three."""
    (folder / "val.txt").write_text("red.png 2\ngreen.png 1\nblue.png 1\n")
    arguments = [str(folder / "net"), str(folder / "val.txt"), "--batch_size", "2"]
    assert eval.main([*arguments, "--output_dir", str(tmp_path / "new")]) == 0
    of = {"weights": arguments[0], "data": arguments[1], "samples": 3}
    written = json.loads((tmp_path / "new" / "result.json").read_text())
    assert list(written)[:4] == [*of, "seconds"] and 0 < written.pop("seconds") < 600
    assert written == {**of, "acc1": 2 / 3, "acc5": 1.0}
    said = capsys.readouterr().out
    assert re.search(r"^top-1 0.6667, top-5 1.0000\n3 images, [\d.]+ s$", said, re.MULTILINE)
    assert f"written to {tmp_path / 'new'}: result.json" in said


def test_ranks_count_ties_and_nans_against_the_net():
    scores = np.array([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(eval.ranks(scores, np.array([2, 0, 0])), [1, 1, 2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("red.png 2\ngreen.png\n", r'val.txt:2: expected "path label"'),
        ("red.png \u00b2\n", r'val.txt:1: expected "path label"'),
        ("red.png 2\nmissing.png 1\n", "val.txt:2: .*missing.png does not exist"),
        ("", "the list is empty"),
        ("red.png 3\n", "the label 3, but prob has 3 classes"),
    ],
)
def test_wrong_lists(folder, content, message):
    (folder / "val.txt").write_text(content, "utf-8")
    with pytest.raises(ConvertError, match=message):
        eval.main([str(folder / "net"), str(folder / "val.txt")])


# compare.py


def test_comparison_names_the_first_layer_that_differs(tmp_path, capsys):
    references = LayerReferences()
    prototxt, model = references.files("c_bnscale", tmp_path)
    convert(prototxt, model, tmp_path / "out")
    converted = open_converted(tmp_path / "out")
    feed = references.arrays("c_bnscale", "inputs")
    blobs = {f"blob__{k}": v for k, v in references.arrays("c_bnscale", "blobs").items()}
    dump = {f"in__{k}": v for k, v in feed.items()} | blobs
    np.savez(tmp_path / "dump.npz", **dump)
    assert compare.main([str(tmp_path / "out"), "--dump", str(tmp_path / "dump.npz")]) == 0

    # Damage the convolution in the middle: its output and all after it must differ, and it must be named.
    from safetensors.numpy import load_file, save_file

    weights = load_file(tmp_path / "out/weights.safetensors")
    weights["b_scale"] = weights["b_scale"] * np.float32(1.01)
    save_file(weights, tmp_path / "out/weights.safetensors")
    arguments = ["--plot", str(tmp_path / "plot.png"), "--json", str(tmp_path / "table.json")]
    assert compare.main([str(tmp_path / "out"), "--dump", str(tmp_path / "dump.npz"), *arguments]) == 1
    printed = capsys.readouterr().out
    assert "first diverging layer: r (ReLU), blob c" in printed  # a dump has of an in-place blob the last version only
    table = json.loads((tmp_path / "table.json").read_text())
    assert [(row["layer"], row["equal"]) for row in table] == [("r", False), ("out", False)]
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.size[0] > 400
    assert [blob for blob, _ in run_blobs(converted, feed)] == [
        "data",
        "c",
        "c",
        "c",
        "out",
    ]  # BatchNorm + Scale are one


def test_comparison_with_an_engine_sees_every_write(tmp_path, capsys):
    prototxt, model = LayerReferences().files("c_bnscale", tmp_path)
    convert(prototxt, model, tmp_path / "out")
    arguments = [
        "--engine",
        "opencv",
        "--prototxt",
        str(prototxt),
        "--caffemodel",
        str(model),
        "--python",
        sys.executable,
    ]
    assert compare.main([str(tmp_path / "out"), *arguments]) == 0
    assert "4 of 4 blobs compared, 0 differ" in capsys.readouterr().out


def test_engine_that_fails(tmp_path):
    prototxt, model = LayerReferences().files("c_bnscale", tmp_path)
    convert(prototxt, model, tmp_path / "out")
    arguments = ["--prototxt", str(prototxt), "--caffemodel", str(model)]
    with pytest.raises(ConvertError, match="caffe failed with exit code 1(.|\n)*No module named 'caffe'"):
        compare.main([str(tmp_path / "out"), "--engine", "caffe", *arguments])
    with pytest.raises(ConvertError, match="no such program"):
        compare.main([str(tmp_path / "out"), "--engine", "caffe", "--python", "/no/such/python", *arguments])


@pytest.mark.parametrize(
    ("ours", "reference", "relative"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([np.nan, 2.0], [np.nan, 2.0], 0.0),
        ([np.nan, 2.0], [1.0, 2.0], np.inf),
        ([np.inf, 1.0], [np.inf, 1.0], 0.0),
        ([np.inf, 1.0], [-np.inf, 1.0], np.inf),
        ([0.1], [0.0], np.inf),
        ([0.0], [0.0], 0.0),
    ],
)
def test_differences(ours, reference, relative):
    assert compare.compare_arrays(np.array(ours), np.array(reference))[2] == relative


def test_in_place_layers_are_taken_apart():
    from caffe2fluid.prototxt import parse_prototxt

    text = """layer { name: "c" type: "X" bottom: "data" top: "c" } layer { name: "r" type: "Y" bottom: "c" top: "c" }
        layer { name: "t" type: "T" bottom: "c" top: "z" include { phase: TRAIN } }
        layer { name: "s" type: "Z" bottom: "c" top: "c" } layer { name: "e" type: "W" bottom: "c" top: "e" }"""
    written, apart = compare.without_in_place(parse_prototxt(text), "TEST")
    assert written == {("c", "c"): "c", ("r", "c"): "c~2", ("s", "c"): "c~3", ("e", "e"): "e"}
    layers = parse_prototxt(apart).messages("layer")
    assert [layer.texts("bottom") for layer in layers] == [["data"], ["c"], ["c~2"], ["c~3"]]
