"""Detections on disk: for people, for programs, and in the layouts of the data sets that detectors are trained on.

    FOLDER/detections.jsonl          a line a picture: `image`, `width`, `height`, and of each of its `detections` the `class`,
                                     `name`, `score` and `box`, in pixels
    FOLDER/pictures/NAME.jpg         drawn; of a video or a camera pictures/NAME.mp4
    FOLDER/coco.json                 images, annotations with their score, categories
    FOLDER/voc/Annotations/NAME.xml  and voc/label_list
    FOLDER/yolo/labels/NAME.txt      and yolo/classes.txt

A picture in which nothing was found has its place in each of them.
"""

import contextlib
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from fluid import files, media
from fluid.films import Add, mp4
from fluid.records import Write, json_lines, make_folder, set_aside, writing
from object_detection.detector import COCO_CLASSES, COCO_UNUSED_IDS
from object_detection.drawing import draw
from object_detection.found import Found

import cv2
import numpy as np
from PIL import Image

Form = Literal["json", "pictures", "coco", "voc", "yolo"]
WRITTEN: dict[Form, str] = {
    "json": "detections.jsonl",
    "pictures": "pictures/",
    "coco": "coco.json",
    "voc": "voc/",
    "yolo": "yolo/",
}
"""What is there of each."""
NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write; names of files may have them."""
QUALITY = 92
CAMERA_RATE = 10.0
"""Frames a second of what is written of a camera, which does not tell its own."""


class Writer(Protocol):
    """Takes what was found, picture by picture."""

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        """Of a picture [H, W, 3] uint8 RGB at `place`, as `fluid.media` calls it; `name` is free for files."""

    def close(self) -> None:
        """Finish what is open."""


class Storage:
    """Writes detections in the forms that are asked for; raises UserError if a file cannot be written."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers
        self._taken: set[str] = set()
        self._videos: dict[str, str] = {}

    def add(self, place: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        """See `Writer`."""
        name = self._name(place)
        for writer in self._writers:
            writer.add(place, name, picture, found)

    def _name(self, place: str) -> str:
        """A name for files about this picture that no other one has: people keep 1.jpg in many folders."""
        source, _, frame = place.rpartition("#")
        if not media.is_moving(source):
            return self._free(Path(place).stem)
        if source not in self._videos:
            self._videos[source] = self._free(
                source.replace(":", "_") if media.is_camera(source) else Path(source).stem
            )
        return f"{self._videos[source]}_{int(frame):06d}"

    def _free(self, stem: str) -> str:
        name, number = stem, 1
        while name in self._taken:
            number += 1
            name = f"{stem}_{number}"
        self._taken.add(name)
        return name


@contextlib.contextmanager
def storage(
    folder: Path, forms: Sequence[Form], class_names: Sequence[str], *, frame_step: int = 1
) -> Iterator[Storage]:
    """A Storage in `folder`, of every so many frames of videos; what was added is complete in it when the block ends, however it ends."""
    set_aside(folder, (WRITTEN["json"], WRITTEN["coco"]))
    with contextlib.ExitStack() as stack:
        writers: list[Writer] = []
        for form in dict.fromkeys(forms):
            if form == "json":
                writers.append(_Lines(stack.enter_context(json_lines(folder / WRITTEN[form]))))
                continue
            if form == "pictures":
                writers.append(_Pictures(make_folder(folder / WRITTEN[form]), frame_step))
            elif form == "coco":
                writers.append(_Coco(folder / WRITTEN[form], class_names))
            elif form == "voc":
                writers.append(_Voc(folder / WRITTEN[form], class_names))
            else:
                writers.append(_Yolo(folder / WRITTEN[form], class_names))
            stack.callback(writers[-1].close)
        yield Storage(writers)


def record(place: str, picture: np.ndarray, found: Sequence[Found]) -> dict[str, Any]:
    """What detections.jsonl says of a picture."""
    height, width = picture.shape[:2]
    return {"image": place, "width": width, "height": height, "detections": [item.record() for item in found]}


def category_ids(class_names: Sequence[str]) -> list[int]:
    """The ids in COCO's files: those of COCO for its own classes, with the gaps that these have; otherwise from 1 on."""
    if tuple(class_names) == COCO_CLASSES:
        return [number for number in range(1, 91) if number not in COCO_UNUSED_IDS]
    return list(range(1, len(class_names) + 1))


class _Lines:
    def __init__(self, write: Write) -> None:
        self._write = write

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        self._write(record(place, picture, found))

    def close(self) -> None:
        pass


class _Pictures:
    """Pictures one by one, and the frames of a video as a video."""

    def __init__(self, folder: Path, frame_step: int) -> None:
        self._folder, self._frame_step = folder, frame_step
        self._film = contextlib.ExitStack()
        self._add_to_film: Add | None = None
        self._source = ""
        self._size = (0, 0)

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        drawn, (source, _, number) = draw(picture, found), place.rpartition("#")
        if media.is_moving(source):
            self._add_frame(source, int(number), name, drawn)
            return
        path = self._folder / f"{name}.jpg"
        with writing(path):
            Image.fromarray(drawn).save(path, quality=QUALITY)

    def _add_frame(self, source: str, number: int, name: str, drawn: np.ndarray) -> None:
        if source != self._source or self._add_to_film is None:
            self.close()
            self._source, self._size = source, (drawn.shape[1] // 2 * 2, drawn.shape[0] // 2 * 2)
            path, rate = self._folder / f"{name.rpartition('_')[0]}.mp4", max(1.0, _rate(source) / self._frame_step)
            self._add_to_film = self._film.enter_context(mp4(path, rate))
        self._add_to_film(drawn if drawn.shape[1::-1] == self._size else cv2.resize(drawn, self._size))

    def close(self) -> None:
        self._add_to_film = None
        self._film.close()


def _rate(source: str) -> float:
    if media.is_camera(source):
        return CAMERA_RATE
    video = cv2.VideoCapture(source)
    rate = video.get(cv2.CAP_PROP_FPS)
    video.release()
    return rate if 0 < rate <= 240 else 25.0


class _Coco:
    def __init__(self, path: Path, class_names: Sequence[str]) -> None:
        self._path, self._ids = path, category_ids(class_names)
        self._categories = [{"id": number, "name": name} for number, name in zip(self._ids, class_names, strict=True)]
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._taken: set[int] = set()

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        height, width = picture.shape[:2]
        # COCO's files are called by their ids.
        image = int(name) if name.isascii() and name.isdigit() else len(self._images) + 1
        while image in self._taken:
            image += 1
        self._taken.add(image)
        self._images.append({"id": image, "file_name": place, "width": width, "height": height})
        for item in found:
            xmin, ymin, xmax, ymax = item.box
            box = [xmin, ymin, xmax - xmin, ymax - ymin]
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image,
                    "category_id": self._ids[item.label],
                    "bbox": [round(value, 2) for value in box],
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                    "score": round(item.score, 4),
                }
            )

    def close(self) -> None:
        content = {"images": self._images, "annotations": self._annotations, "categories": self._categories}
        text = json.dumps(content, ensure_ascii=False) + "\n"
        with files.whole(self._path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


class _Voc:
    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = make_folder(folder / "Annotations")
        with writing(folder):
            (folder / "label_list").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        height, width = picture.shape[:2]
        root = ElementTree.Element("annotation")
        _fields(root, filename=Path(place).name, path=place)
        _fields(ElementTree.SubElement(root, "size"), width=width, height=height, depth=3)
        for item in found:
            row = ElementTree.SubElement(root, "object")
            _fields(row, name=item.name, pose="Unspecified", truncated=0, difficult=0, score=f"{item.score:.4f}")
            # Whole pixels, counted from 1; the last one belongs to the box.
            left, top = (min(int(np.floor(item.box[axis])) + 1, (width, height)[axis]) for axis in (0, 1))
            right, bottom = (max(int(np.ceil(item.box[axis + 2])), (left, top)[axis]) for axis in (0, 1))
            _fields(ElementTree.SubElement(row, "bndbox"), xmin=left, ymin=top, xmax=right, ymax=bottom)
        ElementTree.indent(root)
        path = self._folder / f"{name}.xml"
        with writing(path):
            ElementTree.ElementTree(root).write(path, encoding="utf-8")

    def close(self) -> None:
        pass


def _fields(parent: ElementTree.Element, **values: Any) -> None:
    for name, value in values.items():
        ElementTree.SubElement(parent, name).text = NOT_IN_XML.sub(_escaped, str(value))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


class _Yolo:
    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._folder = make_folder(folder / "labels")
        with writing(folder):
            (folder / "classes.txt").write_text("".join(f"{name}\n" for name in class_names), encoding="utf-8")

    def add(self, place: str, name: str, picture: np.ndarray, found: Sequence[Found]) -> None:
        height, width = picture.shape[:2]
        lines = []
        for item in found:
            xmin, ymin, xmax, ymax = np.array(item.box) / [width, height, width, height]
            lines.append(
                f"{item.label} {(xmin + xmax) / 2:.6f} {(ymin + ymax) / 2:.6f} {xmax - xmin:.6f} {ymax - ymin:.6f}\n"
            )
        path = self._folder / f"{name}.txt"
        with writing(path):
            path.write_text("".join(lines), encoding="utf-8")

    def close(self) -> None:
        pass
