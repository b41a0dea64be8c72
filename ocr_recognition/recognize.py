"""From pictures of words to readings, in batches of few shapes: what infer.py does with whatever it is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ocr_recognition.readings import Read, Reading
from ocr_recognition.recognizer import Recognizer

import numpy as np

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs the inference Program on `pixel` and `width`."""
EDGES = (64, 128, 192, 256, 384, 512, 768, 1024)
"""Widths that words are padded to; wider ones have their own."""


@dataclass(frozen=True)
class Try:
    """A picture as it may have been meant."""

    degrees: int = 0
    """It is turned by so much, counter-clockwise."""
    inverted: bool = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """The picture [H, W, ...] uint8 so changed."""
        turned = np.ascontiguousarray(np.rot90(picture, self.degrees // 90))
        return 255 - turned if self.inverted else turned


@dataclass(frozen=True)
class Word:
    """A word that was read."""

    text: str
    score: float
    """How sure the reading is, 0..1."""
    characters: tuple[tuple[str, float, float, float], ...]
    """Of each character: itself, its probability, and from where to where it stands in pixels of the picture."""
    how: Try = Try()
    """What was done to the picture; places are those in the changed one."""

    def to_record(self) -> dict[str, Any]:
        """For JSON lines."""
        record: dict[str, Any] = {"text": self.text, "score": round(self.score, 4)}
        record["characters"] = [
            {"character": one, "score": round(sure, 4), "start": round(start, 1), "end": round(end, 1)}
            for one, sure, start, end in self.characters
        ]
        if self.how != Try():
            record |= {"turned": self.how.degrees, "inverted": self.how.inverted}
        return record


def tries(*, inverted: bool, rotated: bool) -> list[Try]:
    """The ways in which a picture is read; the surest counts."""
    turns = (0, 90, 270) if rotated else (0,)
    return [Try(degrees, dark) for degrees in turns for dark in ((False, True) if inverted else (False,))]


def recognize(
    run: Run, read: Read, recognizer: Recognizer, pictures: Sequence[np.ndarray], how: Sequence[Try], batch_size: int
) -> list[Word]:
    """What is read in each picture [H, W] or [H, W, 3] uint8, by the surest of several tries.

    Words of similar width share a batch; that changes nothing but the speed.
    """
    changed = [one(picture) for picture in pictures for one in how]
    rows = [recognizer.preprocess.picture(picture) for picture in changed]
    found: dict[int, Reading] = {}
    order = sorted(range(len(rows)), key=lambda index: rows[index].shape[1])
    for first in range(0, len(order), batch_size):
        group = order[first : first + batch_size]
        feed = padded([rows[index] for index in group], batch_size if len(order) > batch_size else len(group))
        outputs = {name: np.asarray(array)[: len(group)] for name, array in run(feed).items()}
        found.update(zip(group, read(outputs, feed["width"][: len(group)]), strict=True))
    words = [
        _word(recognizer, found[index], picture, row, how[index % len(how)])
        for index, (picture, row) in enumerate(zip(changed, rows, strict=True))
    ]
    groups = [words[first : first + len(how)] for first in range(0, len(words), len(how))]
    return [max(group, key=lambda word: word.score * bool(word.text)) for group in groups]


def padded(rows: Sequence[np.ndarray], count: int) -> dict[str, np.ndarray]:
    """`count` words of the inference Program: those [height, w] uint8, of which the last fills up."""
    widest = max(row.shape[1] for row in rows)
    edge = next((edge for edge in EDGES if edge >= widest), widest)
    pixel = np.zeros((count, 1, rows[0].shape[0], edge), np.float32)
    width = np.array([row.shape[1] for row in rows] + [rows[-1].shape[1]] * (count - len(rows)))
    for place, row in enumerate([*rows, *[rows[-1]] * (count - len(rows))]):
        pixel[place, 0, :, : row.shape[1]] = row - np.float32(127.5)
    return {"pixel": pixel, "width": width}


def _word(recognizer: Recognizer, reading: Reading, picture: np.ndarray, row: np.ndarray, how: Try) -> Word:
    text = recognizer.text_of(reading.label)
    pixels = recognizer.columns_a_frame * picture.shape[1] / row.shape[1]
    end = float(picture.shape[1])
    characters = tuple(
        (one, sure, min(begin * pixels, end), min(stop * pixels, end))
        for one, sure, (begin, stop) in zip(text, reading.probabilities, reading.spans)
    )
    return Word(text, recognizer.calibrated(reading.confidence), characters, how)
