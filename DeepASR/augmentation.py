"""Utterances as others might have said them: features that are changed at random while training.

All of it works on log mel energies, so it costs no second computation of features: another length of the vocal tract (Jaitly and
Hinton, 2013) moves the mel bands, another pace stretches time, another loudness is a constant, or a curve over time, as sounds are
weaker in one mouth than in another, another microphone a curve over the bands, noise adds energies. SpecAugment (Park et al., arXiv:1904.08779) hides bands and stretches of time of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from DeepASR.transforms import DELTAS
from fluid.config import Decay, Natural, NotNegative, Share

import numpy as np

_DECIBEL = np.log(10) / 10
"""Of energy, as a natural logarithm."""


@dataclass
class AugmentationFlags:
    """How training utterances are changed at random; 0 leaves them alone."""

    speed: Decay = 0.0
    """Pace: up to this share faster or slower; utterances that are cut into pieces keep theirs."""
    warp: Decay = 0.0
    """Vocal tract: frequencies up to this share higher or lower."""
    volume: NotNegative = 0.0
    """Loudness: up to so many decibels more or less."""
    swell: NotNegative = 0.0
    """Loudness within an utterance: it rises and falls by about so many decibels, several times a second."""
    microphone: NotNegative = 0.0
    """Microphone: a smooth curve over the bands, of about so many decibels."""
    noise: Share = 0.0
    """Share of the utterances that noise is added to, 5 to 30 decibels below the speech."""
    time_masks: Natural = 0
    """SpecAugment: stretches of up to 20 frames that are hidden."""
    frequency_masks: Natural = 0
    """SpecAugment: groups of up to a quarter of the bands that are hidden."""

    @staticmethod
    def of(flags: AugmentationFlags) -> AugmentationFlags:
        """These flags alone: reader processes know no class of a script."""
        return AugmentationFlags(**{item.name: getattr(flags, item.name) for item in fields(AugmentationFlags)})


LONGEST_MASK, LARGEST_SHARE = 20, 4
"""Frames of a hidden stretch; a hidden group is at most this part of all bands."""
SWELL = 12
"""Frames from one drawn loudness to the next."""
UNSTRETCHED = 0.4
"""Share of the utterances that keep pace and vocal tract."""


def for_one(flags: AugmentationFlags, rng: np.random.Generator) -> AugmentationFlags:
    """The flags for one utterance: features between frames and bands are smoother than any that will be heard, so some of
    the utterances are not stretched."""
    if (flags.speed or flags.warp) and rng.random() < UNSTRETCHED:
        return replace(flags, speed=0.0, warp=0.0)
    return flags


def another_voice(features: np.ndarray, flags: AugmentationFlags, rng: np.random.Generator) -> np.ndarray:
    """Log mel energies [T, dim] with another vocal tract, loudness, microphone and noise."""
    if flags.warp:
        features = _read_at(features.T, np.arange(features.shape[1]) * rng.uniform(1 - flags.warp, 1 + flags.warp)).T
    if flags.volume:
        features = features + rng.uniform(-flags.volume, flags.volume) * _DECIBEL
    if flags.swell:
        knots = rng.normal(0, flags.swell, len(features) // SWELL + 2)
        features = features + _read_at(knots, np.arange(len(features)) / SWELL)[:, None] * _DECIBEL
    if flags.microphone:
        features = features + flags.microphone * _DECIBEL * _curve(features.shape[1], rng)
    if flags.noise and rng.random() < flags.noise:
        level = features.mean() + features.std() - rng.uniform(5, 30) * _DECIBEL
        colour = np.cumsum(rng.normal(0, 0.5, features.shape[1]))
        # The energy of noise in a band and a frame varies as that of a few independent samples does.
        energies = level + colour - colour.mean() + np.log(rng.gamma(4.0, 0.25, features.shape))
        features = np.logaddexp(features, energies)
    return features.astype(np.float32)


def _curve(bands: int, rng: np.random.Generator) -> np.ndarray:
    """[bands] around 0 of deviation 1 on average: the first five cosines, each half as strong as the one before."""
    waves = np.cos(np.pi * np.outer(np.arange(1, 6), (np.arange(bands) + 0.5) / bands))
    sizes = 0.5 ** np.arange(5)
    return (rng.normal(0, sizes) @ waves) / np.sqrt(np.sum(sizes**2) / 2)


def another_pace(
    features: np.ndarray, labels: np.ndarray, flags: AugmentationFlags, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Features [T, dim] and labels [T], stretched or squeezed in time, to at most `longest(T, flags)`."""
    if not flags.speed or not len(features):
        return features, labels
    frames = min(round(len(features) / rng.uniform(1 - flags.speed, 1 + flags.speed)), longest(len(features), flags))
    places = np.linspace(0, len(features) - 1, max(frames, 1))
    return _read_at(features, places).astype(np.float32), labels[np.rint(places).astype(np.intp)]


def longest(frames: int, flags: AugmentationFlags) -> int:
    """Frames that so many may become."""
    return int(frames / (1 - flags.speed))


def masked(x: np.ndarray, flags: AugmentationFlags, rng: np.random.Generator) -> np.ndarray:
    """Input of the network [T, 3 * dim] with parts that are hidden by its mean, 0."""
    if not flags.time_masks and not flags.frequency_masks:
        return x
    frames, dim = len(x), x.shape[1] // DELTAS
    x = x.reshape(frames, DELTAS, dim).copy()
    for _ in range(flags.time_masks):
        start, size = rng.integers(frames), rng.integers(LONGEST_MASK + 1)
        x[start : start + size] = 0
    for _ in range(flags.frequency_masks):
        start, size = rng.integers(dim), rng.integers(dim // LARGEST_SHARE + 1)
        x[:, :, start : start + size] = 0
    return x.reshape(frames, -1)


def _read_at(array: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Rows at places between rows, linearly interpolated; those beyond the ends are the last."""
    places = np.clip(places, 0, len(array) - 1)
    below = np.minimum(places.astype(np.intp), max(len(array) - 2, 0))
    share = (places - below).reshape(-1, *[1] * (array.ndim - 1))
    return array[below] * (1 - share) + array[np.minimum(below + 1, len(array) - 1)] * share
