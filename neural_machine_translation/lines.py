"""From lines of text to lines of translations, in order and as they come.

A line is translated sentence by sentence, since the network, given several at once, may leave one out. Markup, places for
values, addresses and numbers stay as they are.
"""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from neural_machine_translation.markup import MARK, Protected, keeps_numbers, pieces, protect
from neural_machine_translation.translate import Hypothesis, one_line

Search = Callable[[Sequence[str]], list[list[Hypothesis]]]
"""Hypotheses of each sentence, best first."""
Sentence = tuple[str, Hypothesis]
"""A sentence as the network got it, and its best translation."""

SENTENCE_END = re.compile(r"(?<=[.!?…])[\"'”’“»)\]]*\s+(?=[\"'“‘„«(\[]?[^\W\d_a-z])")
ABBREVIATION = re.compile(r"(?:\b[A-Z]|\b(?:Mr|Mrs|Ms|Dr|Prof|St|vs|etc|cf|e\.g|i\.e|Fig|Inc|Ltd|approx))\.$")
CLAUSE_END = re.compile(r"(?<=[,;:–—)])\s+")
BLANK = re.compile(r"\s+")


@dataclass(frozen=True)
class Rules:
    """What is done with a line before and after its sentences are translated."""

    words_of: Callable[[str], int]
    """How many words of the vocabulary a text has."""
    room: int
    """Most words that the network takes."""
    split_over: int = 1
    """Lines of more words are cut into sentences; 0 cuts only what is longer than `room`."""
    keep_markup: bool = True
    """Whether markup, addresses and numbers must survive."""
    warn: Callable[[str], None] = lambda message: None
    """Told of words that the network does not take."""


@dataclass(frozen=True)
class Line:
    """A line and its translations, best first."""

    place: str
    text: str
    hypotheses: list[Hypothesis]
    sentences: list[Sentence]


def translate_lines(
    lines: Iterable[tuple[str, str]], search: Search, rules: Rules, *, window: int, n_best: int = 1, drawn: bool = False
) -> Iterator[Line]:
    """Each line (place, text) with up to `n_best` translations; `window` lines are read and translated together.

    A translation of several sentences has the sum of their scores, and is complete if all are. A line without words has
    one empty translation. Those that a search found in other pieces but with the same text count once, as the best of them;
    those that were `drawn` all count.
    """
    rest = iter(lines)
    while some := list(itertools.islice(rest, window)):
        marks = [begun.group() if rules.keep_markup and (begun := MARK.match(text)) else "" for _, text in some]
        parts = [split(place, text[len(mark) :], rules) for (place, text), mark in zip(some, marks, strict=True)]
        flat = [part for own in parts for part in own]
        found = iter((keep_markup if rules.keep_markup else _as_it_is)(flat, search))
        for (place, text), mark, own in zip(some, marks, parts, strict=True):
            translated = [next(found) for _ in own]
            ranked = [hypotheses if drawn else _distinct(hypotheses) for hypotheses, _ in translated]
            ranks = min(n_best, max(map(len, ranked), default=1))
            joined = [_joined([hypotheses[: rank + 1][-1] for hypotheses in ranked], mark) for rank in range(ranks)]
            yield Line(place, text, joined, [sentence for _, sentences in translated for sentence in sentences])


def split(place: str, text: str, rules: Rules) -> list[str]:
    """The sentences of a line, or the line as it is if it is short; parts of sentences that are too long to be translated."""
    text = text.strip()
    if not text:
        return []
    if rules.words_of(text) <= min(rules.split_over or rules.room, rules.room):
        return [text]
    parts: list[str] = []
    for sentence in _sentences(text):
        if rules.words_of(sentence) <= rules.room:
            parts.append(sentence)
            continue
        clauses = [
            piece
            for clause in CLAUSE_END.split(sentence)
            for piece in ([clause] if rules.words_of(clause) <= rules.room else BLANK.split(clause))
        ]
        parts += _packed(clauses, rules)
    for part in parts:
        if (words := rules.words_of(part)) > rules.room:
            rules.warn(f"{place}: {words} words, more than the {rules.room} the network takes; the rest is left out")
    return parts


def keep_markup(sentences: Sequence[str], search: Search) -> list[tuple[list[Hypothesis], list[Sentence]]]:
    """Translations of each sentence that hold its markup, addresses and numbers, and what the network saw.

    Numbers are trusted to the network first, since they decide about singular and plural. A sentence of which no
    translation holds everything, with stand-ins for the numbers too, is translated in pieces between them.
    """
    results: dict[int, tuple[list[Hypothesis], list[Sentence]]] = {}
    waiting = list(range(len(sentences)))
    for numbers in (False, True):
        protected = {index: protect(sentences[index], numbers=numbers) for index in waiting}
        found = search([protected[index].text for index in waiting])
        for index, hypotheses in zip(waiting, found, strict=True):
            kept = _restored(sentences[index], protected[index], hypotheses)
            if kept:
                results[index] = kept, [(protected[index].text, kept[0])]
        waiting = [index for index in waiting if index not in results]
    for index, result in zip(waiting, _in_pieces([sentences[index] for index in waiting], search), strict=True):
        results[index] = result
    return [results[index] for index in range(len(sentences))]


def _restored(sentence: str, protected: Protected, hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    texts = [protected.restore(hypothesis.text) for hypothesis in hypotheses]
    return [
        replace(hypothesis, text=text)
        for hypothesis, text in zip(hypotheses, texts, strict=True)
        if text is not None and keeps_numbers(sentence, text)
    ]


def _in_pieces(sentences: Sequence[str], search: Search) -> Iterator[tuple[list[Hypothesis], list[Sentence]]]:
    cut = [pieces(sentence) for sentence in sentences]
    texts = [piece.strip() for own in cut for piece in own[::2] if _has_words(piece)]
    found = iter(zip(texts, search(texts), strict=True))
    for own in cut:
        seen = [(text, hypotheses[0]) for text, hypotheses in itertools.islice(found, sum(map(_has_words, own[::2])))]
        best = (hypothesis for _, hypothesis in seen)
        for place in range(0, len(own), 2):
            if _has_words(own[place]):
                own[place] = own[place].replace(own[place].strip(), next(best).text)
        whole = _joined([hypothesis for _, hypothesis in seen])
        yield [replace(whole, text="".join(own))], seen


def _has_words(text: str) -> bool:
    return any(letter.isalpha() for letter in text)


def _distinct(hypotheses: Sequence[Hypothesis]) -> list[Hypothesis]:
    best: dict[str, Hypothesis] = {}
    for hypothesis in hypotheses:
        best.setdefault(hypothesis.text, hypothesis)
    return list(best.values())


def _joined(hypotheses: Sequence[Hypothesis], mark: str = "") -> Hypothesis:
    return Hypothesis(
        # Markup is carried over as it stands in the source, with whatever it holds.
        one_line(mark + " ".join(hypothesis.text for hypothesis in hypotheses)),
        sum(hypothesis.score for hypothesis in hypotheses),
        tuple(word for hypothesis in hypotheses for word in hypothesis.words),
        all(hypothesis.complete for hypothesis in hypotheses),
    )


def _as_it_is(sentences: Sequence[str], search: Search) -> list[tuple[list[Hypothesis], list[Sentence]]]:
    found = search(sentences)
    return [(hypotheses, [(text, hypotheses[0])]) for text, hypotheses in zip(sentences, found, strict=True)]


def _sentences(text: str) -> list[str]:
    sentences: list[str] = []
    end = 0
    for match in SENTENCE_END.finditer(text):
        sentence = text[end : match.end()].strip()
        if not ABBREVIATION.search(sentence) and sentence.count('"') % 2 == 0:
            sentences.append(sentence)
            end = match.end()
    return [*sentences, text[end:]]


def _packed(parts: Sequence[str], rules: Rules) -> list[str]:
    packed: list[str] = []
    for part in parts:
        if packed and rules.words_of(f"{packed[-1]} {part}") <= rules.room:
            packed[-1] += f" {part}"
        else:
            packed.append(part)
    return packed
