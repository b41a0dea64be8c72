"""Kaldi's transition model, at the head of final.mdl: what the numbers in alignments and decoding graphs stand for.

An alignment (ali.*.gz) and the input labels of HCLG.fst are transition ids: arcs of the hidden Markov models of all phones,
numbered from 1. A network scores pdfs, the tied states:

    model = read_transition_model("final.mdl")
    pdfs = model.pdfs(transition_ids)

Read are binary and text files, and the models of both kinds: with one pdf for each state (<Triples>), and with one more for
its self-loop (<Tuples>, chain models). What follows in the file, Gaussians or a network, is not looked at.

Format: src/hmm/hmm-topology.cc and src/hmm/transition-model.cc of Kaldi.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from DeepASR.kaldi.tables import BINARY, Stream, opened
from fluid.errors import DataError

import numpy as np

Topology = list[list[list[int]]]
"""entry -> state -> where its arcs lead."""

_TUPLES = {"<Triples>": 3, "<Tuples>": 4}


@dataclass(frozen=True, eq=False)
class TransitionModel:
    """Arrays by transition id, [1 + ids]; number 0 is none."""

    pdf: np.ndarray
    phone: np.ndarray
    state: np.ndarray
    """Of the phone's hidden Markov model, the arc's start."""
    self_loop: np.ndarray
    where: str
    """The file, for messages."""

    @property
    def num_pdfs(self) -> int:
        """Classes of a network for this model."""
        return int(self.pdf.max()) + 1

    def pdfs(self, transition_ids: np.ndarray) -> np.ndarray:
        """The pdf of each frame of an alignment, int32 [frames]. Raises DataError for ids that the model does not have."""
        ids = np.asarray(transition_ids)
        if ids.size and not (ids.min() >= 1 and ids.max() < len(self.pdf)):
            wrong = ids.min() if ids.min() < 1 else ids.max()
            raise DataError(
                f"{self.where}: the model has the transition ids 1 to {len(self.pdf) - 1}, and the alignment has {wrong}. Are "
                "these pdfs already, or the alignment of another model?"
            )
        return self.pdf[ids]


def read_transition_model(path: str | os.PathLike) -> TransitionModel:
    """Read the transition model at the head of a file. Raises DataError."""
    with opened(path) as stream:
        if stream.peek(len(BINARY)) == BINARY:
            stream.take(len(BINARY))
            return _model(stream, *_read_binary(stream))
        return _model(stream, *_read_text(stream))


_Parts = tuple[Topology, dict[int, int], np.ndarray, int]


def _read_binary(stream: Stream) -> _Parts:
    _expect(stream, stream.token(), "<TransitionModel>")
    _expect(stream, stream.token(), "<Topology>")
    _integers(stream)
    entry_of = dict(enumerate(_integers(stream).tolist()))
    # Chain models write -1 before the number of entries, and two pdfs for each state.
    count = stream.integer()
    pdfs = 2 if count == -1 else 1
    count = stream.integer() if count == -1 else count
    topology = [
        [_read_state(stream, pdfs) for _ in range(_counted(stream, stream.integer()))]
        for _ in range(_counted(stream, count))
    ]
    _expect(stream, stream.token(), "</Topology>")
    kind = _expect(stream, stream.token(), *_TUPLES)
    width, count = _TUPLES[kind], stream.integer()
    tuples = stream.integers(count * width).reshape(count, width)
    _expect(stream, stream.token(), kind.replace("<", "</"))
    _expect(stream, stream.token(), "<LogProbs>")
    size = {"FV": 4, "DV": 8}[_expect(stream, stream.token(), "FV", "DV")]
    probabilities = stream.integer()
    stream.take(probabilities * size)
    return topology, entry_of, tuples, probabilities


def _read_state(stream: Stream, pdfs: int) -> list[int]:
    for _ in range(pdfs):
        stream.integer()
    ends = []
    for _ in range(_counted(stream, stream.integer())):
        ends.append(stream.integer())
        if (size := stream.take(1)[0]) not in (4, 8):
            raise stream.error("a probability is expected in the topology: the file is damaged")
        stream.take(size)
    return ends


def _integers(stream: Stream) -> np.ndarray:
    return stream.array("<i4", stream.integer())


def _counted(stream: Stream, count: int) -> int:
    if not 0 <= count < 2**28:
        raise stream.error(f"a list of {count} elements is claimed: the file is damaged")
    return count


def _expect(stream: Stream, token: str, *expected: str) -> str:
    if token not in expected:
        raise stream.error(f"{' or '.join(expected)} is expected and '{token[:32]}' found: not a final.mdl, or damaged")
    return token


class _Words(Iterator[str]):
    """The words of a text file up to the end of the transition model."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._words = (word.decode("ascii", "replace") for line in iter(stream.line, b"") for word in line.split())

    def __next__(self) -> str:
        try:
            return next(self._words)
        except StopIteration:
            raise self.stream.error("the file ends inside the transition model") from None

    def integer(self) -> int:
        word = next(self)
        if not re.fullmatch("-?[0-9]{1,9}", word):
            raise self.stream.error(f"a whole number is expected and '{word[:32]}' found")
        return int(word)

    def expect(self, *expected: str) -> str:
        return _expect(self.stream, next(self), *expected)


def _read_text(stream: Stream) -> _Parts:
    words = _Words(stream)
    words.expect("<TransitionModel>")
    words.expect("<Topology>")
    topology: Topology = []
    entry_of: dict[int, int] = {}
    while words.expect("<TopologyEntry>", "</Topology>") == "<TopologyEntry>":
        words.expect("<ForPhones>")
        while (word := next(words)) != "</ForPhones>":
            if not re.fullmatch("[0-9]{1,9}", word):
                raise stream.error(f"a phone is expected and '{word[:32]}' found")
            entry_of[int(word)] = len(topology)
        topology.append(_read_states(words))
    kind = words.expect(*_TUPLES)
    width, count = _TUPLES[kind], _counted(stream, words.integer())
    numbers = np.array([[words.integer() for _ in range(width)] for _ in range(count)], np.int32)
    words.expect(kind.replace("<", "</"))
    words.expect("<LogProbs>")
    words.expect("[")
    probabilities = 0
    while next(words) != "]":
        probabilities += 1
    return topology, entry_of, numbers.reshape(count, width), probabilities


def _read_states(words: _Words) -> list[list[int]]:
    states: list[list[int]] = []
    while words.expect("<State>", "</TopologyEntry>") == "<State>":
        words.integer()
        ends: list[int] = []
        fields = ("<PdfClass>", "<ForwardPdfClass>", "<SelfLoopPdfClass>", "<Transition>", "<Final>", "</State>")
        while (field := words.expect(*fields)) != "</State>":
            if field == "<Transition>":
                ends.append(words.integer())
            # What is passed over: a probability, or the number of a class.
            next(words)
        states.append(ends)
    return states


def _model(
    stream: Stream, topology: Topology, entry_of: dict[int, int], tuples: np.ndarray, probabilities: int
) -> TransitionModel:
    """Number the arcs: those of the first tuple in the order of the topology, those of the second, ..."""
    states = []
    for phone, state, *_ in tuples.tolist():
        entry = entry_of.get(phone, -1)
        if not 0 <= entry < len(topology) or not 0 <= state < len(topology[entry]):
            raise stream.error(f"phone {phone} has no state {state} in the topology: the file is damaged")
        states.append(topology[entry][state])
    # Checked before the arcs are listed: the file is longer than its probabilities, but not than a number that it claims.
    arcs = sum(map(len, states))
    if arcs == 0 or probabilities != arcs + 1:
        raise stream.error(f"{arcs} transition ids and {probabilities} probabilities do not fit: the file is damaged")
    if tuples[:, 2:].min() < 0:
        raise stream.error(f"a pdf has the number {tuples[:, 2:].min()}: the file is damaged")
    rows = [[0, 0, -1, False]]
    for (phone, state, forward, *more), ends in zip(tuples.tolist(), states, strict=True):
        rows += [[more[0] if more and end == state else forward, phone, state, end == state] for end in ends]
    pdf, phones, starts, loops = np.array(rows, np.int32).T
    return TransitionModel(pdf, phones, starts, loops.astype(bool), stream.name)
