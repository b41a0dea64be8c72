"""Data sets in every layout, their faults, and what augmentation does to boxes."""

import json
import subprocess
import sys
from pathlib import Path

from fluid.data import training_batches
from fluid.errors import DataError
from object_detection import reader
from object_detection.annotations import has_split, open_data, without_faults
from object_detection.reader import Augment, DetectionSource, augmented, report

import numpy as np
import pytest
from PIL import Image

SIZE = (40, 20)
"""Width and height of the pictures."""
BOXES = [("cat", (4, 2, 24, 12), 0), ("dog", (0, 0, 40, 20), 1)]
"""Name, corners in pixels from 0, difficult."""


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3)).astype(np.uint8)).save(path)


def voc_xml(boxes: list = BOXES, size: tuple[int, int] = SIZE) -> str:
    objects = "".join(
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2), difficult in boxes
    )
    return f"<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def voc(folder: Path, xml: str | None = None) -> Path:
    write(folder / "label_list", "background\ncat\ndog\n")
    write(folder / "ImageSets" / "Main" / "train.txt", "one\ntwo\n")
    write(folder / "Annotations" / "one.xml", xml or voc_xml())
    write(folder / "Annotations" / "two.xml", voc_xml([]))
    for name in ("one", "two"):
        picture(folder / "JPEGImages" / f"{name}.jpg")
    return folder


def lists(folder: Path) -> Path:
    write(folder / "label_list", "cat\ndog\n")
    write(folder / "train.txt", "a/one.jpg b/one.xml\na/two.jpg b/two.xml\n")
    write(folder / "b" / "one.xml", voc_xml())
    write(folder / "b" / "two.xml", voc_xml([]))
    for name in ("one", "two"):
        picture(folder / "a" / f"{name}.jpg")
    return folder


def coco(folder: Path) -> Path:
    content = {
        "categories": [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}],
        "images": [{"id": k, "file_name": f"{n}.jpg", "width": 40, "height": 20} for k, n in ((5, "one"), (3, "two"))],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 7, "bbox": [4, 2, 20, 10], "area": 99, "iscrowd": 0},
            {"id": 2, "image_id": 5, "category_id": 90, "bbox": [0, 0, 40, 20], "area": 800, "iscrowd": 1},
        ],
    }
    write(folder / "annotations" / "instances_train.json", json.dumps(content))
    for name in ("one", "two"):
        picture(folder / "train" / f"{name}.jpg")
    return folder


def yolo(folder: Path) -> Path:
    write(folder / "label_list", "cat\ndog\n")
    write(folder / "labels" / "train" / "one.txt", "0 0.35 0.35 0.5 0.5\n1 0.5 0.5 1 1\n")
    for name in ("one", "two"):
        picture(folder / "images" / "train" / f"{name}.png")
    return folder


def yolo_by_split(folder: Path) -> Path:
    write(folder / "data.yaml", "train: ../train/images  # where they are\nnc: 2\nnames: ['cat', \"dog\"]\n")
    write(folder / "train" / "labels" / "one.txt", "0 0.35 0.35 0.5 0.5\n1 0.5 0.5 1 1\n")
    for name in ("one", "two"):
        picture(folder / "train" / "images" / f"{name}.jpeg")
    return folder


def voc_of_png(folder: Path) -> Path:
    voc(folder)
    for name in ("one", "two"):
        (folder / "JPEGImages" / f"{name}.jpg").unlink()
        picture(folder / "JPEGImages" / f"{name}.png")
    return folder


@pytest.mark.parametrize("layout", [voc, voc_of_png, lists, coco, yolo, yolo_by_split])
def test_layouts(tmp_path: Path, layout) -> None:
    data = open_data(layout(tmp_path), "train")
    assert data.faults == [] and data.class_names == ["cat", "dog"]
    assert data.counts() == {"cat": 1, "dog": 1}
    assert [Path(path).stem for path in data.images] == ["one", "two"]
    first, second = data.objects
    np.testing.assert_allclose(first.boxes, [[0.1, 0.1, 0.6, 0.6], [0, 0, 1, 1]], atol=1e-6)
    np.testing.assert_allclose(first.pixels(), [box for _, box, _ in BOXES], atol=1e-5)
    assert first.labels.tolist() == [0, 1] and (first.width, first.height) == SIZE
    assert first.difficult.tolist() == [False, layout in (voc, voc_of_png, lists)]
    assert first.crowd.tolist() == [False, layout is coco]
    assert first.areas.tolist() == [99 if layout is coco else 200, 800]
    assert second.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    "box, message",
    [
        (("cat", (4, 2, 4, 12), 0), r"one.xml: object 2 \(cat\): box 4, 2, 4, 12 has no area"),
        (("cat", (20, 12, 4, 2), 0), "has no area"),
        (("cat", (4, 2, 50, 12), 0), "sticks out of the picture of 40 x 20 pixels"),
        (("cow", (4, 2, 24, 12), 0), r"object 2 \(cow\): there is no class of this name"),
    ],
)
def test_faults_are_named_and_refused_or_left_out(tmp_path: Path, box, message: str) -> None:
    data = open_data(voc(tmp_path, voc_xml([BOXES[0], box])), "train")
    with pytest.raises(DataError, match=message):
        without_faults(data, skip=False)
    kept = without_faults(data, skip=True)
    assert len(kept.objects[0].labels) == 1 and kept.faults == []
    assert any("1 fault" in line and "1 faults" not in line for line in report(data, 0.5, 0.9))
    assert any("priors auto" in line for line in report(data, 0.5, 0.9))
    assert not any("priors auto" in line for line in report(data, 0.95, 0.9))


def test_data_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no split val"):
        open_data(voc(tmp_path), "val")
    (tmp_path / "Annotations" / "two.xml").unlink()
    with pytest.raises(DataError, match=r"train.txt:2: .*two.xml: no such file"):
        open_data(tmp_path, "train")
    write(tmp_path / "Annotations" / "two.xml", "<annotation>")
    with pytest.raises(DataError, match="two.xml: not an XML file"):
        open_data(tmp_path, "train")


@pytest.mark.parametrize("encoding", ["gbk", "nonsense"])
def test_encodings_that_expat_does_not_know(tmp_path: Path, encoding: str) -> None:
    folder = voc(tmp_path, f'<?xml version="1.0" encoding="{encoding}"?>{voc_xml()}')
    with pytest.raises(DataError, match="one.xml: not an XML file in UTF-8 or another encoding"):
        open_data(folder, "train")


@pytest.mark.parametrize("kind", ["images", "categories"])
def test_ids_of_coco_are_unique(tmp_path: Path, kind: str) -> None:
    path = coco(tmp_path) / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    content[kind][1]["id"] = content[kind][0]["id"]
    write(path, json.dumps(content))
    with pytest.raises(DataError, match=f"several of the {kind} have the id {content[kind][0]['id']}"):
        open_data(tmp_path, "train")


def test_areas_of_coco_that_are_no_numbers(tmp_path: Path) -> None:
    path = coco(tmp_path) / "annotations" / "instances_train.json"
    write(path, path.read_text().replace('"area": 99', '"area": NaN'))
    (fault,) = open_data(tmp_path, "train").faults
    assert "object 1 (id 1, category 7): area nan is not a number" in fault


def test_names_of_classes_are_different(tmp_path: Path) -> None:
    write(voc(tmp_path) / "label_list", "cat\ndog\ncat\n")
    with pytest.raises(DataError, match="label_list: names the class cat more than once"):
        open_data(tmp_path, "train")


@pytest.mark.parametrize(
    "text",
    [
        "names:\n  - cat\n  - dog # a pet\nnc: 2\n",
        "nc: 2\nnames:\n  0: cat\n  1: 'dog'\n",
        "names: {0: cat, 1: dog}\n",
        "names:\n  1: dog\n  0: cat\n",
    ],
)
def test_names_of_classes_in_yaml(tmp_path: Path, text: str) -> None:
    write(yolo_by_split(tmp_path) / "data.yaml", text)
    assert has_split(tmp_path, "train") and not has_split(tmp_path, "valid")
    assert open_data(tmp_path, "train").class_names == ["cat", "dog"]


@pytest.mark.parametrize("numbers", ["  0: cat\n  2: dog\n", "  1: cat\n  1: dog\n"])
def test_numbers_in_yaml_leave_no_gap(tmp_path: Path, numbers: str) -> None:
    write(yolo_by_split(tmp_path) / "data.yaml", f"names:\n{numbers}")
    with pytest.raises(DataError, match="data.yaml: names no classes that could be read"):
        open_data(tmp_path, "train")


def test_names_of_classes_that_are_nowhere(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "label_list").rename(tmp_path / "classes.txt")
    assert open_data(tmp_path, "train").class_names == ["cat", "dog"]
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(DataError, match="label_list: no such file, nor classes.txt or data.yaml beside it"):
        open_data(tmp_path, "train")
    write(tmp_path / "data.yaml", "nc: 2\n")
    with pytest.raises(DataError, match="data.yaml: names no classes that could be read; write them to .*label_list"):
        open_data(tmp_path, "train")


def test_broken_coco_and_yolo(tmp_path: Path) -> None:
    write(coco(tmp_path / "coco") / "annotations" / "instances_train.json", "{}")
    with pytest.raises(DataError, match="instances_train.json: not a file of COCO"):
        open_data(tmp_path / "coco", "train")
    write(yolo(tmp_path / "yolo") / "labels" / "train" / "one.txt", "\n0 0.5\n")
    with pytest.raises(DataError, match=r"one.txt:2: expected"):
        open_data(tmp_path / "yolo", "train")
    write(tmp_path / "yolo" / "labels" / "train" / "one.txt", "")
    (tmp_path / "yolo" / "images" / "train" / "two.png").write_bytes(b"")
    with pytest.raises(DataError, match="two.png: "):
        open_data(tmp_path / "yolo", "train")


def test_lines_of_lists_are_those_of_the_file(tmp_path: Path) -> None:
    write(lists(tmp_path / "lists") / "train.txt", "\n\none.jpg\n")
    with pytest.raises(DataError, match="train.txt:3: each line must be"):
        open_data(tmp_path / "lists", "train")
    write(voc(tmp_path / "voc") / "ImageSets" / "Main" / "train.txt", "one\n\nnowhere\n")
    with pytest.raises(DataError, match="train.txt:3: .*nowhere.xml"):
        open_data(tmp_path / "voc", "train")


def test_pictures_of_yolo_are_not_decoded_to_know_their_size(tmp_path: Path) -> None:
    """A cut-off one is found when it is read, which training bears."""
    path = yolo(tmp_path) / "images" / "train" / "two.png"
    path.write_bytes(path.read_bytes()[:200])
    path.with_name("._two.png").write_bytes(b"what macOS writes beside it on foreign disks")
    data = open_data(tmp_path, "train")
    assert len(data.images) == 2
    assert (data.objects[1].width, data.objects[1].height) == SIZE
    with pytest.raises(DataError, match="two.png"):
        data.picture(1)


def drawn(boxes: np.ndarray) -> np.ndarray:
    """A black picture with a box of one colour each."""
    image = np.zeros((120, 160, 3), np.uint8)
    for number, corners in enumerate(boxes):
        x1, y1, x2, y2 = np.rint(corners * [160, 120, 160, 120]).astype(int)
        image[y1:y2, x1:x2, number] = 255
    return image


@pytest.mark.parametrize("turn", [False, True])
def test_boxes_follow_their_pixels(turn: bool) -> None:
    """What is drawn into a picture is found again where the augmented boxes are."""
    boxes = np.array([[0.1, 0.1, 0.35, 0.4], [0.5, 0.2, 0.9, 0.5], [0.2, 0.6, 0.8, 0.95]], np.float32)
    image, labels = drawn(boxes), np.arange(3)
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(150):
        augment = Augment(distort=0.0, expand_ratio=2.0, turn=turn)
        changed, moved, kept = augmented((image, boxes, labels), augment, 200, rng)
        assert changed.shape == (200, 200, 3) and len(moved) == len(kept) >= 1
        assert (moved >= 0).all() and (moved <= 1).all()
        for corners, label in zip(moved, kept, strict=True):
            others = [k for k in range(3) if k != label]
            colour = (changed[:, :, label] > 160) & (changed[:, :, others] < 100).all(axis=2)
            rows, columns = np.where(colour.any(axis=1))[0], np.where(colour.any(axis=0))[0]
            found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / 200
            np.testing.assert_allclose(corners, found, atol=0.05)
            seen += 1
    assert seen > 200


def test_distortion_keeps_boxes_and_changes_colours() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 30, 3)).astype(np.uint8)
    still = Augment(distort=0.0, expand=0.0, crop=False, flip=0.0)
    box = np.array([[0.1, 0.2, 0.5, 0.6]], np.float32)
    same, boxes, _ = augmented((image, box, np.zeros(1)), still, 30, np.random.default_rng(1))
    np.testing.assert_array_equal(same, image)
    np.testing.assert_array_equal(boxes, box)
    changed = reader.distorted(image, Augment(distort=1.0), np.random.default_rng(1))
    assert 5 < np.abs(changed.astype(int) - image).mean() < 100
    nothing = Augment(distort=1.0, brightness=0, contrast=0, saturation=0, hue=0)
    same = reader.distorted(image, nothing, np.random.default_rng(1))
    assert np.abs(same.astype(int) - image).max() <= 1


def test_samples_of_training_and_evaluation(tmp_path: Path) -> None:
    data = open_data(voc(tmp_path), "train")
    sample = DetectionSource(data, 32).load(0, np.random.default_rng(0))
    assert sample["image"].shape == (32, 32, 3) and sample["index"] == 0 and "boxes" not in sample
    still = Augment(distort=0.0, expand=0.0, crop=False, flip=0.0)
    sample = DetectionSource(data, 32, max_boxes=3, augment=still).load(0, np.random.default_rng(0))
    # The dog is difficult.
    assert sample["labels"].tolist() == [0, -1, -1]
    np.testing.assert_allclose(sample["boxes"], [[0.1, 0.1, 0.6, 0.6], [0] * 4, [0] * 4], atol=1e-6)
    (batch,) = training_batches(DetectionSource(data, 32, augment=Augment()), 2, seed=0, num_epochs=1)
    assert batch.feed["boxes"].shape == (2, 100, 4) and batch.feed["image"].dtype == np.uint8


def test_pictures_of_small_data_sets_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept is not changed by augmentation; what is beyond the limit is read again."""
    data = open_data(voc(tmp_path), "train")
    source = DetectionSource(data, 32, augment=Augment(distort=1.0))
    samples = [source.load(0, np.random.default_rng(seed)) for seed in (0, 1)]
    monkeypatch.setattr(reader, "KEPT_BYTES", 0)
    fresh = DetectionSource(data, 32, augment=Augment(distort=1.0))
    Path(data.images[0]).unlink()
    again = source.load(0, np.random.default_rng(0))
    assert all(np.array_equal(again[name], array) for name, array in samples[0].items())
    assert not np.array_equal(samples[0]["image"], samples[1]["image"])
    with pytest.raises(DataError):
        fresh.load(0, np.random.default_rng(0))


def test_of_too_many_boxes_the_largest_stay() -> None:
    boxes = np.array([[0, 0, 0.1, 0.1], [0, 0, 0.5, 0.5], [0, 0, 0.2, 0.2]], np.float32)
    padded, labels = reader.pad(boxes, np.array([4, 5, 6]), 2)
    assert labels.tolist() == [5, 6]
    np.testing.assert_array_equal(padded, boxes[1:])


def test_a_picture_of_another_shape_than_annotated(tmp_path: Path) -> None:
    data = open_data(voc(tmp_path, voc_xml([], size=(20, 40))), "train")
    with pytest.raises(DataError, match="is 40 x 20 pixels, annotated as 20 x 40"):
        DetectionSource(data, 32).load(0, np.random.default_rng(0))


def test_turned_pictures_are_read_upright(tmp_path: Path) -> None:
    """Annotations are of the picture as people see it."""
    folder = voc(tmp_path, voc_xml([("cat", (0, 0, 10, 20), 0)], size=(20, 40)))
    image = np.zeros((20, 40, 3), np.uint8)
    # Turned by 90 degrees clockwise the lower left becomes the upper left.
    image[10:, :20] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(folder / "JPEGImages" / "one.jpg", exif=exif, quality=95)
    sample = DetectionSource(open_data(folder, "train"), 20).load(0, np.random.default_rng(0))
    assert (sample["image"][:9, :9] > 200).all() and (sample["image"][11:, 11:] < 50).all()


def test_reader_processes_need_neither_paddle_nor_jax() -> None:
    code = "import sys, object_detection.reader; sys.exit('paddle' in sys.modules or 'jax' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
