"""From a network's outputs to words with what is known beside the picture: characters, a lexicon, a language model.

Without any of it, and with a beam of 1, this is `readings.readings`. Imports no paddle.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fluid.errors import DataError
from ocr_recognition.readings import Reading, edit_distance, log_softmax, readings
from ocr_recognition.recognizer import END, Recognizer
from ocr_recognition.words import read_words

import numpy as np

NEVER = -1e9
"""The logit of a class that is not allowed."""
WORTH_A_LOOK = 12
"""So many of the most probable classes of a frame continue a prefix."""
CANDIDATES = 200
"""So many words of a lexicon, those whose letters are most like the reading's, are compared with the picture."""
WORD_END = "\n"
"""Stands for the end of a word in a language model."""


class CharacterModel:
    """How probable a character is after those before it: n-grams of a list of words.

    Interpolated as Witten and Bell do (IEEE Trans. Information Theory 37, 1991).
    """

    def __init__(self, words: Sequence[str], order: int = 5):
        self._order = order
        self._after: dict[str, Counter[str]] = defaultdict(Counter)
        for word in words:
            ended = word + WORD_END
            for place, character in enumerate(ended):
                for length in range(min(order, place + 1)):
                    self._after[ended[place - length : place]][character] += 1
        self._known = max(len(self._after[""]), 1)
        self._cache: dict[tuple[str, str], float] = {}

    def gain(self, before: str, character: str) -> float:
        """Logarithm of how much more probable `character` is after `before` than if all were alike."""
        context = before[max(len(before) - self._order + 1, 0) :]
        key = (context, character)
        if key not in self._cache:
            self._cache[key] = math.log(self._probability(context, character) * self._known)
        return self._cache[key]

    def _probability(self, context: str, character: str) -> float:
        shorter = self._probability(context[1:], character) if context else 1 / (self._known + 1)
        after = self._after.get(context)
        if not after:
            return shorter
        return (after[character] + len(after) * shorter) / (after.total() + len(after))


@dataclass(frozen=True)
class Search:
    """What is looked for in a network's outputs."""

    beam_size: int = 1
    """CTC: prefixes kept at each frame; 1 takes the best class of each frame alone."""
    allowed: frozenset[str] | None = None
    """Characters that may be read; None: all."""
    lexicon: tuple[str, ...] = ()
    """The words that may be read; none: any."""
    language: CharacterModel | None = None
    language_weight: float = 0.5
    """How much the language model counts beside the picture."""

    def read(self, recognizer: Recognizer, outputs: Mapping[str, np.ndarray], width: np.ndarray) -> list[Reading]:
        """The readings of words of these widths [N] from the outputs of a Program."""
        if not recognizer.is_ctc:
            found = readings(recognizer, outputs, width)
            return [self._of_attention(recognizer, first, row, outputs) for row, first in enumerate(found)]
        logits = self._with_allowed(recognizer, outputs["logits"])
        if self.beam_size == 1 and not self.lexicon and self.language is None:
            return readings(recognizer, {**outputs, "logits": logits}, width)
        frames = recognizer.frames_of(width).tolist()
        return [
            self._of_frames(recognizer, log_softmax(row[:count])) for row, count in zip(logits, frames, strict=True)
        ]

    def _with_allowed(self, recognizer: Recognizer, logits: np.ndarray) -> np.ndarray:
        if self.allowed is None:
            return logits
        first = recognizer.first_class
        outside = [first + place for place, one in enumerate(recognizer.alphabet.characters) if one not in self.allowed]
        logits = logits.copy()
        logits[..., outside] = NEVER
        return logits

    def _of_frames(self, recognizer: Recognizer, sure: np.ndarray) -> Reading:
        """Of log-probabilities [T, classes]."""
        label = self._best_prefix(recognizer, sure)
        found = align(sure, label, recognizer.blank)
        if not self.lexicon:
            return found
        labels = [self._label(recognizer, word) for word in self._nearest(recognizer.text_of(label))]
        likely = [likelihood(sure, one, recognizer.blank) for one in labels]
        if max(likely) == -math.inf:
            return found
        best = labels[int(np.argmax(likely))]
        # A word of which the picture shows more than its letters is no more probable than all of it.
        lost = min(max(likely) - likelihood(sure, label, recognizer.blank), 0.0)
        listed = align(sure, best, recognizer.blank)
        return replace(listed, confidence=listed.confidence * math.exp(lost / max(len(best), 1)))

    def _of_attention(
        self, recognizer: Recognizer, first: Reading, row: int, outputs: Mapping[str, np.ndarray]
    ) -> Reading:
        best = first
        if self.language is not None:
            labels = [tuple(ids[: _ended(ids)].tolist()) for ids in outputs["hypotheses"][row, :, : recognizer.longest]]
            scores = outputs["scores"][row]
            likely = [score + self._gain(recognizer.text_of(one)) for one, score in zip(labels, scores, strict=True)]
            chosen = int(np.argmax(likely))
            if labels[chosen] != first.label:
                best = Reading(labels[chosen], math.exp(scores[chosen] / (len(labels[chosen]) + 1)), ())
        if self.lexicon:
            text = recognizer.text_of(best.label)
            word = min(self._nearest(text), key=lambda word: edit_distance(word, text))
            if word != text:
                kept = 1 - edit_distance(word, text) / max(len(word), len(text))
                best = Reading(self._label(recognizer, word), best.confidence * kept, ())
        return best

    def _best_prefix(self, recognizer: Recognizer, sure: np.ndarray) -> tuple[int, ...]:
        """Prefix beam search (Hannun et al., arXiv:1408.2873): probabilities of all alignments of a label are added up."""
        blank = recognizer.blank
        beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}
        gains: dict[tuple[int, ...], float] = {(): 0.0}
        for frame in sure:
            grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-math.inf, -math.inf])
            likely = np.argsort(-frame, kind="stable")[:WORTH_A_LOOK].tolist()
            for prefix, (ended, open_) in beams.items():
                for one in likely:
                    score = float(frame[one])
                    if one == blank:
                        grown[prefix][0] = _plus(grown[prefix][0], _plus(ended, open_) + score)
                        continue
                    longer = (*prefix, one)
                    before = ended if prefix and prefix[-1] == one else _plus(ended, open_)
                    if prefix and prefix[-1] == one:
                        grown[prefix][1] = _plus(grown[prefix][1], open_ + score)
                    grown[longer][1] = _plus(grown[longer][1], before + score)
                    if longer not in gains:
                        gains[longer] = gains[prefix] + self._step(recognizer, prefix, one)
            ranked = sorted(grown, key=lambda prefix: -(_plus(*grown[prefix]) + gains[prefix]))
            beams = {prefix: (grown[prefix][0], grown[prefix][1]) for prefix in ranked[: self.beam_size]}
        return max(beams, key=lambda prefix: _plus(*beams[prefix]) + gains[prefix] + self._ends(recognizer, prefix))

    def _step(self, recognizer: Recognizer, prefix: tuple[int, ...], one: int) -> float:
        if self.language is None:
            return 0.0
        return self.language_weight * self.language.gain(recognizer.text_of(prefix), recognizer.text_of((one,)))

    def _ends(self, recognizer: Recognizer, prefix: tuple[int, ...]) -> float:
        if self.language is None:
            return 0.0
        return self.language_weight * self.language.gain(recognizer.text_of(prefix), WORD_END)

    def _gain(self, text: str) -> float:
        """Of a whole word."""
        assert self.language is not None
        ended = text + WORD_END
        return self.language_weight * sum(self.language.gain(ended[:place], one) for place, one in enumerate(ended))

    def _label(self, recognizer: Recognizer, word: str) -> tuple[int, ...]:
        return tuple((recognizer.alphabet.encode(word) + recognizer.first_class).tolist())

    @cached_property
    def _histograms(self) -> tuple[dict[str, int], np.ndarray]:
        characters = {one: place for place, one in enumerate(sorted(set("".join(self.lexicon))))}
        counts = np.zeros((len(self.lexicon), len(characters)), np.int16)
        for row, word in enumerate(self.lexicon):
            for one in word:
                counts[row, characters[one]] += 1
        return characters, counts

    def _nearest(self, text: str) -> list[str]:
        """Words of the lexicon by how many letters they have that the text lacks, and the other way round."""
        characters, counts = self._histograms
        own = np.zeros(len(characters), np.int16)
        for one in text:
            if one in characters:
                own[characters[one]] += 1
        order = np.argsort(np.abs(counts - own).sum(axis=1), kind="stable")[:CANDIDATES]
        return [self.lexicon[place] for place in order.tolist()]


def likelihood(sure: np.ndarray, label: Sequence[int], blank: int) -> float:
    """Log-probability of a label, over all its alignments: log-probabilities `sure` [T, classes]."""
    return (
        float(np.logaddexp(*_forward(sure, label, blank, np.logaddexp)[-1, -2:]))
        if label
        else float(sure[:, blank].sum())
    )


def align(sure: np.ndarray, label: tuple[int, ...], blank: int) -> Reading:
    """The most probable alignment of a label with log-probabilities [T, classes]; what cannot be aligned has no spans."""
    if not label:
        return Reading((), float(np.exp(sure[:, blank].mean())) if len(sure) else 1.0, ())
    table = _forward(sure, label, blank, np.maximum)
    if table[-1, -2:].max() == -np.inf:
        return Reading(label, 0.0, ())
    states = _states(label, blank)
    state = len(states) - 1 - int(table[-1, -2] >= table[-1, -1])
    path = [state]
    for time in range(len(sure) - 1, 0, -1):
        choices = [state, state - 1, state - 2] if _may_skip(states, state, blank) else [state, state - 1]
        state = max((one for one in choices if one >= 0), key=lambda one: table[time - 1, one])
        path.append(state)
    path.reverse()
    spans, strongest = [], []
    for place in range(len(label)):
        times = [time for time, state in enumerate(path) if state == 2 * place + 1]
        spans.append((times[0], times[-1] + 1))
        strongest.append(float(sure[times, label[place]].max()))
    return Reading(label, float(np.exp(np.mean(strongest))), tuple(spans), tuple(np.exp(strongest).tolist()))


def _states(label: Sequence[int], blank: int) -> list[int]:
    """The label with a blank before, after and between its characters."""
    return [blank, *(item for one in label for item in (one, blank))]


def _may_skip(states: list[int], state: int, blank: int) -> bool:
    """Whether the blank before a character may be left out."""
    return state >= 2 and states[state] != blank and states[state] != states[state - 2]


def _forward(sure: np.ndarray, label: Sequence[int], blank: int, add: np.ufunc) -> np.ndarray:
    """Log-probabilities [T, states] of being in a state after a frame, over all ways there or, with np.maximum, the best."""
    states = _states(label, blank)
    skips = np.array([_may_skip(states, state, blank) for state in range(len(states))])
    table = np.full((len(sure), len(states)), -np.inf)
    table[0, :2] = sure[0, states[:2]]
    for time in range(1, len(sure)):
        before = table[time - 1]
        arrived = add(before, np.concatenate([[-np.inf], before[:-1]]))
        skipped = np.where(skips, np.concatenate([[-np.inf, -np.inf], before[:-2]]), -np.inf)
        table[time] = add(arrived, skipped) + sure[time, states]
    return table


def _ended(ids: np.ndarray) -> int:
    ends = np.flatnonzero(ids == END)
    return int(ends[0]) if len(ends) else len(ids)


def _plus(one: float, other: float) -> float:
    """log(exp(one) + exp(other))."""
    if one == -math.inf or other == -math.inf:
        return max(one, other)
    return max(one, other) + math.log1p(math.exp(-abs(one - other)))


def read_lexicon(path: Path, recognizer: Recognizer) -> tuple[str, ...]:
    """The words of a file, one a line, each once. Raises DataError if there are none, or for one that cannot be written."""
    words = tuple(dict.fromkeys(read_words(path, recognizer.alphabet)))
    for word in words:
        try:
            recognizer.alphabet.encode(word)
        except DataError as error:
            raise DataError(f"{path}: {error} of the network; remove the word") from None
    return words
