"""The scaled copy of a data set: smaller training images, the same test images, nothing half-written."""

from pathlib import Path

from fluid.errors import DataError, UserError
from fluid.media import decode_image
from image_classification import prescale, scaled
from image_classification import train as training
from image_classification.prescale import Flags
from image_classification.reader import open_images

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, (height, width) in {"large.jpg": (300, 400), "small.png": (20, 30), "test.jpg": (300, 400)}.items():
        Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)).save(folder / name)
    (folder / "train_list.txt").write_text("large.jpg 0\nsmall.png 1\n")
    (folder / "val_list.txt").write_text("test.jpg 1\n")
    (folder / "class_names.txt").write_text("a\nb\n")
    return folder


def test_training_images_shrink_and_test_images_stay(data, tmp_path):
    prescale.main(Flags(data, tmp_path / "copy", short_side=150))
    train, test = (open_images(tmp_path / "copy", split, 2) for split in ("train", "val"))
    shapes = [decode_image(Path(train.path(index)).read_bytes()).shape for index in range(2)]
    assert shapes == [(150, 200, 3), (20, 30, 3)]
    assert Path(train.path(1)).read_bytes() == (data / "small.png").read_bytes()
    assert list(train.labels) == [0, 1] and list(test.labels) == [1]
    assert Path(test.path(0)) == data / "test.jpg"
    assert (tmp_path / "copy" / "class_names.txt").read_text() == "a\nb\n"


def test_what_exists_is_not_touched(data, tmp_path):
    (tmp_path / "copy").mkdir()
    with pytest.raises(UserError, match="exists"):
        prescale.main(Flags(data, tmp_path / "copy"))


def test_a_broken_image_is_named_and_leaves_nothing(data, tmp_path):
    (data / "small.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match="train_list.txt:2: .*small.png: "):
        prescale.main(Flags(data, tmp_path / "copy"))
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_what_a_killed_start_left_is_removed(data, tmp_path):
    (tmp_path / ".copy.partial-4194305" / "train").mkdir(parents=True)  # no process has such a number
    prescale.main(Flags(data, tmp_path / "copy"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "data"]


def test_training_makes_its_copy_once_and_evaluates_on_the_originals(data, tmp_path, monkeypatch):
    flags = training.Flags(
        data_dir=data,
        prescale_short_side=150,
        batch_size=2,
        num_epochs=1,
        image_shape=(3, 32, 32),
        output_dir=tmp_path / "run",
    )
    read: list[str] = []
    monkeypatch.setattr(training, "open_images", lambda *words: read.append(words[:2]) or open_images(*words))
    training.main(flags)
    copy = tmp_path / "data_150"
    assert (copy, "train") in read and (data, "val") in read
    written = (copy / "train" / "00000000.jpg").stat().st_mtime_ns
    training.main(flags)
    assert (copy / "train" / "00000000.jpg").stat().st_mtime_ns == written


def test_a_copy_of_other_images_is_refused(data, tmp_path):
    scaled.scaled_copy(data, 150)
    (data / "train_list.txt").write_text("large.jpg 0\nsmall.png 0\n")
    with pytest.raises(UserError, match="data_150 has other training images"):
        scaled.scaled_copy(data, 150)


def test_a_copy_needs_a_data_set():
    with pytest.raises(UserError, match="--prescale_short_side"):
        training.training_data(training.Flags(prescale_short_side=320))
