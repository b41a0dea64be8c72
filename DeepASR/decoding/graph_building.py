"""Decoding graphs made here: from classes of a network to words, out of a lexicon and a language model or a grammar.

    graph, words = from_language_model(lexicon, model)
    graph, words = from_grammar(lexicon, "turn (on | off) [the] (light | fan)")

They are what Kaldi's mkgraph.sh makes of a monophone system: H(min(det(L o G))), where L says each word by its phones, with
silence between words or without, and G says what words follow which. Input labels are classes + 1, output labels numbers in
`words`, whose first entry stands for none. Making one of a hundred words takes a few hundredths of a second, so a grammar or
a list of words can be exchanged whenever that is wanted.

Mohri, Pereira and Riley: Weighted finite-state transducers in speech recognition. Computer Speech and Language 16, 2002.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from DeepASR.decoding.grammar import parse_grammar
from DeepASR.decoding.graph import ARC, STATE, Graph
from DeepASR.decoding.language_model import BEGIN, END, NEVER, UNKNOWN, Gram
from DeepASR.decoding.lexicon import SILENCE, STATES, Lexicon
from fluid.errors import DataError

import kaldifst
import numpy as np

SILENCE_PROBABILITY = 0.5
"""Of silence behind a word."""
ANYTHING = "[unk]"
"""The word of a graph that stands for whatever else is said: any phones in any order."""
ANY_PHONE = "#any"
"""Its pronunciation."""
ANY_PHONE_COST = 1.0
"""Natural logarithm: what each of its phones costs, beside that all are equally probable."""

Arc = tuple[int, int, int, int, float]
"""State, next state, input label, output label, weight."""
Acceptor = tuple[list[tuple[int, int, str | None, float]], dict[int, float]]
"""Arcs (state, next state, word or None to back off, weight) from state 0 on, and weights of final states."""


def from_language_model(lexicon: Lexicon, model: Mapping[Gram, tuple[float, float]]) -> tuple[Graph, list[str]]:
    """The graph of an n-gram model, and its words.

    Raises DataError that lists the words of the model without a pronunciation.
    """
    return _compiled(lexicon, _of_model(model))


def from_grammar(
    lexicon: Lexicon, grammar: str, *, anything: bool = False, where: str = "grammar"
) -> tuple[Graph, list[str]]:
    """The graph of a grammar (`DeepASR.decoding.grammar`), and its words; `anything`: what fits no rule is heard as `[unk]`.

    Raises DataError for a grammar that cannot be read, and one that lists its words without a pronunciation.
    """
    arcs, finals = parse_grammar(grammar, where)
    if anything:
        arcs = [*arcs, (0, max(finals), ANYTHING, 0.0)]
        lexicon = Lexicon({**lexicon.words, ANYTHING: ((ANY_PHONE,),)}, lexicon.phones)
    return _compiled(lexicon, (arcs, finals))


def _of_model(model: Mapping[Gram, tuple[float, float]]) -> Acceptor:
    """One state for each history; the state of none is where the others back off to."""
    order = max(map(len, model))
    histories = {gram[:-1] for gram in model} | {gram for gram, (_, weight) in model.items() if weight}
    histories |= {(), (BEGIN,)}
    start = (BEGIN,)
    numbers = {history: number for number, history in enumerate([start, *sorted(histories - {start})])}
    arcs: list[tuple[int, int, str | None, float]] = []
    finals: dict[int, float] = {}
    for gram, (value, _) in model.items():
        history, word = gram[:-1], gram[-1]
        if history not in numbers or word in (BEGIN, UNKNOWN) or value <= NEVER:
            continue
        if word == END:
            finals[numbers[history]] = -value * math.log(10)
            continue
        following = gram[-(order - 1) :] if order > 1 else ()
        while following not in numbers:
            following = following[1:]
        arcs.append((numbers[history], numbers[following], word, -value * math.log(10)))
    for history, number in numbers.items():
        if history:
            shorter = history[1:]
            while shorter not in numbers:
                shorter = shorter[1:]
            arcs.append((number, numbers[shorter], None, -model.get(history, (0.0, 0.0))[1] * math.log(10)))
    return arcs, finals


def _compiled(lexicon: Lexicon, acceptor: Acceptor) -> tuple[Graph, list[str]]:
    arcs, finals = acceptor
    vocabulary = list(dict.fromkeys(word for _, _, word, _ in arcs if word is not None))
    lexicon.refuse_missing(vocabulary)
    words = ["<eps>", *vocabulary]
    numbers = {word: number for number, word in enumerate(words)}
    back_off = len(words)
    labelled = [
        (one, other, numbers.get(word or "", back_off), numbers.get(word or "", 0)) for one, other, word, _ in arcs
    ]
    grammar = _fst([(*labels, weight) for labels, (*_, weight) in zip(labelled, arcs, strict=True)], finals)
    said, first_mark = _lexicon_arcs(lexicon, vocabulary, numbers, back_off)
    lexicon_fst = _fst(said, {1: 0.0})
    kaldifst.arcsort(lexicon_fst, sort_type="olabel")
    kaldifst.arcsort(grammar, sort_type="ilabel")
    composed = kaldifst.compose(lexicon_fst, grammar)
    if composed.start < 0:
        raise DataError("the grammar accepts nothing")
    if kaldifst.determinize_star(composed, use_log=False):
        raise DataError("the graph cannot be determinised")
    kaldifst.minimize_encoded(composed)
    return _expanded(composed, lexicon, first_mark), words


def _fst(arcs: Iterable[Arc], finals: Mapping[int, float]) -> kaldifst.StdVectorFst:
    """The first state of a text is where a graph starts: so those of state 0 come first."""
    ordered = sorted(arcs, key=lambda arc: arc[0] != 0)
    lines = [" ".join(map(str, arc)) for arc in ordered] + [f"{state} {weight}" for state, weight in finals.items()]
    return kaldifst.compile("\n".join(lines) + "\n", acceptor=False)


def _lexicon_arcs(
    lexicon: Lexicon, vocabulary: Sequence[str], numbers: Mapping[str, int], back_off: int
) -> tuple[list[Arc], int]:
    """L, and the first of the marks among its input labels that tell apart what sounds alike.

    State 0 begins, 1 is between words, 2 before silence, 3 behind it. Input labels are phones + 1 and, behind those of all
    phones, any phone; then the marks.
    """
    labels = {phone: number + 1 for phone, number in lexicon.number.items()}
    labels[ANY_PHONE] = len(labels) + 1
    first_mark = len(labels) + 1
    with_silence, without = -math.log(SILENCE_PROBABILITY), -math.log(1 - SILENCE_PROBABILITY)
    spoken = [(word, phones) for word in vocabulary for phones in lexicon.words[word]]
    marks = _marks([phones for _, phones in spoken])
    largest = max(marks, default=0)
    silence_mark, back_off_mark = first_mark + largest, first_mark + largest + 1
    arcs: list[Arc] = [
        (0, 1, 0, 0, without),
        (0, 2, 0, 0, with_silence),
        (2, 3, labels[SILENCE], 0, 0.0),
        (3, 1, silence_mark, 0, 0.0),
        (1, 1, back_off_mark, back_off, 0.0),
    ]
    state = 4
    for (word, phones), mark in zip(spoken, marks, strict=True):
        sequence = [labels[phone] for phone in phones] + ([first_mark + mark - 1] if mark else [])
        here, output = 1, numbers[word]
        for label in sequence[:-1]:
            arcs.append((here, state, label, output, 0.0))
            here, output, state = state, 0, state + 1
        arcs += [(here, 1, sequence[-1], output, without), (here, 2, sequence[-1], output, with_silence)]
    return arcs, first_mark


def _marks(pronunciations: Sequence[tuple[str, ...]]) -> list[int]:
    """A number from 1 for each that is another's too, or the beginning of another; 0 for the others."""
    common = Counter(pronunciations)
    beginnings = {phones[:length] for phones in pronunciations for length in range(1, len(phones))}
    used: Counter[tuple[str, ...]] = Counter()
    marks = []
    for phones in pronunciations:
        ambiguous = common[phones] > 1 or phones in beginnings
        used[phones] += ambiguous
        marks.append(used[phones] if ambiguous else 0)
    return marks


def _expanded(fst: kaldifst.StdVectorFst, lexicon: Lexicon, first_mark: int) -> Graph:
    """Every phone as its states, each passed in a frame or more."""
    finals: dict[int, float] = {}
    arcs: list[Arc] = []
    states = 0
    for state in kaldifst.StateIterator(fst):
        states = max(states, state + 1)
        if (weight := fst.final(state).value) != math.inf:
            finals[state] = weight
    old_arcs = [
        (state, arc.nextstate, arc.ilabel, arc.olabel, arc.weight.value)
        for state in kaldifst.StateIterator(fst)
        for arc in kaldifst.ArcIterator(fst, state)
    ]
    any_phone = first_mark - 1

    def add_phone(here: int, there: int, phone: int, word: int, weight: float) -> None:
        nonlocal states
        for place in range(STATES):
            label = STATES * phone + place + 1
            arcs.append((here, states, label, word, weight))
            arcs.append((states, states, label, 0, 0.0))
            here, word, weight, states = states, 0, 0.0, states + 1
        arcs.append((here, there, 0, 0, 0.0))

    for here, there, label, word, weight in old_arcs:
        if label == 0 or label >= first_mark:
            arcs.append((here, there, 0, word, weight))
        elif label == any_phone:
            hub = states
            states += 1
            arcs += [(here, hub, 0, word, weight), (hub, there, 0, 0, 0.0)]
            for phone in range(1, len(lexicon.phones)):
                add_phone(hub, hub, phone, 0, ANY_PHONE_COST + math.log(len(lexicon.phones) - 1))
        else:
            add_phone(here, there, label - 1, word, weight)
    return _graph(arcs, finals, fst.start, states)


def _graph(arcs: Sequence[Arc], finals: Mapping[int, float], start: int, count: int) -> Graph:
    """The arrays of a graph."""
    columns = np.array(arcs, np.float64).T
    order = np.argsort(columns[0], kind="stable")
    table = np.zeros(len(arcs), ARC)
    for name, column in zip(("next", "input", "output", "weight"), columns[1:]):
        table[name] = column[order]
    sources = columns[0].astype(np.int64)
    states = np.zeros(count, STATE)
    states["final"] = np.inf
    states["final"][list(finals)] = list(finals.values())
    states["arcs"] = np.bincount(sources, minlength=count)
    states["first"] = np.cumsum(states["arcs"]) - states["arcs"]
    for name in ("input", "output"):
        states[f"{name}s"] = np.bincount(sources, columns[2 if name == "input" else 3] == 0, count)
    return Graph(states, table, start, "graph")
