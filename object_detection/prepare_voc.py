"""Unpack PASCAL VOC 2007 and 2012 and write the lists that train.py and eval.py take.

    python object_detection/prepare_voc.py --source_dir ~/Downloads --output_dir data/pascalvoc
    python object_detection/train.py --data_dir data/pascalvoc --recipe 2018
    python object_detection/eval.py --data_dir data/pascalvoc --split test --ap_version 11point

SOURCE_DIR must hold, from http://host.robots.ox.ac.uk/pascal/VOC/ or a mirror of it,

    VOCtrainval_06-Nov-2007.tar (439 MB), VOCtest_06-Nov-2007.tar (431 MB), VOCtrainval_11-May-2012.tar (1.9 GB)

Result, with the lists of 2018:

    OUTPUT_DIR/trainval.txt    16,551 lines `picture.jpg annotation.xml`, of both years (5,011 without 2012, which may be missing)
    OUTPUT_DIR/test.txt        4,952 lines, of 2007
    OUTPUT_DIR/label_list      the 20 classes
    OUTPUT_DIR/VOC.../         what was in the archives

An interrupted run is continued by the same command: a folder appears when it is complete, the lists appear last.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import files
from fluid.errors import DataError
from fluid.formats.archive import unpack
from fluid.media import read_named
from fluid.records import make_folder
from fluid.run import script
from fluid.text import number_of
from object_detection.detector import VOC_CLASSES

ARCHIVES = {
    "VOCtrainval_06-Nov-2007": ("VOC2007", "trainval"),
    "VOCtrainval_11-May-2012": ("VOC2012", "trainval"),
    "VOCtest_06-Nov-2007": ("VOC2007", "test"),
}
"""Name of the tar -> its folder in VOCdevkit, and its split."""
OPTIONAL = "VOCtrainval_11-May-2012"
FULL = {"trainval": 16_551, "test": 4_952}


@dataclass
class Flags:
    """Unpack PASCAL VOC 2007 and 2012 and write the lists of their pictures."""

    source_dir: Path = Path(".")
    """Folder with the three official archives."""
    output_dir: Path = Path("data/pascalvoc")
    """Folder to write; 3 GB."""


def main(flags: Flags) -> dict[str, int]:
    """Unpack what is not there yet, then write the lists; returns the pictures of each."""
    lines: dict[str, list[str]] = {split: [] for split in FULL}
    for name, (folder, split) in ARCHIVES.items():
        tar, unpacked = flags.source_dir / f"{name}.tar", flags.output_dir / name
        if not unpacked.is_dir():
            if not tar.is_file() and name == OPTIONAL:
                print(f"note: {tar} is not there; only the pictures of 2007 are listed")
                continue
            if not tar.is_file():
                raise DataError(f"{tar}: no such file (--help says where it comes from)")
            print(f"unpacking {tar}")
            make_folder(flags.output_dir)
            unpack(tar, unpacked)
        lines[split] += listed(flags.output_dir, unpacked / "VOCdevkit" / folder, split)
    for split, rows in lines.items():
        write(flags.output_dir / f"{split}.txt", rows)
    write(flags.output_dir / "label_list", VOC_CLASSES)
    for split, rows in lines.items():
        print(f"{flags.output_dir / split}.txt: {number_of(len(rows), 'picture')} (2007 and 2012 have {FULL[split]:,})")
    return {split: len(rows) for split, rows in lines.items()}


def listed(root: Path, folder: Path, split: str) -> list[str]:
    """The lines of a split's list, relative to `root`. Raises DataError if a picture or its annotation is missing."""
    stems = read_named(folder / "ImageSets" / "Main" / f"{split}.txt").decode("ascii", "replace").split()
    lines = []
    for stem in stems:
        image, xml = folder / "JPEGImages" / f"{stem}.jpg", folder / "Annotations" / f"{stem}.xml"
        for path in (image, xml):
            if not path.is_file():
                raise DataError(f"{path}: missing; remove the folder {folder.parents[1]} and unpack it again")
        lines.append(f"{image.relative_to(root)} {xml.relative_to(root)}")
    return lines


def write(path: Path, lines: Sequence[str]) -> None:
    """Write a text file under its name once it is complete."""
    with files.whole(path) as unfinished:
        unfinished.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
