"""Which weights a script opens, and what the line says that it prints."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from fluid import checkpoint, export, programs, weights
from fluid.config import ExportedFlags, WeightsFlags
from fluid.errors import CheckpointError, UserError, WeightsError
from fluid.weights import compact, opening

import numpy as np
import pytest

TASK = "some_task"
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Flags(WeightsFlags, ExportedFlags):
    """As of a script that runs exported models too."""


def state(value: float) -> dict[str, np.ndarray]:
    return {"fc_weights": np.full((2, 3), value, np.float32), "fc_weights_velocity_0": np.zeros((2, 3), np.float32)}


def save(output_dir: Path, step: int, *, best: bool = False, task: str = TASK, **arrays: np.ndarray) -> Path:
    """A checkpoint whose weights are its step."""
    meta = checkpoint.Meta(task, step, extra={"net": {"name": f"net of step {step}"}})
    if best:
        meta.best, meta.best_step = step / 8, step
    return checkpoint.save(output_dir, {**state(step), **arrays}, meta, best=best)


def run(output_dir: Path, task: str = TASK) -> Path:
    """A run whose best checkpoint is not its newest."""
    save(output_dir, 1, task=task)
    save(output_dir, 2, best=True, task=task)
    meta = checkpoint.Meta(task, 3, best=0.25, best_step=2, extra={"net": {"name": "net of step 3"}})
    checkpoint.save(output_dir, state(3), meta)
    return output_dir


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A task's folder with weights that come along, called 0; the script is started beside it."""
    folder = tmp_path / TASK
    folder.mkdir()
    description = compact.Description(TASK, {"net": {"name": "small net"}})
    compact.write(folder / "small.safetensors", {"fc_weights": state(0)["fc_weights"]}, description)
    (folder / "weights.toml").write_text("[weights.small]\nfile='small.safetensors'\nlicence='CC0'\nsource='here'\n")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return folder


def opened(folder: Path, kind: type[WeightsFlags] = Flags, **flags) -> tuple[weights.Opened, str]:
    lines: list[str] = []
    result = weights.open(
        folder,
        kind(**flags),
        default="small",
        key="net",
        from_facts=lambda facts: facts["name"],
        fit=lambda bare: ("bare", bare.read(), weights.Report()),
        say=lines.append,
    )
    (line,) = lines
    return result, line


def value(result: weights.Opened) -> float:
    assert result.state.keys() == {"fc_weights"}
    return float(result.state["fc_weights"][0, 0])


def test_without_flags_what_comes_along(folder):
    result, line = opened(folder)
    assert (value(result), result.facts) == (0, "small net")
    assert line == "weights: small (comes along; no run in ./output)"


def test_without_flags_the_best_of_the_run_in_output(folder):
    run(Path("output"))
    result, line = opened(folder)
    assert (value(result), result.facts) == (2, "net of step 2")
    assert line == "weights: output/checkpoints/step_00000002 (the run in ./output: its best, 0.25)"


def test_a_run_of_another_task_is_named_and_passed_over(folder):
    run(Path("output"), task="other_task")
    result, line = opened(folder)
    assert value(result) == 0
    assert line == "weights: small (comes along; the run in ./output is of other_task)"
    with pytest.raises(UserError, match="--newest: the run in ./output is of other_task; name a run"):
        opened(folder, newest=True)


@pytest.mark.parametrize("flag, kind", [("checkpoint", Path), ("pretrained_model", str)])
def test_a_run_means_its_best_and_others_can_be_named(folder, tmp_path, flag, kind):
    run(Path("output"))
    there = run(tmp_path / "run")
    save(there, 4)
    for where, more, expected, reason in (
        (there, {}, 2, "its best, 0.25"),
        (there, {"newest": True}, 4, "its newest"),
        (there / "checkpoints" / "step_00000003", {}, 3, "step_00000003"),
        (there / "best", {}, 2, "best"),
    ):
        result, line = opened(folder, **{flag: kind(where)}, **more)
        assert value(result) == expected
        assert line.endswith(f"{reason})") and f"(--{flag} {where}" in line, line
    assert value(opened(folder, newest=True)[0]) == 3


def test_a_run_without_evaluations_means_its_newest(folder, tmp_path):
    save(tmp_path / "run", 1)
    save(tmp_path / "run", 2)
    result, line = opened(folder, checkpoint=tmp_path / "run")
    assert value(result) == 2 and "its newest, as nothing was evaluated" in line


def test_a_run_whose_best_is_gone_says_so(folder, tmp_path):
    (tmp_path / "run").mkdir()
    meta = checkpoint.Meta(TASK, 7, best=0.5, best_step=3, extra={"net": {"name": "net"}})
    checkpoint.save(tmp_path / "run", state(7), meta)
    result, line = opened(folder, checkpoint=tmp_path / "run")
    assert value(result) == 7 and "its newest, as the best (step 3) is gone" in line


def test_averaged_weights_are_the_weights_of_a_run(folder, tmp_path):
    save(tmp_path / "run", 1, fc_weights_ema=np.full((2, 3), 9, np.float32))
    assert value(opened(folder, checkpoint=tmp_path / "run")[0]) == 9
    assert weights.read_weights(tmp_path / "run")["fc_weights"][0, 0] == 9


def test_weights_that_say_what_they_are_and_weights_that_do_not(folder, tmp_path):
    array = state(5)["fc_weights"]
    described, plain, bare = (tmp_path / f"{name}.safetensors" for name in ("described", "plain", "bare"))
    compact.write(described, {"fc_weights": array}, compact.Description(TASK, {"net": {"name": "mine"}}, {}, "fp16"))
    weights.write_weights(plain, {"module.fc_weights": array})
    compact.write(bare, {"fc_weights": array}, compact.Description(storage="int8"))
    for path, facts in ((described, "mine"), (plain, "bare"), (bare, "bare")):
        result, line = opened(folder, pretrained_model=str(path))
        assert (value(result), result.facts) == (5, facts)
        assert result.state["fc_weights"].dtype == np.float32
        assert line == f"weights: {path} (--pretrained_model)"
    assert (result.report is None) == (facts != "bare")
    assert value(opened(folder, pretrained_model="small")[0]) == 0


def test_half_precision_checkpoints_are_float32_in_use(folder, tmp_path):
    meta = checkpoint.Meta(TASK, 1, extra={"net": {"name": "net"}})
    checkpoint.save(tmp_path / "run", {"fc_weights": np.ones((2, 3), np.float16)}, meta)
    assert opened(folder, checkpoint=tmp_path / "run")[0].state["fc_weights"].dtype == np.float32


def test_what_cannot_be_opened(folder, tmp_path):
    run(tmp_path / "run")
    broken = state(1)["fc_weights"]
    broken[1, 2] = np.inf
    meta = checkpoint.Meta(TASK, 1, extra={"net": {"name": "net"}})
    checkpoint.save(tmp_path / "diverged", {"fc_weights": broken}, meta)
    compact.write(tmp_path / "theirs.safetensors", state(1), compact.Description("other_task", {"net": {}}))
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / export.SIGNATURE).write_text(json.dumps({}))
    run(tmp_path / "theirs", task="other_task")
    for flags, error, message in (
        ({"checkpoint": tmp_path / "none"}, CheckpointError, "no checkpoint at .*none"),
        ({"checkpoint": tmp_path / "exported"}, CheckpointError, "other kinds are named with --pretrained_model"),
        ({"pretrained_model": "smal"}, WeightsError, "smal: no such file.*Did you mean small"),
        (
            {"checkpoint": tmp_path / "run", "pretrained_model": "small"},
            UserError,
            "--checkpoint and --pretrained_model",
        ),
        ({"exported_model": tmp_path, "pretrained_model": "small"}, UserError, "give one of them"),
        ({"pretrained_model": "small", "newest": True}, UserError, "small is not a run's folder"),
        ({"newest": True}, UserError, "--newest: no run in ./output"),
        ({"checkpoint": tmp_path / "diverged"}, WeightsError, "NaN or infinity in fc_weights"),
        ({"checkpoint": tmp_path / "theirs"}, CheckpointError, "belongs to the task other_task"),
        ({"pretrained_model": str(tmp_path / "theirs.safetensors")}, WeightsError, "belongs to the task other_task"),
        ({"pretrained_model": str(tmp_path / "exported")}, UserError, "name it with --exported_model"),
        (
            {"exported_model": tmp_path / "run"},
            WeightsError,
            r"is not an exported model \(signature.json: No such file",
        ),
    ):
        with pytest.raises(error, match=message):
            opened(folder, **flags)


def test_what_is_called_like_it_is_not_what_comes_along(folder):
    weights.write_weights("small", {"fc_weights": state(8)["fc_weights"]})
    assert value(opened(folder)[0]) == 0
    assert value(opened(folder, pretrained_model="small")[0]) == 8


def test_files_that_come_along_are_checked(folder):
    with open(folder / "weights.toml", "a") as file:
        file.write(f"sha256='{64 * '0'}'\n")
    with pytest.raises(WeightsError, match="its sha256 is"):
        opened(folder)
    (folder / "small.safetensors").unlink()
    with pytest.raises(WeightsError, match="comes along with the task, but is missing"):
        opened(folder)


def test_the_sign_of_an_exported_model_is_known_without_paddle():
    assert opening.EXPORTED == export.SIGNATURE


def test_weights_are_opened_without_paddle(folder, tmp_path):
    """As on a machine where Programs are read from files."""
    run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from fluid import weights; from fluid.config import WeightsFlags\n"
        f"flags = WeightsFlags(checkpoint=Path({str(tmp_path / 'run')!r}))\n"
        "read = dict(default='small', key='net', from_facts=lambda facts: facts['name'], fit=None)\n"
        f"print(weights.open(Path({str(folder)!r}), flags, **read).facts, 'paddle' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "net of step 2 False"


@dataclass
class Programs(WeightsFlags, ExportedFlags):
    """As of a script that runs Programs from files too."""

    programs: Path | None = None


def captured(folder: Path, facts: dict[str, str]) -> Path:
    """Programs from files, none of them."""
    programs.write(folder, {}, {}, task=TASK, settings={}, facts={"net": facts}, seed=0)
    return folder


def test_programs_and_weights_are_of_one_network(folder, tmp_path):
    where = captured(tmp_path / "programs", {"name": "net of step 2"})
    run(Path("output"))
    result, _ = opened(folder, Programs, programs=where)
    assert result.captured is not None and (value(result), result.facts) == (2, "net of step 2")
    with pytest.raises(UserError, match="name is 'net of step 2' there, 'net of step 3' here"):
        opened(folder, Programs, programs=where, newest=True)
    # Weights that do not describe themselves are those of the Programs.
    weights.write_weights(tmp_path / "bare.safetensors", state(5))
    result, _ = opened(folder, Programs, programs=where, pretrained_model=str(tmp_path / "bare.safetensors"))
    assert (value(result), result.facts) == (5, "net of step 2")
    with pytest.raises(UserError, match="--exported_model has a Program of its own"):
        opened(folder, Programs, programs=where, exported_model=tmp_path)
