"""Sound that comes in piece by piece: the samples are those of the whole, whatever the pieces and the form."""

import io
import struct

from DeepASR.audio import FULL_SCALE, read_audio, resample
from DeepASR.incoming import Resampler, incoming
from fluid.errors import DataError

import numpy as np
import pytest
import soundfile


def sound(count: int = 5000, channels: int = 1) -> np.ndarray:
    """16-bit samples [n, channels]."""
    return np.random.default_rng(0).integers(-9000, 9000, (count, channels)).astype("<i2")


def as_wav(samples: np.ndarray, rate: int, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples / np.float32(FULL_SCALE), rate, format="WAV", subtype=subtype)
    return file.getvalue()


def taken(data: bytes, rate: int = 16_000, channels: int = 1, seconds: float = 0.01, wanted: int = 8000) -> np.ndarray:
    given = {"seconds": seconds, "rate": rate, "channels": channels, "wanted": wanted}
    return np.concatenate(list(incoming(io.BufferedReader(io.BytesIO(data)), **given)))


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 11_025, 4000])
@pytest.mark.parametrize("seconds", [0.00001, 0.013, 0.16, 9])
def test_samples_at_another_rate_are_those_of_the_whole(rate: int, seconds: float) -> None:
    samples = sound(1200)
    whole = resample(samples.mean(axis=1), rate, 8000)
    np.testing.assert_allclose(taken(samples.tobytes(), rate, seconds=seconds), whole, atol=1e-2)


def test_little_is_kept_and_late() -> None:
    resampler = Resampler(44_100, 8000)
    made = [len(resampler.accept(np.zeros(441))) for _ in range(50)]
    assert sum(made) >= 50 * 80 - 20 and len(resampler._waiting) < 1000


@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_stream_says_its_form_itself(channels: int) -> None:
    samples = sound(channels=channels)
    wav = as_wav(samples, 8000)
    np.testing.assert_array_equal(taken(wav), read_audio(wav, 8000))
    # Parts that nobody needs stand before the samples and behind them, and recorders do not know the length yet.
    place, other = wav.index(b"data"), b"LIST" + struct.pack("<I", 3) + b"abc\0"
    np.testing.assert_array_equal(taken(wav + 999 * other), read_audio(wav, 8000))
    for unknown in (0, 2**31 - 4096, 2**32 - 1):
        endless = wav[:place] + other + b"data" + struct.pack("<I", unknown) + wav[place + 8 :]
        np.testing.assert_array_equal(taken(endless), read_audio(wav, 8000))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "holds no samples"),
        (b"\0", "holds no samples"),
        (b"fLaC and so on", "compressed sound"),
        (b"RIFF\0\0\0\0AVI ", "begins as a WAV stream and is none"),
        (as_wav(sound(), 8000)[:30], "a WAV stream without samples"),
        (as_wav(sound(), 8000)[:44], "holds no samples"),
        (as_wav(sound(), 8000, "PCM_24"), "a WAV stream of 24 bits"),
        (as_wav(sound(), 8000, "FLOAT"), "a WAV stream of 32 bits"),
        (as_wav(sound(), 10), "10 samples a second are not in"),
    ],
    # A WAV of floats holds the time, and all workers have to agree on the names of tests.
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_is_no_such_sound_is_told(data: bytes, told: str) -> None:
    with pytest.raises(DataError, match=f"standard input: {told}"):
        taken(data)
