"""Training on batches: updates, and what is logged of them; the loop around them is the keeper's.

    outcome = train(run, engine, program, open_batches, steps_per_epoch=..., total_steps=..., evaluations=[...], ...)

Nothing waits for the device between log lines: outputs are kept as they come and read when a line is due.
"""

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from fluid import keeper, profiling
from fluid.checkpoint import Meta, Resumed
from fluid.config import TrainFlags
from fluid.data import Batch
from fluid.engine import Engine
from fluid.errors import DivergenceError
from fluid.interface import FINITE, Interface
from fluid.keeper import Evaluation, Keeper, Report, diverged, outside
from fluid.run import Run, resident_megabytes

import numpy as np

OpenBatches = Callable[[int], AbstractContextManager[Iterator[Batch]]]
"""From a number of batches already consumed to the batches that follow."""
READ_AHEAD = 2
"""Batches, beside the one that is on its way to the device."""
PROFILED = 10
"""Steps that `profile` times."""


@dataclass(frozen=True)
class Position:
    """Where the present division of the input into batches began."""

    step: int = 0
    """Updates done then."""
    batches: int = 0
    """Batches that count as consumed then."""
    epoch: int = 0
    """Passes over the data done then."""


@dataclass
class Outcome(keeper.Outcome):
    """How a run ended."""

    samples_per_second: float = 0.0
    """Over the time of training alone, like the share of waiting."""
    data_wait: float = 0.0
    """Share of the time spent waiting for the reader, 0..1."""
    skipped_samples: int = 0

    def summary(self, unit: str, metrics: Mapping[str, str], digits: int = 4) -> dict[str, str]:
        """What the run came to, for `fluid.run.show_summary`.

        `unit` is what samples are called, `metrics` are results of the last evaluation: name for people -> name.
        """
        results = {
            label: f"{self.metrics[name]:.{digits}f}" if self.metrics else "-" for label, name in metrics.items()
        }
        best = "-" if self.best is None else f"{self.best:.{digits}f} (step {self.best_step})"
        return {
            **results,
            "best": best,
            "steps": str(self.step),
            "time": f"{self.seconds:.0f} s",
            f"{unit}/s in training": f"{self.samples_per_second:.0f}",
            "waiting for data": f"{self.data_wait:.1%}",
        }


def train(
    run: Run,
    engine: Engine,
    program: Interface,
    open_batches: OpenBatches,
    *,
    flags: TrainFlags,
    steps_per_epoch: int,
    total_steps: int,
    apply: Interface | None = None,
    batches_per_step: int = 1,
    position: Position = Position(),
    evaluations: Sequence[Evaluation] = (),
    meta: Meta,
    resumed: Resumed | None = None,
) -> Outcome:
    """Train until `total_steps` updates or an earlier end; see `Keeper.train` for those and for what is raised.

    Args:
        run: records and output folder.
        engine: holds the state, loaded with the initial or resumed one.
        program: one batch of training; its scalars are averaged into the log lines, other outputs are not fetched.
        open_batches: opens the input at a position. An input that ends, ends the run.
        flags: intervals of logging, saving and evaluation, and the time limit.
        steps_per_epoch: updates an epoch, the default interval of evaluations and checkpoints.
        total_steps: updates in all, counted from the very start of the run.
        apply: with gradient accumulation, the Program that updates after `batches_per_step` runs of `program`.
        batches_per_step: batches an update.
        position: where the input's present division into batches began.
        evaluations: what is measured meanwhile; one of them may decide which checkpoint is the best.
        meta: of the checkpoint being resumed, or a fresh one; `meta.step` updates are already done.
        resumed: the checkpoint being resumed.

    Raises DataError for unreadable data beyond what is tolerated.
    """
    keep = Keeper(
        run,
        engine,
        meta,
        flags,
        resumed=resumed,
        evaluations=evaluations,
        total_steps=total_steps,
        every=steps_per_epoch,
    )
    updates = Updates(
        run,
        engine,
        program,
        open_batches,
        apply=apply,
        batches_per_step=batches_per_step,
        steps_per_epoch=steps_per_epoch,
        position=position,
        step=meta.step,
    )
    with updates.reading():
        outcome = keep.train(updates)
    seconds = max(outcome.parts["training"], 1e-9)
    return Outcome(
        **vars(outcome),
        samples_per_second=updates.total_samples / seconds,
        data_wait=min(updates.total_wait / seconds, 1.0),
        skipped_samples=int(engine.total(np.array(updates.skipped))),
    )


class Updates:
    """Updates of a Program on batches: what a keeper trains.

    Args:
        run: is told of samples that were skipped.
        engine: holds the state.
        program: trains on a batch.
        open_batches: opens the input at a position; once more to find the sample that broke a step.
        apply: with gradient accumulation, the Program that updates.
        batches_per_step: batches an update.
        steps_per_epoch: updates an epoch.
        position: where the input's present division into batches began.
        step: updates already done.
    """

    def __init__(
        self,
        run: Run,
        engine: Engine,
        program: Interface,
        open_batches: OpenBatches,
        *,
        apply: Interface | None,
        batches_per_step: int,
        steps_per_epoch: int,
        position: Position,
        step: int,
    ):
        self.run, self.engine, self.program, self.apply = run, engine, program, apply
        self.open_batches, self.position, self.step = open_batches, position, step
        self.batches_per_step, self.steps_per_epoch = batches_per_step, steps_per_epoch
        self.window = Window(program, engine)
        self.applied = Window(apply or program, engine)
        self.total_samples, self.total_wait, self.skipped = 0, 0.0, 0
        self._reported_samples, self._reported_wait, self._accumulated = 0, 0.0, 0
        self._fetch = [name for name, output in program.outputs.items() if output.scalar or name == FINITE]

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Read the batches that follow, ahead of `advance`."""
        with (
            self.open_batches(self._batches_before(self.step)) as source,
            prefetch(source, self.engine, self.program, late=self._say_late) as self._batches,
        ):
            yield

    def _say_late(self, error: BaseException) -> None:
        self.run.say(f"note: the batches after the last step cannot be read: {type(error).__name__}: {error}")

    def _batches_before(self, step: int) -> int:
        return self.position.batches + (step - self.position.step) * self.batches_per_step

    @property
    def epochs(self) -> float:
        """Passes over the data so far."""
        return self.position.epoch + (self.step - self.position.step) / self.steps_per_epoch

    def advance(self) -> bool:
        """See `Trainee`."""
        for part in range(self.batches_per_step):
            self._accumulated = part
            batch = self._next_batch()
            if batch is None:
                return False
            index = self.step * self.batches_per_step + part
            outputs = self.engine.run(self.program, batch.feed, step=index, fetch=self._fetch)
            self.window.add(self.step + 1, outputs)
            self.total_samples += batch.size * self.engine.num_hosts
        if self.apply is not None:
            self.applied.add(self.step + 1, self.engine.run(self.apply, {}, step=self.step))
        self._accumulated = 0
        self.step += 1
        return True

    def _next_batch(self) -> Batch | None:
        with outside():
            batch = next(self._batches, None)
        self.total_wait = self._batches.waited
        for message in batch.bad if batch is not None else ():
            self.skipped += 1
            self.run.say_everywhere(f"skipped an unreadable sample: {message}")
        return batch

    def check(self) -> None:
        """See `Trainee`."""
        for window in (self.window, self.applied):
            if broken := window.take_broken():
                step, names = broken
                raise self._blame_data(step) or diverged(step, names)

    def _blame_data(self, step: int) -> DivergenceError | None:
        """The error that names the first sample of that update which is not finite itself, if there is one."""
        with self.open_batches(self._batches_before(step - 1)) as batches:
            for batch in itertools.islice(batches, self.batches_per_step):
                for name, array in batch.feed.items():
                    bad = ~np.isfinite(array) if np.asarray(array).dtype.kind == "f" else np.zeros(1, bool)
                    if bad.any():
                        row = int(np.argwhere(bad)[0][0]) if self.program.inputs[name].batch == 0 else None
                        where = f"batch {batch.index}" if row is None else batch.where(row)
                        return DivergenceError(
                            f"NaN or infinity came with the data of step {step}: input '{name}' of {where}. "
                            "Mend or remove that sample"
                        )
        return None

    def _rate(self, step: int) -> float:
        schedule = (self.apply or self.program).schedule
        return schedule(step) if schedule is not None else 0.0

    def report(self, seconds: float) -> Report:
        """See `Trainee`."""
        means = self.window.take_means() | self.applied.take_means()
        rate = (self.total_samples - self._reported_samples) / seconds
        wait = min((self.total_wait - self._reported_wait) / seconds, 1.0)
        self._reported_samples, self._reported_wait = self.total_samples, self.total_wait
        learning_rate = self._rate(self.step - 1)
        memory = resident_megabytes()
        shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
        return Report(
            {**means, "lr": learning_rate, "samples_per_second": rate, "data_wait": wait, "memory_mb": memory},
            f"epoch {self.epochs:.2f}",
            f"{shown} lr {learning_rate:.3g} {rate:.0f} samples/s wait {wait:.0%} mem {memory:.0f} MB",
        )

    def save(self, meta: Meta) -> dict[str, np.ndarray]:
        """See `Trainee`."""
        meta.epoch, meta.rate = int(self.epochs), self._rate(self.step)
        state = self.engine.state()
        if self._accumulated and self.apply is not None:
            # The input failed within an update; its gradients so far will be summed again.
            sums = set(self.program.state_names) & set(self.apply.state_names) - set(self.apply.trainable)
            state |= {name: np.zeros_like(state[name]) for name in sums}
        return state


class Window:
    """The scalars of a Program's latest runs on an engine; reading them waits for the device."""

    def __init__(self, program: Interface, engine: Engine):
        self.program = program
        self._steps: list[int] = []
        self._outputs = engine.collect()
        self._checked = 0

    def add(self, step: int, outputs: Mapping[str, Any]) -> None:
        """Keep the outputs of a run, or of several that begin with `step`, [K, ...]."""
        self._steps.append(step)
        self._outputs.add(outputs)

    def __len__(self) -> int:
        return len(self._outputs)

    def take_broken(self) -> tuple[int, list[str]] | None:
        """The first step since the last call that made something infinite or NaN, and the names of that."""
        latest = self._outputs.read()[self._checked :]
        for step, outputs in zip(self._steps[self._checked :], latest, strict=True):
            finite = outputs[FINITE].reshape(-1, len(self.program.guarded))
            for index, row in enumerate(finite):
                if not row.all():
                    names = [name for name, good in zip(self.program.guarded, row, strict=True) if not good]
                    return step + index, names
        self._checked = len(self._steps)
        return None

    def take_means(self) -> dict[str, float]:
        """The mean of each scalar, by its weight where it has one; then the window is empty."""
        means, runs = {}, self._outputs.read()

        def every(name: str) -> np.ndarray:
            return np.concatenate([outputs[name].reshape(-1).astype(np.float64) for outputs in runs])

        for name in self.program.scalars if runs else ():
            values, weight = every(name), self.program.weight_of(name)
            weights = np.ones_like(values) if weight is None else every(weight)
            means[name] = float(np.average(values, weights=weights if weights.sum() else None))
        self._outputs.clear()
        self._steps, self._checked = [], 0
        return means


class Ahead(Iterator[Batch]):
    """Batches that a thread reads ahead, each on its way to the device before the one ahead of it is used.

    The thread only reads: if it copied, too, it would get in the way of the one that launches the steps. On an H100, the small
    Transformer's step took 7.9 to 8.6 ms that way, 6.8 to 7.5 with the copies begun between the launches.
    """

    def __init__(self, engine: Engine, program: Interface):
        self._engine, self._program = engine, program
        self._read: queue.Queue[Any] = queue.Queue(maxsize=READ_AHEAD)
        self._following: Any = None
        self.ended = threading.Event()
        self.unseen: list[BaseException] = []
        """Errors of the reader that `next` has not raised."""
        self.waited = 0.0
        """Seconds spent waiting for the reader."""

    def read(self, source: Iterator[Batch]) -> None:
        """What the thread does, up to the end of the source or of its use."""
        try:
            for batch in source:
                self._offer(batch)
                if self.ended.is_set():
                    return
            self._offer(StopIteration())
        except BaseException as error:
            self.unseen.append(error)
            self._offer(error)

    def _offer(self, item: Any) -> None:
        while not self.ended.is_set():
            try:
                return self._read.put(item, timeout=0.1)
            except queue.Full:
                continue

    def __next__(self) -> Batch:
        if self._following is None:
            began = time.perf_counter()
            item = self._read.get()
            self.waited += time.perf_counter() - began
            self._following = self._put(item)
        batch = self._following
        if isinstance(batch, BaseException):
            self.unseen.clear()
            raise batch
        # Nobody waits for the batch after this one if it is not read yet.
        self._following = None if self._read.empty() else self._put(self._read.get())
        return batch

    def _put(self, item: Any) -> Any:
        return replace(item, feed=dict(self._engine.put(item.feed, self._program))) if isinstance(item, Batch) else item


@contextmanager
def prefetch(
    source: Iterator[Batch],
    engine: Engine,
    program: Interface,
    late: Callable[[BaseException], None] = lambda error: None,
) -> Iterator[Ahead]:
    """Read ahead in a thread and start copying each batch to the device.

    Errors of the reader surface in `next`; one in batches that nobody asked for any more is told to `late`, unless another
    error is on its way.
    """
    ahead = Ahead(engine, program)
    thread = threading.Thread(target=ahead.read, args=(source,), daemon=True, name="prefetch")
    thread.start()
    try:
        yield ahead
    finally:
        ahead.ended.set()
        thread.join(timeout=10)
    for error in ahead.unseen:
        late(error)


def profile(run: Run, engine: Engine, program: Interface, open_batches: OpenBatches) -> str:
    """What takes the time of the training step, as `fluid.profiling.profile` tells it; the state is trained on meanwhile.

    Every shape of the batches runs once before, which compiles it. Raises UserError for an engine that is not timed.
    """
    with open_batches(0) as source:
        batches = [next(source) for _ in range(PROFILED)]

    def timed() -> int:
        for index, batch in enumerate(batches):
            outputs = engine.run(program, batch.feed, step=index)
        np.asarray(outputs["loss"])
        return PROFILED

    timed()
    return profiling.profile(engine, timed, run.output_dir / "profile")


def benchmark(
    run: Run,
    engine: Engine,
    program: Interface,
    open_batches: OpenBatches,
    num_workers: int = 0,
) -> dict[str, float]:
    """Samples a second of the training loop with batches that are there already, of the reader alone, and of both.

    The loop without a reader is fed one batch of each shape, in the order in which the reader's come. Counting begins when
    `num_workers` workers, which start together, have handed over what they began with, and lasts ten batches of each.

    Returns (and records) `synthetic`, `reader`, `real` in samples/s of all hosts together, and `data_wait`, the share of the
    real loop's time spent waiting for the reader. The engine's state is trained on meanwhile and not worth keeping.
    """
    warmup, steps = max(5, num_workers + 2), max(30, 10 * num_workers)
    shapes, feeds, sizes, reader = _read_alone(open_batches, warmup, steps)
    synthetic = _train_alone(engine, program, shapes, feeds, warmup)
    real, waited = _read_and_train(engine, program, open_batches, warmup, steps)
    samples = engine.num_hosts * sum(sizes)
    result = {
        "synthetic": samples / synthetic,
        "reader": samples / reader,
        "real": samples / real,
        "data_wait": waited / real,
        "batch_size": engine.num_hosts * sizes[-1],
        "steps": steps,
    }
    run.record("benchmark", 0, **result)
    return result


Shape = tuple[Any, ...]
"""Names and shapes of the arrays of a batch."""


def _read_alone(
    open_batches: OpenBatches, warmup: int, steps: int
) -> tuple[list[Shape], dict[Shape, Mapping[str, Any]], list[int], float]:
    """Of `steps` batches the shapes, a feed of each shape, the numbers of samples; and the seconds that reading them took."""
    shapes, sizes = [], []
    feeds: dict[Shape, Mapping[str, Any]] = {}
    with open_batches(0) as source:
        for _ in range(warmup):
            next(source)
        began = time.perf_counter()
        for _ in range(steps):
            batch = next(source)
            sizes.append(batch.size)
            shapes.append(tuple((name, array.shape) for name, array in batch.feed.items()))
            feeds.setdefault(shapes[-1], batch.feed)
        return shapes, feeds, sizes, time.perf_counter() - began


def _train_alone(
    engine: Engine, program: Interface, shapes: Sequence[Shape], feeds: Mapping[Shape, Mapping[str, Any]], warmup: int
) -> float:
    """Seconds of a step on each of the shapes, with feeds that lie on the device."""
    on_device = {}
    for shape, feed in feeds.items():
        for index in range(warmup):
            outputs = engine.run(program, feed, step=index)
            feed = engine.put(feed, program)
        on_device[shape] = feed
    np.asarray(outputs["loss"])
    began = time.perf_counter()
    for index, shape in enumerate(shapes):
        outputs = engine.run(program, on_device[shape], step=index)
    np.asarray(outputs["loss"])
    return time.perf_counter() - began


def _read_and_train(
    engine: Engine, program: Interface, open_batches: OpenBatches, warmup: int, steps: int
) -> tuple[float, float]:
    """Seconds of `steps` steps on batches as they are read, and how many of them were spent waiting for the reader."""
    with open_batches(0) as source, prefetch(source, engine, program) as batches:
        for index in range(warmup):
            np.asarray(engine.run(program, next(batches).feed, step=index)["loss"])
        began, waited = time.perf_counter(), batches.waited
        for index in range(steps):
            outputs = engine.run(program, next(batches).feed, step=index)
        np.asarray(outputs["loss"])
        return time.perf_counter() - began, batches.waited - waited
