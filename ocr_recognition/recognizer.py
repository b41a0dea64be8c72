"""What must travel with a set of weights for them to read. Imports no paddle."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from fluid.errors import UserError
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.preprocess import Preprocess

import numpy as np

FOLDER = Path(__file__).resolve().parent
TASK = FOLDER.name
Model = Literal["crnn", "crnn_small", "crnn_ctc", "attention"]
MODELS: tuple[Model, ...] = get_args(Model)
Blank = Literal["last", "first"]
COLUMNS_A_FRAME = {"crnn": 4, "crnn_small": 4, "crnn_ctc": 8, "attention": 8}
"""Columns of the picture that one step of a network's recurrences sees."""
START, END = 0, 1
"""The signs before and after a word, which are the first two classes of attention."""
SIGNS = 2


def model_of(name: str) -> Model:
    """The network of this name. Raises UserError if there is none."""
    for model in MODELS:
        if model == name:
            return model
    raise UserError(f"the weights are of a network {name!r}, and there are only {', '.join(MODELS)}")


@dataclass(frozen=True)
class Recognizer:
    """A network, the characters it knows and how pictures are prepared for it; stored beside weights as `recognizer`."""

    model: Model
    alphabet: Alphabet
    preprocess: Preprocess = Preprocess()
    blank_first: bool = False
    """CTC: the blank is the class before the characters, not the one after them as in 2018."""
    longest: int = 100
    """attention: most characters of a word."""
    calibration: tuple[float, float] = (1.0, 0.0)
    """Slope and offset of the log-odds of a confidence, by which it becomes the share of such words that are read exactly."""

    @property
    def is_ctc(self) -> bool:
        """Whether the network says something of every frame, and not of every character."""
        return self.model != "attention"

    @property
    def columns_a_frame(self) -> int:
        """Columns of the picture that one step of the recurrences sees."""
        return COLUMNS_A_FRAME[self.model]

    def frames_of(self, width: np.ndarray) -> np.ndarray:
        """Frames of words of these widths [N]: each pooling rounds up."""
        return -(-width // self.columns_a_frame)

    @property
    def blank(self) -> int:
        """The class that is no character, of CTC."""
        return 0 if self.blank_first else len(self.alphabet)

    @property
    def first_class(self) -> int:
        """The class of the alphabet's first character; the others follow."""
        return int(self.blank_first) if self.is_ctc else SIGNS

    def text_of(self, classes: Sequence[int]) -> str:
        """Classes of the network, without blanks and signs, -> text."""
        return self.alphabet.decode([item - self.first_class for item in classes])

    def calibrated(self, confidence: float) -> float:
        """How many of the words that are read so surely are read exactly (Platt, 1999)."""
        if self.calibration == (1.0, 0.0):
            return confidence
        slope, offset = self.calibration
        sure = min(max(confidence, 1e-6), 1 - 1e-6)
        return 1 / (1 + math.exp(-slope * math.log(sure / (1 - sure)) - offset))

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        facts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return facts | {"alphabet": self.alphabet.to_json(), "preprocess": dataclasses.asdict(self.preprocess)}

    @staticmethod
    def from_facts(facts: dict[str, Any]) -> "Recognizer":
        """The inverse of `to_facts`; raises UserError if something is missing, or there is no such network."""
        try:
            values = {
                item.name: facts[item.name] for item in dataclasses.fields(Recognizer) if item.name != "calibration"
            }
            values["model"] = model_of(values["model"])
            values["preprocess"] = Preprocess(**facts["preprocess"])
            values["calibration"] = tuple(facts.get("calibration", (1.0, 0.0)))
        except (KeyError, TypeError) as error:
            raise UserError(f"the weights do not say what they read ({error} is missing)") from error
        return Recognizer(**values | {"alphabet": Alphabet.from_json(facts["alphabet"])})
