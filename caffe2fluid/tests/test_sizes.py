"""Images of any size: what was converted for one size computes at another what a conversion for that one computes."""

from __future__ import annotations

from caffe2fluid import infer
from caffe2fluid.caffemodel import read_caffemodel
from caffe2fluid.convert import convert, main
from caffe2fluid.converted import Predictor, open_converted, read_arrays
from caffe2fluid.errors import ConvertError
from caffe2fluid.network import read_network
from caffe2fluid.tests.tools import caffemodel, random_weights, relative, run, translate_files
from caffe2fluid.translate import translate

import numpy as np
import pytest
from PIL import Image


def layer(kind, body="", name="l", bottoms=("data",), tops=()):
    reads = " ".join(f'bottom: "{blob}"' for blob in bottoms)
    writes = " ".join(f'top: "{blob}"' for blob in tops or (name,))
    return f'layer {{ name: "{name}" type: "{kind}" {reads} {writes} {body} }}\n'


def convolution(name, bottom, body="", filters=4):
    return layer(
        "Convolution", f"convolution_param {{ num_output: {filters} {body or 'kernel_size: 3'} }}", name, [bottom]
    )


def pooling(body, name="l", bottom="data", tops=()):
    return layer("Pooling", f"pooling_param {{ {body} }}", name, [bottom], tops)


def head(name, filters, bottom="q"):
    order = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    text = convolution(name, bottom, "kernel_size: 1", filters)
    return text + layer("Permute", order, f"{name}_p", [name])


PNET = (
    convolution("c1", "data")
    + pooling("kernel_size: 2 stride: 2", "p1", "c1")
    + convolution("c2", "p1")
    + convolution("c3", "c2")
)
SSD = (
    pooling("kernel_size: 3 stride: 2", "q")
    + layer(
        "PriorBox", "prior_box_param { min_size: 4 max_size: 7 aspect_ratio: 2 clip: true %s }", "priors", ["q", "data"]
    )
    + head("loc", 16)
    + layer("Flatten", "", "loc_f", ["loc_p"])
    + head("conf", 12)
    + layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 } }", "conf_r", ["conf_p"])
    + layer("Softmax", "softmax_param { axis: 2 }", "conf_s", ["conf_r"])
    + layer("Flatten", "", "conf_f", ["conf_s"])
    + layer(
        "DetectionOutput",
        "detection_output_param { num_classes: 3 nms_param { nms_threshold: 0.45 top_k: 20 } code_type: CENTER_SIZE "
        "keep_top_k: 10 share_location: true }",
        "out",
        ["loc_f", "conf_f", "priors"],
    )
)
FREE = {
    "P-Net": PNET,
    "MAX, padded": pooling("kernel_size: 3 stride: 2 pad: 1"),
    "MAX, long stride, padded": pooling("kernel_size: 2 stride: 4 pad: 1"),
    "AVE": pooling("pool: AVE kernel_size: 3 stride: 2"),
    "AVE, padded": pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1"),
    "AVE, of the same size": pooling("pool: AVE kernel_size: 3 stride: 1 pad: 1"),
    "AVE, rounded down": pooling("pool: AVE kernel_size: 3 stride: 2 pad: 1 ceil_mode: false"),
    "global": pooling("pool: AVE global_pooling: true", "g") + layer("InnerProduct", "inner_product_param { num_output: 5 }", "i", ["g"]),
    "LRN": layer("LRN"),
    "LRN within": layer("LRN", "lrn_param { norm_region: WITHIN_CHANNEL }"),
    "MVN": layer("MVN"),
    "MVN across": layer("MVN", "mvn_param { across_channels: true }"),
    "FCN": convolution("c", "data", "kernel_size: 3 stride: 2 pad: 10")
    + layer("Deconvolution", "convolution_param { num_output: 4 kernel_size: 4 stride: 2 }", "u", ["c"])
    + layer("Crop", "crop_param { axis: 2 offset: 4 }", "s", ["u", "data"]),
    "Interp to a blob": pooling("kernel_size: 2 stride: 2", "q") + layer("Interp", "", "i", ["q", "data"]),
    "Interp by factors": layer("Interp", "interp_param { shrink_factor: 2 zoom_factor: 3 pad_beg: -1 }"),
    "Reshape": layer("Reshape", "reshape_param { shape { dim: 0 dim: -1 dim: 3 dim: 0 } }"),
    "Reshape, last": layer("Reshape", "reshape_param { shape { dim: 3 dim: -1 } axis: 1 }"),
    "Reduction": layer("Reduction", "reduction_param { operation: MEAN axis: 1 }"),
    "SSD": SSD % "",
    "SSD with its own steps": SSD % "step: 2.5 img_size: 40 offset: 0.4",
}  # fmt: skip


def net(folder, body, height=12, width=12):
    folder.mkdir(exist_ok=True)
    path = folder / "net.prototxt"
    path.write_text(f'input: "data" input_shape {{ dim: 1 dim: 3 dim: {height} dim: {width} }}\n{body}')
    translation = translate_files(path)
    model = folder / "net.caffemodel"
    model.write_bytes(caffemodel(random_weights(translation) or {"none": ("ReLU", [np.zeros(1)])}))
    return path, model


X = np.random.default_rng(0).standard_normal((2, 3, 25, 31)).astype(np.float32)


@pytest.mark.parametrize("name", FREE)
def test_another_size_gives_what_its_own_conversion_gives(name, tmp_path):
    """At 25x31, converted for 12x12."""
    files = net(tmp_path, FREE[name])
    weights = read_caffemodel(files[1])
    free = translate(read_network(files[0]), weights, any_size="SSD" in name)
    assert free.free_shapes["data"] == [None, 3, None, None]
    ours = run(free, {"data": X})
    theirs = run(translate(read_network(files[0], input_shapes={"data": [2, 3, 25, 31]}), weights), {"data": X})
    for blob in free.outputs:
        assert relative(ours[blob], theirs[blob]) < 1e-6, blob


def test_p_net_at_odd_sizes(tmp_path):
    """25x31 gives 8x11: (25 - 2) / 2 rounded up, less 4."""
    files = net(tmp_path, PNET)
    convert(*files, tmp_path / "out")
    predictor = Predictor(open_converted(tmp_path / "out"))
    assert predictor({"data": X})["c3"].shape == (2, 4, 8, 11)
    assert predictor({"data": X[:, :, :24, :24]})["c3"].shape == (2, 4, 7, 7)


@pytest.mark.parametrize("name", ["AVE, padded", "FCN", "Interp to a blob", "MVN", "LRN", "SSD"])
def test_exported_models_take_any_size(name, tmp_path):
    files = net(tmp_path, FREE[name])
    convert(*files, tmp_path / "free", any_size=True)
    convert(*files, tmp_path / "own", input_shapes={"data": [2, 3, 25, 31]})
    free, own = (open_converted(tmp_path / folder) for folder in ("free", "own"))
    for onednn in (True, False):
        for blob, array in Predictor(own, onednn)({"data": X}).items():
            assert relative(Predictor(free, onednn)({"data": X})[blob], array) < 1e-5


FIXED = {
    "InnerProduct": ("data", layer("InnerProduct", "inner_product_param { num_output: 5 }")),
    "InnerProduct on a map that rounding leaves as it is": (
        "i",
        pooling("kernel_size: 8 stride: 8 ceil_mode: false", "p")
        + layer("InnerProduct", "inner_product_param { num_output: 5 }", "i", ["p"]),
    ),
    "PriorBox": ("priors", layer("PriorBox", "prior_box_param { min_size: 4 }", "priors", ["data", "data"])),
    "SPP": ("l", layer("SPP", "spp_param { pyramid_height: 2 }")),
    "unpooling": (
        "u",
        pooling("kernel_size: 2 stride: 2", "p", tops=["p", "m"])
        + layer("Upsample", "upsample_param { scale: 2 }", "u", ["p", "m"]),
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_nets_of_one_size_say_so(name, tmp_path):
    files = net(tmp_path, FIXED[name][1])
    assert translate_files(*files).free_shapes["data"] == [None, 3, 12, 12]
    if name != "PriorBox":
        with pytest.raises(ConvertError, match="--any_size: the net takes images of one size only: .*net.prototxt"):
            convert(*files, tmp_path / "out", any_size=True)


def test_skips_that_fit_multiples_only(tmp_path):
    """A sum of two scales: 12 + 32 k fits, others are one line when they come."""
    body = pooling("kernel_size: 2 stride: 4 ceil_mode: false", "q") + layer(
        "Deconvolution", "convolution_param { num_output: 3 kernel_size: 4 stride: 4 }", "u", ["q"]
    ) + layer("Eltwise", "", "e", ["u", "data"])  # fmt: skip
    convert(*net(tmp_path, body), tmp_path / "out")
    predictor = Predictor(open_converted(tmp_path / "out"))
    assert predictor({"data": np.zeros((1, 3, 16, 20))})["e"].shape == (1, 3, 16, 20)
    with pytest.raises(ConvertError, match=r"the net takes no data of shape \[1, 3, 13, 12\]: .*Error"):
        predictor({"data": np.zeros((1, 3, 13, 12))})


def test_pictures_of_any_size(tmp_path, capsys):
    prototxt, model = net(tmp_path, PNET)
    assert main([str(prototxt), "--caffemodel", str(model), "-o", str(tmp_path / "out"), "--any_size"]) == 0
    assert "input data: any x 3 x any x any" in capsys.readouterr().out
    Image.new("RGB", (31, 25)).save(tmp_path / "a.png")
    words = [str(tmp_path / "out"), str(tmp_path / "a.png"), "--fetch", str(tmp_path / "out.npz")]
    for flags, size in (
        ([], (1, 1)),
        (["--size", "image"], (8, 11)),
        (["--size", "24"], (7, 7)),
        (["--size", "24x31"], (7, 11)),
    ):
        infer.main([*words, *flags])
        assert read_arrays(tmp_path / "out.npz")["c3"].shape == (1, 4, *size)
    for flags, message in (
        (["--size", "a"], "write 240, 240x320 or image"),
        (["--size", "image", "--resize", "30"], "contradict"),
    ):
        with pytest.raises(ConvertError, match=message):
            infer.main([*words, *flags])
    convert(*net(tmp_path, FIXED["InnerProduct"][1]), tmp_path / "fixed")
    with pytest.raises(ConvertError, match="the net takes images of 12x12 only; convert it with --any_size"):
        infer.main([str(tmp_path / "fixed"), *words[1:], "--size", "image"])
