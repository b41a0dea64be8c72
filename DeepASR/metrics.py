"""What speech recognition is measured by: the error rate of characters or words, and the share of frames named rightly.

    rates = error_rates({"utt1": "turn on the light"}, hypotheses, unit="wer")
    print(rates.total)                  Counts(substitutions=..., deletions=..., insertions=..., length=...)

An error rate is the number of substitutions, deletions and insertions that turn the reference into the hypothesis, by the
length of the reference, over all utterances together. An utterance without a hypothesis is all deletions: in 2018 it was
left out, which made the rate lower than it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from DeepASR.transforms import NOT_COUNTED
from fluid.data import Batch
from fluid.engine import Engine
from fluid.errors import DataError

import numpy as np

Unit = Literal["cer", "wer"]
Operation = tuple[str | None, str | None]
"""(reference, hypothesis) of one place in an alignment; None where the other stands alone."""


@dataclass(frozen=True)
class Counts:
    """Errors of a hypothesis, or of several."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    length: int = 0
    """Characters or words of the reference."""

    @property
    def errors(self) -> int:
        """Of all three kinds."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors by the length of the reference; NaN if that is empty. Insertions can make it larger than 1."""
        return self.errors / self.length if self.length else float("nan")

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.length + other.length,
        )


@dataclass(frozen=True)
class ErrorRates:
    """Of a set of utterances."""

    utterances: dict[str, Counts]
    missing: list[str]
    """Utterances without a hypothesis, which count as deletions."""
    unknown: list[str]
    """Hypotheses of utterances that have no reference, which do not count."""

    @property
    def total(self) -> Counts:
        """Of all utterances."""
        return sum(self.utterances.values(), Counts())

    def by_speaker(self, speakers: Mapping[str, str]) -> dict[str, Counts]:
        """Of each speaker, the worst first. Raises DataError for an utterance whose speaker is not known."""
        counts: dict[str, Counts] = {}
        for name, of_one in self.utterances.items():
            if name not in speakers:
                raise DataError(f"utterance {name}: its speaker is not listed; add a line '{name} SPEAKER' to utt2spk")
            counts[speakers[name]] = counts.get(speakers[name], Counts()) + of_one
        return dict(sorted(counts.items(), key=lambda item: (-item[1].errors / max(item[1].length, 1), item[0])))

    def worst(self, count: int) -> list[str]:
        """The utterances with most errors by their length, of those with any; of equal ones, first those with more errors."""
        wrong = [name for name, counts in self.utterances.items() if counts.errors]
        return sorted(wrong, key=self._badness, reverse=True)[:count]

    def interval(self, *, level: float = 0.95, samples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """Between which the rate lies with this probability, as other utterances of the kind would have it.

        Utterances are drawn anew with replacement (bootstrap; Bisani and Ney, ICASSP 2004). (NaN, NaN) without any.
        """
        if self.total.length == 0:
            return float("nan"), float("nan")
        counts = np.array([(one.errors, one.length) for one in self.utterances.values()], np.float64)
        rng = np.random.default_rng(seed)
        # How often each is drawn: one row a sample.
        drawn = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=samples) @ counts
        rates = drawn[:, 0] / np.maximum(drawn[:, 1], 1)
        low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def _badness(self, name: str) -> tuple[float, int, str]:
        counts = self.utterances[name]
        return counts.errors / max(counts.length, 1), counts.errors, name


def error_rates(
    references: Mapping[str, str], hypotheses: Mapping[str, str], *, unit: Unit, ignored: Iterable[str] = ()
) -> ErrorRates:
    """Compare the texts of utterances by name.

    `ignored` words ("<SPOKEN_NOISE>") are taken out of both sides. Raises DataError if there is no reference.
    """
    if not references:
        raise DataError("there is no reference to compare with")
    left_out = frozenset(ignored)
    utterances = {
        name: count_errors(split(text, unit, left_out), split(hypotheses.get(name, ""), unit, left_out))
        for name, text in references.items()
    }
    missing = [name for name in references if name not in hypotheses]
    return ErrorRates(utterances, missing, [name for name in hypotheses if name not in references])


def split(text: str, unit: Unit, ignored: frozenset[str] = frozenset()) -> list[str]:
    """The words of a text, or its characters without white space."""
    words = [word for word in text.split() if word not in ignored]
    return words if unit == "wer" else list("".join(words))


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """The errors of an alignment with the fewest; see `align`."""
    operations = align(reference, hypothesis)
    deletions = sum(found is None for _, found in operations)
    insertions = sum(wanted is None for wanted, _ in operations)
    different = sum(wanted != found for wanted, found in operations)
    return Counts(different - deletions - insertions, deletions, insertions, len(reference))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Operation]:
    """The places of an alignment with the fewest errors (Levenshtein, 1966).

    Among equally good ones, substitutions are preferred to pairs of a deletion and an insertion, as in NIST's sclite.
    """
    costs = _costs(reference, hypothesis)
    row, column = len(reference), len(hypothesis)
    operations: list[Operation] = []
    while row or column:
        cost = costs[row, column]
        if row and column and cost == costs[row - 1, column - 1] + (reference[row - 1] != hypothesis[column - 1]):
            row, column = row - 1, column - 1
            operations.append((reference[row], hypothesis[column]))
        elif row and cost == costs[row - 1, column] + 1:
            row -= 1
            operations.append((reference[row], None))
        else:
            column -= 1
            operations.append((None, hypothesis[column]))
    return operations[::-1]


def _costs(reference: Sequence[str], hypothesis: Sequence[str]) -> np.ndarray:
    """Fewest errors between all beginnings, [1 + reference, 1 + hypothesis]."""
    numbers: dict[str, int] = {}
    wanted, found = ([numbers.setdefault(item, len(numbers)) for item in items] for items in (reference, hypothesis))
    found_numbers, places = np.array(found, np.int64), np.arange(len(found) + 1)
    costs = np.empty((len(wanted) + 1, len(found) + 1), np.int32)
    costs[0] = places
    for row, item in enumerate(wanted, 1):
        kept = np.append(row, np.minimum(costs[row - 1, 1:] + 1, costs[row - 1, :-1] + (found_numbers != item)))
        # An insertion costs one more than the place before it: the running minimum of cost less place.
        costs[row] = np.minimum.accumulate(kept - places) + places
    return costs


class FrameAccuracy:
    """Share of frames whose tied state is named rightly, and their mean cross-entropy (`fluid.metrics.Metric`).

    Counts the outputs of `network.build_evaluation`.
    """

    def __init__(self) -> None:
        self._sums = np.zeros(3)

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        names = ("losses", "correct", "counted")
        self._sums += [np.sum(outputs[name][batch.mask], dtype=np.float64) for name in names]

    def merge(self, engine: Engine) -> None:
        """Unite what all processes counted."""
        self._sums = engine.total(self._sums)

    def result(self) -> dict[str, float]:
        """`loss`, `frame_accuracy` in per cent, and `frames`. Raises DataError if no frame has a label."""
        losses, correct, counted = self._sums.tolist()
        if not counted:
            raise DataError(f"no frame has a label to be compared with (all are {NOT_COUNTED})")
        return {"loss": losses / counted, "frame_accuracy": 100 * correct / counted, "frames": counted}


def frame_result(posteriors: Mapping[str, np.ndarray], labels: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What `FrameAccuracy` finds, from posteriors [T, classes] and labels [T] by utterance. Raises DataError as that."""
    losses = correct = counted = 0.0
    for name, posterior in posteriors.items():
        right = posterior[np.arange(len(posterior)), labels[name]]
        losses -= float(np.log(np.maximum(right, np.finfo(np.float32).tiny)).sum(dtype=np.float64))
        correct += int(np.sum(posterior.argmax(axis=1) == labels[name]))
        counted += len(posterior)
    if not counted:
        raise DataError("no frame has a label to be compared with")
    return {"loss": losses / counted, "frame_accuracy": 100 * correct / counted, "frames": counted}
