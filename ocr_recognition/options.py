"""Flags that several scripts of this task have, and the spellings of 2018."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fluid.config import BatchFlags, Beam, EngineFlags, ExportedFlags, NotNegative, WeightsFlags
from fluid.errors import UserError
from ocr_recognition.recognizer import Model, Recognizer

if TYPE_CHECKING:
    from ocr_recognition.decoding import Search

Style = Literal["simple", "general"]


@dataclass
class NetworkFlags(WeightsFlags):
    """Which weights, and what those read that do not say it themselves."""

    model: Model | None = None
    """Network of --pretrained_model, where that does not say."""
    dict: Path | None = None
    """Dictionary of --pretrained_model, where that does not say: its characters, one a line; by default the 95 of ASCII."""


@dataclass
class SearchFlags:
    """What is looked for in what the network says."""

    beam_size: Beam = 1
    """Hypotheses kept; 1 is greedy."""
    allowed: str | None = None
    """Characters that may be read; by default all that the network knows."""
    lexicon: Path | None = None
    """The words that may be read, one a line, as they are written, capitals too."""
    language_model: Path | None = None
    """Words, one a line, whose sequences of characters are preferred."""
    language_weight: NotNegative = 0.5
    """language_model: how much it counts beside the picture."""

    def search(self, recognizer: Recognizer) -> "Search":
        """As `decoding` wants it; a language model gets hypotheses to choose among.

        Raises UserError for characters that the network does not know, if they leave no word of the lexicon, and for bad files.
        """
        from ocr_recognition.decoding import CharacterModel, Search, read_lexicon
        from ocr_recognition.words import read_words

        if self.allowed == "":
            raise UserError("--allowed names no character; give those that may be read, or leave the flag out")
        alphabet, known = recognizer.alphabet, "".join(recognizer.alphabet.characters)
        allowed = None if self.allowed is None else frozenset(alphabet.spelled(self.allowed))
        if unknown := "".join(sorted((allowed or set()) - set(known))):
            raise UserError(f"--allowed: the network does not know {unknown!r}; it reads {known!r}")
        lexicon = () if self.lexicon is None else read_lexicon(self.lexicon, recognizer)
        if lexicon and allowed is not None:
            lexicon = tuple(filter(allowed.issuperset, lexicon))
            if not lexicon:
                raise UserError("--allowed leaves no word of --lexicon: all have other characters")
        return Search(
            beam_size=max(self.beam_size, 8) if self.language_model is not None else self.beam_size,
            allowed=allowed,
            lexicon=lexicon,
            language=None if self.language_model is None else CharacterModel(read_words(self.language_model, alphabet)),
            language_weight=self.language_weight,
        )


@dataclass
class ReadingFlags(SearchFlags, NetworkFlags, BatchFlags, ExportedFlags, EngineFlags):
    """Which network, and how it reads: shared by eval.py and infer.py."""


ALIASES = {
    "total_step": "max_steps",
    "log_period": "log_every",
    "save_model_period": "save_every",
    "eval_period": "eval_every",
    "save_model_dir": "output_dir",
    "init_model": "pretrained_model",
    "model_path": "pretrained_model",
    "l2decay": "l2_decay",
    "momentum": "momentum_rate",
    "gradient_clip": "grad_clip",
    "lr_decay_strategy": "lr_strategy",
}
NEVER = 10**9
"""An interval that no run reaches."""
RETIRED = {
    "parallel": "all devices are used",
    "profile": "see --benchmark",
    "skip_batch_num": "see --benchmark",
    "iterations": "see --benchmark",
    "use_mkldnn": "an exported model is run with oneDNN by itself",
}


def with_never(argv: Sequence[str] | None = None) -> list[str]:
    """The words of a command line, in which `--save_model_period -1` and the like mean never, as in 2018."""
    words = list(sys.argv[1:] if argv is None else argv)
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in ("--save_model_period", "--eval_period"):
            if value == "-1":
                words[place] = f"{name}={NEVER}"
            elif words[place + 1 : place + 2] == ["-1"]:
                words[place + 1] = str(NEVER)
    return words
