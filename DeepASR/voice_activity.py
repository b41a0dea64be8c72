"""Where somebody speaks, by the network's own opinion: frames whose most probable state is not one of silence."""

from DeepASR.decoding.lexicon import STATES
from DeepASR.features import FRAME_SHIFT

import numpy as np

MARGIN = 0.2
"""Seconds of silence that a stretch of speech keeps before and after it."""
SHORTEST = 0.1
"""Seconds of speech that are less than that are a noise."""


def speech(posterior: np.ndarray, pause: float) -> list[tuple[int, int]]:
    """(first frame, frame after the last) of each stretch of speech, with its margins.

    Args:
        posterior: [T, classes] of a network of phones, whose first three classes are the states of silence.
        pause: seconds of silence that part two stretches.
    """
    frames = np.flatnonzero(posterior[:, :STATES].sum(axis=1) < 0.5)
    if not len(frames):
        return []
    parted = np.flatnonzero(np.diff(frames) > round(pause / FRAME_SHIFT))
    starts, ends = frames[[0, *(parted + 1)]], frames[[*parted, -1]] + 1
    counts = np.diff(np.searchsorted(frames, [*starts, len(posterior)]))
    margin = round(min(MARGIN, pause / 2) / FRAME_SHIFT)
    return [
        (max(int(start) - margin, 0), min(int(end) + margin, len(posterior)))
        for start, end, count in zip(starts, ends, counts, strict=True)
        if count * FRAME_SHIFT >= SHORTEST
    ]
