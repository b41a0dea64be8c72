"""The characters that a recogniser knows: what their classes are, and what becomes of those it does not know."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fluid.errors import DataError
from fluid.text import read_lines

import numpy as np

Unknown = Literal["error", "drop", "map"]
"""What becomes of a character that is not in the alphabet: an error; left out; or the nearest, as `nearest` says."""


@dataclass(frozen=True)
class Alphabet:
    """Characters by class: that of class k is `characters[k]`. It travels with the weights."""

    characters: tuple[str, ...]

    @staticmethod
    def ascii() -> "Alphabet":
        """The 95 printable characters of ASCII, the space first."""
        return Alphabet(tuple(map(chr, range(32, 127))))

    def __len__(self) -> int:
        return len(self.characters)

    @cached_property
    def classes(self) -> dict[str, int]:
        """Class by character."""
        return {character: number for number, character in enumerate(self.characters)}

    def spelled(self, text: str) -> str:
        """A text with letters and their marks as one character or as several, whichever the alphabet knows more of."""
        forms = (text, unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))
        return min(forms, key=lambda form: sum(character not in self.classes for character in form))

    def encode(self, text: str, unknown: Unknown = "error", met: Counter[str] | None = None) -> np.ndarray:
        """Classes of a text, [characters] int32.

        Args:
            text: what to encode.
            unknown: what becomes of characters that are not in the alphabet.
            met: counts them.

        Raises DataError for one that is an error, which with "map" is one that nothing is near to.
        """
        found = []
        for character in text:
            number = self.classes.get(character)
            if number is None:
                if met is not None:
                    met[character] += 1
                if unknown == "drop":
                    continue
                near = self.nearest(character) if unknown == "map" else None
                if near is None:
                    raise DataError(f"{text[:60]!r} holds {describe(character)}, which is not in the alphabet")
                found += near
                continue
            found.append(number)
        return np.array(found, np.int32)

    def nearest(self, character: str) -> list[int] | None:
        """The classes of a character without its accents, in its compatible form (a ligature's letters) or in the other case,
        if all are known."""
        parts = "".join(_LIKE.get(one, one) for one in unicodedata.normalize("NFKD", character))
        plain = [part for part in parts if not unicodedata.combining(part)]
        tried = [[one for one in (part, part.lower(), part.upper()) if one in self.classes] for part in plain]
        return [self.classes[known[0]] for known in tried] if tried and all(tried) else None

    def decode(self, classes: Iterable[int]) -> str:
        """The text of these classes."""
        return "".join(self.characters[number] for number in classes)

    def to_json(self) -> list[str]:
        """What travels with weights."""
        return list(self.characters)

    @staticmethod
    def from_json(characters: Sequence[str]) -> "Alphabet":
        """The alphabet that `to_json` described. Raises TypeError for what it did not."""
        if not all(isinstance(character, str) for character in characters):
            raise TypeError("an alphabet of something else than characters")
        return Alphabet(tuple(characters))


# Signs of print and letters that no normalisation makes plain.
_LIKE = {
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "−": "-", "×": "x", "⁄": "/"},
    **{"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O"},
}


def read_dictionary(path: str | Path) -> Alphabet:
    """The alphabet of a dictionary file: UTF-8, one character a line, that of class k in line k + 1; a blank alone is a space.

    Raises DataError (FILE:LINE) for a line of none or of several characters and for a character that comes twice.
    """
    met: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), 1):
        line = unicodedata.normalize("NFC", line) if len(line) > 1 else line
        if len(line) != 1:
            shown = (
                f"holds {len(line)} characters, {line[:40]!r}" if line else "is blank (a space is a line with a space)"
            )
            raise DataError(f"{path}:{number}: {shown}; a dictionary has one character a line")
        if line in met:
            raise DataError(f"{path}:{number}: {describe(line)} is in line {met[line]} already")
        if not line.isprintable():
            raise DataError(f"{path}:{number}: {describe(line)} cannot be seen; remove the line")
        met[line] = number
    if not met:
        raise DataError(f"{path}: holds no character; a dictionary has one a line")
    return Alphabet(tuple(met))


def describe(character: str) -> str:
    """A character for a message, with its number."""
    return f"{character!r} (U+{ord(character):04X})"
