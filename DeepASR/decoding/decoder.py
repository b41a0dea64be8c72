"""From posteriors to words: the most probable path through a decoding graph (kaldi-decoder's FasterDecoder).

    decoder = Decoder(graph, words, log_prior, acoustic_scale=0.1, beam=16)
    hypothesis = decoder.decode(posterior)              posterior [T, classes]
    print(hypothesis.text)

    listening = decoder.open()                          as sound comes in
    listening.accept(posterior);  listening.partial()

A frame's score of a class is (log posterior - log prior) * acoustic scale: by Bayes' rule the likelihood of the frame, up to a
factor that all classes share (Bourlard and Morgan, 1994).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from DeepASR.decoding.alternatives import best_sequences
from DeepASR.decoding.graph import Graph
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.metrics import align
from fluid.errors import DataError

import kaldi_decoder
import kaldifst
import numpy as np

BEAM, MAX_ACTIVE, MIN_ACTIVE = 16.0, 7000, 200
"""Of kaldi-decoder's own default, 20 states at least, comes that right paths are lost."""
LATTICE_BEAM = 8.0
"""Alternatives that cost more than the best by more than this are left out."""
_SMALLEST = 1e-10
"""A posterior of 0 counts as this."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What was heard."""

    words: tuple[str, ...]
    pdfs: np.ndarray
    """The class of each frame on the best path, [T]."""
    cost: float
    """Of the path."""
    complete: bool
    """Whether the path ends where the graph allows it."""

    @property
    def text(self) -> str:
        """The words with blanks between them."""
        return " ".join(self.words)


class SearchOptions(TypedDict, total=False):
    """What `Decoder` takes by name."""

    acoustic_scale: float
    beam: float
    max_active: int
    min_active: int


class Decoder:
    """Searches one graph.

    Args:
        graph: its input labels are classes + 1.
        words: by output label; the first stands for none.
        log_prior: natural logarithm of the share of each class among all frames, [classes].
        acoustic_scale: factor of the log-likelihoods.
        beam: paths whose cost is larger than the best by more than this are given up.
        max_active, min_active: states that are kept, at most and at least.

    Raises DataError for a graph with labels that are no classes or no words.
    """

    def __init__(
        self,
        graph: Graph,
        words: Sequence[str],
        log_prior: Sequence[float] | np.ndarray,
        *,
        acoustic_scale: float = 0.1,
        beam: float = BEAM,
        max_active: int = MAX_ACTIVE,
        min_active: int = MIN_ACTIVE,
    ) -> None:
        self.settings: dict[str, Any] = {
            "graph": graph,
            "words": words,
            "log_prior": log_prior,
            "acoustic_scale": acoustic_scale,
            "beam": beam,
            "max_active": max_active,
            "min_active": min_active,
        }
        """By which another process makes the same decoder."""
        self.log_prior = np.asarray(log_prior, np.float32)
        graph.check(len(self.log_prior))
        if graph.largest_word >= len(words):
            raise DataError(f"{graph.where}: has the word {graph.largest_word} of a list of {len(words)}")
        self.words = list(words)
        self.lexicon: Lexicon | None = None
        """How the words are pronounced, where the graph was made of that."""
        self._fst = _loaded(graph)
        self._options = kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=max_active, min_active=min_active)

    @property
    def acoustic_scale(self) -> float:
        """Factor of the log-likelihoods, which may be set anew."""
        return self.settings["acoustic_scale"]

    @acoustic_scale.setter
    def acoustic_scale(self, scale: float) -> None:
        self.settings["acoustic_scale"] = scale

    def scores(self, posterior: np.ndarray, name: str = "utterance") -> np.ndarray:
        """Scaled log-likelihoods [T, classes]. Raises DataError for posteriors that are not numbers or of another width."""
        if posterior.ndim != 2 or posterior.shape[1] != len(self.log_prior):
            raise DataError(
                f"{name}: posteriors {list(posterior.shape)} where [frames, {len(self.log_prior)}] are expected"
            )
        if not np.isfinite(posterior).all():
            frame = int(np.flatnonzero(~np.isfinite(posterior).all(axis=1))[0])
            raise DataError(f"{name}: the posterior of frame {frame} is not a number")
        likelihoods = np.log(np.maximum(posterior, _SMALLEST)) - self.log_prior
        return np.ascontiguousarray(likelihoods * self.acoustic_scale, np.float32)

    def decode(self, posterior: np.ndarray, name: str = "utterance") -> Hypothesis:
        """The best path of an utterance. Raises as `scores`."""
        listening = self.open()
        listening.accept(posterior, name)
        return listening.result()

    def decode_batch(self, posteriors: Iterable[np.ndarray]) -> list[Hypothesis]:
        """Of several utterances."""
        return [self.decode(posterior) for posterior in posteriors]

    def n_best(self, posterior: np.ndarray, count: int, name: str = "utterance") -> list[Hypothesis]:
        """The best different sequences of words, best first; they have no path. Raises as `scores`."""
        scores = self.scores(posterior, name)
        if not len(scores):
            return []
        options = kaldi_decoder.LatticeSimpleDecoderConfig(beam=self._options.beam, lattice_beam=LATTICE_BEAM)
        search = kaldi_decoder.LatticeSimpleDecoder(self._fst, options)
        if not search.decode(kaldi_decoder.DecodableCtc(scores)):
            return []
        _, lattice = search.get_raw_lattice()
        text = lattice.to_str(show_weight_one=True, fst_field_separator=" ")
        return [
            Hypothesis(tuple(self.words[label] for label in labels), np.zeros(0, np.int32), cost, True)
            for labels, cost in best_sequences(text, count)
        ]

    def open(self) -> Listening:
        """Decode an utterance piece by piece."""
        return Listening(self)


class Listening:
    """An utterance that is being decoded."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._search = kaldi_decoder.FasterDecoder(decoder._fst, decoder._options)
        self._search.init_decoding()
        self.frames = 0

    def accept(self, posterior: np.ndarray, name: str = "utterance") -> None:
        """Go on with the posteriors of further frames, [T, classes]. Raises as `Decoder.scores`."""
        scores = self._decoder.scores(posterior, name)
        if len(scores):
            self._search.advance_decoding(kaldi_decoder.DecodableCtc(scores, self.frames))
            self.frames += len(scores)

    def partial(self) -> Hypothesis:
        """The best path so far."""
        return self._path(final=False)

    def result(self) -> Hypothesis:
        """The best path of the whole; if none ends where the graph allows it, the best of the others."""
        return self._path(final=self._search.reached_final())

    def _path(self, final: bool) -> Hypothesis:
        if not self.frames:
            return Hypothesis((), np.zeros(0, np.int32), 0.0, False)
        found, best = self._search.get_best_path(use_final_probs=final)
        if not found:
            return Hypothesis((), np.zeros(0, np.int32), np.inf, False)
        _, labels, words, weight = kaldifst.get_linear_symbol_sequence(best)
        said = tuple(self._decoder.words[word] for word in words)
        cost = weight.value1 + weight.value2
        return Hypothesis(said, np.array(labels, np.int32) - 1, cost, final)


def confidences(best: Sequence[str], alternatives: Sequence[Hypothesis]) -> list[float]:
    """Of each word of `best`: the share of probability of the alternatives that have it at its place.

    Probabilities are those of the paths' costs, acoustic scale included (Wessel et al., 2001, by n-best lists).
    """
    if not alternatives:
        return [0.0] * len(best)
    costs = np.array([item.cost for item in alternatives])
    weights = np.exp(costs.min() - costs)
    shares = np.zeros(len(best))
    for weight, item in zip(weights / weights.sum(), alternatives, strict=True):
        place = 0
        for wanted, found in align(best, item.words):
            shares[place - 1 if wanted is None else place] += weight * (wanted == found and wanted is not None)
            place += wanted is not None
    return [round(float(share), 4) for share in shares]


def _loaded(graph: Graph) -> kaldifst.StdConstFst:
    """The graph as the decoder wants it; its library reads files alone, and says None where it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.fst"
        graph.write(path)
        fst = kaldifst.StdConstFst.read(str(path))
    if fst is None:
        raise DataError(f"{graph.where}: OpenFst cannot read the graph")
    return fst
