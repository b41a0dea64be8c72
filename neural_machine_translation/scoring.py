"""Opening a model by flags, and forced decoding: what a network thinks of a given translation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fluid.engine import Engine
from fluid.errors import UserError
from fluid.program import Program
from neural_machine_translation import pictures
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.network import SHIPPED, Translator, load_translator, load_weights, pad
from neural_machine_translation.translate import Hypothesis
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList, read_vocabulary

import numpy as np


def open_model(flags: Any) -> tuple[Translator, dict[str, np.ndarray], str]:
    """The translator that flags name, its parameters, and a line for people saying which it is.

    `flags` has `checkpoint`, `pretrained_model`, `src_vocab_fpath`, `trg_vocab_fpath`, `special_token`, `languages`,
    `n_head`, `dropout` and `norm`; all may be absent or None. Without any, it is the shipped model. Raises UserError.
    """
    option = lambda name, default=None: getattr(flags, name, None) or default  # noqa: E731
    path = option("checkpoint")
    spec = option("pretrained_model")
    if spec is not None and (Path(spec) / "checkpoint.json").is_file():
        path = Path(spec)
    if path is None and spec is None:
        path = SHIPPED
    if path is not None:
        translator, state = load_translator(path)
        return translator, state, str(path)
    config, state, report = load_weights(
        spec,
        allow_partial=option("allow_partial", False),
        n_head=option("n_head"),
        n_layer=option("n_layer"),
        dropout=getattr(flags, "dropout", None),
        norm=option("norm"),
    )
    languages = option("languages", ("en", "de"))
    paths = [option("src_vocab_fpath"), option("trg_vocab_fpath")]
    special = option("special_token", SPECIAL_WORDS)
    if not any(paths):
        # Enough to run on word indices; text needs the real one.
        size = max(config.src_vocab_size, config.trg_vocab_size)
        nameless = WordList(tuple([*SPECIAL_WORDS, *(f"word{number}" for number in range(3, size))]))
        return Translator(config, nameless, nameless, languages), state, f"{spec} (no vocabulary)\n{report}"
    source = read_vocabulary(paths[0] or paths[1], special, languages[1])
    target = source if paths[0] == paths[1] or not all(paths) else read_vocabulary(paths[1], special, languages[1])
    for vocabulary, size, side in ((source, config.src_vocab_size, "src"), (target, config.trg_vocab_size, "trg")):
        if vocabulary.size != size:
            raise UserError(
                f"the weights {spec} have {size} words, --{side}_vocab_fpath has {vocabulary.size}; "
                "give the vocabulary they were trained with"
            )
    return Translator(config, source, target, languages), state, f"{spec}\n{report}"


def has_text(translator: Translator) -> bool:
    """Whether there is a real vocabulary, so that text can be translated."""
    source = translator.source
    return not (isinstance(source, WordList) and source.size > 3 and source.words[3] == "word3")


def forced_scores(
    engine: Engine,
    evaluation: Program,
    translator: Translator,
    sentences: Sequence[str],
    translations: Sequence[Sequence[int]],
) -> np.ndarray:
    """Log-probability, [N], of given translations (word indices without `<e>`), `<e>` included."""
    source = [np.concatenate([[BOS], words, [EOS]]) for words in translator.source.encode_all(sentences)]
    begun = [np.asarray([BOS, *words]) for words in translations]
    ended = [np.asarray([*words, EOS]) for words in translations]
    feed = {
        "src_word": pad(source, max(map(len, source))),
        "trg_word": pad(begun, max(map(len, begun))),
        "lbl_word": pad(ended, max(map(len, ended))),
    }
    return -np.asarray(engine.run(evaluation, feed)["nll"])


def cross_attention(
    engine: Engine, scoring: Program, translator: Translator, sentence: str, words: Sequence[int]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Attention of the last decoder layer to the source, mean over heads, while writing `words` and `<e>`.

    Returns weights [len(words) + 1, S] and the words of both sides.
    """
    source = np.concatenate([[BOS], translator.source.encode(sentence), [EOS]])
    layer = f"decoder_{translator.config.n_layer - 1}_cross_attention"
    feed: Mapping[str, np.ndarray] = {
        "src_word": source[None].astype(np.int64),
        "trg_word": np.asarray([[BOS, *words]], np.int64),
    }
    weights = np.asarray(engine.run(scoring, feed, fetch=[layer])[layer])[0].mean(axis=0)
    return (
        weights,
        [translator.source.word(index) for index in source],
        [translator.target.word(index) for index in [*words, EOS]],
    )


def draw_attentions(
    folder: Path,
    engine: Engine,
    scoring: Program,
    translator: Translator,
    sentences: Sequence[str],
    hypotheses: Sequence[Hypothesis],
) -> list[Path]:
    """A heat-map FOLDER/attention_N.png for each translation."""
    drawn = []
    for number, (sentence, hypothesis) in enumerate(zip(sentences, hypotheses, strict=True), 1):
        weights, source, target = cross_attention(engine, scoring, translator, sentence, hypothesis.words)
        drawn.append(pictures.draw_attention(folder / f"attention_{number}.png", weights, source, target))
    return drawn
