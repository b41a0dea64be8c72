"""What a network's outputs say: characters, how sure they are and where they stand. Imports no paddle."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ocr_recognition.recognizer import END, Recognizer

import numpy as np


@dataclass(frozen=True)
class Reading:
    """What was read off the frames of one word."""

    label: tuple[int, ...]
    """Classes of the characters."""
    confidence: float
    """Geometric mean of the probabilities of the characters, 1 for an empty reading of certain blanks."""
    spans: tuple[tuple[int, int], ...]
    """First frame of each character, and the frame after its last."""
    probabilities: tuple[float, ...] = ()
    """Of each character."""


EMPTY = Reading((), 1.0, ())
Read = Callable[[Mapping[str, np.ndarray], np.ndarray], list[Reading]]
"""Outputs of an evaluation or inference Program and widths [N] -> readings."""


def readings(recognizer: Recognizer, outputs: Mapping[str, np.ndarray], width: np.ndarray) -> list[Reading]:
    """The readings of words of these widths [N] from the outputs of an evaluation or inference Program."""
    if recognizer.is_ctc:
        return read_greedily(outputs["logits"], recognizer.frames_of(width), blank=recognizer.blank)
    return read_attention(outputs["decoded"], outputs["logits"], outputs["places"], longest=recognizer.longest)


def read_greedily(logits: np.ndarray, frames: np.ndarray, *, blank: int) -> list[Reading]:
    """The most probable class of every frame, repeats merged and blanks dropped.

    Args:
        logits: [N, T, classes].
        frames: [N], steps of each sample.
        blank: its class.
    """
    return [_read(sample[:count], blank) for sample, count in zip(logits, frames.tolist(), strict=True)]


def read_attention(decoded: np.ndarray, logits: np.ndarray, places: np.ndarray, *, longest: int) -> list[Reading]:
    """The words of at most `longest` characters that the attention decoder wrote; arrays as the outputs of
    `network.inference_program`."""
    found = []
    for classes, scores, middles in zip(decoded, logits, places, strict=True):
        length = int((classes[:longest] >= 0).sum())
        label = tuple(classes[:length].tolist())
        # The end sign is said, too, unless the word was cut off.
        said = [*label, END] if (classes[length : length + 1] < 0).any() else label
        sure = log_softmax(scores[: len(said)])[range(len(said)), said]
        edges = _edges(middles[:length])
        found.append(Reading(label, float(np.exp(sure.mean())), edges, tuple(np.exp(sure[:length]).tolist())))
    return found


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _read(logits: np.ndarray, blank: int) -> Reading:
    """One sample's frames [T, classes]."""
    if len(logits) == 0:
        return EMPTY
    best, sure = logits.argmax(axis=1), log_softmax(logits).max(axis=1)
    begins = np.flatnonzero(np.diff(best, prepend=-1))
    ends = np.append(begins[1:], len(best))
    characters = [
        (start, end) for start, end in zip(begins.tolist(), ends.tolist(), strict=True) if best[start] != blank
    ]
    # The best frame of a character speaks for it: those beside it are shared with the blanks.
    strongest = [float(sure[start:end].max()) for start, end in characters]
    certainty = np.mean(strongest) if strongest else sure.mean()
    label = tuple(int(best[start]) for start, _ in characters)
    return Reading(label, float(np.exp(certainty)), tuple(characters), tuple(np.exp(strongest).tolist()))


def _edges(middles: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Where characters begin and end whose middles are known: halfway between neighbours."""
    if len(middles) == 0:
        return ()
    between = (middles[1:] + middles[:-1]) / 2
    first = middles[0] - (between[0] - middles[0] if len(between) else 1)
    last = middles[-1] + (middles[-1] - between[-1] if len(between) else 1)
    edges = np.round(np.concatenate([[max(first, 0)], between, [last]])).astype(int).tolist()
    return tuple(zip(edges[:-1], edges[1:], strict=True))


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
