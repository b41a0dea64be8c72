"""An exported model computes what its Program computes, and replaces nothing but an exported model."""

import errno

from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError, WeightsError
from fluid.export import ExportedModel, export
from fluid.interface import Input
from fluid.program import build, initialise

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest


def network(image, training):
    norm = paddle.nn.BatchNorm2D(4, name="norm")
    norm.training = training
    x = F.relu(norm(paddle.nn.Conv2D(3, 4, 3, bias_attr=False)(image)))
    return {"mean": x.mean(axis=[2, 3]), "largest": x.max(axis=[2, 3])}


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
    for rows in (1, 5):
        image = np.random.default_rng(rows).normal(size=(rows, 3, 8, 8)).astype(np.float32)
        expected, outputs = engine.run(program, {"image": image}), model.run({"image": image})
        for name in expected:
            np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-5)


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
