"""Recordings as samples: WAV, FLAC and what else libsndfile reads, of any rate, width and number of channels.

    samples = read_audio("speech.flac", rate=16_000)        float32 [n] on the scale of 16-bit integers

Kaldi computes features on that scale, so weights that were trained on its features fit what is read here.
"""

import io
import math
import os
import re
import sys

from fluid.errors import DataError
from fluid.files import open_plain

import numpy as np
import soundfile

FULL_SCALE = 32768
SHORTEST = 0.1
"""Seconds below which there is no speech in a recording."""
CLIPPED_SHARE = 0.01
"""From which share of samples at the limit on a recording is called clipped."""
RATES = 1000, 768_000
"""Samples a second."""
LONGEST = 2**28
"""Samples of a recording: four hours and a half at 16,000 a second."""
ENDLESS = 2**31 - 2**16
"""Bytes of samples of a WAV from which on its recorder did not know when it would end."""
_PIECE = 2**20
_DECLARED = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
"""What libsndfile remarks on a WAV that has other bytes of samples than it declares: both numbers."""
_SLACK = 2**12
"""Bytes that may be missing: some writers count headers too."""
_SILENT = 1.0
"""Largest sample of a recording without sound, on the 16-bit scale."""


def read_audio(source: str | os.PathLike | bytes, rate: int, name: str = "") -> np.ndarray:
    """The samples of a file, or of its bytes, at `rate`, channels averaged; float32 [n] on the 16-bit scale.

    Raises DataError for what cannot be read or is cut off, and for a recording without samples.
    """
    where = name or ("recording" if isinstance(source, bytes) else str(source))
    try:
        with (
            io.BytesIO(source) if isinstance(source, bytes) else open_plain(source) as file,
            soundfile.SoundFile(file) as opened,
        ):
            own_rate = opened.samplerate
            _refuse_cut_off(opened, where)
            samples = _averaged(opened, where)
    except (OSError, RuntimeError, MemoryError) as error:
        reason = getattr(error, "error_string", None) or getattr(error, "strerror", None) or error
        raise DataError(f"{where}: cannot be read as a recording ({reason})") from None
    if not len(samples):
        raise DataError(f"{where}: holds no samples")
    if not np.isfinite(samples).all():
        raise DataError(f"{where}: holds samples that are not numbers")
    return resample(samples * FULL_SCALE, own_rate, rate)


def _refuse_cut_off(opened: soundfile.SoundFile, where: str) -> None:
    """Raise DataError for a WAV that lacks samples; of other formats libsndfile notices by itself."""
    found = _DECLARED.search(opened.extra_info)
    declared, there = map(int, found.groups()) if found else (0, 0)
    if there + _SLACK < declared < ENDLESS:
        raise DataError(
            f"{where}: is cut off: {there:,} bytes of samples are there of {declared:,}; if that is all there is, write it anew"
        )


def _averaged(opened: soundfile.SoundFile, where: str) -> np.ndarray:
    """All samples, the channels' mean. Raises DataError for a rate or a length that no speech has."""
    low, high = RATES
    if not low <= opened.samplerate <= high:
        raise DataError(f"{where}: {opened.samplerate} samples a second are not in {low}..{high}")
    # Piece by piece: what the file says of its length need not be so.
    pieces: list[np.ndarray] = []
    while len(piece := opened.read(_PIECE, dtype="float32", always_2d=True)):
        pieces.append(piece.mean(axis=1))
        if len(pieces) * _PIECE > LONGEST:
            raise DataError(f"{where}: has more than {LONGEST:,} samples; cut it into pieces")
    return np.concatenate(pieces) if pieces else np.zeros(0, np.float32)


def read_standard_input(rate: int) -> np.ndarray:
    """The recording on standard input. Raises DataError as `read_audio`."""
    return read_audio(sys.stdin.buffer.read(), rate, "standard input")


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Samples [n] at another rate, float32."""
    if rate != wanted:
        # Imported late: it takes a third of a second, and recordings of the right rate do not need it.
        from scipy.signal import resample_poly

        common = math.gcd(rate, wanted)
        samples = resample_poly(samples, wanted // common, rate // common)
    return np.ascontiguousarray(samples, np.float32)


def problem(samples: np.ndarray, rate: int) -> str | None:
    """What is wrong with a recording: too short, silent, clipped; None if nothing is."""
    peak = float(np.abs(samples).max(initial=0))
    if len(samples) < SHORTEST * rate:
        return f"{len(samples) / rate:.2f} s are too short for speech"
    if peak <= _SILENT:
        return "silent"
    if np.mean(np.abs(samples) >= FULL_SCALE - 2) >= CLIPPED_SHARE:
        return f"clipped: {100 * np.mean(np.abs(samples) >= FULL_SCALE - 2):.0f} % of its samples are at the limit"
    return None
