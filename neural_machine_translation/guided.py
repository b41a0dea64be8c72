"""Translations that must begin with given words, hold the terms of a glossary, or copy words that the network does not know."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fluid.engine import Engine
from fluid.errors import DataError
from fluid.interface import Interface
from neural_machine_translation.indices import UNK
from neural_machine_translation.lines import Search
from neural_machine_translation.reader import read_tsv
from neural_machine_translation.scoring import cross_attention, word_numbers
from neural_machine_translation.translate import Hypothesis, one_line
from neural_machine_translation.translator import Translator

import numpy as np

BegunSearch = Callable[[Sequence[str], Sequence[Sequence[int]]], list[list[Hypothesis]]]
"""Hypotheses of each sentence that begin with given word indices, best first."""


@dataclass(frozen=True)
class Glossary:
    """Terms, and what each must be called in a translation."""

    terms: tuple[tuple[re.Pattern[str], str], ...]

    def wanted(self, sentence: str) -> list[str]:
        """What the translation of a sentence must hold; of terms that lie within another the longer one alone."""
        wanted = []
        for pattern, target in self.terms:
            sentence, found = pattern.subn(" ", sentence)
            if found:
                wanted.append(target)
        return wanted


def read_glossary(path: Path) -> Glossary:
    """A glossary from lines `term TAB what it must be called`.

    Raises DataError (FILE:LINE) for others, for empty ones, and for a term that is to be called two things.
    """
    pairs = read_tsv(path, expected="a term, a tab and what it must be called")
    called: dict[str, str] = {}
    for index, (source, target) in enumerate(pairs):
        if not (source and target):
            raise DataError(f"{pairs.where(index)}: an empty term")
        if (earlier := called.setdefault(source.lower(), target)) != target:
            raise DataError(f"{pairs.where(index)}: {source!r} is to be called {earlier!r} by an earlier line")
    longest_first = sorted(pairs, key=lambda pair: -len(pair[0]))
    return Glossary(
        tuple(
            (re.compile(rf"(?<!\w){re.escape(source)}(?!\w)", re.IGNORECASE), target)
            for source, target in longest_first
        )
    )


def begun_lines(search: BegunSearch, translator: Translator) -> Search:
    """A search for lines of a sentence, a tab and how its translation begins."""

    def run(lines: Sequence[str]) -> list[list[Hypothesis]]:
        parted = [line.partition("\t") for line in lines]
        beginnings = [translator.target.encode(beginning).tolist() for _, _, beginning in parted]
        return search([sentence.strip() for sentence, _, _ in parted], beginnings)

    return run


def with_terms(search: BegunSearch, translator: Translator, glossary: Glossary) -> Search:
    """A search whose hypotheses hold the terms that their sentences ask for.

    A term that no hypothesis holds is written behind each word of the best one, and the search goes on from there; what the
    network finds most probable of all that stays.
    """

    def run(sentences: Sequence[str]) -> list[list[Hypothesis]]:
        found = search(sentences, [()] * len(sentences))
        wanted = [glossary.wanted(sentence) for sentence in sentences]
        for number in range(max(map(len, wanted), default=0)):
            tries: list[tuple[int, list[int]]] = []
            for index, terms in enumerate(wanted):
                if number < len(terms):
                    found[index] = _holding(found[index], terms[: number + 1]) or found[index]
                    if terms[number] not in found[index][0].text:
                        tries += ((index, words) for words in _placed(translator, found[index][0], terms[number]))
            tried = search([sentences[index] for index, _ in tries], [words for _, words in tries])
            for index in {index for index, _ in tries}:
                every = [item for (own, _), items in zip(tries, tried, strict=True) if own == index for item in items]
                best = {item.words: item for item in _holding(every, wanted[index][: number + 1])}
                found[index] = sorted(best.values(), key=lambda item: -item.score) or found[index]
        return found

    return run


def _holding(hypotheses: Sequence[Hypothesis], terms: Sequence[str]) -> list[Hypothesis]:
    return [item for item in hypotheses if all(term in item.text for term in terms)]


def _placed(translator: Translator, hypothesis: Hypothesis, term: str) -> Iterator[list[int]]:
    """The term behind each whole word of a translation, from its beginning to its end, where the network has room for it."""
    words, own = list(hypothesis.words), translator.target.encode(term).tolist()
    for place in range(min(len(words), translator.config.max_length - 2 - len(own)) + 1):
        if place == len(words) or place == 0 or translator.target.begins_word(words[place]):
            yield [*words[:place], *own]


def with_copies(search: Search, engine: Engine, scoring: Interface, translator: Translator) -> Search:
    """A search in whose hypotheses the word of the source that the network looked at most stands for each unknown one."""

    def run(sentences: Sequence[str]) -> list[list[Hypothesis]]:
        return [
            [copied(sentence, hypothesis) if UNK in hypothesis.words else hypothesis for hypothesis in hypotheses]
            for sentence, hypotheses in zip(sentences, search(sentences), strict=True)
        ]

    def copied(sentence: str, hypothesis: Hypothesis) -> Hypothesis:
        weights, _, _ = cross_attention(engine, scoring, translator, sentence, hypothesis.words)
        source, words = translator.source.encode(sentence), sentence.split()
        numbers = np.minimum(word_numbers(translator.source, source), len(words) - 1)
        unknown = np.flatnonzero(np.asarray(hypothesis.words) == UNK)
        # The first place is that of `<s>`.
        looked = weights[unknown, 1 : 1 + len(source)].argmax(axis=1)
        copies = [words[numbers[place]].removesuffix("@@") for place in looked]
        return replace(hypothesis, text=one_line(translator.target.decode(hypothesis.words, copies)))

    return run
