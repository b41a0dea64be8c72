"""Recordings that people name, in files, folders, patterns and lists, and their features."""

from collections.abc import Callable, Iterator

from DeepASR.audio import problem, read_audio, read_standard_input
from DeepASR.recogniser import Recogniser
from fluid import finding
from fluid.errors import DataError, UserError
from fluid.run import console

import numpy as np

ENDINGS = (".wav", ".flac")
"""What is looked for in folders."""
STANDARD_INPUT = "-"
"""The name of a recording on standard input."""


def find(words: tuple[str, ...]) -> list[str]:
    """Recordings that the words of a command line name (`fluid.finding.find`), in order. Raises DataError."""
    return finding.find(words, "recording", ENDINGS, apart=lambda word: word == STANDARD_INPUT)


class Inputs:
    """What is to be recognised; what cannot be read is told at the end."""

    def __init__(self, items: list[tuple[str, Callable[[], np.ndarray] | None]], recogniser: Recogniser) -> None:
        """`items`: names, and what reads features [T, frame_dim]; None: those of the recording that is called so."""
        self._items, self._recogniser = items, recogniser
        self.unreadable: list[DataError] = []

    def __len__(self) -> int:
        return len(self._items)

    @property
    def names(self) -> list[str]:
        """Of recordings or utterances, in their order."""
        return [name for name, _ in self._items]

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, features [T, frame_dim])."""
        for name, features in self._items:
            try:
                found = self._features(name) if features is None else features()
                self._recogniser.refuse_features(name, found)
            except DataError as error:
                self.unreadable.append(error)
                continue
            yield name, found

    def _features(self, name: str) -> np.ndarray:
        frontend = self._recogniser.frontend
        if frontend is None:
            raise UserError("these weights take Kaldi's features, and do not say how those are made: give --features")
        rate = frontend.sample_rate
        samples = read_standard_input(rate) if name == STANDARD_INPUT else read_audio(name, rate)
        wrong = problem(samples, rate)
        if wrong and not wrong.startswith("clipped"):
            raise DataError(f"{name}: {wrong}")
        if wrong:
            console.print(f"{name}: {wrong}")
        return frontend.features(samples)
