"""Buckets of lengths: batches of few shapes from samples of many lengths.

Sentences have words, speech has frames, lines of text have widths. A batch is padded to the longest of its samples, and a
compiling engine compiles every shape once; so samples of similar length share a batch, which is padded to one of a few
lengths, the edges of the buckets.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

from fluid.data import PlainPlan, check_batch_size
from fluid.errors import DataError

import numpy as np

Made = TypeVar("Made")

# Keeps the order of batches apart from other random numbers drawn from the same seed.
_ORDER = 7
# From so many rows on, their number is a multiple of 8, which matrix units like and which costs 1/8 of a batch at most.
_ROUNDED_FROM, _ROUNDED_TO = 64, 8


@dataclass(frozen=True, eq=False)
class Buckets:
    """Which samples share a batch, and the length that it is padded to.

    A source pads to `edge(whole)`, where `whole` are the indices of the whole batch, and hands over `training_plan` or
    `evaluation_plan` to the functions of `fluid.data`. Raises DataError for a batch size below 1, and ValueError for edges
    that do not ascend or that leave a sample out.
    """

    lengths: np.ndarray
    """Of every sample, [samples]."""
    edges: tuple[int, ...]
    """Lengths that batches are padded to, ascending."""
    batch_size: int
    """Of training: the sum of the padded lengths of a batch, at most, or the number of its samples."""
    multiple: int = 1
    """The samples of a training batch are a multiple of this, so that so many devices can share them."""
    by: Literal["size", "rows"] = "size"
    """What `batch_size` counts: lengths or samples."""

    def __post_init__(self) -> None:
        check_batch_size(self.batch_size)
        if list(self.edges) != sorted(set(self.edges)) or not self.edges or self.multiple < 1:
            raise ValueError(f"edges must ascend and the multiple be positive, not {self.edges} and {self.multiple}")
        if len(self.lengths) and self.lengths.max() > self.edges[-1]:
            raise ValueError(f"a sample of length {self.lengths.max()} is longer than the last edge, {self.edges[-1]}")

    def rows(self, edge: int) -> int:
        """Samples in a training batch of this edge, at least `multiple`."""
        rows = self.batch_size if self.by == "rows" else self.batch_size // edge
        if self.by == "size" and rows >= _ROUNDED_FROM:
            rows = rows // _ROUNDED_TO * _ROUNDED_TO
        return max(rows // self.multiple, 1) * self.multiple

    def edge(self, indices: np.ndarray) -> int:
        """The length that the batch of these samples is padded to.

        Where the samples fit more than one edge, a training batch of their number tells which of them it was made for:
        so its shape is among those of `blanks`. Other batches are padded to the first edge that fits.
        """
        fitting = self.edges[int(np.searchsorted(self.edges, self.lengths[indices].max())) :]
        return next((edge for edge in fitting if self.rows(edge) == len(indices)), fitting[0])

    def blanks(self, make: Callable[[int, int], Made], shards: int = 1) -> list[Made]:
        """`make(rows, edge)` for every shape of a training batch, to compile for them ahead: one process's share of it."""
        return [make(self.rows(edge) // shards, edge) for edge in self.edges]

    def training_plan(
        self, *, seed: int, pool_size: int = 10_000, shuffle: bool = True, shuffle_batches: bool = True
    ) -> PlainPlan:
        """The batches of an epoch, as a function of (seed, epoch).

        Samples are shuffled, and pools of `pool_size` of them (0: none) are sorted by length; they then fill the batches
        of their buckets. What does not fill a batch at the end moves to the next longer bucket, and the very last batch is
        filled with samples drawn once more: every sample is in every epoch. Raises DataError for a negative pool size.
        """
        if pool_size < 0:
            raise DataError(
                f"a pool of {pool_size} samples cannot be sorted: its size must be at least 1, or 0 for none"
            )

        def plan(epoch: int) -> list[np.ndarray]:
            rng = np.random.default_rng((seed, _ORDER, epoch))
            samples = len(self.lengths)
            order = rng.permutation(samples) if shuffle else np.arange(samples)
            if pool_size:
                pools = [order[first : first + pool_size] for first in range(0, samples, pool_size)]
                order = np.concatenate([pool[np.argsort(self.lengths[pool], kind="stable")] for pool in pools])
            batches = list(self._fill(order, rng))
            if shuffle_batches:
                batches = [batches[number] for number in rng.permutation(len(batches))]
            return batches

        return plan

    def evaluation_plan(self, rows: int) -> PlainPlan:
        """Batches of `rows` samples of similar length, the last of which may have fewer; each sample is in one of them."""

        def plan(epoch: int) -> list[np.ndarray]:
            order = np.argsort(self.lengths, kind="stable")
            return [order[first : first + rows] for first in range(0, len(order), rows)]

        return plan

    def _fill(self, order: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
        bucket_of = np.searchsorted(self.edges, self.lengths)[order]
        completed: list[tuple[int, np.ndarray]] = []
        late: list[np.ndarray] = []
        left = order[:0]
        for number, edge in enumerate(self.edges):
            places, rows = np.flatnonzero(bucket_of == number), self.rows(edge)
            whole = places[: len(places) // rows * rows].reshape(-1, rows)
            completed += [(batch[-1], order[batch]) for batch in whole]
            left = np.concatenate([order[places[whole.size :]], left])
            late += [left[first : first + rows] for first in range(0, len(left) - rows + 1, rows)]
            left = left[len(left) // rows * rows :]
        # A batch takes its turn when its last sample came up.
        yield from (batch for _, batch in sorted(completed, key=lambda item: item[0]))
        yield from late
        if len(left):
            yield np.concatenate([left, rng.choice(order, self.rows(self.edges[-1]) - len(left))])
