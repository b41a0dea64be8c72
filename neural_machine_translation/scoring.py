"""Forced decoding: what a network thinks of a given translation, and where it looks."""

from collections.abc import Sequence
from pathlib import Path

from fluid.engine import Engine
from fluid.interface import Interface
from neural_machine_translation import pictures
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.reader import used_buckets
from neural_machine_translation.translate import Hypothesis
from neural_machine_translation.translator import Translator, pad
from neural_machine_translation.vocabulary import Vocabulary

import numpy as np


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
