"""Copy a data set with its training images scaled down, so that reading keeps up with a fast GPU.

    python prescale.py --data_dir ILSVRC2012 --output_dir ILSVRC2012_320
    python train.py --data_dir ILSVRC2012_320 ...

or, which makes the copy at its first start, `python train.py --data_dir ILSVRC2012 --prescale_short_side 320 ...`.

Each training image becomes a JPEG with the given short side; smaller ones are copied as they are. Test images are not
touched: the new val_list.txt names the old files, so evaluation stays exact.
"""

import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.errors import DataError, UserError
from fluid.media import decode_image
from fluid.run import progress_bar, script
from image_classification.reader import ImageList, class_names, open_images

import cv2
import numpy as np


@dataclass
class Flags:
    """Copy a data set with its training images scaled down."""

    data_dir: Path
    """Folder of the data set."""
    output_dir: Path
    """New folder to write."""
    short_side: int = 320
    """Short side of the copies in pixels; evaluation, which reads the originals, scales to 256."""
    quality: int = 92
    """JPEG quality of the copies."""
    num_workers: int = os.cpu_count() or 1
    """Images at a time."""


def main(flags: Flags) -> None:
    """Write the copy; raises UserError if the folder exists, DataError for an image that cannot be read."""
    if flags.output_dir.exists():
        raise UserError(f"{flags.output_dir} exists; choose another --output_dir")
    train, test = (open_images(flags.data_dir, split, 2**31) for split in ("train", "val"))
    partial_dir = flags.output_dir.with_name(f".{flags.output_dir.name}-{os.getpid()}")
    try:
        (partial_dir / "train").mkdir(parents=True)
        bar, task = progress_bar(len(train))
        names = []
        with ThreadPoolExecutor(flags.num_workers) as pool, bar:
            for name in pool.map(partial(scale, train, partial_dir, flags), range(len(train))):
                names.append(name)
                bar.advance(task)
        lines = [f"{name} {label}\n" for name, label in zip(names, train.labels)]
        (partial_dir / "train_list.txt").write_text("".join(lines), encoding="utf-8")
        lines = [f"{Path(test.path(index)).absolute()} {test.labels[index]}\n" for index in range(len(test))]
        (partial_dir / "val_list.txt").write_text("".join(lines), encoding="utf-8")
        if known := class_names(flags.data_dir):
            (partial_dir / "class_names.txt").write_text("\n".join(known) + "\n", encoding="utf-8")
        partial_dir.rename(flags.output_dir)
    except OSError as error:
        raise UserError(f"{flags.output_dir} cannot be written ({error.strerror})") from error
    finally:
        shutil.rmtree(partial_dir, ignore_errors=True)
    print(
        f"{flags.output_dir}: {len(train)} training images of {flags.short_side} pixels, {len(test)} test images named"
    )


def scaled_copy(data_dir: Path, short_side: int) -> Path:
    """The copy of a data set that lies beside it, `DATA_DIR_320` say, made if it is not there.

    Raises UserError if what is there is no copy of the data set as it is now, otherwise as `main`.
    """
    folder = data_dir.absolute().with_name(f"{data_dir.absolute().name}_{short_side}")
    if not folder.exists():
        print(f"copying the training images with a short side of {short_side} pixels, once", flush=True)
        main(Flags(data_dir, folder, short_side))
    copied, images = (open_images(place, "train", 2**31) for place in (folder, data_dir))
    if not np.array_equal(copied.labels, images.labels):
        raise UserError(
            f"{folder} has other training images than {data_dir} ({len(copied)} and {len(images)}, or other labels): "
            "remove it, and the next start copies them again"
        )
    return folder


def scale(images: ImageList, folder: Path, flags: Flags, index: int) -> str:
    """Write one copy below `folder`; returns its name there."""
    try:
        content = Path(images.path(index)).read_bytes()
        image = decode_image(content)
    except (OSError, DataError) as error:
        raise DataError(f"{images.where(index)}: {error}") from None
    height, width = image.shape[:2]
    factor = flags.short_side / min(height, width)
    name = f"train/{index:08d}"
    if factor >= 1:
        name += Path(images.path(index)).suffix
    else:
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        quality = [cv2.IMWRITE_JPEG_QUALITY, flags.quality]
        content = cv2.imencode(".jpg", cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR), quality)[1].tobytes()
        name += ".jpg"
    (folder / name).write_bytes(content)
    return name


def cli(argv: Sequence[str] | None = None) -> None:
    """Run with these words of a command line; None takes those of the process."""
    script(lambda: main(configuration.parse(Flags, argv)))


if __name__ == "__main__":
    cli()
