"""Align a data set anew by a trained network: its labels are better than those of a flat start, and so is what learns from them.

./zoo train DeepASR --data_dir prepared --output_dir first
./zoo realign DeepASR --data_dir prepared --checkpoint first --output_dir realigned
./zoo train DeepASR --data_dir realigned --output_dir second
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import Part, PartData, open_corpus, write_corpus
from DeepASR.decoding.lexicon import Lexicon
from DeepASR.forced_alignment import align_words
from DeepASR.opening import open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.posteriors import Network
from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, Was, defaults
from fluid.errors import DataError, UserError
from fluid.records import refuse_existing
from fluid.run import console, script

import numpy as np


@dataclass
@defaults(test_batch_size=16)
class Flags(NetworkFlags, BatchFlags, EngineFlags):
    """Align a data set anew by a trained network."""

    data_dir: Path | None = None
    """Folder that prepare_wav.py, prepare_digits.py or prepare_synth.py wrote; by default the spoken commands."""
    output_dir: Annotated[Path, Was("new_data_dir")] = Path("realigned")
    """Folder to write, with the same features and texts."""


def main(flags: Flags) -> dict[str, float]:
    """Align and write; returns the share of frames of each part whose label stayed, in per cent."""
    refuse_existing(flags.output_dir)
    opened = open_recogniser(flags)
    corpus = open_corpus(flags.data_dir)
    if corpus.lexicon is None:
        raise UserError(f"{corpus.folder}: has no lexicon to align by; Kaldi aligns its own data")
    opened.facts.refuse_other_classes(corpus)
    parts = {name: corpus.part(name) for name in ("train", "dev", "test")}
    network = Network(opened, flags, rows=flags.test_batch_size, runs=None)
    prior = np.array(opened.facts.log_prior)
    data, stayed = {}, {}
    for name, part in parts.items():
        paths = align_part(network, part, corpus.lexicon, prior) if part.alignments else {}
        data[name] = PartData({key: part[key] for key in part}, part.texts, part.speakers, paths)
        if paths:
            same = sum(int(np.sum(paths[key] == part.alignments[key])) for key in paths)
            stayed[name] = 100 * same / sum(part.lengths.values())
            console.print(f"{name}: {stayed[name]:.1f} % of the labels stayed")
    write_corpus(replace(corpus, folder=flags.output_dir), data)
    console.print(f"written to {flags.output_dir}")
    return stayed


def align_part(network: Network, part: Part, lexicon: Lexicon, prior: np.ndarray) -> dict[str, np.ndarray]:
    """Class of each frame, by utterance. Raises DataError, with the utterance, as `align_words`."""
    paths = {}
    for name, posterior in network.posteriors(part.items(), part.speakers):
        try:
            scores = np.log(np.maximum(posterior, 1e-10)) - prior
            paths[name] = align_words(scores, lexicon, part.texts[name].split()).pdfs
        except DataError as error:
            raise DataError(f"{part.folder}: {name}: {error}") from None
    return paths


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
