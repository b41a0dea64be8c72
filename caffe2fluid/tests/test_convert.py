"""What convert.py writes: code that is safe, readable and trainable, weights in three forms, the report, 2018's flags."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

from caffe2fluid import export
from caffe2fluid.convert import convert, main
from caffe2fluid.converted import Predictor, load_module, open_converted, run_blobs
from caffe2fluid.custom import load_custom_layers
from caffe2fluid.errors import ConvertError
from caffe2fluid.layers import node
from caffe2fluid.layers.node import LAYERS
from caffe2fluid.network import read_network
from caffe2fluid.tests.tools import caffemodel, load_source, random_weights, run, translate_files
from caffe2fluid.translate import translate
from fluid.arrays import read_npz

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[2]
SMALL = """name: "Small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv/1" type: "Convolution" bottom: "data" top: "conv/1"
        convolution_param { num_output: 4 kernel_size: 3 pad: 1 bias_term: false } }
layer { name: "bn" type: "BatchNorm" bottom: "conv/1" top: "conv/1" batch_norm_param { moving_average_fraction: 0.5 } }
layer { name: "scale" type: "Scale" bottom: "conv/1" top: "conv/1" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv/1" top: "conv/1" }
layer { name: "drop" type: "Dropout" bottom: "conv/1" top: "drop" dropout_param { dropout_ratio: 0.25 } }
layer { name: "fc" type: "InnerProduct" bottom: "drop" top: "fc" inner_product_param { num_output: 2 } }
"""


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.enable_static()


@pytest.fixture
def small(tmp_path):
    """The small net on disk: paths of prototxt and caffemodel."""
    prototxt, model = tmp_path / "small.prototxt", tmp_path / "small.caffemodel"
    prototxt.write_text(SMALL)
    model.write_bytes(caffemodel(random_weights(translate(read_network(prototxt), None))))
    return prototxt, model


@pytest.fixture
def layer_table():
    """Restores the table of translations."""
    before = dict(LAYERS)
    yield
    LAYERS.clear()
    LAYERS.update(before)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_report(small, tmp_path):
    convert(*small, tmp_path / "out")
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["inputs"] == [{"name": "data", "shape": [None, 3, 8, 8], "size": [4, 3, 8, 8], "variable": "data"}]
    assert report["outputs"] == [{"name": "fc", "shape": [None, 2]}]
    # convolution 4*3*3*3, batch normalisation 4 * 4, inner product 4*8*8 * 2 + 2
    assert report["parameters"] == 108 + 16 + 514
    # convolution 108 * 8*8, normalisation and scale 2 * 4*8*8, inner product 512
    assert report["multiply_adds"] == 108 * 64 + 512 + 512
    assert [(layer["name"], layer["folded"]) for layer in report["layers"]][1] == ("bn", ["scale"])


def test_the_three_forms_of_the_weights_agree(small, tmp_path):
    """safetensors, one file a variable as Fluid wrote it, and the inference model."""
    convert(*small, tmp_path / "out", data_path=tmp_path / "weights.npy", fluid=True)
    weights = load_file(tmp_path / "out/weights.safetensors")
    names = {"bn_scale", "bn_offset", "bn_mean", "bn_variance", "conv_1_weights", "fc_weights", "fc_biases"}
    assert set(weights) == names
    assert {path.name for path in (tmp_path / "out/fluid").iterdir()} == names
    archive = read_npz(tmp_path / "weights.npy")
    for name, array in weights.items():
        content = (tmp_path / "out/fluid" / name).read_bytes()
        version, lod, tensor_version, length = struct.unpack_from("<IQIi", content)
        assert (version, lod, tensor_version) == (0, 0, 0)
        assert content[20:22] == b"\x08\x05"  # data type: FP32
        dims = content[22 : 20 + length]
        assert list(dims[1::2]) == list(array.shape) if max(array.shape) < 128 else dims
        np.testing.assert_array_equal(np.frombuffer(content[20 + length :], "<f4").reshape(array.shape), array)
        np.testing.assert_array_equal(archive[name], array)


def test_one_copy_of_the_weights_unless_asked(small, tmp_path):
    """The inference model's parameters come from them when it first runs, from a folder of one's own or not."""
    convert(*small, tmp_path / "out")
    assert {*contents(tmp_path / "out")} == {"model.py", "report.json", "weights.safetensors", "inference/model.json"}
    convert(*small, tmp_path / "whole", inference=True)
    x = {"data": np.random.default_rng(0).standard_normal((1, 3, 8, 8)).astype(np.float32)}
    lazy, whole = (Predictor(open_converted(tmp_path / name))(x)["fc"] for name in ("out", "whole"))
    np.testing.assert_array_equal(lazy, whole)
    parameters = [(tmp_path / name / "inference/model.pdiparams").read_bytes() for name in ("out", "whole")]
    assert parameters[0] == parameters[1]
    assert sorted(path.name for path in (tmp_path / "out/inference").iterdir()) == ["model.json", "model.pdiparams"]


def test_large_weights_are_written_by_pieces(tmp_path, monkeypatch):
    """The transpose that Paddle keeps of an InnerProduct, with pieces of 64 values."""
    monkeypatch.setattr(node, "PIECE", 64)
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_dim: 1 input_dim: 50 input_dim: 1 input_dim: 1\n'
        'layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc" inner_product_param { num_output: 7 } }'
    )
    weights, bias = np.random.default_rng(0).standard_normal((7, 50)), np.arange(7.0)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"fc": ("InnerProduct", [weights, bias])}))
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out", fluid=True)
    written = load_file(tmp_path / "out/weights.safetensors")
    np.testing.assert_array_equal(written["fc_weights"], weights.T.astype(np.float32))
    x = np.random.default_rng(1).standard_normal((1, 50, 1, 1))
    result = Predictor(open_converted(tmp_path / "out"))({"data": x})["fc"]
    np.testing.assert_allclose(result, x.reshape(1, 50) @ weights.T + bias, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "content", [b"", b"\x05\0\0\0\0\0\0\0[1,2]", b"\xff" * 20, b'\x0e\0\0\0\0\0\0\0{"a": {"b": 1}}']
)
def test_damaged_weights_are_one_message(small, tmp_path, content):
    convert(*small, tmp_path / "out")
    (tmp_path / "out/weights.safetensors").write_bytes(content)
    with pytest.raises(ConvertError, match="weights.safetensors is no whole file of safetensors"):
        Predictor(open_converted(tmp_path / "out"))
    assert {*contents(tmp_path / "out/inference")} == {"model.json"}


def test_model_py_runs_as_in_2018(small, tmp_path):
    """python X.py WEIGHTS DIR [blobs], from a folder where there is nothing but Paddle's model code."""
    code = main([str(small[0]), "--caffemodel", str(small[1]), "--code-output-path", str(tmp_path / "X.py"),
                 "--data-output-path", str(tmp_path / "X.npy"), "-p", "test"])  # fmt: skip
    assert code == 0
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "X.py", "X.npy", "fluid", "fc,conv/1"]
    subprocess.run(command, cwd=tmp_path, check=True, env=environment, capture_output=True)
    program, feeds, fetches = paddle.static.load_inference_model(
        str(tmp_path / "fluid/model"), paddle.static.Executor(paddle.CPUPlace())
    )
    assert feeds == ["data"]
    assert len(fetches) == 2


def test_without_weights_there_is_code_and_report(small, tmp_path, capsys):
    assert main([str(small[0]), "--output", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.py", "report.json"]
    assert "no weights and no inference model" in capsys.readouterr().out


def test_dynamic_mode_gives_the_same(small, tmp_path):
    convert(*small, tmp_path / "out")
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    static = dict(run_blobs(open_converted(tmp_path / "out"), {"data": x}))["fc"]
    paddle.disable_static()
    module = load_module(tmp_path / "out/model.py")
    network = module.Small()
    module.load_weights(network, str(tmp_path / "out/weights.safetensors"))
    network.eval()
    np.testing.assert_allclose(network(paddle.to_tensor(x))["fc"].numpy(), static, rtol=1e-5, atol=1e-6)


def test_fine_tuning(small, tmp_path):
    """The loss falls, every trainable parameter moves, and BatchNorm's statistics follow the batches."""
    convert(*small, tmp_path / "out")
    module = load_module(tmp_path / "out/model.py")
    network, program, startup, inputs, blobs = module.build(training=True)
    with paddle.static.program_guard(program, startup), paddle.utils.unique_name.guard():
        label = paddle.static.data("label", [None, 1], "int64")
        loss = paddle.nn.functional.cross_entropy(blobs["fc"], label)
        paddle.optimizer.SGD(0.05).minimize(loss)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (32, 1))
    images = (generator.standard_normal((32, 3, 8, 8)) + 2 * labels[:, :, None, None]).astype(np.float32)
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        module.load_weights(network, str(tmp_path / "out/weights.safetensors"))

        def state():
            find = paddle.static.global_scope().find_var
            return {p.name: np.array(find(p.name).get_tensor()) for p in network.state_dict().values()}

        before = state()
        feed = {"data": images, "label": labels}
        losses = [float(executor.run(program, feed=feed, fetch_list=[loss])[0]) for _ in range(20)]
        after = state()
    assert losses[-1] < 0.5 * losses[0]
    assert len(before) == 7
    for name in before:
        assert np.abs(after[name] - before[name]).max() > 1e-4, name
    batch = dict(run_blobs(open_converted(tmp_path / "out"), {"data": images}))
    assert batch["fc"].shape == (32, 2)


def test_the_readme_shows_lines_of_the_code(tmp_path):
    readme = (ROOT / "caffe2fluid/README.md").read_text()
    shown = readme.split("## Convert", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    convert(ROOT / "caffe2fluid/data/lenet.prototxt", None, tmp_path / "net")
    written = [line.strip() for line in (tmp_path / "net" / "model.py").read_text().splitlines()]
    first = written.index(shown.splitlines()[0])
    assert shown.splitlines() == written[first : first + 4]


def test_the_readme_s_training_runs_as_printed(tmp_path):
    """From its folder, and what it wrote is exported and runs."""
    readme = (ROOT / "caffe2fluid/README.md").read_text()
    snippet = readme.split("## Train", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_shape { dim: 1 dim: 3 dim: 227 dim: 227 }\n'
        'layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }\n'
        'layer { name: "fc8" type: "InnerProduct" bottom: "pool" top: "fc8" inner_product_param { num_output: 2 } }'
    )
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"fc8": ("InnerProduct", [np.zeros((2, 3)), np.zeros(2)])}))
    net = tmp_path / "net"
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", net)
    labels = np.arange(40)[:, None] % 2
    images = np.broadcast_to(labels[:, :, None, None] * 60.0 - 30, (40, 3, 227, 227)).astype(np.float32)
    np.save(net / "labels.npy", labels)
    np.save(net / "images.npy", images)
    done = subprocess.run([sys.executable, "-c", snippet], cwd=net, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.split()[-1]) < 0.1
    assert export.main([str(net), "--weights", str(net / "trained.safetensors")]) == 0
    scores = Predictor(open_converted(net))({"data": images[:2]})["fc8"]
    assert list(scores.argmax(1)) == [0, 1]


RATES = """input: "data" input_shape { dim: 2 dim: 3 }
layer { name: "a" type: "InnerProduct" bottom: "data" top: "a" inner_product_param { num_output: 3 }
        param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 } }
layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" inner_product_param { num_output: 2 }
        param { lr_mult: 0 } param { lr_mult: 3 decay_mult: 5 } }
"""
OLD_RATES = RATES.replace("layer {", "layers {").replace('"InnerProduct"', "INNER_PRODUCT")
OLD_RATES = OLD_RATES.replace(
    "param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }",
    "blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0",
)
OLD_RATES = OLD_RATES.replace(
    "param { lr_mult: 0 } param { lr_mult: 3 decay_mult: 5 }", "blobs_lr: 0 blobs_lr: 3 weight_decay: 1 weight_decay: 5"
)


@pytest.mark.parametrize("text", [RATES, OLD_RATES], ids=["layer", "layers"])
def test_rates_and_decays_of_the_prototxt(text, tmp_path):
    """One step of plain descent: parameter - rate * lr_mult * (gradient + decay * decay_mult * parameter)."""
    (tmp_path / "net.prototxt").write_text(text)
    generator = np.random.default_rng(0)
    blobs = {"a": [generator.standard_normal((3, 3)), np.ones(3)], "b": [generator.standard_normal((2, 3)), np.ones(2)]}
    (tmp_path / "net.caffemodel").write_bytes(
        caffemodel({key: ("InnerProduct", value) for key, value in blobs.items()})
    )
    convert(tmp_path / "net.prototxt", tmp_path / "net.caffemodel", tmp_path / "out")
    module = load_module(tmp_path / "out/model.py")
    x = generator.standard_normal((2, 3)).astype(np.float32)
    network, program, startup, inputs, values = module.build(training=True, weight_decay=0.1)
    with paddle.static.program_guard(program, startup), paddle.utils.unique_name.guard():
        loss = paddle.sum(values["b"])
        paddle.optimizer.SGD(0.5).minimize(loss)
    scope = paddle.static.Scope()
    with paddle.static.scope_guard(scope):
        executor = paddle.static.Executor(paddle.CPUPlace())
        executor.run(startup)
        module.load_weights(network, str(tmp_path / "out/weights.safetensors"))
        executor.run(program, feed={"data": x}, fetch_list=[loss])
        module.save_weights(network, str(tmp_path / "trained.safetensors"))
    before, after = (load_file(tmp_path / name) for name in ("out/weights.safetensors", "trained.safetensors"))
    w_b = before["b_weights"]
    to_a = np.ones((2, 2)) @ w_b.T
    gradients = {"a_weights": x.T @ to_a, "a_biases": to_a.sum(0), "b_biases": np.full(2, 2.0)}
    multipliers = {"a_weights": (1, 1), "a_biases": (2, 0), "b_biases": (3, 5)}
    for name, (rate, decay) in multipliers.items():
        expected = before[name] - 0.5 * rate * (gradients[name] + 0.1 * decay * before[name])
        np.testing.assert_allclose(after[name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after["b_weights"], w_b)


def test_batch_norm_in_training_normalises_with_the_batch(small, tmp_path):
    convert(*small, tmp_path / "out")
    module = load_module(tmp_path / "out/model.py")
    network, program, startup, inputs, blobs = module.build(training=True)
    normalised = [op for op in program.global_block().ops if op.name() == "pd_op.batch_norm_"]
    assert len(normalised) == 1
    assert normalised[0].attrs()["is_test"] is False
    assert normalised[0].attrs()["momentum"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "name", ["F", "paddle", "np", "nn", "float", "self", "blob", "l2_norm", "INPUTS", "sys", "input", "class", "Net"]
)
def test_inputs_may_be_called_like_anything_in_the_code(name, tmp_path):
    text = f'input: "{name}" input_shape {{ dim: 1 dim: 2 dim: 3 dim: 3 }}\n'
    text += f'layer {{ name: "n" type: "Normalize" bottom: "{name}" top: "n" norm_param {{ scale_filler {{ value: 1 }} }} }}'
    text += 'layer { name: "r" type: "ReLU" bottom: "n" top: "r" }'
    text += 'layer { name: "p" type: "Power" bottom: "r" top: "p" power_param { shift: -inf } }'
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"n": ("Normalize", [np.ones(1)])}))
    result = run(translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel"), {name: np.ones((1, 2, 3, 3))})
    np.testing.assert_allclose(result["r"], np.sqrt(1 / 18) * np.ones((1, 2, 3, 3)), rtol=1e-5)


def test_a_custom_layer_s_function_is_not_hidden_by_an_input(tmp_path, layer_table):
    (tmp_path / "layers.py").write_text(CUSTOM)
    (tmp_path / "net.prototxt").write_text(
        'input: "clamp_layer" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
        'layer { name: "c" type: "Clamp" bottom: "clamp_layer" top: "c" clamp_param { low: -inf high: 0.25 } }'
    )
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"c": ("Clamp", [np.array([2.0, 3.0])])}))
    load_custom_layers([tmp_path / "layers.py"])
    translation = translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    result = run(translation, {"clamp_layer": np.ones((1, 2, 5, 5))})["c"]
    np.testing.assert_allclose(result[0, :, 0, 0], [0.5, 0.75])


@pytest.mark.parametrize(
    "name",
    ["myFEEDSnet", "FEEDS", "Network", "Network()", "dict", "build", "float", "main", "KeyError", "np", "1net", ""],
)
def test_nets_may_have_any_name(name, tmp_path):
    (tmp_path / "net.prototxt").write_text(
        f'name: "{name}" input: "FEEDS" input_shape {{ dim: 1 dim: 2 }} input: "Network()" input_shape {{ dim: 1 dim: 2 }}\n'
        'layer { name: "e" type: "Eltwise" bottom: "FEEDS" bottom: "Network()" top: "e" }'
    )
    feed = {"FEEDS": np.ones((1, 2)), "Network()": np.full((1, 2), 2.0)}
    np.testing.assert_array_equal(run(translate_files(tmp_path / "net.prototxt"), feed)["e"], [[3, 3]])


HOSTILE = [
    "__import__('os').system('touch HACKED')",
    '"); import os; os.system("touch HACKED") #',
    "a\nimport os\nos.system('touch HACKED')",
    "../../../HACKED",
    '"""',
    "\\",
    "{blob}",
    "forward",
    "training",
    "class",
    "ünïcode 名前",
    "\u2028x",
    "",
    "x" * 5000,
]


def test_hostile_names_are_data(tmp_path):
    """Names of nets, layers, blobs and types that try to be code, paths or Python's own names."""

    def quote(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'

    text = f"name: {quote(HOSTILE[1])}\n"
    text += f'layer {{ name: {quote(HOSTILE[0])} type: "Input" top: {quote(HOSTILE[0])} '
    text += "input_param { shape { dim: 1 dim: 2 dim: 5 dim: 5 } } }\n"
    weights, previous = {}, HOSTILE[0]
    for name in HOSTILE[1:]:
        text += f'layer {{ name: {quote(name)} type: "Convolution" bottom: {quote(previous)} top: {quote(name)}\n'
        text += "  convolution_param { num_output: 2 kernel_size: 1 } }\n"
        weights[name] = ("Convolution", [np.eye(2).reshape(2, 2, 1, 1), np.zeros(2)])
        previous = name
    prototxt, model = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(text, "utf-8")
    model.write_bytes(caffemodel(weights))
    convert(prototxt, model, tmp_path / "out", fluid=True)
    converted = open_converted(tmp_path / "out")
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    for result in (dict(run_blobs(converted, {HOSTILE[0]: x})), Predictor(converted)({HOSTILE[0]: x})):
        np.testing.assert_allclose(result[HOSTILE[-1]], x, rtol=1e-6)
    assert not list(tmp_path.rglob("HACKED"))
    assert not Path("HACKED").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.caffemodel", "net.prototxt", "out"]
    assert all(path.parent == tmp_path / "out/fluid" for path in (tmp_path / "out/fluid").rglob("*"))
    assert len(list((tmp_path / "out/fluid").iterdir())) == 2 * len(weights)


def test_names_that_collide(tmp_path):
    """res/2a, res-2a, res_2a and Res_2a become four attributes and eight files."""
    text = 'input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
    weights, previous = {}, "data"
    for factor, name in enumerate(["res/2a", "res-2a", "res_2a", "Res_2a"], 2):
        text += f'layer {{ name: "{name}" type: "Convolution" bottom: "{previous}" top: "{name}" '
        text += "convolution_param { num_output: 2 kernel_size: 1 } }\n"
        weights[name] = ("Convolution", [np.eye(2).reshape(2, 2, 1, 1) * factor, np.zeros(2)])
        previous = name
    (tmp_path / "net.prototxt").write_text(text)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    translation = translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert len({name.lower() for name in translation.parameters}) == 8
    x = np.ones((1, 2, 5, 5))
    np.testing.assert_allclose(run(translation, {"data": x})["Res_2a"], 2 * 3 * 4 * 5 * x)


def test_shared_parameters_are_one(tmp_path):
    """Siamese: one set of weights, one update; a step moves both branches alike."""
    text = 'input: "a" input_shape { dim: 2 dim: 6 } input: "b" input_shape { dim: 2 dim: 6 }\n'
    for branch in "ab":
        text += f"""layer {{ name: "fc_{branch}" type: "InnerProduct" bottom: "{branch}" top: "fc_{branch}"
            param {{ name: "w" }} param {{ name: "b" }} inner_product_param {{ num_output: 3 }} }}\n"""
    (tmp_path / "net.prototxt").write_text(text)
    blobs = [np.arange(18.0).reshape(3, 6), np.ones(3)]
    weights = {f"fc_{branch}": ("InnerProduct", blobs) for branch in "ab"}
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(weights))
    translation = translate_files(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")
    assert set(translation.parameters) == {"fc_a_weights", "fc_a_biases"}
    _, program, _, _, _ = load_source(translation).build()
    assert len([op for op in program.global_block().ops if op.name() == "builtin.parameter"]) == 2
    x = np.random.default_rng(0).standard_normal((2, 6))
    result = run(translation, {"a": x, "b": x})
    np.testing.assert_array_equal(result["fc_a"], result["fc_b"])


def test_an_edited_result_is_kept_unless_asked(small, tmp_path):
    """--overwrite replaces what the script wrote, weights of layers that are gone included; the user's files stay."""
    out = tmp_path / "out"
    convert(*small, out, fluid=True)
    first = contents(out)
    (out / "model.py").write_text("edited")
    (out / "fluid/stale").write_text("of an earlier net")
    (out / "mine").mkdir()
    (out / "mine/notes.txt").write_text("x")
    before = contents(out)
    with pytest.raises(ConvertError, match="out holds an earlier result.*--overwrite"):
        convert(*small, out)
    assert contents(out) == before
    assert main([str(small[0]), "--caffemodel", str(small[1]), "--output", str(out), "--overwrite", "--fluid"]) == 0
    graph = "inference/model.json"  # numbers its operations anew each time
    again = contents(out)
    del again[graph], first[graph]
    assert again == first | {"mine/notes.txt": b"x"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.caffemodel", "small.prototxt"]


@pytest.mark.parametrize("flag", ["--code-output-path", "--data-output-path"])
def test_single_files_are_kept_unless_asked(small, tmp_path, flag):
    target = tmp_path / "X.npz"
    target.write_text("mine")
    words = [str(small[0]), "--caffemodel", str(small[1]), flag, str(target)]
    with pytest.raises(ConvertError, match="X.npz exists; add --overwrite"):
        main(words)
    assert target.read_text() == "mine"
    main([*words, "--overwrite"])
    assert target.read_bytes() != b"mine"


KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from caffe2fluid.convert import convert
from caffe2fluid.layers.node import Parameter
Parameter.pieces = lambda parameter: os.kill(os.getpid(), signal.SIGKILL)
convert(*map(Path, sys.argv[1:]))
"""


@pytest.mark.parametrize("name", ["X.safetensors", "X.npz"])
def test_weights_that_cannot_be_written_leave_the_earlier_ones(small, tmp_path, monkeypatch, name):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    (tmp_path / name).write_text("mine")
    monkeypatch.setattr("numpy.savez", full)
    monkeypatch.setattr("caffe2fluid.layers.node.Parameter.pieces", full)
    with pytest.raises(OSError, match="No space left"):
        convert(*small, data_path=tmp_path / name, overwrite=True)
    assert contents(tmp_path)[name] == b"mine" and len(list(tmp_path.iterdir())) == 3


def test_an_exchange_that_fails_changes_nothing(small, tmp_path, monkeypatch):
    """At each of its steps."""
    out = tmp_path / "out"
    convert(*small, out)
    (out / "model.py").write_text("edited")
    before, replace, failed = contents(out), os.replace, []
    for step in range(10):
        calls = iter(range(100))

        def failing(source, target, calls=calls, step=step):
            if next(calls) == step:
                raise OSError(28, "No space left on device")
            replace(source, target)

        monkeypatch.setattr(os, "replace", failing)
        try:
            convert(*small, out, overwrite=True)
        except OSError:
            failed.append(step)
            assert contents(out) == before
        else:
            break
    assert failed == list(range(8))  # four files go, four come
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.caffemodel", "small.prototxt"]


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_conversions_left_is_cleared(small, tmp_path, dead):
    out, file = tmp_path / "out", tmp_path / "X.npz"
    convert(*small, out)
    for process in (dead, os.getpid(), os.getppid()):
        for name in (f".out.partial-{process}", f".out.partial-{process}.old"):
            (tmp_path / name / "inference").mkdir(parents=True)
        (tmp_path / f".X.npz.partial-{process}").touch()
    (tmp_path / f".other.partial-{dead}").touch()
    convert(*small, out, data_path=file, overwrite=True)
    others = {f".out.partial-{os.getppid()}", f".out.partial-{os.getppid()}.old", f".X.npz.partial-{os.getppid()}"}
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert hidden == others | {f".other.partial-{dead}"} and file.is_file()


def test_a_killed_conversion_leaves_nothing_to_the_next(small, tmp_path):
    words = [sys.executable, "-c", KILLED_WHILE_WRITING, *map(str, small), str(tmp_path / "out")]
    assert subprocess.run(words, cwd=ROOT, timeout=120).returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir() if ".partial-" in path.name]
    convert(*small, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "small.caffemodel", "small.prototxt"]


def test_what_is_no_earlier_result_is_never_replaced(small, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.tex").write_text("x")
    with pytest.raises(ConvertError, match="no earlier result"):
        convert(*small, precious, overwrite=True)
    assert [path.name for path in precious.iterdir()] == ["thesis.tex"]


def test_a_failed_conversion_leaves_nothing(small, tmp_path):
    small[1].write_bytes(small[1].read_bytes()[:-30])
    with pytest.raises(ConvertError):
        convert(*small, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.caffemodel", "small.prototxt"]


CUSTOM = """
def clamp_shape(input_shape, low, high):
    return input_shape

def clamp_layer(input, name, low, high, gain):
    return paddle.clip(input, low, high) * gain

def clamp_weights(blobs):
    return {"gain": blobs[0].reshape(1, -1, 1, 1)}

register(kind="Clamp", shape=clamp_shape, layer=clamp_layer, weights=clamp_weights)
"""


def test_custom_layers(tmp_path, layer_table):
    (tmp_path / "layers.py").write_text(CUSTOM)
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5\n'
        'layer { name: "c" type: "Clamp" bottom: "data" top: "c" clamp_param { low: -0.5 high: 0.25 other: 3 } }'
    )
    (tmp_path / "net.caffemodel").write_bytes(caffemodel({"c": ("Clamp", [np.array([2.0, 3.0])])}))
    arguments = [
        str(tmp_path / "net.prototxt"),
        "--caffemodel",
        str(tmp_path / "net.caffemodel"),
        "-o",
        str(tmp_path / "out"),
    ]
    with pytest.raises(ConvertError, match="c .Clamp."):
        main(arguments)
    assert main([*arguments, "--custom_layers", str(tmp_path / "layers.py")]) == 0
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 5)).astype(np.float32)
    expected = x.clip(-0.5, 0.25) * np.array([2.0, 3.0]).reshape(1, 2, 1, 1)
    np.testing.assert_allclose(Predictor(open_converted(tmp_path / "out"))({"data": x})["c"], expected, rtol=1e-6)


def test_no_value_is_overwritten_before_it_is_read_again(tmp_path):
    """With oneDNN, Paddle's inplace_pass lets the powers inside take the place of what they read."""
    (tmp_path / "net.prototxt").write_text("""input: "data" input_shape { dim: 2 dim: 6 dim: 8 dim: 7 }
        layer { name: "p" type: "Power" bottom: "data" top: "p" power_param { scale: 2 shift: 0.5 } }
        layer { name: "n" type: "LRN" bottom: "p" top: "n" }
        layer { name: "e" type: "Eltwise" bottom: "n" bottom: "p" top: "e" }
        layer { name: "g" type: "Reshape" bottom: "data" top: "g" reshape_param { shape { dim: 0 dim: 6 dim: 56 } } }""")
    convert(tmp_path / "net.prototxt", None, tmp_path / "out")
    x = np.random.default_rng(0).standard_normal((2, 6, 8, 7)).astype(np.float32)
    power = x * 2 + 0.5
    square = np.pad(power**2, [(0, 0), (2, 2), (0, 0), (0, 0)])
    scale = 1 + sum(square[:, start : start + 6] for start in range(5)) / 5
    for onednn in (True, False):
        result = Predictor(open_converted(tmp_path / "out"), onednn)({"data": x})["e"]
        np.testing.assert_allclose(result, power + power * scale**-0.75, rtol=1e-4, atol=1e-4)


def test_two_outputs_may_be_alike(tmp_path):
    """Paddle's common_subexpression_elimination_pass makes one of them, and then does not find the other."""
    (tmp_path / "net.prototxt").write_text("""input: "data" input_shape { dim: 2 dim: 4 dim: 3 dim: 3 }
        layer { name: "a" type: "ELU" bottom: "data" top: "a" }
        layer { name: "b" type: "ELU" bottom: "data" top: "b" }""")
    convert(tmp_path / "net.prototxt", None, tmp_path / "out")
    x = np.random.default_rng(0).standard_normal((2, 4, 3, 3)).astype(np.float32)
    for onednn in (True, False):
        result = Predictor(open_converted(tmp_path / "out"), onednn)({"data": x})
        for blob in ("a", "b"):
            np.testing.assert_allclose(result[blob], np.where(x > 0, x, np.expm1(x)), rtol=1e-5, atol=1e-6)


OWN = """
def {0}(input, name):
    return input * {1}.0

register(kind="{2}", shape=lambda shape: shape, layer={0})
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.format("mine", 2, "A") + OWN.format("mine", 3, "B"), "two custom layers have a function called mine"),
        (OWN.format("build", 2, "A") + OWN.format("mine", 3, "B"), "cannot be called build"),
        (OWN.format("dict", 2, "A") + OWN.format("mine", 3, "B"), "cannot be called dict"),
        ('register(kind=["A", "B"], shape=lambda s: s, layer=lambda input, name: input)', "cannot be called <lambda>"),
    ],
)
def test_functions_of_custom_layers_hide_no_other(text, message, tmp_path, layer_table):
    (tmp_path / "layers.py").write_text(text)
    (tmp_path / "net.prototxt").write_text(
        'name: "mine" input: "data" input_shape { dim: 1 dim: 2 }\n'
        'layer { name: "a" type: "A" bottom: "data" top: "a" } layer { name: "b" type: "B" bottom: "a" top: "b" }'
    )
    with pytest.raises(ConvertError, match=message):
        main(
            [str(tmp_path / "net.prototxt"), "--custom_layers", str(tmp_path / "layers.py"), "-o", str(tmp_path / "x")]
        )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("shape", "value", "message"),
    [
        ("input_shape", "input * FACTOR", "model.py, line .*, in mine: NameError: name 'FACTOR' is not defined"),
        ("input_shape", "paddle.matmul(input, input)", "model.py, line .*, in mine: ValueError: "),
        ("None", "input", "shape of the custom layer gives None, which is no shape"),
        ('"ab"', "input", "shape of the custom layer gives 'ab', which is no shape"),
    ],
)
def test_custom_layers_that_do_not_run(shape, value, message, tmp_path, layer_table):
    (tmp_path / "layers.py").write_text(
        f"def shape(input_shape):\n    return {shape}\n\ndef mine(input, name):\n    return {value}\n\n"
        'register(kind="Mine", shape=shape, layer=mine)\n'
    )
    (tmp_path / "net.prototxt").write_text(
        'input: "data" input_shape { dim: 1 dim: 2 dim: 3 }\nlayer { name: "a" type: "Mine" bottom: "data" top: "a" }'
    )
    with pytest.raises(ConvertError, match=message):
        main(
            [str(tmp_path / "net.prototxt"), "--custom_layers", str(tmp_path / "layers.py"), "-o", str(tmp_path / "x")]
        )
    assert not (tmp_path / "x").exists()


def test_an_edited_model_that_does_not_run(small, tmp_path):
    convert(*small, tmp_path / "net")
    code = tmp_path / "net/model.py"
    text = code.read_text()
    feed = {"data": np.ones((4, 3, 8, 8), np.float32)}
    for change, message in [
        (text.replace("F.relu(", "F.rely("), "model.py, line .*, in forward: AttributeError"),
        (text + "\nclass", "model.py: SyntaxError: "),
    ]:
        code.write_text(change)
        for use in (
            lambda: export.main([str(tmp_path / "net")]),
            lambda: run_blobs(open_converted(tmp_path / "net"), feed),
        ):
            with pytest.raises(ConvertError, match=message):
                use()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.prototxt"], 1, "nothing.prototxt: No such file"),
        (["--help"], 0, "NET.prototxt"),
        (["net.prototxt", "--wrong"], 2, "unrecognized arguments"),
        (["net.prototxt", "--phase", "nap"], 2, "invalid choice"),
        (["net.prototxt", "--input_shape", "data"], 2, "NAME=1,3,224,224"),
        (["net.prototxt", "--output_dir", ""], 2, "--output_dir is empty"),
        (["caffe2fluid/tests/caffe_micro/elu.prototxt"], 0, "note: nothing was written; name a folder"),
    ],
)
def test_exit_codes(arguments, code, message):
    done = subprocess.run(
        [sys.executable, "caffe2fluid/convert.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_is_quiet():
    body = "import os, signal; import caffe2fluid.convert; os.kill(os.getpid(), signal.SIGTERM)"
    done = subprocess.run([sys.executable, "-c", body], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGTERM, "", "")


def test_the_folder_stands_alone(small, tmp_path):
    """Copied to an empty place, started by its path, it imports nothing else of this repository."""
    import shutil

    place = tmp_path / "place"
    shutil.copytree(ROOT / "caffe2fluid", place / "caffe2fluid", ignore=shutil.ignore_patterns("tests", "__pycache__"))
    probe = (
        "import runpy, sys; sys.argv = ['convert.py', *sys.argv[1:]]\n"
        "try: runpy.run_path('caffe2fluid/convert.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0, end.code\n"
        "files = [getattr(m, '__file__', None) or '' for n, m in sys.modules.items() if n.split('.')[0] in ('caffe2fluid', 'fluid')]\n"
        "assert files and all('place' in f for f in files), files\n"
        "assert not {'google.protobuf', 'caffe', 'cv2', 'tyro', 'rich'} & (set(sys.modules) - before)\n"
    )
    probe = "import sys; import paddle; before = set(sys.modules)\n" + probe
    done = subprocess.run(
        [sys.executable, "-c", probe, str(small[0]), "--caffemodel", str(small[1]), "-o", "out"],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (place / "out/inference/model.json").is_file()
