"""What must be known to use a set of weights: sizes, how features are made and normalised, priors, words.

Without Paddle, so that Programs from files can be trained. Stored beside weights as `recogniser`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from DeepASR.corpus import Corpus
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.features import Frontend
from DeepASR.metrics import Unit
from DeepASR.sizes import Sizes
from DeepASR.transforms import CONTEXT, Statistics, add_deltas, hold_last, less_running_mean, normalise, splice
from fluid.errors import DataError, UserError

import numpy as np

FOLDER = Path(__file__).parent
TASK = FOLDER.name
EXAMPLES = FOLDER / "data" / "examples"
SHOWN = 12
"""Words of a vocabulary that are shown."""
REACH = 4
"""Frames that a second difference looks ahead."""
SURROUNDINGS = REACH + 2 * CONTEXT
"""Frames before and after a piece that are more than enough to make it as it would be of the whole."""


@dataclass(frozen=True)
class Normalisation:
    """From features to the input of the network."""

    mean: tuple[float, ...]
    variance: tuple[float, ...]
    """Of features with their differences, [3 * frame_dim] each."""
    running_mean: tuple[float, ...] = ()
    """[frame_dim]: what the mean over an utterance begins with, which is taken off before; empty: it is not."""
    running_weight: float = 100.0
    """How many frames that counts for."""
    by_speaker: bool = False
    """The mean over all that a speaker said is taken off instead; while sound comes in, the running one stands in for it."""

    def centred(self, features: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
        """Features [T, frame_dim] less their mean so far; or less `mean` [frame_dim], that of the speaker (by default theirs)."""
        if self.by_speaker:
            return features - (features.mean(axis=0) if mean is None else mean)
        return self.online(features)

    def online(self, features: np.ndarray) -> np.ndarray:
        """Features [T, frame_dim] less their mean so far, which more features do not change."""
        return RunningMean(self).taken_off(features)

    def apply(self, centred: np.ndarray) -> np.ndarray:
        """With differences and of mean 0 and variance 1, [T, 3 * frame_dim]. Raises DataError for another width."""
        statistics = Statistics(np.array(self.mean, np.float32), np.array(self.variance, np.float32))
        return normalise(add_deltas(centred), statistics)

    def piece(self, centred: np.ndarray, start: int, stop: int, *, last: bool) -> np.ndarray:
        """Frames `start` to `stop` of what the network sees, [stop - start, 3, 11, frame_dim].

        `centred` [T, frame_dim] is what is known so far; unless it is the whole (`last`, then five frames follow, on which
        the network answers the last five), stop <= T - REACH - CONTEXT.
        """
        low = max(0, start - SURROUNDINGS)
        x = self.apply(centred[low : stop + SURROUNDINGS])
        return splice(hold_last(x) if last else x)[start - low : stop - low]


class RunningMean:
    """`Normalisation.online` of features that come in pieces."""

    def __init__(self, normalisation: Normalisation) -> None:
        self._mean = np.array(normalisation.running_mean, np.float32).astype(np.float64)
        self._weight = normalisation.running_weight

    def taken_off(self, features: np.ndarray) -> np.ndarray:
        """The next features [T, frame_dim] less the mean of all frames so far; as they are where none is taken off."""
        if not len(self._mean):
            return features
        centred = less_running_mean(features, self._mean, self._weight)
        weight = self._weight + len(features)
        self._mean = (self._weight * self._mean + features.sum(axis=0, dtype=np.float64)) / weight
        self._weight = weight
        return centred


@dataclass(frozen=True)
class Recogniser:
    """Beside the weights."""

    sizes: Sizes
    normalisation: Normalisation
    log_prior: tuple[float, ...]
    """Natural logarithm of the share of each class among all frames, [class_num]."""
    unit: Unit = "cer"
    """What errors are counted in."""
    frontend: Frontend | None = None
    """How features are made of sound; None: Kaldi's, of what is not known here."""
    lexicon: Lexicon | None = None
    language_model: str | None = None
    """Text of an ARPA file; with a lexicon. None: a graph is given by flag."""
    acoustic_scale: float = 0.2
    """What log-likelihoods are multiplied by before they meet the language model."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of the data, for people."""

    def introduction(self) -> str:
        """What it listens for: language, and the words it knows or the first of them."""
        language = self.about.get("language", "recogniser")
        if self.lexicon is None:
            return language
        words = list(self.lexicon.words)
        more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
        return f"{language}: {' '.join(words[:SHOWN])}{more}"

    def examples(self) -> Path:
        """A folder of recordings that come along, of its own language if there are such."""
        return EXAMPLES / self.about.get("examples", "commands")

    def tells_apart(self, corpus: Corpus) -> bool:
        """Whether the classes of a data set are those of the network."""
        own, other = self.lexicon, corpus.lexicon
        same_phones = own is None or other is None or own.phones == other.phones
        return corpus.class_num == self.sizes.class_num and same_phones

    def refuse_other_classes(self, corpus: Corpus) -> None:
        """Raise DataError if the classes of a data set are not those of the network."""
        if not self.tells_apart(corpus):
            phones, own = (
                " ".join(item.phones) if item is not None else "-" for item in (corpus.lexicon, self.lexicon)
            )
            raise DataError(
                f"{corpus.folder}: has other classes than the network: {corpus.class_num} of the phones {phones}, "
                f"not {self.sizes.class_num} of {own}"
            )

    def refuse_features(self, name: str, features: np.ndarray) -> None:
        """Raise DataError, with the name, for features that are not [T, frame_dim] or not numbers."""
        if features.ndim != 2 or features.shape[1] != self.sizes.frame_dim:
            raise DataError(
                f"{name}: features {list(features.shape)} where the network takes [frames, {self.sizes.frame_dim}]"
            )
        if not np.isfinite(features).all():
            raise DataError(f"{name}: a feature is not a number")

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        facts = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        own = {
            "sizes": dataclasses.asdict(self.sizes),
            "normalisation": dataclasses.asdict(self.normalisation),
            "log_prior": list(self.log_prior),
            "frontend": self.frontend.to_facts() if self.frontend else None,
            "lexicon": self.lexicon.to_facts() if self.lexicon else None,
            "phones": list(self.lexicon.phones) if self.lexicon else [],
            "about": dict(self.about),
        }
        return {**facts, **own}

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> Recogniser:
        """The inverse of `to_facts`; raises UserError if something is missing."""
        try:
            normalisation: dict[str, Any] = {
                name: tuple(value) if isinstance(value, list) else value
                for name, value in facts["normalisation"].items()
            }
            return Recogniser(
                Sizes(**facts["sizes"]),
                Normalisation(**normalisation),
                tuple(facts["log_prior"]),
                facts["unit"],
                Frontend(**facts["frontend"]) if facts["frontend"] else None,
                Lexicon.from_facts(facts["lexicon"], facts["phones"]) if facts["lexicon"] else None,
                facts["language_model"],
                facts["acoustic_scale"],
                facts["about"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the weights do not say what recogniser they belong to ({error!r})") from None


def rounded(values: np.ndarray) -> tuple[float, ...]:
    """Numbers with six digits, which is what files of facts hold."""
    return tuple(float(f"{value:.6g}") for value in values)


def log_prior_of(labels: np.ndarray, class_num: int) -> tuple[float, ...]:
    """Of classes [frames]; one that is not among them counts as once."""
    counts = np.maximum(np.bincount(labels, minlength=class_num), 1)
    return rounded(np.log(counts / counts.sum()))
