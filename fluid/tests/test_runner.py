"""Weights on an engine and an exported model answer alike, through the same calls."""

from pathlib import Path

from fluid.config import EngineFlags
from fluid.errors import DataError, UserError
from fluid.export import ExportedModel, export
from fluid.interface import Input, Interface
from fluid.program import Program, build, initialise
from fluid.runner import Runner, run_arrays
from fluid.weights import Opened

import numpy as np
import paddle
import pytest


def inference() -> Program:
    """What is exported: halves go in."""

    def network(x: paddle.pir.Value, training: bool) -> dict[str, paddle.pir.Value]:
        layer = paddle.nn.Linear(3, 2, weight_attr=paddle.ParamAttr(name="fc_w"), bias_attr=False)
        return {"y": layer(x)}

    return build(network, [Input("x", (None, 3))], name="infer")


def evaluation() -> Program:
    """What the task feeds: whole numbers."""

    def network(x: paddle.pir.Value, training: bool) -> dict[str, paddle.pir.Value]:
        layer = paddle.nn.Linear(3, 2, weight_attr=paddle.ParamAttr(name="fc_w"), bias_attr=False)
        return {"y": layer(paddle.cast(x, "float32") / 2.0)}

    return build(network, [Input("x", (None, 3), "uint8")], name="eval")


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> list[Opened]:
    state = initialise(inference(), seed=4)
    folder = export(inference(), state, tmp_path_factory.mktemp("exported") / "model", facts={})
    return [Opened({}, state, "run", "why"), Opened({}, {}, "exported", "why", exported=ExportedModel(folder))]


def test_both_answer_what_the_task_feeds(both):
    feed = {"x": np.arange(12, dtype=np.uint8).reshape(4, 3)}
    answers = []
    for opened in both:
        runner = Runner(opened, EngineFlags(), prepare=lambda feed: {"x": feed["x"].astype(np.float32) / 2})
        answers.append(np.asarray(runner.engine.run(runner.program("eval", evaluation), feed, fetch=["y"])["y"]))
        assert set(runner.program("eval", evaluation).inputs) == {"x"}
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-5)
    assert Runner(both[1], EngineFlags()).how == "exported model, paddle.inference"
    assert Runner(both[0], EngineFlags(engine="paddle", device="cpu")).how.startswith("engine paddle on ")


def test_the_engine_is_chosen_by_what_is_to_run(both):
    runner, state = Runner(both[0], EngineFlags(device="cpu")), both[0].state
    runner.program("eval", evaluation)
    assert runner.engine.name == "paddle" and "compiling pays from" in runner.how
    with pytest.raises(RuntimeError, match="chosen before it was known that 'search' is recurrent"):
        runner.program("search", lambda: Interface(name="search", recurrent=True))
    runner = Runner(both[0], EngineFlags(device="cpu"))
    runner.program("eval", evaluation)
    runner.program("search", lambda: Interface(name="search", recurrent=True))
    assert runner.engine.name.startswith("xla") and "'search' loops over its layers" in runner.how
    assert runner.engine.state(state).keys() == state.keys()


def test_an_exported_model_has_its_own_weights_and_outputs_alone(both):
    engine = Runner(both[1], EngineFlags()).engine
    with pytest.raises(UserError, match="has only its outputs, y; conv3 needs a checkpoint or weights"):
        engine.run(inference(), {"x": np.zeros((1, 3), np.float32)}, fetch=["conv3"])
    with pytest.raises(TypeError):
        engine.load({})


@pytest.mark.parametrize("kind", [0, 1])
def test_raw_arrays_go_in_and_come_out(both, tmp_path, kind):
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, x=np.ones((2, 3)))
    run_arrays(Runner(both[kind], EngineFlags()), inference, source, target)
    with np.load(target) as outputs:
        np.testing.assert_allclose(outputs["y"], both[0].state["fc_w"].sum(axis=0)[None].repeat(2, 0), rtol=1e-5)
    for name, arrays, message in (
        ("other", {"z": np.ones((2, 3))}, "takes the input"),
        ("words", {"x": np.array([["a", "b", "c"]])}, "must be float32"),
        ("nothing", {"x": np.ones((0, 3))}, "one at least; found x 0"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        with pytest.raises(DataError, match=rf"{name}\.npz: .*{message}"):
            run_arrays(Runner(both[kind], EngineFlags()), inference, tmp_path / f"{name}.npz", target)
    with pytest.raises(DataError, match=str(Path("nowhere.npz"))):
        run_arrays(Runner(both[kind], EngineFlags()), inference, tmp_path / "nowhere.npz", target)


def test_some_outputs_are_fetched_and_other_programs_only_by_an_engine(both, tmp_path):
    np.savez(tmp_path / "in.npz", x=np.eye(3, dtype=np.float32))
    runner = Runner(both[0], EngineFlags(engine="paddle"))
    run_arrays(runner, inference, tmp_path / "in.npz", tmp_path / "out.npz", outputs=["y"])
    with np.load(tmp_path / "out.npz") as arrays:
        assert arrays.files == ["y"]
    assert runner.takes_other_programs and not Runner(both[1], EngineFlags()).takes_other_programs
