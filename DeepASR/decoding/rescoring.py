"""A larger language model than a decoding graph holds: it chooses among the alternatives that the search found by the smaller one.

    decoder = Rescoring(graph, words, log_prior, small=model, large=larger, depth=100)

A graph grows with its language model; a list of alternatives does not. The costs of the small model are taken off each, those of
the large one put in their place (Stolcke, Konig and Weintraub, 1997, by n-best lists).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Unpack

from DeepASR.decoding.decoder import Decoder, Hypothesis, SearchOptions
from DeepASR.decoding.graph import Graph
from DeepASR.decoding.language_model import UNKNOWN, Gram, order_of, score
from fluid.errors import DataError
from fluid.text import number_of

import numpy as np

DEPTH = 100
"""Alternatives that are compared."""
_STRANGE = 10.0
"""Natural logarithm: what a word costs that the large model does not have, and it has no word for those."""


class Rescoring(Decoder):
    """A decoder whose choice among alternatives is that of a larger model.

    Args:
        graph, words, log_prior, options: as of `Decoder`.
        small: the language model in the graph.
        large: the one to go by.
        depth: how many alternatives are compared.

    Raises DataError as `Decoder`, and for a graph with words that the small model does not have: it was made of another.
    """

    def __init__(
        self,
        graph: Graph,
        words: Sequence[str],
        log_prior: Sequence[float] | np.ndarray,
        *,
        small: Mapping[Gram, tuple[float, float]],
        large: Mapping[Gram, tuple[float, float]],
        depth: int = DEPTH,
        **options: Unpack[SearchOptions],
    ) -> None:
        super().__init__(graph, words, log_prior, **options)
        self.settings |= {"small": small, "large": large, "depth": depth}
        self._small, self._large, self._depth = small, large, depth
        self._orders = order_of(small), order_of(large)
        strange = [words[label] for label in np.unique(graph.arcs["output"]) if label and (words[label],) not in small]
        if strange and (UNKNOWN,) not in small:
            raise DataError(
                f"{graph.where}: has {number_of(len(strange), 'word')} that its language model does not have, as {strange[0]}: it was made of another"
            )

    def decode(self, posterior: np.ndarray, name: str = "utterance") -> Hypothesis:
        """The best of the alternatives; it has no path. Where there are none, what the search alone finds."""
        alternatives = self.n_best(posterior, 1, name)
        return alternatives[0] if alternatives else super().decode(posterior, name)

    def n_best(self, posterior: np.ndarray, count: int, name: str = "utterance") -> list[Hypothesis]:
        """The best alternatives in their new order."""
        alternatives = super().n_best(posterior, max(count, self._depth), name)
        weighed = [replace(item, cost=item.cost + self._difference(item.words)) for item in alternatives]
        return sorted(weighed, key=lambda item: item.cost)[:count]

    def _difference(self, words: Sequence[str]) -> float:
        """What the words cost more by the large model than by the small one."""
        own, known = ([word if (word,) in model else UNKNOWN for word in words] for model in (self._small, self._large))
        strange = known.count(UNKNOWN) if (UNKNOWN,) not in self._large else 0
        if strange:
            known = [word for word in known if word != UNKNOWN]
        less, more = score(self._small, own, self._orders[0]), score(self._large, known, self._orders[1])
        return (less - more) * math.log(10) + _STRANGE * strange
