"""Sentence pairs: reading and checking text files, turning them into word indices, and grouping them into batches.

A batch holds about `batch_size` words, padding included, of sentences of similar length. Its shape is [rows, length] with
`length` one of a few buckets and `rows` fixed for each bucket, so that a compiling engine sees few shapes.

Reader processes import this module; it imports neither paddle nor jax.
"""

import bisect
import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fluid.buckets import Buckets
from fluid.data import PlainPlan, Plan
from fluid.errors import DataError, UserError
from fluid.finding import find
from fluid.text import decoded_lines, each_line, number_of, read_lines
from fluid.workers import Allocate
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.vocabulary import SentencePiece, Vocabulary

import numpy as np

EMBEDDED = Path(__file__).resolve().parent / "data"
FIELDS = ("src_word", "trg_word", "lbl_word")
"""Inputs of the networks: [sentences, words] each."""
BUCKETS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Lengths that sentences are padded to; the longest one in use is the network's `max_length`."""

LIKE_A_PATH = re.compile(r"[/\\*]|\.\w+$")
"""What a single word that is no sentence looks like: a place among folders, a pattern, a file with an extension."""

SortType = Literal["pool", "global", "none"]
Pair = tuple[str, str]
"""A sentence and its translation."""
Words = tuple[np.ndarray, np.ndarray]
"""Word indices of a pair."""
MESSAGES_SHOWN = 5


@dataclass
class TextPairs:
    """Sentences and their translations, with the place each came from."""

    sources: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    """Names of the files read."""
    places: list[tuple[int, int]] = field(default_factory=list)
    """(file, line from 1) of each pair."""

    def __len__(self) -> int:
        return len(self.sources)

    def __iter__(self) -> Iterator[Pair]:
        return zip(self.sources, self.targets, strict=True)

    def where(self, index: int) -> str:
        """FILE:LINE of a pair."""
        file, line = self.places[index]
        return f"{self.files[file]}:{line}"


def read_tsv(pattern: str | Path, *, expected: str = "a sentence, a tab and its translation") -> TextPairs:
    """Pairs from files `source TAB target`, one pair a line, as in 2018. `pattern` is a file, or may hold `*` and `?`.

    Raises DataError (FILE:LINE) for a missing file, broken UTF-8 and lines without exactly two fields.
    """
    # A folder called a[1] is itself, and no pattern for a1.
    found = [] if os.path.exists(pattern) else sorted(glob.glob(str(pattern)))
    pairs = TextPairs()
    for name in found or [str(pattern)]:
        pairs.files.append(name)
        for number, line in enumerate(read_lines(name), 1):
            fields = line.split("\t")
            if len(fields) != 2:
                raise DataError(f"{name}:{number}: {number_of(len(fields), 'field')}, where {expected} are expected")
            pairs.sources.append(fields[0].strip())
            pairs.targets.append(fields[1].strip())
            pairs.places.append((len(pairs.files) - 1, number))
    return pairs


def read_parallel(source: str | Path, target: str | Path) -> TextPairs:
    """Pairs from two files of which line n of one translates line n of the other.

    Raises DataError for a missing file, broken UTF-8 or different numbers of lines.
    """
    sources, targets = read_lines(source), read_lines(target)
    if len(sources) != len(targets):
        short, long = sorted([(len(sources), str(source)), (len(targets), str(target))])
        raise DataError(
            f"{long[1]}:{short[0] + 1}: has no counterpart, {short[1]} ends after {short[0]} lines; the lines of both "
            "files must belong together"
        )
    places = [(0, number) for number in range(1, len(sources) + 1)]
    return TextPairs([line.strip() for line in sources], [line.strip() for line in targets], [str(source)], places)


def open_pairs(
    part: Literal["train", "dev", "test"],
    *,
    data_dir: Path | None,
    pattern: str | None,
    languages: tuple[str, str],
) -> TextPairs:
    """One part of a data set.

    Args:
        part: which one.
        data_dir: folder with PART.tsv, or PART.SOURCE and PART.TARGET named after the languages (`train.en`, `train.de`);
            None is the embedded data set.
        pattern: files of pairs to read instead.
        languages: of source and target.

    Raises DataError if there is no such file.
    """
    if pattern is not None:
        return read_tsv(pattern)
    folder = data_dir or EMBEDDED
    table = folder / f"{part}.tsv"
    parallel = [folder / f"{part}.{language}" for language in languages]
    if table.is_file():
        return read_tsv(table)
    if all(path.is_file() for path in parallel):
        return read_parallel(*parallel)
    raise DataError(f"{folder}: has neither {table.name} nor {parallel[0].name} and {parallel[1].name}")


def digit_pairs(number: int, seed: int) -> TextPairs:
    """Strings of 3 to 8 random digits as their own translations: the quickest check of a network and its decoder."""
    rng = np.random.default_rng((seed, 11))
    lines = [" ".join(map(str, rng.integers(0, 10, rng.integers(3, 9)))) for _ in range(number)]
    return TextPairs(lines, list(lines), ["(generated digits)"], [(0, line + 1) for line in range(number)])


class PairSource:
    """Sentence pairs as word indices, for `fluid.data`: feeds `src_word`, `trg_word`, `lbl_word`.

    Args:
        pairs: the text.
        source, target: vocabularies.
        max_length: longest sentence, special words included.
        batch_size: words in a training batch (padding included), or sentences if not `use_token_batch`; decides shapes.
        strict: an empty or overlong sentence is an error; otherwise it is left out and named in `left_out`.
        cuts: other ways to cut every pair into words, `random_cuts`; batches then name the one of theirs.

    Raises DataError if no pair is left, or (`strict`) for the first one that cannot be used.
    """

    def __init__(
        self,
        pairs: TextPairs,
        source: Vocabulary,
        target: Vocabulary,
        *,
        max_length: int,
        batch_size: int,
        use_token_batch: bool = True,
        strict: bool = False,
        cuts: Sequence[Sequence[Words]] = (),
    ):
        encoded = list(zip(source.encode_all(pairs.sources), target.encode_all(pairs.targets), strict=True))
        kept, self.left_out = usable_pairs(pairs, encoded, max_length, strict)
        self._files, self._places = pairs.files, np.asarray([pairs.places[index] for index in kept])
        self.cuts = len(cuts)
        flat = [
            words
            for cut in cuts or [encoded]
            for index in kept
            for words in (cut if max(map(len, cut[index])) + 2 <= max_length else encoded)[index]
        ]
        self.words = np.concatenate(flat)
        sizes = np.asarray([len(words) for words in flat]).reshape(-1, len(kept), 2)
        self.starts = np.concatenate([[0], np.cumsum(sizes)])
        self.target_words = int(sizes[0, :, 1].sum()) + len(kept)
        lengths = sizes.max(axis=(0, 2)) + 2  # of the longer side in its longest cut, special words included
        edges = used_buckets(max_length, int(lengths.max()))
        self.buckets = Buckets(lengths, edges, batch_size, by="size" if use_token_batch else "rows")

    def __len__(self) -> int:
        return len(self._places)

    def where(self, index: int) -> str:
        """FILE:LINE of a pair."""
        file, line = self._places[index]
        return f"{self._files[file]}:{line}"

    def load_all(
        self, indices: np.ndarray, whole: np.ndarray, allocate: Allocate, cut: int = 0
    ) -> dict[str, np.ndarray]:
        """The share `indices` of the batch `whole`, cut in this way, padded with `<e>` to the edge of its bucket."""
        shape = len(indices), self.buckets.edge(whole)
        feed = allocate(dict.fromkeys(FIELDS, (shape, np.int64)))
        source_words, target_words, labels = (feed[name] for name in FIELDS)
        first, middle, last = (self.starts[2 * (cut * len(self) + indices) + part] for part in range(3))
        source_words[:, 0] = target_words[:, 0] = BOS
        self._pad(source_words[:, 1:], first, middle)
        self._pad(labels, middle, last)
        target_words[:, 1:] = labels[:, :-1]
        return feed

    def _pad(self, rows: np.ndarray, start: np.ndarray, end: np.ndarray) -> None:
        at = start[:, None] + np.arange(rows.shape[1])
        rows[...] = np.where(at < end[:, None], self.words.take(at, mode="clip"), EOS)


def random_cuts(
    pairs: TextPairs, source: Vocabulary, target: Vocabulary, *, dropout: float, number: int
) -> list[list[Words]]:
    """The pairs cut into words at random, in `number` ways, always the same; see `SentencePiece.encode_at_random`.

    They do not depend on a run's seed, on which the number of batches would depend then. Raises UserError for a
    vocabulary of whole words, whose text was cut beforehand.
    """
    if not (isinstance(source, SentencePiece) and isinstance(target, SentencePiece)):
        raise UserError(
            "--bpe_dropout cuts text anew, which takes a sentencepiece vocabulary; --src_vocab_fpath is a list of words"
        )

    def cut_all(vocabulary: SentencePiece, texts: Sequence[str], seed: int) -> list[np.ndarray]:
        # Sentences that stand there several times, because they count more, are cut once.
        distinct = list(dict.fromkeys(texts))
        cut = dict(zip(distinct, vocabulary.encode_at_random(distinct, dropout, seed), strict=True))
        return [cut[text] for text in texts]

    return [
        list(zip(cut_all(source, pairs.sources, 2 * cut), cut_all(target, pairs.targets, 2 * cut + 1), strict=True))
        for cut in range(number)
    ]


def cut_in_turn(plan: PlainPlan, cuts: int) -> Plan:
    """The batches of `plan`, those of each epoch in the next of so many cuts (0: there is but one)."""
    return (lambda epoch: [(indices, epoch % cuts) for indices in plan(epoch)]) if cuts else plan


def usable_pairs(
    pairs: TextPairs, encoded: Sequence[Words], max_length: int, strict: bool
) -> tuple[list[int], list[str]]:
    """Indices of the pairs that can be trained on, and messages about the others; see `PairSource`."""
    kept, left_out = [], []
    for index, words in enumerate(encoded):
        shortest, longest = sorted(map(len, words))
        if shortest and longest + 2 <= max_length:
            kept.append(index)
            continue
        problem = f"{longest + 2} words, more than --max_length {max_length}" if shortest else "an empty sentence"
        if strict:
            raise DataError(f"{pairs.where(index)}: {problem}; correct or remove the line")
        left_out.append(f"{pairs.where(index)}: {problem}")
    if not kept:
        raise DataError(
            f"{', '.join(pairs.files)}: no usable sentence pair" + "".join(f"\n  {m}" for m in left_out[:3])
        )
    return kept, left_out


def blank(rows: int, length: int) -> dict[str, np.ndarray]:
    """A batch of padding."""
    return {name: np.full((rows, length), EOS, np.int64) for name in FIELDS}


def sorted_together(sort_type: SortType, pool_size: int, pairs: int) -> int:
    """How many pairs are sorted by length together: `pool_size` of the plan of training."""
    return {"pool": pool_size, "global": pairs, "none": 0}[sort_type]


def used_buckets(max_length: int, longest: int | None = None) -> tuple[int, ...]:
    """Buckets up to `max_length`, and no more of them than sentences of `longest` words need."""
    buckets = (*(bucket for bucket in BUCKETS if bucket < max_length), max_length)
    return buckets if longest is None else buckets[: bisect.bisect_left(buckets, longest) + 1]


def input_lines(words: Sequence[str], endings: tuple[str, ...] = (".txt",)) -> Iterator[tuple[str, str]]:
    """What the words of a command line ask to translate, as (place, sentence), read as it is asked for.

    A word is a file, a folder (of which the files with these `endings` are meant), a pattern, `-` for standard input, `@LIST`
    for a file that names files, or else a sentence itself, unless it looks like the name of a file. Raises DataError for what
    is none of these.
    """
    for word in find(words, "text file", endings, apart=_is_no_file):
        if word == "-":
            yield from numbered("standard input", decoded_lines(sys.stdin.buffer, "standard input"))
        elif _is_no_file(word):
            yield "command line", next(decoded_lines([os.fsencode(word)], "command line"))
        else:
            yield from numbered(word, each_line(word))


def _is_no_file(word: str) -> bool:
    """Whether a word is a sentence, or `-`. Raises DataError for the name of a file that is not there."""
    if word.startswith("@") or os.path.exists(word) or glob.glob(word, recursive=True):
        return False
    if LIKE_A_PATH.search(word) and not any(letter.isspace() for letter in word):
        raise DataError(f"{word}: no such file, folder or pattern (text that looks like one goes through `-`)")
    return True


def numbered(name: str, lines: Iterator[str]) -> Iterator[tuple[str, str]]:
    """Each line with its place in what is called `name`."""
    yield from ((f"{name}:{number}", line) for number, line in enumerate(lines, 1))
