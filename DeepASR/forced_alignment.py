"""When the words of a known text were said: the best path through the states of their phones (Viterbi, 1967).

    alignment = align_words(scores, lexicon, "turn on the light".split())
    alignment.pdfs                   the state of each frame, what a network is trained on
    alignment.spans()                (word, first frame, frame after the last)

Silence may lie before, between and behind the words, and a word be said in any of its pronunciations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from DeepASR.decoding.lexicon import SILENCE, STATES, Lexicon
from fluid.errors import DataError
from fluid.text import number_of

import numpy as np

BEFORE, NO_WORD = -1, -1


@dataclass(frozen=True, eq=False)
class Chain:
    """The states that an utterance may pass, each after itself or one of its predecessors."""

    pdfs: np.ndarray
    """Class of each state, [states]."""
    words: np.ndarray
    """Which word of the text each belongs to, [states]; NO_WORD: silence."""
    before: np.ndarray
    """[states, K]: itself and its predecessors, filled up with `states`, which stands for none."""
    first: np.ndarray
    """The states that may come first."""
    last: np.ndarray
    """Those that may come last."""
    shortest: int
    """Frames that the text needs at least."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """The best path."""

    words: Sequence[str]
    pdfs: np.ndarray
    """Class of each frame, int32 [T]."""
    places: np.ndarray
    """Number of the word that each frame belongs to, NO_WORD for silence, [T]."""
    score: float
    """Sum of the scores along the path."""

    def spans(self) -> Iterator[tuple[str, int, int]]:
        """(word, first frame, frame after its last) of each word, in their order."""
        for number, word in enumerate(self.words):
            frames = np.flatnonzero(self.places == number)
            yield word, int(frames[0]), int(frames[-1]) + 1

    def phones(self, lexicon: Lexicon) -> Iterator[tuple[str, int, int]]:
        """(phone, first frame, frame after its last) of each phone, silence included.

        A phone begins where the path enters its first state from another one.
        """
        state = self.pdfs % STATES
        enters = np.flatnonzero((state == 0) & (np.diff(self.pdfs, prepend=-1) != 0))
        for start, end in zip(enters, [*enters[1:], len(self.pdfs)]):
            yield lexicon.phones[self.pdfs[start] // STATES], int(start), int(end)


def align_words(scores: np.ndarray, lexicon: Lexicon, words: Sequence[str]) -> Alignment:
    """Align a text with log-likelihoods `scores` [T, classes], of any offset by frame.

    Raises DataError for a word without a pronunciation, for a recording too short for its text, and for scores that are not
    numbers.
    """
    chain = make_chain(lexicon, words)
    if len(scores) < chain.shortest:
        raise DataError(
            f"{number_of(len(scores), 'frame')} for its {number_of(len(words), 'word')}, too few: {chain.shortest} are needed"
        )
    if np.isnan(scores).any():
        raise DataError("a score is not a number")
    states, score = best_path(scores, chain)
    return Alignment(words, chain.pdfs[states].astype(np.int32), chain.words[states], score)


def make_chain(lexicon: Lexicon, words: Sequence[str]) -> Chain:
    """The states of a text. Raises DataError for words without a pronunciation."""
    lexicon.refuse_missing(words)
    pdfs: list[int] = []
    owners: list[int] = []
    before: list[list[int]] = []

    def add(phones: Sequence[str], owner: int, entries: list[int]) -> int:
        """A chain behind `entries`; returns its last state."""
        for phone in phones:
            for state in range(STATES):
                before.append([len(pdfs), *entries])
                entries = [len(pdfs)]
                pdfs.append(STATES * lexicon.number[phone] + state)
                owners.append(owner)
        return entries[0]

    ends = [BEFORE]
    ends.append(add([SILENCE], NO_WORD, ends))
    shortest = 0
    for number, word in enumerate(words):
        variants = lexicon.words[word]
        ends = [add(phones, number, ends) for phones in variants]
        ends.append(add([SILENCE], NO_WORD, ends))
        shortest += STATES * min(map(len, variants))
    width, none = max(map(len, before)), len(pdfs)
    table = np.full((none, width), none)
    for state, states in enumerate(before):
        known = [item for item in states if item != BEFORE]
        table[state, : len(known)] = known
    first = [state for state, states in enumerate(before) if BEFORE in states]
    # A text without words is silence.
    last = [end for end in ends if end != BEFORE]
    return Chain(np.array(pdfs), np.array(owners), table, np.array(first), np.array(last), max(shortest, STATES))


def best_path(scores: np.ndarray, chain: Chain) -> tuple[np.ndarray, float]:
    """The state of each frame [T] that makes the sum of its `scores` [T, classes] largest, and that sum.

    Keeps a byte for each frame and state of the text.
    """
    frames, states = len(scores), len(chain.pdfs)
    came = np.empty((frames, states), np.int8)
    best = np.full(states + 1, -np.inf)
    best[chain.first] = scores[0, chain.pdfs[chain.first]]
    rows = np.arange(states)
    for frame in range(1, frames):
        candidates = best[chain.before]
        choice = candidates.argmax(axis=1)
        came[frame] = choice
        best[:-1] = candidates[rows, choice] + scores[frame, chain.pdfs]
    path = np.empty(frames, np.intp)
    path[-1] = chain.last[best[chain.last].argmax()]
    for frame in range(frames - 1, 0, -1):
        path[frame - 1] = chain.before[path[frame], came[frame, path[frame]]]
    return path, float(best[path[-1]])
