"""Divide one folder of classes into training, validation and test images.

    ./zoo prepare image_classification split --source_dir PHOTOS --output_dir DATA
    ./zoo train image_classification --data_dir DATA
    ./zoo eval image_classification --data_dir DATA --split test --checkpoint output

PHOTOS/CLASS/*.jpg stay where they are: DATA gets train_list.txt, val_list.txt, test_list.txt and class_names.txt, which name them.

Every class is divided in the same shares. Where a picture goes follows from the contents of its class and the seed, not from
names; copies of a picture, by their content, are all in one part.
"""

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import Decay, Seed, parse
from fluid.errors import DataError, UserError
from fluid.files import read_plain
from fluid.records import refuse_existing
from fluid.run import script
from fluid.text import as_text, number_of
from image_classification.reader import ImageList, class_folders

PARTS = ("train", "val", "test")
Group = tuple[bytes, list[int]]
"""A content, by its hash, and the images that have it."""


@dataclass
class Flags:
    """Divide one folder of classes into training, validation and test images."""

    source_dir: Path
    """Folder with one folder of images a class."""
    output_dir: Path
    """Folder to write, which must not be there yet."""
    val_share: Decay = 0.2
    """Share of each class that becomes validation images, by which the best checkpoint is chosen."""
    test_share: Decay = 0.0
    """Share of each class that becomes test images, which a run never sees."""
    seed: Seed = 0
    """Another seed makes another division."""


def main(flags: Flags) -> None:
    """Write the lists. Raises UserError if the folder exists or shares are too large, DataError for a class that is too small."""
    refuse_existing(flags.output_dir)
    if flags.val_share + flags.test_share >= 1:
        raise UserError("--val_share and --test_share leave nothing to train on; together they must be below 1")
    images, names = class_folders(flags.source_dir)
    groups, parts = list(grouped(images)), {part: [] for part in PARTS}  # type: ignore[var-annotated]
    for label, name in enumerate(names):
        own = [group for group in groups if images.labels[group[1][0]] == label]
        for part, indices in divided(own, flags).items():
            if not indices and (part == "train" or getattr(flags, f"{part}_share")):
                raise DataError(
                    f"{flags.source_dir / name}: {number_of(len(own), 'different image')}, too few for a part `{part}`"
                )
            parts[part] += indices
    write(flags.output_dir, images, names, parts)
    shown = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
    print(f"{flags.output_dir}: {shown} images of {number_of(len(names), 'class', 'classes')}")
    if copies := len(images) - len(groups):
        print(f"in the same part as what they are copies of: {number_of(copies, 'picture')}")
    for _, indices in groups:
        if len({*images.labels[indices].tolist()}) > 1:
            print(f"note: one picture in several classes: {', '.join(images.path(index) for index in indices)}")


def grouped(images: ImageList) -> Iterator[Group]:
    """The images of each content. Raises DataError for a file that cannot be read."""
    groups: dict[bytes, list[int]] = {}
    for index in range(len(images)):
        try:
            content = read_plain(images.path(index))
        except OSError as error:
            raise DataError(f"{images.path(index)}: cannot be read ({error.strerror})") from None
        groups.setdefault(hashlib.sha256(content, usedforsecurity=False).digest(), []).append(index)
    yield from groups.items()


def divided(groups: list[Group], flags: Flags) -> dict[str, list[int]]:
    """The images of a class by part, each part's share rounded to whole contents."""
    order = sorted(groups, key=lambda group: hashlib.sha256(str(flags.seed).encode() + group[0]).digest())
    test = round(flags.test_share * len(order))
    val = round(flags.val_share * len(order))
    parts = {"test": order[:test], "val": order[test : test + val], "train": order[test + val :]}
    return {part: sorted(index for _, indices in chosen for index in indices) for part, chosen in parts.items()}


def write(folder: Path, images: ImageList, names: list[str], parts: dict[str, list[int]]) -> None:
    """The lists and the names of the classes. Raises DataError for a file whose name no list can hold."""
    for index in range(len(images)):
        path = images.path(index)
        if as_text(path) != path or path != path.strip() or "\n" in path:
            raise DataError(f"{path!r}: no list can hold this name; rename the file")
    with files.new_folder(folder) as unfinished:
        for part, indices in parts.items():
            lines = [f"{Path(images.path(index)).absolute()} {images.labels[index]}\n" for index in indices]
            if lines:
                (unfinished / f"{part}_list.txt").write_text("".join(lines), encoding="utf-8")
        (unfinished / "class_names.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
