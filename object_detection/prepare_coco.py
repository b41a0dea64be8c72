"""Unpack COCO into the folders that train.py and eval.py take.

    python object_detection/prepare_coco.py --source_dir ~/Downloads --output_dir data/coco
    python object_detection/train.py --data_dir data/coco --recipe 2018
    python object_detection/eval_coco_map.py --data_dir data/coco --pretrained_model MINE

SOURCE_DIR must hold, from https://cocodataset.org/#download,

    train2017.zip (18 GB), val2017.zip (1 GB), annotations_trainval2017.zip (241 MB)    (or, with --year 2014, those of 2014)

Result: OUTPUT_DIR/train2017/, OUTPUT_DIR/val2017/, OUTPUT_DIR/annotations/instances_train2017.json ...

An interrupted run is continued by the same command: a folder appears when it is complete. Without train2017.zip everything
is made for evaluation alone.
"""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.errors import DataError
from fluid.formats.archive import unpack
from fluid.records import make_folder, writing
from fluid.run import script
from fluid.text import number_of, read_json

MAX_MEMBERS = 1_000_000
"""There are 118,287 pictures in train2017."""


@dataclass
class Flags:
    """Unpack COCO."""

    source_dir: Path = Path(".")
    """Folder with the official archives."""
    output_dir: Path = Path("data/coco")
    """Folder to write; 20 GB."""
    year: Literal["2017", "2014"] = "2017"
    """Which of the two divisions into training and validation."""


def main(flags: Flags) -> dict[str, int]:
    """Unpack what is not there yet and check that all pictures are; returns how many there are of each split."""
    make_folder(flags.output_dir)
    fetch(flags, f"annotations_trainval{flags.year}", "annotations", needed=True)
    counts = {}
    for split in (f"train{flags.year}", f"val{flags.year}"):
        if fetch(flags, split, split, needed=split.startswith("val")):
            counts[split] = check(flags.output_dir, split)
            print(f"{flags.output_dir / split}: {number_of(counts[split], 'picture')}, all that are annotated")
    return counts


def fetch(flags: Flags, name: str, folder: str, *, needed: bool) -> bool:
    """Unpack NAME.zip, whose content lies in `folder`, if that is not there; whether it is there now.

    Raises DataError if the archive is needed and missing, or holds something else.
    """
    target, archive = flags.output_dir / folder, flags.source_dir / f"{name}.zip"
    if target.is_dir() and (folder != "annotations" or (target / f"instances_val{flags.year}.json").is_file()):
        return True
    if not archive.is_file():
        if needed:
            raise DataError(f"{archive}: no such file (--help says where it comes from)")
        print(f"note: {archive} is not there, so there will be no {folder}")
        return False
    print(f"unpacking {archive}")
    whole = flags.output_dir / f".{name}"
    with writing(whole):
        shutil.rmtree(whole, ignore_errors=True)
    unpack(archive, whole, max_members=MAX_MEMBERS)
    if not (whole / folder).is_dir():
        shutil.rmtree(whole)
        raise DataError(f"{archive}: has no folder {folder} in it; is this COCO's {name}.zip?")
    with writing(target):
        if not target.exists():
            os.rename(whole / folder, target)
        else:
            # Annotations of both years go into one folder.
            for path in (whole / folder).iterdir():
                os.replace(path, target / path.name)
        shutil.rmtree(whole)
    return True


def check(root: Path, split: str) -> int:
    """The number of pictures of a split. Raises DataError if one that is annotated is missing."""
    path = root / "annotations" / f"instances_{split}.json"
    try:
        names = [str(item["file_name"]) for item in read_json(path)["images"]]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not a file of COCO's annotations ({type(error).__name__}: {error})") from None
    present = set(os.listdir(root / split))
    if missing := [name for name in names if name not in present]:
        raise DataError(
            f"{root / split}: lacks {len(missing)} of {number_of(len(names), 'picture')}, {missing[0]} first; remove the folder and "
            "unpack it again"
        )
    return len(names)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
