"""Utterances as the network sees them: normalised, cut into pieces, in batches of few lengths.

Reader processes import this module; it imports neither paddle nor jax.
"""

from __future__ import annotations

from collections.abc import Sequence

from DeepASR.augmentation import AugmentationFlags, another_pace, another_voice, for_one, longest, masked
from DeepASR.corpus import Part
from DeepASR.recogniser import Normalisation
from DeepASR.transforms import CONTEXT, DELAY, DELTAS, NOT_COUNTED, delay_labels, hold_last, speaker_means
from fluid.buckets import Buckets
from fluid.errors import DataError, UserError
from fluid.reading import Sample
from fluid.workers import Allocate

import numpy as np

WIDTH = 2 * CONTEXT + 1
MOST_LENGTHS = 4
"""Lengths that batches are padded to, at most: each costs seconds of compiling."""
STEP = 16
"""Lengths are multiples of this."""
LONGEST_UNCUT, SHORTEST_PIECE, LONGER_BY = 1024, 256, 51
"""As in 2018: what is longer than the first is cut into pieces of the second and up to 50 frames more."""


class Utterances:
    """Utterances, or pieces of them, with their labels (`fluid.data.Source`).

    Feeds `feature` [N, T, 3, 11, dim], `length` [N] and `label` [N, T].

    Args:
        part: with alignments.
        normalisation: of the network's input.
        batch_size: pieces in a batch.
        uncut: what is longer is cut into pieces; None: nothing is cut.
        seed: of where it is cut.
        augmentation: what is changed at random; None: nothing.
        lengths: that batches are padded to; none: a few that fit.

    Raises DataError if an utterance has no alignment, or there is none, UserError if one is longer than all lengths.
    """

    def __init__(
        self,
        part: Part,
        normalisation: Normalisation,
        *,
        batch_size: int,
        uncut: int | None = LONGEST_UNCUT,
        seed: int = 0,
        augmentation: AugmentationFlags | None = None,
        lengths: Sequence[int] = (),
    ) -> None:
        if lacking := [name for name in part if name not in part.alignments]:
            raise DataError(
                f"{part.folder}/ali.gz: lacks {', '.join(lacking[:5])}{' ...' if lacking[5:] else ''}: without the class of "
                "each frame nothing can be learned or measured by frames"
            )
        if not len(part):
            raise DataError(f"{part.folder}: holds no utterance")
        self._part, self._normalisation = part, normalisation
        self._augmentation = augmentation or AugmentationFlags()
        self._means = speaker_means(part, part.speakers) if normalisation.by_speaker else {}
        rng = np.random.default_rng((seed, 3))
        self.pieces = [
            (name, start, end)
            for name, frames in part.lengths.items()
            for start, end in cut(frames + DELAY, uncut, rng)
        ]
        frames = np.array([self._longest(*piece) for piece in self.pieces])
        if lengths and frames.max() > max(lengths):
            raise UserError(f"--lengths: {frames.max()} frames are needed, as many as the longest piece may have")
        self.buckets = Buckets(frames, tuple(sorted(lengths)) or edges_of(frames), batch_size, by="rows")

    def __len__(self) -> int:
        return len(self.pieces)

    def where(self, index: int) -> str:
        """Utterance and frames, for messages."""
        name, start, end = self.pieces[index]
        return f"{self._part.folder}: {name}, frames {start} to {end}"

    def load(self, index: int, rng: np.random.Generator) -> Sample:
        """`x` [length + 10, 3 * dim], a piece between its neighbours, and `label` [length]."""
        name, start, end = self.pieces[index]
        features, label = self._part[name], self._part.alignments[name]
        augmentation = for_one(self._augmentation, rng)
        if self._is_whole(name, start, end):
            features, label = another_pace(features, label, augmentation, rng)
            end = len(features) + DELAY
        mean = features.mean(axis=0)
        features = another_voice(features, augmentation, rng)
        if name in self._means:
            # What changes this utterance changes all that its speaker says.
            mean = self._means[name] + features.mean(axis=0) - mean
        x = hold_last(self._normalisation.apply(self._normalisation.centred(features, mean)))
        x = masked(x, augmentation, rng)
        padded = np.pad(x, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
        return {"x": padded[start : end + 2 * CONTEXT], "label": delay_labels(label)[start:end]}

    def _is_whole(self, name: str, start: int, end: int) -> bool:
        return start == 0 and end == self._part.lengths[name] + DELAY

    def _longest(self, name: str, start: int, end: int) -> int:
        """Frames that a piece may have."""
        if self._is_whole(name, start, end):
            return longest(end - DELAY, self._augmentation) + DELAY
        return end - start

    def collate(self, samples: Sequence[Sample], whole: np.ndarray, allocate: Allocate) -> Sample:
        """Pad, and show each frame among its neighbours."""
        dim = samples[0]["x"].shape[1] // DELTAS
        rows, edge = len(samples), self.buckets.edge(whole)
        feed = allocate(shapes(rows, edge, dim))
        for row, sample in enumerate(samples):
            length = len(sample["label"])
            windows = np.lib.stride_tricks.sliding_window_view(sample["x"], WIDTH, axis=0)
            feed["feature"][row, :length] = windows.reshape(length, DELTAS, dim, WIDTH).swapaxes(2, 3)
            feed["feature"][row, length:] = 0
            feed["label"][row, :length] = sample["label"]
            feed["label"][row, length:] = NOT_COUNTED
            feed["length"][row] = length
        return feed


def shapes(rows: int, edge: int, dim: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shapes and types of a batch."""
    return {
        "feature": ((rows, edge, DELTAS, WIDTH, dim), np.float32),
        "length": ((rows,), np.int64),
        "label": ((rows, edge), np.int64),
    }


def blank(rows: int, edge: int, dim: int) -> dict[str, np.ndarray]:
    """A batch of nothing, to compile for."""
    return {name: np.ones(shape, dtype) for name, (shape, dtype) in shapes(rows, edge, dim).items()}


def cut(frames: int, uncut: int | None, rng: np.random.Generator) -> list[tuple[int, int]]:
    """(start, end) of the pieces of so many frames; none is cut that is not longer than `uncut`."""
    if uncut is None or frames <= uncut:
        return [(0, frames)]
    pieces, start = [], 0
    while frames - start > 2 * SHORTEST_PIECE:
        end = start + SHORTEST_PIECE + int(rng.integers(LONGER_BY))
        pieces.append((start, end))
        start = end
    return [*pieces, (start, frames)]


def edges_of(lengths: np.ndarray) -> tuple[int, ...]:
    """A few lengths to pad to, each for as many of these."""
    ordered = np.sort(lengths)
    places = [len(ordered) * (number + 1) // MOST_LENGTHS - 1 for number in range(MOST_LENGTHS)]
    return tuple(sorted({int(-(-ordered[max(place, 0)] // STEP) * STEP) for place in places}))
