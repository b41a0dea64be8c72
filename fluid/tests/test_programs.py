"""Programs as files: what is written is read back, runs without Paddle, and begins as it was told to."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

from fluid import programs
from fluid.engine.xla import create
from fluid.errors import EngineError, UserError, WeightsError
from fluid.interface import Input
from fluid.program import build, initialise
from fluid.run import WITHOUT_PADDLE as WITHOUT_PADDLE_HERE
from fluid.run import script
from fluid.schedule import Constant

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

ROOT = Path(__file__).resolve().parents[2]
INPUTS = [Input("x", (None, 16)), Input("y", (None,), "int64")]


def network(x, y, training):
    initializer = paddle.nn.initializer
    kinds = {
        "uniform": initializer.Uniform(-0.5, 0.25),
        "normal": initializer.Normal(1.0, 0.1),
        "assigned": initializer.Assign(np.eye(16, dtype=np.float32)),
    }
    for name, kind in kinds.items():
        x = x @ paddle.create_parameter([16, 16], "float32", attr=paddle.ParamAttr(name=name, initializer=kind))
    bias = paddle.create_parameter([16], "float32", attr=paddle.ParamAttr(name="bias"), is_bias=True)
    return {"loss": F.cross_entropy(F.tanh(x) + bias, y)}


def adam():
    return paddle.optimizer.Adam(1.0)


@pytest.fixture(scope="module")
def built():
    options = {"optimizer": adam, "schedule": Constant(0.01), "ema_decay": 0.9}
    built = {"train": build(network, INPUTS, name="train", training=True, **options)}
    return built | {"eval": build(network, INPUTS, name="eval")}


def write(folder, built, **options):
    state = initialise(built["train"], seed=3)
    told = {"task": "toy", "settings": {"lr": 0.01}, "facts": {"classes": 16}, "seed": 3}
    programs.write(folder, built, state, **(told | options))
    return state


def feed():
    rng = np.random.default_rng(0)
    return {"x": rng.normal(size=(4, 16)).astype(np.float32), "y": rng.integers(0, 16, 4)}


WITHOUT_PADDLE = """
import sys
sys.modules["paddle"] = None
import json
import numpy as np
from pathlib import Path
from fluid import programs
from fluid.engine.xla import create
captured = programs.read(Path(sys.argv[1]), task="toy")
engine = create("cpu")
engine.load(captured.initial_state())
feed = dict(np.load(sys.argv[2]))
print(json.dumps([float(engine.run(captured.programs["train"], feed, step)["loss"]) for step in range(3)]))
"""


def test_they_train_without_paddle_as_with_it(built, tmp_path):
    state = write(tmp_path / "programs", built)
    np.savez(tmp_path / "feed.npz", **feed())
    engine = create("cpu")
    engine.load(state)
    losses = [float(engine.run(built["train"], feed(), step)["loss"]) for step in range(3)]
    command = [sys.executable, "-c", WITHOUT_PADDLE, str(tmp_path / "programs"), str(tmp_path / "feed.npz")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == losses


def test_moments_of_zero_take_no_room(built, tmp_path):
    state = write(tmp_path / "full", built)
    captured = programs.read(tmp_path / "full", task="toy")
    assert (captured.settings, captured.facts, captured.seed) == ({"lr": 0.01}, {"classes": 16}, 3)
    read = captured.initial_state()
    assert read.keys() == state.keys()
    for name, array in state.items():
        assert read[name].dtype == array.dtype and read[name].shape == array.shape, name
        np.testing.assert_array_equal(read[name], array)
    # Three matrices and a few numbers, but neither the two moments nor the average of each.
    assert (tmp_path / "full" / programs.STATE).stat().st_size < 4 * 16 * 16 * 4
    with pytest.raises(UserError, match="--seed 4.*--state seed"):
        captured.initial_state(seed=4)


def test_a_seed_draws_from_the_same_distributions(built, tmp_path):
    state = write(tmp_path / "seed", built, form="seed")
    captured = programs.read(tmp_path / "seed", task="toy")
    one, same, other = (captured.initial_state(seed) for seed in (3, None, 4))
    assert one.keys() == state.keys()
    for name, array in state.items():
        assert one[name].dtype == array.dtype and one[name].shape == array.shape, name
        np.testing.assert_array_equal(one[name], same[name])
    assert not np.array_equal(one["uniform"], other["uniform"])
    np.testing.assert_array_equal(one["uniform"], one["uniform_ema"])
    assert -0.5 <= one["uniform"].min() < -0.45 and 0.2 < one["uniform"].max() <= 0.25
    assert abs(one["normal"].mean() - 1.0) < 0.02 and abs(one["normal"].std() - 0.1) < 0.02
    np.testing.assert_array_equal(one["assigned"], np.eye(16, dtype=np.float32))
    assert (tmp_path / "seed" / programs.STATE).stat().st_size < 3 * 16 * 16 * 4


def test_what_cannot_be_used_is_said(built, tmp_path):
    with pytest.raises(UserError, match="no captured Programs there.*./zoo capture"):
        programs.read(tmp_path, task="toy")
    write(tmp_path / "programs", built)
    with pytest.raises(UserError, match="exists already"):
        write(tmp_path / "programs", built)
    with pytest.raises(UserError, match="belong to the task toy, not to image_classification"):
        programs.read(tmp_path / "programs", task="image_classification")
    captured = programs.read(tmp_path / "programs", task="toy")
    (tmp_path / "programs" / programs.STATE).write_bytes(b"half")
    with pytest.raises(WeightsError, match="capture the Programs again"):
        captured.initial_state()
    (tmp_path / "programs" / programs.DESCRIPTION).write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be read"):
        programs.read(tmp_path / "programs", task="toy")
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "programs", built)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "programs"]


@dataclasses.dataclass
class Flags:
    """As of an eval.py."""

    lr: float = 1.0
    beam: int = 5


def test_weights_of_another_network_are_refused(built, tmp_path):
    state = write(tmp_path / "programs", built, facts={"net": {"width": 16, "norm": "pre", "names": ["a"]}})
    captured = programs.read(tmp_path / "programs", task="toy")
    assert captured.program("eval", state) is captured.programs["eval"]
    with pytest.raises(UserError, match="are train, eval; 'infer', which this needs, is not among them"):
        captured.program("infer", state)
    other = {name: array for name, array in state.items() if name != "normal"} | {"bias": np.zeros(3, np.float32)}
    with pytest.raises(WeightsError, match=r"bias \[3\] instead of \[16\]; normal is missing"):
        captured.program("eval", other)
    captured.check_facts("net", {"width": 16, "norm": "pre", "names": ["b"]}, "some run", free=["names"])
    with pytest.raises(UserError, match="another network than some run: norm is 'pre' there, 'post' here"):
        captured.check_facts("net", {"width": 16, "norm": "post", "names": ["a"]}, "some run")


def test_flags_hold_as_captured(built, tmp_path):
    write(tmp_path / "programs", built)
    captured = programs.read(tmp_path / "programs", task="toy")
    assert captured.settle(Flags(beam=3), ["lr"]) == Flags(lr=0.01, beam=3)
    assert captured.settle(Flags(lr=0.01), ["lr"]) == Flags(lr=0.01)
    with pytest.raises(UserError, match="built with --lr 0.01, not 2.0: capture them again"):
        captured.settle(Flags(lr=2.0), ["lr"])
    assert captured.engine("auto") == captured.engine("xla") == "xla"
    with pytest.raises(EngineError, match="--engine paddle: Programs from files are run by the xla engine"):
        captured.engine("paddle")


def test_a_run_knows_its_programs_where_paddle_is_missing(monkeypatch):
    named, of_the_run = Path("named"), "of the run"
    assert programs.choose(named, of_the_run) == named and programs.choose(None, of_the_run) is None
    monkeypatch.setitem(sys.modules, "paddle", None)
    assert programs.choose(named, of_the_run) == named and programs.choose(None, of_the_run) == Path(of_the_run)
    assert programs.choose(None, None) is None


def test_a_script_says_that_paddle_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "paddle", None)

    def build():
        import paddle.nn.functional

        return paddle

    with pytest.raises(SystemExit) as stop:
        script(build)
    assert stop.value.code == 1
    assert capsys.readouterr().err == f"error: {WITHOUT_PADDLE_HERE}\n"
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        script(lambda: __import__("no_such_module"))
