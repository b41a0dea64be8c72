"""Data sets on disk: pictures and the objects in them, in the layouts of PASCAL VOC, COCO and YOLO.

    VOC    DATA_DIR/ImageSets/Main/SPLIT.txt    names of pictures, one a line
           DATA_DIR/JPEGImages/NAME.jpg, Annotations/NAME.xml
    lists  DATA_DIR/SPLIT.txt                   lines `path/of/image.jpg path/of/annotation.xml`, relative to DATA_DIR
    COCO   DATA_DIR/annotations/instances_SPLIT.json, pictures in DATA_DIR/SPLIT/
    YOLO   DATA_DIR/labels/SPLIT/*.txt, lines `class x y width height` with the centre; pictures in DATA_DIR/images/SPLIT/;
           or SPLIT/labels/ and SPLIT/images/

Names of classes: of COCO those of the JSON file, whose category ids may be any numbers; else those in DATA_DIR/label_list, or
classes.txt, one a line in the order of the classes, or in data.yaml. Class ids start at 0; background is none.

A fault of the annotations is a box without area, one that sticks out of its picture, a class that is not listed, or a
picture without size. Faults are collected with file and object; whoever opens the data decides what they mean.
"""

import dataclasses
import itertools
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fluid.errors import DataError
from fluid.media import EXTENSIONS, image_size, read_bytes, read_image, read_named
from fluid.text import decoded_lines, number_of, read_json

import numpy as np

OUTSIDE = 1.5
"""Pixels by which a box may stick out of its picture: rounding, and counting from 0 or 1."""


@dataclass(frozen=True, eq=False)
class Objects:
    """What is in a picture."""

    boxes: np.ndarray
    """[n, 4] float32, 0..1."""
    labels: np.ndarray
    """[n] int64, from 0."""
    width: int
    """Of the picture, in pixels."""
    height: int
    difficult: np.ndarray
    """Bool [n]: hardly to be recognised, as VOC marks them; they neither train nor count."""
    crowd: np.ndarray
    """Bool [n]: a group that nobody counted, as COCO marks them; they neither train nor count."""
    areas: np.ndarray
    """[n] float64: pixels that belong to the object, at most those of its box."""

    def pixels(self) -> np.ndarray:
        """The boxes in pixels, [n, 4] float64."""
        return self.boxes * np.array([self.width, self.height] * 2, np.float64)


@dataclass(frozen=True, eq=False)
class DataSet:
    """The pictures of a split."""

    origin: str
    """The file or folder that lists them."""
    images: list[str]
    """Their files."""
    objects: list[Objects]
    class_names: list[str]
    faults: list[str] = field(default_factory=list)
    """FILE: OBJECT: what is wrong; such objects are left out of `objects`."""

    def picture(self, index: int) -> np.ndarray:
        """[H, W, 3] uint8 RGB, upright. Raises DataError naming the file."""
        return read_image(self.images[index])

    def counts(self) -> dict[str, int]:
        """Objects of each class."""
        labels = np.concatenate([item.labels for item in self.objects]) if self.objects else np.zeros(0, np.int64)
        return dict(zip(self.class_names, np.bincount(labels, minlength=len(self.class_names)).tolist(), strict=True))

    def most_boxes(self, limit: int) -> int:
        """Of those that train, as many as any picture has, from 1 to `limit`."""
        counts = [int((~(item.difficult | item.crowd)).sum()) for item in self.objects]
        return min(max([1, *counts]), limit)

    def training_boxes(self) -> np.ndarray:
        """All that are neither difficult nor crowds, [n, 4]."""
        return np.concatenate([item.boxes[~(item.difficult | item.crowd)] for item in self.objects])


class Collector:
    """Takes the boxes of one picture after the other, and leaves out those with a fault."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        self.images: list[str] = []
        self.objects: list[Objects] = []
        self.faults: list[str] = []

    def picture(self, image: Path, where: str, size: tuple[int, int], rows: Iterable[dict[str, Any]]) -> None:
        """Add a picture of `size` (width, height).

        Each row has `label`, an int or None if the class is not known, `name` for messages, `box` in pixels, and optionally
        `difficult`, `crowd` and `area`.
        """
        good = []
        if min(size) < 1:
            self.faults.append(f"{where}: the picture has no size ({size[0]} x {size[1]} pixels)")
        else:
            for number, row in enumerate(rows, 1):
                fault = _fault(row, size)
                if fault is None:
                    good.append(row)
                else:
                    self.faults.append(f"{where}: object {number} ({row['name']}): {fault}")
        self.images.append(str(image))
        self.objects.append(_objects(good, size))

    def data_set(self, origin: Path) -> DataSet:
        """What was collected. Raises DataError if that is no picture."""
        if not self.images:
            raise DataError(f"{origin}: lists no picture")
        return DataSet(str(origin), self.images, self.objects, self.class_names, self.faults)


def _fault(row: dict[str, Any], size: tuple[int, int]) -> str | None:
    if row["label"] is None:
        return "there is no class of this name or number"
    xmin, ymin, xmax, ymax = row["box"]
    shown = f"box {xmin:g}, {ymin:g}, {xmax:g}, {ymax:g}"
    if not np.isfinite(row["box"]).all():
        return f"{shown} is not made of numbers"
    if not np.isfinite(row.get("area", 0)):
        return f"area {row['area']:g} is not a number"
    if xmax <= xmin or ymax <= ymin:
        return f"{shown} has no area"
    if min(xmin, ymin) < -OUTSIDE or xmax > size[0] + OUTSIDE or ymax > size[1] + OUTSIDE:
        return f"{shown} sticks out of the picture of {size[0]} x {size[1]} pixels"
    return None


def _objects(rows: Sequence[dict[str, Any]], size: tuple[int, int]) -> Objects:
    scale = np.array([*size, *size], np.float64)
    pixels = np.array([row["box"] for row in rows], np.float64).reshape(-1, 4).clip(0, scale)
    full = (pixels[:, 2] - pixels[:, 0]) * (pixels[:, 3] - pixels[:, 1])
    return Objects(
        boxes=(pixels / np.maximum(scale, 1)).astype(np.float32),
        labels=np.array([row["label"] for row in rows], np.int64),
        width=size[0],
        height=size[1],
        difficult=np.array([bool(row.get("difficult")) for row in rows], bool),
        crowd=np.array([bool(row.get("crowd")) for row in rows], bool),
        areas=np.array([row.get("area", area) for row, area in zip(rows, full, strict=True)], np.float64),
    )


def has_split(data_dir: Path, split: str) -> bool:
    """Whether `open_data` would find it."""
    files = (f"annotations/instances_{split}.json", f"ImageSets/Main/{split}.txt", f"{split}.txt")
    return any((data_dir / name).is_file() for name in files) or _yolo_folders(data_dir, split) is not None


def open_data(data_dir: Path, split: str) -> DataSet:
    """The pictures of a split, whatever the layout.

    Raises DataError if there is no such data, or a file is missing or damaged.
    """
    voc, coco = data_dir / "ImageSets" / "Main" / f"{split}.txt", data_dir / "annotations" / f"instances_{split}.json"
    listed, yolo = data_dir / f"{split}.txt", _yolo_folders(data_dir, split)
    if coco.is_file():
        return read_coco(coco, data_dir / split)
    if voc.is_file():
        # Lists of a single class have a second column: 1, 0 or -1.
        stems = [(number, line.split()[0]) for number, line in _numbered_lines(voc)]
        pairs = [
            (_picture(data_dir / "JPEGImages", stem), data_dir / "Annotations" / f"{stem}.xml", f"{voc}:{number}")
            for number, stem in stems
        ]
        return read_voc(voc, pairs, _class_names(data_dir))
    if listed.is_file():
        pairs = [(data_dir / image, data_dir / xml, where) for image, xml, where in _pairs(listed)]
        return read_voc(listed, pairs, _class_names(data_dir))
    if yolo is not None:
        return read_yolo(*yolo, _class_names(data_dir))
    raise DataError(
        f"{data_dir}: has no split {split}: none of ImageSets/Main/{split}.txt (VOC), annotations/instances_{split}.json "
        f"(COCO), labels/{split}/ (YOLO), {split}.txt (lines `image annotation.xml`)"
    )


def _yolo_folders(data_dir: Path, split: str) -> tuple[Path, Path] | None:
    """Folders of the labels and of the pictures, in either order of their names; None if there are none."""
    for labels, images in ((f"labels/{split}", f"images/{split}"), (f"{split}/labels", f"{split}/images")):
        if (data_dir / labels).is_dir():
            return data_dir / labels, data_dir / images
    return None


def _picture(folder: Path, stem: str) -> Path:
    """The file of a picture, a .jpg unless only one of another format is there."""
    paths = [folder / f"{stem}{extension}" for extension in (".jpg", *EXTENSIONS)]
    return next((path for path in paths if path.is_file()), paths[0])


def without_faults(data: DataSet, *, skip: bool) -> DataSet:
    """The same, if the faults may be passed over. Raises DataError, with the first of them, if there are any and not."""
    if data.faults and not skip:
        shown = "\n  ".join(data.faults[:10])
        raise DataError(
            f"{data.origin}: {number_of(len(data.faults), 'fault')} in the annotations; correct that, or leave such objects out "
            f"with --skip_bad_objects:\n  {shown}" + ("\n  ..." if len(data.faults) > 10 else "")
        )
    return dataclasses.replace(data, faults=[])


def read_voc(origin: Path, pairs: Sequence[tuple[Path, Path, str]], class_names: Sequence[str]) -> DataSet:
    """Pictures and their XML files: (image, annotation, who names them). Coordinates count from 1, both ends included."""
    collector = Collector(class_names)
    numbers = {name: number for number, name in enumerate(class_names)}
    for image, xml, where in pairs:
        root = _xml(xml, where)
        try:
            size = tuple(int(float(root.findtext(f"size/{side}", "0"))) for side in ("width", "height"))
            rows = []
            for item in root.iter("object"):
                name = item.findtext("name", "").strip()
                corners = [float(item.findtext(f"bndbox/{side}", "nan")) for side in ("xmin", "ymin", "xmax", "ymax")]
                rows.append(
                    {
                        "name": name,
                        "label": numbers.get(name),
                        "box": [corners[0] - 1, corners[1] - 1, corners[2], corners[3]],
                        "difficult": int(item.findtext("difficult", "0")),
                    }
                )
        except (ValueError, OverflowError) as error:
            raise DataError(f"{xml}: not an annotation of PASCAL VOC ({error})") from None
        collector.picture(image, str(xml), (size[0], size[1]), rows)
    return collector.data_set(origin)


def read_coco(path: Path, folder: Path) -> DataSet:
    """A JSON file of COCO; categories are numbered in the order of their ids. Raises DataError."""
    try:
        content = read_json(path)
        for kind in ("images", "categories"):
            if twice := _twice([item["id"] for item in content[kind]]):
                raise DataError(f"{path}: several of the {kind} have the id {twice[0]}")
        categories = sorted(content["categories"], key=lambda item: item["id"])
        numbers = {item["id"]: number for number, item in enumerate(categories)}
        names = [str(item["name"]) for item in categories]
        by_image: dict[Any, list[dict[str, Any]]] = {item["id"]: [] for item in content["images"]}
        for item in content["annotations"]:
            x, y, width, height = map(float, item["bbox"])
            label = numbers.get(item["category_id"])
            row = {
                "name": f"id {item.get('id')}, category {item['category_id']}",
                "label": label,
                "box": [x, y, x + width, y + height],
                "crowd": int(item.get("iscrowd", 0)),
                "area": float(item.get("area", width * height)),
            }
            if item["image_id"] not in by_image:
                raise DataError(
                    f"{path}: annotation {item.get('id')} is of the picture {item['image_id']}, which is not listed"
                )
            by_image[item["image_id"]].append(row)
        collector = Collector(names)
        for item in content["images"]:
            size = int(item["width"]), int(item["height"])
            collector.picture(folder / item["file_name"], f"{path}: {item['file_name']}", size, by_image[item["id"]])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: not a file of COCO's annotations ({type(error).__name__}: {error})") from None
    return collector.data_set(path)


def read_yolo(labels: Path, images: Path, class_names: Sequence[str]) -> DataSet:
    """A folder of pictures, and for each a text file of the same name; a picture without one has no objects."""
    collector = Collector(class_names)
    visible = (path for path in images.glob("*") if not path.name.startswith("."))
    for image in sorted(path for path in visible if path.suffix.lower() in EXTENSIONS):
        height, width = _size(image)
        text = labels / f"{image.stem}.txt"
        rows = []
        for number, line in _numbered_lines(text) if text.is_file() else []:
            try:
                label, x, y, w, h = (float(word) for word in line.split())
            except ValueError:
                raise DataError(f"{text}:{number}: expected `class x y width height`, got {line[:80]!r}") from None
            known = label in range(len(class_names))
            corners = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
            rows.append({"name": f"class {label:g}", "label": int(label) if known else None, "box": corners})
        collector.picture(image, str(text), (width, height), rows)
    return collector.data_set(images)


def _size(image: Path) -> tuple[int, int]:
    """Height and width from the head of the file: to decode every picture of a large set takes minutes."""
    try:
        return image_size(read_bytes(image))
    except DataError as error:
        raise DataError(f"{image}: {error}") from None


def _xml(path: Path, where: str) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_named(path))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        # The latter two: expat knows no encodings of several bytes but Unicode's, GBK for one.
        raise DataError(f"{path}: not an XML file in UTF-8 or another encoding that is known here ({error})") from None


def _pairs(path: Path) -> list[tuple[str, str, str]]:
    pairs = []
    for number, line in _numbered_lines(path):
        words = line.split()
        if len(words) != 2:
            raise DataError(f"{path}:{number}: each line must be `image annotation.xml`; got {line[:200]!r}")
        pairs.append((words[0], words[1], f"{path}:{number}"))
    return pairs


def _twice(items: Iterable[Hashable]) -> list[Any]:
    """Those that stand there more than once."""
    return [item for item, count in Counter(items).items() if count > 1]


def _class_names(data_dir: Path) -> list[str]:
    for name in ("label_list", "classes.txt"):
        if (data_dir / name).is_file():
            lines = _lines(data_dir / name)
            if twice := _twice(lines):
                raise DataError(f"{data_dir / name}: names the class {twice[0]} more than once")
            # Lists of 2018 began with the background, which has no number here.
            return [line for line in lines if line != "background"]
    if (data_dir / "data.yaml").is_file():
        return _yaml_names(data_dir / "data.yaml")
    raise DataError(
        f"{data_dir / 'label_list'}: no such file, nor classes.txt or data.yaml beside it; it names the classes, one a line, in the "
        "order of their numbers"
    )


def _yaml_names(path: Path) -> list[str]:
    """The `names` in a description of ultralytics: `[cat, dog]`, or below it lines `- cat` or `0: cat`."""
    lines = [re.sub(r"\s+#.*", "", line) for line in _lines(path)]
    text = "\n".join(lines)
    if inline := re.search(r"^names:\s*[\[{](.*?)[\]}]", text, re.DOTALL | re.MULTILINE):
        items = [item for item in inline[1].split(",") if item.strip()]
    else:
        start = lines.index("names:") + 1 if "names:" in lines else len(lines)
        items = list(itertools.takewhile(lambda line: re.match(r"-\s|\d+\s*:", line), lines[start:]))
    names: dict[int, str] = {}
    for place, item in enumerate(items):
        number = re.match(r"\s*(\d{1,6})\s*:", item)
        name = re.sub(r"^\s*(-\s|\d+\s*:)?\s*", "", item).strip().strip("'\"")
        names[int(number[1]) if number else place] = name
    if not names or sorted(names) != list(range(len(items))):
        raise DataError(
            f"{path}: names no classes that could be read; write them to {path.with_name('label_list')}, one a line"
        )
    return [names[number] for number in range(len(items))]


def _lines(path: Path) -> list[str]:
    return [line for _, line in _numbered_lines(path)]


def _numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers in the file."""
    lines = decoded_lines(read_named(path).splitlines(), str(path))
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
