"""Flags that several scripts share, and command lines as people wrote them in 2018."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fluid.config import BatchFlags, Count, EngineFlags, ExportedFlags, Natural, Positive, Was, WeightsFlags, Workers


@dataclass
class NetworkFlags(WeightsFlags):
    """Which weights, and what those lack that do not say it themselves."""

    mean_var: Path | None = None
    """Mean and variance of each column, a line each, as in 2018; with weights that do not say it."""
    log_prior: Path | None = None
    """Logarithms of the share of each class, in brackets, as in 2018; with weights that do not say it."""


@dataclass
class SearchFlags(NetworkFlags, ExportedFlags, BatchFlags, EngineFlags):
    """How words are searched for: shared by eval.py and infer.py."""

    graphs: Path | None = None
    """Decoding graph of Kaldi (HCLG.fst) instead of the recogniser's own words; with --vocabulary."""
    vocabulary: Path | None = None
    """Words of that graph: Kaldi's words.txt."""
    trans_model: Path | None = None
    """Kaldi's final.mdl, where the graph has transition ids."""
    acoustic_scale: Positive | None = None
    """Weight of the network against the language model; by default the recogniser's own."""
    beam_size: Annotated[Positive, Was("beam")] = 16.0
    """Paths that cost more than the best by more than this are given up."""
    max_active: Count = 7000
    """States of the graph that are kept at a time, at most."""
    min_active: Natural = 200
    """States of the graph that are kept at a time, at least."""
    num_decoders: Annotated[Workers, Was("num_threads")] = 0
    """Processes that decode; 0: this one."""
    grammar: Path | None = None
    """What may be said instead, as DeepASR/decoding/grammar.py explains: lines of words with (a | b), [perhaps] and +."""
    unknown_words: bool = False
    """With --grammar: what fits none of its lines is heard as [unk]."""
    lexicon: Path | None = None
    """Words and their phones, a line each, beside the recogniser's own."""
    g2p: str | None = None
    """Command that pronounces words which no lexicon has: it reads words, one a line, and writes lines WORD PHONE PHONE ..."""
    language_model: Path | None = None
    """ARPA file instead of the recogniser's own."""
    larger_model: Path | None = None
    """ARPA file that chooses among the alternatives which the search finds by the other one."""


_BY_WEIGHTS = "the weights tell their sizes"
ALIASES = {
    "learning_rate": "lr",
    "checkpoints": "output_dir",
    "init_model_path": "pretrained_model",
    "infer_model_path": "exported_model",
    "infer_feature_lst": "features",
    "print_per_batches": "log_every",
}
"""Flags of 2018 by their names of today, beside those that fields declare."""
RETIRED = {
    "parallel": "all devices that JAX sees are used",
    "minimum_batch_size": "batches are full",
    "infer_label_lst": "labels are not needed to recognise",
}
RETIRED_IN_TRAINING = {
    **RETIRED,
    "frame_dim": "the data tell how many features a frame has",
    "infer_models": "export.py writes what is for use",
}
RETIRED_IN_USE = {
    **RETIRED,
    **dict.fromkeys(("frame_dim", "stacked_num", "hidden_dim", "proj_dim", "class_num"), _BY_WEIGHTS),
}


def with_small_devices(argv: Sequence[str] | None = None) -> list[str]:
    """The words of a command line, with the GPU and CPU of 2018's --device in small letters."""
    words = list(sys.argv[1:] if argv is None else argv)
    for place, word in enumerate(words):
        if word.startswith("--device=") or place and words[place - 1] == "--device":
            words[place] = word.lower()
    return words
