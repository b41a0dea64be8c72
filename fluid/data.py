"""Input batches: the same bits for a seed and a position, whatever the number of worker processes.

A `Source` reads one sample; this module decides which samples make up which batch, reads them in worker processes and
hands over finished batches. Four properties carry everything else:

* Which samples form a batch is a pure function of (seed, epoch), and a sample's random numbers come from (seed, epoch,
  sample index). So the position in the input is one integer, the number of batches consumed, and a run resumes to the
  same batches with any other number of workers.
* A training sample that cannot be read is replaced by one drawn from the same random numbers and is reported in the
  batch; too many of them end the run. In evaluation none is replaced.
* A batch is read whole by one worker, straight into memory shared with the main process, which copies nothing: the arrays
  of a `Batch` are views of that memory, and it is used again once the last view of it is gone.
* Workers are fresh interpreters that import the source's module and nothing else of the program.

Grain offers such a pipeline, but in version 0.2.18 its workers import jax and run the main script again (which imports
paddle), its shared memory outlives the program until a resource tracker cleans it up, and its state holds the number of
workers. Hence the small pool below.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Protocol, Self

from fluid.errors import DataError

import numpy as np

Plan = Callable[[int], Sequence[np.ndarray]]
"""epoch -> the sample indices of each batch of that epoch. Must be a pure function: it is called again on resume."""

# Keys that keep the streams of random numbers drawn from one seed apart.
_SHUFFLE, _SAMPLE, _REPLACEMENT = 0, 1, 2
# How many other samples are tried in the place of one that cannot be read.
_REPLACEMENT_TRIES = 20
# Batches in flight beyond one for each worker, so that a worker has its next task before its batch is collected.
_PREFETCH = 2
# Where an array starts inside a batch's memory: a cache line, which is also what lets JAX take it without a copy.
_ALIGNMENT = 64


class Source(Protocol):
    """Reads one sample. Must be picklable when workers are used, and of a class that lives in an importable module.

    Two optional methods: `where(index) -> str` names a sample in messages ("train_list.txt:17: images/7.jpg"), and
    `collate(samples) -> feed` makes the arrays of a batch from the list of its samples (the default stacks them, which
    asks for equal shapes); samples of different lengths are padded there.
    """

    def __len__(self) -> int: ...

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the sample's arrays by feed name. Raises `DataError` ("FILE:LINE: what") if it cannot be read."""
        ...


@dataclass
class Batch:
    """What one step consumes. `feed` arrays have shape [batch_size, ...]; they may be kept as long as needed."""

    feed: dict[str, np.ndarray]
    size: int  # rows that are real samples; the rest of an evaluation batch repeats the last one
    epoch: int
    index: int  # batches consumed before this one, over all epochs
    bad: list[str] = field(default_factory=list)  # messages of the samples that were replaced


def batches_per_epoch(source: Source, batch_size: int) -> int:
    """Training batches in one epoch: what is left over after the last full batch waits for another epoch's shuffle."""
    return len(source) // batch_size


def shuffled_plan(num_samples: int, batch_size: int, seed: int) -> Plan:
    """Each epoch is a new permutation of all samples cut into full batches."""

    def plan(epoch: int) -> np.ndarray:
        order = _generator(seed, _SHUFFLE, epoch).permutation(num_samples)
        full = num_samples // batch_size
        return order[: full * batch_size].reshape(full, batch_size)

    return plan


def training_batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    num_epochs: int | None = None,
    num_workers: int = 0,
    max_bad: int = 100,
    shard: tuple[int, int] = (0, 1),
    plan: Plan | None = None,
) -> Batches:
    """Iterate over shuffled training batches from position `start` (batches consumed before), for ever by default.

    Args:
        source: where samples come from.
        batch_size: samples in a batch, over all shards together.
        seed: of the shuffling and of every sample's random numbers.
        start: position to resume from; batch k is the same whether or not the ones before it were read.
        num_epochs: stop after so many epochs, counted from the first one (not from `start`).
        num_workers: processes that read; 0 reads in this one.
        max_bad: how many different samples may turn out to be unreadable before `DataError` ends the run. Each is
            replaced by a random other sample (of the same batch if there is a `plan`, so that lengths fit).
        shard: (i, n) reads the i-th of n equal parts of every batch.
        plan: the composition of the batches, for length buckets; `batch_size` is then only its author's business.

    Raises:
        DataError: fewer samples than one batch, too many unreadable samples, or a worker that died.
    """
    if num_workers < 0 or start < 0 or max_bad < 0:
        raise ValueError(f"{num_workers=}, {start=} and {max_bad=} must not be negative")
    if plan is None and len(source) < batch_size:
        raise DataError(
            f"{len(source)} training samples do not fill one batch of {batch_size}: "
            f"give a batch size of at most {len(source)}"
        )
    same_batch_only = plan is not None
    plan = plan or shuffled_plan(len(source), batch_size, seed)
    tasks = _training_tasks(plan, seed, start, num_epochs, shard, same_batch_only)
    return Batches(source, tasks, num_workers, max_bad)


def evaluation_batches(
    source: Source,
    batch_size: int,
    *,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    plan: Plan | None = None,
) -> Batches:
    """Iterate once over all samples in their order; every sample is in exactly one batch of exactly one shard.

    Every batch is filled to `batch_size` (its shard of it) by repeating its last sample, `Batch.size` counts the real
    ones. All shards see the same number of batches, the last ones possibly of size 0. `plan(0)` may group the samples
    differently, in batches of at most `batch_size`.

    Raises:
        DataError: a sample cannot be read (none is ever skipped), there is no sample, or a worker died.
    """
    if num_workers < 0:
        raise ValueError(f"{num_workers=} must not be negative")
    if len(source) == 0:
        raise DataError("there is no sample to evaluate")
    if plan is None:
        groups = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    else:
        groups = [np.asarray(indices) for indices in plan(0)]
        if not np.array_equal(np.sort(np.concatenate(groups)), np.arange(len(source))):
            raise ValueError("the plan of an evaluation must hold every sample exactly once")
        if max(map(len, groups)) > batch_size:
            raise ValueError(f"the plan holds a batch of {max(map(len, groups))} samples, more than {batch_size=}")
    return Batches(source, _evaluation_tasks(groups, batch_size, shard), num_workers, max_bad=0)


def repeat_batch(feed: dict[str, np.ndarray], num_batches: int | None = None) -> Iterator[Batch]:
    """The same arrays again and again, at no cost: the input of a benchmark of everything but the input."""
    size = len(next(iter(feed.values())))
    index = 0
    while num_batches is None or index < num_batches:
        yield Batch(feed, size, epoch=0, index=index)
        index += 1


class SyntheticSource:
    """Random samples that cost nothing to make, to measure the pipeline by itself.

    Args:
        fields: feed name -> (shape of a sample, dtype, exclusive upper limit of the integers or of the floats).
        length: number of samples.
    """

    def __init__(self, fields: dict[str, tuple[tuple[int, ...], str, float]], length: int) -> None:
        rng = _generator(0, _SAMPLE, 0)
        self.length = length
        self.sample = {name: (rng.random(shape) * high).astype(dtype) for name, (shape, dtype, high) in fields.items()}

    def __len__(self) -> int:
        return self.length

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return self.sample


# Tasks: which samples a batch is made of.


@dataclass(frozen=True)
class _Task:
    """One batch, as a worker needs to know it."""

    indices: np.ndarray  # samples to read, [size]
    rows: int  # rows of the batch; those beyond the samples repeat the last one
    size: int  # rows that count: 0 where a shard has only padding
    epoch: int
    index: int
    seed: int = 0
    replace: bool = False  # whether an unreadable sample is replaced
    candidates: np.ndarray | None = None  # by one of these, or by any sample


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _training_tasks(
    plan: Plan, seed: int, start: int, num_epochs: int | None, shard: tuple[int, int], same_batch_only: bool
) -> Iterator[_Task]:
    epoch, index = 0, 0
    while num_epochs is None or epoch < num_epochs:
        batches = plan(epoch)
        if len(batches) == 0:
            raise ValueError(f"the plan holds no batch in epoch {epoch}")
        skipped = min(max(start - index, 0), len(batches))
        index += skipped
        for whole in batches[skipped:]:
            part = _shard(np.asarray(whole), shard)
            candidates = np.asarray(whole) if same_batch_only else None
            yield _Task(part, len(part), len(part), epoch, index, seed, replace=True, candidates=candidates)
            index += 1
        epoch += 1


def _evaluation_tasks(groups: list[np.ndarray], batch_size: int, shard: tuple[int, int]) -> Iterator[_Task]:
    for index, indices in enumerate(groups):
        padded = np.concatenate([indices, np.full(batch_size - len(indices), -1)])
        part = _shard(padded, shard)
        real = part[part >= 0]
        read = real if len(real) else indices[-1:]
        yield _Task(read, len(part), len(real), epoch=0, index=index)


def _shard(indices: np.ndarray, shard: tuple[int, int]) -> np.ndarray:
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard {shard} is not one of 0..{parts - 1}")
    if len(indices) % parts:
        raise ValueError(f"a batch of {len(indices)} samples cannot be divided into {parts} equal shards")
    rows = len(indices) // parts
    return indices[part * rows : (part + 1) * rows]


# Reading: the same code in a worker and in the main process.

Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


def _read_batch(
    source: Source, task: _Task, allocate: Callable[[Layout], dict[str, np.ndarray]], progress: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
    """Read the samples of `task` into arrays from `allocate`; also return (index, message) of those replaced."""
    collate = getattr(source, "collate", None)
    samples: list[dict[str, np.ndarray]] = []
    feed: dict[str, np.ndarray] = {}
    bad: list[tuple[int, str]] = []
    for row, index in enumerate(task.indices.tolist()):
        sample = _read_sample(source, index, task, bad, progress)
        if collate:
            samples.append(sample)
            continue
        if row == 0:
            feed = allocate({name: ((task.rows, *np.shape(v)), np.asarray(v).dtype) for name, v in sample.items()})
        _store(feed, row, sample, source, index)
    if collate:
        arrays = collate(samples + samples[-1:] * (task.rows - len(samples)))
        feed = allocate({name: (a.shape, a.dtype) for name, a in arrays.items()})
        for name, array in arrays.items():
            feed[name][...] = array
    else:
        for array in feed.values():
            array[len(task.indices) :] = array[len(task.indices) - 1]
    return feed, bad


def _read_sample(
    source: Source, index: int, task: _Task, bad: list[tuple[int, str]], progress: np.ndarray | None
) -> dict[str, np.ndarray]:
    rng, draw = _generator(task.seed, _SAMPLE, task.epoch, index), None
    for _ in range(_REPLACEMENT_TRIES):
        if progress is not None:
            progress[0] = index
        try:
            return source.load(index, rng)
        except DataError as error:
            if not task.replace:
                raise
            bad.append((index, str(error)))
        except Exception as error:
            error.add_note(f"while reading {_where(source, index)}")
            raise
        if draw is None:
            draw = rng = _generator(task.seed, _REPLACEMENT, task.epoch, index)
        index = int(draw.integers(len(source)) if task.candidates is None else draw.choice(task.candidates))
    raise DataError(f"{_REPLACEMENT_TRIES} samples in a row cannot be read; the last one: {bad[-1][1]}")


def _store(feed: dict[str, np.ndarray], row: int, sample: dict[str, np.ndarray], source: Source, index: int) -> None:
    if sample.keys() != feed.keys():
        raise ValueError(f"{_where(source, index)}: has fields {list(sample)}, the batch has {list(feed)}")
    for name, value in sample.items():
        value, rows = np.asarray(value), feed[name]
        if (value.shape, value.dtype) != (rows.shape[1:], rows.dtype):
            raise ValueError(
                f"{_where(source, index)}: {name} is {value.dtype}{list(value.shape)}, "
                f"in the first sample of the batch {rows.dtype}{list(rows.shape[1:])}"
            )
        rows[row] = value


def _where(source: Source, index: int) -> str:
    where = getattr(source, "where", None)
    return where(index) if where else f"sample {index}"


def _empty_arrays(layout: Layout) -> dict[str, np.ndarray]:
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}


class Batches(Iterator[Batch]):
    """Iterator over batches; close it (or leave its `with` block) to end the workers. An error closes it too."""

    def __init__(self, source: Source, tasks: Iterator[_Task], num_workers: int, max_bad: int) -> None:
        self._source = source
        self._tasks = tasks
        self._max_bad = max_bad
        self._bad: dict[int, str] = {}
        self._pool = _Pool(source, num_workers) if num_workers else None
        self._in_flight: deque[_Task] = deque()
        self._window = num_workers + _PREFETCH
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        if self._closed:
            raise StopIteration
        try:
            task, feed, bad = self._read_here() if self._pool is None else self._collect(self._pool)
            self._count(bad)
        except BaseException:
            self.close()
            raise
        return Batch(feed, task.size, task.epoch, task.index, [message for _, message in bad])

    def close(self) -> None:
        """End the workers. Batches already handed over stay valid."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    def _read_here(self) -> tuple[_Task, dict[str, np.ndarray], list[tuple[int, str]]]:
        task = next(self._tasks)
        return task, *_read_batch(self._source, task, _empty_arrays)

    def _collect(self, pool: _Pool) -> tuple[_Task, dict[str, np.ndarray], list[tuple[int, str]]]:
        while len(self._in_flight) < self._window and (task := next(self._tasks, None)) is not None:
            self._in_flight.append(task)
            pool.submit(task)
        if not self._in_flight:
            raise StopIteration
        task = self._in_flight.popleft()
        return task, *pool.result(task)

    def _count(self, bad: list[tuple[int, str]]) -> None:
        self._bad.update(bad)
        if len(self._bad) > self._max_bad:
            shown = list(self._bad.values())[:5]
            raise DataError(
                f"{len(self._bad)} unreadable training samples, more than the {self._max_bad} allowed:\n  "
                + "\n  ".join(shown)
                + ("\n  ..." if len(self._bad) > len(shown) else "")
            )


# The pool: worker k reads tasks k, k + n, k + 2n, ..., so that the next batch always comes from a known worker.


class _Pool:
    def __init__(self, source: Source, num_workers: int) -> None:
        self._source = source
        description, arrays = _dump_source(source)
        self._progress_file = _anonymous_file(8 * num_workers)
        self._progress = np.frombuffer(mmap.mmap(self._progress_file, 8 * num_workers), np.int64)
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _stop, self._workers)
        try:
            for number in range(num_workers):
                self._workers.append(_Worker(number, description, arrays, self._progress_file))
        finally:
            os.close(arrays)
            os.close(self._progress_file)

    def submit(self, task: _Task) -> None:
        worker = self._workers[task.index % len(self._workers)]
        with contextlib.suppress(OSError):  # of a worker that is gone; result() tells why
            worker.connection.send((worker.free_slot(), task))

    def result(self, task: _Task) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
        worker = self._workers[task.index % len(self._workers)]
        try:
            reply = worker.connection.recv()
            if isinstance(reply, _Failure):
                raise reply.error from RuntimeError(f"in data worker {worker.number}:\n{reply.traceback}")
            slot, size, grown, layout, bad = reply
            if grown:
                worker.map_slot(slot, size)
        except (EOFError, OSError):
            self._raise_death(worker, task)
        return _arrays_in(worker.lease(slot), layout), bad

    def close(self) -> None:
        self._finalizer()

    def _raise_death(self, worker: _Worker, task: _Task) -> None:
        code = worker.process.wait()
        cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        index = int(self._progress[worker.number])
        last = f"; it was reading {_where(self._source, index)}" if index >= 0 else ""
        raise DataError(
            f"data worker {worker.number} (pid {worker.process.pid}) {cause} before batch {task.index}{last}. "
            "A killed worker usually means that memory ran out: lower --num_workers or --batch_size. "
            "A crash usually means that this file breaks its decoder."
        ) from None


class _Worker:
    """The main process's end of one worker, and the memory it shares with it, a slot a batch."""

    def __init__(self, number: int, source: bytes, arrays: int, progress: int) -> None:
        self.number = number
        self.slots: dict[int, mmap.mmap] = {}
        self.free: list[int] = []
        ours, theirs = socket.socketpair()
        with theirs:
            # Ctrl-C in a terminal reaches every process of the group; blocking it here keeps it from a worker that has
            # not yet got round to ignoring it.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _BOOT, json.dumps([sys.path, theirs.fileno(), arrays, progress, number])],
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), arrays, progress),
                    env=os.environ | _ONE_THREAD,
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.connection = Connection(ours.detach())
        self.connection.send_bytes(source)

    def free_slot(self) -> int:
        if not self.free:
            self.slots[len(self.slots)] = None
            self.free.append(len(self.slots) - 1)
        return self.free.pop()

    def map_slot(self, slot: int, size: int) -> None:
        descriptor = recv_handle(self.connection)
        self.slots[slot] = mmap.mmap(descriptor, size)
        os.close(descriptor)

    def lease(self, slot: int) -> np.ndarray:
        """The slot's memory as bytes; the slot is free again once this array and every view of it are gone."""
        memory = np.frombuffer(self.slots[slot], np.uint8)
        weakref.finalize(memory, self.free.append, slot).atexit = False
        return memory


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.connection.close()  # a worker ends when its connection does
    for worker in workers:
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def _anonymous_file(size: int) -> int:
    """A file without a name, in memory where the system has that: nothing is left behind however the processes end."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batch")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        # Reserve the memory now: running out of it later would be a bus error, not an exception.
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, max(size, 1))
        else:
            os.truncate(descriptor, max(size, 1))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _dump_source(source: Source) -> tuple[bytes, int]:
    """Pickle `source` with its large arrays apart, in one file that all workers map: they exist once in memory."""
    if type(source).__module__ == "__main__":
        raise ValueError(
            f"{type(source).__name__} must be defined in a module that workers can import, not in a script"
        )
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(source, protocol=5, buffer_callback=buffers.append)
    views = [buffer.raw() for buffer in buffers]
    offsets = np.cumsum([0] + [_aligned(view.nbytes) for view in views]).tolist()
    descriptor = _anonymous_file(offsets[-1])
    with mmap.mmap(descriptor, max(offsets[-1], 1)) as memory:
        for view, offset in zip(views, offsets):
            memory[offset : offset + view.nbytes] = view
    return pickle.dumps((body, [(offset, view.nbytes) for view, offset in zip(views, offsets)])), descriptor


def _load_source(description: bytes, descriptor: int) -> Source:
    body, spans = pickle.loads(description)
    memory = memoryview(mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ))
    return pickle.loads(body, buffers=[memory[offset : offset + size] for offset, size in spans])


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _arrays_in(memory: np.ndarray, layout: list[tuple[str, tuple[int, ...], str, int]]) -> dict[str, np.ndarray]:
    feed = {}
    for name, shape, dtype, offset in layout:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        feed[name] = memory[offset : offset + size].view(dtype).reshape(shape)
    return feed


# What runs in a worker.

_BOOT = (
    "import json, sys\n"
    "path, *rest = json.loads(sys.argv[1])\n"
    "sys.path[:] = path\n"
    "from fluid.data import _worker_main\n"
    "_worker_main(*rest)\n"
)
# One process a core is the parallelism; libraries that start a thread a core on top of it only get in each other's way.
_ONE_THREAD = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"], "1"
)


@dataclass
class _Failure:
    """An exception on its way to the main process."""

    error: Exception
    traceback: str


def _worker_main(connection: int, arrays: int, progress: int, number: int) -> None:
    # The main process decides when to stop: it finishes its step and saves first.
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    link = Connection(connection)
    description = link.recv_bytes()
    tasks: queue.SimpleQueue[tuple[int, _Task]] = queue.SimpleQueue()
    threading.Thread(target=_receive_tasks, args=(link, tasks), daemon=True).start()
    current = np.frombuffer(mmap.mmap(progress, 0), np.int64)[number : number + 1]
    current[0] = -1
    slots: dict[int, mmap.mmap] = {}
    try:
        source = _load_source(description, arrays)
    except Exception as error:
        _send_failure(link, error)
        return
    while True:
        slot, task = tasks.get()
        try:
            _serve(source, slot, task, slots, link, current)
        except BrokenPipeError:
            return
        except Exception as error:
            _send_failure(link, error)


def _receive_tasks(link: Connection, tasks: queue.SimpleQueue) -> None:
    """Pass tasks on; end the process, in the middle of a sample if need be, when the main process is gone."""
    parent = os.getppid()
    try:
        while True:
            if link.poll(1.0):
                tasks.put(link.recv())
            elif os.getppid() != parent:
                break
    except (EOFError, OSError):
        pass
    os._exit(0)


def _serve(
    source: Source, slot: int, task: _Task, slots: dict[int, mmap.mmap], link: Connection, current: np.ndarray
) -> None:
    layout: list[tuple[str, tuple[int, ...], str, int]] = []
    size, descriptor = 0, None

    def allocate(arrays: Layout) -> dict[str, np.ndarray]:
        nonlocal size, descriptor
        for name, (shape, dtype) in arrays.items():
            if dtype.hasobject:
                raise TypeError(f"{name} has dtype {dtype}; a batch holds numbers only")
            layout.append((name, shape, dtype.str, size))
            size += _aligned(int(np.prod(shape)) * dtype.itemsize)
        if slot not in slots or len(slots[slot]) < size:
            descriptor = _anonymous_file(size)
            slots[slot] = mmap.mmap(descriptor, size)
        return _arrays_in(np.frombuffer(slots[slot], np.uint8), layout)

    _, bad = _read_batch(source, task, allocate, current)
    current[0] = -1
    link.send((slot, size, descriptor is not None, layout, bad))
    if descriptor is not None:
        send_handle(link, descriptor, None)
        os.close(descriptor)


def _send_failure(link: Connection, error: Exception) -> None:
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # Exceptions whose constructor asks for more than a message do not survive pickling.
        error = RuntimeError(f"{type(error).__name__}: {error}")
    link.send(_Failure(error, text))
