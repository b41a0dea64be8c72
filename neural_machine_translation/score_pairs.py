"""Score given translations: what to keep of a corpus, which of several translations is best, which word belongs to which.

python score_pairs.py pairs.tsv                     log-probability and number of words of each pair (source, tab, target)
python score_pairs.py pairs.tsv --alignment         and the words that belong together, as SOURCE-TARGET from 0
cat pairs.tsv | python score_pairs.py -             standard input
"""

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags
from fluid.engine import Engine
from fluid.errors import DataError, UserError
from fluid.interface import Interface
from fluid.run import script
from fluid.runner import Runner
from fluid.text import number_of
from neural_machine_translation.opening import open_translator, refuse_nameless
from neural_machine_translation.options import ALIASES, RETIRED, NetworkFlags, with_pairs
from neural_machine_translation.reader import input_lines, used_buckets
from neural_machine_translation.scoring import feed_of, word_numbers
from neural_machine_translation.translator import Translator

import numpy as np
import tyro

BATCHES_AHEAD = 8
"""So many batches of pairs are read, and written, together."""


@dataclass
class Flags(NetworkFlags, BatchFlags, EngineFlags):
    """Score given translations."""

    inputs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Files of pairs (source, tab, target), folders of *.tsv and *.txt, patterns, @LIST of files, or - for standard input."""
    alignment: bool = False
    """Print which words belong together, SOURCE-TARGET from 0: where the last layer looked most for each target word."""


@dataclass(frozen=True)
class Score:
    """What the network thinks of a translation."""

    log_probability: float
    """Natural logarithm, `<e>` included; -inf where the pair is too long for the network."""
    words: int
    """Words of the vocabulary, `<e>` included."""
    alignment: list[tuple[int, int]]
    """(source word, target word) from 0, as blanks separate them."""


def main(flags: Flags) -> int:
    """Score as `flags` say; returns how many pairs were scored."""
    if not flags.inputs:
        raise UserError("give files of pairs (source, tab, target), or - for standard input")
    opened = open_translator(flags, say=lambda line: print(line, file=sys.stderr))
    translator = opened.facts
    refuse_nameless(opened)
    runner = Runner(opened, flags, runs=None)
    program = runner.program("eval", lambda: build_program(translator))
    lines, count = input_lines(flags.inputs, endings=(".tsv", ".txt")), 0
    while some := list(itertools.islice(lines, BATCHES_AHEAD * flags.test_batch_size)):
        pairs = [as_pair(place, line) for place, line in some]
        scored = scores(runner.engine, program, translator, pairs, flags.test_batch_size, flags.alignment)
        for (place, _), score in zip(some, scored, strict=True):
            if np.isinf(score.log_probability):
                longest = translator.config.max_length
                print(f"warning: {place}: longer than the {longest} words of the network", file=sys.stderr)
            links = [" ".join(f"{source}-{target}" for source, target in score.alignment)] if flags.alignment else []
            print(f"{score.log_probability:.4f}", score.words, *links, sep="\t", flush=True)
        count += len(some)
    return count


def as_pair(place: str, line: str) -> tuple[str, str]:
    """Source and target of a line. Raises DataError (FILE:LINE) if it is not a pair."""
    pair = line.split("\t")
    if len(pair) != 2:
        raise DataError(
            f"{place}: {number_of(len(pair), 'field')}, where a sentence, a tab and its translation are expected"
        )
    return pair[0].strip(), pair[1].strip()


def build_program(translator: Translator) -> Interface:
    """The Program that scores; built with Paddle."""
    from neural_machine_translation.network import evaluation_program

    return evaluation_program(translator.config)


def scores(
    engine: Engine,
    program: Interface,
    translator: Translator,
    pairs: Sequence[tuple[str, str]],
    rows: int,
    alignment: bool = False,
) -> list[Score]:
    """Scores of (source, target), in their order; `rows` pairs of similar length are run together."""
    encoded = [(translator.source.encode(source), translator.target.encode(target)) for source, target in pairs]
    longest = [max(map(len, words)) + 2 for words in encoded]
    order = sorted(range(len(pairs)), key=longest.__getitem__)
    results = [Score(-np.inf, len(target) + 1, []) for _, target in encoded]
    fitting = [index for index in order if longest[index] <= translator.config.max_length]
    layer = f"decoder_{translator.config.decoder_depth - 1}_cross_attention"
    for first in range(0, len(fitting), rows):
        group = fitting[first : first + rows]
        length = next(edge for edge in used_buckets(translator.config.max_length) if edge >= longest[group[-1]])
        feed = feed_of([encoded[index] for index in group] + [encoded[group[-1]]] * (rows - len(group)), length)
        found = engine.run(program, feed, fetch=["nll", *[layer] * alignment])
        nll = np.asarray(found["nll"])
        weights = np.asarray(found[layer]).mean(axis=1) if alignment else itertools.repeat(None)
        for row, (index, looked) in enumerate(zip(group, weights, strict=False)):
            links = [] if looked is None else _links(translator, *encoded[index], looked)
            results[index] = Score(-float(nll[row]), len(encoded[index][1]) + 1, links)
    return results


def _links(
    translator: Translator, source: np.ndarray, target: np.ndarray, weights: np.ndarray
) -> list[tuple[int, int]]:
    """For each target word the source word that `weights` [T, S] look at most, summed over the pieces of both."""
    of_source, of_target = word_numbers(translator.source, source), word_numbers(translator.target, target)
    if not len(of_source):
        return []
    looked = np.zeros((of_target.max(initial=-1) + 1, of_source.max() + 1))
    np.add.at(looked, (of_target[:, None], of_source[None]), weights[: len(target), 1 : 1 + len(source)])
    return [(int(row.argmax()), number) for number, row in enumerate(looked)]


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, with_pairs(), aliases=ALIASES, retired=RETIRED)))
