"""Make the data set of spoken commands, in synthetic voices (needs the extra `synth`).

    ./zoo prepare DeepASR synth --output_dir commands

Commands to a home in Mandarin, each in one of many voices of espeak-ng, of another pitch, pace, colour and loudness, in one of
two levels of noise. No voice is in two parts. What comes along in data/commands was made so.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.audio import resample
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.features import Frontend
from DeepASR.preparing import home_commands
from DeepASR.preparing.from_recordings import Recording, prepare
from DeepASR.preparing.synthesis import Voice, in_a_room, splits
from fluid import config as configuration
from fluid.config import Count, Seed, Was
from fluid.records import refuse_existing
from fluid.run import console, script

import numpy as np

LANGUAGE = "cmn"
NOISES = {"quiet": 25.0, "noisy": 10.0}
"""Decibels between speech and noise."""


@dataclass
class Flags:
    """Make the data set of spoken commands, in synthetic voices."""

    output_dir: Annotated[Path, Was("data_dir")] = Path("commands")
    """Folder to write, which must not be there yet."""
    utterances: tuple[Count, Count, Count] = (560, 48, 112)
    """Sentences to train on, to choose by, and to test on."""
    voices: tuple[Count, Count] = (6, 14)
    """Voices of dev and of test; the others train."""
    sample_rate: Count = 16_000
    """Samples a second."""
    num_bins: Count = 24
    """Mel bands of a frame."""
    seed: Seed = 0
    """Seed of sentences, voices and noise."""


def main(flags: Flags) -> None:
    """Synthesise, prepare and write."""
    refuse_existing(flags.output_dir)
    voice, rng = Voice(), np.random.default_rng(flags.seed)
    parts = dict(zip(("train", "dev", "test"), splits(voice.variants(), rng, (0, *flags.voices)), strict=True))
    lexicon = Lexicon({word: (home_commands.pronunciation(word),) for word in home_commands.words()})
    about = {
        "language": "Mandarin commands to a home",
        "voices": "synthetic, by espeak-ng 1.52",
        "licence": "CC0-1.0",
        "made by": f"prepare_synth.py --seed {flags.seed}",
    }
    prepare(
        flags.output_dir,
        {
            name: record(voice, name, variants, count, flags, rng)
            for (name, variants), count in zip(parts.items(), flags.utterances, strict=True)
        },
        lexicon,
        frontend=Frontend(flags.sample_rate, flags.num_bins),
        unit="cer",
        about=about,
        say=console.print,
    )


def record(
    voice: Voice, part: str, variants: list[str], count: int, flags: Flags, rng: np.random.Generator
) -> Iterator[Recording]:
    """Sentences in these voices in turn, every other one in more noise."""
    for number in range(count):
        variant, level = variants[number % len(variants)], list(NOISES)[number // len(variants) % 2]
        words = home_commands.draw_sentence(rng).split()
        rate, pitch = int(rng.integers(150, 220)), int(rng.integers(25, 76))
        samples = voice.say("".join(words), LANGUAGE, variant, rate=rate, pitch=pitch)
        samples = resample(samples, voice.rate, flags.sample_rate)
        margin = tuple(int(seconds * flags.sample_rate) for seconds in rng.uniform(0.08, 0.2, 2))
        heard = in_a_room(samples, rng, noise=NOISES[level], margin=(margin[0], margin[1]))
        name = f"{part}_{number:04d}_{variant.replace(' ', '')}_{level}"
        yield Recording(name, variant.replace(" ", ""), tuple(words), heard)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
