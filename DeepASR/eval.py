"""Measure a speech recogniser: errors in characters or words over every utterance, with what they are.

python eval.py                                         the best weights there are, on the commands that come along
python eval.py --split dev --sweep 0.05 0.1 0.2 0.4    which acoustic scale makes the fewest errors
python eval.py --data_dir aishell --graphs HCLG.fst --vocabulary words.txt --trans_model final.mdl
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import Part, open_corpus
from DeepASR.decoding.decoder import Decoder
from DeepASR.decoding.processes import decode_all
from DeepASR.decoding.search import open_decoder, refuse_idle
from DeepASR.metrics import ErrorRates, Unit, error_rates, frame_result
from DeepASR.opening import open_recogniser
from DeepASR.options import ALIASES, RETIRED_IN_USE, SearchFlags
from DeepASR.posteriors import Network
from DeepASR.report import print_rates
from fluid import config as configuration
from fluid.config import Natural, Positive, ResultFlags, Was, defaults
from fluid.errors import DataError
from fluid.records import say_measured, write_result
from fluid.run import console, script
from fluid.signals import leave_if_stopped
from fluid.text import number_of

import numpy as np


@dataclass
@defaults(test_batch_size=16)
class Flags(ResultFlags, SearchFlags):
    """Measure a speech recogniser."""

    data_dir: Path | None = None
    """Folder that prepare_*.py wrote; by default the spoken commands that come along."""
    split: Annotated[Literal["test", "dev", "train"], Was("part")] = "test"
    """Which part of the data."""
    speakers: tuple[str, ...] = ()
    """Whose utterances; by default everybody's."""
    error_rate_type: Unit | None = None
    """Errors in characters or in words; by default what the recogniser is measured by."""
    special_tokens: str = "<SPOKEN_NOISE>"
    """Words, with blanks between them, that count on neither side."""
    sweep: tuple[Positive, ...] = ()
    """Acoustic scales to try on this part, which should be dev; the result is that of the best."""
    worst: Natural = 5
    """Utterances with most errors to show."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print and return the figures."""
    began = time.perf_counter()
    opened = open_recogniser(flags)
    recogniser = opened.facts
    corpus = open_corpus(flags.data_dir)
    part = corpus.part(flags.split)
    part = part.of(flags.speakers) if flags.speakers else part
    if not any(part.texts.values()):
        raise DataError(f"{part.folder}/text: all texts are empty, as those of the lists of 2018 are")
    network = Network(opened, flags, rows=flags.test_batch_size, runs=len(part))
    refuse_idle(flags)
    if recogniser.lexicon is None and flags.graphs is None and corpus.graph is not None:
        flags = replace(flags, graphs=corpus.graph, vocabulary=corpus.folder / "words.txt")
    decoder = open_decoder(recogniser, flags)
    console.print(f"{network.how}; {number_of(len(part), 'utterance')} of {part.folder}")
    posteriors = {}
    for name, posterior in network.posteriors(part.items(), part.speakers):
        leave_if_stopped(network.engine)
        posteriors[name] = posterior
    unit = flags.error_rate_type or recogniser.unit
    result = {}
    if part.alignments and recogniser.tells_apart(corpus):
        result = frame_result(posteriors, part.alignments)
    elif part.alignments:
        console.print("frames are not compared: the labels are of other classes than the network's")
    measure = partial(decoded, decoder, posteriors, part, unit, flags.special_tokens.split(), flags.num_decoders)
    if flags.sweep:
        rates, incomplete = sweep(flags.sweep, decoder, measure, unit)
        result["acoustic_scale"] = decoder.acoustic_scale
    else:
        rates, incomplete = measure()
    result[unit] = 100 * rates.total.rate
    print_rates(rates, unit, part, flags.worst)
    if "loss" in result:
        console.print(f"frame accuracy {result['frame_accuracy']:.2f} %, cross-entropy {result['loss']:.4f}")
    if incomplete:
        console.print(f"ended where the graph does not: {number_of(incomplete, 'utterance')}")
    seconds = say_measured(len(part), "utterance", began)
    if flags.output_dir is not None:
        low, high = rates.interval()
        found = {**result, "interval": [100 * low, 100 * high]}
        weights, data = opened.source, str(part.folder)
        write_result(flags.output_dir, found, weights=weights, data=data, samples=len(part), seconds=seconds)
    return result


def decoded(
    decoder: Decoder,
    posteriors: Mapping[str, np.ndarray],
    part: Part,
    unit: Unit,
    ignored: list[str],
    processes: int,
) -> tuple[ErrorRates, int]:
    """Errors, and how many utterances ended where the graph does not."""
    heard = dict(decode_all(decoder, posteriors.items(), processes))
    texts = {name: hypothesis.text for name, hypothesis in heard.items()}
    rates = error_rates(part.texts, texts, unit=unit, ignored=ignored)
    return rates, sum(not hypothesis.complete for hypothesis in heard.values())


def sweep(
    scales: Sequence[float], decoder: Decoder, measure: Callable[[], tuple[ErrorRates, int]], unit: Unit
) -> tuple[ErrorRates, int]:
    """What `measure` finds at the scale with the fewest errors, which the decoder is left with."""
    found = {}
    for scale in scales:
        decoder.acoustic_scale = scale
        found[scale] = measure()
        console.print(f"acoustic scale {scale:g}: {unit} {100 * found[scale][0].total.rate:.2f} %")
    decoder.acoustic_scale = best = min(found, key=lambda scale: found[scale][0].total.errors)
    console.print(f"fewest errors with --acoustic_scale {best:g}")
    return found[best]


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED_IN_USE)))
