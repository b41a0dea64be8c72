"""The scripts of a task, run by the smallest configuration that it declares in its tests/tiny.py.

Such a module has

    STEPS             --max_steps of a part of the smallest run, and of the whole
    METRIC            a figure of train.py's evaluation
    figure(result)    the same figure in what eval.py's main returns
    TRAIN, EVAL, ...  flags of train.py, eval.py, infer.py and export.py beside those that the tests give
    STORAGE           more flags of export.py, by which --storage is measured on little
    WITHOUT_PADDLE    calls of infer.py, beside that with --feed, that Programs from files make possible without Paddle
    OTHER_NETWORK     flags of train.py that make another network
    OTHER_DATA        a list in the data, whose order makes other data, or a pattern of pictures, whose names do; None
                      without data
    other_classes(folder)    lets data have other classes, where their order or names count
    OUTSIDE           what answers in place of a reader, (class, name of its method), where the data are no samples
    BENCHMARK         what train.py --benchmark calls, if not the trainer's
    BESIDE            how arrays of a checkpoint begin that are none of the network's
    COPIED            how variables begin that start as copies of others
    DEVICES           more flags of train.py, with which a step on two devices means the same as on one
    data(folder)      writes a tiny data set there; returns the flags that name it for train.py and eval.py
    feed(rng)         arrays for `infer.py --feed`
    training(make)    the training Program with the optimizer that `make()` gives
    batch(rng)        arrays for that Program
    DISCRETE          outputs of infer.py --fetch that follow from comparisons, which weights in 8 bits may decide otherwise
    NO_GRADIENT       parameters whose gradient is zero, and why
    EXCEPTIONS        files that it does without, and why

The scripts run in this process, because most of a script's time is the import of Paddle and JAX.
"""

import contextlib
import importlib.util
import io
import runpy
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import fluid.run
from fluid import checkpoint

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [path.parent for path in sorted([*ROOT.glob("*/train.py"), *ROOT.glob("tests/*/train.py")])]
SCRIPTS = ("train", "eval", "infer", "export")


@dataclass
class Task:
    """A task's folder, what it declares, and a place for its data and runs."""

    folder: Path
    tiny: ModuleType
    place: Path

    def words(self, script: str) -> list[str]:
        """The flags that it declares for a script."""
        return [str(word) for word in getattr(self.tiny, script.upper(), ())]

    def data(self) -> list[str]:
        """The flags that name its data."""
        return [str(word) for word in self.tiny.data(self.place)]


def open_task(folder: Path, place: Path) -> Task:
    """What the task in a folder declares; `place` is for its data and runs."""
    with mock.patch.object(sys, "path", [str(folder.parent), *sys.path]):
        spec = importlib.util.spec_from_file_location(f"tiny_{folder.name}", folder / "tests" / "tiny.py")
        assert spec is not None and spec.loader is not None
        tiny = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tiny)
    return Task(folder, tiny, place)


@dataclass
class Said:
    """How a script ended, and what it printed."""

    code: int
    out: str
    err: str
    result: Any = None
    """What its main returned."""


def write_nothing(figure: Any, path: Path, **options: Any) -> None:
    """In place of `Figure.savefig`, which takes a fifth of the time of a small run."""
    Path(path).write_bytes(b"")


def call(task: Task, script: str, *words: object, draw: bool = False) -> Said:
    """Run a script of the task as if from the shell, in the task's place; diagrams are left empty unless `draw`."""
    path = task.folder / f"{script}.py"
    code: object = 0
    results: list[Any] = []
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
        contextlib.chdir(task.place),
        mock.patch.object(sys, "argv", [str(path), *map(str, words)]),
        mock.patch.object(fluid.run, "script", lambda main, run=fluid.run.script: run(lambda: results.append(main()))),
        contextlib.nullcontext() if draw else mock.patch("matplotlib.figure.Figure.savefig", write_nothing),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except SystemExit as stop:
            code = stop.code or 0
    assert isinstance(code, int), code
    return Said(code, out.getvalue(), err.getvalue(), *results)


def done(said: Said) -> Said:
    """The same, if it ended well."""
    assert said.code == 0, said.out + said.err
    return said


def refused(said: Said) -> str:
    """The one line that says why a script stopped."""
    assert said.code == 1, said.out + said.err
    lines = said.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), said.err
    return lines[0]


def training_words(task: Task, output: Path, *words: object, part: bool = False) -> list[object]:
    """Flags of the smallest run, which is evaluated at its end."""
    some, whole = task.tiny.STEPS
    pace = [
        "--max_steps",
        some if part else whole,
        "--log_every",
        whole - some,
        "--save_every",
        some,
        "--eval_every",
        whole,
    ]
    return [*task.data(), *task.words("train"), *pace, "--output_dir", output, *words]


def train(task: Task, output: Path, *words: object, part: bool = False, draw: bool = False) -> Path:
    """Train a few steps; returns the folder of the run."""
    done(call(task, "train", *training_words(task, output, *words, part=part), draw=draw))
    return output


def state(run: Path) -> dict[str, np.ndarray]:
    """The arrays of a run's newest checkpoint."""
    return checkpoint.load(checkpoint.find_newest(run))[0]


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest max |a - b| / max |b| over arrays of the same names."""
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - array).max() / (np.abs(array).max() or 1)) for name, array in other.items())


def raw(task: Task, fetch: str, *words: object) -> dict[str, np.ndarray]:
    """Outputs of `infer.py --feed` on the declared arrays."""
    np.savez(task.place / "in.npz", **task.tiny.feed(np.random.default_rng(0)))
    done(call(task, "infer", *words, "--feed", task.place / "in.npz", "--fetch", task.place / fetch))
    with np.load(task.place / fetch, allow_pickle=False) as arrays:
        return dict(arrays)


def copy_of(task: Task, run: Path, name: str) -> Path:
    """A copy of a run that a test may change."""
    return Path(shutil.copytree(run, task.place / name, symlinks=True))


def steps_of(run: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return sorted(int(path.name.removeprefix("step_")) for path in (run / "checkpoints").iterdir())


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two states are equal to the bit."""
    return one.keys() == other.keys() and all(array.tobytes() == other[name].tobytes() for name, array in one.items())


def swap_lines(path: Path) -> None:
    """Let the first two lines of a file change places."""
    first, second, *rest = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join([second, first, *rest]), encoding="utf-8")


def has_environment(task: Task) -> bool:
    """Whether the data come from one, and not in batches of samples."""
    return hasattr(task.tiny, "OUTSIDE")
