"""Make a small data set of photographs, five kinds of things, out of Debian's package of stamps for Tux Paint.

    sudo apt install tuxpaint-stamps-default          # GPL-2; none of its pictures comes along here
    ./zoo prepare image_classification stamps --output_dir stamps
    ./zoo train image_classification --data_dir stamps

Each stamp is a photograph of a thing that was cut out. It is laid over pieces of the photographs that come along, at several
places and sizes. A thing is either in train/ or in val/, never in both.
"""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import Count, Seed, parse
from fluid.errors import DataError
from fluid.media import read_image
from fluid.records import refuse_existing
from fluid.run import script
from image_classification.reader import EMBEDDED

import numpy as np
from PIL import Image

KINDS = ("animals", "food", "household", "plants", "vehicles")
MOST = 40
"""Things of a kind, so that animals are not half of all."""
SIDE = 224
TEST_EVERY = 3
"""One thing of so many is for the test."""


@dataclass
class Flags:
    """Make a data set of things over photographs."""

    output_dir: Path
    """Folder to write, which must not be there yet."""
    source_dir: Path = Path("/usr/share/tuxpaint/stamps")
    """Folder of the stamps."""
    views: Count = 3
    """Pictures of each thing."""
    seed: Seed = 0
    """Seed of places, sizes and what lies behind."""


def main(flags: Flags) -> None:
    """Write the data set. Raises UserError if the folder exists, DataError without the stamps."""
    refuse_existing(flags.output_dir)
    rng = np.random.default_rng(flags.seed)
    photographs = [read_image(path) for path in sorted((EMBEDDED / "photographs").glob("*.jpg"))]
    counts = {"train": 0, "val": 0}
    with files.new_folder(flags.output_dir) as unfinished:
        for kind in KINDS:
            for number, path in enumerate(things(flags.source_dir / kind)):
                split = "val" if number % TEST_EVERY == 0 else "train"
                with Image.open(path) as stamp:
                    thing = stamp.convert("RGBA")
                for view in range(flags.views):
                    target = unfinished / split / kind / f"{path.stem}_{view}.jpg"
                    target.parent.mkdir(parents=True, exist_ok=True)
                    laid_over(thing, photographs[rng.integers(len(photographs))], rng).save(target, quality=92)
                    counts[split] += 1
    print(f"{flags.output_dir}: {counts['train']} training and {counts['val']} test images of {', '.join(KINDS)}")


def things(folder: Path) -> Iterator[Path]:
    """The stamps of photographs below a folder, in a fixed order, those of one thing (NAME1, NAME2) by its first.

    Raises DataError if there is none.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.png")):
        # The package's drawings stand apart from its photographs.
        if "cartoon" not in path.parts and not path.stem.endswith(("_mirror", "_flip")):
            found.setdefault(re.sub(r"[\d_-]+$", "", path.stem).lower(), path)
    if not found:
        raise DataError(f"{folder}: no stamp is there; apt install tuxpaint-stamps-default, or give --source_dir")
    names = sorted(found)
    yield from (found[name] for name in names[:: max(len(names) // MOST, 1)][:MOST])


def laid_over(thing: Image.Image, photograph: np.ndarray, rng: np.random.Generator) -> Image.Image:
    """[SIDE, SIDE]: a piece of the photograph, and the thing over it, half to all of the side long."""
    height, width = photograph.shape[:2]
    side = int(rng.integers(min(height, width) // 2, min(height, width) + 1))
    top, left = rng.integers(0, height - side + 1), rng.integers(0, width - side + 1)
    behind = Image.fromarray(photograph[top : top + side, left : left + side]).resize((SIDE, SIDE))
    scale = rng.uniform(0.5, 0.95) * SIDE / max(thing.size)
    size = tuple(max(round(length * scale), 1) for length in thing.size)
    place = tuple(int(rng.integers(0, SIDE - length + 1)) for length in size)
    front = thing.resize(size, Image.Resampling.LANCZOS)
    behind.paste(front, place, front)
    return behind


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
