"""Flags that name a model, and command lines as people wrote them in 2018."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fluid.config import BatchFlags, Beam, Count, Decay, EngineFlags, NotNegative, WeightsFlags
from neural_machine_translation.vocabulary import SPECIAL_WORDS

if TYPE_CHECKING:
    # Its module needs Paddle, and running Programs from files does not.
    from neural_machine_translation.decode import Search


@dataclass
class NetworkFlags(WeightsFlags):
    """Which weights, and the network and vocabularies of those that do not say it themselves."""

    src_vocab_fpath: Path | None = None
    """Vocabulary of the source, for --pretrained_model."""
    trg_vocab_fpath: Path | None = None
    """Vocabulary of the target; by default the source's."""
    special_token: tuple[str, str, str] = SPECIAL_WORDS
    """Begin, end and unknown word: the first three of a vocabulary."""
    languages: tuple[str, str] = ("en", "de")
    """Of source and target, for --pretrained_model."""
    n_head: Count | None = None
    """Attention heads, for --pretrained_model; by default d_model / 64."""
    n_layer: Count | None = None
    """Layers, for --pretrained_model, where a combined file holds no names; by default 6."""
    dropout: Decay | None = None
    """Dropout the weights were trained with, for --pretrained_model; by default 0.3 for big, 0.1 otherwise."""
    norm: Literal["pre", "post"] | None = None
    """Where --pretrained_model normalises: pre (released weights, 2019, and the default) or post (July 2018)."""


@dataclass
class SearchFlags:
    """How translations are searched."""

    beam_size: Beam = 5
    """Hypotheses kept at each position; 1 is greedy search."""
    max_out_len: Count = 256
    """Longest translation in words."""
    length_penalty: Literal["gnmt", "average", "none"] = "gnmt"
    """What a log-probability is divided by: gnmt, ((5 + length) / 6)**alpha; average, the length; none, as Fluid did."""
    alpha: NotNegative = 0.6
    """Exponent of gnmt."""

    def search(self) -> "Search":
        """The search that the flags describe."""
        from neural_machine_translation.decode import Search

        return Search(self.beam_size, self.length_penalty, self.alpha, self.max_out_len)

    @property
    def signature(self) -> str:
        """What figures depend on beside sacreBLEU's own, in its style."""
        power = f":{self.alpha:g}" if self.length_penalty == "gnmt" else ""
        return f"beam:{self.beam_size}|penalty:{self.length_penalty}{power}"


SEARCH = tuple(item.name for item in fields(SearchFlags))
"""Flags that a search Program is built with."""


@dataclass
class ModelFlags(NetworkFlags, SearchFlags, BatchFlags, EngineFlags):
    """Which model, and how it searches: shared by eval.py and infer.py."""

    ensemble: tuple[str, ...] = ()
    """Further runs, checkpoints or weights, with the same vocabulary, that decide about each word together with the first."""


ALIASES = {
    "pass_num": "num_epochs",
    "learning_rate": "lr",
    "model_dir": "output_dir",
    "ckpt_dir": "output_dir",
    "ckpt_path": "checkpoint",
    "save_freq": "save_every",
    "fetch_steps": "log_every",
    "model_path": "checkpoint",
    "init_from_checkpoint": "checkpoint",
    "init_from_params": "pretrained_model",
    "init_from_pretrain_model": "pretrained_model",
    "prepostprocess_dropout": "dropout",
    "test_file": "test_file_pattern",
    "predict_file": "test_file_pattern",
    "epoch": "num_epochs",
    "print_step": "log_every",
    "random_seed": "seed",
}
RETIRED = {
    "local": "several GPUs are used without it",
    "sync": "updates are synchronous",
    "update_method": "updates are synchronous",
    "use_mem_opt": "the engines plan memory themselves",
    "use_py_reader": "the readers keep a few batches ahead",
    "use_default_pe": "the engines choose how to run",
    "enable_ce": "it belonged to the original's continuous evaluation",
    "token_delimiter": "words are separated by blanks",
    "start_step": "a checkpoint knows its step",
    "d_key": "it is d_model / n_head",
    "d_value": "it is d_model / n_head",
    "attention_dropout": "see --dropout",
    "relu_dropout": "see --dropout",
    "preprocess_cmd": "see --norm",
    "postprocess_cmd": "see --norm",
}
PAIRED = {
    "pass_num", "learning_rate", "beta1", "beta2", "eps", "warmup_steps", "label_smooth_eps", "model_dir", "ckpt_dir",
    "ckpt_path", "start_step", "save_freq", "batch_size", "beam_size", "max_out_len", "n_best", "model_path", "max_length",
    "d_model", "d_inner_hid", "d_key", "d_value", "n_head", "n_layer", "prepostprocess_dropout", "attention_dropout",
    "relu_dropout", "preprocess_cmd", "postprocess_cmd", "weight_sharing",
}  # fmt: skip
"""Settings that 2018 took as bare pairs after the flags: `train.py --device GPU n_head 16 d_model 1024`."""


def with_pairs(argv: list[str] | None = None) -> list[str]:
    """The command line with such pairs turned into flags, and `--device GPU` into lower case."""
    words = list(sys.argv[1:] if argv is None else argv)
    first = next(
        (
            place
            for place, word in enumerate(words)
            if word in PAIRED and (len(words) - place) % 2 == 0 and all(name in PAIRED for name in words[place::2])
        ),
        len(words),
    )
    # A flag's own value can look like a setting's name only right after the flag.
    if 0 < first < len(words) and words[first - 1].startswith("--") and "=" not in words[first - 1]:
        first = len(words)
    pairs = [word if place % 2 else f"--{word}" for place, word in enumerate(words[first:])]
    kept = [
        word.lower() if place and words[place - 1] == "--device" else word for place, word in enumerate(words[:first])
    ]
    return kept + pairs
