"""Turn Fashion-MNIST (60,000 + 10,000 images, 28 x 28) into image files and lists that the reader takes.

    sudo apt install dataset-fashion-mnist
    ./zoo prepare image_classification fashion_mnist --output_dir data/fashion_mnist
    ./zoo train image_classification --data_dir data/fashion_mnist

Result:

    OUTPUT_DIR/train/00000.png ...   train_list.txt   `train/00000.png 9` ...
    OUTPUT_DIR/val/00000.png ...     val_list.txt     the 10,000 test images
    OUTPUT_DIR/class_names.txt
"""

import gzip
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import files
from fluid.config import parse
from fluid.errors import DataError
from fluid.records import refuse_existing
from fluid.run import script

import numpy as np
from PIL import Image

CLASS_NAMES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
IDX_UINT8 = 8


@dataclass
class Flags:
    """Turn Fashion-MNIST into image files and lists."""

    source_dir: Path = Path("/usr/share/datasets/fashion-mnist")
    """Folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz; the default is where the Debian package has them."""
    output_dir: Path = Path("data/fashion_mnist")
    """Folder to write, which must not be there yet."""


def read_idx(path: Path) -> np.ndarray:
    """Read a gzipped IDX file of bytes: images [N, 28, 28] or labels [N] uint8. Raises DataError if it is anything else."""
    try:
        data = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file. Install the Debian package dataset-fashion-mnist, or give --source_dir, a folder with "
            "the four files of https://github.com/zalandoresearch/fashion-mnist"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as a gzip file ({error})") from None
    if len(data) < 4 or data[:3] != bytes([0, 0, IDX_UINT8]) or len(data) < 4 + 4 * data[3]:
        raise DataError(f"{path}: is not an IDX file of bytes")
    shape = struct.unpack_from(f">{data[3]}I", data, 4)
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
    if values.size != np.prod(shape):
        raise DataError(f"{path}: holds {values.size} values, its header says {shape}")
    return values.reshape(shape)


def read_split(source_dir: Path, prefix: str) -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 28, 28] and labels [N] of "train" or "t10k". Raises DataError."""
    images = read_idx(source_dir / f"{prefix}-images-idx3-ubyte.gz")
    labels = read_idx(source_dir / f"{prefix}-labels-idx1-ubyte.gz")
    if images.ndim != 3 or labels.shape != images.shape[:1] or labels.max(initial=0) >= len(CLASS_NAMES):
        raise DataError(
            f"{source_dir}: the {prefix} images {images.shape} and labels {labels.shape} do not belong together"
        )
    return images, labels


def write_dataset(folder: Path, splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Write images, lists and class names of each split (name -> (images, labels)) into an existing empty folder."""
    for split, (images, labels) in splits.items():
        (folder / split).mkdir()
        lines = []
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{split}/{number:05d}.png"
            # Uncompressed: quicker to read, no larger on a disk of 4 KiB blocks, and the same bytes with every zlib.
            Image.fromarray(image).save(folder / name, compress_level=0)
            lines.append(f"{name} {label}\n")
        (folder / f"{split}_list.txt").write_text("".join(lines), encoding="utf-8")
    (folder / "class_names.txt").write_text("".join(f"{name}\n" for name in CLASS_NAMES), encoding="utf-8")


def main(flags: Flags) -> None:
    """Write the whole data set, completely or not at all."""
    output_dir = flags.output_dir
    refuse_existing(output_dir)
    splits = {"train": read_split(flags.source_dir, "train"), "val": read_split(flags.source_dir, "t10k")}
    with files.whole(output_dir) as unfinished:
        unfinished.mkdir()
        write_dataset(unfinished, splits)
    counts = ", ".join(f"{len(labels)} {split}" for split, (_, labels) in splits.items())
    print(f"{output_dir}: {counts} images in {len(CLASS_NAMES)} classes")


if __name__ == "__main__":
    script(lambda: main(parse(Flags)))
