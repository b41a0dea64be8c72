"""Input batches: the same bits for a seed and a position, whatever the number of worker processes.

A `Source` reads one sample; this module decides which samples make up which batch, reads them in worker processes and
hands over finished batches. Three properties carry everything else:

* Which samples form a batch is a pure function of (seed, epoch), and a sample's random numbers come from (seed, epoch,
  sample index). So the position in the input is one integer, the number of batches consumed, and a run resumes to the
  same batches with any other number of workers.
* A training sample that cannot be read is replaced by one drawn from the same random numbers and is reported in the
  batch; too many of them end the run. In evaluation none is replaced.
* A batch is read whole by one worker into shared memory; the main process copies nothing (fluid/workers.py).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from fluid.errors import DataError
from fluid.workers import Allocate, Layout, Pool

import numpy as np

Plan = Callable[[int], Sequence[np.ndarray]]
"""epoch -> the sample indices of each batch of that epoch. Must be a pure function: it is called again on resume."""

# Keys that keep the streams of random numbers drawn from one seed apart.
_SHUFFLE, _SAMPLE, _REPLACEMENT = 0, 1, 2
# How many other samples are tried in the place of one that cannot be read.
_REPLACEMENT_TRIES = 20
# Batches in flight beyond one for each worker, so that a worker has its next task before its batch is collected.
_PREFETCH = 2


class Source(Protocol):
    """Reads one sample. Must be picklable when workers are used, and of a class that lives in an importable module.

    Three optional methods: `where(index) -> str` names a sample in messages ("train_list.txt:17: images/7.jpg").
    `collate(samples) -> feed` makes the arrays of a batch from the list of its samples (the default stacks them, which
    asks for equal shapes); samples of different lengths are padded there. `load_all(indices) -> feed` takes the place of
    both where samples lie in memory, need no random numbers and cannot be unreadable: a thousand at once are faster.
    """

    def __len__(self) -> int: ...

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Return the sample's arrays by feed name. Raises `DataError` ("FILE:LINE: what") if it cannot be read."""
        ...


@dataclass
class Batch:
    """What one step consumes. `feed` arrays have shape [batch_size, ...]; they may be kept as long as needed."""

    feed: dict[str, np.ndarray]
    size: int  # rows that are real samples
    epoch: int
    index: int  # batches consumed before this one, over all epochs
    bad: list[str] = field(default_factory=list)  # messages of the samples that were replaced
    padding: int = 0  # rows after the real ones, which repeat the last of them

    @property
    def mask(self) -> np.ndarray:
        """bool [rows]: True for real samples, False for the rows that fill up an evaluation batch."""
        return np.arange(self.size + self.padding) < self.size


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
    if plan is None:
        first_epoch = start // batches_per_epoch(source, batch_size)
        position = first_epoch * batches_per_epoch(source, batch_size)
        epochs = _epochs(shuffled_plan(len(source), batch_size, seed), first_epoch, num_epochs)
        tasks = _training_tasks(epochs, seed, position, start, shard, replace_within_batch=False)
    else:
        tasks = _training_tasks(_epochs(plan, 0, num_epochs), seed, 0, start, shard, replace_within_batch=True)
    return Batches(source, tasks, num_workers, max_bad)


def evaluation_batches(
    source: Source,
    batch_size: int,
    *,
    num_workers: int = 0,
    shard: tuple[int, int] = (0, 1),
    plan: Plan | None = None,
    mask: str | None = None,
) -> Batches:
    """Iterate once over all samples in their order; every sample is in exactly one batch of exactly one shard.

    Every batch is filled to `batch_size` (its shard of it) by repeating its last sample; `Batch.size` counts the real
    ones, `Batch.mask` marks them, and a Program that counts on the device takes the marks as the bool input that `mask`
    names. All shards see the same number of batches, the last ones possibly of size 0. `plan(0)` may group the samples
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
    return Batches(source, _evaluation_tasks(groups, batch_size, shard), num_workers, max_bad=0, mask=mask)


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


def _epochs(plan: Plan, first: int, end: int | None) -> Iterator[tuple[int, Sequence[np.ndarray]]]:
    for epoch in itertools.count(first) if end is None else range(first, end):
        batches = plan(epoch)
        if len(batches) == 0:
            raise ValueError(f"the plan holds no batch in epoch {epoch}")
        yield epoch, batches


def _training_tasks(
    epochs: Iterator[tuple[int, Sequence[np.ndarray]]],
    seed: int,
    position: int,
    start: int,
    shard: tuple[int, int],
    replace_within_batch: bool,
) -> Iterator[_Task]:
    """The batches from `start` on, of epochs whose first batch is number `position`."""
    for epoch, batches in epochs:
        for index, whole in enumerate(batches, position):
            if index >= start:
                part = _shard(np.asarray(whole), shard)
                candidates = np.asarray(whole) if replace_within_batch else None
                yield _Task(part, len(part), len(part), epoch, index, seed, replace=True, candidates=candidates)
        position += len(batches)


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


@dataclass
class _Reader:
    """Reads batches; what a worker is given."""

    source: Source

    def where(self, index: int) -> str:
        where = getattr(self.source, "where", None)
        return where(index) if where else f"sample {index}"

    def read(
        self, task: _Task, allocate: Allocate, progress: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[tuple[int, str]]]:
        """Read the samples of `task` into arrays from `allocate`; also return (index, message) of those replaced."""
        bad: list[tuple[int, str]] = []
        if load_all := getattr(self.source, "load_all", None):
            padding = np.repeat(task.indices[-1:], task.rows - len(task.indices))
            return _copied(load_all(np.concatenate([task.indices, padding])), allocate), bad
        samples = (self._read_sample(index, task, bad, progress) for index in task.indices.tolist())
        if collate := getattr(self.source, "collate", None):
            listed = [sample for _, sample in samples]
            return _copied(collate(listed + listed[-1:] * (task.rows - len(listed))), allocate), bad
        feed = {}
        for row, (index, sample) in enumerate(samples):
            if row == 0:
                feed = allocate({name: ((task.rows, *np.shape(v)), np.asarray(v).dtype) for name, v in sample.items()})
            self._store(feed, row, sample, index)
        for array in feed.values():
            array[len(task.indices) :] = array[len(task.indices) - 1]
        return feed, bad

    def _read_sample(
        self, index: int, task: _Task, bad: list[tuple[int, str]], progress: np.ndarray
    ) -> tuple[int, dict[str, np.ndarray]]:
        rng, draw = _generator(task.seed, _SAMPLE, task.epoch, index), None
        for _ in range(_REPLACEMENT_TRIES):
            progress[0] = index
            try:
                return index, self.source.load(index, rng)
            except DataError as error:
                if not task.replace:
                    raise
                bad.append((index, str(error)))
            except Exception as error:
                error.add_note(f"while reading {self.where(index)}")
                raise
            if draw is None:
                draw = rng = _generator(task.seed, _REPLACEMENT, task.epoch, index)
            index = int(draw.integers(len(self.source)) if task.candidates is None else draw.choice(task.candidates))
        raise DataError(f"{_REPLACEMENT_TRIES} samples in a row cannot be read; the last one: {bad[-1][1]}")

    def _store(self, feed: dict[str, np.ndarray], row: int, sample: dict[str, np.ndarray], index: int) -> None:
        if sample.keys() != feed.keys():
            raise ValueError(f"{self.where(index)}: has fields {list(sample)}, the batch has {list(feed)}")
        for name, value in sample.items():
            value, rows = np.asarray(value), feed[name]
            if (value.shape, value.dtype) != (rows.shape[1:], rows.dtype):
                raise ValueError(
                    f"{self.where(index)}: {name} is {value.dtype}{list(value.shape)}, "
                    f"in the first sample of the batch {rows.dtype}{list(rows.shape[1:])}"
                )
            rows[row] = value


def _copied(arrays: dict[str, np.ndarray], allocate: Allocate) -> dict[str, np.ndarray]:
    feed = allocate({name: (array.shape, array.dtype) for name, array in arrays.items()})
    for name, array in arrays.items():
        feed[name][...] = array
    return feed


def _empty_arrays(layout: Layout) -> dict[str, np.ndarray]:
    return {name: np.empty(shape, dtype) for name, (shape, dtype) in layout.items()}


class Batches(Iterator[Batch]):
    """Iterator over batches; close it (or leave its `with` block) to end the workers. An error closes it too."""

    def __init__(
        self, source: Source, tasks: Iterator[_Task], num_workers: int, max_bad: int, mask: str | None = None
    ) -> None:
        if num_workers and type(source).__module__ == "__main__":
            raise ValueError(
                f"{type(source).__name__} must be defined in a module that workers can import, not a script"
            )
        self._reader = _Reader(source)
        self._tasks = tasks
        self._max_bad = max_bad
        self._mask = mask
        self._bad: dict[int, str] = {}
        self._pool = Pool(self._reader, num_workers) if num_workers else None
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
            task, feed, bad = self._read_here() if self._pool is None else self._read_ahead(self._pool)
            self._count(bad)
            messages = [message for _, message in bad]
            batch = Batch(feed, task.size, task.epoch, task.index, messages, task.rows - task.size)
            self._feed_mask(batch)
        except BaseException:
            self.close()
            raise
        return batch

    def close(self) -> None:
        """End the workers. Batches already handed over stay valid."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    def _read_here(self) -> tuple[_Task, dict[str, np.ndarray], list[tuple[int, str]]]:
        task = next(self._tasks)
        return task, *self._reader.read(task, _empty_arrays, progress=np.empty(1, np.int64))

    def _read_ahead(self, pool: Pool) -> tuple[_Task, dict[str, np.ndarray], list[tuple[int, str]]]:
        while len(self._in_flight) < self._window and (task := next(self._tasks, None)) is not None:
            self._in_flight.append(task)
            pool.submit(task.index, task)
        if not self._in_flight:
            raise StopIteration
        task = self._in_flight.popleft()
        return task, *pool.result(task.index)

    def _feed_mask(self, batch: Batch) -> None:
        if self._mask is not None:
            if self._mask in batch.feed:
                raise ValueError(f"the samples have a field '{self._mask}' of their own: give the mask another name")
            batch.feed[self._mask] = batch.mask

    def _count(self, bad: list[tuple[int, str]]) -> None:
        self._bad.update(bad)
        if len(self._bad) > self._max_bad:
            shown = list(self._bad.values())[:5]
            raise DataError(
                f"{len(self._bad)} unreadable training samples, more than the {self._max_bad} allowed:\n  "
                + "\n  ".join(shown)
                + ("\n  ..." if len(self._bad) > len(shown) else "")
            )
