"""Classes by name: which of a network's classes the labels of a data set mean. Imports no paddle."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from fluid.errors import DataError, UserError
from image_classification.classifier import Classifier
from image_classification.reader import ImageList, class_names, open_images

import numpy as np

WORDNET = re.compile(r"n\d{8}")
"""The folders of ILSVRC2012, whose order is that of the usual labels."""
SHOWN = 8


def canonical(name: str) -> str:
    """A name as it is compared: composed characters, no space around."""
    return unicodedata.normalize("NFC", name).strip()


def parse_map(words: Sequence[str]) -> dict[str, str]:
    """--class_map THEIRS=OURS ... by name of the data set. Raises UserError for what has no such form."""
    pairs = [word.partition("=") for word in words]
    if wrong := [word for word, (theirs, _, ours) in zip(words, pairs) if not (theirs and ours)]:
        raise UserError(f"--class_map {wrong[0]}: give NAME_IN_THE_DATA=CLASS_OF_THE_NETWORK")
    return {canonical(theirs): canonical(ours) for theirs, _, ours in pairs}


def labels_of(theirs: Sequence[str], ours: Sequence[str], renamed: Mapping[str, str]) -> list[int | None]:
    """The network's label for each name of the data set, None where there is none.

    A name is matched whole, or as the first of several that a class has (`tench` of `tench, Tinca tinca`), if that is one's
    alone. The same names in the same order are the same classes, also where two have one name, as the cranes of ImageNet.
    """
    names = [*map(canonical, ours)]
    numbered = len(theirs) == len(ours) and all(WORDNET.fullmatch(name) for name in theirs)
    if not renamed and (numbered or [*map(canonical, theirs)] == names):
        return list(range(len(ours)))
    whole, first = _of_one(names), _of_one([canonical(name.split(",")[0]) for name in ours])
    found = (renamed.get(canonical(name), canonical(name)) for name in theirs)
    return [whole.get(name, first.get(name)) for name in found]


def _of_one(names: Sequence[str]) -> dict[str, int]:
    """Where the names stand that occur once."""
    counts = Counter(names)
    return {name: place for place, name in enumerate(names) if counts[name] == 1}


def open_matched(
    data_dir: Path | None, split: Literal["val", "train", "test"], classifier: Classifier, class_map: Sequence[str] = ()
) -> ImageList:
    """Images under the labels that a network has for their classes; raises as `open_images` and `with_labels_of`."""
    by_name = bool(classifier.class_names and class_names(data_dir, split))
    images = open_images(data_dir, split, 2**31 if by_name else classifier.class_dim)
    return with_labels_of(images, data_dir, split, classifier.class_names, class_map)


def with_labels_of(
    images: ImageList, data_dir: Path | None, split: str, ours: Sequence[str], class_map: Sequence[str] = ()
) -> ImageList:
    """`images` under the labels that a network has for their classes, matched by name.

    Where either side has no names the labels stay as they are. Raises DataError, with the names of both sides, for classes
    that the network does not have, UserError for a --class_map that is wrong or means nothing here.
    """
    renamed, theirs = parse_map(class_map), class_names(data_dir, split)
    if not theirs or not ours:
        if renamed:
            side = "the network's classes" if theirs else f"the classes of {images.origin}"
            raise UserError(f"--class_map: {side} have no names")
        return images
    if unknown := sorted(renamed.keys() - set(map(canonical, theirs))):
        raise UserError(f"--class_map {unknown[0]}=...: the data have {listed(theirs)}")
    labels, present = labels_of(theirs, ours, renamed), np.unique(images.labels)
    if present[-1] >= len(theirs):
        raise DataError(
            f"{images.where(int(images.labels.argmax()))}: label {present[-1]} has no name; class_names.txt has {len(theirs)}: "
            "correct the label, or add its name there"
        )
    if missing := [theirs[label] for label in present if labels[label] is None]:
        raise DataError(
            f"{images.origin}: the network has no class {listed(missing)}, or several of that name. It has {listed(ours)}; the data have "
            f"{listed(theirs)}. Where a class has another name give --class_map NAME_IN_THE_DATA=CLASS_OF_THE_NETWORK"
        )
    by_label = np.array([-1 if label is None else label for label in labels], np.int64)
    return replace(images, labels=by_label[images.labels])


def listed(names: Sequence[str]) -> str:
    """Some names in a row, for a message."""
    return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
