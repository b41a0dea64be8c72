"""Opening a model by flags, and forced decoding: what a network thinks of a given translation."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from fluid import weights
from fluid.engine import Engine
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.weights import Bare, Opened, Report
from neural_machine_translation import pictures
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.options import ModelFlags, NetworkFlags
from neural_machine_translation.reader import used_buckets
from neural_machine_translation.translate import Hypothesis
from neural_machine_translation.translator import FOLDER, SHIPPED, Transformer, Translator, of_other, pad
from neural_machine_translation.vocabulary import SPECIAL_WORDS, Vocabulary, WordList, read_vocabulary

import numpy as np


def open_model(flags: NetworkFlags, say: Callable[[str], None] | None = None) -> Opened[Translator]:
    """The translator that flags name, ready to be used; raises UserError for what cannot be."""
    read, fit = Translator.from_facts, partial(fit_translator, flags=flags)
    options = {"key": "translator", "from_facts": read, "fit": fit, "free": ("corpora",), "say": say}
    return weights.open(FOLDER, flags, default=SHIPPED, **options)


def open_together(
    flags: ModelFlags, say: Callable[[str], None] | None = None
) -> tuple[Opened[Translator], list[Transformer]]:
    """The translator that flags name, and the networks of `--ensemble`, whose weights join its own under `of_other`.

    Raises UserError if they have other words than the first, or if it is an exported model or comes with its Programs.
    """
    opened = open_model(flags, say)
    if not flags.ensemble:
        return opened, []
    if opened.exported is not None or opened.captured is not None:
        raise UserError("--ensemble needs checkpoints or weights; exported models and --programs search by themselves")
    others, state, first = [], dict(opened.state), opened.facts
    for number, name in enumerate(flags.ensemble):
        other = open_model(dataclasses.replace(flags, checkpoint=None, pretrained_model=name, ensemble=()), say)
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
    source_path, target_path = (flags.src_vocab_fpath or flags.trg_vocab_fpath), flags.trg_vocab_fpath
    if source_path is None:
        # Enough to run on word indices; text needs the real one.
        size = max(config.src_vocab_size, config.trg_vocab_size)
        nameless = WordList(tuple([*SPECIAL_WORDS, *(f"word{number}" for number in range(3, size))]))
        return Translator(config, nameless, nameless, flags.languages), state, report
    source = read_vocabulary(source_path, flags.special_token, flags.languages[1])
    target = source
    if target_path not in (None, source_path):
        target = read_vocabulary(target_path, flags.special_token, flags.languages[1])
    for vocabulary, size, side in ((source, config.src_vocab_size, "src"), (target, config.trg_vocab_size, "trg")):
        if vocabulary.size != size:
            raise UserError(
                f"the weights {bare.spec} have {size} words, --{side}_vocab_fpath has {vocabulary.size}; "
                "give the vocabulary they were trained with"
            )
    return Translator(config, source, target, flags.languages), state, report


def has_text(translator: Translator) -> bool:
    """Whether there is a real vocabulary, so that text can be translated."""
    source = translator.source
    return not (isinstance(source, WordList) and source.size > 3 and source.words[3] == "word3")


def forced_scores(
    engine: Engine,
    evaluation: Interface,
    translator: Translator,
    sentences: Sequence[str],
    translations: Sequence[Sequence[int]],
) -> np.ndarray:
    """Log-probability, [N], of given translations (word indices without `<e>`), `<e>` included."""
    encoded = list(zip(translator.source.encode_all(sentences), map(np.asarray, translations), strict=True))
    longest = max(len(words) for pair in encoded for words in pair)
    feed = feed_of(encoded, longest + 2)
    return -np.asarray(engine.run(evaluation, feed)["nll"])


def feed_of(pairs: Sequence[Sequence[np.ndarray]], length: int) -> dict[str, np.ndarray]:
    """Pairs of word indices, without special words, as a feed of forced decoding, padded to `length`."""
    return {
        "src_word": pad([np.concatenate([[BOS], source, [EOS]]) for source, _ in pairs], length),
        "trg_word": pad([np.concatenate([[BOS], target]) for _, target in pairs], length),
        "lbl_word": pad([np.concatenate([target, [EOS]]) for _, target in pairs], length),
    }


def word_numbers(vocabulary: Vocabulary, indices: np.ndarray) -> np.ndarray:
    """The number of the text's word, from 0, that each word of the vocabulary is a part of, [len(indices)]."""
    begins = np.array([vocabulary.begins_word(index) for index in indices], bool)
    return np.maximum(np.cumsum(begins) - 1, 0)


def cross_attention(
    engine: Engine, scoring: Interface, translator: Translator, sentence: str, words: Sequence[int]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Attention of the last decoder layer to the source, mean over heads, while writing `words` and `<e>`.

    Returns weights [len(words) + 1, S] and the words of both sides.
    """
    # As much of it as was translated.
    kept = translator.source.encode(sentence)[: translator.config.max_length - 2]
    source = np.concatenate([[BOS], kept, [EOS]])
    layer = f"decoder_{translator.config.decoder_depth - 1}_cross_attention"
    lengths = used_buckets(translator.config.max_length)
    longest = max(len(source), len(words) + 1)
    # A translation that was cut off has a word more than the last of the lengths.
    room = next((edge for edge in lengths if edge >= longest), longest)
    feed = {"src_word": pad([source], room), "trg_word": pad([np.asarray([BOS, *words])], room)}
    found = np.asarray(engine.run(scoring, feed, fetch=[layer])[layer])[0].mean(axis=0)
    weights = found[: len(words) + 1, : len(source)]
    return (
        weights,
        [translator.source.word(index) for index in source],
        [translator.target.word(index) for index in [*words, EOS]],
    )


def draw_attentions(
    folder: Path,
    engine: Engine,
    scoring: Interface,
    translator: Translator,
    sentences: Sequence[str],
    hypotheses: Sequence[Hypothesis],
    after: int = 0,
) -> list[Path]:
    """A heat-map FOLDER/attention_N.png for each translation, the first of them `after` + 1."""
    drawn = []
    for number, (sentence, hypothesis) in enumerate(zip(sentences, hypotheses, strict=True), after + 1):
        weights, source, target = cross_attention(engine, scoring, translator, sentence, hypothesis.words)
        drawn.append(pictures.draw_attention(folder / f"attention_{number}.png", weights, source, target))
    return drawn
