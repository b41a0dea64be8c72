"""./zoo weights, ./zoo legacy and ./zoo list: what they print, write and refuse."""

import subprocess
import sys
from pathlib import Path

from fluid import checkpoint
from fluid.arrays import read_npz
from fluid.commands import average as average_command
from fluid.commands import legacy as legacy_command
from fluid.commands import list as list_command
from fluid.commands import weights as weights_command
from fluid.errors import CheckpointError, DataError, UserError, WeightsError
from fluid.formats import legacy
from fluid.weights import compact, read_weights

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
FORMATS = Path(__file__).parent / "golden" / "formats"


def test_weights_convert(tmp_path, capsys):
    weights_command.main(["convert", str(FORMATS / "inference_model"), str(tmp_path / "x.safetensors")])
    assert "x.safetensors: 31 arrays" in capsys.readouterr().out
    (tmp_path / "names").write_text("\n\n".join(read_weights(tmp_path / "x.safetensors")))
    combined = str(FORMATS / "inference_model_combined" / "params")
    weights_command.main(["convert", combined, str(tmp_path / "folder"), "--names", str(tmp_path / "names")])
    assert len(legacy.read_folder(tmp_path / "folder")) == 31
    with pytest.raises(DataError, match="nothing: cannot be read"):
        weights_command.main(["convert", combined, str(tmp_path / "other"), "--names", str(tmp_path / "nothing")])


@pytest.mark.parametrize("argv", [["convert", "a"], ["transmute"], [], ["convert", "a", "b", "--sideways"]])
def test_wrong_words_exit_with_2(argv):
    with pytest.raises(SystemExit) as caught:
        weights_command.main(argv)
    assert caught.value.code == 2


def test_legacy_run_from_the_shell(tmp_path):
    golden = read_npz(FORMATS / "io.npz")
    np.savez(tmp_path / "in.npz", image=golden["x"])
    command = [sys.executable, "-m", "fluid.commands.legacy", "run", str(FORMATS / "inference_model")]
    arguments = ["--feed", str(tmp_path / "in.npz"), "--fetch", str(tmp_path / "new" / "out.npz")]
    done = subprocess.run(command + arguments, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "float32 [2, 5]" in done.stdout
    (out,) = read_npz(tmp_path / "new" / "out.npz").values()
    assert np.abs(out - golden["y"]).max() <= 1e-5 * np.abs(golden["y"]).max()

    (tmp_path / "in.npz").write_bytes(b"PK no zip")
    failed = subprocess.run(command + arguments, cwd=ROOT, capture_output=True, text=True)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ") and "not a readable .npz" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_legacy_convert(tmp_path, capsys):
    legacy_command.main(["convert", str(FORMATS / "inference_model_combined"), str(tmp_path / "current")])
    assert "inference.pdiparams" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "current").iterdir()) == ["inference.json", "inference.pdiparams"]


def test_list(tmp_path, capsys, monkeypatch):
    task = tmp_path / "some_task"
    task.mkdir()
    for path in (task / "infer.py", task / "export.py", tmp_path / "stranger" / "infer.py"):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    (task / "train.py").write_text('"""Do something."""\nclass Flags:\n    alg: str | None = None\n')
    (task / "weights.toml").write_text(
        "[weights.Net]\nurls = ['http://127.0.0.1:9/net.tar']\nlicence = 'CC0'\nsource = 'x'\nsize = 3_000_000"
    )
    for name in ("tally", "_helper"):
        (task / f"{name}.py").write_text('if __name__ == "__main__":\n    pass\n')
    (tmp_path / "not_built").mkdir()
    (tmp_path / "not_built" / "weights.toml").write_text((task / "weights.toml").read_text().replace("Net", "Other"))
    monkeypatch.setattr(list_command, "ROOT", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    list_command.main([])
    said = capsys.readouterr().out
    assert any(line.split() == ["some_task", "Do", "something."] for line in said.splitlines())
    assert any(line.split() == ["scripts:", "tally"] for line in said.splitlines())
    assert "Net" in said and "UNVERIFIED: no checksum was ever published" in said
    assert "Other" not in said  # nothing is offered whose network is not there
    assert "stranger" not in said
    with pytest.raises(SystemExit) as caught:
        list_command.main(["weights", "elsewhere"])
    assert caught.value.code == 2


@pytest.mark.parametrize("storage", ["fp16", "int8"])
def test_compact_weights_of_a_run(tmp_path, capsys, storage):
    """The best checkpoint, with what it says of itself; a second time from the compact file."""
    array = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    for step in (1, 2):
        meta = checkpoint.Meta("task", step, best=0.5, best_step=1, metrics={"acc1": 0.5}, extra={"net": {"name": "n"}})
        state = {"fc_weights": array * step, "fc_weights_velocity_0": array, "seen": np.array([True])}
        checkpoint.save(tmp_path / "run", state, meta, best=step == 1)
    for source, target in (("run", "w.safetensors"), ("w.safetensors", "again.safetensors")):
        weights_command.main(["compact", str(tmp_path / source), str(tmp_path / target), "--storage", storage])
        said = capsys.readouterr().out
        assert said.startswith(f"{tmp_path / target}: 2 arrays, 0.0 MB; off by ")
        read, description = compact.read(tmp_path / target)
        origin = {"step": 1, "metrics": {"acc1": 0.5}}
        assert description == compact.Description("task", {"net": {"name": "n"}}, origin, storage)
        np.testing.assert_allclose(read["fc_weights"], array, atol=0.02)
    assert (tmp_path / "w.safetensors").stat().st_size < array.nbytes * {"fp16": 0.55, "int8": 0.3}[storage]
    with pytest.raises(WeightsError, match=r"called NAME\.safetensors"):
        weights_command.main(["compact", str(tmp_path / "run"), str(tmp_path / "w.pdparams")])


@pytest.mark.parametrize("ema", [False, True])
def test_the_mean_of_the_last_checkpoints(tmp_path, capsys, ema):
    """Parameters and statistics are averaged, moving averages in place of the parameters they follow; the rest is not."""
    for step in (1, 2, 10):
        state = {"w": np.full(3, step, np.float32), "w_velocity_0": np.ones(3), "seen": np.array([step])}
        meta = checkpoint.Meta("task", step, best=1.0, best_step=2, due=["eval"], extra={"net": {"name": "n"}})
        checkpoint.save(tmp_path / "run", state | ({"w_ema": np.full(3, 10 * step, np.float32)} if ema else {}), meta)
    (tmp_path / "run" / "checkpoints" / "step_00000010.copy").mkdir()
    average_command.main([str(tmp_path / "run"), "--last", "2", "--output_dir", str(tmp_path / "mean")])
    assert capsys.readouterr().out.endswith("step_00000010: mean of step_00000002, step_00000010\n")
    state, meta = checkpoint.load(tmp_path / "mean")
    assert state.keys() == {"w", "seen"} and state["w"].dtype == np.float32
    assert state["w"].tolist() == [60 if ema else 6] * 3 and state["seen"] == [10]
    assert (meta.task, meta.step, meta.best, meta.due, meta.extra) == ("task", 10, None, [], {"net": {"name": "n"}})
    for last in ("4", "0"):
        with pytest.raises(UserError, match=f"run has 3 checkpoints, not {last}; train with --keep_checkpoints"):
            average_command.main([str(tmp_path / "run"), "--last", last, "--output_dir", str(tmp_path / "more")])
    with pytest.raises(CheckpointError, match="exists already"):
        average_command.main([str(tmp_path / "run"), "--last", "2", "--output_dir", str(tmp_path / "mean")])
