"""Copies of data sets with smaller training images."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from fluid import PROCESSORS, files
from fluid.errors import DataError, UserError
from fluid.files import read_plain
from fluid.media import decode_image
from fluid.records import refuse_existing
from fluid.run import progress_bar
from image_classification.reader import ImageList, class_names, open_images

import cv2
import numpy as np

QUALITY = 92


def copy_scaled(
    data_dir: Path, output_dir: Path, short_side: int, quality: int = QUALITY, num_workers: int = PROCESSORS
) -> None:
    """Write the copy; raises UserError if the folder exists, DataError for an image that cannot be read.

    Args:
        data_dir: folder of the data set.
        output_dir: folder to write.
        short_side: of the copies, in pixels.
        quality: of the JPEGs, 1 to 100.
        num_workers: images at a time.
    """
    refuse_existing(output_dir)
    train, test = (open_images(data_dir, split, 2**31) for split in ("train", "val"))
    with files.new_folder(output_dir) as unfinished:
        (unfinished / "train").mkdir()
        bar, task = progress_bar(len(train))
        names = []
        with ThreadPoolExecutor(num_workers) as pool, bar:
            for name in pool.map(partial(scale, train, unfinished, short_side, quality), range(len(train))):
                names.append(name)
                bar.advance(task)
        lines = [f"{name} {label}\n" for name, label in zip(names, train.labels)]
        (unfinished / "train_list.txt").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        lines = [f"{Path(test.path(index)).absolute()} {test.labels[index]}\n" for index in range(len(test))]
        (unfinished / "val_list.txt").write_text("".join(lines), encoding="utf-8", errors="surrogateescape")
        if known := class_names(data_dir):
            (unfinished / "class_names.txt").write_text("\n".join(known) + "\n", encoding="utf-8")
    print(f"{output_dir}: {len(train)} training images of {short_side} pixels, {len(test)} test images named")


def scaled_copy(data_dir: Path, short_side: int) -> Path:
    """The copy of a data set that lies beside it, `DATA_DIR_320` say, made if it is not there.

    Raises UserError if what is there is no copy of the data set as it is now, otherwise as `copy_scaled`.
    """
    folder = data_dir.absolute().with_name(f"{data_dir.absolute().name}_{short_side}")
    if not folder.exists():
        print(f"copying the training images with a short side of {short_side} pixels, once", flush=True)
        copy_scaled(data_dir, folder, short_side)
    copied, images = (open_images(place, "train", 2**31) for place in (folder, data_dir))
    if not np.array_equal(copied.labels, images.labels):
        raise UserError(
            f"{folder} has other training images than {data_dir} ({len(copied)} and {len(images)}, or other labels): "
            "remove it, and the next start copies them again"
        )
    return folder


def scale(images: ImageList, folder: Path, short_side: int, quality: int, index: int) -> str:
    """Write one copy below `folder`; returns its name there."""
    try:
        content = read_plain(images.path(index))
        image = decode_image(content)
    except (OSError, DataError) as error:
        raise DataError(f"{images.where(index)}: {error}") from None
    height, width = image.shape[:2]
    factor = short_side / min(height, width)
    name = f"train/{index:08d}"
    if factor >= 1:
        name += Path(images.path(index)).suffix
    else:
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR)
        content = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        name += ".jpg"
    (folder / name).write_bytes(content)
    return name
