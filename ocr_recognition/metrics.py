"""How well words are read, exact over a whole set whatever the batch size. Imports no paddle."""

import unicodedata
from collections.abc import Mapping, Sequence

from fluid.data import Batch
from fluid.engine import Engine
from ocr_recognition.alignment import frames_needed
from ocr_recognition.readings import Read, edit_distance, readings
from ocr_recognition.recognizer import Recognizer

import numpy as np

COLUMNS = ("counts", "exact", "alphanumeric", "edits", "length", "similarity", "confidence", "loss", "has_loss")


def alphanumeric(text: str, *, any_script: bool = False) -> str:
    """A text as benchmarks compare it: small letters and digits of ASCII alone (IIIT5K, SVT, ICDAR); with `any_script` those
    of all scripts, and their marks."""
    kept = (one for one in text.lower() if any_script or one.isascii())
    return "".join(one for one in kept if unicodedata.category(one)[0] in "LMN")


class Accuracy:
    """Of a Program with `losses` and what `readings` needs, and a source whose samples have an `index` into `texts`."""

    def __init__(self, recognizer: Recognizer, texts: Sequence[str], read: Read | None = None) -> None:
        self._recognizer, self._texts = recognizer, texts
        self._read = read or (lambda outputs, width: readings(recognizer, outputs, width))
        self._rows: list[np.ndarray] = []
        self.found: dict[int, tuple[str, float]] = {}
        """Index of a word -> what this process read, and how sure it was."""

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        feed = batch.feed
        found = self._read(outputs, feed["width"])
        frames = self._recognizer.frames_of(feed["width"])
        for row, (reading, counts) in enumerate(zip(found, batch.mask.tolist(), strict=True)):
            index, label = int(feed["index"][row]), feed["label"][row, : feed["label_length"][row]]
            # What cannot be aligned has no loss, and an exported model tells none.
            aligned = not self._recognizer.is_ctc or frames_needed(label) <= frames[row]
            has_loss = aligned and "losses" in outputs
            text, sure = self._recognizer.text_of(reading.label), self._recognizer.calibrated(reading.confidence)
            loss = float(outputs["losses"][row]) if has_loss else 0.0
            self._rows.append(np.array([counts, *_compared(text, self._texts[index]), sure, loss, has_loss]))
            if counts:
                self.found[index] = (text, sure)

    def merge(self, engine: Engine) -> None:
        """Unite what all processes counted."""
        self._rows = list(engine.gather(np.array(self._rows)))

    @property
    def table(self) -> dict[str, np.ndarray]:
        """Each of COLUMNS by word, float64 [words]."""
        rows = np.array(self._rows).reshape(-1, len(COLUMNS))
        return dict(zip(COLUMNS, rows[rows[:, 0] > 0].T, strict=True))

    def result(self) -> dict[str, float]:
        """Over all words:

        `exact`, the share read without an error; `alphanumeric`, the share of those without regard to case and to all but
        letters and digits, those of ASCII where the text has no others; `cer`, the edits over the characters; `1-ned`, the mean
        of 1 - edits / longer length (ICDAR 2019); `distance`, the mean of edits / length, as 2018 printed beside the sequence
        error 1 - exact; `loss`, the mean negative log-likelihood of a word, where one has any.
        """
        table = self.table
        length = np.maximum(table["length"], 1)
        found = {
            "exact": float(table["exact"].mean()),
            "alphanumeric": float(table["alphanumeric"].mean()),
            "cer": float(table["edits"].sum() / max(table["length"].sum(), 1)),
            "1-ned": float(table["similarity"].mean()),
            "distance": float((table["edits"] / length).mean()),
        }
        words = table["has_loss"].sum()
        return {**found, "loss": float(table["loss"].sum() / words)} if words else found

    def by_length(self) -> dict[int, tuple[int, float]]:
        """Length of a word in characters -> how many there are, and the share read exactly."""
        table = self.table
        lengths = table["length"].astype(int)
        return {
            int(length): (int((lengths == length).sum()), float(table["exact"][lengths == length].mean()))
            for length in np.unique(lengths)
        }


def _compared(text: str, wanted: str) -> tuple[float, float, float, float, float]:
    """exact, alphanumeric, edits, length, similarity of a reading."""
    edits = edit_distance(text, wanted)
    longer = max(len(text), len(wanted), 1)
    # Without the letters of other scripts, whatever is read of a word of them would be right.
    alike = [alphanumeric(one, any_script=not wanted.isascii()) for one in (text, wanted)]
    return text == wanted, alike[0] == alike[1], edits, len(wanted), 1 - edits / longer


def reliability(confidence: np.ndarray, exact: np.ndarray, bins: int = 10) -> tuple[np.ndarray, float]:
    """How far confidences can be taken at their word (Guo et al., arXiv:1706.04599).

    Returns [bins, 3], words, mean confidence and share of exact readings of each tenth of the confidences, and the expected
    calibration error: the mean difference of the two, by words.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    words = np.bincount(place, minlength=bins)
    sums = [np.bincount(place, weights=values, minlength=bins) for values in (confidence, exact)]
    means = [total / np.maximum(words, 1) for total in sums]
    error = float((np.abs(means[0] - means[1]) * words).sum() / max(words.sum(), 1))
    return np.stack([words, *means], axis=1), error


def calibration_of(confidence: np.ndarray, exact: np.ndarray, steps: int = 50) -> tuple[float, float]:
    """Slope and offset of the log-odds of confidences that make them most probable, of words [N] read exactly or not.

    Logistic regression by Newton's steps (Platt, 1999), with his targets, which are never quite 0 and 1.
    """
    sure = np.clip(confidence, 1e-6, 1 - 1e-6)
    given = np.stack([np.log(sure / (1 - sure)), np.ones(len(sure))], axis=1)
    right, wrong = exact.sum(), len(exact) - exact.sum()
    target = np.where(exact > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    found = np.array([1.0, 0.0])
    for _ in range(steps):
        share = 1 / (1 + np.exp(-given @ found))
        curve = (given * (share * (1 - share))[:, None]).T @ given + 1e-6 * np.eye(2)
        found = found + np.clip(np.linalg.solve(curve, given.T @ (target - share)), -1, 1)
    return float(found[0]), float(found[1])
