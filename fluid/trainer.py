"""The training loop of every task: updates, log lines, evaluation, checkpoints, signals, and the guard against NaN.

    outcome = train(run, engine, program, open_batches, steps_per_epoch=..., total_steps=..., evaluate=..., ...)

The loop never waits for the device between log lines: outputs are kept as they come and read when a line is due.
"""

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fluid import checkpoint
from fluid.checkpoint import Meta
from fluid.config import TrainFlags
from fluid.data import Batch
from fluid.engine import Engine
from fluid.errors import CheckpointError, DivergenceError
from fluid.interface import Interface
from fluid.run import Run, progress_bar, resident_megabytes, stop_on_signals

import numpy as np

OpenBatches = Callable[[int], AbstractContextManager[Iterator[Batch]]]
"""From a number of batches already consumed to the batches that follow."""


@dataclass
class Outcome:
    """How a run ended."""

    step: int
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    best_step: int = 0
    samples_per_second: float = 0.0
    data_wait: float = 0.0
    """Share of the time spent waiting for the reader, 0..1."""
    skipped_samples: int = 0


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
    evaluate: Callable[[], dict[str, float]] | None = None,
    metric: str = "loss",
    higher_is_better: bool = False,
    meta: Meta,
) -> Outcome:
    """Train until `total_steps` updates, an early stop, or a signal.

    Args:
        run: records and output folder.
        engine: holds the state, loaded with the initial or resumed one.
        program: one batch of training; its per-sample or scalar outputs are averaged into the log lines.
        open_batches: opens the input at a position.
        flags: logging, saving and evaluation intervals.
        steps_per_epoch: updates an epoch, the default interval of evaluation and checkpoints.
        total_steps: updates in all, counted from the very start of the run.
        apply: with gradient accumulation, the Program that updates after `batches_per_step` runs of `program`.
        batches_per_step: batches an update.
        evaluate: measures the current weights; its result holds `metric`.
        metric: decides which checkpoint is the best.
        higher_is_better: how `metric` is compared.
        meta: of the checkpoint being resumed, or a fresh one; `meta.step` updates are already done.

    On SIGTERM or Ctrl-C the step is finished, a checkpoint written, and the process exits with 143 or 130. Raises
    DivergenceError when the loss or a parameter is not finite; no checkpoint is written then. Raises CheckpointError if
    one cannot be written, DataError for unreadable data beyond what is tolerated.
    """
    save_every = flags.save_every or steps_per_epoch
    eval_every = flags.eval_every or steps_per_epoch
    update = apply or program
    window, started, total_samples, total_wait, skipped = Window(), time.perf_counter(), 0, 0.0, 0
    saved_step = meta.step
    last_saved: Path | None = None

    def save(best: bool = False) -> None:
        nonlocal saved_step, last_saved
        window.check(program, update, last_saved)
        if saved_step == meta.step and last_saved is not None and not best:
            return
        state = engine.state()
        if run.writes:
            last_saved = checkpoint.save(run.output_dir, state, meta, keep=flags.keep_checkpoints, best=best)
        saved_step = meta.step

    bar, task = progress_bar(meta.task, total_steps, meta.step)
    with (
        stop_on_signals() as stop,
        bar,
        open_batches(meta.step * batches_per_step) as source,
        prefetch(source, engine, program) as batches,
    ):
        window.restart()
        while meta.step < total_steps:
            for micro in range(batches_per_step):
                waiting = time.perf_counter()
                batch = next(batches)
                window.waited(time.perf_counter() - waiting)
                index = meta.step if apply is None else meta.step * batches_per_step + micro
                outputs = engine.run(program, batch.feed, step=index)
                window.add(meta.step + 1, outputs, batch.size * engine.num_hosts)
                for message in batch.bad:
                    skipped += 1
                    said = f"skipped an unreadable sample: {message}"
                    if run.writes:
                        run.say(said)
                    else:
                        # Only the process that reads a sample knows of it.
                        print(said, flush=True)
            if apply is not None:
                window.add_update(meta.step + 1, engine.run(apply, {}, step=meta.step))
            meta.step += 1
            meta.epoch = meta.step // steps_per_epoch
            bar.update(task, completed=meta.step)

            last = meta.step == total_steps
            if meta.step % flags.log_every == 0 or last:
                total_samples, total_wait = total_samples + window.samples, total_wait + window.wait
                status = _log(run, program, update, window, meta, total_steps, steps_per_epoch, last_saved)
                bar.update(task, status=status)
            if evaluate is not None and (meta.step % eval_every == 0 or last):
                window.check(program, update, last_saved)
                improved = _evaluate(run, evaluate, meta, metric, higher_is_better)
                save(best=improved)
                window.restart(keep=True)
                if flags.early_stop and meta.extra["stale_evaluations"] >= flags.early_stop:
                    run.say(f"stopped early: {metric} has not improved in {flags.early_stop} evaluations")
                    break
            elif meta.step % save_every == 0 or last:
                save()
                window.restart(keep=True)
            if engine.agree(bool(stop)):
                save()
                run.say(f"stopped by a signal after step {meta.step}; continue with --checkpoint {run.output_dir}")
                run.close()
                bar.stop()
                sys.exit(stop.exit_code if stop else 143)

    seconds = time.perf_counter() - started
    return Outcome(
        step=meta.step,
        seconds=seconds,
        metrics=dict(meta.metrics),
        best=meta.best,
        best_step=meta.best_step,
        samples_per_second=(total_samples + window.samples) / max(seconds, 1e-9),
        data_wait=(total_wait + window.wait) / max(seconds, 1e-9),
        skipped_samples=int(engine.total(np.array(skipped))),
    )


def resume(flags: TrainFlags, task: str) -> tuple[dict[str, np.ndarray], Meta] | None:
    """The checkpoint that `--checkpoint` names, or None without the flag. Raises CheckpointError."""
    if flags.checkpoint is None:
        return None
    state, meta = checkpoint.load(flags.checkpoint, task=task)
    return state, replace(meta)


def check_fits(state: Mapping[str, np.ndarray], names: Mapping[str, np.ndarray], path: Path | None) -> None:
    """Raise CheckpointError unless a resumed state has exactly the variables, with their shapes, of a fresh one."""
    missing = sorted(names.keys() - state.keys())
    unknown = sorted(state.keys() - names.keys())
    shapes = [
        f"{name} {state[name].shape} instead of {names[name].shape}"
        for name in sorted(names.keys() & state.keys())
        if state[name].shape != names[name].shape
    ]
    if missing or unknown or shapes:
        parts = [
            f"{label}: {', '.join(items[:5])}{' ...' if len(items) > 5 else ''}"
            for label, items in (("missing", missing), ("unknown", unknown), ("another shape", shapes))
            if items
        ]
        raise CheckpointError(
            f"the checkpoint {path} does not fit this model and optimizer ({'; '.join(parts)}). To continue a run use its "
            f"own flags; to start from its weights use --pretrained_model"
        )


@contextmanager
def prefetch(source: Iterator[Batch], engine: Engine, program: Interface, depth: int = 2) -> Iterator[Iterator[Batch]]:
    """Read ahead in a thread and start copying each batch to the device; errors of the reader surface in `next`."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=depth)
    ended = threading.Event()

    def offer(item: Any) -> None:
        while not ended.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for batch in source:
                offer(replace(batch, feed=engine.put(batch.feed, program)))
                if ended.is_set():
                    return
            offer(StopIteration())
        except BaseException as error:
            offer(error)

    def take() -> Iterator[Batch]:
        while True:
            item = ready.get()
            if isinstance(item, StopIteration):
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=read, daemon=True, name="prefetch")
    thread.start()
    try:
        yield take()
    finally:
        ended.set()
        thread.join(timeout=10)


class Window:
    """What happened since the last log line; reading it waits for the device."""

    def __init__(self) -> None:
        self.restart()

    def restart(self, keep: bool = False) -> None:
        """Begin anew; with `keep`, only the clock, after a pause that is not training."""
        if keep and self.outputs:
            self.began += time.perf_counter() - self.last
            return
        self.outputs: list[tuple[int, dict[str, Any]]] = []
        self.updates: list[tuple[int, dict[str, Any]]] = []
        self.samples, self.wait = 0, 0.0
        self.began = self.last = time.perf_counter()

    def add(self, step: int, outputs: dict[str, Any], samples: int) -> None:
        """Keep the outputs of one batch."""
        self.outputs.append((step, outputs))
        self.samples += samples
        self.last = time.perf_counter()

    def add_update(self, step: int, outputs: dict[str, Any]) -> None:
        """Keep the outputs of the update that follows accumulated batches."""
        self.updates.append((step, outputs))
        self.last = time.perf_counter()

    def waited(self, seconds: float) -> None:
        """Add time spent waiting for the reader."""
        self.wait += seconds

    def check(self, program: Interface, update: Interface, last_saved: Path | None) -> None:
        """Raise DivergenceError if the loss or a parameter stopped being finite in this window."""
        for owner, entries in ((program, self.outputs), (update, self.updates)):
            for step, outputs in entries:
                finite = np.asarray(outputs["finite"])
                if not finite.all():
                    broken = [name for name, good in zip(owner.guarded, finite, strict=True) if not good]
                    names = ", ".join(broken[:4]) + (f" and {len(broken) - 4} more" if len(broken) > 4 else "")
                    kept = f"The last good checkpoint is {last_saved}. " if last_saved else ""
                    raise DivergenceError(
                        f"training diverged at step {step}: not a finite number: {names}. {kept}"
                        f"Lower --lr, clip the gradients, or look at the data of that step"
                    )

    def means(self) -> dict[str, float]:
        """Every output but `finite`, averaged over the window."""
        names = [name for name in self.outputs[-1][1] if name != "finite"]
        return {
            name: float(np.mean([np.mean(np.asarray(outputs[name], np.float64)) for _, outputs in self.outputs]))
            for name in names
        }


def _log(
    run: Run,
    program: Interface,
    update: Interface,
    window: Window,
    meta: Meta,
    total_steps: int,
    steps_per_epoch: int,
    last_saved: Path | None,
) -> str:
    window.check(program, update, last_saved)
    means = window.means()
    seconds = max(time.perf_counter() - window.began, 1e-9)
    rate, wait = window.samples / seconds, min(window.wait / seconds, 1.0)
    steps = len({step for step, _ in window.outputs})
    learning_rate = update.schedule(meta.step - 1)
    eta = seconds / steps * (total_steps - meta.step)
    memory = resident_megabytes()
    run.record("train", meta.step, **means, lr=learning_rate, samples_per_second=rate, data_wait=wait, memory_mb=memory)
    shown = " ".join(f"{name} {value:.4f}" for name, value in means.items())
    status = f"{shown} lr {learning_rate:.3g} {rate:.0f} samples/s wait {wait:.0%}"
    line = (
        f"step {meta.step}/{total_steps} epoch {meta.step / steps_per_epoch:.2f} {status} mem {memory:.0f} MB "
        f"eta {int(eta // 60)}:{int(eta % 60):02d}"
    )
    run.note(line)
    if not run.interactive:
        run.say(line, log=False)
    window.restart()
    return status


def _evaluate(
    run: Run, evaluate: Callable[[], dict[str, float]], meta: Meta, metric: str, higher_is_better: bool
) -> bool:
    began = time.perf_counter()
    meta.metrics = evaluate()
    value = meta.metrics[metric]
    improved = meta.best is None or (value > meta.best if higher_is_better else value < meta.best)
    if improved:
        meta.best, meta.best_step = value, meta.step
    meta.extra["stale_evaluations"] = 0 if improved else meta.extra.get("stale_evaluations", 0) + 1
    run.record("eval", meta.step, **meta.metrics, seconds=time.perf_counter() - began)
    shown = " ".join(f"{name} {result:.4f}" for name, result in meta.metrics.items())
    run.say(f"evaluation after step {meta.step}: {shown}{' (best so far)' if improved else ''}")
    return improved


def benchmark(
    run: Run,
    engine: Engine,
    program: Interface,
    open_batches: OpenBatches,
    *,
    warmup: int = 5,
    steps: int = 30,
) -> dict[str, float]:
    """Samples a second of the training loop with one batch fed again and again, of the reader alone, and of both.

    Returns (and records) `synthetic`, `reader`, `real` in samples/s of all hosts together, and `data_wait`, the share of the
    real loop's time spent waiting for the reader. The engine's state is trained on meanwhile and not worth keeping.
    """
    hosts = engine.num_hosts
    with open_batches(0) as source:
        batch = next(source)
        for _ in range(warmup):
            next(source)
        began, samples = time.perf_counter(), 0
        for _ in range(steps):
            samples += next(source).size
        reader = hosts * samples / (time.perf_counter() - began)

    feed = batch.feed
    for index in range(warmup):
        outputs = engine.run(program, feed, step=index)
        feed = engine.put(feed, program)
    np.asarray(outputs["loss"])
    began = time.perf_counter()
    for index in range(steps):
        outputs = engine.run(program, feed, step=index)
    np.asarray(outputs["loss"])
    synthetic = hosts * batch.size * steps / (time.perf_counter() - began)

    with open_batches(0) as source, prefetch(source, engine, program) as batches:
        for index in range(warmup):
            np.asarray(engine.run(program, next(batches).feed, step=index)["loss"])
        began, wait, samples = time.perf_counter(), 0.0, 0
        for index in range(steps):
            waiting = time.perf_counter()
            item = next(batches)
            wait += time.perf_counter() - waiting
            samples += item.size
            outputs = engine.run(program, item.feed, step=index)
        np.asarray(outputs["loss"])
        seconds = time.perf_counter() - began
    result = {
        "synthetic": synthetic,
        "reader": reader,
        "real": hosts * samples / seconds,
        "data_wait": wait / seconds,
        "batch_size": hosts * batch.size,
        "steps": steps,
    }
    run.record("benchmark", 0, **result)
    return result
