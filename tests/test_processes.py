"""What an evaluation measures does not depend on how many processes share it: of every task whose data are samples."""

import json
import os
import subprocess
import sys
from pathlib import Path

from fluid import checkpoint
from fluid.run import events
from fluid.tests.tasks import FOLDERS, ROOT, Task, has_environment, open_task, train

import pytest

TASKS = [folder for folder in FOLDERS if not (folder / "tests" / "test_processes.py").is_file()]
"""Those that have no tests of their own for that."""
SHARE = """
import functools, json, runpy, sys
from unittest import mock
from fluid.engine.xla import distributed
distributed.start = functools.cache(distributed.start)
for words in json.loads(sys.argv[1]):
    with mock.patch.object(sys, "argv", [*words, *sys.argv[2:]]):
        runpy.run_path(words[0], run_name="__main__")
"""
"""Runs scripts one after the other, in the same two processes since it is the imports that take time."""


def owing_an_evaluation(run: Path, copy: Path) -> Path:
    """A run that has nothing left to do but the last evaluation."""
    arrays, meta = checkpoint.load(run)
    meta.due, meta.metrics = ["eval"], {}
    checkpoint.save(copy, arrays, meta)
    return copy


def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    """In other batches, too."""
    tasks = [open_task(folder, tmp_path / folder.name) for folder in TASKS]
    tasks = [task for task in tasks if not has_environment(task)]
    runs = [measured_alone(task) for task in tasks]
    commands = [
        [task.folder / "train.py", "--checkpoint", owing_an_evaluation(run, task.place / "shared"), "--engine", "xla"]
        for task, run in zip(tasks, runs, strict=True)
    ]
    job = tmp_path / "job.py"
    job.write_text(SHARE, encoding="utf-8")
    words = [list(map(str, command)) for command in commands]
    done = subprocess.run(
        [sys.executable, "-m", "fluid.commands.launch", "2", str(job), json.dumps(words)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for task, run in zip(tasks, runs, strict=True):
        (alone,), (shared,) = (figures(folder) for folder in (run, task.place / "shared"))
        assert shared == {name: pytest.approx(value, rel=1e-4) for name, value in alone.items()}, task.folder.name


def measured_alone(task: Task) -> Path:
    """A run of few steps that ends with an evaluation."""
    task.place.mkdir()
    return train(task, task.place / "alone", "--engine", "paddle", part=True)


def figures(run: Path) -> list[dict[str, float]]:
    """What the evaluations of a run measured."""
    return [
        {name: value for name, value in event.items() if name not in ("kind", "time", "seconds")}
        for event in events(run, "eval")
    ]
