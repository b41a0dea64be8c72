"""Make a data set of spoken digit strings out of recordings of single digits: the Free Spoken Digit Dataset.

    git clone https://github.com/Jakobovski/free-spoken-digit-dataset
    ./zoo prepare DeepASR digits --recordings free-spoken-digit-dataset/recordings --output_dir digits

Each recording `DIGIT_SPEAKER_TAKE.wav` comes twice in strings of 1 to 5 of its speaker, with pauses of .05 to .3 s, another level
and noise; takes below 10 are kept for test, in strings of 3 to 7, and every 15th is for dev. Synthetic English voices (extra `synth`, and --voices)
are mixed in, since four speakers are few.
Alignments come from a flat start for each speaker by himself, so that a speaker who is left out of training had no part in it.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.audio import read_audio, resample
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.features import Frontend
from DeepASR.preparing.from_recordings import Recording, prepare
from DeepASR.preparing.synthesis import Voice, in_a_room
from fluid import config as configuration
from fluid.config import Count, Natural, Range, Seed, Was
from fluid.errors import DataError
from fluid.records import refuse_existing
from fluid.run import console, script

import numpy as np

RATE = 8000
"""Samples a second of those recordings."""
PRONUNCIATIONS = {
    "zero": "z ih r ow", "one": "w ah n", "two": "t uw", "three": "th r iy", "four": "f ao r", "five": "f ay v",
    "six": "s ih k s", "seven": "s eh v ah n", "eight": "ey t", "nine": "n ay n",
}  # fmt: skip
"""Phones of CMUdict; each belongs to its word alone, since a word is always said between any others."""
LEXICON = Lexicon(
    {word: (tuple(f"{phone}_{word}" for phone in said.split()),) for word, said in PRONUNCIATIONS.items()}
)
WORDS = tuple(PRONUNCIATIONS)
TRAINED_SIZES, TESTED_SIZES = (1, 5), (3, 7)
"""Digits of a string."""
TRAINED_NOISE = (12.0, 45.0)
"""Least and most decibels between speech and noise in the strings to train on."""
AT_ONCE, BARE = 0.4, 0.5
"""Share of the strings to train on that begin with the first sound, and of single words that stay as they were recorded."""
CLIPPED, MOST_CLIPPED = 0.3, 0.08
"""Share of beginnings, and of ends, of words to train on that are cut off, and how many seconds at most: many a recording of
that data set lacks a part of its first or last sound."""
EVERY, FIRST_OF_DEV = 15, 10
"""Every 15th take from that one on is for dev."""
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)")


@dataclass
class Flags:
    """Make a data set of spoken digit strings."""

    recordings: Path = Path("free-spoken-digit-dataset/recordings")
    """Folder of files DIGIT_SPEAKER_TAKE.wav."""
    output_dir: Annotated[Path, Was("data_dir")] = Path("digits")
    """Folder to write, which must not be there yet."""
    synthetic: Natural = 300
    """Strings of synthetic voices to train on."""
    voices: Path | None = None
    """Folder of more such files, of voices that only training hears."""
    times: Count = 2
    """How often each recording comes in the strings to train on."""
    tested_takes: Natural = 10
    """Takes below this are kept for test: with 49 nearly all, for the speaker whom training leaves out."""
    noise: tuple[Annotated[float, Range(-20, 60)], Annotated[float, Range(-20, 60)]] = (12.0, 40.0)
    """Least and most decibels between speech and noise in the strings for test."""
    num_bins: Count = 24
    """Mel bands of a frame."""
    seed: Seed = 0
    """Seed of strings, pauses and noise."""


def main(flags: Flags) -> None:
    """Put strings together, prepare and write."""
    refuse_existing(flags.output_dir)
    rng = np.random.default_rng(flags.seed)
    takes = read_takes(flags.recordings)
    tested = {key: samples for key, samples in takes.items() if key[2] < flags.tested_takes}
    others = {key: samples for key, samples in takes.items() if key[2] >= flags.tested_takes}
    # Without any, as in a set for test alone, all of them.
    for_dev = {key: samples for key, samples in others.items() if key[2] % EVERY == FIRST_OF_DEV} or others
    for_train = {key: samples for key, samples in others.items() if key not in for_dev} or others
    train = [item for number in range(flags.times) for item in strings(for_train, f"train{number}", rng)]
    dev = list(strings(for_dev, "dev", rng))
    spoken = list(synthetic(flags.synthetic, rng)) if flags.synthetic else []
    test = list(strings(tested, "test", rng, TESTED_SIZES, flags.noise))
    if flags.voices is not None:
        spoken += strings(read_takes(flags.voices), "voice", rng)
    parts = {"train": train + spoken, "dev": dev, "test": test}
    about = {
        "language": "strings of English digits",
        "examples": "digits",
        "voices": f"{len({speaker for _, speaker, _ in takes})} speakers of the Free Spoken Digit Dataset, and synthetic ones",
        "licence": "CC-BY-SA-4.0, as the Free Spoken Digit Dataset by Zohar Jackson and others",
        "made by": f"prepare_digits.py --seed {flags.seed}",
    }
    prepare(
        flags.output_dir,
        parts,
        LEXICON,
        frontend=Frontend(RATE, flags.num_bins),
        unit="wer",
        about=about,
        order=1,
        by_speaker=lambda speaker: "synthetic" if speaker.startswith("synthetic") else speaker,
        say=console.print,
    )


def read_takes(folder: Path) -> dict[tuple[int, str, int], np.ndarray]:
    """Samples [n] by (digit, speaker, take). Raises DataError if there are none."""
    found = {}
    for path in sorted(folder.glob("*.wav")):
        if match := _NAME.fullmatch(path.stem):
            found[int(match[1]), match[2], int(match[3])] = read_audio(path, RATE)
    if not found:
        raise DataError(f"{folder}: holds no recording DIGIT_SPEAKER_TAKE.wav")
    return found


def strings(
    takes: dict[tuple[int, str, int], np.ndarray],
    prefix: str,
    rng: np.random.Generator,
    sizes: tuple[int, int] = TRAINED_SIZES,
    noise: tuple[float, float] | None = None,
) -> Iterator[Recording]:
    """Every recording once, in strings of its speaker of so many digits, at least and at most.

    `noise`: see `joined`.
    """
    by_speaker: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for key in takes:
        by_speaker[key[1]].append(key)
    for speaker, keys in by_speaker.items():
        order = [keys[number] for number in rng.permutation(len(keys))]
        number = 0
        while order:
            size = int(rng.integers(sizes[0], sizes[1] + 1))
            chosen, order = order[:size], order[size:]
            samples = joined([takes[key] for key in chosen], rng, noise)
            words = tuple(WORDS[digit] for digit, _, _ in chosen)
            yield Recording(f"{prefix}_{speaker}_{number:04d}", speaker, words, samples)
            number += 1


def joined(
    pieces: Sequence[np.ndarray], rng: np.random.Generator, noise: tuple[float, float] | None = None
) -> np.ndarray:
    """Recordings one after the other, with pauses, in a room with noise so many decibels below them, at least and at most.

    None: for training, where some begin with the first sound, and words may lack a part.
    """
    parts = []
    for piece in pieces:
        if noise is None:
            piece = clipped(piece, rng)
        # Recordings differ in loudness, and speakers do within a string.
        piece = piece * (8000 * 10 ** (rng.uniform(-3, 3) / 20) / max(np.abs(piece).max(), 1))
        parts += [piece, np.zeros(int(rng.uniform(0.05, 0.3) * RATE), np.float32)]
    if noise is None and len(pieces) == 1 and rng.random() < BARE:
        return parts[0] * 10 ** (rng.uniform(-18, 6) / 20)
    margin = [int(seconds * RATE) for seconds in rng.uniform(0, 0.3, 2)]
    if noise is None and rng.random() < AT_ONCE:
        margin[0] = 0
    return in_a_room(
        np.concatenate(parts), rng, noise=rng.uniform(*(noise or TRAINED_NOISE)), margin=(margin[0], margin[1])
    )


def clipped(piece: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A word [n] that may lack a part of its first or last sound, at most a fifth of it."""
    most = min(int(MOST_CLIPPED * RATE), len(piece) // 5)
    before, behind = (int(rng.integers(most + 1)) if rng.random() < CLIPPED else 0 for _ in range(2))
    return piece[before : len(piece) - behind]


def synthetic(count: int, rng: np.random.Generator) -> Iterator[Recording]:
    """Strings in English voices of espeak-ng, of five accents."""
    voice = Voice()
    variants = voice.variants()
    for number in range(count):
        variant = variants[rng.integers(len(variants))]
        words = tuple(
            WORDS[digit] for digit in rng.integers(0, 10, rng.integers(TRAINED_SIZES[0], TRAINED_SIZES[1] + 1))
        )
        rate, pitch = int(rng.integers(130, 210)), int(rng.integers(20, 80))
        language = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-029")[number % 5]
        pieces = [
            resample(voice.say(word, language, variant, rate=rate, pitch=pitch), voice.rate, RATE) for word in words
        ]
        yield Recording(f"synthetic_{number:04d}", f"synthetic_{variant}".replace(" ", ""), words, joined(pieces, rng))


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
