"""Translating sentences: the one way from text to text, used while training, by eval.py and by infer.py."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fluid.buckets import Buckets
from fluid.engine import Engine
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.signals import leave_if_stopped
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.reader import blank, used_buckets
from neural_machine_translation.translator import Translator, pad

import numpy as np

Run = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
"""Runs a search or sampling Program on a feed: an engine or an exported model."""


@dataclass(frozen=True)
class Hypothesis:
    """A translation."""

    text: str
    score: float
    """What it was ranked by: log-probability over length penalty."""
    words: tuple[int, ...]
    """Word indices, without `<e>`."""
    complete: bool = True
    """Whether it ended with `<e>` before the length limit."""


EMPTY = Hypothesis("", 0.0, ())


def runner(engine: Engine, program: Interface) -> Run:
    """Run `program` on an engine; every call takes the next step's random numbers.

    In a distributed run every process feeds the whole batch and gets all results; the rows must be a multiple of the devices.
    """
    steps = iter(range(2**31))

    def run(feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        leave_if_stopped(engine)
        own = {name: np.split(rows, engine.num_hosts)[engine.host_id] for name, rows in feed.items()}
        outputs = engine.run(program, own, step=next(steps))
        return {name: engine.gather(rows) for name, rows in outputs.items()}

    return run


def compile_ahead(engine: Engine, programs: Sequence[Interface], buckets: Buckets, rows: int) -> None:
    """On a GPU, compile at once what evaluates pairs of the lengths in `buckets`, `rows` of them in a batch.

    One length after the other took almost two minutes on an H100 whose host was busy.
    """
    if engine.on_gpu:
        lengths = sorted({buckets.edge(batch) for batch in buckets.evaluation_plan(rows)(0)})
        feeds = [blank(rows // engine.num_hosts, length) for length in lengths]
        engine.compile(
            [(program, {name: feed[name] for name in program.inputs}) for program in programs for feed in feeds]
        )


def translate(
    run: Run,
    translator: Translator,
    sentences: Sequence[str],
    *,
    batch_size: int = 32,
    warn: Callable[[int, str], None] = lambda index, message: None,
    beginnings: Sequence[Sequence[int]] | None = None,
) -> list[list[Hypothesis]]:
    """Hypotheses of each sentence, best first, in the order of the sentences.

    Sentences of similar length share a batch of always `batch_size` rows. An empty sentence has one empty hypothesis. One
    that is too long for the network is cut, and `warn(index, message)` says so. `beginnings` are word indices that the
    translations begin with, for a search that takes them; raises UserError for one that is too long for the network.
    """
    room = translator.config.max_length - 2
    buckets = used_buckets(translator.config.max_length)
    encoded = []
    for index, words in enumerate(translator.source.encode_all(sentences)):
        if len(words) > room:
            warn(index, f"{len(words)} words, more than the {room} the network takes; the rest is left out")
            words = words[:room]
        encoded.append(np.concatenate([[BOS], words, [EOS]]))
    results: list[list[Hypothesis]] = [[EMPTY] for _ in sentences]
    order = sorted(
        (index for index, words in enumerate(encoded) if len(words) > 2), key=lambda index: len(encoded[index])
    )
    for first in range(0, len(order), batch_size):
        group = order[first : first + batch_size]
        length = next(bucket for bucket in buckets if bucket >= len(encoded[group[-1]]))
        rows = [encoded[index] for index in group] + [encoded[group[-1]]] * (batch_size - len(group))
        feed = {"src_word": pad(rows, length)}
        if beginnings is not None:
            begun = [np.asarray(beginnings[index], np.int64) for index in group]
            begun += [begun[-1]] * (batch_size - len(group))
            if (longest := max(map(len, begun))) > room:
                sentence = sentences[next(index for index in group if len(beginnings[index]) == longest)]
                raise UserError(
                    f"{sentence[:60]!r}: a translation cannot begin with {longest} words: the network takes {room}"
                )
            feed["prefix"] = pad(begun, next(bucket for bucket in buckets if bucket >= longest))
        outputs = run(feed)
        ids, scores = np.asarray(outputs["ids"]), np.asarray(outputs["scores"])
        for row, index in enumerate(group):
            results[index] = [_hypothesis(translator, *pair) for pair in zip(ids[row], scores[row], strict=True)]
    return results


def _hypothesis(translator: Translator, ids: np.ndarray, score: np.ndarray) -> Hypothesis:
    ends = np.flatnonzero(ids == EOS)
    words = ids[: ends[0]] if len(ends) else ids
    text = one_line(translator.target.decode(words))
    return Hypothesis(text, float(score), tuple(words.tolist()), len(ends) > 0)


def one_line(text: str) -> str:
    """The text with a blank for every character that ends a line or controls a terminal."""
    if text.isprintable():
        return text
    return "".join(" " if unicodedata.category(letter) in ("Cc", "Zl", "Zp") else letter for letter in text)
