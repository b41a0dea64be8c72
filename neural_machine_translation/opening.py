"""Opening a translator by flags. Needs Paddle only to fit weights that do not say which network they are for."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fluid import config as configuration
from fluid import weights
from fluid.errors import UserError
from fluid.weights import Bare, Opened, Report
from neural_machine_translation.options import ModelFlags, NetworkFlags
from neural_machine_translation.translator import FOLDER, SHIPPED, Transformer, Translator, of_other
from neural_machine_translation.vocabulary import SPECIAL_WORDS, Vocabulary, WordList, read_vocabulary

import numpy as np


def open_translator(flags: NetworkFlags, say: Callable[[str], None] | None = None) -> Opened[Translator]:
    """The translator that flags name, ready to be used; raises UserError for what cannot be."""
    opened = weights.open(
        FOLDER,
        flags,
        default=SHIPPED,
        key="translator",
        from_facts=Translator.from_facts,
        fit=partial(fit_translator, flags=flags),
        free=("corpora",),
        say=say,
    )
    refuse_other(opened, flags)
    return opened


def refuse_other(opened: Opened[Translator], flags: NetworkFlags) -> None:
    """Raise UserError for flags of another network or vocabulary than those of weights that say their own."""
    if opened.report is not None:
        return
    translator, config, named = opened.facts, opened.facts.config, configuration.named(flags)
    own = {"n_head": config.n_head, "n_layer": config.n_layer, "norm": config.norm, "languages": translator.languages}
    other = [f"--{name}" for name, value in own.items() if name in named and getattr(flags, name) != value]
    files = {"--src_vocab_fpath": flags.src_vocab_fpath, "--trg_vocab_fpath": flags.trg_vocab_fpath}
    read = read_vocabularies(flags.src_vocab_fpath, flags.trg_vocab_fpath, flags.special_token, translator.languages[1])
    if read is not None and read != (translator.source, translator.target):
        other += [name for name, file in files.items() if file is not None]
    if other:
        raise UserError(f"{opened.source} has its own network and vocabulary; leave out {', '.join(other)}")


def open_together(
    flags: ModelFlags, say: Callable[[str], None] | None = None
) -> tuple[Opened[Translator], list[Transformer]]:
    """The translator that flags name, and the networks of `--ensemble`, whose weights join its own under `of_other`.

    Raises UserError if they have other words than the first, or if it is an exported model or comes with its Programs.
    """
    opened = open_translator(flags, say)
    if not flags.ensemble:
        return opened, []
    if opened.exported is not None or opened.captured is not None:
        raise UserError("--ensemble needs checkpoints or weights; exported models and --programs search by themselves")
    others, state, first = [], dict(opened.state), opened.facts
    for number, name in enumerate(flags.ensemble):
        other = open_translator(dataclasses.replace(flags, checkpoint=None, pretrained_model=name, ensemble=()), say)
        if (other.facts.source, other.facts.target) != (first.source, first.target):
            raise UserError(
                f"--ensemble {name}: has another vocabulary than {opened.source}, or does not say which, as `./zoo weights convert` "
                "writes it: name a run, a checkpoint, or what `./zoo weights compact` made of one"
            )
        others.append(other.facts.config)
        state |= {of_other(number, own): array for own, array in other.state.items()}
    return dataclasses.replace(opened, state=state), others


def fit_translator(bare: Bare, flags: NetworkFlags) -> tuple[Translator, dict[str, np.ndarray], Report]:
    """Weights that do not say which network and vocabularies they are for: arrays and flags do.

    Without a vocabulary the words are nameless (`has_text`). Raises UserError if a vocabulary has another size.
    """
    from neural_machine_translation.network import load_weights

    config, state, report = load_weights(
        bare,
        allow_partial=flags.allow_partial,
        n_head=flags.n_head,
        n_layer=flags.n_layer,
        dropout=flags.dropout,
        norm=flags.norm,
    )
    vocabularies = read_vocabularies(
        flags.src_vocab_fpath, flags.trg_vocab_fpath, flags.special_token, flags.languages[1]
    )
    if vocabularies is None:
        # Enough to run on word indices; text needs the real one.
        size = max(config.src_vocab_size, config.trg_vocab_size)
        nameless = WordList(tuple([*SPECIAL_WORDS, *(f"word{number}" for number in range(3, size))]))
        return Translator(config, nameless, nameless, flags.languages), state, report
    source, target = vocabularies
    for vocabulary, size, side in ((source, config.src_vocab_size, "src"), (target, config.trg_vocab_size, "trg")):
        if vocabulary.size != size:
            raise UserError(
                f"the weights {bare.spec} have {size} words, --{side}_vocab_fpath has {vocabulary.size}; "
                "give the vocabulary they were trained with"
            )
    return Translator(config, source, target, flags.languages), state, report


def read_vocabularies(
    source: Path | None, target: Path | None, special: Sequence[str], language: str
) -> tuple[Vocabulary, Vocabulary] | None:
    """Vocabularies of source and target, of which one file may be both; None without a file. See `read_vocabulary`."""
    first, second = source or target, target or source
    if first is None or second is None:
        return None
    vocabulary = read_vocabulary(first, special, language)
    return vocabulary, vocabulary if second == first else read_vocabulary(second, special, language)


def refuse_nameless(opened: Opened[Translator]) -> None:
    """Raise UserError if there is no real vocabulary, so that no text can be translated."""
    if has_text(opened.facts):
        return
    if opened.exported is not None:
        raise UserError(f"{opened.source} has no vocabulary; export it again with --src_vocab_fpath, --trg_vocab_fpath")
    raise UserError("give the vocabulary of these weights: --src_vocab_fpath, --trg_vocab_fpath")


def has_text(translator: Translator) -> bool:
    """Whether there is a real vocabulary, so that text can be translated."""
    source = translator.source
    return not (isinstance(source, WordList) and source.size > 3 and source.words[3] == "word3")
