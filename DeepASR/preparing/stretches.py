"""Where utterances are: recordings, or stretches of longer ones.

read_segments("data/train/segments")        Kaldi: lines `NAME RECORDING START END`, in seconds; an END of -1 is that of the recording
Stretch(path, 3.2, 5.0).read(16_000)        NeMo: `offset` 3.2 and `duration` 1.8
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from DeepASR.audio import read_audio
from DeepASR.kaldi.tables import read_text
from fluid.errors import DataError

import numpy as np

OVERSHOOT = 0.5
"""Seconds that a stretch may end behind its recording, as in Kaldi's extract-segments."""


@dataclass(frozen=True)
class Stretch:
    """A recording, or a part of it."""

    path: Path
    start: float = 0.0
    """Seconds."""
    end: float = math.inf

    def read(self, rate: int) -> np.ndarray:
        """Samples [n] as of `read_audio`. Raises DataError as that, and for a stretch that lies outside of the recording."""
        if (self.start, self.end) == (0.0, math.inf):
            return read_audio(self.path, rate)
        samples = _whole(self.path, rate)
        seconds = len(samples) / rate
        if self.start >= seconds or OVERSHOOT + seconds < self.end < math.inf:
            raise DataError(
                f"{self.path}: {self.start:g} to {self.end:g} s are asked for of a recording of {seconds:.2f} s"
            )
        return samples[round(self.start * rate) : round(min(self.end, seconds) * rate)]


@lru_cache(maxsize=1)
def _whole(path: Path, rate: int) -> np.ndarray:
    """Stretches of a recording follow one another: it is read once."""
    return read_audio(path, rate)


def read_segments(path: Path) -> dict[str, tuple[str, float, float]]:
    """Recording, start and end of each utterance of Kaldi's file. Raises DataError."""
    found = {}
    for name, line in read_text(path).items():
        try:
            recording, start, end = line.split()
            found[name] = (recording, *span(float(start), math.inf if float(end) == -1 else float(end)))
        except ValueError:
            raise DataError(f"{path}: '{name} {line}' is not 'UTTERANCE RECORDING START END', in seconds") from None
    return found


def span(start: float, end: float) -> tuple[float, float]:
    """Both. Raises ValueError if they are no stretch."""
    if not 0 <= start < end:
        raise ValueError(f"from {start:g} to {end:g} s is no stretch")
    return start, end
