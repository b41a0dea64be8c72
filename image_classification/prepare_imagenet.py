"""Unpack ILSVRC2012 from the three official files into the folders and lists that the reader takes.

    ./zoo prepare image_classification imagenet --source_dir ~/Downloads --output_dir data/ILSVRC2012
    ./zoo train image_classification --data_dir data/ILSVRC2012 --model ResNet50

SOURCE_DIR must hold, as https://image-net.org hands them out after registration,

    ILSVRC2012_img_train.tar (138 GB), ILSVRC2012_img_val.tar (6.3 GB), ILSVRC2012_devkit_t12.tar.gz (2.5 MB)

Result, in the layout of 2018:

    OUTPUT_DIR/train/n01440764/n01440764_10026.JPEG ...   train_list.txt   `train/n01440764/n01440764_10026.JPEG 0` ...
    OUTPUT_DIR/val/ILSVRC2012_val_00000001.JPEG ...       val_list.txt     `val/ILSVRC2012_val_00000001.JPEG 65` ...
    OUTPUT_DIR/class_names.txt

Labels number the 1,000 WordNet ids in their order, as all released weights do. An interrupted run is continued by the
same command: a folder appears under its name once it is complete, the lists appear last.
"""

import io
import os
import re
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import parse
from fluid.errors import DataError, UserError
from fluid.run import script
from fluid.text import number_of

import numpy as np
import scipy.io
from rich.progress import track

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRAIN_IMAGE = re.compile(r"n\d{8}_\d+\.JPEG")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass
class Flags:
    """Unpack ILSVRC2012 into folders and lists."""

    source_dir: Path = Path(".")
    """Folder with the three official files."""
    output_dir: Path = Path("data/ILSVRC2012")
    """Folder to write; 145 GB."""


@dataclass
class Devkit:
    """What the development kit tells."""

    ids: list[str]
    """WordNet ids in the order of the labels."""
    names: list[str]
    """Names of the classes in the same order."""
    val_labels: np.ndarray
    """Label of each validation image, in the order of their numbers."""


@contextmanager
def _open_tar(path: Path) -> Iterator[tarfile.TarFile]:
    """Open a tar; what is wrong with it, then or while it is read, becomes a DataError."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; it comes from https://image-net.org (--help says what is needed)")
    try:
        with tarfile.open(path) as archive:
            yield archive
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: damaged or not completely downloaded ({error})") from None


def read_devkit(path: Path) -> Devkit:
    """Read classes and validation labels. Raises DataError if the file is not the kit of 2012."""
    members: dict[str, bytes] = {}
    with _open_tar(path) as archive:
        for member in archive:
            name = Path(member.name).name
            if name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
                members[name] = archive.extractfile(member).read()
    try:
        synsets = np.atleast_1d(scipy.io.loadmat(io.BytesIO(members["meta.mat"]), squeeze_me=True)["synsets"])
        leaves = sorted(
            (str(row["WNID"]), str(row["words"]), int(row["ILSVRC2012_ID"]))
            for row in synsets
            if int(row["num_children"]) == 0
        )
        label_of = {number: label for label, (_, _, number) in enumerate(leaves)}
        truth = members["ILSVRC2012_validation_ground_truth.txt"].split()
        val_labels = np.array([label_of[int(number)] for number in truth])
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path}: is not the development kit of tasks 1 and 2 of 2012 ({error!r})") from None
    return Devkit([wnid for wnid, _, _ in leaves], [words for _, words, _ in leaves], val_labels)


def unpack_images(
    archive: tarfile.TarFile, members: Iterable[tarfile.TarInfo], folder: Path, pattern: re.Pattern[str], source: str
) -> None:
    """Write the images of a tar, its `members`, into a new folder, which gets its name when all are there.

    Raises DataError if the tar holds anything but files of such names.
    """
    with files.whole(folder) as unfinished:
        unfinished.mkdir()
        for member in members:
            if not member.isfile() or not pattern.fullmatch(member.name):
                raise DataError(f"{source}: holds {member.name!r}, which is not one of its images")
            content = archive.extractfile(member).read()
            if len(content) != member.size:
                raise DataError(f"{source}: ends inside {member.name}; it is not completely downloaded")
            (unfinished / member.name).write_bytes(content)


def unpack_train(tar: Path, train: Path, devkit: Devkit) -> None:
    """Unpack the tar of tars, one class after the other. Raises DataError if a class is missing or unknown."""
    with _open_tar(tar) as archive:
        for member in track(archive, "train", total=len(devkit.ids)):
            wnid = Path(member.name).stem
            if not member.isfile() or wnid not in devkit.ids:
                raise DataError(
                    f"{tar}: holds {member.name!r}, which is no tar of one of the {len(devkit.ids)} classes"
                )
            if not (train / wnid).is_dir():
                with tarfile.open(fileobj=archive.extractfile(member)) as images:
                    unpack_images(images, images, train / wnid, TRAIN_IMAGE, f"{tar}, {member.name}")
    if missing := [wnid for wnid in devkit.ids if not (train / wnid).is_dir()]:
        raise DataError(f"{tar}: {len(missing)} of {len(devkit.ids)} classes are missing, {missing[0]} first")


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Write a text file under its name once it is complete; return the number of lines."""
    text = [f"{line}\n" for line in lines]
    with files.whole(path) as unfinished:
        unfinished.write_text("".join(text), encoding="utf-8")
    return len(text)


def main(flags: Flags) -> None:
    """Unpack everything that is not there yet, then write the lists."""
    output_dir, source_dir = flags.output_dir, flags.source_dir
    devkit = read_devkit(source_dir / DEVKIT)
    try:
        unpack_train(source_dir / TRAIN_TAR, output_dir / "train", devkit)
        if not (output_dir / "val").is_dir():
            with _open_tar(source_dir / VAL_TAR) as archive:
                members = track(archive, "val", total=len(devkit.val_labels))
                unpack_images(archive, members, output_dir / "val", VAL_IMAGE, str(source_dir / VAL_TAR))
        val = sorted(os.listdir(output_dir / "val"))
        if len(val) != len(devkit.val_labels):
            raise DataError(
                f"{output_dir / 'val'}: {number_of(len(val), 'image')}, but the kit has {number_of(len(devkit.val_labels), 'label')}"
            )
        train = (
            f"train/{wnid}/{name} {label}"
            for label, wnid in enumerate(devkit.ids)
            for name in sorted(os.listdir(output_dir / "train" / wnid))
        )
        num_train = write_lines(output_dir / "train_list.txt", train)
        num_val = write_lines(
            output_dir / "val_list.txt", (f"val/{name} {label}" for name, label in zip(val, devkit.val_labels))
        )
        write_lines(output_dir / "class_names.txt", devkit.names)
    except OSError as error:
        raise UserError(f"{output_dir}: cannot be written ({error.strerror}); run again when that is cured") from None
    print(
        f"{output_dir}: {num_train:,} training and {num_val:,} validation images in {len(devkit.ids):,} classes "
        "(ILSVRC2012 has 1,281,167 and 50,000 in 1,000)"
    )


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
