"""From the features of an utterance to what the network sees, as in 2018: deltas, normalisation, delay, context.

    x = normalise(add_deltas(features), statistics)        [T, 3 * dim]
    x = hold_last(x)                                       [T + 5, 3 * dim]: the network answers five frames late
    x = splice(x)                                          [T + 5, 3, 11, dim]
    labels = delay_labels(pdfs)                            [T + 5], the first five are not counted
    posterior = undo_delay(posterior)                      [T, classes]

In 2018 the labels of the last five frames were lost, and times came out 50 ms late. Here the last frame is held for five
frames more, and the first five answers are dropped: every frame has its label and its answer, at its own time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from fluid.errors import DataError
from fluid.text import read_lines

import numpy as np

DELAY = 5
"""Frames that the network's answers are late."""
CONTEXT = 5
"""Frames before and after each that the network sees with it."""
DELTAS = 3
"""Of each frame: features, their first and their second differences."""
NOT_COUNTED = -1
"""The label of frames that have none."""


class Statistics(NamedTuple):
    """Of features with their deltas, [3 * dim]."""

    mean: np.ndarray
    variance: np.ndarray


def add_deltas(features: np.ndarray, window: int = 2) -> np.ndarray:
    """Append first and second differences [T, 3 * dim] to features [T, dim], as Kaldi's add-deltas does.

    A difference is the slope of the line through 2 * window + 1 frames (HTK book, 5.9); the second is the difference of the
    first. The first and the last frame stand for those beyond the ends.
    """
    steps = np.arange(-window, window + 1)
    slope = steps / np.sum(steps**2)
    features = np.asarray(features, np.float32)
    parts = [features]
    # One difference of another is one with both filters convolved.
    for filter_ in (slope, np.convolve(slope, slope)):
        reach = len(filter_) // 2
        padded = _held(features, reach, reach).astype(np.float64)
        windows = np.lib.stride_tricks.sliding_window_view(padded, len(filter_), axis=0)
        parts.append((windows @ filter_).astype(np.float32))
    return np.concatenate(parts, axis=1)


def statistics(utterances: list[np.ndarray]) -> Statistics:
    """Mean and variance of each column over all frames of utterances [T, columns], computed in float64.

    Raises DataError for a column that never changes, by which nothing could be divided.
    """
    frames = sum(map(len, utterances))
    mean = sum(x.sum(axis=0, dtype=np.float64) for x in utterances) / frames
    variance = sum(np.square(x - mean).sum(axis=0) for x in utterances) / frames
    if not (variance > 0).all():
        raise DataError(
            f"feature {int(np.argmin(variance))} is the same in all {frames} frames: is the audio silent, or are these not "
            "features?"
        )
    return Statistics(mean.astype(np.float32), variance.astype(np.float32))


def normalise(features: np.ndarray, statistics: Statistics) -> np.ndarray:
    """Features [..., columns] less their mean, by their deviation. Raises DataError for another number of columns."""
    if features.shape[-1] != len(statistics.mean):
        raise DataError(
            f"the statistics are those of {len(statistics.mean)} columns and the features with deltas have "
            f"{features.shape[-1]}: make the statistics anew (2018: --mean_var), or give --frame_dim of the features"
        )
    return ((features - statistics.mean) / np.sqrt(statistics.variance)).astype(np.float32)


def less_running_mean(features: np.ndarray, mean: np.ndarray, weight: float) -> np.ndarray:
    """Features [T, dim] less the mean of the frames so far, which begins as `mean` [dim] and weighs as `weight` frames then.

    No frame depends on a later one, so a stream is normalised as the whole is (Kaldi's online CMVN without its window).
    """
    count = weight + np.arange(1, len(features) + 1)
    sums = weight * mean.astype(np.float64) + np.cumsum(features, axis=0, dtype=np.float64)
    return (features - sums / count[:, None]).astype(np.float32)


def speaker_means(features: Mapping[str, np.ndarray], speakers: Mapping[str, str]) -> dict[str, np.ndarray]:
    """By utterance, the mean [dim] over all frames of its speaker (Kaldi's CMVN by speaker, without the variance).

    An utterance whose speaker is not known stands for itself.
    """
    sums: dict[str, np.ndarray] = {}
    frames: dict[str, int] = {}
    owner = {name: speakers.get(name, f"utterance {name}") for name in features}
    for name, array in features.items():
        who = owner[name]
        sums[who] = sums.get(who, 0) + array.sum(axis=0, dtype=np.float64)
        frames[who] = frames.get(who, 0) + len(array)
    means = {who: (total / max(frames[who], 1)).astype(np.float32) for who, total in sums.items()}
    return {name: means[who] for name, who in owner.items()}


def read_statistics(path: str | Path) -> Statistics:
    """A text file of 2018 with a line "MEAN VARIANCE" for each column. Raises DataError."""
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            mean, variance = map(float, line.split())
        except ValueError as error:
            raise DataError(f"{path}:{number}: a line 'MEAN VARIANCE' is expected ({error})") from None
        if not (np.isfinite(mean) and 0 < variance < np.inf):
            raise DataError(f"{path}:{number}: the variance must be above 0 and both be finite, not '{line.strip()}'")
        rows.append((mean, variance))
    if not rows:
        raise DataError(f"{path}: holds no line 'MEAN VARIANCE'")
    return Statistics(*np.array(rows, np.float32).T)


def hold_last(features: np.ndarray, frames: int = DELAY) -> np.ndarray:
    """Features [T, columns] with the last frame so many times more."""
    return _held(features, 0, frames)


def delay_labels(labels: np.ndarray, frames: int = DELAY) -> np.ndarray:
    """Labels [T + frames] for features of `hold_last`: those of the first frames are not counted."""
    return np.concatenate([np.full(frames, NOT_COUNTED, labels.dtype), labels])


def undo_delay(answers: np.ndarray, frames: int = DELAY) -> np.ndarray:
    """The answers of each frame [T, ...], out of [T + frames, ...]."""
    return answers[frames:]


def splice(features: np.ndarray, context: int = CONTEXT) -> np.ndarray:
    """Each frame among its neighbours, [T, 3, 2 * context + 1, dim], out of features with deltas [T, 3 * dim].

    The result repeats every number eleven times: splice a batch when it is made, not a data set. The first and the last frame
    stand for those beyond the ends.
    """
    windows = np.lib.stride_tricks.sliding_window_view(_held(features, context, context), 2 * context + 1, axis=0)
    frames, columns, width = windows.shape
    return windows.reshape(frames, DELTAS, columns // DELTAS, width).swapaxes(2, 3)


def _held(features: np.ndarray, before: int, after: int) -> np.ndarray:
    """With copies of the first and the last frame."""
    return np.pad(features, ((before, after), (0, 0)), mode="edge") if len(features) else features
