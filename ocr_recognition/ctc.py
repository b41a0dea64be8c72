"""Connectionist temporal classification (Graves et al., ICML 2006): loss, what can be aligned at all, and decoding.

The blank is a class of its own; where it stands among the classes travels with the weights (2018: last).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fluid.program import Value

import numpy as np
import paddle
import paddle.nn.functional as F


def ctc_losses(logits: Value, label: Value, frames: Value, length: Value, *, blank: int) -> Value:
    """Negative log-likelihood [N] of labels.

    Args:
        logits: [N, T, classes], the blank among them.
        label: [N, L] int32, padded with anything that is a class.
        frames: [N] int64, steps of each sample.
        length: [N] int64, characters of each label.
        blank: its class.

    A label that cannot be aligned (`alignment.frames_needed`) has the loss 0 and the gradient 0 in Paddle: find such samples before.
    """
    by_step = paddle.transpose(logits, [1, 0, 2])
    return F.ctc_loss(by_step, label, frames, length, blank=blank, reduction="none").reshape([-1])


@dataclass(frozen=True)
class Reading:
    """What was read off the frames of one word."""

    label: tuple[int, ...]
    """Classes of the characters."""
    confidence: float
    """Geometric mean of the probabilities of the characters, 1 for an empty reading of certain blanks."""
    spans: tuple[tuple[int, int], ...]
    """First frame of each character, and the frame after its last."""


def read_greedily(logits: np.ndarray, frames: np.ndarray, *, blank: int) -> list[Reading]:
    """The most probable class of every frame, repeats merged and blanks dropped.

    Args:
        logits: [N, T, classes].
        frames: [N], steps of each sample.
        blank: its class.
    """
    return [_read(sample[:count], blank) for sample, count in zip(logits, frames.tolist(), strict=True)]


def _read(logits: np.ndarray, blank: int) -> Reading:
    """One sample's frames [T, classes]."""
    if len(logits) == 0:
        return Reading((), 1.0, ())
    best = logits.argmax(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_probability = -np.log(np.exp(shifted).sum(axis=1))
    begins = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(begins[1:], len(best))
    characters = [
        (start, end) for start, end in zip(begins.tolist(), ends.tolist(), strict=True) if best[start] != blank
    ]
    # The best frame of a character speaks for it: those beside it are shared with the blanks.
    strongest = [log_probability[start:end].max() for start, end in characters]
    certainty = np.mean(strongest) if strongest else log_probability.mean()
    return Reading(tuple(int(best[start]) for start, _ in characters), float(np.exp(certainty)), tuple(characters))


def edit_distance(one: Sequence[object], other: Sequence[object]) -> int:
    """Fewest insertions, deletions and substitutions between two sequences (Levenshtein, 1966)."""
    codes: dict[object, int] = {}
    first, second = (np.array([codes.setdefault(item, len(codes)) for item in items]) for items in (one, other))
    places = np.arange(len(second) + 1)
    row = places
    for number, item in enumerate(first, 1):
        kept = np.concatenate([[number], np.minimum(row[1:] + 1, row[:-1] + (second != item))])
        # An insertion costs one more than the place before it: the running minimum of cost minus place.
        row = np.minimum.accumulate(kept - places) + places
    return int(row[-1])
