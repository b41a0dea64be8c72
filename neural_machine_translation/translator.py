"""What must travel with a set of weights for them to be used rightly: the network's form and the vocabularies. No Paddle."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fluid.errors import UserError
from neural_machine_translation.indices import EOS
from neural_machine_translation.vocabulary import Vocabulary, from_facts

import numpy as np

TASK = "neural_machine_translation"
FOLDER = Path(__file__).resolve().parent
SHIPPED = "english_german_small"
"""The trained model that comes along."""


@dataclass(frozen=True)
class Transformer:
    """Sizes and form of a network."""

    src_vocab_size: int
    trg_vocab_size: int
    max_length: int = 256
    """Most words of a sentence, both special words included; the position tables have one row more."""
    d_model: int = 512
    d_inner_hid: int = 2048
    n_head: int = 8
    n_layer: int = 6
    """Layers of the encoder; of the decoder too, where `n_decoder_layer` does not say otherwise."""
    dropout: float = 0.1
    norm: Literal["pre", "post"] = "pre"
    weight_sharing: bool = True
    """One table for source words, target words and output layer."""
    n_decoder_layer: int | None = None

    def __post_init__(self) -> None:
        if self.d_model % self.n_head:
            raise UserError(f"d_model {self.d_model} is not a multiple of n_head {self.n_head}")
        if self.d_model % 2:
            raise UserError(f"d_model {self.d_model} is odd; a position is as many sines as cosines")
        if self.weight_sharing and self.src_vocab_size != self.trg_vocab_size:
            raise UserError(
                f"weight sharing needs one vocabulary, not {self.src_vocab_size} source and {self.trg_vocab_size} "
                "target words; use --weight_sharing False"
            )

    @property
    def decoder_depth(self) -> int:
        """Layers of the decoder."""
        return self.n_layer if self.n_decoder_layer is None else self.n_decoder_layer

    @property
    def d_head(self) -> int:
        """Width of one attention head."""
        return self.d_model // self.n_head


SIZES: dict[str, dict[str, Any]] = {
    "base": {"d_model": 512, "d_inner_hid": 2048, "n_head": 8, "n_layer": 6, "dropout": 0.1},
    "big": {"d_model": 1024, "d_inner_hid": 4096, "n_head": 16, "n_layer": 6, "dropout": 0.3},
    "small": {"d_model": 256, "d_inner_hid": 1024, "n_head": 4, "n_layer": 3, "dropout": 0.1},
    "tiny": {"d_model": 128, "d_inner_hid": 256, "n_head": 4, "n_layer": 2, "dropout": 0.1},
}
"""base and big are those of the paper (table 3) and of the released weights; small and tiny are for small data."""


@dataclass(frozen=True)
class Translator:
    """A network and its vocabularies: stored in checkpoints and exported models."""

    config: Transformer
    source: Vocabulary
    target: Vocabulary
    languages: tuple[str, str] = ("en", "de")
    corpora: tuple[str, ...] = ()
    """Fingerprints of the pairs that it was trained on, one set after the other; empty where nobody recorded them."""

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        shared = self.source is self.target
        return {
            "network": dataclasses.asdict(self.config),
            "source": self.source.to_facts(),
            "target": None if shared else self.target.to_facts(),
            "languages": list(self.languages),
            **({"corpora": list(self.corpora)} if self.corpora else {}),
        }

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Translator":
        """The inverse of `to_facts`; raises UserError if something is missing."""
        try:
            source = from_facts(facts["source"])
            target = source if facts["target"] is None else from_facts(facts["target"])
            network, languages = Transformer(**facts["network"]), tuple(facts["languages"])
            return Translator(network, source, target, languages, tuple(facts.get("corpora", ())))
        except (KeyError, TypeError) as error:
            raise UserError(
                f"the weights do not say how sentences are prepared for them ({error} is missing)"
            ) from error


def of_other(number: int, name: str) -> str:
    """What a parameter of the network that decides as the number-th beside the first, from 0, is called in their Program."""
    return f"other_{number}/{name}"


def pad(sentences: list[np.ndarray], length: int) -> np.ndarray:
    """Sentences of word indices as one array [N, length] int64, filled up with `<e>`."""
    padded = np.full((len(sentences), length), EOS, np.int64)
    for row, sentence in enumerate(sentences):
        padded[row, : len(sentence)] = sentence
    return padded
