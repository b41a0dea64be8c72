"""Copy a data set with its training images scaled down, so that reading keeps up with a fast GPU.

    python prescale.py --data_dir ILSVRC2012 --output_dir ILSVRC2012_320
    python train.py --data_dir ILSVRC2012_320 ...

or, which makes the copy at its first start, `python train.py --data_dir ILSVRC2012 --prescale_short_side 320 ...`.

Each training image becomes a JPEG with the given short side; smaller ones are copied as they are. Test images are not
touched: the new val_list.txt names the old files, so evaluation stays exact.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import PROCESSORS
from fluid import config as configuration
from fluid.config import Count, Range
from fluid.run import script
from image_classification.scaled import QUALITY, copy_scaled


@dataclass
class Flags:
    """Copy a data set with its training images scaled down."""

    data_dir: Path
    """Folder of the data set."""
    output_dir: Path
    """New folder to write."""
    short_side: Count = 320
    """Short side of the copies in pixels; evaluation, which reads the originals, scales to 256."""
    quality: Annotated[int, Range(1, 100)] = QUALITY
    """JPEG quality of the copies."""
    num_workers: Count = PROCESSORS
    """Images at a time."""


def main(flags: Flags) -> None:
    """Write the copy; raises UserError if the folder exists, DataError for an image that cannot be read."""
    copy_scaled(flags.data_dir, flags.output_dir, flags.short_side, flags.quality, flags.num_workers)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
