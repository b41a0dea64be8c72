"""Which data: those that come along, or a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluid.errors import DataError
from object_detection.annotations import DataSet, has_split, open_data, without_faults
from object_detection.shapes import draw_shapes

TREES = Path(__file__).resolve().parent / "data" / "trees"
USUAL = {
    "train": ("train", "trainval", "train2017", "train2014"),
    "val": ("val", "valid", "test", "val2017", "val2014"),
}
"""Names that the parts of data sets have; the first one that there is counts."""


@dataclass
class DataFlags:
    """Which data."""

    data: Literal["shapes", "trees"] = "shapes"
    """What comes along: drawn shapes, or aerial photographs of trees."""
    data_dir: Path | None = None
    """Instead: folder of a data set in the layout of PASCAL VOC, COCO or YOLO, or with lists of pictures and XML files."""
    skip_bad_objects: bool = False
    """Leave out objects whose annotation is faulty; without it they are an error."""


def open_part(flags: DataFlags, part: Literal["train", "val"], split: str | None = None) -> DataSet:
    """The pictures for training or for evaluation, or of a split by its name, faults and all.

    Names of 2018, of lists and of COCO's files, stand for their split. Raises DataError if there is no such data.
    """
    if flags.data_dir is None and flags.data == "shapes":
        return draw_shapes(part)
    folder = flags.data_dir or TREES
    if not folder.is_dir():
        raise DataError(f"--data_dir {folder}: no such folder")
    if split is not None:
        return open_data(folder, Path(split).stem.removeprefix("instances_"))
    present = [name for name in USUAL[part] if has_split(folder, name)]
    return open_data(folder, present[0] if present else part)


def open_sound_part(flags: DataFlags, part: Literal["train", "val"], split: str | None = None) -> DataSet:
    """The same, without faulty objects if --skip_bad_objects allows that; else they are a DataError."""
    return without_faults(open_part(flags, part, split), skip=flags.skip_bad_objects)
