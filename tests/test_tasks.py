"""What every task passes, by the smallest configuration that it declares (fluid/tests/tasks.py)."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

from fluid import checkpoint
from fluid import config as configuration
from fluid.engine.xla import create as create_xla
from fluid.engine.xla import graph
from fluid.engine.xla.tuning import for_platform
from fluid.errors import UserError
from fluid.export import Settings
from fluid.keeper import Evaluation, Keeper, Trainee
from fluid.run import events
from fluid.session import Settled
from fluid.tests.gradients import without_gradient
from fluid.tests.tasks import (
    ROOT,
    SCRIPTS,
    Said,
    Task,
    call,
    copy_of,
    distance,
    done,
    raw,
    refused,
    same_bits,
    state,
    steps_of,
    swap_lines,
    train,
    training_words,
)

import numpy as np
import pytest


def test_the_files_of_the_pattern(task: Task) -> None:
    pattern = {"README.md", "reader.py", "weights.toml", *(f"{script}.py" for script in SCRIPTS)}
    assert {name for name in pattern if not (task.folder / name).is_file()} == pattern & task.tiny.EXCEPTIONS.keys()
    assert any((task.folder / name).exists() for name in ("model.py", "models", "network.py"))


def test_help_and_a_wrong_flag(task: Task) -> None:
    """Of every script in the folder."""
    texts = {path: path.read_text(encoding="utf-8") for path in task.folder.glob("*.py")}
    scripts = [path.stem for path, text in texts.items() if '\nif __name__ == "__main__":' in text]
    assert set(SCRIPTS) <= set(scripts)
    for script in scripts:
        assert "--help" in done(call(task, script, "--help")).out
        wrong = call(task, script, "--no_such_flag", "1")
        assert wrong.code == 2 and "no_such_flag" in wrong.err.replace("-", "_"), script


def test_three_steps(task: Task, run: Path) -> None:
    rows = events(run, "train")
    assert rows[-1]["step"] == task.tiny.STEPS[1]
    assert all(np.isfinite(row["loss"]) for row in rows)


def test_a_flag_that_is_named_stays_named(task: Task) -> None:
    """At its default, too: recipes and runs that go on give way to it."""
    seen: list[set[str]] = []

    def stop(settled: Settled, build: object) -> None:
        seen.append(configuration.named(settled.flags))
        raise UserError("that is enough")

    words = [*task.words("train"), *task.data(), "--seed", 0, "--keep_checkpoints", 3, "--output_dir", "named"]
    with mock.patch("fluid.session.Settled.programs", stop):
        assert "that is enough" in refused(call(task, "train", *words))
    assert {"seed", "keep_checkpoints"} <= seen[0]


LEFT = {"best.json", "config.json", "environment.json", "log.jsonl", "train.log"}
CURVES = "curves.png"
FIRST = {"train": ["kind", "step", "time", "loss"], "eval": ["kind", "step", "time"]}
"""Fields with which lines of log.jsonl begin."""
SAID = {"train": r"step \d+/\d+ .*\bloss -?[\d.]+ .* eta \d", "eval": r"evaluation after step \d+: .* \(best so far\)"}
"""What train.log has of them."""


def test_a_run_leaves_what_all_runs_leave(task: Task, run: Path) -> None:
    """Under the same names, with the same fields; pictures of the task's own beside them."""
    files = {path.name for path in run.iterdir() if path.is_file() and not path.name.startswith(".")}
    pictures = files - LEFT
    assert files >= LEFT and all(name.endswith((".png", ".jpg")) for name in pictures)
    assert CURVES in pictures
    log = (run / "train.log").read_text(encoding="utf-8")
    left = re.findall(rf"checkpoints, the best one.* at {run / 'best'}; pictures: (.*)$", log, re.MULTILINE)
    assert [{Path(name).name for name in names.split(", ")} <= pictures for names in left] == [True]
    assert {path.name for path in run.iterdir() if path.is_dir()} >= {"checkpoints", "tensorboard"}
    for folder in (run / "checkpoints").iterdir():
        assert {path.name for path in folder.iterdir()} == {"checkpoint.json", "state.safetensors"}
    for kind, fields in FIRST.items():
        last = list(events(run, kind)[-1])
        assert last[: len(fields)] == fields and (kind == "train" or last[-1] == "seconds")
        assert re.search(rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d {SAID[kind]}", log, re.MULTILINE), log


def test_evaluation_equals_the_figure_of_training(task: Task, run: Path) -> None:
    folder = task.place / "evaluated"
    words = [*task.data(), *task.words("eval"), "--checkpoint", run, "--engine", "paddle", "--output_dir", folder]
    said = done(call(task, "eval", *words))
    figure = task.tiny.figure(said.result)
    written = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert list(written)[:4] == ["weights", "data", "samples", "seconds"] and written[task.tiny.METRIC] == figure
    assert isinstance(written["samples"], int) and written["samples"] > 0
    (told,) = re.findall(rf"^{written['samples']:,} [a-z]+, (\d+\.\d) s$", said.out, re.MULTILINE)
    assert float(told) == pytest.approx(written["seconds"], abs=0.051) and written["seconds"] > 0
    assert f"written to {folder}: result.json" in said.out + said.err
    assert str(checkpoint.find_best(run).relative_to(task.place)) in written["weights"]
    assert figure == pytest.approx(events(run, "eval")[-1][task.tiny.METRIC], rel=1e-6)
    assert figure not in (0.0, 1.0, 100.0), "what any weights would give is no evidence: declare another figure"


@pytest.fixture(scope="module")
def reference(task: Task, run: Path) -> dict[str, np.ndarray]:
    """What the run computes from raw arrays, by Paddle; with fixed statistics, since it is the inference Program."""
    return raw(task, "reference.npz", *task.words("infer"), "--checkpoint", run, "--engine", "paddle")


def test_raw_arrays_through_both_engines(task: Task, run: Path, reference: dict[str, np.ndarray]) -> None:
    words = [*task.words("infer"), "--checkpoint", run]
    assert distance(raw(task, "xla.npz", *words, "--engine", "xla"), reference) < 1e-4


def test_the_exported_model_gives_the_same(task: Task, run: Path, reference: dict[str, np.ndarray]) -> None:
    exported = task.place / "exported"
    done(call(task, "export", *task.words("export"), "--checkpoint", run, "--export_dir", exported))
    assert distance(raw(task, "exported.npz", "--exported_model", exported), reference) < 1e-4


def test_a_run_means_the_same_weights_in_every_script(task: Task, run: Path) -> None:
    """Its best checkpoint, in ./output and where a flag names the folder; another where that is asked for."""
    place = task.place / "which"
    shutil.copytree(run, place / "output", symlinks=True)
    best = checkpoint.find_best(place / "output")
    arrays, meta = checkpoint.load(best)
    meta.step += 1
    newest = checkpoint.save(place / "output", {name: np.zeros_like(array) for name, array in arrays.items()}, meta)
    there = Task(task.folder, task.tiny, place)
    np.savez(place / "in.npz", **task.tiny.feed(np.random.default_rng(0)))
    words = {
        "eval": [*task.data(), *task.words("eval")],
        "infer": [*task.words("infer"), "--feed", "in.npz", "--fetch", "out.npz"],
        "export": [*task.words("export"), "--export_dir", "exported"],
    }
    outputs = []
    # An export takes long, even where it is not tried out.
    for flags, expected, scripts in (
        ([], best, ("eval", "infer", "export")),
        (["--checkpoint", "output"], best, ("eval", "infer")),
        (["--newest", "True"], newest, ("eval", "infer")),
        (["--checkpoint", newest], newest, ("infer",)),
    ):
        lines = {}
        for script in scripts:
            with mock.patch("fluid.export._settings", return_value=Settings(True)):  # it is tried out in other tests
                said = done(call(there, script, *words[script], *flags))
            lines[script] = (said.out + said.err).splitlines()[0]
        assert len(set(lines.values())) == 1, lines
        assert lines["infer"].startswith(f"weights: {expected.relative_to(place)} ("), lines
        with np.load(place / "out.npz") as fetched:
            outputs.append({name: fetched[name] for name in fetched.files})
    assert distance(outputs[0], outputs[1]) == distance(outputs[2], outputs[3]) == 0
    assert any(not np.array_equal(outputs[0][name], outputs[2][name]) for name in outputs[0])


def test_small_weights_are_exported_and_opened(task: Task, run: Path, reference: dict[str, np.ndarray]) -> None:
    """In 8 bits: the file gives what the exported model computes, near to what the run computes."""
    exported = task.place / "exported_small"
    words = [*task.data(), *task.words("export"), *task.words("storage"), "--checkpoint", run, "--storage", "int8"]
    with mock.patch("fluid.export._settings", return_value=Settings(False)):  # it is tried out in other tests
        said = done(call(task, "export", *words, "--export_dir", exported))
    assert " in int8\n" in said.out
    small = exported / "weights.safetensors"
    infer = task.words("infer")
    compact = raw(task, "exported.npz", *infer, "--exported_model", exported)
    assert distance(raw(task, "small.npz", *infer, "--pretrained_model", small), compact) < 1e-4
    whole = dict(reference)
    for name in getattr(task.tiny, "DISCRETE", ()):
        del whole[name], compact[name]
    assert 0 < distance(whole, compact) < 0.2


def test_every_parameter_has_a_gradient(task: Task) -> None:
    without = without_gradient(task.tiny.training, task.tiny.batch(np.random.default_rng(0)))
    assert set(without) == set(task.tiny.NO_GRADIENT)


def test_an_empty_folder_is_one_message(task: Task, run: Path) -> None:
    empty = task.place / "empty"
    empty.mkdir()
    more = {"export": ["--export_dir", task.place / "nothing"]}
    for script in SCRIPTS:
        assert str(empty) in refused(call(task, script, "--checkpoint", empty, *more.get(script, ())))
    if "--data_dir" in task.data():
        for script in ("train", "eval"):
            assert str(empty) in refused(call(task, script, "--data_dir", empty))


NOTHING_BUILT = mock.patch("fluid.program._add_network", side_effect=AssertionError("a Program is built first"))
"""Nobody waits for an error that can be seen at once."""


def test_a_folder_that_cannot_be_written_is_one_message(task: Task, run: Path) -> None:
    file = task.place / "file"
    file.write_text("")
    words = [*task.data(), *task.words("train"), "--output_dir", file / "run"]
    with NOTHING_BUILT:
        assert str(file) in refused(call(task, "train", *words))
    words = [*task.words("export"), "--checkpoint", run, "--export_dir", file / "exported"]
    assert str(file) in refused(call(task, "export", *words))


XLA = ("--engine", "xla", "--device", "cpu")


@pytest.fixture(scope="module")
def built(task: Task) -> Path:
    """A run of three steps on one device by the compiling engine; with flags by which two devices compute the same."""
    return train(task, task.place / "built", *XLA, *task.words("devices"))


WITHOUT_PADDLE = """
import json, runpy, sys
from unittest import mock
sys.modules["paddle"] = None
import fluid.run
import jax
from jax.extend import backend
results = []
fluid.run.script = lambda main, run=fluid.run.script: run(lambda: results.append(main()))
for devices, *words in json.loads(sys.argv[1]):
    if devices != jax.config.jax_num_cpu_devices:
        backend.clear_backends()
        jax.config.update("jax_num_cpu_devices", devices)
    with mock.patch.object(sys, "argv", words):
        runpy.run_path(words[0], run_name="__main__")
print(repr(results))
"""
"""Runs scripts one after the other, in one process since it is the imports that take time, and prints what they return."""


@dataclass
class FromFiles:
    """What scripts have done that were given Programs from files, where Paddle cannot be imported."""

    run: Path
    """Of as many steps as others, stopped and named in between."""
    two: Path
    """A run on two devices."""
    out: str
    """What the scripts printed, and what they returned."""


@pytest.fixture(scope="module")
def from_files(task: Task, built: Path) -> FromFiles:
    """The run of `built` once more, on one device and on two, and what is done with it."""
    programs, unused = task.place / "programs", task.place / "unused"
    done(call(task, "train", *training_words(task, unused, *task.words("devices"), "--capture", programs)))
    assert not unused.exists()
    found, (some, whole) = FromFiles(task.place / "from_files", task.place / "two", ""), task.tiny.STEPS
    evaluation, weights = [*task.data(), *task.words("eval")], ["--newest", True, "--checkpoint", found.run]
    np.savez(task.place / "in.npz", **task.tiny.feed(np.random.default_rng(0)))
    calls: list[tuple[object, ...]] = [
        (1, "train", "--programs", programs, "--max_steps", some, "--output_dir", found.run),
        # The run knows its Programs.
        (1, "train", "--checkpoint", found.run, "--max_steps", whole),
        (1, "eval", *evaluation, *weights, "--programs", programs),
        (1, "infer", *task.words("infer"), *weights, "--feed", "in.npz", "--fetch", "from_files.npz"),
        *((1, "infer", *words, *weights, "--programs", programs) for words in getattr(task.tiny, "WITHOUT_PADDLE", ())),
        (2, "train", "--programs", programs, "--max_steps", whole, "--output_dir", found.two),
    ]
    scripts = [[devices, str(task.folder / f"{name}.py"), *map(str, words)] for devices, name, *words in calls]
    program = [sys.executable, "-c", WITHOUT_PADDLE, json.dumps([[*words, "--device", "cpu"] for words in scripts])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(program, cwd=task.place, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return replace(found, out=ended.stdout)


def test_two_devices_equal_one(task: Task, built: Path, from_files: FromFiles) -> None:
    assert "2 x cpu" in from_files.out
    runs = built, from_files.two
    figures = [events(run, "eval")[-1][task.tiny.METRIC] for run in runs]
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)
    losses = [[row["loss"] for row in events(run, "train")] for run in runs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    floats = [{name: a for name, a in state(run).items() if a.dtype.kind == "f"} for run in runs]
    assert distance(*floats) < 1e-4


# Runs remember.


def test_going_back_sets_newer_checkpoints_aside(task: Task, run: Path) -> None:
    some, whole = task.tiny.STEPS
    back = copy_of(task, run, "back")
    assert steps_of(back) == [some, whole]
    done(call(task, "train", "--checkpoint", back / "checkpoints" / f"step_{some:08d}"))
    (aside,) = (back / "set_aside").iterdir()
    assert steps_of(aside) == [whole] and steps_of(back) == [some, whole]
    assert same_bits(state(back), state(run)) and same_bits(state(aside), state(run))
    assert {event["step"] for kind in ("train", "eval") for event in events(aside, kind)} == {whole}
    for kind in ("train", "eval"):
        assert [event["step"] for event in events(back, kind)] == [event["step"] for event in events(run, kind)]
    assert checkpoint.find_best(back).parent.parent == back and checkpoint.find_best(aside).parent.parent == aside


def test_other_runs_are_left_alone(task: Task, run: Path) -> None:
    other = copy_of(task, run, "other")
    with NOTHING_BUILT:
        line = refused(call(task, "train", "--checkpoint", run, "--output_dir", other))
    assert "holds another run" in line and steps_of(other) == steps_of(run)


def test_a_benchmark_claims_no_folder(task: Task) -> None:
    output, measured = task.place / "benchmark", getattr(task.tiny, "BENCHMARK", "fluid.trainer.benchmark")
    with mock.patch(measured, lambda *arguments: {"real": 3.0}):
        said = done(call(task, "train", *training_words(task, output, "--engine", "paddle", "--benchmark", True)))
    assert "real 3" in said.out and not output.exists()


def make_other(folder: Path, pattern: str) -> None:
    """Change the order of a list, or the names of pictures."""
    found = sorted(folder.glob(pattern))
    assert found
    for path in found:
        if path.suffix in (".jpg", ".png"):
            path.rename(path.with_name(f"other_{path.name}"))
        else:
            swap_lines(path)


def test_a_run_goes_on_with_its_network_and_data(task: Task, run: Path) -> None:
    """Wherever the data are by now."""
    again = ("train", "--checkpoint", run)
    line = refused(call(task, *again, *task.tiny.OTHER_NETWORK))
    flags = [str(word) for word in task.tiny.OTHER_NETWORK if str(word).startswith("--")]
    assert "a run of another network" in line and [flag for flag in flags if f"{flag} is " not in line] == []
    assert (task.tiny.OTHER_DATA is None) == (not task.data())
    if task.tiny.OTHER_DATA is not None:
        moved = task.place / "moved"
        shutil.copytree(task.data()[1], moved)
        assert "nothing left to do" in done(call(task, *again, "--data_dir", moved)).out
        make_other(moved, task.tiny.OTHER_DATA)
        line = refused(call(task, *again, "--data_dir", moved))
        assert f"the data of {checkpoint.find_newest(run)} were others" in line


def test_what_is_not_finite_is_never_saved(task: Task, run: Path) -> None:
    """Whichever of the numbers that training writes it is; copies of them are overwritten, whatever they hold."""
    arrays, meta = checkpoint.load(run / "checkpoints" / f"step_{task.tiny.STEPS[0]:08d}")
    broken = task.place / "broken"
    names = [name for name, array in arrays.items() if array.dtype == np.float32 and array.size > 1]
    beside = tuple(getattr(task.tiny, kind, "-") for kind in ("BESIDE", "COPIED"))
    name = random.choice([name for name in names if not name.startswith(beside)])
    arrays[name].flat[0] = np.nan
    checkpoint.save(broken, arrays, meta)
    line = refused(call(task, "train", "--checkpoint", broken))
    assert "not a finite number" in line and "The last good checkpoint is" in line, (name, line)
    assert steps_of(broken) == [meta.step]


def signal_here(keeper: Keeper) -> None:
    """Ask this process to stop, and wait until the run knows."""
    os.kill(os.getpid(), signal.SIGTERM)
    while not keeper.stop:
        time.sleep(0.01)


@contextlib.contextmanager
def signalled_after(step: int) -> Iterator[None]:
    """A signal comes while the update `step` is under way."""
    advance = Keeper._advance

    def advance_and_signal(keeper: Keeper, trainee: Trainee) -> None:
        advance(keeper, trainee)
        if trainee.step >= step:
            signal_here(keeper)

    with mock.patch.object(Keeper, "_advance", advance_and_signal):
        yield


@contextlib.contextmanager
def evaluation_interrupted(signalled: bool) -> Iterator[None]:
    """A signal comes with the first batch of an evaluation, or Ctrl-C has come twice before it."""
    measure = Keeper._measure

    def interrupted(keeper: Keeper, item: Evaluation) -> dict[str, float]:
        if not signalled:
            raise KeyboardInterrupt
        signal_here(keeper)
        return measure(keeper, item)

    with mock.patch.object(Keeper, "_measure", interrupted):
        yield


@dataclass
class Interrupted:
    """A run that was stopped wherever a run can be, and what was seen each time."""

    folder: Path
    said: list[Said]
    steps: list[list[int]]
    """Of its checkpoints."""
    due: list[list[str]]
    """What its newest checkpoint owes."""
    evaluations: list[int]
    """How many it has had."""
    touched: bool
    """Whether another run, in ./output all the while, was changed."""


@pytest.fixture(scope="module")
def interrupted(task: Task, run: Path) -> Interrupted:
    """The run that the tests share once more: stopped by a signal while it trains towards a later step than it gets to,
    named and told how far, stopped by a signal and then killed in the evaluation, and named twice more.
    """
    (some, whole), folder, output = task.tiny.STEPS, task.place / "interrupted", task.place / "output"
    shutil.copytree(run, output, symlinks=True)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    found = Interrupted(folder, [], [], [], [], False)
    first = training_words(task, folder, "--engine", "paddle", "--max_steps", whole + some)
    for interruption, words in (
        (signalled_after(some), first),
        (evaluation_interrupted(signalled=True), ["--checkpoint", folder, "--max_steps", whole]),
        (evaluation_interrupted(signalled=False), ["--checkpoint", folder]),
        (contextlib.nullcontext(), ["--checkpoint", folder]),
        (contextlib.nullcontext(), ["--checkpoint", folder]),
    ):
        with interruption:
            found.said.append(call(task, "train", *words))
        found.steps.append(steps_of(folder))
        found.due.append(checkpoint.load(folder)[1].due)
        found.evaluations.append(len(events(folder, "eval")))
    found.touched = {path: path.stat().st_mtime_ns for path in output.rglob("*")} != before
    shutil.rmtree(output)
    return found


def test_stop_and_resume_to_the_bit(task: Task, run: Path, interrupted: Interrupted) -> None:
    """A signal ends the run after the step under way."""
    (some, whole), stopped = task.tiny.STEPS, interrupted.said[0]
    assert stopped.code == 143 and f"stopped by a signal after step {some}; " in stopped.out, stopped
    assert interrupted.steps[:2] == [[some], [some, whole]]
    assert same_bits(state(interrupted.folder), state(run))


def test_a_run_that_is_named_goes_on_in_its_folder_with_its_flags(task: Task, interrupted: Interrupted) -> None:
    """Nothing but --checkpoint and how far; another run in ./output is not touched."""
    (some, whole), said = task.tiny.STEPS, interrupted.said[1].out
    assert "(that of the run)" in said and f"--max_steps is {whole} from here on, not {whole + some}" in said
    change = {"flag": "max_steps", "before": whole + some, "after": whole, "step": some}
    assert change in checkpoint.load(interrupted.folder)[1].changes and not interrupted.touched
    again = done(interrupted.said[4]).out
    assert "nothing left to do" in again and "evaluation" not in again


def test_a_run_that_ends_in_an_evaluation_goes_on_with_it(task: Task, run: Path, interrupted: Interrupted) -> None:
    """Stopped by a signal between two batches, then killed; the checkpoint is there already."""
    assert [said.code for said in interrupted.said[1:3]] == [143, 130]
    assert interrupted.due[1:4] == [["eval"], ["eval"], []]
    said = done(interrupted.said[3])
    assert [line for line in said.out.splitlines() if line[:1] in set("┏┡│└") and len(line) > 80] == []
    assert interrupted.evaluations == [0, 0, 0, 1, 1]
    assert events(interrupted.folder, "eval")[-1]["step"] == task.tiny.STEPS[1]
    assert checkpoint.load(interrupted.folder)[1].metrics == checkpoint.load(run)[1].metrics


def test_a_gpu_can_trace_the_training_program(task: Task, from_files: FromFiles) -> None:
    """With what is chosen there, the engine's own kernels among it."""
    (file,) = (task.place / "programs").glob("**/train.json")
    program = graph.load_graph(file)
    engine = create_xla("cpu", "bf16")
    engine.tuning = for_platform("gpu")
    sizes = {
        name: [2 if axis == item.batch else 32 if n is None else n for axis, n in enumerate(item.shape)]
        for name, item in program.inputs.items()
    }
    feed = {name: np.zeros(size, program.inputs[name].dtype) for name, size in sizes.items()}
    assert "return" in engine.lowered_text(program, feed)


def test_programs_from_files_need_no_paddle(task: Task, run: Path, built: Path, from_files: FromFiles) -> None:
    """Training, going on, evaluation and inference are what they are with Paddle, to the bit."""
    weights = ["--newest", True, "--checkpoint", built, *XLA]
    expected = done(call(task, "eval", *task.data(), *task.words("eval"), *weights)).result
    outputs = raw(task, "built.npz", *task.words("infer"), *weights)
    assert same_bits(state(from_files.run), state(built))
    for kind in ("train", "eval"):
        # Records have the same order on both engines.
        assert list(events(from_files.run, kind)[-1]) == list(events(run, kind)[-1])
    assert repr(expected) in from_files.out.splitlines()[-1]
    with np.load(task.place / "from_files.npz") as arrays:
        assert same_bits(dict(arrays), outputs)
