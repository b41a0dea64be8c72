"""The learning rate that dev decides, in one go and interrupted."""

import json
from pathlib import Path
from types import SimpleNamespace

from DeepASR import train
from DeepASR.newbob import Newbob
from DeepASR.tests import tiny
from fluid import checkpoint
from fluid.errors import UserError

import pytest


def test_halving_begins_when_dev_grows_too_little_and_goes_on() -> None:
    program = SimpleNamespace(schedule=None)
    newbob = Newbob(program, 0.8, {})  # type: ignore[arg-type]
    for step, accuracy in ((10, 30.0), (20, 50.0), (30, 50.4), (40, 60.0)):
        newbob.measured(step, accuracy)
    assert [program.schedule(step) for step in (0, 29, 30, 39, 40, 99)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2]
    again = SimpleNamespace(schedule=None)
    Newbob(again, 0.8, json.loads(json.dumps(newbob.memory)))  # type: ignore[arg-type]
    assert again.schedule == program.schedule


def test_an_interrupted_run_decides_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels are noise, so dev does not grow; an evaluation after every update."""
    monkeypatch.chdir(tmp_path)
    data = tiny.data(tmp_path)[1]
    flags = {
        "hidden_dim": 6,
        "proj_dim": 4,
        "filters": 2,
        "batch_size": 4,
        "stacked_num": 1,
        "newbob": True,
        "lr": 1e-5,
    }
    common = {**flags, "data_dir": data, "eval_every": 1, "save_every": 1, "engine": "paddle"}
    train.main(train.Flags(**common, max_steps=4, output_dir=Path("whole")))  # type: ignore[arg-type]
    train.main(train.Flags(**common, max_steps=2, output_dir=Path("parts")))  # type: ignore[arg-type]
    train.main(train.Flags(checkpoint=Path("parts"), max_steps=4, output_dir=Path("parts")))
    whole, parts = (checkpoint.load(checkpoint.find_newest(Path(name))) for name in ("whole", "parts"))
    assert whole[1].extra["newbob"] == parts[1].extra["newbob"] and whole[1].extra["newbob"]["steps"]
    assert whole[1].rate == parts[1].rate and whole[1].rate < 1e-5
    for name, array in whole[0].items():
        assert array.tobytes() == parts[0][name].tobytes(), name
    with pytest.raises(UserError, match="--newbob decides"):
        train.main(train.Flags(newbob=True, lr_strategy="constant", data_dir=data, output_dir=Path("other")))
