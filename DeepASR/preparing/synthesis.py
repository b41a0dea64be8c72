"""Sentences in synthetic voices, by espeak-ng through its shared library (the extra `synth`; GPL-3, its sound is not).

The samples of a text are not the same in every process: espeak draws random numbers of its own for breathy voices.
"""

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from fluid.errors import UserError

import numpy as np

STRANGE = {
    "AnxiousAndy", "Demonic", "Tweaky", "UniRobot", "anikaRobot", "announcer", "croak", "fast", "whisper", "whisperf",
    *(f"robosoft{number}" for number in ("", *range(2, 9))),
    *(f"klatt{number}" for number in ("", *range(2, 7))),
}  # fmt: skip
"""Variants that sound like nobody."""
_SYNCHRONOUS, _UTF8, _RATE, _PITCH, _RANGE = 2, 1, 1, 3, 4


class Voice:
    """espeak-ng, of which a process has one."""

    def __init__(self) -> None:
        """Raises UserError if the extra is not installed."""
        try:
            import espeakng_loader
        except ImportError:
            raise UserError("synthetic voices need espeak-ng: pip install '.[synth]'") from None
        self._data = espeakng_loader.get_data_path()
        self._library = ctypes.cdll.LoadLibrary(espeakng_loader.get_library_path())
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, self._data.encode(), 0)
        self._pieces: list[np.ndarray] = []
        # Kept: the library calls it as long as it lives.
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(self._take)
        self._library.espeak_SetSynthCallback(self._callback)

    def variants(self) -> list[str]:
        """Names of voices, without those that sound like nobody."""
        return sorted(set(os.listdir(os.path.join(self._data, "voices", "!v"))) - STRANGE)

    def say(self, text: str, language: str, variant: str, *, rate: int = 175, pitch: int = 50) -> np.ndarray:
        """float32 [n] on the 16-bit scale, at `self.rate` Hz. Raises UserError for a language or voice that is not there."""
        if self._library.espeak_SetVoiceByName(f"{language}+{variant}".encode()) != 0:
            raise UserError(f"espeak-ng has no voice {language}+{variant}")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_RANGE, 50)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces = []
        encoded = text.encode()
        self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        return np.concatenate(self._pieces).astype(np.float32) if self._pieces else np.zeros(0, np.float32)

    def _take(self, samples: Any, count: int, events: Any) -> int:
        if samples and count:
            array = ctypes.cast(samples, ctypes.POINTER(ctypes.c_int16 * count)).contents
            self._pieces.append(np.array(array, np.int16))
        return 0


def in_a_room(samples: np.ndarray, rng: np.random.Generator, *, noise: float, margin: tuple[int, int]) -> np.ndarray:
    """Samples [n] as a microphone might hear them: another colour and level, silence before and after, noise.

    Args:
        samples: on the 16-bit scale.
        rng: draws colour, level and noise.
        noise: decibels between speech and noise.
        margin: samples of silence before and after.
    """
    colour = np.concatenate([[1.0], rng.uniform(-0.35, 0.35, 3) * [1, 0.6, 0.4]])
    samples = np.convolve(np.pad(samples, margin), colour)
    samples *= 10 ** (rng.uniform(-12, 0) / 20) * 12_000 / max(np.abs(samples).max(), 1)
    power = np.mean(samples[margin[0] : len(samples) - margin[1]] ** 2)
    white = rng.normal(size=len(samples))
    # Noise of rooms falls towards high frequencies.
    brown = np.convolve(white, [1, 0.8, 0.5, 0.3, 0.15], "same") if rng.random() < 0.5 else white
    return np.clip(samples + brown * np.sqrt(power / np.mean(brown**2) / 10 ** (noise / 10)), -32768, 32767)


def splits(voices: Sequence[str], rng: np.random.Generator, sizes: Sequence[int]) -> list[list[str]]:
    """Parts of these sizes that have no voice in common; the first takes what is left over."""
    order = [voices[number] for number in rng.permutation(len(voices))]
    ends = np.cumsum([len(voices) - sum(sizes[1:]), *sizes[1:]])
    return [sorted(order[start:end]) for start, end in zip([0, *ends[:-1]], ends)]
