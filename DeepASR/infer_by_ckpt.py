"""Recognise features by a checkpoint, with a graph of Kaldi's, as in 2018; infer.py takes recordings, too.

    python infer_by_ckpt.py --checkpoint output --infer_feature_lst test.lst --graphs HCLG.fst --vocabulary words.txt \\
        --trans_model final.mdl --log_prior logprior --acoustic_scale 0.059 --beam_size 11 --decode_to_path heard.txt
    python infer_by_ckpt.py --infer_feature_lst feats.scp --post_matrix_path posteriors.ark

Writes a line `UTTERANCE WORD WORD ...` for each, and on request the logarithms of posteriors as an archive for Kaldi's tools.
"""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.decoding.processes import decode_all
from DeepASR.decoding.search import open_decoder
from DeepASR.kaldi.tables import ArchiveWriter
from DeepASR.legacy import Reader, read_features
from DeepASR.opening import open_recogniser
from DeepASR.options import ALIASES, RETIRED_IN_USE, SearchFlags, with_small_devices
from DeepASR.posteriors import Named, Network
from fluid import config as configuration
from fluid.config import defaults
from fluid.errors import UserError
from fluid.records import make_folder, writing
from fluid.run import console, script
from fluid.text import number_of

import numpy as np


@dataclass
@defaults(beam_size=11.0, acoustic_scale=0.2, num_decoders=10)
class Flags(SearchFlags):
    """Recognise features by a checkpoint, with a graph of Kaldi's."""

    infer_feature_lst: Path | None = None
    """List of 2018 (.lst), Kaldi's feats.scp or an archive."""
    reader: Reader = "own"
    """What reads Kaldi's files; kaldi_io, the package kaldi-io, runs the commands in them."""
    decode_to_path: Path | None = None
    """File for the words, a line for each utterance."""
    post_matrix_path: Path | None = None
    """Archive for logarithms of posteriors, which Kaldi's latgen-faster-mapped takes."""


HERE = {name: now for name, now in ALIASES.items() if name != "infer_feature_lst"}
"""Flags of 2018 that this script has by another name."""


def main(flags: Flags) -> dict[str, str]:
    """Recognise and write; returns the words by utterance."""
    if flags.infer_feature_lst is None or (flags.decode_to_path is None and flags.post_matrix_path is None):
        raise UserError("--infer_feature_lst and --decode_to_path or --post_matrix_path are needed: what in, what out")
    opened = open_recogniser(flags)
    network = Network(opened, flags, rows=flags.test_batch_size, runs=None)
    console.print(network.how)
    posteriors = network.posteriors(read_features(flags.infer_feature_lst, flags.reader))
    heard: dict[str, str] = {}
    with ExitStack() as stack:
        if flags.post_matrix_path is not None:
            archive = stack.enter_context(ArchiveWriter(flags.post_matrix_path))
            posteriors = recorded(posteriors, archive)
        if flags.decode_to_path is None:
            for _ in posteriors:
                pass
            return heard
        for name, hypothesis in decode_all(open_decoder(opened.facts, flags), posteriors, flags.num_decoders):
            heard[name] = hypothesis.text
    make_folder(flags.decode_to_path.absolute().parent)
    with writing(flags.decode_to_path):
        lines = "".join(f"{name} {text}\n" for name, text in heard.items())
        flags.decode_to_path.write_text(lines, encoding="utf-8")
    console.print(f"{number_of(len(heard), 'utterance')} written to {flags.decode_to_path}")
    return heard


def recorded(posteriors: Iterator[Named], archive: ArchiveWriter) -> Iterator[Named]:
    """The same, written to the archive on the way."""
    for name, posterior in posteriors:
        archive.write(name, np.log(np.maximum(posterior, np.finfo(np.float32).tiny)).astype(np.float32))
        yield name, posterior


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_small_devices(), aliases=HERE, retired=RETIRED_IN_USE)))
