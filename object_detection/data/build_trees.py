"""Makes trees/, the embedded data set: aerial photographs of trees with a box around each crown, in the layout of PASCAL VOC.

    pip download --no-deps --only-binary :all: deepforest==2.1.0
    python object_detection/data/build_trees.py deepforest-2.1.0-py3-none-any.whl

DeepForest (Weinstein et al., 2019) annotated photographs of the National Ecological Observatory Network (NEON). Three of them
are cut into tiles of 400 x 400 pixels: one for training, one of the same forest for validation, one of another for a last
test. A tile has the objects of which at least half lies in it.
"""

import argparse
import io
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).resolve().parent
SPLITS = {
    "train": "2019_YELL_2_528000_4978000_image_crop2",
    "val": "2019_YELL_2_541000_4977000_image_crop",
    "test": "OSBS_029",
}
TILE = 400
LEAST_SHARE = 0.5


def read(wheel: zipfile.ZipFile, name: str) -> tuple[Image.Image, np.ndarray]:
    """A photograph and its boxes in pixels, [n, 4]."""
    image = Image.open(io.BytesIO(wheel.read(f"deepforest/data/{name}.png"))).convert("RGB")
    root = ElementTree.fromstring(wheel.read(f"deepforest/data/{name}.xml"))
    sides = ("xmin", "ymin", "xmax", "ymax")
    boxes = [[float(item.findtext(side, "nan")) for side in sides] for item in root.iter("bndbox")]
    return image, np.array(boxes)


def starts(length: int) -> list[int]:
    """Where tiles begin; what is left at the end is a tile that overlaps the one before, if it is more than a third."""
    regular = list(range(0, length - TILE + 1, TILE))
    return [*regular, length - TILE] if length % TILE > TILE // 3 else regular


def tiles(image: Image.Image, boxes: np.ndarray) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """The parts that hold any object."""
    full = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for top in starts(image.height):
        for left in starts(image.width):
            own = (boxes - [left, top, left, top]).clip(0, TILE)
            sides = own[:, 2:] - own[:, :2]
            own = own[(sides > 0).all(axis=1) & (sides.prod(axis=1) >= LEAST_SHARE * full)]
            if len(own):
                yield image.crop((left, top, left + TILE, top + TILE)), own


def annotation(name: str, boxes: np.ndarray) -> bytes:
    """The XML of a tile; coordinates count from 1."""
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    for side, value in (("width", TILE), ("height", TILE), ("depth", 3)):
        ElementTree.SubElement(size, side).text = str(value)
    for corners in np.rint(boxes).astype(int):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = "tree"
        ElementTree.SubElement(item, "difficult").text = "0"
        box = ElementTree.SubElement(item, "bndbox")
        for side, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            ElementTree.SubElement(box, side).text = str(value + 1 if side.endswith("min") else value)
    ElementTree.indent(root, "")
    return ElementTree.tostring(root)


def main() -> None:
    """Cut the photographs and write the data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--target", type=Path, default=FOLDER / "trees")
    flags = parser.parse_args()
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (flags.target / folder).mkdir(parents=True, exist_ok=True)
    (flags.target / "label_list").write_text("tree\n")
    with zipfile.ZipFile(flags.wheel) as wheel:
        for split, photograph in SPLITS.items():
            names: list[str] = []
            objects = 0
            for image, boxes in tiles(*read(wheel, photograph)):
                names.append(f"{split}_{len(names):03d}")
                image.save(flags.target / "JPEGImages" / f"{names[-1]}.jpg", quality=85)
                (flags.target / "Annotations" / f"{names[-1]}.xml").write_bytes(annotation(names[-1], boxes))
                objects += len(boxes)
            (flags.target / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(names) + "\n")
            print(f"{split}: {len(names)} tiles, {objects} objects")


if __name__ == "__main__":
    main()
