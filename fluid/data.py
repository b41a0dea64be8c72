"""Input batches: the same bits for a seed and a position, whatever the number of worker processes.

A `Source` reads one sample, a `BatchSource` those of a batch; this module decides which samples make up which batch, reads
them in worker processes and hands over finished batches. Four properties carry everything else:

* Which samples form a batch is a pure function of (seed, epoch), and a sample's random numbers come from (seed, epoch,
  sample index). So the position in the input is one integer, the number of batches consumed, and a run resumes to the
  same batches with any other number of workers.
* Of several processes that train together each reads its own share of a batch, and knows the whole batch's samples: so
  all of them give it the same shape.
* A training sample that cannot be read is replaced by one drawn from the same random numbers and is reported in the
  batch; too many of them end the run. In evaluation none is replaced.
* A batch is read whole by one worker into shared memory; the main process copies nothing (fluid/workers.py).
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from fluid.errors import DataError
from fluid.reading import CHOICE, SHUFFLE, Ended, Feed, Reader, Sample, StreamReader, Task, generator
from fluid.text import number_of
from fluid.workers import Pool, empty_arrays

import numpy as np

Plan = Callable[[int], Sequence[np.ndarray | tuple[np.ndarray, Any]]]
"""epoch -> the sample indices of each batch of that epoch, or (indices, choice); see `with_choices`.

Must be a pure function: it is called again on resume.
"""
PlainPlan = Callable[[int], Sequence[np.ndarray]]
"""A plan without choices."""

# Batches in flight beyond one for each worker, so that a worker has its next task before its batch is collected.
_PREFETCH = 2


class EndlessSource(Protocol):
    """Makes samples from random numbers, or finds them in the outside world; how many are an epoch is the caller's word.

    Everything else is as in a `Source`.
    """

    @property
    def load(self) -> Callable[..., Sample]:
        """`load(index, rng) -> sample`, or `load(index, rng, choice)`."""
        ...


class Source(EndlessSource, Protocol):
    """Reads one sample. Must be picklable when workers are used, and of a class that lives in an importable module.

    `load(index, rng)` returns the sample's arrays by feed name. It raises `DataError` ("FILE:LINE: what") if the sample
    cannot be read. Where the plan names a choice for each batch (a crop size, a scale), this is the last argument of
    `load`, and of `collate` below.

    Two optional methods:

    * `where(index) -> str` names a sample in messages ("train_list.txt:17: images/7.jpg").
    * `collate(samples, whole, allocate) -> feed` makes the arrays of a batch from the list of its samples (the default
      stacks them, which asks for equal shapes); samples of different lengths are padded there. `whole` are the indices
      of the whole batch, [rows of all processes]: the shape must follow from them, not from the samples, of which each
      process has only its share (see fluid/buckets.py). The arrays come, uninitialised, from one call of
      `allocate({name: (shape, dtype)})`, are filled and returned: in a worker they are the shared memory itself.
    """

    def __len__(self) -> int: ...


class BatchSource(Protocol):
    """Reads a batch at once, which is faster where samples lie in memory, need no random numbers and cannot be unreadable.

    Everything else, `where` included, is as in a `Source`.
    """

    @property
    def load_all(self) -> Callable[..., Feed]:
        """`load_all(indices, whole, allocate) -> feed`, or with a choice last: `load` and `collate` of a `Source` in one."""
        ...

    def __len__(self) -> int: ...


class Stream(Protocol):
    """Samples that can only be read one after the other: a generator, a tar file, an archive of features.

    `collate` and `where` are as in a `Source`, with the number of a sample within its epoch as its index. A sample that
    cannot be read ends the run. One worker reads all of it, more have nothing to do; and of several processes each reads
    the whole stream, of which it takes its share.
    """

    def stream(self, epoch: int, rng: np.random.Generator) -> Iterable[Sample]:
        """The samples of an epoch from its first on, without end or until there are no more."""
        ...


@dataclass
class Batch:
    """What one step consumes. `feed` arrays have shape [rows, ...]; they may be kept as long as needed."""

    feed: Feed
    size: int  # rows that are real samples
    epoch: int
    index: int  # batches consumed before this one, over all epochs
    bad: list[str] = field(default_factory=list)  # messages of the samples that were replaced
    padding: int = 0  # rows after the real ones, which repeat the last of them
    where: Callable[[int], str] = "row {}".format  # the sample of a row, for messages
    indices: np.ndarray | None = None  # the sample of each row, where batches come from a source

    @property
    def mask(self) -> np.ndarray:
        """bool [rows]: True for real samples, False for the rows that fill up an evaluation batch."""
        return np.arange(self.size + self.padding) < self.size


def check_batch_size(batch_size: int) -> None:
    """Raise DataError unless a batch holds something."""
    if batch_size < 1:
        raise DataError(f"a batch size of {batch_size} makes no batch: it must be at least 1")


def batches_per_epoch(source: Sized, batch_size: int) -> int:
    """Training batches in one epoch: what is left over after the last full batch waits for another epoch's shuffle.

    Raises DataError unless the batch size is positive.
    """
    check_batch_size(batch_size)
    return len(source) // batch_size


def batches_for_all(samples: int, batch_size: int) -> int:
    """Batches that hold `samples` samples, the last one perhaps in part. Raises DataError unless the batch size is positive."""
    check_batch_size(batch_size)
    return math.ceil(samples / batch_size)


def shuffled_plan(num_samples: int, batch_size: int, seed: int) -> PlainPlan:
    """Each epoch is a new permutation of all samples cut into full batches."""

    def plan(epoch: int) -> list[np.ndarray]:
        return _full_batches(generator(seed, SHUFFLE, epoch).permutation(num_samples), batch_size)

    return plan


def with_choices(plan: PlainPlan, choose: Callable[[np.random.Generator], Any], seed: int) -> Plan:
    """The batches of `plan`, each with something drawn for it: the crop size of its images, say.

    `choose` draws from random numbers of (seed, epoch, number of the batch in its epoch), so that every process and every
    resumed run finds the same.
    """

    def chosen(epoch: int) -> list[tuple[np.ndarray, Any]]:
        return [(indices, choose(generator(seed, CHOICE, epoch, number))) for number, indices in enumerate(plan(epoch))]

    return chosen


def training_batches(
    source: EndlessSource | BatchSource | Stream,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    num_epochs: int | None = None,
    num_workers: int = 0,
    max_bad: int = 100,
    shard: tuple[int, int] = (0, 1),
    plan: Plan | None = None,
    epoch_length: int | None = None,
) -> Batches:
    """Iterate over shuffled training batches from position `start` (batches consumed before), for ever by default.

    Args:
        source: where samples come from. A stream's are not shuffled, and one that ends, ends the batches.
        batch_size: samples in a batch, over all shards together.
        seed: of the shuffling and of every sample's random numbers.
        start: position to resume from; batch k is the same whether or not the ones before it were read. Those of the
            same epoch are read over where the source is a stream.
        num_epochs: stop after so many epochs, counted from the first one (not from `start`).
        num_workers: processes that read; 0 reads in this one.
        max_bad: how many different samples may turn out to be unreadable before `DataError` ends the run. Each is
            replaced by a random other sample (of the same batch if there is a `plan` or the source has a `collate`, so
            that lengths fit).
        shard: (i, n) reads the i-th of n equal parts of every batch.
        plan: the composition of the batches, for length buckets; `batch_size` is then only its author's business.
        epoch_length: samples in an epoch of an endless source or of a stream; without it, a stream is read once.

    Raises:
        DataError: a batch size below 1, fewer samples than one batch, too many unreadable samples, or a worker that died.
    """
    if num_workers < 0 or start < 0 or max_bad < 0:
        raise ValueError(f"{num_workers=}, {start=} and {max_bad=} must not be negative")
    check_batch_size(batch_size)
    epochs, position = _epochs_from(start, source, batch_size, seed, plan, num_epochs, epoch_length)
    within_batch = plan is not None or hasattr(source, "collate") or not isinstance(source, Sized)
    return Batches(source, _training_tasks(epochs, seed, position, start, shard, within_batch), num_workers, max_bad)


def evaluation_batches(
    source: Source | BatchSource,
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
        DataError: a sample cannot be read (none is ever skipped), there is no sample, a batch size below 1, or a worker
            died.
    """
    if num_workers < 0:
        raise ValueError(f"{num_workers=} must not be negative")
    check_batch_size(batch_size)
    if len(source) == 0:
        raise DataError("there is no sample to evaluate")
    in_order = [np.arange(i, min(i + batch_size, len(source))) for i in range(0, len(source), batch_size)]
    groups = in_order if plan is None else plan(0)
    _check_evaluation(groups, len(source), batch_size)
    # More workers than batches would have nothing to do.
    workers = min(num_workers, len(groups))
    return Batches(source, _evaluation_tasks(groups, batch_size, shard), workers, max_bad=0, mask=mask)


# Tasks: which samples a batch is made of.

_Planned = np.ndarray | tuple[np.ndarray, Any]
_Epochs = Iterator[tuple[int, Iterable[_Planned]]]


def _full_batches(order: np.ndarray, batch_size: int) -> list[np.ndarray]:
    full = len(order) // batch_size
    return list(order[: full * batch_size].reshape(full, batch_size))


def _epochs_from(
    start: int,
    source: EndlessSource | BatchSource | Stream,
    batch_size: int,
    seed: int,
    plan: Plan | None,
    num_epochs: int | None,
    epoch_length: int | None,
) -> tuple[_Epochs, int]:
    """The batches of epochs up to the last, from that of batch `start` or an earlier one; and the number of the first."""
    streamed = hasattr(source, "stream")
    if plan is not None:
        if streamed or epoch_length is not None:
            raise ValueError("with a plan there is no epoch_length, and a stream has an order of its own")
        return _epochs(plan, 0, num_epochs), 0
    if isinstance(source, Sized) and not streamed:
        if epoch_length is not None:
            raise ValueError("epoch_length is for a source that has no length of its own")
        length, plan = len(source), shuffled_plan(len(source), batch_size, seed)
    elif epoch_length is not None:
        length, plan = epoch_length, lambda epoch: _full_batches(np.arange(epoch_length), batch_size)
    elif streamed and num_epochs in (None, 1):
        return iter([(0, (np.arange(batch_size) + first for first in itertools.count(step=batch_size)))]), 0
    else:
        raise ValueError(f"epoch_length must say how many samples of {type(source).__name__} are an epoch")
    per_epoch = length // batch_size
    if per_epoch == 0:
        raise DataError(
            f"{number_of(length, 'training sample')} cannot fill one batch of {batch_size}: give a batch size of at most {length}"
        )
    first = start // per_epoch
    return _epochs(plan, first, num_epochs), first * per_epoch


def _epochs(plan: Plan, first: int, end: int | None) -> _Epochs:
    for epoch in itertools.count(first) if end is None else range(first, end):
        batches = plan(epoch)
        if len(batches) == 0:
            raise ValueError(f"the plan holds no batch in epoch {epoch}")
        yield epoch, batches


def _training_tasks(
    epochs: _Epochs, seed: int, position: int, start: int, shard: tuple[int, int], within_batch: bool
) -> Iterator[Task]:
    """The batches from `start` on, of epochs whose first batch is number `position`."""
    numbers = itertools.count(position)
    for epoch, batches in epochs:
        for planned, index in zip(batches, numbers):
            if index >= start:
                whole, choice = _parts(planned)
                part = _shard(whole, shard)
                yield Task(part, whole, choice, len(part), epoch, index, seed, replace=True, within_batch=within_batch)


def _evaluation_tasks(groups: Sequence[_Planned], batch_size: int, shard: tuple[int, int]) -> Iterator[Task]:
    for index, (indices, choice) in enumerate(map(_parts, groups)):
        whole = np.concatenate([indices, np.repeat(indices[-1:], batch_size - len(indices))])
        part = _shard(whole, shard)
        size = min(max(len(indices) - shard[0] * len(part), 0), len(part))
        yield Task(part, whole, choice, size, epoch=0, index=index)


def _check_evaluation(groups: Sequence[_Planned], samples: int, batch_size: int) -> None:
    parts = [indices for indices, _ in map(_parts, groups)]
    if not np.array_equal(np.sort(np.concatenate(parts)), np.arange(samples)):
        raise ValueError("the plan of an evaluation must hold every sample exactly once")
    if max(map(len, parts)) > batch_size:
        raise ValueError(f"the plan holds a batch of {max(map(len, parts))} samples, more than {batch_size=}")


def _parts(planned: _Planned) -> tuple[np.ndarray, tuple[Any, ...]]:
    indices, *choice = planned if isinstance(planned, tuple) else (planned,)
    return np.asarray(indices), tuple(choice)


def _shard(indices: np.ndarray, shard: tuple[int, int]) -> np.ndarray:
    part, parts = shard
    if not 0 <= part < parts:
        raise ValueError(f"shard {shard} is not one of 0..{parts - 1}")
    if len(indices) % parts:
        raise ValueError(f"a batch of {len(indices)} samples cannot be divided into {parts} equal shards")
    rows = len(indices) // parts
    return indices[part * rows : (part + 1) * rows]


class Batches(Iterator[Batch]):
    """Iterator over batches; close it (or leave its `with` block) to end the workers. An error closes it too."""

    def __init__(
        self,
        source: EndlessSource | BatchSource | Stream,
        tasks: Iterator[Task],
        num_workers: int,
        max_bad: int,
        mask: str | None = None,
    ) -> None:
        if num_workers and type(source).__module__ == "__main__":
            raise ValueError(
                f"{type(source).__name__} must be defined in a module that workers can import, not a script"
            )
        if hasattr(source, "stream"):
            num_workers = min(num_workers, 1)
        self._reader = StreamReader(source) if hasattr(source, "stream") else Reader(source)
        self._tasks = tasks
        self._max_bad = max_bad
        self._mask = mask
        self._bad: dict[int, str] = {}
        self._pool = Pool(self._reader, num_workers) if num_workers else None
        self._in_flight: deque[Task] = deque()
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
            batch = Batch(
                feed,
                task.size,
                task.epoch,
                task.index,
                bad=[message for _, message in bad],
                padding=len(task.indices) - task.size,
                where=lambda row: self._reader.where(int(task.indices[row])),
                indices=task.indices,
            )
            self._feed_mask(batch)
        except Ended:
            self.close()
            raise StopIteration from None
        except BaseException:
            self.close()
            raise
        return batch

    def close(self) -> None:
        """End the workers. Batches already handed over stay valid."""
        self._closed = True
        if self._pool is not None:
            self._pool.close()

    def _read_here(self) -> tuple[Task, Feed, list[tuple[int, str]]]:
        task = next(self._tasks)
        return task, *self._reader.read(task, empty_arrays, progress=np.empty(1, np.int64))

    def _read_ahead(self, pool: Pool) -> tuple[Task, Feed, list[tuple[int, str]]]:
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
                f"{number_of(len(self._bad), 'unreadable training sample')}, more than the {self._max_bad} allowed:\n  "
                + "\n  ".join(shown)
                + ("\n  ..." if len(self._bad) > len(shown) else "")
            )
