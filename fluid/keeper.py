"""The keeper of a training run: log lines, evaluations, checkpoints, the best of them, signals, time limits, the guard.

    keeper = Keeper(run, engine, meta, flags, evaluations=..., total_steps=..., every=...)
    keeper.train(trainee)

It owns the loop; what one step of it does is the trainee's business: an update on a batch (fluid/trainer.py), a round of
acting and learning (DeepQNetwork/loop.py).
"""

import contextlib
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from fluid import checkpoint
from fluid.checkpoint import Meta, Resumed
from fluid.config import TrainFlags
from fluid.engine import Engine
from fluid.errors import DivergenceError, RecordsError, UserError
from fluid.run import Run, progress_bar
from fluid.signals import Stopped, stop_on_signals

import numpy as np


@dataclass
class Evaluation:
    """Something that is measured in the course of training."""

    name: str
    """Kind of its events in log.jsonl."""
    run: Callable[[], Mapping[str, float]]
    """Measures the current weights. Loops in it call `fluid.signals.leave_if_stopped` between batches."""
    every: int | None = None
    """Steps between two of them; by default --eval_every, or an epoch. The last step has one in any case."""
    decides: str | None = None
    """The one of its results that decides which checkpoint is the best, and when to stop early."""
    higher_is_better: bool = False
    target: float | None = None
    """The run ends when the deciding result is as good as this."""


@dataclass
class Report:
    """What a trainee has to say about the steps since its last report."""

    values: dict[str, float]
    """Recorded, and shown by those who look at the records."""
    place: str
    """Where the run is, in words of the task: `epoch 1.25`."""
    status: str
    """The values that are worth a look while it runs."""


class Trainee(Protocol):
    """What is being trained, as its keeper sees it."""

    step: int
    """Updates, or steps of an agent, since the very start of the run."""

    def advance(self) -> bool:
        """Train one step further; False if the input has ended before it.

        Raises OutsideError where code fails that is neither the task's Programs nor the engine: a reader, an environment.
        """

    def check(self) -> None:
        """Wait for the device; raise DivergenceError if what was trained since the last call is no longer finite."""

    def report(self, seconds: float) -> Report:
        """What the steps since the last report brought, in `seconds` of training."""

    def save(self, meta: Meta) -> dict[str, np.ndarray]:
        """The arrays of a checkpoint; what else belongs to it is written into `meta`."""


class OutsideError(Exception):
    """Carries, as its cause, the exception of a reader or an environment."""


@contextlib.contextmanager
def outside() -> Iterator[None]:
    """Raise what the block raises as the cause of an OutsideError."""
    try:
        yield
    except Exception as error:
        raise OutsideError from error


class Clock:
    """The time of training alone, and of what a run does beside it."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._began = time.perf_counter()
        self._compiled = engine.compile_seconds
        self._beside = {"evaluation": 0.0, "saving": 0.0}

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._began

    @property
    def compiling(self) -> float:
        """Spent compiling."""
        return self._engine.compile_seconds - self._compiled

    @property
    def training(self) -> float:
        """Spent neither evaluating nor saving nor compiling."""
        return self.seconds - sum(self._beside.values()) - self.compiling

    @property
    def parts(self) -> dict[str, float]:
        """Seconds of all that a run spends its time with."""
        return {"training": self.training, **self._beside, "compiling": self.compiling}

    @contextlib.contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """Count the block as `what`, not as training."""
        before = self.seconds - self.compiling
        try:
            yield
        finally:
            self._beside[what] += self.seconds - self.compiling - before


@dataclass
class Outcome:
    """How a run ended."""

    step: int
    """Steps since the very start of the run."""
    nothing_left: bool = False
    """It had ended before: nothing was trained or measured, and there is nothing new to show."""
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last evaluation; those that do not decide as `name/metric`."""
    best: float | None = None
    best_step: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of `training` alone, `evaluation`, `saving` and `compiling`."""


class Keeper:
    """Keeps one run.

    Args:
        run: records and output folder.
        engine: tells the processes of a distributed run of each other.
        meta: of the checkpoint being resumed, or a fresh one.
        flags: intervals and limits.
        resumed: the checkpoint being resumed.
        evaluations: what is measured, at most one of them deciding.
        total_steps: steps in all, counted from the very start of the run.
        every: steps between evaluations and between checkpoints where neither the flags nor an evaluation say so.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        meta: Meta,
        flags: TrainFlags,
        *,
        resumed: Resumed | None = None,
        evaluations: Sequence[Evaluation] = (),
        total_steps: int,
        every: int,
    ):
        self.run, self.engine, self.meta, self.flags, self.total_steps = run, engine, meta, flags, total_steps
        self.evaluations = evaluations
        self.deciding = next((item for item in evaluations if item.decides is not None), None)
        self._metric = self.deciding.decides or "" if self.deciding is not None else ""
        self._save_every = flags.save_every or every
        self._eval_every = {item.name: item.every or flags.eval_every or every for item in evaluations}
        self._first_step, self._input_ended, self._late = meta.step, False, False
        self._logged_step, self._logged_seconds = meta.step, 0.0
        self._measured: dict[str, int] = {}
        self._saved_step = None if resumed is None else meta.step
        self.last_saved = None if resumed is None else resumed.folder
        """The newest checkpoint, or the one that is being resumed."""

    def train(self, trainee: Trainee) -> Outcome:
        """Train until the last step, a target, an early stop, the time limit, the end of the input, or a signal.

        The first SIGTERM, Ctrl-C, SIGHUP or SIGUSR1 ends the step, or the evaluation between two batches; a checkpoint
        is written and the process exits with 128 + the signal's number. Before the first step it exits at once.

        Raises DivergenceError, without writing a checkpoint, when something that a checkpoint would hold is not finite;
        CheckpointError if one cannot be written. An exception of a reader or an environment leaves a checkpoint; it is
        raised as it is if it is a UserError, else as one.
        """
        self.clock = Clock(self.engine)
        self.bar, self._task = progress_bar(self.total_steps, self.meta.step)
        with stop_on_signals() as self.stop, self.bar:
            owed = self._finish_evaluations(trainee)
            reason = self._ended()
            nothing_left = reason is not None and not owed
            while reason is None:
                before = trainee.step
                self._advance(trainee)
                self.stop.may_wait = True
                self._after(trainee, before)
                reason = self._ended()
        self.stop.may_wait = False
        self._say_how_it_ended(reason, nothing_left)
        return Outcome(
            step=self.meta.step,
            nothing_left=nothing_left,
            seconds=self.clock.seconds,
            metrics=dict(self.meta.metrics),
            best=self.meta.best,
            best_step=self.meta.best_step,
            parts=self.clock.parts,
        )

    def _advance(self, trainee: Trainee) -> None:
        try:
            with self._guard():
                self._input_ended = not trainee.advance()
        except OutsideError as failure:
            if self.meta.step > self._first_step:
                self.save(trainee)
            self._fail(failure.__cause__ or failure, "")
        self.meta.step = trainee.step
        self.bar.update(self._task, completed=trainee.step)

    def _after(self, trainee: Trainee, before: int) -> None:
        """What is due after a step."""
        step, stopping = self.meta.step, self._agree_on_stopping()
        last = self._ended() is not None
        if (_passed(before, step, self.flags.log_every) or last) and step > self._logged_step:
            self._log(trainee)
        due = [
            item
            for item in self.evaluations
            if (_passed(before, step, self._eval_every[item.name]) or last) and self._measured.get(item.name) != step
        ]
        if due and not stopping:
            self._evaluate(trainee, due)
        elif due or stopping or last or _passed(before, step, self._save_every):
            self.save(trainee, due)
        if stopping:
            self._leave()

    def _agree_on_stopping(self) -> bool:
        """Whether a signal has come, in any process; and see whether the time is over, by any clock."""
        limit = self.flags.max_minutes
        late = limit is not None and self.clock.seconds > 60 * limit
        if not self.engine.agree(bool(self.stop) or late):
            return False
        stopped, self._late = (bool(count) for count in self.engine.total(np.array([bool(self.stop), late], np.int64)))
        return stopped

    def _ended(self) -> str | None:
        """Why the run is over, if it is."""
        patience = self.flags.early_stop
        if patience and self.meta.stale >= patience:
            return f"stopped early: {self._metric} has not improved in {patience} evaluations"
        if self.deciding is not None and self.deciding.target is not None and self._metric in self.meta.metrics:
            value, target = self.meta.metrics[self._metric], self.deciding.target
            if value == target or self._is_better(value, target):
                return f"the target of {target:g} for {self._metric} is reached"
        if self.meta.step >= self.total_steps:
            return f"all {self.total_steps} steps are done"
        if self._late:
            return f"stopped after {self.flags.max_minutes:g} minutes"
        if self._input_ended:
            return f"the input has ended after step {self.meta.step} of {self.total_steps}"
        return None

    def _is_better(self, value: float, than: float) -> bool:
        higher = self.deciding is not None and self.deciding.higher_is_better
        return value > than if higher else value < than

    def _log(self, trainee: Trainee) -> None:
        with self._guard():
            trainee.check()
        steps, seconds = trainee.step - self._logged_step, max(self.clock.training - self._logged_seconds, 1e-9)
        report = trainee.report(seconds)
        self._logged_step, self._logged_seconds = trainee.step, self.clock.training
        left = int(seconds / steps * (self.total_steps - trainee.step))
        self.bar.update(self._task, status=report.status)
        with self._saving_if_unrecorded(trainee):
            self.run.record("train", trainee.step, **report.values)
            self.run.progress(
                f"step {trainee.step}/{self.total_steps} {report.place} {report.status} eta {left // 60}:{left % 60:02d}"
            )

    def save(self, trainee: Trainee, due: Sequence[Evaluation] = ()) -> None:
        """Write the checkpoint of this step, which owes the evaluations in `due`; once."""
        if self._saved_step == self.meta.step:
            return
        with self._guard():
            trainee.check()
        with self.clock.beside("saving"):
            state = trainee.save(self.meta)
            with self._guard():
                _check_finite(state, self.meta.step)
            self.meta.due = [item.name for item in due]
            if self.run.records:
                gone = self.run.claim_anew()
                keep = self.flags.keep_checkpoints
                self.last_saved = checkpoint.save(self.run.output_dir, state, self.meta, keep=keep)
                if gone:
                    raise RecordsError(
                        f"{self.run.gone}. The state after step {self.meta.step} is saved there: go on with --checkpoint "
                        f"{self.run.output_dir}"
                    )
        self._saved_step = self.meta.step

    @contextlib.contextmanager
    def _saving_if_unrecorded(self, trainee: Trainee) -> Iterator[None]:
        """Save the state if the block cannot write its records: what was trained is not lost by that."""
        try:
            yield
        except RecordsError:
            if self.last_saved is not None and not self.last_saved.exists():
                self._saved_step = None
            self.save(trainee)
            raise

    @contextlib.contextmanager
    def _guard(self) -> Iterator[None]:
        """Say in a DivergenceError what there is to go back to."""
        try:
            yield
        except DivergenceError as error:
            if self.last_saved is None:
                raise
            raise DivergenceError(f"{error}. The last good checkpoint is {self.last_saved}") from error

    def _finish_evaluations(self, trainee: Trainee) -> bool:
        """Make up for the evaluations that the resumed checkpoint still owes, if there are any."""
        due = [item for item in self.evaluations if item.name in self.meta.due]
        if due:
            if self.last_saved is None or checkpoint.run_folder(self.last_saved) != self.run.output_dir.resolve():
                # In a folder of its own the run cannot complete what another one holds.
                self._saved_step = None
            self._evaluate(trainee, due)
        return bool(due)

    def _evaluate(self, trainee: Trainee, due: Sequence[Evaluation]) -> None:
        """Write a checkpoint, measure, and complete what it says: what happens meanwhile costs no step."""
        self.save(trainee, due)
        self.meta.metrics = {}
        best = False
        for item in due:
            began = time.perf_counter()
            with self.clock.beside("evaluation"):
                values = self._measure(item)
            is_best = item is self.deciding and self._is_best(values[self._metric])
            best = best or is_best
            self.meta.metrics |= {
                name if item is self.deciding else f"{item.name}/{name}": value for name, value in values.items()
            }
            with self._saving_if_unrecorded(trainee):
                self.run.record(item.name, self.meta.step, **values, seconds=time.perf_counter() - began)
            self._measured[item.name] = self.meta.step
            shown = " ".join(f"{name} {f'{value:.4f}'.removesuffix('.0000')}" for name, value in values.items())
            what = "evaluation" if len(self.evaluations) == 1 else item.name
            self.run.say(f"{what} after step {self.meta.step}: {shown}{' (best so far)' if is_best else ''}")
        self.meta.due = []
        if self.run.records and self.last_saved is not None:
            with self.clock.beside("saving"):
                checkpoint.complete(self.last_saved, self.meta, best=best)

    def _measure(self, item: Evaluation) -> dict[str, float]:
        try:
            return dict(item.run())
        except Stopped:
            self._leave()
        except Exception as error:
            self._fail(error, f" in the evaluation {item.name}")

    def _is_best(self, value: float) -> bool:
        improved = bool(np.isfinite(value)) and (self.meta.best is None or self._is_better(value, self.meta.best))
        self.meta.stale = 0 if improved else self.meta.stale + 1
        # A small set, or one of which nothing is right yet, cannot tell many apart: the longest trained is kept.
        best = improved or value == self.meta.best
        if best:
            self.meta.best, self.meta.best_step = value, self.meta.step
        return best

    def _leave(self) -> NoReturn:
        self.run.say(
            f"stopped by a signal after step {self.meta.step}; continue with --checkpoint {self.run.output_dir}"
        )
        self.run.close()
        self.bar.stop()
        sys.exit(self.stop.exit_code)

    def _fail(self, error: BaseException, where: str) -> NoReturn:
        """End the run because of other people's code; its traceback goes to the log."""
        with contextlib.suppress(RecordsError):
            self.run.note("".join(traceback.format_exception(error)))
        if self.last_saved is not None:
            self.run.say(
                f"stopped by an error after step {self.meta.step}; continue with --checkpoint {self.run.output_dir}"
            )
        if isinstance(error, UserError):
            raise error
        notes = "".join(f"; {note}" for note in getattr(error, "__notes__", []))
        raise UserError(
            f"{type(error).__name__}{where}: {error}{notes}. The traceback is in {self.run.output_dir / 'train.log'}"
        ) from error

    def _say_how_it_ended(self, reason: str, nothing_left: bool) -> None:
        if nothing_left:
            self.run.say(f"nothing left to do: {reason}; --max_steps and --num_epochs extend a run")
            return
        if self.meta.step < self.total_steps:
            self.run.say(reason)
        parts = self.clock.parts.items()
        self.run.say(f"time: {', '.join(f'{name} {seconds:.1f} s' for name, seconds in parts if seconds)}")


def diverged(step: int, names: Sequence[str]) -> DivergenceError:
    """The error that says which variables are not finite after `step`."""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return DivergenceError(
        f"training diverged at step {step}: not a finite number: {shown}. Lower --lr or clip the gradients"
    )


def _check_finite(state: Mapping[str, np.ndarray], step: int) -> None:
    """Raise DivergenceError for what a Program writes beside that which it watches itself: statistics, moments, averages."""
    broken = [
        name
        for name, array in state.items()
        if array.dtype.kind in "fc" and not np.isfinite(np.sum(array, dtype=np.float64))
    ]
    if broken:
        raise diverged(step, broken)


def _passed(before: int, now: int, interval: int) -> bool:
    """Whether a multiple of `interval` lies in (before, now]."""
    return now // interval > before // interval
