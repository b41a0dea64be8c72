"""Words, how they are pronounced, and the states that a network tells apart.

A lexicon is a text file with a line `WORD PHONE PHONE ...` for each pronunciation. Each phone is a hidden Markov model of three
states that are passed one after the other, a frame or more in each; state s of phone p is the class (pdf) 3 * p + s. Phone 0
is silence. Phones are those of the lexicon in alphabetical order, without regard to their neighbours.

CMU's dictionary is one: `WORD(2)` is another pronunciation of `WORD`, and a remark is a line behind `;;;` or what stands behind a `#`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from fluid.errors import DataError
from fluid.text import each_line

SILENCE = "SIL"
STATES = 3
"""Of a phone."""


@dataclass(frozen=True)
class Lexicon:
    """Pronunciations by word."""

    words: Mapping[str, tuple[tuple[str, ...], ...]]
    all_phones: tuple[str, ...] = ()
    """The phones that classes are numbered by; by default those of the words."""

    @cached_property
    def phones(self) -> tuple[str, ...]:
        """All of them, silence first."""
        if self.all_phones:
            return self.all_phones
        own = {phone for variants in self.words.values() for phones in variants for phone in phones}
        return (SILENCE, *sorted(own - {SILENCE}))

    @cached_property
    def number(self) -> dict[str, int]:
        """Phone -> its number."""
        return {phone: number for number, phone in enumerate(self.phones)}

    @property
    def class_num(self) -> int:
        """States of all phones."""
        return STATES * len(self.phones)

    def missing(self, words: Iterable[str]) -> list[str]:
        """Those that have no pronunciation, each once, in their order."""
        return [word for word in dict.fromkeys(words) if word not in self.words]

    def refuse_missing(self, words: Iterable[str]) -> None:
        """Raise DataError that lists those that have no pronunciation."""
        if missing := self.missing(words):
            raise DataError(
                f"the lexicon has no pronunciation of {', '.join(missing)}; add lines 'WORD PHONE PHONE ...'"
            )

    def restricted(self, words: Iterable[str]) -> Lexicon:
        """These words alone, with the same classes. Raises DataError for words without a pronunciation."""
        words = list(dict.fromkeys(words))
        self.refuse_missing(words)
        return Lexicon({word: self.words[word] for word in words}, self.phones)

    def with_words(self, words: Mapping[str, tuple[tuple[str, ...], ...]]) -> Lexicon:
        """These words too. Raises DataError for a phone that no class stands for."""
        own = {phone for variants in words.values() for phones in variants for phone in phones}
        if unknown := sorted(own - set(self.phones)):
            raise DataError(f"the network knows no phone {', '.join(unknown)}; it knows {', '.join(self.phones)}")
        return Lexicon({**self.words, **words}, self.phones)

    def to_facts(self) -> dict[str, list[str]]:
        """As JSON-able data: word -> its pronunciations."""
        return {word: [" ".join(phones) for phones in variants] for word, variants in self.words.items()}

    @staticmethod
    def from_facts(facts: Mapping[str, list[str]], phones: Iterable[str] = ()) -> Lexicon:
        """The inverse of `to_facts`."""
        words = {word: tuple(tuple(said.split()) for said in variants) for word, variants in facts.items()}
        return Lexicon(words, tuple(phones))


def read_lexicon(path: str | Path) -> Lexicon:
    """Read a lexicon; several lines of a word are its pronunciations. Raises DataError (FILE:LINE)."""
    words: dict[str, list[tuple[str, ...]]] = {}
    for number, line in enumerate(each_line(path), 1):
        word, *phones = line.split() or [""]
        if not word or word.startswith(";;;"):
            continue
        word, phones = re.sub(r"(?<=.)\(\d+\)$", "", word), phones[: phones.index("#") if "#" in phones else None]
        if not phones:
            raise DataError(f"{path}:{number}: '{word}' has no phones; a line 'WORD PHONE PHONE ...' is expected")
        if re.fullmatch(r"\d*\.\d+(e-?\d+)?", phones[0]):
            raise DataError(
                f"{path}:{number}: the number {phones[0]} where phones are expected, as in Kaldi's lexiconp.txt; give lexicon.txt"
            )
        words.setdefault(word, []).append(tuple(phones))
    if not words:
        raise DataError(f"{path}: holds no word")
    return Lexicon({word: tuple(dict.fromkeys(variants)) for word, variants in words.items()})


def lexicon_lines(lexicon: Lexicon) -> str:
    """The text of a lexicon file."""
    return "".join(f"{word} {' '.join(said)}\n" for word, variants in lexicon.words.items() for said in variants)
