"""The decoder of 2018 by its name and its methods: `import decoder.post_latgen_faster_mapped` was what scripts wrote.

    from DeepASR.post_latgen_faster_mapped import Decoder
    decoder = Decoder("final.mdl", "words.txt", "HCLG.fst", "logprior", beam_size=11, acoustic_scale=0.059)
    decoder.decode(posterior)                              words with blanks between them
    decoder.decode_batch(posteriors, num_processes=10)
    decoder.decode_from_file("ark:posteriors.ark", 10)

`DeepASR.decoding.decoder` is the decoder itself, with words, paths and alternatives.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from DeepASR.decoding import decoder
from DeepASR.decoding.processes import decode_all
from DeepASR.decoding.search import kaldi_graph
from DeepASR.kaldi.tables import read_archive, read_script
from DeepASR.opening import read_log_prior
from fluid.errors import DataError

import numpy as np

Name = str | os.PathLike[str]


class Decoder:
    """Searches a graph of Kaldi's.

    Args:
        trans_model: final.mdl.
        vocabulary: words.txt.
        graphs: HCLG.fst.
        log_prior: text file of the logarithms of the classes' shares.
        beam_size: paths that cost more than the best by more than this are given up.
        acoustic_scale: factor of the log-likelihoods.

    Raises DataError for files that cannot be read or do not fit each other.
    """

    def __init__(
        self,
        trans_model: Name,
        vocabulary: Name,
        graphs: Name,
        log_prior: Name,
        beam_size: float = 11.0,
        acoustic_scale: float = 0.2,
    ) -> None:
        graph, words = kaldi_graph(Path(graphs), Path(vocabulary), Path(trans_model))
        prior = read_log_prior(Path(log_prior))
        self._decoder = decoder.Decoder(graph, words, prior, beam=float(beam_size), acoustic_scale=acoustic_scale)

    def decode(self, posterior: np.ndarray) -> str:
        """The words of an utterance, from posteriors [T, classes] or their logarithms. Raises DataError for other numbers."""
        return self._decoder.decode(as_posterior(posterior)).text

    def decode_batch(self, posteriors: Sequence[np.ndarray], num_processes: int = 1) -> list[str]:
        """Of several utterances, by so many processes."""
        named = ((str(number), as_posterior(posterior)) for number, posterior in enumerate(posteriors))
        return [heard.text for _, heard in decode_all(self._decoder, named, num_processes)]

    def decode_from_file(self, posterior_rspecifier: Name, num_processes: int = 1) -> list[str]:
        """Lines `UTTERANCE WORD WORD ...` of a file of posteriors: "ark:FILE", "scp:FILE", or the name of either."""
        named = ((name, as_posterior(posterior, name)) for name, posterior in _read(os.fspath(posterior_rspecifier)))
        return [f"{name} {heard.text}" for name, heard in decode_all(self._decoder, named, num_processes)]


def as_posterior(numbers: np.ndarray, name: str = "utterance") -> np.ndarray:
    """Posteriors [T, classes] of themselves or of their logarithms. Raises DataError where rows are neither."""
    numbers = np.asarray(numbers, np.float32)
    if numbers.ndim != 2:
        raise DataError(f"{name}: {list(numbers.shape)} numbers where posteriors [frames, classes] are expected")
    posterior = np.exp(numbers) if len(numbers) and numbers.max() <= 0 else numbers
    if not np.allclose(posterior.sum(axis=1), 1, atol=1e-2):
        raise DataError(f"{name}: its rows are neither probabilities that sum to 1 nor the logarithms of such")
    return posterior


def _read(specifier: str) -> Iterator[tuple[str, np.ndarray]]:
    kind, colon, path = specifier.partition(":")
    if not colon or kind not in ("ark", "scp"):
        kind, path = ("scp" if specifier.endswith(".scp") else "ark"), specifier
    if kind == "scp":
        yield from ((name, entry.read()) for name, entry in read_script(path).items())
    else:
        yield from read_archive(path)
