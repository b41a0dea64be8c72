"""Decoding by several processes: the search holds Python's lock, so threads are of no use."""

from collections import deque
from collections.abc import Iterable, Iterator, Sized
from typing import Any

from DeepASR.decoding.decoder import Decoder, Hypothesis
from fluid.workers import Allocate, Pool

import numpy as np

AHEAD = 4
"""Utterances of a process that wait for it."""


class _Search:
    """What a process does: decode one utterance (`fluid.workers.Reader`)."""

    def __init__(self, decoder: Decoder) -> None:
        self._kind, self._settings = type(decoder), decoder.settings
        self._decoder: Decoder | None = None

    def read(self, task: Any, allocate: Allocate, progress: np.ndarray) -> tuple[dict[str, np.ndarray], Hypothesis]:
        """The hypothesis of (name, posterior)."""
        if self._decoder is None:
            self._decoder = self._kind(**self._settings)
        name, posterior = task
        # A hypothesis is no array; what a pool hands over has one at least.
        return allocate({"done": ((1,), np.int8)}), self._decoder.decode(posterior, name)

    def where(self, index: int) -> str:
        """For messages."""
        return "an utterance"


def decode_all(
    decoder: Decoder, posteriors: Iterable[tuple[str, np.ndarray]], processes: int
) -> Iterator[tuple[str, Hypothesis]]:
    """(name, hypothesis) of each (name, posterior [T, classes]), in their order; 0 or 1 `processes`: in this one.

    Raises as `Decoder.decode`.
    """
    if isinstance(posteriors, Sized):
        processes = min(processes, len(posteriors))
    if processes < 2:
        yield from ((name, decoder.decode(posterior, name)) for name, posterior in posteriors)
        return
    pool = Pool(_Search(decoder), processes)
    try:
        waiting: deque[tuple[int, str]] = deque()
        for number, (name, posterior) in enumerate(posteriors):
            pool.submit(number, (name, posterior))
            waiting.append((number, name))
            if len(waiting) > AHEAD * processes:
                yield _next(pool, waiting)
        while waiting:
            yield _next(pool, waiting)
    finally:
        pool.close()


def _next(pool: Pool, waiting: deque[tuple[int, str]]) -> tuple[str, Hypothesis]:
    number, name = waiting.popleft()
    return name, pool.result(number)[1]
