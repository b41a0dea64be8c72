"""Layouts of data sets, label files and their faults, the random changes of training."""

from dataclasses import replace
from pathlib import Path

from fluid.errors import DataError
from icnet.classes import CAMVID, CITYSCAPES, CLASS_FILE, IGNORE, numbered, read_classes
from icnet.reader import (
    Augment,
    Source,
    changed,
    check,
    class_weights,
    labels_of_colors,
    open_pairs,
    read_pair,
    refuse_masks,
)
from icnet.segmenter import MEAN
from icnet.train import Flags
from icnet.train import main as train

import cv2
import numpy as np
import pytest
from PIL import Image

CLASSES = "id,name,red,green,blue\n1,ground,10,20,30\n2,thing,200,0,0\n"


def write(path: Path, array: np.ndarray, mode: str | None = None) -> Path:
    """A picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array, mode=mode).save(path)
    return path


def picture(height: int = 12, width: int = 16) -> np.ndarray:
    """Noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty pairs in images/ and labels/ of ids 1 and 2."""
    for number in range(20):
        write(tmp_path / "images" / f"{number:02}.jpg", picture())
        label = np.full((12, 16), 1, np.uint8)
        label[:4] = 2
        label[0] = 255
        write(tmp_path / "labels" / f"{number:02}.png", label)
    (tmp_path / CLASS_FILE).write_text(CLASSES)
    return tmp_path


def test_a_folder_of_pairs_is_divided(folder: Path) -> None:
    train, val = open_pairs(folder, "train"), open_pairs(folder, "val")
    assert (len(train), len(val)) == (18, 2) and not set(train.images) & set(val.images)
    assert train.classes.names == ("ground", "thing") and train.classes.ids == (1, 2)
    image, label = read_pair(train, 3)
    assert image.shape == (12, 16, 3)
    assert (label[0] == IGNORE).all() and (label[1:4] == 1).all() and (label[4:] == 0).all()


def test_parts_of_their_own(folder: Path) -> None:
    for kind in ("images", "labels"):
        for part, numbers in (("train", range(15)), ("val", range(15, 20))):
            for number in numbers:
                file = folder / kind / f"{number:02}.{'jpg' if kind == 'images' else 'png'}"
                target = folder / kind / part / file.name
                target.parent.mkdir(exist_ok=True)
                file.rename(target)
    assert (len(open_pairs(folder, "train")), len(open_pairs(folder, "val"))) == (15, 5)
    for kind in ("images", "labels"):
        (folder / kind / "val").rename(folder / kind / "test")
    with pytest.raises(DataError, match="images: has a part train/ but no val/"):
        open_pairs(folder, "val")


def test_hidden_folders_are_passed_over(folder: Path) -> None:
    """Notebooks leave copies of what they showed."""
    write(folder / "images" / ".ipynb_checkpoints" / "00-checkpoint.jpg", picture())
    (folder / "labels" / "01.png").rename(folder / "labels" / "01.PNG")
    assert len(open_pairs(folder, "train")) == 18


def test_pictures_of_one_name_have_the_labels_of_their_folder(tmp_path: Path) -> None:
    """Cameras number their pictures anew in each folder."""
    (tmp_path / CLASS_FILE).write_text(CLASSES)
    for value, city in ((1, "bonn"), (2, "ulm")):
        write(tmp_path / "images" / "train" / city / "0001.jpg", picture())
        write(tmp_path / "labels" / "train" / city / "0001_L.png", np.full((12, 16), value, np.uint8))
    pairs = open_pairs(tmp_path, "train")
    assert [int(read_pair(pairs, index)[1].max()) for index in (0, 1)] == [0, 1]
    (tmp_path / "labels" / "train" / "bonn" / "0001_L.png").unlink()
    with pytest.raises(DataError, match=r"bonn/0001.jpg: has no labels .*bonn/0001.png"):
        open_pairs(tmp_path, "train")


def test_lists_come_first(folder: Path) -> None:
    (folder / "train.list").write_text("images/00.jpg labels/00.png\n\nimages/01.jpg\tlabels/01.png\n")
    assert len(open_pairs(folder, "train")) == 2
    (folder / "train.list").write_bytes(b"\xef\xbb\xbfimages/00.jpg labels/00.png\r\n")
    assert open_pairs(folder, "train").images == (str(folder / "images" / "00.jpg"),)
    (folder / "val.list").write_text("images/00.jpg labels/00.png\nimages/nowhere.jpg labels/00.png\n")
    with pytest.raises(DataError, match=r"val.list:2: .*nowhere.jpg: no such file"):
        open_pairs(folder, "val")
    (folder / "val.list").write_text("images/00.jpg\n")
    with pytest.raises(DataError, match=r"val.list:1: each line must be `image label`"):
        open_pairs(folder, "val")


def test_camvid(tmp_path: Path) -> None:
    write(tmp_path / "train" / "a.png", picture())
    label = np.arange(12 * 16).reshape(12, 16).astype(np.uint8) % 12
    write(tmp_path / "trainannot" / "a.png", label)
    pairs = open_pairs(tmp_path, "train")
    assert pairs.classes == CAMVID
    np.testing.assert_array_equal(read_pair(pairs, 0)[1], np.where(label == 11, IGNORE, label))


def test_cityscapes_ids_and_train_ids(tmp_path: Path) -> None:
    ids = np.array([[7, 26, 0, 33]], np.uint8)
    for stem, kind, values in (("a", "labelIds", ids), ("b", "labelTrainIds", np.array([[0, 13, 255, 18]], np.uint8))):
        write(tmp_path / "leftImg8bit" / "val" / "x" / f"x_{stem}_leftImg8bit.png", picture(1, 4))
        write(tmp_path / "gtFine" / "val" / "x" / f"x_{stem}_gtFine_{kind}.png", values)
    pairs = open_pairs(tmp_path, "val")
    for index in range(2):
        assert read_pair(pairs, index)[1].tolist() == [[0, 13, 255, 18]]
    assert CITYSCAPES.to_id[[0, 13, 255, 18]].tolist() == [7, 26, 0, 33]
    write(tmp_path / "leftImg8bit" / "val" / "x" / "x_c_leftImg8bit.png", picture(1, 4))
    with pytest.raises(DataError, match=r"x_c_leftImg8bit.png: has no labels.*prepare icnet cityscapes"):
        open_pairs(tmp_path, "val")


def test_colours_are_translated(folder: Path) -> None:
    colors = np.zeros((12, 16, 3), np.uint8)
    colors[:, :8], colors[:, 8:12] = (10, 20, 30), (200, 0, 0)
    for file in (folder / "labels").iterdir():
        write(file, colors)
    label = read_pair(open_pairs(folder, "train"), 0)[1]
    assert (label[:, :8] == 0).all() and (label[:, 8:12] == 1).all() and (label[:, 12:] == IGNORE).all()
    label, unknown = labels_of_colors(np.full((2, 2, 3), 77, np.uint8), numbered(3))
    assert unknown == 4 and (label == IGNORE).all()


def test_classes_of_one_colour_cannot_be_told_from_colours(folder: Path) -> None:
    (folder / CLASS_FILE).write_text("1,ground,10,20,30\n2,thing,10,20,30\n")
    assert (read_pair(open_pairs(folder, "train"), 0)[1][4:] == 0).all()
    write(folder / "labels" / "00.png", np.full((12, 16, 3), (10, 20, 30), np.uint8))
    write(folder / "labels" / "01.png", np.full((12, 16, 3), (10, 20, 30), np.uint8))
    pairs = open_pairs(folder, "train")
    with pytest.raises(DataError, match=r"00.png: ground, thing have a colour that is not theirs alone"):
        read_pair(pairs, 0)
    assert "01.png: ground, thing have a colour that is not theirs alone" in check(pairs).faults[1]


def test_ids_of_sixteen_bits_are_those_of_eight(folder: Path) -> None:
    write(folder / "labels" / "00.png", np.full((12, 16), 2, np.uint16))
    assert (read_pair(open_pairs(folder, "train"), 0)[1] == 1).all()
    write(folder / "labels" / "00.png", np.full((12, 16), 300, np.uint16))
    assert "00.png: not a readable picture of labels (holds the id 300" in check(open_pairs(folder, "train")).faults[0]


def test_palette_pictures_are_ids(folder: Path) -> None:
    image = Image.fromarray(np.full((12, 16), 2, np.uint8), mode="P")
    image.putpalette([0, 0, 0, 9, 9, 9, 50, 60, 70])
    image.save(folder / "labels" / "00.png")
    assert (read_pair(open_pairs(folder, "train"), 0)[1] == 1).all()


def test_zero_as_nothing(folder: Path) -> None:
    (folder / CLASS_FILE).write_text("0,ground,1,2,3\n1,thing,4,5,6\n")
    write(folder / "labels" / "00.png", np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 12, 0).repeat(4, 1))
    label = read_pair(open_pairs(folder, "train", reduce_zero_label=True), 0)[1]
    assert label[0, ::4].tolist() == [IGNORE, 0, 1, IGNORE]


def test_every_fault_is_found(folder: Path) -> None:
    write(folder / "labels" / "00.png", np.full((12, 16), 7, np.uint8))
    write(folder / "labels" / "01.png", np.full((6, 16), 1, np.uint8))
    write(folder / "labels" / "02.png", np.repeat(np.array([[0, 255]], np.uint8), 12, 0).repeat(8, 1))
    write(folder / "labels" / "03.png", np.full((12, 16, 3), 1, np.uint8))
    (folder / "labels" / "04.png").write_bytes(b"no picture")
    (folder / "images" / "05.jpg").write_bytes(b"")
    findings = check(open_pairs(folder, "train"))
    said = "\n".join(findings.faults)
    assert "00.png: holds 7, which is no class (1..2" in said
    assert "01.png: is 16 x 6, its image" in said
    assert "02.png: holds 0" in said
    assert "03.png: is a grey picture saved in colour" in said
    assert "04.png: not a readable picture of labels" in said and "05.jpg: not a readable picture" in said
    assert findings.pixels[0] > 0 and findings.pixels[IGNORE] > 0
    with pytest.raises(DataError, match="holds 7, which is no class"):
        read_pair(open_pairs(folder, "train"), 0)
    with pytest.raises(DataError, match="is 16 x 6, its image"):
        read_pair(open_pairs(folder, "train"), 1)


def test_a_mask_of_0_and_255_gets_advice(folder: Path) -> None:
    (folder / CLASS_FILE).write_text("0,ground,1,2,3\n255,thing,4,5,6\n")
    for file in (folder / "labels").iterdir():
        write(file, np.full((12, 16), 200, np.uint8))
    assert "map 255 to 1" in check(open_pairs(folder, "train")).faults[0]


def test_masks_of_255_that_would_all_be_ignored_get_advice(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / CLASS_FILE).write_text("0,ground,1,2,3\n1,thing,4,5,6\n")
    mask = np.repeat(np.array([[0, 255]], np.uint8), 12, 0).repeat(8, 1)
    for file in (folder / "labels").iterdir():
        write(file, mask)
    pairs = open_pairs(folder, "train")
    assert "no pixel is thing, and 1,728 are ignored. Of a mask of 0 and 255, map 255 to 1" in check(pairs).faults[-1]
    for flags in (Flags(), Flags(balance=0), Flags(check_data=True)):
        with pytest.raises(DataError, match="no pixel is thing|2 faults in the label files"):
            train(replace(flags, data_dir=folder, output_dir=folder / "run"))
    assert "no pixel is thing" in capsys.readouterr().out
    Image.fromarray(mask).convert("1").save(folder / "labels" / "00.png")
    assert read_pair(pairs, 0)[1][0, 8:].tolist() == [1] * 8
    assert check(pairs).faults == []
    refuse_masks(pairs)


def test_what_lacks_is_named(folder: Path) -> None:
    (folder / "labels" / "03.png").unlink()
    with pytest.raises(DataError, match=r"03.jpg: has no labels"):
        open_pairs(folder, "train")
    (folder / CLASS_FILE).write_text("1;ground\n")
    with pytest.raises(DataError, match=rf"{CLASS_FILE}:1: each line must be id,name,red,green,blue"):
        open_pairs(folder, "train")
    (folder / CLASS_FILE).unlink()
    write(folder / "labels" / "03.png", np.ones((12, 16), np.uint8))
    with pytest.raises(DataError, match=f"{CLASS_FILE} is missing"):
        open_pairs(folder, "train")
    with pytest.raises(DataError, match="has neither train.list nor"):
        open_pairs(folder / "labels", "train")


def test_class_files_may_have_a_head_and_comments(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("# mine\n3,road,1,2,3\n9,car,4,5,6\n")
    classes = read_classes(tmp_path / "c.csv")
    assert (classes.names, classes.ids) == (("road", "car"), (3, 9))
    (tmp_path / "c.csv").write_text("3,road,1,2,3\n3,car,4,5,6\n")
    with pytest.raises(DataError, match="differ"):
        read_classes(tmp_path / "c.csv")


def test_no_class_is_lost_to_a_byte_order_mark_or_a_slip(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_bytes(b"\xef\xbb\xbf0,road,1,2,3\r\n1,car,4,5,6\r\n")
    assert read_classes(tmp_path / "c.csv").names == ("road", "car")
    for content, said in (
        ("O,road,1,2,3\n1,car,4,5,6\n", "c.csv:1: each line must be"),
        ("id,name,red,green,blue\n", "names no class"),
        ("0,stra\xdfe,1,2,3\n", "c.csv:1: is not UTF-8"),
    ):
        (tmp_path / "c.csv").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=said):
            read_classes(tmp_path / "c.csv")


def test_images_and_labels_change_alike() -> None:
    """A label that says how bright the image is there says so afterwards."""
    columns = np.repeat(np.arange(8), 16)[None].repeat(64, axis=0)
    image = (columns * 30).astype(np.uint8)[:, :, None].repeat(3, axis=2)
    for seed in range(6):
        augment = Augment((48, 80), (0.5, 2.0), flip=True)
        new, label = changed(image, columns.astype(np.uint8), augment, np.random.default_rng(seed))
        assert new.shape == (48, 80, 3) and label.shape == (48, 80)
        inside = label != IGNORE
        right = np.abs(new[:, :, 0].astype(int) - label.astype(int) * 30) <= 15
        assert right[inside].mean() > 0.95
        # But for the edge, where the image and the mean are mixed.
        outside = cv2.erode((~inside).astype(np.uint8), np.ones((5, 5), np.uint8)) == 1
        assert (new[outside] == np.round(MEAN)).all()


def test_nothing_changes_without_chance() -> None:
    image, label = picture(20, 30), np.random.default_rng(1).integers(0, 5, (20, 30)).astype(np.uint8)
    new, same = changed(image, label, Augment((20, 30), (1.0, 1.0), flip=False), np.random.default_rng(0))
    np.testing.assert_array_equal(new, image)
    np.testing.assert_array_equal(same, label)


def test_colours_change_within_bounds() -> None:
    image, label = picture(40, 40), np.zeros((40, 40), np.uint8)
    augment = Augment((40, 40), (1.0, 1.0), flip=False, color=0.3)
    means = [changed(image, label, augment, np.random.default_rng(seed))[0].mean() for seed in range(30)]
    assert np.std(means) > 8 and min(means) > 80 and max(means) < 180
    augment = Augment((40, 40), (1.0, 1.0), flip=False, cast=0.2)
    seen = [changed(image, label, augment, np.random.default_rng(seed))[0].mean(axis=(0, 1)) for seed in range(30)]
    share = np.array(seen) / image.mean(axis=(0, 1))
    assert share.std(axis=1).min() > 0.01 and 0.78 < share.min() < 0.9 and 1.1 < share.max() < 1.22


def test_samples_for_the_readers(folder: Path) -> None:
    source = Source(open_pairs(folder, "train"), only=[4, 2])
    assert len(source) == 2 and source.where(0).endswith("04.jpg")
    sample = source.load(1, np.random.default_rng(0))
    assert sample["image"].dtype == sample["label"].dtype == np.uint8


def test_rare_classes_weigh_more() -> None:
    weights = class_weights(np.array([9000, 900, 100, 0]))
    assert weights == sorted(weights) and weights[0] == pytest.approx(1 / np.log(1.92)) and np.isfinite(weights).all()
    nearer = class_weights(np.array([9000, 900, 100, 0]), 0.5)
    np.testing.assert_allclose(np.square(nearer), weights)
