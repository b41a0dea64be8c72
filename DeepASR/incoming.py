"""Sound that comes in while it is made: raw samples or a WAV stream, piece by piece, at another rate.

    for samples in incoming(sys.stdin.buffer, seconds=0.16, rate=16_000, channels=1, wanted=8_000): ...

Whatever the pieces, the samples are those of the whole recording (`DeepASR.audio.resample`).
"""

import math
import struct
import sys
from collections.abc import Iterator
from typing import BinaryIO

from DeepASR.audio import ENDLESS, RATES, resample
from fluid.errors import DataError

import numpy as np

_REACH = 10
"""Samples to each side that a new one is made of, at the lower of the two rates (`scipy.signal.resample_poly`)."""
_PCM, _EXTENSIBLE = 1, 0xFFFE
_LONGEST_HEADER = 2**20
"""Bytes of what may stand before the samples of a WAV stream."""
_NAME = "standard input"


def incoming(stream: BinaryIO, *, seconds: float, rate: int, channels: int, wanted: int) -> Iterator[np.ndarray]:
    """Pieces of samples float32 [n] on the 16-bit scale at the rate `wanted`, channels averaged, as they come.

    Args:
        stream: 16-bit samples; a WAV stream says their rate and channels itself.
        seconds: of a piece, at least two samples.
        rate: of raw samples.
        channels: of raw samples.
        wanted: rate of what is returned.

    Raises DataError for a stream without samples, and for one in another form.
    """
    begin, left = stream.read(4), sys.maxsize
    if begin in (b"fLaC", b"OggS"):
        raise DataError(f"{_NAME}: compressed sound; raw 16-bit samples or WAV are understood while they come in")
    if begin == b"RIFF":
        begin, (rate, channels, left) = b"", _read_wav_header(stream)
    width, resampler, heard = 2 * channels, Resampler(rate, wanted), False
    # No less than was read to see what it is.
    size = width * max(2, round(seconds * rate))
    while data := begin + stream.read(min(size, left) - len(begin)):
        begin, left = b"", left - len(data)
        samples = np.frombuffer(data[: len(data) // width * width], "<i2").reshape(-1, channels).mean(axis=1)
        heard = heard or len(samples) > 0
        yield resampler.accept(samples)
    if not heard:
        raise DataError(f"{_NAME}: holds no samples")
    yield resampler.finish()


class Resampler:
    """Samples at another rate, as they come: the same numbers as of the whole."""

    def __init__(self, rate: int, wanted: int) -> None:
        common = math.gcd(rate, wanted)
        self._rate, self._wanted = rate // common, wanted // common
        self._reach = math.ceil(_REACH * max(self._rate, self._wanted) / self._wanted)
        self._waiting = np.zeros(0)
        self._start = 0
        """Number of the first sample that waits, a multiple of `_rate`."""
        self._given = 0

    def accept(self, samples: np.ndarray) -> np.ndarray:
        """What is known after these samples [n]."""
        self._waiting = np.concatenate([self._waiting, samples])
        end = self._start + len(self._waiting) - self._reach
        return self._made(max(end * self._wanted // self._rate, self._given))

    def finish(self) -> np.ndarray:
        """The rest."""
        return self._made(-(-(self._start + len(self._waiting)) * self._wanted // self._rate))

    def _made(self, end: int) -> np.ndarray:
        if self._rate == self._wanted:
            samples, self._waiting, self._start = self._waiting, np.zeros(0), self._start + len(self._waiting)
            return np.ascontiguousarray(samples, np.float32)
        before = self._start // self._rate * self._wanted
        made = resample(self._waiting, self._rate, self._wanted)[self._given - before : end - before]
        self._given = end
        needed = max(end * self._rate // self._wanted - self._reach, 0) // self._rate * self._rate
        self._waiting, self._start = self._waiting[needed - self._start :], needed
        return made


def _read_wav_header(stream: BinaryIO) -> tuple[int, int, int]:
    """Rate, channels and bytes of samples of a WAV stream behind its first four bytes, read up to its samples."""
    if stream.read(8)[4:] != b"WAVE":
        raise DataError(f"{_NAME}: begins as a WAV stream and is none")
    form = b""
    while len(header := stream.read(8)) == 8:
        name, size = header[:4], struct.unpack("<I", header[4:])[0]
        if name == b"data" and len(form) >= 16:
            return *_form(form), size if 0 < size < ENDLESS else sys.maxsize
        content = stream.read(min(size + size % 2, _LONGEST_HEADER))
        form = content if name == b"fmt " else form
    raise DataError(f"{_NAME}: a WAV stream without samples")


def _form(form: bytes) -> tuple[int, int]:
    kind, channels, rate, _, _, bits = struct.unpack("<HHIIHH", form[:16])
    if kind not in (_PCM, _EXTENSIBLE) or bits != 16 or not channels:
        raise DataError(
            f"{_NAME}: a WAV stream of {bits} bits in form {kind}; 16-bit samples are understood while they come in"
        )
    if not RATES[0] <= rate <= RATES[1]:
        raise DataError(f"{_NAME}: {rate} samples a second are not in {RATES[0]}..{RATES[1]}")
    return rate, channels
