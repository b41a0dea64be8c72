"""What a run keeps and remembers: folders, evaluations that were cut off, signals, limits, the time of each thing it does."""

import errno
import io
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from fluid import checkpoint, signals, trainer
from fluid import run as runs
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.data import Batch
from fluid.errors import DataError, RecordsError, UserError
from fluid.interface import Interface, Output
from fluid.keeper import Clock, Evaluation
from fluid.run import Run, events
from fluid.scalars import Scalars
from fluid.tests import toy
from fluid.tests.counting import PROGRAM, Counting, count_to, steps_of
from fluid.tests.test_trainer import TOY, assert_same_bits, final_state
from fluid.tests.toy import ToyFlags
from fluid.trainer import Window

import numpy as np
import pytest
from rich.console import Console
from tensorboardX.proto.event_pb2 import Event, SessionLog

# What is measured, and when.


def test_outputs_that_are_not_scalars_are_never_fetched(tmp_path):
    engine = Counting()
    count_to(tmp_path, 3, engine=engine)
    assert engine.fetched == ["loss", "finite"]


def test_a_mean_counts_each_by_its_weight():
    program = Interface(name="w", outputs=dict.fromkeys(["loss", "loss_weight", "rate"], Output(None, scalar=True)))
    window = Window(program, Counting())
    window.add(1, {"loss": np.float32(2), "loss_weight": np.float32(1), "rate": np.float32(1)})
    window.add(2, {"loss": np.float32([5, 0]), "loss_weight": np.float32([3, 0]), "rate": np.float32([2, 3])})
    assert window.take_means() == {"loss": pytest.approx(17 / 4), "rate": pytest.approx(2)}
    assert window.take_means() == {}


def test_several_evaluations_have_their_own_intervals_and_one_decides(tmp_path):
    values = {"loss": itertools.count(9, -1), "score": iter([0.5, 0.9, 0.7, 0.8])}
    made = []

    def measure(name):
        made.append(name)
        return {"loss": 0.0, name: float(next(values[name]))}

    evaluations = [
        Evaluation("quick", lambda: measure("loss"), every=2),
        Evaluation("eval", lambda: measure("score"), every=3, decides="score", higher_is_better=True),
    ]
    outcome = count_to(tmp_path, 10, evaluations=evaluations)
    assert [event["step"] for event in events(tmp_path, "quick")] == [2, 4, 6, 8, 10]
    assert [event["step"] for event in events(tmp_path, "eval")] == [3, 6, 9, 10]
    assert (outcome.best, outcome.best_step) == (0.9, 6)
    assert outcome.metrics == {"loss": 0.0, "score": 0.8, "quick/loss": 5.0}
    assert checkpoint.load(tmp_path / "best")[1].step == 6
    assert checkpoint.find_best(tmp_path).name == "step_00000006"


def test_a_target_ends_the_run(tmp_path):
    evaluation = Evaluation("eval", lambda: {"loss": 0.1}, every=3, decides="loss", target=0.2)
    assert count_to(tmp_path, 10, evaluations=[evaluation]).step == 3


def test_an_evaluation_of_nan_is_never_the_best(tmp_path):
    values = iter([np.nan, 2.0, np.nan, 1.0])
    evaluation = Evaluation("eval", lambda: {"loss": float(next(values))}, every=1, decides="loss")
    outcome = count_to(tmp_path, 4, evaluations=[evaluation])
    assert (outcome.best, outcome.best_step) == (1.0, 4)


def test_of_equally_good_ones_the_newest_is_the_best_and_none_is_an_improvement(tmp_path):
    values = iter([0.0, 0.5, 0.5, 0.5, 1.0])
    evaluation = Evaluation("eval", lambda: {"exact": next(values)}, every=1, decides="exact", higher_is_better=True)
    outcome = count_to(tmp_path, 5, evaluations=[evaluation], early_stop=2)
    assert (outcome.best, outcome.best_step, outcome.step) == (0.5, 4, 4)
    assert checkpoint.find_best(tmp_path).name == "step_00000004"


def test_rates_are_those_of_training_alone(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Counting):
        def run(self, *arguments, **more):
            now[0] += 1.0 if self.count else 31.0
            self.compile_seconds = 30.0
            return super().run(*arguments, **more)

    def evaluate():
        now[0] += 100.0
        return {"loss": 1.0}

    save = checkpoint.save

    def slow_save(*arguments, **more):
        now[0] += 10.0
        return save(*arguments, **more)

    monkeypatch.setattr(checkpoint, "save", slow_save)
    evaluation = Evaluation("eval", evaluate, decides="loss")
    outcome = count_to(tmp_path, 8, engine=Slow(), evaluations=[evaluation], log_every=3)
    assert outcome.parts == {"training": 8.0, "evaluation": 200.0, "saving": 20.0, "compiling": 30.0}
    assert outcome.samples_per_second == 2.0
    assert [event["samples_per_second"] for event in events(tmp_path, "train")] == pytest.approx([2.0] * 3)


def test_samples_since_the_last_log_line_count_when_a_run_stops_early(tmp_path):
    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, every=3, decides="loss")
    outcome = count_to(tmp_path, 100, evaluations=[evaluation], early_stop=1, log_every=1000)
    assert outcome.step == 6
    assert outcome.samples_per_second * outcome.parts["training"] == pytest.approx(12)


def test_compiling_in_an_evaluation_is_counted_once(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    engine = Counting()
    clock = Clock(engine)
    with clock.beside("evaluation"):
        now[0], engine.compile_seconds = 5.0, 2.0
    now[0] = 6.0
    assert clock.parts == {"training": 1.0, "evaluation": 3.0, "saving": 0.0, "compiling": 2.0}


def test_the_xla_engine_counts_what_it_compiles(tmp_path):
    parts = {}
    for engine in ("paddle", "xla"):
        flags = ToyFlags(output_dir=tmp_path / engine, engine=engine, device="cpu", max_steps=3, eval_every=100)
        parts[engine] = toy.main(flags).parts
    assert parts["paddle"]["compiling"] == 0.0
    assert parts["xla"]["compiling"] > parts["xla"]["training"] > 0.0


# Ends.


def test_an_input_that_ends_ends_the_run_with_a_checkpoint(tmp_path, capsys):
    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, decides="loss")
    outcome = count_to(tmp_path, 10, length=6, evaluations=[evaluation])
    assert outcome.step == 6 and "the input has ended after step 6 of 10" in capsys.readouterr().out
    assert [event["step"] for event in events(tmp_path, "eval")] == [4, 6]
    assert checkpoint.load(tmp_path)[1].step == 6


def test_an_input_that_ends_within_accumulated_batches_leaves_no_half_of_them(tmp_path):
    flags = {"seed": 5, "accumulate": 3, "total_steps": 9, "eval_every": 100}
    toy.main(ToyFlags(output_dir=tmp_path / "short", epochs=1, **flags))
    state, meta = checkpoint.load(tmp_path / "short")
    assert meta.step == 2
    sums = [name for name in state if name.endswith("_gradient_sum")]
    assert sums and not any(state[name].any() for name in sums)


def test_a_time_limit_ends_the_run_with_an_evaluation(tmp_path, monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Counting):
        def run(self, *arguments, **more):
            now[0] += 25.0
            return super().run(*arguments, **more)

    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, decides="loss")
    outcome = count_to(tmp_path, 100, engine=Slow(), evaluations=[evaluation], max_minutes=1.0)
    assert outcome.step == 3 and "stopped after 1 minutes" in capsys.readouterr().out
    assert [event["step"] for event in events(tmp_path, "eval")] == [3]


def test_a_run_with_nothing_left_to_do_says_so(tmp_path, capsys):
    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, decides="loss")
    assert not count_to(tmp_path, 4, evaluations=[evaluation]).nothing_left
    before = capsys.readouterr().out
    outcome = count_to(tmp_path, 4, evaluations=[evaluation], checkpoint=tmp_path)
    assert outcome.nothing_left and outcome.step == 4
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("continuing after step 4") and len(said) == 2
    assert said[1] == "nothing left to do: all 4 steps are done; --max_steps and --num_epochs extend a run"
    assert "evaluation after step 4" in before


def test_a_run_that_stopped_early_stays_stopped(tmp_path):
    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, every=1, decides="loss")
    flags = {"evaluations": [evaluation], "early_stop": 2}
    assert count_to(tmp_path, 9, **flags).step == 3
    assert count_to(tmp_path, 9, checkpoint=tmp_path, **flags).nothing_left
    assert count_to(tmp_path, 9, checkpoint=tmp_path, **{**flags, "early_stop": 4}).step == 5


def test_an_exception_of_the_reader_leaves_a_checkpoint_and_one_message(tmp_path):
    with pytest.raises(
        UserError, match=r"ZeroDivisionError: no such point; while reading points.txt:12\. The traceback"
    ):
        toy.main(ToyFlags(output_dir=tmp_path, poison="reader", seed=1, eval_every=100))
    state, meta = checkpoint.load(tmp_path)
    assert meta.step > 0 and "ZeroDivisionError" in (tmp_path / "train.log").read_text()
    toy.main(ToyFlags(output_dir=tmp_path, checkpoint=tmp_path, seed=1, eval_every=100, poison="none"))
    toy.main(ToyFlags(output_dir=tmp_path / "straight", seed=1, eval_every=100))
    assert_same_bits(final_state(tmp_path), final_state(tmp_path / "straight"))


# Evaluations that were cut off.


def evaluate_once_failing(error: BaseException):
    """An evaluation that fails the first time."""
    errors = iter([error])

    def evaluate():
        for failure in errors:
            raise failure
        return {"loss": 1.0}

    return Evaluation("eval", evaluate, decides="loss")


def test_an_error_in_batches_that_nobody_asked_for_is_told(tmp_path, capsys):
    asked = threading.Event()

    @contextmanager
    def open_batches(start):
        def batches():
            yield from (Batch({"x": np.ones((2, 3), np.float32)}, 2, 0, index) for index in range(3))
            asked.set()
            raise DataError("list.txt:4: no such file")

        yield batches()

    class Slow(Counting):
        def run(self, program, feed, step=0, fetch=None):
            assert step < 1 or asked.wait(30)
            return super().run(program, feed, step, fetch)

    engine = Slow()
    engine.load({"count": np.array(0)})
    with Run(tmp_path, TrainFlags(), task="count") as run:
        trainer.train(
            run,
            engine,
            PROGRAM,
            open_batches,
            flags=TrainFlags(),
            steps_per_epoch=4,
            total_steps=3,
            meta=Meta("count", 0),
        )
    said = "note: the batches after the last step cannot be read: DataError: list.txt:4: no such file"
    assert capsys.readouterr().out.splitlines()[-1] == said


def test_a_run_that_dies_in_an_evaluation_goes_on_with_it(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        count_to(tmp_path, 8, evaluations=[evaluate_once_failing(KeyboardInterrupt())])
    assert checkpoint.load(tmp_path)[1].due == ["eval"] and not events(tmp_path, "eval")
    before = (checkpoint.find_newest(tmp_path) / checkpoint.STATE_FILE).stat().st_mtime_ns
    engine = Counting()
    evaluation = Evaluation("eval", lambda: {"loss": float(engine.count)}, decides="loss")
    count_to(tmp_path, 8, engine=engine, evaluations=[evaluation], checkpoint=tmp_path)
    assert [(event["step"], event["loss"]) for event in events(tmp_path, "eval")] == [(4, 4.0), (8, 8.0)]
    first = tmp_path / "checkpoints" / "step_00000004"
    assert (first / checkpoint.STATE_FILE).stat().st_mtime_ns == before
    assert checkpoint.load(first)[1].due == [] and checkpoint.find_best(tmp_path) == first


def test_it_goes_on_with_it_in_another_folder_too(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        count_to(tmp_path / "one", 8, evaluations=[evaluate_once_failing(KeyboardInterrupt())])
    losses = iter([1.0, 2.0])
    evaluation = Evaluation("eval", lambda: {"loss": next(losses)}, decides="loss")
    count_to(tmp_path / "two", 8, evaluations=[evaluation], checkpoint=tmp_path / "one")
    assert checkpoint.load(tmp_path / "one")[1].due == ["eval"]
    assert steps_of(tmp_path / "two") == [4, 8] and checkpoint.find_best(tmp_path / "two").name == "step_00000004"


def test_the_last_evaluation_is_made_up_for(tmp_path):
    with pytest.raises(DataError, match="val/a.jpg"):
        count_to(tmp_path, 4, evaluations=[evaluate_once_failing(DataError("val/a.jpg: no image"))])
    evaluation = Evaluation("eval", lambda: {"loss": 1.0}, decides="loss")
    outcome = count_to(tmp_path, 4, evaluations=[evaluation], checkpoint=tmp_path)
    assert not outcome.nothing_left and outcome.metrics == {"loss": 1.0}


# Kills, and starts at the same time.

GOING_ON = """
import sys
from pathlib import Path
from fluid import checkpoint
from fluid.run import script
from fluid.tests.counting import count_to

output = Path(sys.argv[1])
going_on = output if checkpoint.is_checkpoint(output) else None
script(lambda: count_to(output, int(sys.argv[2]), length=10**9, log_every=1, save_every=1, checkpoint=going_on))
"""


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.full)])
def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path, kills):
    output, rng, reached = tmp_path / "run", random.Random(0), 0
    for _ in range(kills):
        with subprocess.Popen([sys.executable, "-c", GOING_ON, output, str(10**9)], stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        if checkpoint.is_checkpoint(output):
            state, meta = checkpoint.load(output)
            assert state["count"] == meta.step >= reached
            reached = meta.step
    done = subprocess.run([sys.executable, "-c", GOING_ON, output, str(reached + 2)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [event["step"] for event in events(output, "train")] == list(range(1, reached + 3))
    assert not list((output / "checkpoints").glob(".*"))
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


STARTS = """
import multiprocessing, sys, time
from pathlib import Path
from fluid import run
from fluid.config import TrainFlags
from fluid.errors import UserError

run.environment = dict

def start(folder, begin, said, both_know):
    time.sleep(max(begin - time.time(), 0))
    try:
        with run.Run(folder, TrainFlags(), task="count"):
            said.put("trains")
            both_know.wait(60)
    except UserError as error:
        said.put(str(error).partition(" in ")[0])
        both_know.wait(60)

context = multiprocessing.get_context("fork")
for number in range(int(sys.argv[2])):
    folder, said, both_know = Path(sys.argv[1], str(number)), context.Queue(), context.Barrier(2)
    if number % 2:
        (folder / "checkpoints").mkdir(parents=True)
    both = [context.Process(target=start, args=(folder, time.time() + 0.05, said, both_know)) for _ in range(2)]
    for process in both:
        process.start()
    print("outcome:", sorted(said.get(timeout=60) for _ in both))
    for process in both:
        process.join()
"""


@pytest.mark.parametrize("starts", [3, pytest.param(120, marks=pytest.mark.full)])
def test_of_two_starts_at_once_one_is_refused(tmp_path, starts):
    done = subprocess.run([sys.executable, "-c", STARTS, tmp_path, str(starts)], capture_output=True, text=True)
    outcomes = [line for line in done.stdout.splitlines() if line.startswith("outcome:")]
    assert outcomes == ["outcome: ['another process is training', 'trains']"] * starts, done.stderr


def test_a_folder_may_be_renamed_aside_before_it_is_locked(tmp_path, monkeypatch):
    def renamed_first(*arguments, **options):
        if not (tmp_path / "aside").exists():
            (tmp_path / "run").rename(tmp_path / "aside")
        return open(*arguments, **options)

    monkeypatch.setattr(runs, "open", renamed_first, raising=False)
    with Run(tmp_path / "run", TrainFlags(), task="count"):
        assert (tmp_path / "run" / "config.json").is_file() and not list((tmp_path / "aside").iterdir())


# Folders.


def test_an_earlier_run_is_renamed_aside(tmp_path):
    count_to(tmp_path / "run", 1)
    count_to(tmp_path / "run", 2)
    assert checkpoint.load(tmp_path / "run")[1].step == 2
    assert checkpoint.load(tmp_path / "run.1")[1].step == 1


def test_two_processes_do_not_share_a_folder(tmp_path):
    with (
        Run(tmp_path / "run", TrainFlags(), task="count"),
        pytest.raises(UserError, match="another process is training"),
    ):
        Run(tmp_path / "run", TrainFlags(), task="count")


def test_an_output_folder_that_cannot_be_made_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written.*--output_dir"):
        Run(tmp_path / "file" / "run", TrainFlags(), task="count")


def test_going_back_sets_newer_checkpoints_and_events_aside(tmp_path, capsys):
    losses = {4: 2.0, 6: 3.0, 8: 1.0}
    engine = Counting()
    evaluation = Evaluation("eval", lambda: {"loss": losses.get(engine.count, 9.0)}, every=2, decides="loss")
    count_to(tmp_path, 8, engine=engine, evaluations=[evaluation], log_every=1, keep_checkpoints=9)
    assert checkpoint.find_best(tmp_path).name == "step_00000008"
    older = tmp_path / "checkpoints" / "step_00000006"
    flags = {"checkpoint": older, "save_every": 1, "log_every": 1, "keep_checkpoints": 1}
    count_to(tmp_path, 7, engine=engine, evaluations=[evaluation], **flags)
    aside = tmp_path / "set_aside" / "after_step_00000006"
    assert f"now in {aside}" in capsys.readouterr().out
    assert steps_of(aside) == [8] and checkpoint.find_best(aside).name == "step_00000008"
    assert steps_of(tmp_path) == [4, 7] and checkpoint.find_best(tmp_path).name == "step_00000004"
    assert [event["step"] for event in events(aside, "train")] == [7, 8]
    assert [event["step"] for event in events(tmp_path, "train")] == [1, 2, 3, 4, 5, 6, 7]
    assert checkpoint.load(tmp_path)[1].best == 2.0
    # What was set aside is a run of its own that can go on.
    count_to(None, 9, checkpoint=aside)
    assert steps_of(aside) == [8, 9]


def test_a_run_goes_on_in_its_own_folder_and_leaves_others_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count_to(Path("mine"), 4)
    count_to(None, 2)
    before = {path: path.read_bytes() for path in Path("output").rglob("*") if path.is_file()}
    count_to(None, 8, checkpoint=Path("mine"))
    assert checkpoint.load(Path("mine"))[1].step == 8
    with pytest.raises(UserError, match="output holds another run than --checkpoint .*leave it out to go on in .*mine"):
        count_to(Path("output"), 9, checkpoint=Path("mine"))
    assert {path: path.read_bytes() for path in Path("output").rglob("*") if path.is_file()} == before


def test_a_run_that_goes_on_elsewhere_takes_its_best_along(tmp_path):
    losses = iter([1.0, 2.0, 3.0])
    evaluation = Evaluation("eval", lambda: {"loss": next(losses)}, decides="loss")
    count_to(tmp_path / "one", 8, evaluations=[evaluation])
    count_to(tmp_path / "two", 12, evaluations=[evaluation], checkpoint=tmp_path / "one")
    assert checkpoint.find_best(tmp_path / "two").name == "step_00000004"
    assert steps_of(tmp_path / "one") == [4, 8] and steps_of(tmp_path / "two") == [4, 12]


def test_a_run_without_records_claims_no_folder(tmp_path):
    with Run(tmp_path / "run", TrainFlags(), task="count", records=False) as run:
        run.say("measured")
        run.record("benchmark", 0, rate=1.0)
    assert not (tmp_path / "run").exists()


def test_what_is_not_an_event_in_the_log_is_left_out(tmp_path):
    count_to(tmp_path, 2, log_every=1)
    with open(tmp_path / "log.jsonl", "ab") as log:
        log.write(b'x}\n\xff\xfe}\n[{"a": 1}]\n{"kind": "train"}\n' + b"[" * 100_000 + b'\n{"kind": "train", "st')
    count_to(tmp_path, 4, log_every=1, checkpoint=tmp_path)
    assert [event["step"] for event in events(tmp_path, "train")] == [1, 2, 3, 4]


# Disks that are full, folders that go.

FULL = """
import resource, sys
from pathlib import Path
from fluid.run import script
from fluid.tests.counting import Counting, count_to

class Filling(Counting):
    def run(self, program, feed, step=0, fetch=None):
        if step == 5:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        return super().run(program, feed, step, fetch)

script(lambda: count_to(Path(sys.argv[1]), 1000, engine=Filling(), log_every=1, save_every=4))
"""


def test_a_disk_that_fills_between_checkpoints_ends_the_run_with_one_message(tmp_path):
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write the checkpoint") and done.stderr.count("\n") == 1
    assert steps_of(tmp_path) == [4]
    count_to(tmp_path, 8, log_every=1, checkpoint=tmp_path)
    assert [event["step"] for event in events(tmp_path, "train")] == list(range(1, 9))


def test_records_that_cannot_be_written_leave_a_checkpoint(tmp_path, monkeypatch):
    def full(self, name, value, step):
        if step == 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Scalars, "add", full)
    with pytest.raises(RecordsError, match="cannot be written .No space left on device.*go on with --checkpoint"):
        count_to(tmp_path, 1000, log_every=1, save_every=4)
    assert steps_of(tmp_path) == [4, 6]


def test_numbers_are_written_for_tensorboard_by_the_thread_that_trains(tmp_path, monkeypatch):
    threads = threading.active_count()
    monkeypatch.setattr(time, "time", itertools.count(1e9, -86_400).__next__)
    scalars = Scalars(tmp_path, first_step=5)
    for step in range(5, 30):
        scalars.add("train/loss", 1 / step, step)
    assert threading.active_count() == threads
    scalars.close()
    (file,) = tmp_path.iterdir()
    read = [Event.FromString(data) for data in tfrecords(file)]
    assert read[1].session_log.status == SessionLog.START and read[1].step == 5
    found = {event.step: (event.summary.value[0].tag, event.summary.value[0].simple_value) for event in read[2:]}
    assert found == {step: ("train/loss", pytest.approx(1 / step)) for step in range(5, 30)}


def test_a_name_that_is_no_text_is_among_the_hyperparameters(tmp_path):
    scalars = Scalars(tmp_path)
    scalars.add_hyperparameters({"output_dir": os.fsdecode(b"\xff run"), "lr": 0.5})
    scalars.close()
    (file,) = tmp_path.iterdir()
    assert any(rb"\xff run" in data for data in tfrecords(file))


def tfrecords(file: Path) -> Iterator[bytes]:
    """Length, its checksum, the data and theirs, again and again."""
    data = file.read_bytes()
    while data:
        size = int.from_bytes(data[:8], "little")
        yield data[12 : 12 + size]
        data = data[16 + size :]


@pytest.mark.parametrize("due", [dict(log_every=1), dict(log_every=1000, save_every=7)])
def test_an_output_folder_that_vanishes_is_noticed_and_the_state_saved(tmp_path, due):
    class Deleting(Counting):
        def run(self, program, feed, step=0, fetch=None):
            if step == 5:
                shutil.rmtree(tmp_path / "run")
            return super().run(program, feed, step, fetch)

    with pytest.raises(RecordsError, match=f"moved or deleted.*go on with --checkpoint {tmp_path / 'run'}"):
        count_to(tmp_path / "run", 1000, engine=Deleting(), **due)
    (kept,) = steps_of(tmp_path / "run")
    assert kept == (6 if due["log_every"] == 1 else 7)
    assert count_to(tmp_path / "run", 8, checkpoint=tmp_path / "run").step == 8


def test_a_folder_whose_place_another_run_has_taken_is_left_alone(tmp_path):
    class Replaced(Counting):
        def run(self, program, feed, step=0, fetch=None):
            if step == 5:
                (tmp_path / "run").rename(tmp_path / "kept")
                count_to(tmp_path / "run", 3)
            return super().run(program, feed, step, fetch)

    with pytest.raises(RecordsError, match="another run lies in its place"):
        count_to(tmp_path / "run", 1000, engine=Replaced(), log_every=1, save_every=4)
    assert steps_of(tmp_path / "run") == [3] and steps_of(tmp_path / "kept") == [4]


# Signals.


def wait_for(condition) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing happened for 30 seconds")


def send(number: int) -> None:
    """Send a signal to this process and wait until it is known."""
    os.kill(os.getpid(), number)
    wait_for(lambda: bool(signals._request))


@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
)
@pytest.mark.usefixtures("heeded")
def test_a_signal_finishes_the_step_and_saves(tmp_path, number, code, capsys):
    class Signalled(Counting):
        def run(self, *arguments, **more):
            if self.count == 2:
                send(number)
            return super().run(*arguments, **more)

    with pytest.raises(SystemExit) as ended:
        count_to(tmp_path, 8, engine=Signalled())
    assert ended.value.code == code and "stopped by a signal after step 3; continue with" in capsys.readouterr().out
    assert steps_of(tmp_path) == [3]
    assert signal.getsignal(number) is not signals._do_nothing


def test_a_signal_in_an_evaluation_ends_it_between_two_batches(tmp_path, monkeypatch):
    calls = itertools.count()
    leave = signals.leave_if_stopped

    def leave_at_the_third(engine):
        if next(calls) == 2:
            send(signal.SIGTERM)
        leave(engine)

    monkeypatch.setattr(toy, "leave_if_stopped", leave_at_the_third)
    with pytest.raises(SystemExit) as ended:
        toy.main(ToyFlags(output_dir=tmp_path, seed=5))
    assert ended.value.code == 143 and next(calls) == 3
    meta = checkpoint.load(tmp_path)[1]
    assert (meta.step, meta.due) == (8, ["eval"])
    monkeypatch.undo()
    toy.main(ToyFlags(output_dir=tmp_path, checkpoint=tmp_path, seed=5))
    toy.main(ToyFlags(output_dir=tmp_path / "straight", seed=5))
    assert [event["step"] for event in events(tmp_path, "eval")] == [8, 16, 20]
    assert_same_bits(final_state(tmp_path), final_state(tmp_path / "straight"))
    went_on, straight = (checkpoint.load(folder)[1] for folder in (tmp_path, tmp_path / "straight"))
    assert replace(went_on, config={}) == replace(straight, config={})


def test_a_signal_stops_a_real_run_which_goes_on_exactly(tmp_path):
    command = [sys.executable, str(TOY), "--output_dir", str(tmp_path), "--seed", "5", "--eval_every", "100"]
    process = subprocess.Popen(
        [*command, "--pause", "0.02", "--num_workers", "1", "--log_every", "1"], stdout=subprocess.PIPE, text=True
    )
    lines = iter(process.stdout.readline, "")
    next(line for line in lines if line.startswith("step 3/20"))
    process.send_signal(signal.SIGTERM)
    rest = "".join(lines)
    process.stdout.close()
    assert process.wait(timeout=60) == 143
    assert "continue with --checkpoint" in rest
    assert 3 <= checkpoint.load(tmp_path)[1].step < 20
    toy.main(ToyFlags(output_dir=tmp_path, seed=5, eval_every=100, checkpoint=tmp_path))
    toy.main(ToyFlags(output_dir=tmp_path / "straight", seed=5, eval_every=100))
    assert_same_bits(final_state(tmp_path), final_state(tmp_path / "straight"))


BUSY = f"""
import hashlib, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from fluid.signals import stop_on_signals
with stop_on_signals() as stop:
    stop.may_wait = sys.argv[1] == "training"
    print("ready", flush=True)
    # Like the compilation of a large network: one call that Python's handlers cannot interrupt.
    hashlib.pbkdf2_hmac("sha512", b"", b"", 2**31 - 1)
"""


def test_before_the_first_step_a_signal_ends_the_process_whatever_it_is_doing():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, "start"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as busy:
        assert busy.stdout.readline() == b"ready\n"
        busy.send_signal(signal.SIGTERM)
        assert busy.wait(timeout=10) == 143
        assert b"nothing to save" in busy.stderr.read()


def test_the_second_signal_ends_the_process_whatever_it_is_doing():
    with subprocess.Popen(
        [sys.executable, "-c", BUSY, "training"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as busy:
        assert busy.stdout.readline() == b"ready\n"
        busy.send_signal(signal.SIGTERM)
        assert busy.stderr.readline() == b"\n" and b"once more" in busy.stderr.readline()
        assert busy.poll() is None
        busy.send_signal(signal.SIGINT)
        assert busy.wait(timeout=10) == 130


def test_signals_that_were_ignored_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with signals.stop_on_signals() as stop:
            stop.may_wait = True
            os.kill(os.getpid(), signal.SIGHUP)
            send(signal.SIGUSR1)
            assert stop.exit_code == 138
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_training_works_outside_the_main_thread(tmp_path):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(count_to(tmp_path, 4)))
    thread.start()
    thread.join()
    assert ended[0].step == 4


# What is shown.


def test_bar_step_and_eta_fit_80_columns(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(
        runs, "console", Console(file=shown, width=80, force_terminal=True, soft_wrap=True, color_system=None)
    )
    bar, task = runs.progress_bar(120_000, 0)
    with bar:
        bar.update(task, completed=60_000, status="loss 0.1234 accuracy 0.5678 lr 0.0123 " * 4)
        bar.refresh()
    lines = [line for line in shown.getvalue().replace("\r", "\n").splitlines() if "60000/120000" in line]
    assert lines
    for line in lines:
        plain = line.split("\033[2K")[-1]
        assert "eta" in plain and "━" in plain and "loss 0.12" in plain and len(plain) <= 80


def test_summaries_fit_80_columns(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(runs, "console", Console(file=shown, width=80, soft_wrap=True))
    runs.show_summary("Pong, evaluation at the end", {"score": "20.1", "best": "a long remark " * 12})
    assert max(map(len, shown.getvalue().splitlines())) <= 80


def test_the_order_of_values_is_the_same_on_both_engines(tmp_path, capsys):
    orders = []
    for engine in ("paddle", "xla"):
        toy.main(ToyFlags(output_dir=tmp_path / engine, engine=engine, device="cpu", max_steps=1))
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("step 1/1"))
        orders.append([word for word in line.split() if not word[0].isdigit()])
    assert orders[0] == orders[1] and orders[0].index("loss") < orders[0].index("accuracy")
