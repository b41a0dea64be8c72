"""What the made pictures say: words, names, numbers, prices, plates, punctuation and letters by chance.

Words and names come from lists (data/LICENSE-words.txt), a tenth of them kept for tests of words never trained on. Letters by
chance are drawn alike, so that no character is rare.
"""

import string
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from fluid.errors import DataError
from fluid.text import read_lines
from ocr_recognition.alphabet import Alphabet

import numpy as np

FOLDER = Path(__file__).resolve().parent / "data"
KINDS: Mapping[str, float] = {
    "word": 0.42,
    "name": 0.09,
    "line": 0.06,
    "digits": 0.08,
    "price": 0.05,
    "plate": 0.06,
    "punctuated": 0.07,
    "letters": 0.17,
}
"""How often each kind of text is drawn."""
SIMPLE: Mapping[str, float] = {"word": 0.7, "digits": 0.3}
LONGEST = 25
Part = Literal["train", "test", "all"]

_TRIES = 200
_CAPITALS, _SMALL, _DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
_PLATES = ("AA99 AAA", "AAA 999", "AAA-9999", "A 999 AA", "99-AAA-9", "AA 999", "9AAA999", "AA-999-AA", "A99", "9-A")
_NUMBERS = (
    "9",
    "99",
    "999",
    "9999",
    "99999",
    "99:99",
    "9.9",
    "99%",
    "99/99",
    "99.99.9999",
    "999 999",
    "9-99",
    "+99 999",
    "19",
    "20",
)
_PRICES = ("$9", "$99", "$9.99", "$99.99", "$9,999", "9.99", "99c", "-99%", "9,99", "$.99", "2 for $9", "99.-", "$999*")


@dataclass(frozen=True)
class Texts:
    """Draws texts; a function of the random numbers alone."""

    characters: tuple[str, ...] = Alphabet.ascii().characters
    """Those that may come up."""
    kinds: Mapping[str, float] = field(default_factory=lambda: KINDS)
    lengths: tuple[int, int] = (1, LONGEST)
    """Fewest and most characters."""
    part: Part = "train"
    """Of the lists."""
    given: tuple[str, ...] = ()
    """Words of the user's, drawn alike in place of those of the list, as they are."""
    cases: bool = True
    """Whether words come up in capitals, too."""

    def draw(self, rng: np.random.Generator) -> str:
        """One text. Raises DataError where none of the kinds fits the characters and lengths."""
        for _ in range(_TRIES):
            kind = self._names[min(int(np.searchsorted(self._upto, rng.random())), len(self._names) - 1)]
            text = _MAKERS[kind](self, rng)
            if self.lengths[0] <= len(text) <= self.lengths[1] and self._allowed.issuperset(text):
                return text
        raise DataError(
            f"no text of {self.lengths[0]} to {self.lengths[1]} characters of {''.join(self.characters[:40])!r} in {_TRIES} tries"
        )

    @cached_property
    def words(self) -> list[str]:
        """The list of words, or the user's."""
        return list(self.given) or _part(read_lines(FOLDER / "words.txt"), self.part)

    @cached_property
    def names(self) -> list[str]:
        """The list of names."""
        return _part(read_lines(FOLDER / "names.txt"), self.part)

    @cached_property
    def _allowed(self) -> set[str]:
        return set(self.characters)

    @cached_property
    def _names(self) -> list[str]:
        return list(self.kinds)

    @cached_property
    def _upto(self) -> np.ndarray:
        return np.cumsum(list(self.kinds.values())) / sum(self.kinds.values())

    @cached_property
    def letters(self) -> str:
        """Characters that are drawn alike."""
        return "".join(character for character in self.characters if character != " ")


def read_words(path: str | Path, alphabet: Alphabet) -> tuple[str, ...]:
    """Texts of a file, one a line, as the alphabet spells them. Raises DataError if there are none."""
    words = tuple(alphabet.spelled(line.strip()) for line in read_lines(path) if line.strip())
    if not words:
        raise DataError(f"{path}: holds no word; it must have one a line")
    return words


def _part(words: list[str], part: Part) -> list[str]:
    """One word of ten is for tests, whichever case it is in."""
    if part == "all":
        return words
    return [word for word in words if (zlib.crc32(word.lower().encode()) % 10 == 0) == (part == "test")]


def _one(rng: np.random.Generator, items: list[str] | tuple[str, ...] | str) -> str:
    return items[int(rng.random() * len(items))]


def _word(texts: Texts, rng: np.random.Generator) -> str:
    word = _one(rng, texts.words)
    if texts.given or not texts.cases:
        return word
    draw = rng.random()
    return word if draw < 0.35 else word.capitalize() if draw < 0.65 else word.upper()


def _name(texts: Texts, rng: np.random.Generator) -> str:
    name = _one(rng, texts.names)
    draw = rng.random()
    if draw < 0.1:
        return f"{name}'s" if draw < 0.05 else f"{_one(rng, _CAPITALS)}. {name}"
    return name.upper() if draw < 0.4 else name


def _line(texts: Texts, rng: np.random.Generator) -> str:
    words = [_one(rng, texts.words) for _ in range(2 + (rng.random() < 0.3))]
    draw = rng.random()
    line = " ".join(words)
    return line if draw < 0.3 else line.upper() if draw < 0.6 else line.title()


def _digits(texts: Texts, rng: np.random.Generator) -> str:
    if rng.random() < 0.3 or texts.kinds == SIMPLE:
        return "".join(
            _one(rng, _DIGITS) for _ in range(int(rng.integers(texts.lengths[0], min(texts.lengths[1], 8) + 1)))
        )
    pattern = _one(rng, _NUMBERS)
    return pattern + _filled("99", rng) if pattern in ("19", "20") else _filled(pattern, rng)


def _price(texts: Texts, rng: np.random.Generator) -> str:
    return _filled(_one(rng, _PRICES), rng)


def _plate(texts: Texts, rng: np.random.Generator) -> str:
    return _filled(_one(rng, _PLATES), rng)


def _filled(pattern: str, rng: np.random.Generator) -> str:
    """The pattern with a digit for each 9 and a capital for each A."""
    choices = {"9": _DIGITS, "A": _CAPITALS}
    return "".join(_one(rng, choices[sign]) if sign in choices else sign for sign in pattern)


def _punctuated(texts: Texts, rng: np.random.Generator) -> str:
    word, other = _word(texts, rng), _one(rng, texts.words)
    mark = _one(rng, string.punctuation)
    shapes = (
        f"{word}{_one(rng, '.,!?:;')}",
        f'"{word}"',
        f"({word})",
        f"{word}-{other}",
        f"{word} & {other}",
        f"www.{other}.com",
        f"{other}@{other[:3]}.com",
        f"{word}'s",
        f"#{word}",
        f"{word}/{other}",
        f"{mark}{word}",
        f"{word}{mark}",
        f"{word}_{other}",
        f"No.{_filled('9', rng)}",
        f"{word}...",
    )
    return _one(rng, shapes)


def _letters(texts: Texts, rng: np.random.Generator) -> str:
    size = int(rng.integers(texts.lengths[0], min(texts.lengths[1], 9) + 1))
    draw = rng.random()
    some = texts.letters if draw < 0.7 else _SMALL if draw < 0.9 else _CAPITALS + _DIGITS
    return "".join(_one(rng, some) for _ in range(size))


_MAKERS: Mapping[str, Callable[[Texts, np.random.Generator], str]] = {
    "word": _word,
    "name": _name,
    "line": _line,
    "digits": _digits,
    "price": _price,
    "plate": _plate,
    "punctuated": _punctuated,
    "letters": _letters,
}
