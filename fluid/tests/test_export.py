"""An exported model computes what its Program computes, or there is none; and it replaces nothing but an exported model."""

import errno
import importlib.util
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError, WeightsError
from fluid.export import ExportedModel, Settings, _predict, _predictor, export
from fluid.interface import Input
from fluid.program import Program, build, initialise
from fluid.recurrent import gru, lstm
from fluid.resize import resize_bilinear
from fluid.tests.extras import need_onnx

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

HAS_ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))


def network(image, training):
    norm = paddle.nn.BatchNorm2D(4, name="norm")
    norm.training = training
    x = F.relu(norm(paddle.nn.Conv2D(3, 4, 3, bias_attr=False)(image)))
    return {"mean": x.mean(axis=[2, 3]), "largest": x.max(axis=[2, 3])}


def text(image, length, state, training):
    """What recognisers, segmenters and streams are made of: padding, resizing, recurrences with lengths, carried states."""
    image = F.pad(image, [1, 0, 0, 1], value=1.5)
    steps = resize_bilinear(image, (4, 6)).transpose([0, 3, 1, 2]).flatten(2)
    forward, after = gru(steps, 4, name="gru_0", lengths=length, initial=state)
    backward, _ = lstm(steps.tile([1, 1, 2])[:, :, :16], 4, projection=3, name="lstmp_0", lengths=length, reverse=True)
    return {"words": paddle.concat([forward, backward], axis=2), "state": after}


TEXT_INPUTS = [Input("image", (None, 3, 9, 11)), Input("length", (None,), "int64"), Input("state", (None, 4))]


def exported_text(folder: Path, **options: Any) -> tuple[Program, dict[str, np.ndarray], Path]:
    program = build(text, TEXT_INPUTS, name="text")
    state = initialise(program, seed=1)
    return program, state, export(program, state, folder, facts={}, **options)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    program = build(network, [Input("image", (None, 3, 8, 8))], name="infer")
    state = initialise(program, seed=0)
    folder = export(program, state, tmp_path_factory.mktemp("export") / "model", facts={"names": ["ä"]})
    return program, state, folder


def test_outputs_equal_those_of_the_program(exported):
    program, state, folder = exported
    engine = PaddleEngine()
    engine.load(state)
    model = ExportedModel(folder)
    assert model.facts == {"names": ["ä"]} and model.outputs == ["mean", "largest"]
    assert json.loads((folder / "signature.json").read_text())["onednn"]
    for rows in (1, 5):
        image = np.random.default_rng(rows).normal(size=(rows, 3, 8, 8)).astype(np.float32)
        expected, outputs = engine.run(program, {"image": image}), model.run({"image": image})
        for name in expected:
            np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)


def test_recurrences_and_resized_images_are_exported(tmp_path):
    program, state, folder = exported_text(tmp_path / "model", onnx=HAS_ONNX)
    engine, model = PaddleEngine(), ExportedModel(folder)
    engine.load(state)
    rng = np.random.default_rng(2)
    for rows in (2, 5):
        image = rng.normal(size=(rows, 3, 9, 11)).astype(np.float32)
        before = rng.normal(size=(rows, 4)).astype(np.float32)
        feed = {"image": image, "length": rng.integers(1, 7, rows), "state": before}
        expected, outputs = engine.run(program, feed), model.run(feed)
        for name in expected:
            np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["inference.json", "inference.pdiparams", "signature.json", *["model.onnx"] * HAS_ONNX]
    )
    if HAS_ONNX:  # paddle2onnx takes what padding fills in from memory that nobody wrote
        import onnx

        values = [
            onnx.numpy_helper.to_array(x) for x in onnx.load(folder / "model.onnx").graph.initializer if "pad" in x.name
        ]
        assert values == [1.5]


def test_what_onednn_cannot_run_is_run_without(tmp_path, capsys):
    def resized(image, training):
        image = paddle.nn.Conv2D(2, 2, 3)(image)
        return {"image": F.interpolate(image, size=[16, 16], mode="bilinear", align_corners=True)}

    program, engine = build(resized, [Input("image", (None, 2, 8, 8))], name="resize"), PaddleEngine()
    state = initialise(program, seed=0)
    engine.load(state)
    folder = export(program, state, tmp_path / "model", facts={})
    assert "without oneDNN" in capsys.readouterr().out
    image = np.random.default_rng(3).normal(size=(2, 2, 8, 8)).astype(np.float32)
    (output,) = ExportedModel(folder).run({"image": image}).values()
    np.testing.assert_allclose(output, engine.run(program, {"image": image})["image"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [2, None])
def test_no_value_is_overwritten_before_it_is_read_again(tmp_path, capsys, rows):
    """With oneDNN, Paddle's inplace_pass lets the square inside take the place of what it is made of."""

    def normalised(x, training):
        x = paddle.nn.Linear(7, 7)(2 * x + 0.5) + x
        return {"sum": x + F.local_response_norm(x, 5, alpha=1.0)}

    item = Input("x", (rows, 6, 8, 7), batch=None if rows else 0)
    program, engine = build(normalised, [item], name="normalised"), PaddleEngine()
    state = initialise(program, seed=0)
    engine.load(state)
    folder = export(program, state, tmp_path / "model", facts={})
    signature = json.loads((folder / "signature.json").read_text())
    assert signature["onednn"] and "inplace_pass" in signature["delete_passes"]
    assert "without inplace_pass, common_subexpression_elimination_pass: paddle.inference" in capsys.readouterr().out
    feed = {"x": np.random.default_rng(4).normal(size=(2, 6, 8, 7)).astype(np.float32)}
    (expected,) = engine.run(program, feed).values()
    (output,) = ExportedModel(folder).run(feed).values()
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    # As somebody loads it who does not read the signature.
    (output,) = _predict(_predictor(folder, Settings(onednn=True)), feed)
    assert not np.allclose(output, expected, rtol=0.1), "Paddle is right by itself by now"


def test_two_outputs_may_be_alike(tmp_path):
    """Without oneDNN Paddle's common_subexpression_elimination_pass makes one of them, and then does not find the other."""

    def alike(x, steps, training):
        zero, x = paddle.zeros([1], "int64"), paddle.nn.Linear(4, 4)(x)
        _, grown = paddle.static.nn.while_loop(lambda n, y: n < steps.max(), lambda n, y: [n + 1, y + 1], [zero, 2 * x])
        return {"grown": grown, "one": F.elu(x), "other": F.elu(x)}

    inputs = [Input("x", (None, 4)), Input("steps", (None,), "int64")]
    program, engine = build(alike, inputs, name="alike"), PaddleEngine()
    state = initialise(program, seed=0)
    engine.load(state)
    folder = export(program, state, tmp_path / "model", facts={})
    signature = json.loads((folder / "signature.json").read_text())
    assert not signature["onednn"] and "common_subexpression_elimination_pass" in signature["delete_passes"]
    feed = {"x": np.random.default_rng(5).normal(size=(3, 4)).astype(np.float32), "steps": np.array([2, 3, 1])}
    expected, outputs = engine.run(program, feed), ExportedModel(folder).run(feed)
    for name in expected:
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)


def test_a_model_that_never_answers_is_not_kept(tmp_path):
    """The trained form of a recurrence loads in paddle.inference and then runs for ever."""

    def steps(x, training):
        return {"states": gru(x, 4, name="gru")[0]}

    program = build(steps, [Input("x", (None, 5, 12))], name="trained", training=True)
    with pytest.raises(UserError, match=r"(?s)did not answer within 4 seconds.*fluid\.recurrent"):
        export(program, initialise(program, seed=0), tmp_path / "model", facts={}, time_limit=4)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_computes_something_else_is_not_kept(exported, tmp_path, monkeypatch):
    program, state, folder = exported
    before = (folder / "inference.pdiparams").read_bytes()
    run = PaddleEngine.run

    def other(engine, program, feed):
        outputs = run(engine, program, feed)
        return {**outputs, "largest": outputs["largest"] * 1.01}

    monkeypatch.setattr(PaddleEngine, "run", other)
    for target in (folder, tmp_path / "model"):
        with pytest.raises(UserError, match="computes something else than the Program: its output 'largest'"):
            export(program, state, target, facts={"names": []})
    assert (folder / "inference.pdiparams").read_bytes() == before and ExportedModel(folder).facts == {"names": ["ä"]}
    assert list(tmp_path.iterdir()) == []


def test_a_converter_that_aborts_is_one_error(tmp_path):
    """paddle2onnx ends the process at a mean over all axes."""
    need_onnx()
    program = build(
        lambda x, training: {"mean": paddle.nn.Linear(5, 2)(x).mean()}, [Input("x", (None, 5))], name="mean"
    )
    with pytest.raises(UserError, match=r"paddle2onnx failed, and nothing was exported: .*axis"):
        export(program, initialise(program, seed=0), tmp_path / "model", facts={}, onnx=True)
    assert list(tmp_path.iterdir()) == []


def test_wrong_inputs_are_named(exported):
    with pytest.raises(UserError, match="takes the inputs image, not picture"):
        ExportedModel(exported[2]).run({"picture": np.zeros((1, 3, 8, 8), np.float32)})


def test_an_exported_model_is_replaced_and_nothing_else(exported, tmp_path):
    program, state, _ = exported
    folder = export(program, state, tmp_path / "model", facts={})
    assert export(program, state, folder, facts={"again": 1}) == folder
    assert ExportedModel(folder).facts == {"again": 1}
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="is not an exported model"):
        export(program, state, tmp_path / "precious", facts={})
    assert (tmp_path / "precious" / "thesis.tex").read_text() == "x"


def test_a_failed_export_leaves_nothing_half_written(exported, tmp_path, monkeypatch):
    program, state, _ = exported

    def full(*arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(paddle.static, "save_inference_model", full)
    with pytest.raises(UserError, match="No space left"):
        export(program, state, tmp_path / "model", facts={})
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_exported_model_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="not an exported model"):
        ExportedModel(tmp_path)


def test_a_trial_ends_even_if_nobody_waits_for_it():
    """Killing the export must not leave a process behind that computes for ever."""
    code = (
        "import time, fluid.export as export; export._try_out = lambda *_: time.sleep(60); export._main('', '', '0.5')"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=50)
    assert done.returncode == -signal.SIGALRM
