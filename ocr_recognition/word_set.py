"""Words of one height in one file of pixels and an index: written once, read by the hundred thousand a second.

FOLDER/pixels.bin       uint8, word after word, each [height, width]
FOLDER/index.npz        where each begins (int64), its width (int32), where its label begins (int64), labels (int32)
FOLDER/set.json         height, characters, number of words, what made them
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fluid import files
from fluid.arrays import read_npz
from fluid.buckets import Buckets
from fluid.errors import DataError
from fluid.records import refuse_existing
from fluid.text import number_of, read_json
from fluid.workers import Allocate
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.reader import MOST_EDGES, BucketedSource, Labelling, bucket_edges, fill, layout, unalignable

import numpy as np

VERSION = 1
_ARRAYS = ("starts", "widths", "labels", "label_starts")


@dataclass
class WordSet:
    """Pictures and labels in memory, or mapped from a file."""

    pixels: np.ndarray
    """uint8, all words one after the other."""
    starts: np.ndarray
    """Of each word in `pixels`, and the end of the last."""
    widths: np.ndarray
    labels: np.ndarray
    """int32, all labels one after the other."""
    label_starts: np.ndarray
    """Of each label in `labels`, and the end of the last."""
    height: int
    alphabet: Alphabet
    path: Path | None = None
    """File of `pixels`, mapped anew in each process."""

    def __len__(self) -> int:
        return len(self.widths)

    def picture(self, index: int) -> np.ndarray:
        """[height, width] uint8."""
        return self.pixels[self.starts[index] : self.starts[index + 1]].reshape(self.height, -1)

    def label(self, index: int) -> np.ndarray:
        """Classes [characters] int32."""
        return self.labels[self.label_starts[index] : self.label_starts[index + 1]]

    def text(self, index: int) -> str:
        """What a word says."""
        return self.alphabet.decode(self.label(index).tolist())

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | ({"pixels": None} if self.path is not None else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path is not None:
            self.pixels = np.memmap(self.path, np.uint8, "r")


def gather(words: Iterable[tuple[np.ndarray, np.ndarray]], height: int, alphabet: Alphabet) -> WordSet:
    """A set in memory of (picture [height, width] uint8, label [characters] int32)."""
    pixels, index = [], _Index()
    for picture, label in words:
        pixels.append(picture.reshape(-1))
        index.add(picture, label)
    return WordSet(np.concatenate(pixels), *index.arrays(), height, alphabet)


def write_set(
    folder: Path,
    words: Iterable[tuple[np.ndarray, np.ndarray]],
    height: int,
    alphabet: Alphabet,
    about: Mapping[str, Any],
) -> int:
    """Write a set under a folder's name, which appears when all is there; how many words it has.

    `about` joins set.json. Raises DataError if the folder exists or cannot be written.
    """
    refuse_existing(folder)
    with files.whole(folder, DataError) as partial:
        partial.mkdir()
        index = _Index()
        with open(partial / "pixels.bin", "wb") as file:
            for picture, label in words:
                file.write(picture.tobytes())
                index.add(picture, label)
            file.flush()
            os.fsync(file.fileno())
        starts, widths, labels, label_starts = index.arrays()
        np.savez(partial / "index.npz", starts=starts, widths=widths, labels=labels, label_starts=label_starts)
        described = {"version": VERSION, "height": height, "characters": alphabet.to_json(), "words": len(index.widths)}
        (partial / "set.json").write_text(json.dumps(described | dict(about), ensure_ascii=False), encoding="utf-8")
    return len(index.widths)


def is_set(folder: Path) -> bool:
    """Whether a folder holds written words."""
    return (folder / "set.json").is_file()


def read_set(folder: Path) -> WordSet:
    """Map the words of a folder. Raises DataError if it is damaged."""
    about, index = read_json(folder / "set.json"), read_npz(folder / "index.npz")
    path = folder / "pixels.bin"
    try:
        if about["version"] != VERSION:
            raise DataError(f"{folder}: is of version {about['version']}, this program reads {VERSION}; write it anew")
        alphabet = Alphabet.from_json(about["characters"])
        arrays = {name: index[name] for name in _ARRAYS}
        words = WordSet(np.memmap(path, np.uint8, "r"), **arrays, height=about["height"], alphabet=alphabet, path=path)
        if len(words.pixels) != words.starts[-1]:
            raise DataError(
                f"{path}: has {len(words.pixels)} bytes where {words.starts[-1]} belong; write the set anew"
            )
        fits = (
            np.array_equal(np.diff(words.starts, prepend=0)[1:], words.widths * words.height)
            and len(words.label_starts) == len(words.widths) + 1
            and words.label_starts[0] == 0 <= np.diff(words.label_starts).min(initial=0)
            and words.label_starts[-1] == len(words.labels)
            and 0 <= words.labels.min(initial=0) <= words.labels.max(initial=0) < len(alphabet)
        )
        if words.starts[0] or not fits:
            raise ValueError("its index does not fit")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{folder}: is not a set of written words, or damaged ({error})") from None
    return words


class SetSource(BucketedSource):
    """Batches of a set, for `fluid.data`; fields as in ocr_recognition/reader.py.

    Raises DataError if the network's alphabet lacks a character of the set's, the height differs, or a word has too few
    frames for CTC and is not to be left out.
    """

    def __init__(
        self,
        words: WordSet,
        batch_size: int,
        *,
        height: int,
        labelling: Labelling,
        buckets: int = MOST_EDGES,
        origin: str = "",
    ) -> None:
        if height != words.height:
            where = words.path.parent if words.path else "those made"
            raise DataError(
                f"{where}: the words are written {words.height} pixels high, the network takes {height}: write them anew with "
                f"--height {height}, or train one of --height {words.height}"
            )
        self.words, self.height, self.origin = (
            words,
            height,
            origin or f"{number_of(len(words), 'word')} of {words.path}",
        )
        self.classes = np.zeros(len(words.alphabet), np.int32)
        """In the network's alphabet, of the set's characters as far as they come up."""
        used = np.unique(words.labels)
        try:
            self.classes[used] = labelling.alphabet.encode(words.alphabet.decode(used.tolist()))
        except DataError as error:
            raise DataError(
                f"{self.origin}: {error} of the network; write them anew with --dict, its characters"
            ) from None
        self.left_out: list[str] = []
        self.kept = self._alignable(labelling) if labelling.columns_a_frame is not None else np.arange(len(words))
        self.label_columns = max(8, -(-int(np.diff(words.label_starts).max()) // 8) * 8)
        lengths = words.widths[self.kept].astype(np.int64)
        self.buckets = Buckets(lengths, bucket_edges(lengths, buckets), batch_size, by="rows")

    def __len__(self) -> int:
        return len(self.kept)

    @cached_property
    def texts(self) -> list[str]:
        """What each word says."""
        return [self.words.text(index) for index in self.kept.tolist()]

    def where(self, index: int) -> str:
        return f"word {self.kept[index]} of {self.words.path or 'those made'}"

    def picture(self, index: int) -> np.ndarray:
        """[height, width] uint8."""
        return self.words.picture(int(self.kept[index]))

    def load_all(self, indices: np.ndarray, whole: np.ndarray, allocate: Allocate) -> dict[str, np.ndarray]:
        feed = allocate(layout(len(indices), self.buckets.edge(whole), self.height, self.label_columns))
        for row, (index, place) in enumerate(zip(indices.tolist(), self.kept[indices].tolist())):
            fill(feed, row, index, self.words.picture(place), self.classes[self.words.label(place)])
        return feed

    def _alignable(self, labelling: Labelling) -> np.ndarray:
        words, kept = self.words, []
        for index, width in enumerate(words.widths.tolist()):
            problem = unalignable(words.label(index), width, labelling)
            if problem is None:
                kept.append(index)
                continue
            self.left_out.append(f"word {index}, {words.text(index)!r}: {problem}")
            if not labelling.skip_unalignable:
                raise DataError(f"{self.left_out[0]}; write the set anew for this network, or give --skip_unalignable")
        if not kept:
            raise DataError("CTC can align none of the words with its picture")
        return np.array(kept)


class _Index:
    """Places of words and labels as they come."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.widths: list[int] = []
        self.labels: list[np.ndarray] = []

    def add(self, picture: np.ndarray, label: np.ndarray) -> None:
        self.sizes.append(picture.size)
        self.widths.append(picture.shape[1])
        self.labels.append(label)

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        starts = np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int64)
        ends = np.concatenate([[0], np.cumsum([len(label) for label in self.labels])]).astype(np.int64)
        return starts, np.array(self.widths, np.int32), np.concatenate(self.labels), ends


def unpadded(feed: dict[str, np.ndarray]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """The (picture, label) of each row of a batch."""
    for pixel, width, label, length in zip(*(feed[name] for name in ("pixel", "width", "label", "label_length"))):
        yield pixel[0, :, : int(width)], label[: int(length)]
