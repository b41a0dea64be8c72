"""Make the label files of Cityscapes that training needs, from polygons or from label ids, and lists of pairs.

python prepare_cityscapes.py CITYSCAPES

Writes *_gtFine_labelTrainIds.png beside the files that they are made of (0..18, 255 for what is not evaluated), and
train.list, val.list. Files that are there already stay, so it can be started again.
"""

import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import files
from fluid.config import Count, Was
from fluid.errors import DataError
from fluid.media import MAX_PIXELS
from fluid.run import console, script
from fluid.text import number_of, read_json
from icnet.classes import CITYSCAPES, IGNORE
from icnet.reader import PARTS, label_values

import numpy as np
import tyro
from PIL import Image, ImageDraw

OTHERS = (
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "parking", "rail track",
    "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer", "license plate",
)  # fmt: skip
"""Labels of polygons that are not evaluated."""


@dataclass
class Flags:
    """Prepare Cityscapes."""

    data_dir: Annotated[Path, tyro.conf.Positional] = Path("data/cityscape")
    """The folder with leftImg8bit and gtFine; by default that of 2018."""
    num_workers: Annotated[Count, Was("processes")] = 4
    """Processes that work."""


def main(flags: Flags) -> int:
    """Prepare; returns how many label files were made."""
    if not (flags.data_dir / "gtFine").is_dir():
        raise DataError(f"{flags.data_dir}: no folder gtFine there; unpack gtFine_trainvaltest.zip into it")
    sources = find_sources(flags.data_dir / "gtFine")
    if flags.num_workers > 1 and len(sources) > 8:
        with ProcessPoolExecutor(flags.num_workers, mp_context=get_context("forkserver")) as pool:
            list(pool.map(convert, sources, chunksize=8))
    else:
        for source in sources:
            convert(source)
    lists = {part: write_list(flags.data_dir, part) for part in PARTS}
    said = ", ".join(f"{part}.list of {number_of(count, 'pair')}" for part, count in lists.items() if count)
    console.print(f"{flags.data_dir}: {number_of(len(sources), 'label file')} made; {said or 'no images, so no lists'}")
    return len(sources)


def find_sources(folder: Path) -> list[Path]:
    """Polygons, else label ids, of every image that has no trainIds yet. Raises DataError if there is nothing."""
    found: dict[str, Path] = {}
    for kind in ("labelIds.png", "polygons.json"):
        found |= {path.name.removesuffix(kind): path for path in sorted(folder.glob(f"*/*/*_gtFine_{kind}"))}
    if not found:
        raise DataError(f"{folder}: neither *_gtFine_polygons.json nor *_gtFine_labelIds.png in SPLIT/CITY")
    return [path for path in found.values() if not target_of(path).is_file()]


def target_of(source: Path) -> Path:
    """The file that is made of a file of polygons or ids."""
    return source.with_name(source.name.rpartition("_")[0] + "_labelTrainIds.png")


def convert(source: Path) -> Path:
    """Write the trainIds of a file. Raises DataError for one that cannot be used, UserError where they cannot be written."""
    if source.suffix == ".json":
        label = draw_polygons(source)
    else:
        values = label_values(str(source))
        if values.ndim != 2:
            raise DataError(f"{source}: a file of colours, not of ids")
        label = CITYSCAPES.of_id[values]
    target = target_of(source)
    # A file that an interruption left half-written would be taken for a whole one by the next start.
    with files.whole(target) as unfinished:
        Image.fromarray(label).save(unfinished, "PNG")
    return target


def draw_polygons(source: Path) -> np.ndarray:
    """trainIds [H, W] uint8 of a file of polygons, later ones over earlier ones. Raises DataError naming what is wrong."""
    try:
        data = read_json(source)
        width, height = int(data["imgWidth"]), int(data["imgHeight"])
        if not (width > 0 and height > 0 and width * height <= MAX_PIXELS):
            raise ValueError(f"a picture of {width} x {height} pixels")
        picture = Image.new("L", (width, height), IGNORE)
        draw = ImageDraw.Draw(picture)
        for item in data["objects"]:
            if not item.get("deleted"):
                draw.polygon([tuple(point) for point in item["polygon"]], fill=_number(item["label"], source))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{source}: not a file of Cityscapes' polygons ({type(error).__name__}: {error})") from None
    return np.asarray(picture)


def _number(label: str, source: Path) -> int:
    """trainId of a polygon's label; that of several things that could not be told apart ends in `group`."""
    name = label if label in OTHERS else label.removesuffix("group")
    if name in CITYSCAPES.names:
        return CITYSCAPES.names.index(name)
    if name not in OTHERS:
        raise DataError(f"{source}: {label!r} is no label of Cityscapes")
    return IGNORE


def write_list(folder: Path, part: str) -> int:
    """Write PART.list, lines `image label`, of the images that have labels; returns their number."""
    lines = []
    for image in sorted((folder / "leftImg8bit" / part).glob("*/*_leftImg8bit.*")):
        label = folder / "gtFine" / part / image.parent.name
        label = label / f"{image.name.rpartition('_leftImg8bit')[0]}_gtFine_labelTrainIds.png"
        if label.is_file():
            lines.append(f"{image.relative_to(folder)}\t{label.relative_to(folder)}\n")
    if lines:
        with files.whole(folder / f"{part}.list") as unfinished:
            unfinished.write_text("".join(lines), encoding="utf-8")
    return len(lines)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
