"""Words to read, from lists of pictures and LMDB: checked, resized to one height, and batched by width.

A data set is a list, a folder, or a data base:

    LIST                    lines `file<TAB>text`, or `W H file l1,l2,...` with the classes of the characters (2018)
    DATA_DIR                train.list and test.list (pictures in train_images/ and test_images/, as in 2018, or beside the
                            lists), or train.txt and test.txt, or the folders train/ and test/ of LMDB or of written words
    DATA_DIR/data.mdb       LMDB with num-samples, image-000000001, label-000000001, ... (clovaai, PaddleOCR)

Every source of this package gives batches of

    pixel [N, 1, height, W] uint8    0 beyond a word's width; W is one of at most six
    width [N] int64    label [N, L] int32, filled up with 0    label_length [N] int64    index [N] int64, of the word

How files become pixels: fluid/media.py. Reader processes import this module; it imports neither paddle nor jax.
"""

import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

from fluid.buckets import Buckets
from fluid.data import PlainPlan
from fluid.errors import DataError
from fluid.media import decode_image, image_size, read_bytes
from fluid.text import number_of, read_lines
from fluid.workers import Allocate
from ocr_recognition.alignment import frames_needed, frames_of_width
from ocr_recognition.alphabet import Alphabet, Unknown
from ocr_recognition.lmdb_words import read_lmdb
from ocr_recognition.preprocess import Preprocess

import numpy as np

Part = Literal["train", "test"]
MOST_EDGES = 6

_OF_2018 = re.compile(r"(\d{1,9}) +(\d{1,9}) +(.+) +(\d{1,9}(?:,\d{1,9})*)")
_FORMATS = "a line must be `file<TAB>text` or `W H file l1,l2,...`"
_EDGES_AT = 16


class Words(Protocol):
    """Pictures of words, not yet read, and what they say."""

    @property
    def origin(self) -> str:
        """Where they are, for people."""
        ...

    @property
    def texts(self) -> Sequence[str | tuple[int, ...]]:
        """Of each: text, or classes of its characters."""
        ...

    @property
    def shapes(self) -> Sequence[tuple[int, int] | None]:
        """Height and width of each as stored, None for what cannot be read."""
        ...

    def __len__(self) -> int: ...

    def content(self, index: int) -> bytes:
        """The bytes of a picture. Raises DataError."""
        ...

    def where(self, index: int) -> str:
        """A word's place, for messages."""
        ...


@dataclass
class ListedWords:
    """Words of a list of files."""

    origin: str
    names: list[str] = field(default_factory=list)
    texts: list[str | tuple[int, ...]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    shapes: list[tuple[int, int] | None] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def content(self, index: int) -> bytes:
        return read_bytes(self.names[index])

    def where(self, index: int) -> str:
        return f"{self.origin}:{self.lines[index]}: {self.names[index]}"


def read_list(path: Path, root: Path | None = None) -> ListedWords:
    """Words of a list file; files are relative to `root`, else to the list's folder.

    Raises DataError (FILE:LINE) for a line of another form or without text; files are looked at, but missing ones are
    found when they are read.
    """
    words = ListedWords(str(path))
    declared: list[tuple[int, int] | None] = []
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        name, text, shape = _parsed(line, f"{path}:{number}")
        words.names.append(str((root or path.parent) / name))
        words.texts.append(text)
        words.lines.append(number)
        declared.append(shape)
    if not words.names:
        raise DataError(f"{path}: lists no word; {_FORMATS}")
    with ThreadPoolExecutor(8) as threads:
        words.shapes = list(threads.map(_shape_or_none, words.names, declared))
    return words


def read_names(path: Path, root: Path | None = None) -> list[str]:
    """Files of a list for reading: a file a line, or lines as of `read_list`, whose text is passed over.

    Raises DataError if there are none.
    """
    lines = [line.strip() for line in read_lines(path) if line.strip()]
    if not lines:
        raise DataError(f"{path}: lists no picture")
    of_2018 = (_OF_2018.fullmatch(line) for line in lines)
    names = [found.group(3) if found else line.partition("\t")[0].rstrip() for line, found in zip(lines, of_2018)]
    return [str((root or path.parent) / name) for name in names]


def _parsed(line: str, where: str) -> tuple[str, str | tuple[int, ...], tuple[int, int] | None]:
    """File, text or classes, and declared (height, width) of a line."""
    if "\t" in line:
        name, _, text = line.partition("\t")
        if not name.strip() or not text.strip():
            raise DataError(f"{where}: has no {'text after' if name.strip() else 'file before'} the tab; {_FORMATS}")
        return name.strip(), text, None
    found = _OF_2018.fullmatch(line.strip())
    if not found:
        raise DataError(f"{where}: {_FORMATS}, not {line[:80]!r}")
    width, height, name, classes = found.groups()
    return name, tuple(map(int, classes.split(","))), (int(height), int(width))


def _shape_or_none(name: str, declared: tuple[int, int] | None) -> tuple[int, int] | None:
    try:
        return declared or image_size(read_bytes(name))
    except DataError:
        return None


def open_words(path: Path, part: Part) -> Words:
    """The words of a list, a data base, or one part of a folder as above. Raises DataError."""
    if path.is_file():
        return read_list(path)
    if (path / "data.mdb").is_file():
        return read_lmdb(path)
    if (path / part / "data.mdb").is_file():
        return read_lmdb(path / part)
    for name in (f"{part}.list", f"{part}.txt"):
        if (path / name).is_file():
            images = path / f"{part}_images"
            return read_list(path / name, images if images.is_dir() else None)
    if path.is_dir():
        raise DataError(f"{path}: holds neither {part}.list, {part}.txt, {part}/data.mdb nor data.mdb")
    raise DataError(f"{path}: is not there; give a list, or a folder with {part}.list, {part}.txt or data.mdb")


@dataclass(frozen=True)
class Labelling:
    """How texts become classes, and which of them CTC can align."""

    alphabet: Alphabet
    unknown: Unknown = "error"
    columns_a_frame: int | None = 8
    """Of the network, for what CTC can align; None for a network without frames."""
    skip_unalignable: bool = False
    """Leave out what CTC cannot align; otherwise it is an error."""


class BucketedSource:
    """What sources of words of known width have in common."""

    height: int
    label_columns: int
    """Length that labels are filled up to."""
    buckets: Buckets
    origin: str
    """What the words are, for people."""

    @property
    def edges(self) -> tuple[int, ...]:
        """Widths of batches."""
        return self.buckets.edges

    @cached_property
    def batches_per_epoch(self) -> int:
        """Of training: the same in every epoch."""
        return len(self.plan(0)(0))

    def plan(self, seed: int) -> PlainPlan:
        """Of training."""
        return self.buckets.training_plan(seed=seed)

    def evaluation_plan(self, rows: int) -> PlainPlan:
        """Batches of `rows` words of similar width, for one pass over all words."""
        return self.buckets.evaluation_plan(rows)

    def blanks(self, shards: int = 1) -> list[dict[str, np.ndarray]]:
        """A batch of each shape of training, to compile for it ahead: one process's share."""
        return self.buckets.blanks(lambda rows, edge: blank(rows, edge, self.height, self.label_columns), shards)


class WordSource(BucketedSource):
    """Batches of words for `fluid.data`.

    Raises DataError for characters and labels that `labelling` does not let pass, and if no word is left.
    """

    def __init__(
        self,
        words: Words,
        preprocess: Preprocess,
        labelling: Labelling,
        batch_size: int,
        *,
        buckets: int = MOST_EDGES,
    ) -> None:
        self.words, self.preprocess, self.labelling = words, preprocess, labelling
        self.height, self.origin = preprocess.height, words.origin
        self.unknown: Counter[str] = Counter()
        """Characters met that are not in the alphabet."""
        self.left_out: list[str] = []
        """Messages about words that CTC cannot align."""
        widths = widths_of(words.shapes, preprocess)
        labels, kept = self._labels(widths)
        # Arrays that worker processes share, where lists would be copied to each.
        self.labels, self.label_ends = np.concatenate(labels), np.cumsum([len(label) for label in labels])
        self.kept = np.array(kept)
        self.label_columns = max(8, -(-max(map(len, labels)) // 8) * 8)
        lengths = np.array(widths)[self.kept]
        self.buckets = Buckets(lengths, bucket_edges(lengths, buckets), batch_size, by="rows")

    def __len__(self) -> int:
        return len(self.kept)

    @cached_property
    def texts(self) -> list[str]:
        """What each word says, characters that are not in the alphabet included."""
        alphabet, texts = self.labelling.alphabet, (self.words.texts[index] for index in self.kept.tolist())
        return [alphabet.spelled(text) if isinstance(text, str) else alphabet.decode(text) for text in texts]

    def where(self, index: int) -> str:
        return self.words.where(int(self.kept[index]))

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        return sample(index, self.picture(index), self.label(index))

    def label(self, index: int) -> np.ndarray:
        """Classes [characters] int32 of a word."""
        return self.labels[self.label_ends[index - 1] if index else 0 : self.label_ends[index]]

    def picture(self, index: int) -> np.ndarray:
        """A word as the network sees it, [height, width] uint8. Raises DataError."""
        try:
            picture = decode_image(self.words.content(int(self.kept[index])))
        except DataError as error:
            raise DataError(f"{self.where(index)}: {error}") from None
        row = self.preprocess.picture(picture)
        if row.shape[1] != self.buckets.lengths[index]:
            shape = self.words.shapes[int(self.kept[index])]
            declared = f"{shape[1]} x {shape[0]} pixels" if shape else "another size"
            raise DataError(f"{self.where(index)}: is {picture.shape[1]} x {picture.shape[0]} pixels, not {declared}")
        return row

    def collate(
        self, samples: Sequence[dict[str, np.ndarray]], whole: np.ndarray, allocate: Allocate
    ) -> dict[str, np.ndarray]:
        return collate(samples, self.buckets.edge(whole), self.label_columns, allocate)

    def _labels(self, widths: Sequence[int]) -> tuple[list[np.ndarray], list[int]]:
        labels, kept = [], []
        for index, text in enumerate(self.words.texts):
            try:
                label = encode(text, self.labelling, self.unknown)
            except DataError as error:
                raise DataError(
                    f"{self.words.where(index)}: {error}; correct it, give a dictionary that has it, or --unknown drop or map"
                ) from None
            problem = unalignable(label, widths[index], self.labelling) if self.words.shapes[index] else None
            if problem:
                self.left_out.append(f"{self.words.where(index)}: {problem}")
                if not self.labelling.skip_unalignable:
                    raise DataError(f"{self.left_out[0]}; correct or remove the line, or give --skip_unalignable")
                continue
            labels.append(label)
            kept.append(index)
        if not labels:
            raise DataError("no word can be used" + "".join(f"\n  {message}" for message in self.left_out[:3]))
        return labels, kept


def encode(text: str | tuple[int, ...], labelling: Labelling, met: Counter[str] | None = None) -> np.ndarray:
    """Classes [characters] int32 of a text or of given classes. Raises DataError."""
    if isinstance(text, str):
        return labelling.alphabet.encode(labelling.alphabet.spelled(text), labelling.unknown, met)
    if max(text) >= len(labelling.alphabet):
        raise DataError(f"class {max(text)} is not in 0..{len(labelling.alphabet) - 1}")
    return np.array(text, np.int32)


def unalignable(label: np.ndarray, width: int, labelling: Labelling) -> str | None:
    """Why CTC cannot align a label with a picture of this width, or None."""
    if labelling.columns_a_frame is None:
        return None
    frames, needed = frames_of_width(width, labelling.columns_a_frame), frames_needed(label)
    if needed <= frames:
        return None
    need = f"it needs {number_of(needed, 'frame')} for {number_of(len(label), 'character')}"
    return f"{need}, but resized to {number_of(width, 'pixel')} it has {frames}"


def width_of(shape: tuple[int, int], preprocess: Preprocess) -> int:
    """Columns of a picture of this height and width for the network; the most of one that declares none, which shows later."""
    return preprocess.max_width if min(shape) < 1 else preprocess.width(shape)


def widths_of(shapes: Sequence[tuple[int, int] | None], preprocess: Preprocess) -> list[int]:
    """Columns of each picture for the network. What could not be read, which shows later, is as wide as others: not a
    batch of its own that everything is compiled for."""
    known = sorted(width_of(shape, preprocess) for shape in shapes if shape is not None)
    typical = known[len(known) // 2] if known else preprocess.max_width
    return [typical if shape is None else width_of(shape, preprocess) for shape in shapes]


def sample(index: int, picture: np.ndarray, label: np.ndarray) -> dict[str, np.ndarray]:
    """One word: its number, picture [height, width] uint8 and label [characters] int32."""
    return {"index": np.array(index), "pixel": picture, "label": label}


def collate(
    samples: Sequence[dict[str, np.ndarray]], edge: int, label_columns: int, allocate: Allocate
) -> dict[str, np.ndarray]:
    """A batch of samples, padded with 0 to the width `edge` and to labels of `label_columns`."""
    feed = allocate(layout(len(samples), edge, len(samples[0]["pixel"]), label_columns))
    for row, one in enumerate(samples):
        fill(feed, row, int(one["index"]), one["pixel"], one["label"])
    return feed


def layout(rows: int, edge: int, height: int, label_columns: int) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of the arrays of a batch."""
    return {
        "index": ((rows,), "int64"),
        "pixel": ((rows, 1, height, edge), "uint8"),
        "width": ((rows,), "int64"),
        "label": ((rows, label_columns), "int32"),
        "label_length": ((rows,), "int64"),
    }


def fill(feed: dict[str, np.ndarray], row: int, index: int, pixels: np.ndarray, label: np.ndarray) -> None:
    """Write a word into a row of a batch."""
    width = pixels.shape[1]
    feed["index"][row] = index
    feed["pixel"][row, 0, :, :width] = pixels
    feed["pixel"][row, 0, :, width:] = 0
    feed["width"][row] = width
    feed["label"][row, : len(label)] = label
    feed["label"][row, len(label) :] = 0
    feed["label_length"][row] = len(label)


def blank(rows: int, edge: int, height: int, label_columns: int) -> dict[str, np.ndarray]:
    """A batch of no content, to compile for its shape: words of the full width, of one character each."""
    feed = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout(rows, edge, height, label_columns).items()}
    feed["width"][:] = edge
    feed["label_length"][:] = 1
    return feed


def bucket_edges(widths: np.ndarray, most: int = MOST_EDGES) -> tuple[int, ...]:
    """At most `most` widths to pad to, multiples of 16, that add the fewest columns to words of these widths."""
    multiples = -(-np.asarray(widths) // _EDGES_AT)
    candidates, counts = np.unique(multiples, return_counts=True)
    upto = np.concatenate([[0], np.cumsum(counts)])
    # cost[k]: fewest columns of the words up to candidate k, with the edges chosen so far; choice: where the last begins.
    cost = upto[1:] * candidates
    choices: list[np.ndarray] = []
    for _ in range(min(most, len(candidates)) - 1):
        before = np.concatenate([[0], cost])
        total = before[None, :-1] + (upto[1:, None] - upto[None, :-1]) * candidates[:, None]
        total = np.where(
            np.arange(len(candidates))[None] <= np.arange(len(candidates))[:, None], total, np.iinfo(int).max
        )
        choices.append(total.argmin(axis=1))
        cost = total.min(axis=1)
    edges, last = [], len(candidates) - 1
    for choice in reversed(choices):
        edges.append(int(candidates[last]))
        last = int(choice[last]) - 1
        if last < 0:
            break
    else:
        edges.append(int(candidates[last]))
    return tuple(_EDGES_AT * edge for edge in reversed(edges))
