"""What was heard, with times: as JSON lines, text, CTM (NIST) and SRT (subtitles)."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from DeepASR.decoding.decoder import Decoder, confidences
from DeepASR.features import FRAME_SHIFT
from DeepASR.forced_alignment import align_words
from DeepASR.metrics import Unit
from DeepASR.pictures import draw_alignment
from DeepASR.recogniser import Recogniser
from DeepASR.voice_activity import speech
from fluid.errors import DataError, UserError
from fluid.records import json_lines, make_folder, say_written, set_aside, writing

import numpy as np

LINE_OF = 8
"""Words in a subtitle, at most."""
WEIGHED = 50
"""Alternatives that tell how sure a word is."""
RESULTS = ("transcripts.jsonl", "transcripts.txt", "transcripts.ctm")
OF_EACH = ("[0-9][0-9][0-9][0-9]*_*.srt", "[0-9][0-9][0-9][0-9]*_*.png")
"""How files about single recordings are called (`file_of`)."""
LONGEST_NAME = 240
"""Bytes of the name of such a file, to which its ending comes; most systems take 255."""
PAUSE = 1.0
"""Seconds without a word after which a new subtitle begins."""


@dataclass(frozen=True)
class Word:
    """A word that was heard."""

    text: str
    start: float
    """Seconds from the beginning of the recording."""
    end: float
    score: float | None = None
    """Probability of the word among the alternatives, where they were asked for."""

    def later(self, seconds: float) -> Word:
        """The same in a recording that begins so much earlier."""
        return replace(self, start=round(self.start + seconds, 2), end=round(self.end + seconds, 2))

    def to_record(self) -> dict[str, Any]:
        """As JSON-able data."""
        sure = {} if self.score is None else {"score": self.score}
        return {"word": self.text, "start": self.start, "end": self.end, **sure}


@dataclass(frozen=True)
class Transcript:
    """Of a recording."""

    name: str
    words: tuple[Word, ...]
    text: str
    seconds: float
    complete: bool
    """Whether it ended where the graph allows an end."""
    alternatives: tuple[str, ...] = ()
    """The best texts, best first, where they were asked for."""
    speech: tuple[tuple[float, float], ...] = ()
    """Seconds in which somebody spoke, where they were asked for."""

    def to_record(self) -> dict[str, Any]:
        """As JSON-able data."""
        return {
            "recording": self.name,
            "text": self.text,
            "seconds": self.seconds,
            "complete": self.complete,
            "words": [word.to_record() for word in self.words],
            **({"alternatives": list(self.alternatives)} if self.alternatives else {}),
            **({"speech": [list(stretch) for stretch in self.speech]} if self.speech else {}),
        }


class Transcriber:
    """Posteriors to words with times.

    Times are those of the best path of the words that were found through the states of their phones. A graph of Kaldi's hides
    how its words are pronounced: there are no times with it.
    """

    def __init__(self, recogniser: Recogniser, decoder: Decoder, n_best: int = 0, pause: float = 0.0) -> None:
        """`n_best`: how many alternatives to find; their words tell how sure each is. `pause`: seconds of silence that a
        recording is divided at, 0: it is not. Raises UserError where silence has no classes of its own."""
        self._recogniser, self._decoder, self._n_best, self._pause = recogniser, decoder, n_best, pause
        if pause and recogniser.lexicon is None:
            raise UserError("these weights do not say which of their classes are silence: leave --pause out")

    def transcribe(self, name: str, posterior: np.ndarray) -> Transcript:
        """What was heard in a recording, from posteriors [T, classes]. Raises DataError as the decoder."""
        if not self._pause:
            return self._whole(name, posterior)
        stretches = speech(posterior, self._pause)
        heard = [(start * FRAME_SHIFT, self._whole(name, posterior[start:end])) for start, end in stretches]
        return Transcript(
            name,
            tuple(word.later(start) for start, part in heard for word in part.words),
            " ".join(part.text for _, part in heard if part.text),
            round(len(posterior) * FRAME_SHIFT, 2),
            all(part.complete for _, part in heard),
            speech=tuple((round(start * FRAME_SHIFT, 2), round(end * FRAME_SHIFT, 2)) for start, end in stretches),
        )

    def draw(self, path: Path, transcript: Transcript, posterior: np.ndarray) -> None:
        """A picture of posteriors [T, classes] and the path through them of the words that were heard.

        Raises UserError where words have no pronunciation that is known, and if it cannot be written.
        """
        lexicon = self._decoder.lexicon or self._recogniser.lexicon
        words = [word.text for word in transcript.words]
        if lexicon is None or (transcript.text and not words):
            raise UserError(f"{transcript.name}: how its words are pronounced is not known: leave --pictures out")
        make_folder(path.parent)
        alignment = align_words(self._decoder.scores(posterior), lexicon, words)
        with writing(path):
            draw_alignment(path, posterior, alignment, lexicon)

    def _whole(self, name: str, posterior: np.ndarray) -> Transcript:
        heard = self._decoder.decode(posterior, name)
        words = tuple(self._timed(heard.words, posterior))
        unit, alternatives = self._recogniser.unit, []
        if self._n_best:
            # More are weighed than are shown.
            alternatives = self._decoder.n_best(posterior, max(self._n_best, WEIGHED), name)
            sure = confidences(heard.words, alternatives)
            words = tuple(replace(word, score=share) for word, share in zip(words, sure))
        seconds = round(len(posterior) * FRAME_SHIFT, 2)
        shown = tuple(spoken(item.words, unit) for item in alternatives[: self._n_best])
        return Transcript(name, words, spoken(heard.words, unit), seconds, heard.complete, shown)

    def _timed(self, words: Sequence[str], posterior: np.ndarray) -> Iterable[Word]:
        lexicon = self._decoder.lexicon or self._recogniser.lexicon
        if lexicon is None or not words or lexicon.missing(words):
            return
        try:
            spans = align_words(self._decoder.scores(posterior), lexicon, words).spans()
        except DataError:
            # More words than there is time for, where nothing was said.
            return
        for word, start, end in spans:
            yield Word(word, round(start * FRAME_SHIFT, 2), round(end * FRAME_SHIFT, 2))


def spoken(words: Sequence[str], unit: Unit) -> str:
    """Words as they are written: without blanks where errors are counted in characters."""
    return ("" if unit == "cer" else " ").join(words)


@contextlib.contextmanager
def transcripts_in(folder: Path) -> Iterator[Callable[[Transcript], None]]:
    """A function that adds a transcript to transcripts.jsonl, .txt and .ctm, where it can be read at once, and writes its .srt.

    What an earlier call left is set aside, and if anything was heard it is said at the end what was written. Raises UserError if
    it cannot be.
    """
    numbers = itertools.count()
    with json_lines(set_aside(folder, (*RESULTS, *OF_EACH)) / RESULTS[0]) as write:

        def add(transcript: Transcript) -> None:
            write(transcript.to_record())
            _append(folder / RESULTS[1], f"{transcript.name} {transcript.text}\n")
            _append(folder / RESULTS[2], ctm(transcript))
            _append(folder / file_of(next(numbers), transcript.name, "srt"), srt(transcript))

        for name in RESULTS[1:]:
            _append(folder / name, "")
        yield add
    if next(numbers):  # so many were added
        say_written(folder, [*RESULTS, "*.srt"])


def _append(path: Path, text: str) -> None:
    with writing(path), open(path, "a", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def file_of(number: int, name: str, ending: str) -> str:
    """Name of a file about the recording of that number and name, which is cut where it is too long."""
    stem = f"{number:04d}_{Path(name).stem}"
    while len(os.fsencode(stem)) > LONGEST_NAME:
        stem = stem[:-1]
    return f"{stem}.{ending}"


def ctm(transcript: Transcript) -> str:
    """Lines `RECORDING CHANNEL START DURATION WORD`, and how sure a word is where that is known; blanks of a name are `_`."""
    name = "_".join(Path(transcript.name).stem.split())
    return "".join(
        f"{name} 1 {word.start:.2f} {word.end - word.start:.2f} {word.text}{_sure(word)}\n" for word in transcript.words
    )


def _sure(word: Word) -> str:
    return "" if word.score is None else f" {word.score:.2f}"


def srt(transcript: Transcript) -> str:
    """Subtitles of a few words each."""
    blocks: list[list[Word]] = []
    for word in transcript.words:
        if not blocks or len(blocks[-1]) == LINE_OF or word.start - blocks[-1][-1].end > PAUSE:
            blocks.append([])
        blocks[-1].append(word)
    return "\n".join(
        f"{number}\n{_clock(block[0].start)} --> {_clock(block[-1].end)}\n{' '.join(word.text for word in block)}\n"
        for number, block in enumerate(blocks, 1)
    )


def _clock(seconds: float) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d},{rest % 1000:03d}"
