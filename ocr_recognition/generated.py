"""Made words as batches: on the fly, by worker processes, or written to a set first."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from fluid.data import Plan, check_batch_size, training_batches, with_choices
from fluid.errors import DataError
from fluid.text import number_of
from fluid.workers import Allocate
from ocr_recognition.alphabet import Alphabet, describe
from ocr_recognition.fonts import open_fonts
from ocr_recognition.generator import ASPECTS, EFFECTS, WordMaker, width_at
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.reader import blank, bucket_edges, collate, sample
from ocr_recognition.word_set import WordSet, gather, unpadded, write_set
from ocr_recognition.words import KINDS, LONGEST, SIMPLE, Part, Texts

import numpy as np

EDGES = (1.5, 2.5, 4.0, 5.5, 8.0, ASPECTS[1])
"""Widths of the buckets, as multiples of the height."""

GENTLE = 0.5
"""How often effects are drawn of simple words, as a part of how often they are of others."""

# Drafts by which the buckets' shares are found, and the fewest of them for which a bucket is kept.
_DRAFTS, _RARE = 2000, 10


@dataclass(frozen=True)
class Recipe:
    """Which words are made."""

    alphabet: Alphabet = field(default_factory=Alphabet.ascii)
    height: int = 48
    columns_a_frame: int | None = 8
    """Of the network, so that CTC can align every word; None for a network without frames."""
    style: str = "general"
    """general: all that signs, plates and titles say; simple: digits and lower-case words of three to six letters, with
    half as many effects."""
    part: Part = "train"
    """Which words and, of the fonts that come along, which of these: those kept for tests, the others, or all."""
    given: tuple[str, ...] = ()
    """Words to show in place of those of the list, of any length."""
    fonts_dir: Path | None = None
    """Fonts to use in place of those that come along."""

    @property
    def texts(self) -> Texts:
        """What the words say."""
        simple = self.style == "simple"
        lengths = (3, 6) if simple and not self.given else (1, max(map(len, self.given), default=LONGEST))
        kinds = {"word": 1.0} if self.given else SIMPLE if simple else KINDS
        return Texts(
            self.alphabet.characters, kinds, lengths, self.part, self.given, cases=not simple and not self.given
        )

    def maker(self) -> WordMaker:
        """What makes them. Raises DataError for fonts that cannot be opened, for given words that none of them shows, and if
        there is none that the alphabet can write."""
        known = self.alphabet.classes.keys()
        if self.given and not any(known >= set(word) for word in self.given):
            lacking = next(character for character in self.given[0] if character not in known)
            raise DataError(
                f"each of the words to make has characters that are not in the dictionary, such as {describe(lacking)}: "
                "give a --dict that has them"
            )
        share = GENTLE if self.style == "simple" else 1.0
        rates = {effect: share * rate for effect, rate in EFFECTS.items()}
        fonts = open_fonts(self.fonts_dir, self.part)
        for character in sorted(self.alphabet.classes.keys() & "".join(self.given)):
            if not any(font.has(character) for font in fonts):
                raise DataError(
                    f"none of the fonts has {describe(character)} of the words to make: give --fonts_dir with some that do"
                )
        return WordMaker(fonts, self.texts, self.columns_a_frame, self.height, rates=rates)


class GeneratedSource:
    """Words without end, for `fluid.data`; fields as in ocr_recognition/reader.py.

    A batch is of one bucket, drawn as often as words are that wide, for which its words are then made. `words` are an epoch.
    Raises DataError for fewer words than a batch holds.
    """

    def __init__(
        self, recipe: Recipe, batch_size: int, *, words: int, seed: int = 0, buckets: int = len(EDGES)
    ) -> None:
        check_batch_size(batch_size)
        if words < batch_size:
            raise DataError(f"{number_of(words, 'word')} an epoch cannot fill one batch of {batch_size}")
        self.recipe, self.batch_size, self.batches_per_epoch = recipe, batch_size, words // batch_size
        self.height, self.label_columns = recipe.height, -(-recipe.texts.lengths[1] // 8) * 8
        self.origin = f"{words:,} made words an epoch"
        self.edges, self.shares = self._buckets(np.random.default_rng((seed, 21)), buckets)

    @cached_property
    def maker(self) -> WordMaker:
        """Made once in each process."""
        return self.recipe.maker()

    def plan(self, seed: int) -> Plan:
        """Of training."""
        batches = list(np.arange(self.batches_per_epoch * self.batch_size).reshape(-1, self.batch_size))
        upto = np.cumsum(self.shares)[:-1]
        return with_choices(lambda epoch: batches, lambda rng: int(np.searchsorted(upto, rng.random())), seed)

    def blanks(self, shards: int = 1) -> list[dict[str, np.ndarray]]:
        """A batch of each shape, to compile for it ahead: one process's share."""
        rows = self.batch_size // shards
        return [blank(rows, edge, self.height, self.label_columns) for edge in self.edges]

    def load(self, index: int, rng: np.random.Generator, bucket: int) -> dict[str, np.ndarray]:
        narrower = self.edges[bucket - 1] if bucket else 0
        made = self.maker.make(rng, (narrower, self.edges[bucket]))
        picture = Preprocess(self.height, self.edges[bucket]).picture(made.picture)
        return sample(index, picture, self.recipe.alphabet.encode(made.text))

    def collate(
        self, samples: list[dict[str, np.ndarray]], whole: np.ndarray, allocate: Allocate, bucket: int
    ) -> dict[str, np.ndarray]:
        return collate(samples, self.edges[bucket], self.label_columns, allocate)

    def where(self, index: int) -> str:
        return f"made word {index}"

    def _buckets(self, rng: np.random.Generator, most: int) -> tuple[tuple[int, ...], np.ndarray]:
        """Widths of at most so many buckets, and how often words are of each."""
        edges = np.array([-(-round(self.height * edge) // 8) * 8 for edge in EDGES])
        widths = [width_at(self.maker.draft(rng, (0, edges[-1])).shape, self.height) for _ in range(_DRAFTS)]
        if most < len(edges):
            edges = np.array(bucket_edges(np.array(widths), most))
        # The words of a rare bucket go with the next wider one; no word is wider than the widest that is not rare.
        counts = np.bincount(np.searchsorted(edges, widths), minlength=len(edges))
        kept = np.flatnonzero(counts >= _RARE)
        return tuple(edges[kept].tolist()), counts[kept] / counts[kept].sum()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "maker"}


def make_set(recipe: Recipe, words: int, *, seed: int) -> WordSet:
    """So many words in memory: the same for a seed."""
    rng, maker = np.random.default_rng((seed, 22)), recipe.maker()
    preprocess = Preprocess(recipe.height, round(recipe.height * ASPECTS[1]))
    made = (maker.make(rng) for _ in range(words))
    rows = ((preprocess.picture(one.picture), recipe.alphabet.encode(one.text)) for one in made)
    return gather(rows, recipe.height, recipe.alphabet)


def write_words(folder: Path, recipe: Recipe, words: int, *, seed: int, num_workers: int) -> int:
    """Write at least so many words with worker processes; how many there are. The same for a seed whatever the workers.

    Raises DataError if the folder exists or cannot be written.
    """
    rows = min(256, words)
    source = GeneratedSource(recipe, rows, words=-(-words // rows) * rows, seed=seed)
    about = {"seed": seed, "part": recipe.part, "style": recipe.style}
    with training_batches(
        source, rows, seed=seed, num_epochs=1, num_workers=num_workers, plan=source.plan(seed)
    ) as batches:
        rows_of = (word for batch in batches for word in unpadded(batch.feed))
        return write_set(folder, rows_of, recipe.height, recipe.alphabet, about)
