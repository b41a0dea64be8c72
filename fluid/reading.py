"""Reading of batches: the same code in a worker process and in the main one.

What is read and by whom is decided in fluid/data.py.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from fluid.errors import DataError
from fluid.text import number_of
from fluid.workers import Allocate, Layout

import numpy as np

Sample = dict[str, np.ndarray]
"""The arrays of one sample by feed name."""
Feed = dict[str, np.ndarray]
"""The arrays of a batch: [rows, ...]."""

# Keys that keep the streams of random numbers drawn from one seed apart.
SHUFFLE, SAMPLE, REPLACEMENT, CHOICE = 0, 1, 2, 3
# How many other samples are tried in the place of one that cannot be read.
_REPLACEMENT_TRIES = 20


def generator(*key: int) -> np.random.Generator:
    """Random numbers of (seed, one of the keys above, ...)."""
    return np.random.default_rng(key)


@dataclass(frozen=True)
class Task:
    """One batch, as a worker needs to know it."""

    indices: np.ndarray  # samples of this shard's rows; those that fill up a batch repeat its last sample
    whole: np.ndarray  # samples of the rows of all shards
    choice: tuple[Any, ...]  # what the plan chose for the batch, or nothing
    size: int  # rows that count: 0 where a shard has only padding
    epoch: int
    index: int
    seed: int = 0
    replace: bool = False  # whether an unreadable sample is replaced
    within_batch: bool = False  # by one of the batch, or by any

    @property
    def to_read(self) -> np.ndarray:
        """The samples without padding; one even if all is padding, which has to have some content."""
        return self.indices[: max(self.size, 1)]


class Ended(Exception):
    """A stream has no whole batch any more."""


@dataclass
class Reader:
    """Reads batches; what a worker is given."""

    source: Any

    def where(self, index: int) -> str:
        where = getattr(self.source, "where", None)
        return where(index) if where else f"sample {index}"

    def read(self, task: Task, allocate: Allocate, progress: np.ndarray) -> tuple[Feed, list[tuple[int, str]]]:
        """Read the samples of `task` into arrays from `allocate`; also return (index, message) of those replaced."""
        bad: list[tuple[int, str]] = []
        if hasattr(self.source, "load_all"):
            return self._filled("load_all", task.indices, task, allocate), bad
        samples = self._samples(task, bad, progress)
        if hasattr(self.source, "collate"):
            listed = [sample for _, sample in samples]
            listed += listed[-1:] * (len(task.indices) - len(listed))
            return self._filled("collate", listed, task, allocate), bad
        feed: Feed = {}
        for row, (index, sample) in enumerate(samples):
            if row == 0:
                rows = len(task.indices)
                feed = allocate({name: ((rows, *np.shape(v)), np.asarray(v).dtype) for name, v in sample.items()})
            self._store(feed, row, sample, index)
        for array in feed.values():
            array[len(task.to_read) :] = array[len(task.to_read) - 1]
        return feed, bad

    def _filled(self, method: str, content: Any, task: Task, allocate: Allocate) -> Feed:
        """The feed that a method of the source makes in arrays from `allocate`."""
        given: list[Feed] = []

        def once(layout: Layout) -> Feed:
            given.append(allocate(layout) if not given else {})
            return given[-1]

        try:
            feed = getattr(self.source, method)(content, task.whole, once, *task.choice)
        except Exception as error:
            if not isinstance(error, DataError):
                error.add_note(f"while reading the batch that begins with {self.where(int(task.indices[0]))}")
            raise
        if len(given) != 1 or feed is not given[0]:
            raise ValueError(
                f"{type(self.source).__name__}.{method} must call `allocate` once, with the layout of all arrays of the "
                "batch, and return what it got"
            )
        return feed

    def _samples(self, task: Task, bad: list[tuple[int, str]], progress: np.ndarray) -> Iterable[tuple[int, Sample]]:
        return (self._read_sample(index, task, bad, progress) for index in task.to_read.tolist())

    def _read_sample(
        self, index: int, task: Task, bad: list[tuple[int, str]], progress: np.ndarray
    ) -> tuple[int, Sample]:
        rng, draw = generator(task.seed, SAMPLE, task.epoch, index), None
        for _ in range(_REPLACEMENT_TRIES):
            progress[0] = index
            try:
                return index, self.source.load(index, rng, *task.choice)
            except DataError as error:
                if not task.replace:
                    raise
                bad.append((index, str(error)))
            except Exception as error:
                error.add_note(f"while reading {self.where(index)}")
                raise
            if draw is None:
                draw = rng = generator(task.seed, REPLACEMENT, task.epoch, index)
            index = int(draw.choice(task.whole) if task.within_batch else draw.integers(len(self.source)))
        raise DataError(f"{_REPLACEMENT_TRIES} samples in a row cannot be read; the last one: {bad[-1][1]}")

    def _store(self, feed: Feed, row: int, sample: Sample, index: int) -> None:
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


@dataclass
class StreamReader(Reader):
    """Reads batches of a stream, which come in their order."""

    epoch: int = -1
    number: int = 0  # of the next sample of the epoch
    coming: Iterator[Sample] = field(default_factory=lambda: iter(()))

    def _samples(self, task: Task, bad: list[tuple[int, str]], progress: np.ndarray) -> Iterable[tuple[int, Sample]]:
        if task.epoch != self.epoch:
            rng = generator(task.seed, SAMPLE, task.epoch)
            self.epoch, self.number, self.coming = task.epoch, 0, iter(self.source.stream(task.epoch, rng))
        own = []
        # To the end of the whole batch: all processes must see the same end of the stream.
        for number in range(self.number, int(task.whole[-1]) + 1):
            progress[0] = number
            try:
                sample = next(self.coming)
            except StopIteration:
                if task.index == 0:
                    raise DataError(
                        f"{number_of(number, 'training sample')} cannot fill one batch of {len(task.whole)}"
                    ) from None
                raise Ended from None
            except Exception as error:
                error.add_note(f"while reading {self.where(number)}")
                raise
            if task.indices[0] <= number <= task.indices[-1]:
                own.append((number, sample))
        self.number = int(task.whole[-1]) + 1
        return own
