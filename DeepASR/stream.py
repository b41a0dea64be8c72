"""Recognise speech while it comes in, and show what was understood so far.

    python stream.py speech.wav                                            a file as if it were being spoken
    arecord -q -t wav -f S16_LE -r 16000 | python stream.py -              a microphone: WAV or raw 16-bit samples

A pause ends an utterance. At the end it says how long a piece of sound took to be understood.
"""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.audio import read_audio
from DeepASR.decoding.search import open_decoder
from DeepASR.incoming import incoming
from DeepASR.listener import LATE, Listener, Said
from DeepASR.opening import USED, open_recogniser
from DeepASR.options import ALIASES, RETIRED_IN_USE, SearchFlags
from DeepASR.posteriors import Network
from DeepASR.transcripts import spoken
from fluid import config as configuration
from fluid.config import Count, NotNegative, Positive
from fluid.errors import UserError
from fluid.run import console, script

import numpy as np
import tyro


@dataclass
class Flags(SearchFlags):
    """Recognise speech while it comes in."""

    recording: Annotated[str | None, tyro.conf.Positional] = None
    """WAV or FLAC file, or - for standard input: raw 16-bit samples, or WAV; by default an example that comes along."""
    chunk: Positive = 0.16
    """Seconds of sound that are taken at a time."""
    pause: NotNegative = 0.8
    """Seconds of silence that end an utterance; 0: none does."""
    rate: Count = 16_000
    """Samples a second of raw samples."""
    channels: Count = 1
    """Channels of raw samples, which are averaged."""


def main(flags: Flags) -> list[Said]:
    """Listen, print what is understood, and return it."""
    if flags.larger_model is not None:
        raise UserError("--larger_model chooses among whole utterances: use it with infer.py or eval.py")
    opened = open_recogniser(flags, USED)
    recogniser = opened.facts
    console.print(recogniser.introduction())
    network = Network(opened, flags, rows=1, runs=None)
    listener = Listener(network, open_decoder(recogniser, flags), pause=flags.pause or None)
    seconds, shown = [], ""
    recording = flags.recording or str(sorted(recogniser.examples().iterdir())[-1])
    for samples in pieces(recording, flags, listener.sample_rate):
        began, over = time.perf_counter(), len(listener.ended)
        listener.accept(samples)
        partial = listener.partial()
        seconds.append(time.perf_counter() - began)
        for said in listener.ended[over:]:
            show(said, recogniser.unit)
        if partial not in ("", shown):
            shown = partial
            console.print(f"... {shown}")
    over = len(listener.ended)
    for said in listener.finish()[over:]:
        show(said, recogniser.unit)
    if len(seconds) > 1:
        # The first piece waits for compiling.
        late, factor = np.quantile(seconds[1:], 0.95), np.mean(seconds[1:]) / flags.chunk
        console.print(
            f"95 % of the pieces of {flags.chunk:g} s were understood in {1000 * late:.0f} ms, real-time factor {factor:.3f}; "
            f"with what the network hears ahead, words come {1000 * (LATE + late):.0f} ms late"
        )
    return listener.ended


def show(said: Said, unit: str) -> None:
    """Print an utterance and its time."""
    words = spoken(said.hypothesis.words, "cer" if unit == "cer" else "wer")
    console.print(f"{said.start:.2f} to {said.end:.2f} s: {words}")


def pieces(recording: str, flags: Flags, rate: int) -> Iterator[np.ndarray]:
    """Samples at `rate`, `chunk` seconds at a time."""
    if recording != "-":
        samples, size = read_audio(recording, rate), max(1, round(flags.chunk * rate))
        for start in range(0, len(samples), size):
            yield samples[start : start + size]
        return
    yield from incoming(sys.stdin.buffer, seconds=flags.chunk, rate=flags.rate, channels=flags.channels, wanted=rate)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED_IN_USE)))
