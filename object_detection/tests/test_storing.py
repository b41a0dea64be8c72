"""Detections in files, read back by what reads such files."""

import contextlib
import io
import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from fluid.errors import UserError
from object_detection import annotations
from object_detection.detector import COCO_CLASSES, classes_of
from object_detection.found import Found, classes_named, in_pixels
from object_detection.storing import Form, category_ids, storage

import cv2
import numpy as np
import pytest

NAMES = ("cat", "dog", "é t")
ALL: tuple[Form, ...] = ("json", "pictures", "coco", "voc", "yolo")
ROWS = np.array([[2, 0.5, -0.1, 0.25, 0.5, 1.2], [0, 0.75, 0.1, 0.2, 0.3, 0.4], [1, 0.6, 1.1, 0.2, 1.3, 0.4]])
PICTURE = np.zeros((40, 60, 3), np.uint8)


def test_pixels_names_and_order() -> None:
    """Cut at the edges, best first; what lies outside is left out."""
    best, other = in_pixels(ROWS, PICTURE, NAMES)
    assert best == Found(0, "cat", 0.75, (pytest.approx(6), pytest.approx(8), pytest.approx(18), pytest.approx(16)))
    assert other.box == pytest.approx((0, 10, 30, 40)) and other.name == "é t"
    assert in_pixels(ROWS, PICTURE, NAMES, wanted={1, 2}) == [other]
    assert in_pixels(ROWS[:0], PICTURE, NAMES) == []


def test_classes_by_name_and_number() -> None:
    assert classes_named(["dog", "2"], NAMES) == {1, 2}
    assert classes_named([], NAMES) is None
    for word in ("dgo", "3", "-1"):
        with pytest.raises(UserError, match=f"--classes {word}: no such class.* cat, dog"):
            classes_named([word], NAMES)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    with storage(folder, ALL, NAMES) as writer:
        writer.add("a/one.jpg", PICTURE, in_pixels(ROWS, PICTURE, NAMES))
        writer.add("b/one.png", PICTURE, [])
    return folder


def test_json_lines(stored: Path) -> None:
    first, second = map(json.loads, (stored / "detections.jsonl").read_text(encoding="utf-8").splitlines())
    assert (first["image"], first["width"], first["height"]) == ("a/one.jpg", 60, 40)
    assert first["detections"][0] == {"class": 0, "name": "cat", "score": 0.75, "box": [6, 8, 18, 16]}
    assert second == {"image": "b/one.png", "width": 60, "height": 40, "detections": []}


def test_pictures_of_the_same_name(stored: Path) -> None:
    assert sorted(os.listdir(stored / "pictures")) == ["one.jpg", "one_2.jpg"]


def check(data: annotations.DataSet) -> None:
    assert data.faults == []
    assert [len(item.labels) for item in data.objects] == [2, 0]
    np.testing.assert_array_equal(data.objects[0].labels, [0, 2])
    np.testing.assert_allclose(data.objects[0].pixels(), [[6, 8, 18, 16], [0, 10, 30, 40]], atol=1e-3)


def test_coco(stored: Path) -> None:
    check(annotations.read_coco(stored / "coco.json", Path()))
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(stored / "coco.json"))
        again = coco.loadRes(coco.dataset["annotations"])
    assert [item["score"] for item in again.dataset["annotations"]] == [0.75, 0.5]


def test_voc(stored: Path) -> None:
    names = (stored / "voc" / "label_list").read_text(encoding="utf-8").splitlines()
    files = [stored / "voc" / "Annotations" / name for name in ("one.xml", "one_2.xml")]
    check(annotations.read_voc(stored, [(Path("one.jpg"), file, "") for file in files], names))


def test_names_that_xml_cannot_write(tmp_path: Path) -> None:
    """Bytes that are no UTF-8, and control characters."""
    with storage(tmp_path, ["voc"], NAMES) as writer:
        writer.add(os.fsdecode(b"caf\xe9/\x01.jpg"), PICTURE, [])
    (file,) = (tmp_path / "voc" / "Annotations").iterdir()
    assert ElementTree.parse(file).findtext("path") == "caf\\udce9/\\x01.jpg"


def test_yolo(stored: Path, tmp_path: Path) -> None:
    for name in ("one", "one_2"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), PICTURE)
    names = (stored / "yolo" / "classes.txt").read_text(encoding="utf-8").splitlines()
    check(annotations.read_yolo(stored / "yolo" / "labels", tmp_path, names))


def test_coco_keeps_its_ids(tmp_path: Path) -> None:
    """Of the categories and, from the names of its files, of its pictures."""
    assert category_ids(COCO_CLASSES)[:12] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13]
    assert category_ids(COCO_CLASSES)[-1] == 90 and len(category_ids(COCO_CLASSES)) == 80
    assert category_ids(classes_of(90)) == list(range(1, 91))
    with storage(tmp_path, ["coco"], COCO_CLASSES) as writer:
        writer.add("val2017/000000000139.jpg", PICTURE, [Found(79, "toothbrush", 0.5, (1, 2, 3, 4))])
        writer.add("x/139.jpg", PICTURE, [])
    content = json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))
    assert [item["id"] for item in content["images"]] == [139, 140]
    assert content["annotations"][0]["image_id"] == 139
    assert content["annotations"][0]["category_id"] == 90
    assert content["annotations"][0]["bbox"] == [1, 2, 2, 2]


def test_what_was_added_is_there_after_an_interrupt(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), storage(tmp_path, ALL, NAMES) as writer:
        writer.add("film.mp4#0", PICTURE, [])
        raise KeyboardInterrupt
    assert len(json.loads((tmp_path / "coco.json").read_text(encoding="utf-8"))["images"]) == 1
    assert cv2.VideoCapture(str(tmp_path / "pictures" / "film.mp4")).read()[0]


def test_frames_become_a_video(tmp_path: Path) -> None:
    """As fast as the original, whatever share of its frames."""
    source = str(tmp_path / "film.avi")
    video = cv2.VideoWriter(source, cv2.VideoWriter.fourcc(*"MJPG"), 20, (60, 40))
    for _ in range(8):
        video.write(PICTURE)
    video.release()
    with storage(tmp_path, ["pictures", "json"], NAMES, frame_step=4) as writer:
        for place in (f"{source}#0", f"{source}#4", "camera:0#0"):
            writer.add(place, PICTURE, in_pixels(ROWS, PICTURE, NAMES))
    written = cv2.VideoCapture(str(tmp_path / "pictures" / "film.mp4"))
    assert written.get(cv2.CAP_PROP_FPS) == 5
    assert written.read()[0] and written.read()[0] and not written.read()[0]
    assert (tmp_path / "pictures" / "camera_0.mp4").stat().st_size > 0


def test_names_of_videos(tmp_path: Path) -> None:
    """Of the same name in several folders, and with a number sign in it."""
    with storage(tmp_path, ["pictures", "yolo"], NAMES) as writer:
        for source in ("a/film.mp4", "b/film.mp4", "a#1.avi"):
            for frame in (0, 1):
                writer.add(f"{source}#{frame}", PICTURE, [])
        writer.add("a#1.jpg", PICTURE, [])
    assert sorted(os.listdir(tmp_path / "pictures")) == ["a#1.mp4", "a#1_2.jpg", "film.mp4", "film_2.mp4"]
    assert {"film_2_000001.txt", "a#1_000000.txt", "a#1_2.txt"} < set(os.listdir(tmp_path / "yolo" / "labels"))


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), storage(tmp_path / "file", ALL, NAMES):
        pass
