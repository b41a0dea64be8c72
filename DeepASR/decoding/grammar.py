"""Grammars in a line or a few: what may be said, as words with groups, choices and repetitions.

    turn (on | off) [the] (light | fan)
    set (one | two | three) degrees
    (zero | one | two)+

Each line is one thing that may be said. `a | b` is a choice, `( )` a group, `[ ]` something that may be left out, `+` behind
a word or group that it comes once or more, `#` begins a remark. `[unk]` is the word for whatever else is said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from fluid.errors import DataError

_TOKEN = re.compile(r"\[unk\]|[()\[\]|+]|[^\s()\[\]|+]+")
Arcs = list[tuple[int, int, str | None, float]]
"""State, next state, word (None: nothing is said), weight."""


def parse_grammar(text: str, where: str = "grammar") -> tuple[Arcs, dict[int, float]]:
    """The acceptor of a grammar, from state 0 on, and the weights of its final states. Raises DataError (FILE:LINE).

    Alternatives are equally probable.
    """
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise DataError(f"{where}: holds no line of words")
    builder = _Builder()
    cost = math.log(len(lines))
    for number, line in lines:
        tokens = _TOKEN.findall(line)
        try:
            start = builder.state()
            end, rest = builder.choice(start, tokens)
            if rest:
                raise ValueError(f"'{rest[0]}' closes nothing")
        except ValueError as error:
            raise DataError(f"{where}:{number}: {error}") from None
        except RecursionError:
            raise DataError(f"{where}:{number}: groups are nested too deep") from None
        builder.arcs += [(0, start, None, cost), (end, 1, None, 0.0)]
    return builder.arcs, {1: 0.0}


class _Builder:
    """States and arcs so far; 0 is the first state, 1 the last."""

    def __init__(self) -> None:
        self.arcs: Arcs = []
        self._states = 2

    def state(self) -> int:
        """A new one."""
        self._states += 1
        return self._states - 1

    def choice(self, start: int, tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Alternatives up to a bracket that closes; returns where they end and what follows."""
        branches = []
        while True:
            first = self.state()
            last, tokens = self.sequence(first, tokens)
            branches.append((first, last))
            if not tokens or tokens[0] != "|":
                break
            tokens = tokens[1:]
        end = self.state()
        for first, last in branches:
            self.arcs += [(start, first, None, math.log(len(branches))), (last, end, None, 0.0)]
        return end, tokens

    def sequence(self, here: int, tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
        """Items one after the other."""
        empty = True
        while tokens and tokens[0] not in ("|", ")", "]"):
            empty = False
            here, tokens = self.item(here, tokens)
        if empty:
            raise ValueError("an alternative without words")
        return here, tokens

    def item(self, start: int, tokens: Sequence[str]) -> tuple[int, Sequence[str]]:
        """A word or a group, perhaps repeated."""
        token, rest = tokens[0], tokens[1:]
        if token == "+":
            raise ValueError("'+' stands behind nothing")
        if token in ("(", "["):
            end, rest = self.choice(start, rest)
            if not rest or rest[0] != {"(": ")", "[": "]"}[token]:
                raise ValueError(f"'{token}' is not closed")
            rest = rest[1:]
            if token == "[":
                self.arcs.append((start, end, None, math.log(2)))
        else:
            end = self.state()
            self.arcs.append((start, end, token, 0.0))
        if rest and rest[0] == "+":
            self.arcs.append((end, start, None, math.log(2)))
            rest = rest[1:]
        return end, rest
