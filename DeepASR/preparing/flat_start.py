"""Alignments out of nothing but recordings and texts: a model of Gaussians that is trained from a flat start.

    alignments = flat_start(features, texts, lexicon)        {utterance: pdfs [T]}

At first every utterance is divided evenly among the states of its text; then Gaussians of these frames and the best path
through the states follow from each other in turn (Viterbi training; HTK book, 8). Gaussians split in two as this goes on.
Each stands for cepstra, the cosine transform of the features, with their differences, less their mean over the utterance.
"""

from collections.abc import Mapping, Sequence

from DeepASR.decoding.lexicon import STATES, Lexicon
from DeepASR.forced_alignment import align_words, make_chain
from DeepASR.transforms import add_deltas
from fluid.errors import DataError
from fluid.text import number_of

import numpy as np
from scipy.fft import dct

CEPSTRA = 13
ROUNDS = (1, 1, 1, 2, 2, 2, 4, 4, 4)
"""Gaussians of a state in each round of training."""
LEARNED_FROM = 2000
"""Utterances that the Gaussians are trained on, at most; the others are aligned by them."""
_FLOOR = 0.05
"""Smallest variance, as a share of that of all frames."""
_FEWEST = 3
"""Frames that a Gaussian of its own needs."""


class Gaussians:
    """Mixtures of Gaussians with diagonal covariance, as many in each class."""

    def __init__(self, means: np.ndarray, variances: np.ndarray, weights: np.ndarray) -> None:
        """`means` and `variances` [classes, mixtures, columns], `weights` [classes, mixtures]."""
        self.means, self.variances, self.weights = means, variances, weights

    def by_component(self, cepstra: np.ndarray) -> np.ndarray:
        """Log-likelihoods [T, classes, mixtures] of cepstra [T, columns]."""
        classes, mixtures, columns = self.means.shape
        inverse = 1 / self.variances
        constant = np.log(np.maximum(self.weights, 1e-10)) - 0.5 * np.sum(
            np.log(2 * np.pi * self.variances) + self.means**2 * inverse, axis=2
        )
        quadratic = cepstra**2 @ inverse.reshape(-1, columns).T
        linear = cepstra @ (self.means * inverse).reshape(-1, columns).T
        return constant + (linear - 0.5 * quadratic).reshape(-1, classes, mixtures)

    def scores(self, cepstra: np.ndarray) -> np.ndarray:
        """Log-likelihoods [T, classes] by the best Gaussian of each class."""
        return self.by_component(cepstra).max(axis=2)

    def split(self) -> "Gaussians":
        """Twice as many, each two a little apart."""
        step = 0.2 * np.sqrt(self.variances)
        means = np.concatenate([self.means + step, self.means - step], axis=1)
        return Gaussians(means, np.tile(self.variances, (1, 2, 1)), np.tile(self.weights / 2, (1, 2)))


def flat_start(
    features: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    rounds: Sequence[int] = ROUNDS,
) -> dict[str, np.ndarray]:
    """The class of each frame, int32 [T], of every utterance in `texts`.

    Args:
        features: [T, dim] by utterance.
        texts: words by utterance.
        lexicon: their pronunciations.
        rounds: Gaussians of a state in each round of training.

    Raises DataError, with the utterance, for what `align_words` does.
    """
    for name, words in texts.items():
        shortest = make_chain(lexicon, words).shortest
        if len(features[name]) < shortest:
            raise DataError(
                f"{name}: {number_of(len(features[name]), 'frame')}, too few for its text, which needs {shortest}"
            )
    model, paths = _learned(features, texts, lexicon, rounds)
    return {
        name: paths[name] if name in paths else _aligned(model, name, to_cepstra(features[name]), words, lexicon)
        for name, words in texts.items()
    }


def gaussians_of(
    features: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    rounds: Sequence[int] = ROUNDS,
) -> Gaussians:
    """The Gaussians that `flat_start` aligns by: a monophone recogniser of its own."""
    return _learned(features, texts, lexicon, rounds)[0]


def _learned(
    features: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]],
    lexicon: Lexicon,
    rounds: Sequence[int],
) -> tuple[Gaussians, dict[str, np.ndarray]]:
    """The model, and the best paths of the utterances that it was trained on."""
    learned = {name: texts[name] for name in list(texts)[:: -(-len(texts) // LEARNED_FROM)]}
    cepstra = {name: to_cepstra(features[name]) for name in learned}
    paths = {name: _divided_evenly(len(cepstra[name]), learned[name], lexicon) for name in learned}
    everything = np.concatenate(list(cepstra.values()))
    floor = _FLOOR * everything.var(axis=0)
    start = np.broadcast_to(everything.mean(axis=0), (lexicon.class_num, 1, everything.shape[1]))
    spread = np.broadcast_to(everything.var(axis=0), start.shape)
    model = Gaussians(start, spread, np.ones(start.shape[:2]))
    for mixtures in rounds:
        labels = np.concatenate(list(paths.values()))
        while model.weights.shape[1] < mixtures:
            model = model.split()
        model = _trained(model, everything, labels, floor)
        paths = {name: _aligned(model, name, cepstra[name], words, lexicon) for name, words in learned.items()}
    return model, paths


def to_cepstra(features: np.ndarray) -> np.ndarray:
    """Cepstra with first and second differences [T, 39] of log mel energies [T, dim], less their mean over the utterance."""
    cepstra = dct(features, norm="ortho", axis=1)[:, :CEPSTRA]
    return add_deltas(cepstra - cepstra.mean(axis=0))


def _divided_evenly(frames: int, words: Sequence[str], lexicon: Lexicon) -> np.ndarray:
    """Every state of the first pronunciations for as many frames, silence around them."""
    silence = list(range(STATES))
    phones = [phone for word in words for phone in lexicon.words[word][0]]
    states = [STATES * lexicon.number[phone] + state for phone in phones for state in range(STATES)]
    path = np.array([*silence, *states, *silence])
    return path[np.arange(frames) * len(path) // frames].astype(np.int32)


def _trained(model: Gaussians, cepstra: np.ndarray, labels: np.ndarray, floor: np.ndarray) -> Gaussians:
    """The Gaussians of frames [frames, columns], each given to the nearest one of its class."""
    classes, mixtures, columns = model.means.shape
    owner = np.zeros(len(labels), np.intp)
    for start in range(0, len(labels), 4096):
        part = slice(start, start + 4096)
        by_component = model.by_component(cepstra[part])
        owner[part] = by_component[np.arange(len(by_component)), labels[part]].argmax(axis=1)
    index = labels.astype(np.intp) * mixtures + owner
    size = classes * mixtures
    counts = np.bincount(index, minlength=size)
    sums = [np.bincount(index, column, size) for column in cepstra.T]
    squares = [np.bincount(index, column**2, size) for column in cepstra.T]
    divisor = np.maximum(counts, 1)[:, None]
    means, squares = np.stack(sums, axis=1) / divisor, np.stack(squares, axis=1) / divisor
    variances = np.maximum(squares - means**2, floor)
    seen = counts >= _FEWEST
    shape = (classes, mixtures, columns)
    means = np.where(seen[:, None], means, model.means.reshape(-1, columns)).reshape(shape)
    variances = np.where(seen[:, None], variances, model.variances.reshape(-1, columns)).reshape(shape)
    shares = counts.reshape(classes, mixtures) / np.maximum(np.bincount(labels, minlength=classes), 1)[:, None]
    return Gaussians(means, variances, shares)


def _aligned(model: Gaussians, name: str, cepstra: np.ndarray, words: Sequence[str], lexicon: Lexicon) -> np.ndarray:
    try:
        return align_words(model.scores(cepstra), lexicon, words).pdfs
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
