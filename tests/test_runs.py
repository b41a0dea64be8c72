"""Runs remember, and nothing is lost: what every task passes beside tests/test_tasks.py.

In order not to train for each of them, the tests share runs, and what ends a process is let pass.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import fluid.reading
from fluid import checkpoint, signals
from fluid.commands import average
from fluid.formats.legacy import is_optimizer_state
from fluid.keeper import Keeper, Trainee
from fluid.run import events
from fluid.tests.tasks import (
    Task,
    call,
    copy_of,
    done,
    has_environment,
    refused,
    same_bits,
    state,
    steps_of,
    training_words,
)

import numpy as np
import pytest

NEVER = 10**6


Change = Callable[[Any, str], Any]
"""From what came from outside, and where from, to what comes instead."""


@contextlib.contextmanager
def from_outside(task: Task, change: Change) -> Iterator[None]:
    """Change what comes after the first part of the run: samples of batches, or the answers of an environment."""
    some = task.tiny.STEPS[0]
    if hasattr(task.tiny, "OUTSIDE"):
        place, name = task.tiny.OUTSIDE
        receive, calls = getattr(place, name), iter(range(NEVER))

        def received(environment: Any) -> Any:
            answer = receive(environment)
            return change(answer, environment.description) if next(calls) >= some else answer

        with mock.patch.object(place, name, received):
            yield
        return
    read = fluid.reading.Reader.read

    def read_batch(reader: Any, job: Any, *more: Any, **named: Any) -> Any:
        if not job.replace or job.index < some:
            return read(reader, job, *more, **named)
        method = "load_all" if hasattr(reader.source, "load_all") else "load"
        load = getattr(type(reader.source), method)

        def changed(source: Any, which: Any, *more: Any) -> Any:
            return change(load(source, which, *more), reader.where(int(np.ravel(which)[0])))

        with mock.patch.object(type(reader.source), method, changed):
            return read(reader, job, *more, **named)

    with mock.patch.object(fluid.reading.Reader, "read", read_batch):
        yield


def fail(_: Any, where: str) -> Any:
    """What code of other people does."""
    raise ZeroDivisionError("no such thing")


def ended_process() -> int:
    """The number of a process that is no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def modes(run: Path) -> set[int]:
    """What everybody but the owner may do with the files and folders of a run."""
    return {path.stat().st_mode & 0o077 for path in [run, *run.rglob("*")] if not path.is_symlink()}


def test_an_exception_of_other_code_costs_no_step(task: Task, run: Path) -> None:
    """It leaves a checkpoint under any umask; the run goes on from it, to the same bits if it was a reader that failed.

    What a process that was killed has left is found again or cleared.
    """
    output, some = task.place / "failed", task.tiny.STEPS[0]
    before = os.umask(0o027)
    try:
        with from_outside(task, fail):
            said = call(task, "train", *training_words(task, output, "--engine", "paddle", "--save_every", NEVER))
    finally:
        os.umask(before)
    line = refused(said)
    assert "ZeroDivisionError: no such thing" in line and "The traceback is in" in line
    assert has_environment(task) or "; while reading " in line
    assert f"stopped by an error after step {some}; continue with --checkpoint {output}" in said.out
    assert "Traceback" in (output / "train.log").read_text() and steps_of(output) == [some]
    assert modes(output) == {0o040, 0o050}, "the umask says what others may do"
    dead = ended_process()
    (output / "checkpoints" / f".partial-{dead}").mkdir()
    (output / "checkpoints" / f"step_{some:08d}").rename(output / "checkpoints" / f".replaced-{dead}")
    done(call(task, "train", "--checkpoint", output))
    assert has_environment(task) or same_bits(state(output), state(run))
    assert steps_of(output)[-1] == task.tiny.STEPS[1] and not list((output / "checkpoints").glob(".*"))


def test_a_number_that_came_in_broken_is_blamed_on_its_sample(task: Task) -> None:
    """Where samples are made of floating point numbers."""
    places: list[str] = []

    def break_first(answer: Any, where: str) -> Any:
        places.append(where)
        if has_environment(task):
            return answer._replace(reward=np.full_like(answer.reward, np.nan))
        arrays = {name: np.array(array) for name, array in answer.items()}
        next(array for array in arrays.values() if array.dtype.kind == "f").flat[0] = np.nan
        return arrays

    if not has_environment(task) and all(
        array.dtype.kind != "f" for array in task.tiny.batch(np.random.default_rng(0)).values()
    ):
        return
    output = task.place / "broken_input"
    with from_outside(task, break_first):
        line = refused(call(task, "train", *training_words(task, output, "--engine", "paddle")))
    assert "NaN or infinity came " in line and places[0] in line, (line, places[0])
    assert "The last good checkpoint is" in line and steps_of(output) == [task.tiny.STEPS[0]]


def test_other_batches_and_another_rate_are_said_and_recorded(task: Task, run: Path) -> None:
    """Where the division into batches has changed, the run goes on with the next epoch."""
    (some, whole), words = task.tiny.STEPS, task.words("train")
    before = int(words[words.index("--batch_size") + 1])
    other = copy_of(task, run, "other_batches")
    older = other / "checkpoints" / f"step_{some:08d}"
    again = ["--checkpoint", older, "--batch_size", before // 2, "--lr", 1e-5]
    measured = mock.Mock(return_value=checkpoint.load(run)[1].metrics)  # A game may last long.
    # Training needs no main thread.
    with ThreadPoolExecutor(1) as beside, mock.patch.object(Keeper, "_measure", measured):
        said = done(beside.submit(call, task, "train", *again).result()).out
    assert f"--batch_size is {before // 2} from here on, not {before}" in said and "--lr is 1e-05 from here on" in said
    meta = checkpoint.load(other)[1]
    assert meta.step == whole and {change["flag"]: change["step"] for change in meta.changes} == {
        "batch_size": some,
        "lr": some,
    }
    assert [event["step"] for event in events(other, "changes")] == [some]
    if not has_environment(task):
        assert f"batches are now 1 x {before // 2}, " in said and "the run goes on at the start of epoch 1\n" in said
        assert meta.position["epoch"] == 1 and meta.position["step"] == some
        assert "the learning rate of the next update is " in said and "; by the flags before it would be " in said


def test_the_first_signal_waits_for_what_can_be_saved_and_the_second_for_nothing(task: Task) -> None:
    """Before the first step there is nothing to save; and under nohup a closed terminal means nothing."""
    output, ended = task.place / "signalled", []
    advance = Keeper._advance
    signals_of = iter(
        [
            (signal.SIGHUP, signal.SIGTERM),  # ignored, then at once
            (signal.SIGUSR1, signal.SIGINT),  # after the step, then at once
        ]
    )

    def wait_for(count: int, keeper: Keeper) -> None:
        while len(ended) < count or not keeper.stop:
            time.sleep(0.005)

    def signalled(keeper: Keeper, trainee: Trainee) -> None:
        if (first := next(signals_of, None)) is None:
            pytest.fail("the signal did not end the run")
        for number in first:
            os.kill(os.getpid(), number)
            while not keeper.stop and number != signal.SIGHUP:
                time.sleep(0.005)
        while not ended or ended[-1][0] != first[-1]:
            time.sleep(0.005)
        if not keeper.stop.may_wait:
            keeper.stop.signal_number = None
        advance(keeper, trainee)

    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with (
            mock.patch.object(Keeper, "_advance", signalled),
            mock.patch.object(signals, "_exit_at_once", lambda number, message: ended.append((number, message))),
        ):
            said = call(task, "train", *training_words(task, output, "--engine", "paddle"))
    finally:
        signal.signal(signal.SIGHUP, ignored)
    assert ended == [(signal.SIGTERM, "\nstopped: there is nothing to save\n"), (signal.SIGINT, "")]
    assert said.code == 128 + signal.SIGINT and len(steps_of(output)) == 1, said


def test_other_classes_are_refused_whatever_is_asked_for(task: Task, run: Path) -> None:
    """Renamed or in another order; where a task has any that come with the data."""
    if not hasattr(task.tiny, "other_classes"):
        return
    folder = task.place / "renamed"
    shutil.copytree(task.data()[1], folder)
    task.tiny.other_classes(folder)
    line = refused(call(task, "train", "--checkpoint", run, "--data_dir", folder, "--other_data", True))
    assert "classes" in line, line


def test_a_run_starts_from_the_best_weights_of_another(task: Task, run: Path) -> None:
    """Where --pretrained_model names one: all of its parameters and statistics, and a fresh optimizer."""
    if "--pretrained_model" not in done(call(task, "train", "--help")).out:
        return
    begun: list[dict[str, np.ndarray]] = []

    def stop(keeper: Keeper, trainee: Trainee) -> None:
        begun.append(trainee.save(keeper.meta))
        raise KeyboardInterrupt

    with mock.patch.object(Keeper, "_advance", stop):
        words = training_words(task, task.place / "begun", "--engine", "paddle", "--pretrained_model", run)
        said = call(task, "train", *words)
    assert said.code == 130 and f"weights of {run}:" in said.out, said
    best = checkpoint.load(checkpoint.find_best(run))[0]
    weights = [name for name in best if not is_optimizer_state(name, best) and name in begun[0]]
    others = tuple(getattr(task.tiny, kind, "-") for kind in ("BESIDE", "COPIED"))
    weights = [name for name in weights if not name.startswith(others)]
    moments = [name for name in begun[0] if is_optimizer_state(name, begun[0])]
    assert [name for name in weights if begun[0][name].tobytes() != best[name].tobytes()] == []
    assert len(weights) > 2 and any(not np.array_equal(begun[0][name], best[name]) for name in moments)


def test_weights_to_start_from_are_none_to_go_on_with(task: Task, run: Path) -> None:
    if "--pretrained_model" in done(call(task, "train", "--help")).out:
        line = refused(call(task, "train", "--checkpoint", run, "--pretrained_model", run))
        assert "--pretrained_model says how a run begins" in line


def test_averaged_weights_are_measured_and_used(task: Task, run: Path) -> None:
    """Moving averages of a run, and the mean of its checkpoints, in the tasks that train by an optimizer's flags on data."""
    if "OptimizerFlags" not in (task.folder / "train.py").read_text(encoding="utf-8"):
        return
    output, words = task.place / "averages", [*task.data(), *task.words("eval"), "--engine", "paddle"]
    averaging = ("--engine", "paddle", "--use_ema", True, "--ema_decay", 0.5)
    done(call(task, "train", *training_words(task, output, *averaging)))
    plain, averaged = state(run), state(output)
    assert same_bits({name: averaged[name] for name in plain}, plain), "averages disturb the training"
    figure = task.tiny.figure(done(call(task, "eval", *words, "--checkpoint", output)).result)
    assert figure == pytest.approx(events(output, "eval")[-1][task.tiny.METRIC], rel=1e-6)
    mean = task.place / "mean"
    average.main([str(run), "--last", "2", "--output_dir", str(mean)])
    said = done(call(task, "eval", *words, "--checkpoint", mean))
    assert f"weights: {mean.name}/" in said.out + said.err and np.isfinite(task.tiny.figure(said.result))
