"""Logarithms of the energy in mel bands, by kaldi-native-fbank: what Kaldi's compute-fbank-feats gives, without dither.

frontend = Frontend(sample_rate=16_000, num_bins=24)
frontend.features(samples)                   [frames, 24], a frame every 10 ms over 25 ms of sound

stream = frontend.open()
stream.accept(samples);  stream.frames()     the frames that are new, while sound comes in
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

FRAME_SHIFT = 0.01
"""Seconds from one frame to the next."""


@dataclass(frozen=True)
class Frontend:
    """How features are made of samples."""

    sample_rate: int = 16_000
    num_bins: int = 24
    """Mel bands, from 20 Hz to half the rate."""

    def features(self, samples: np.ndarray) -> np.ndarray:
        """Of a whole recording [n], on the 16-bit scale: float32 [frames, num_bins]."""
        stream = self.open()
        stream.accept(samples)
        return stream.frames(last=True)

    def open(self) -> "FeatureStream":
        """For sound that comes in pieces."""
        return FeatureStream(self)

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        return dataclasses.asdict(self)


class FeatureStream:
    """Features of sound that comes in pieces: those of the whole, whatever the pieces."""

    def __init__(self, frontend: Frontend) -> None:
        # Training on features that are computed already needs none.
        import kaldi_native_fbank as fbank

        options = fbank.FbankOptions()
        options.frame_opts.samp_freq = frontend.sample_rate
        options.frame_opts.dither = 0.0
        options.mel_opts.num_bins = frontend.num_bins
        self._rate, self._bins = frontend.sample_rate, frontend.num_bins
        self._fbank = fbank.OnlineFbank(options)
        self._taken = 0

    def accept(self, samples: np.ndarray) -> None:
        """Take the next samples [n]."""
        self._fbank.accept_waveform(self._rate, np.asarray(samples, np.float32).tolist())

    def frames(self, last: bool = False) -> np.ndarray:
        """The frames that are complete and were not handed over before, [frames, num_bins]; `last`: nothing more comes."""
        if last:
            self._fbank.input_finished()
        ready = self._fbank.num_frames_ready
        views = [self._fbank.get_frame(number) for number in range(self._taken, ready)]
        frames = np.stack(views).astype(np.float32) if views else np.zeros((0, self._bins), np.float32)
        # Of an endless stream only the newest are kept; what was viewed is no more.
        self._fbank.pop(len(views))
        self._taken = ready
        return frames
