"""Which words the flags name: those of a data set, or made ones."""

import itertools
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias

from fluid.config import Count, Range, named
from fluid.errors import DataError, UserError
from fluid.run import console
from fluid.session import fingerprint
from fluid.text import number_of
from ocr_recognition.alphabet import Alphabet, Unknown, describe, read_dictionary
from ocr_recognition.checking import check
from ocr_recognition.generated import GeneratedSource, Recipe, make_set
from ocr_recognition.options import Style
from ocr_recognition.reader import (
    MOST_EDGES,
    Labelling,
    ListedWords,
    Part,
    Words,
    WordSource,
    open_words,
    read_list,
)
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.word_set import SetSource, is_set, read_set
from ocr_recognition.words import read_words

import numpy as np

TrainingWords: TypeAlias = GeneratedSource | WordSource | SetSource
MeasuredWords: TypeAlias = WordSource | SetSource
SIMPLE = Alphabet(tuple("0123456789abcdefghijklmnopqrstuvwxyz"))
"""What the simple words are written in."""
MEASURED_SEED = 1
"""Of made words that readings are measured on: always the same."""
SHOWN = 10
"""So many unknown characters are named."""
MADE_EDGES = 4
"""So many widths have batches of made words, where no flag says it."""
OF_MADE = ("style", "words_file", "fonts_dir", "words_an_epoch")
"""Flags of made words to train on."""
EXAMPLES = 12
"""So many words are made where none are given to be read."""


@dataclass
class DataFlags:
    """Words to learn and to measure."""

    data_dir: Path | None = None
    """Folder with train.list and test.list (pictures in train_images and test_images), with train.txt and test.txt, or with
    train and test of LMDB or written words; by default words are made."""
    train_list: Path | None = None
    """List to train on, `file<TAB>text` or `W H file l1,l2,...` a line, instead of data_dir."""
    train_images: Path | None = None
    """Folder that the files of train_list are in; by default the list's own."""
    test_list: Path | None = None
    """List to measure on, instead of data_dir."""
    test_images: Path | None = None
    """Folder that the files of test_list are in; by default the list's own."""
    style: Style = "simple"
    """What made words say: simple, digits and small letters; general, all that signs, titles and displays do."""
    words_file: Path | None = None
    """What made words say instead: words, one a line; those of other characters than the dictionary's are left out."""
    fonts_dir: Path | None = None
    """Fonts of made words, instead of those that come along; all of them are trained and measured on."""
    words_an_epoch: Count = 6400
    """How many words are made for a pass."""
    buckets: Annotated[int, Range(1, MOST_EDGES)] | None = None
    """Widths that batches are padded to, at most, each compiled once; by default 4 of made words, 6 of others."""
    num_words: Count = 500
    """How many words are made to measure on, in fonts and of lists that are not trained on."""
    dict: Path | None = None
    """Dictionary of the characters that are read, one a line; by default those of the made words, or the 95 of ASCII."""
    max_width: Count = 1024
    """Columns of the widest word; wider ones are squeezed."""
    rotate_tall: bool = False
    """Turn pictures much higher than wide by 90 degrees."""
    unknown: Unknown = "error"
    """What becomes of a character that is not in the dictionary: error, drop or map (to the nearest one)."""
    skip_unalignable: bool = False
    """Leave out words that have more characters than CTC can align with their picture."""
    check_data: bool = False
    """Look through all words for what is wrong with them, instead of training."""


class Measure(Protocol):
    """Flags of the scripts that measure."""

    data_dir: Path | None
    test_list: Path | None
    test_images: Path | None
    style: Style | None
    num_words: int


def alphabet_of(flags: DataFlags) -> Alphabet:
    """The characters that flags ask for."""
    if flags.dict is not None:
        return read_dictionary(flags.dict)
    return SIMPLE if made(flags) and flags.style == "simple" and flags.words_file is None else Alphabet.ascii()


def made(flags: DataFlags) -> bool:
    """Whether the words to train on are made."""
    return flags.data_dir is None and flags.train_list is None


def refuse_idle(flags: DataFlags) -> None:
    """Raise UserError for flags of made words beside those that name others to train on."""
    idle = [name for name in OF_MADE if name in named(flags)]
    if idle and not made(flags):
        raise UserError(
            f"--{idle[0]} says how words are made, and --data_dir or --train_list names others: leave one out"
        )


def training_source(flags: DataFlags, recognizer: Recognizer, batch_size: int) -> TrainingWords:
    """The words to train on. Raises DataError for what cannot be used."""
    if made(flags):
        return GeneratedSource(
            recipe(flags, recognizer, "train"),
            batch_size,
            words=flags.words_an_epoch,
            buckets=flags.buckets or MADE_EDGES,
        )
    labelling = Labelling(recognizer.alphabet, flags.unknown, columns(recognizer), flags.skip_unalignable)
    buckets = flags.buckets or MOST_EDGES
    if flags.train_list is None and (folder := written(flags.data_dir, "train")) is not None:
        height = recognizer.preprocess.height
        return SetSource(read_set(folder), batch_size, height=height, labelling=labelling, buckets=buckets)
    words = named_words(flags.data_dir, "train", flags.train_list, flags.train_images)
    return WordSource(words, recognizer.preprocess, labelling, batch_size, buckets=buckets)


def test_source(flags: DataFlags, recognizer: Recognizer) -> MeasuredWords:
    """The words to measure on while training. Raises UserError where those to train on are listed and these are not."""
    if made(flags) and flags.test_list is None:
        return made_words(replace(recipe(flags, recognizer, "test"), columns_a_frame=None), flags.num_words)
    return listed_words(flags, recognizer)


def measured_words(flags: Measure, recognizer: Recognizer) -> MeasuredWords:
    """The words that a network is measured on: those that the flags name, or made ones of what it reads."""
    if flags.data_dir is not None or flags.test_list is not None:
        return listed_words(flags, recognizer)
    style = flags.style or style_of(recognizer)
    height = recognizer.preprocess.height
    return made_words(Recipe(recognizer.alphabet, height, None, style=style, part="test"), flags.num_words)


def example_words(recognizer: Recognizer) -> Iterator[tuple[str, np.ndarray]]:
    """(what it says, picture) of some made words."""
    recipe = Recipe(recognizer.alphabet, style=style_of(recognizer), part="test")
    maker, rng = recipe.maker(), np.random.default_rng(MEASURED_SEED)
    for made in itertools.islice(iter(lambda: maker.make(rng), None), EXAMPLES):
        yield f"made: {made.text}", np.repeat(made.picture[:, :, None], 3, axis=2)


def style_of(recognizer: Recognizer) -> Literal["simple", "general"]:
    """Which made words a network reads."""
    return "simple" if set(recognizer.alphabet.characters) <= set(SIMPLE.characters) else "general"


def recipe(flags: DataFlags, recognizer: Recognizer, part: Part) -> Recipe:
    """The words that flags ask to make."""
    return Recipe(
        recognizer.alphabet,
        recognizer.preprocess.height,
        columns(recognizer),
        style=flags.style,
        part=part,
        given=() if flags.words_file is None else read_words(flags.words_file, recognizer.alphabet),
        fonts_dir=flags.fonts_dir,
    )


def made_words(recipe: Recipe, count: int) -> SetSource:
    """So many made words, always the same."""
    origin = f"{number_of(count, 'made word')} ({recipe.style}, {recipe.part})"
    labelling = Labelling(recipe.alphabet, columns_a_frame=None)
    words = make_set(recipe, count, seed=MEASURED_SEED)
    return SetSource(words, 1, height=recipe.height, labelling=labelling, origin=origin)


def listed_words(flags: DataFlags | Measure, recognizer: Recognizer) -> MeasuredWords:
    """The test words of a data set: every one, whatever is in it. Raises DataError for one that cannot be read."""
    labelling = Labelling(recognizer.alphabet, "drop", None)
    if flags.test_list is None and (folder := written(flags.data_dir, "test")) is not None:
        return SetSource(read_set(folder), 1, height=recognizer.preprocess.height, labelling=labelling)
    words = named_words(flags.data_dir, "test", flags.test_list, flags.test_images)
    source = WordSource(words, recognizer.preprocess, labelling, 1)
    if None in words.shapes:
        # It says what is wrong: now, where an evaluation would after hours of training.
        source.picture(words.shapes.index(None))
    return source


def named_words(data_dir: Path | None, part: Part, listed: Path | None, images: Path | None) -> Words:
    """Of a list, or of a part of a data set. Raises UserError if neither is named."""
    if listed is not None:
        return read_list(listed, images)
    if data_dir is None:
        raise UserError(f"--{part}_list is missing: both parts are needed, or --data_dir")
    return open_words(data_dir, part)


def written(folder: Path | None, part: Part) -> Path | None:
    """Where the words of a part are written, if they are."""
    places = [] if folder is None else [folder / part, folder]
    return next((place for place in places if is_set(place)), None)


def columns(recognizer: Recognizer) -> int | None:
    """Columns a frame, for what CTC can align."""
    return recognizer.columns_a_frame if recognizer.is_ctc else None


def fingerprint_of(source: TrainingWords) -> str:
    """A fingerprint of what the words say."""
    if isinstance(source, GeneratedSource):
        return fingerprint(repr((source.recipe, source.edges, source.batch_size * source.batches_per_epoch)))
    return fingerprint(source.texts)


def fingerprint_of_names(*sources: TrainingWords) -> str:
    """A fingerprint of how the files of lists are called."""
    lists = [source.words for source in sources if isinstance(source, WordSource)]
    return fingerprint(
        *([Path(name).name for name in words.names] for words in lists if isinstance(words, ListedWords))
    )


def fingerprints(training: TrainingWords, test: MeasuredWords) -> dict[str, str]:
    """What the words of a run are, for `Settled.open`."""
    words = {"training words": fingerprint_of(training), "test words": fingerprint_of(test)}
    return {**words, "pictures": fingerprint_of_names(training, test)}


def notes_on(source: TrainingWords, recognizer: Recognizer) -> list[str]:
    """What became of words and characters that cannot be used, or not be read, where some were met; that of letters written
    from right to left the labels begin at the left, where a network of frames does."""
    notes = []
    leftward = [one for one in recognizer.alphabet.characters if unicodedata.bidirectional(one) in ("R", "AL")]
    if recognizer.is_ctc and leftward:
        notes.append(
            f"{recognizer.model} reads from left to right: labels with letters such as {describe(leftward[0])} must have "
            "their characters in that order, too, the last letter of a word first"
        )
    if isinstance(source, GeneratedSource):
        return notes
    if isinstance(source, WordSource) and source.unknown:
        shown = ", ".join(
            f"{describe(one)} {number_of(count, 'time')}" for one, count in source.unknown.most_common(SHOWN)
        )
        notes.append(f"characters that are not in the dictionary ({source.labelling.unknown}): {shown}")
    if source.left_out:
        notes.append(
            f"left out, since they cannot be aligned: {number_of(len(source.left_out), 'word')}; the first: {source.left_out[0]}"
        )
    if blanks := [index for index, text in enumerate(source.texts) if text != text.strip()]:
        notes.append(
            f"{number_of(len(blanks), 'text')} with a blank at an end, which is a character like others; the first: "
            f"{source.where(blanks[0])}"
        )
    if not recognizer.is_ctc and (longer := sum(len(text) > recognizer.longest for text in source.texts)):
        notes.append(f"{longer} words have more characters than are read, {recognizer.longest}; see --longest")
    return notes


def check_words(flags: DataFlags, recognizer: Recognizer) -> None:
    """Print what is wrong with the words of a data set, and what they are like.

    Raises UserError without a data set, DataError if there is any fault.
    """
    if made(flags):
        raise UserError("--check_data looks through a data set: give --data_dir, or --train_list and --test_list")
    labelling = Labelling(recognizer.alphabet, flags.unknown, columns(recognizer), flags.skip_unalignable)
    listed: dict[Part, tuple[Path | None, Path | None]] = {
        "train": (flags.train_list, flags.train_images),
        "test": (flags.test_list, flags.test_images),
    }
    total = 0
    for part, (path, images) in listed.items():
        if path is None and (folder := written(flags.data_dir, part)) is not None:
            console.print(f"{part}: {number_of(len(read_set(folder)), 'written word')} of {folder}")
            continue
        words = named_words(flags.data_dir, part, path, images)
        lines, faults = check(words, recognizer.preprocess, labelling)
        total += faults
        for line in [f"{part}:", *lines]:
            console.print(line)
    if total:
        raise DataError(f"{number_of(total, 'fault')} in the words, listed above")
