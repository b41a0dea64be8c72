"""The best different sequences of words of a lattice.

Every state of it keeps the best sequences that lead there (Schwartz and Chow: The N-best algorithm. ICASSP 1990), so what is
found is exact, and the time grows with the lattice alone: where a network is unsure, making a lattice deterministic takes
minutes for a second of speech.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

_MIXED = np.uint64(0x9E3779B97F4A7C15)
"""An odd number that spreads the keys of sequences over all of 64 bits (Knuth, volume 3, 6.4)."""


class Arc(NamedTuple):
    """From one state of a lattice to another."""

    source: int
    target: int
    word: int
    """0: none."""
    cost: float


@dataclass(frozen=True, eq=False)
class Sequences:
    """The best that lead to a state, best first."""

    costs: np.ndarray
    keys: np.ndarray
    """[n] uint64; equal for equal words."""
    last: np.ndarray
    """[n]: number of the last word in what was said so far; 0: nothing was."""


def best_sequences(text: str, most: int) -> list[tuple[tuple[int, ...], float]]:
    """Up to `most` different sequences of words of a lattice, best first, with the cost of the best path of each.

    Args:
        text: the lattice as kaldifst writes it, `SOURCE TARGET LABEL WORD COSTS` and `STATE COSTS` a line, without cycles; it
            begins with an arc of the first state.
        most: how many.
    """
    arcs, finals = _read(text)
    if not arcs:
        return []
    entering: dict[int, list[Arc]] = defaultdict(list)
    for arc in arcs:
        entering[arc.target].append(arc)
    # What was said: by number, the number of what came before it, and the word.
    said: list[tuple[int, int]] = [(0, 0)]
    known = {arcs[0].source: Sequences(np.zeros(1), np.zeros(1, np.uint64), np.zeros(1, np.int64))}
    for state in _in_order(arcs):
        if entering[state]:
            known[state] = _joined(entering[state], known, said, most)
    ends = [Arc(state, -1, 0, cost) for state, cost in finals.items() if state in known]
    if not ends:
        return []
    best = _joined(ends, known, said, most)
    return [(_words(int(last), said), float(cost)) for last, cost in zip(best.last, best.costs)]


def _read(text: str) -> tuple[list[Arc], dict[int, float]]:
    """Arcs, and what it costs to end by state."""
    arcs, finals = [], {}
    for line in text.splitlines():
        *numbers, weight = line.split(" ")
        cost = sum(map(float, weight.split(",")))
        if len(numbers) == 1:
            finals[int(numbers[0])] = cost
        else:
            arcs.append(Arc(int(numbers[0]), int(numbers[1]), int(numbers[3]), cost))
    return arcs, finals


def _in_order(arcs: list[Arc]) -> list[int]:
    """States, each behind all that lead to it (Kahn, 1962)."""
    following: dict[int, list[int]] = defaultdict(list)
    missing: dict[int, int] = defaultdict(int)
    for arc in arcs:
        following[arc.source].append(arc.target)
        missing[arc.target] += 1
    order = [state for state in following if not missing[state]]
    for state in order:
        for other in following[state]:
            missing[other] -= 1
            if not missing[other]:
                order.append(other)
    return order


def _joined(arcs: list[Arc], known: dict[int, Sequences], said: list[tuple[int, int]], most: int) -> Sequences:
    """The best of what comes over all of these arcs; adds the words of the arcs to `said`."""
    before = [(known[arc.source], arc) for arc in arcs if arc.source in known]
    costs = np.concatenate([sequences.costs + arc.cost for sequences, arc in before])
    keys = np.concatenate([_with_word(sequences.keys, arc.word) for sequences, arc in before])
    last = np.concatenate([sequences.last for sequences, _ in before])
    words = np.concatenate([np.full(len(sequences.costs), arc.word) for sequences, arc in before])
    order = np.argsort(costs, kind="stable")
    _, first = np.unique(keys[order], return_index=True)
    chosen = order[np.sort(first)[:most]]
    last = last[chosen]
    for place in np.flatnonzero(words[chosen]):
        said.append((int(last[place]), int(words[chosen[place]])))
        last[place] = len(said) - 1
    return Sequences(costs[chosen], keys[chosen], last)


def _with_word(keys: np.ndarray, word: int) -> np.ndarray:
    return (keys + np.uint64(word)) * _MIXED if word else keys


def _words(last: int, said: list[tuple[int, int]]) -> tuple[int, ...]:
    found = []
    while last:
        last, word = said[last]
        found.append(word)
    return tuple(reversed(found))
