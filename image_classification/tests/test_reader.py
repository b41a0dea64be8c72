"""Lists, folders, image files of every kind, the arithmetic of the crops."""

import hashlib
import io
import lzma
import os
import pickle
import random
import subprocess
import sys
import tarfile
from pathlib import Path

from fluid import data, media
from fluid.errors import DataError, UserError
from fluid.media import decode_image, read_image
from fluid.tests.drawn import encode, picture
from image_classification import augment, prepare_fashion_mnist, reader
from image_classification.augment import Augment
from image_classification.data import build
from image_classification.reader import (
    ImageSource,
    Preprocess,
    class_names,
    embedded_dataset,
    evaluation_image,
    imagenet_names,
    normalise,
    open_images,
    read_list,
    training_image,
)

import cv2
import numpy as np
import pytest
from PIL import Image

PHOTOGRAPHS = Path(reader.__file__).parent / "data" / "photographs"
SMALL = Preprocess((3, 28, 28), 28)


def write_images(folder: Path, *names: str, size: int = 32) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(size, size, seed)))


# Lists


def write_list(folder: Path, text: str | bytes) -> Path:
    path = folder / "train_list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_list_with_everything_that_is_allowed(tmp_path):
    names = ["a.png", "two words/b  c.png", "图片/猫.png", "d.png", "e.png"]
    write_images(tmp_path, *names)
    text = "a.png 0\r\n\r\ntwo words/b  c.png 2\r\n   \n图片/猫.png\t1\n\nd.png   3  \n" + f"{tmp_path / 'e.png'} 1"
    for start in (b"", b"\xef\xbb\xbf"):
        images = read_list(write_list(tmp_path, start + text.encode()), tmp_path, 4)
        assert [os.path.relpath(images.path(i), tmp_path) for i in range(5)] == names
        assert images.labels.tolist() == [0, 2, 1, 3, 1]
        assert images.lines.tolist() == [1, 3, 5, 7, 8]
        assert images.where(2) == f"{tmp_path}/train_list.txt:5: {tmp_path}/图片/猫.png"
        source = ImageSource(images, SMALL)
        for index in range(5):
            expected = evaluation_image(picture(32, 32, index), SMALL)
            np.testing.assert_array_equal(source.load(index, None)["image"], expected)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", r'train_list\.txt: lists no image; each line must be "path label"'),
        ("\n \r\n", r"train_list\.txt: lists no image"),
        ("a.png 0\na.png\n", r"train_list\.txt:2: each line must be .* got 'a\.png'"),
        ("a.png 0\n\na.png cat\n", r"train_list\.txt:3: each line must be .* got 'a\.png cat'"),
        ("a.png -1\n", r"train_list\.txt:1: each line must be"),
        ("a.png 1.0\n", r"train_list\.txt:1: each line must be"),
        ("7\n", r"train_list\.txt:1: each line must be"),
        (
            "a.png 0\na.png 4\n",
            r"train_list\.txt:2: label 4 is not in 0\.\.3: correct it, or give a --class_dim above it",
        ),
        ("a.png 0\nb.png 1\n", r"train_list\.txt:2: .*/b\.png: no such file; paths are relative to"),
        ("a.png 0\nb.png 1\nno/c.png 1\n", r"train_list\.txt:2: .*\(2 of 3 images are missing\)"),
        ("a.PNG 0\n", r"train_list\.txt:1: .*a\.PNG: no such file; there is a\.png, with other letter case"),
        ("a.png 0\n数据.png 1\n".encode("gb2312"), r"train_list\.txt:2: is not UTF-8 text"),
        (b"a.png 0\n\xff\xfe\n", r"train_list\.txt:2: is not UTF-8 text"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"train_list\.txt:1: "),
    ],
)
def test_broken_lists_name_the_line(tmp_path, text, message):
    write_images(tmp_path, "a.png")
    with pytest.raises(DataError, match=message):
        read_list(write_list(tmp_path, text), tmp_path, 4)


def test_missing_list_and_missing_data(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.txt: no such file"):
        read_list(tmp_path / "nowhere.txt", tmp_path, 4)
    with pytest.raises(DataError, match=r"holds neither val_list\.txt .* nor a folder val/"):
        open_images(tmp_path, "val", 4)
    with pytest.raises(DataError, match=r"nowhere is not a folder; one would hold val_list.txt .* or a folder"):
        open_images(tmp_path / "nowhere", "val", 4)
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_list(tmp_path, tmp_path, 4)


def test_a_million_lines_cost_reader_processes_no_memory(tmp_path):
    write_images(tmp_path, "a.png")
    images = read_list(write_list(tmp_path, "a.png 0\n" * 100_000), tmp_path, 4)
    apart = []
    description = pickle.dumps(ImageSource(images, SMALL), protocol=5, buffer_callback=apart.append)
    assert len(description) < 3000 and len(apart) == 4
    assert pickle.loads(pickle.dumps(images)).path(99_999) == images.path(0)


# Folders


def test_folders_number_the_classes_of_train(tmp_path):
    write_images(tmp_path, "train/b/1.png", "train/a/2.png", "train/a/deeper/3.JPG", "train/c/4.png", "val/c/5.png")
    (tmp_path / "train/a/notes.txt").write_text("not an image")
    (tmp_path / "train/.cache").mkdir()
    train, val = (open_images(tmp_path, split, 3) for split in ("train", "val"))
    assert [os.path.relpath(train.path(i), tmp_path / "train") for i in range(4)] == [
        "a/2.png", "a/deeper/3.JPG", "b/1.png", "c/4.png",
    ]  # fmt: skip
    assert train.labels.tolist() == [0, 0, 1, 2]
    assert val.labels.tolist() == [2]
    assert val.where(0) == str(tmp_path / "val/c/5.png")
    assert class_names(tmp_path) == ["a", "b", "c"]
    with pytest.raises(DataError, match="train: has 3 class folders, more than --class_dim 2"):
        open_images(tmp_path, "val", 2)


def test_folders_that_do_not_fit(tmp_path):
    write_images(tmp_path, "train/a/1.png", "val/z/2.png")
    with pytest.raises(DataError, match="val/z: there is no class of this name in .*train"):
        open_images(tmp_path, "val", 3)
    (tmp_path / "train/b").mkdir()
    with pytest.raises(DataError, match=r"train/b: holds no image \(\.jpg"):
        open_images(tmp_path, "train", 3)
    (tmp_path / "flat/train").mkdir(parents=True)
    with pytest.raises(DataError, match="flat/train: holds no folder; expected one folder of images a class"):
        open_images(tmp_path / "flat", "train", 3)


def test_a_list_wins_over_folders(tmp_path):
    write_images(tmp_path, "train/a/1.png", "train/b/2.png")
    write_list(tmp_path, "train/b/2.png 0\n")
    assert len(open_images(tmp_path, "train", 3)) == 1
    assert class_names(tmp_path) is None
    (tmp_path / "class_names.txt").write_bytes("猫\nb\n".encode())
    assert class_names(tmp_path) == ["猫", "b"]
    (tmp_path / "class_names.txt").write_bytes("数据\nb\n".encode("gb2312"))
    with pytest.raises(DataError, match=r"class_names\.txt: cannot be read as UTF-8 text"):
        class_names(tmp_path)


# The embedded data


@pytest.mark.parametrize(
    "split, count, pixels, labels",
    [
        ("train", 4000, "2c148751121f8d99", "b5a2961e3235c94f"),
        ("val", 1000, "8d46efb2efae7259", "86fea14d645de73e"),
    ],
)
def test_embedded_images_are_those_of_fashion_mnist(split, count, pixels, labels):
    images = open_images(None, split, 10)
    with data.evaluation_batches(ImageSource(images, SMALL), count) as batches:
        feed = next(batches).feed
    assert (feed["image"] == feed["image"][..., :1]).all()
    assert hashlib.sha256(feed["image"][..., 0].tobytes()).hexdigest()[:16] == pixels
    assert hashlib.sha256(feed["label"].astype(np.uint8).tobytes()).hexdigest()[:16] == labels
    assert len(class_names(None)) == 10


def tiny_archive(tmp_path: Path) -> Path:
    """A folder with an archive of two files in the place of the embedded one."""
    package = tmp_path / "package"
    package.mkdir()
    with tarfile.open(package / "fashion_mini.tar.xz", "w:xz") as archive:
        for name in ("train_list.txt", "train/0.png"):
            member = tarfile.TarInfo(name)
            content = os.urandom(5000)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return package


def test_embedded_data_is_unpacked_once_by_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = tiny_archive(tmp_path)
    script = (
        "import pathlib, sys; from image_classification import reader; reader.EMBEDDED = pathlib.Path(sys.argv[1]); "
    )
    command = [sys.executable, "-c", script + "print(reader.embedded_dataset())", package]
    root = Path(reader.__file__).parents[1]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(4)]
    answers = {Path(process.communicate(timeout=60)[0].strip()) for process in running}
    (folder,) = answers
    assert [process.returncode for process in running] == [0] * 4
    assert list((tmp_path / "cache/fluid-model-zoo").iterdir()) == [folder]
    assert (folder / "train/0.png").stat().st_size == 5000
    before = folder.stat().st_ctime_ns
    monkeypatch.setattr(reader, "EMBEDDED", package)
    assert embedded_dataset() == folder and folder.stat().st_ctime_ns == before


def test_embedded_data_that_are_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("FLUID_ZOO_CACHE", str(tmp_path / "cache"))
    package = tiny_archive(tmp_path)
    monkeypatch.setattr(reader, "EMBEDDED", package)
    archive = package / "fashion_mini.tar.xz"
    archive.write_bytes(archive.read_bytes()[:4000])
    with pytest.raises(DataError, match="could not be unpacked"):
        embedded_dataset()
    assert not list((tmp_path / "cache").iterdir())


@pytest.mark.parametrize("line", [b"x\0y/a.png 0", b"a\0.png 0", b"a.png " + b"9" * 5000, b"a" * 10**7 + b" 0"])
def test_hostile_lines_are_one_short_message(tmp_path, line):
    (tmp_path / "train_list.txt").write_bytes(line + b"\n")
    with pytest.raises(DataError) as refused:
        open_images(tmp_path, "train", 2)
    assert (
        "train_list.txt:1: " in str(refused.value) and len(str(refused.value)) < 1100 and "\0" not in str(refused.value)
    )


def test_names_that_are_no_utf8(tmp_path):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    name = os.path.join(os.fsencode(folder), b"\xff.png")
    with open(name, "wb") as file:
        file.write(encode(picture(8, 8), "PNG"))
    images = open_images(tmp_path, "train", 2)
    assert os.fsencode(images.path(0)) == name
    assert ImageSource(images, Preprocess(), None).load(0, np.random.default_rng(0))["label"] == 0


def test_photographs_and_names_are_there():
    sources = (PHOTOGRAPHS / "README.md").read_text(encoding="utf-8")
    files = sorted(path.name for path in PHOTOGRAPHS.glob("*.jpg"))
    assert len(files) == 6 and all(f"| `{name}` |" in sources for name in files)
    names = imagenet_names()
    assert len(names) == 1000
    assert [names[label].split(",")[0] for label in (243, 438, 99)] == ["bull mastiff", "beaker", "goose"]


# Image files: see fluid/tests/test_media.py

PHOTOGRAPH = encode(picture(120, 160), "JPEG", quality=90)


@pytest.mark.parametrize("content", [b"", b"hello world" * 20, PHOTOGRAPH[:-2], PHOTOGRAPH[: len(PHOTOGRAPH) // 2]])
def test_training_refuses_broken_files_too(content):
    with pytest.raises(DataError, match="empty|damaged"):
        training_image(content, Preprocess(), Augment(), np.random.default_rng(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named_with_its_list_line(tmp_path, workers):
    write_images(tmp_path, *(f"{i}.png" for i in range(8)))
    (tmp_path / "3.png").write_bytes(b"")
    os.remove(tmp_path / "5.png")
    os.mkdir(tmp_path / "5.png")
    images = read_list(write_list(tmp_path, "".join(f"{i}.png 0\n" for i in range(8))), tmp_path, 1)
    os.remove(tmp_path / "6.png")
    reasons = {3: "the file is empty (0 bytes)", 5: "cannot be read (Is a directory)", 6: "no such file"}
    messages = {i: f"{tmp_path}/train_list.txt:{i + 1}: {tmp_path}/{i}.png: {reason}" for i, reason in reasons.items()}
    source = ImageSource(images, SMALL, Augment(crop="shifted"))
    with data.training_batches(source, 8, seed=0, num_epochs=1, num_workers=workers) as batches:
        assert set(next(batches).bad) == set(messages.values())
    with data.evaluation_batches(ImageSource(images, SMALL), 8, num_workers=workers) as batches:
        with pytest.raises(DataError) as error:
            next(batches)
        assert str(error.value) == messages[3]
    with pytest.raises(DataError, match=r"^\S+/3\.png: the file is empty \(0 bytes\)$"):
        read_image(tmp_path / "3.png")


def test_the_reader_imports_neither_paddle_nor_jax():
    script = "import sys, fluid.data, image_classification.reader; assert not {'paddle', 'jax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(reader.__file__).parents[1])


# Evaluation


def test_evaluation_crop_of_an_image_that_needs_no_resize():
    image = picture(256, 301)
    np.testing.assert_array_equal(evaluation_image(image, Preprocess()), image[16:240, 38:262])


@pytest.mark.parametrize(
    "height, width, resized",
    [
        (375, 500, (256, 341)),  # 341.33
        (500, 375, (341, 256)),
        (512, 345, (380, 256)),  # 379.9
        (128, 257, (256, 514)),
        (512, 513, (256, 256)),  # 256.5 rounds to even
        (512, 515, (256, 258)),  # 257.5 rounds to even
        (1, 1, (256, 256)),
        (1, 100, (256, 25600)),
    ],
)
def test_evaluation_resizes_the_short_side(height, width, resized):
    image = picture(height, width)
    expected = cv2.resize(image, resized[::-1], interpolation=cv2.INTER_LINEAR)
    top, left = (resized[0] - 224) // 2, (resized[1] - 224) // 2
    np.testing.assert_array_equal(evaluation_image(image, Preprocess()), expected[top : top + 224, left : left + 224])


@pytest.mark.parametrize("shape, short", [((3, 299, 299), 256), ((3, 32, 128), 32), ((3, 7, 5), 600), ((3, 1, 1), 1)])
def test_evaluation_result_has_the_shape_asked_for(shape, short):
    for height, width in [(40, 30), (30, 40), (1, 1), (300, 500), (97, 3)]:
        assert evaluation_image(picture(height, width), Preprocess(shape, short)).shape == (*shape[1:], 3)


def test_interpolations_differ():
    image = picture(375, 500) ^ np.random.default_rng(0).integers(0, 64, (375, 500, 3), np.uint8)
    kinds = [evaluation_image(image, Preprocess(interpolation=kind)) for kind in reader.INTERPOLATIONS]
    assert len({kind.tobytes() for kind in kinds}) == 4


def test_inference_reads_what_evaluation_reads(tmp_path):
    (tmp_path / "a.jpg").write_bytes((PHOTOGRAPHS / "coffee.jpg").read_bytes())
    (tmp_path / "b.png").write_bytes(encode(Image.new("RGBA", (30, 40), (0, 255, 0, 90))))
    source = ImageSource(read_list(write_list(tmp_path, "a.jpg 0\nb.png 0\n"), tmp_path, 1), Preprocess())
    with data.evaluation_batches(source, 2, num_workers=1) as batches:
        batch = next(batches)
    for index, name in enumerate(["a.jpg", "b.png"]):
        np.testing.assert_array_equal(
            evaluation_image(read_image(tmp_path / name), Preprocess()), batch.feed["image"][index]
        )


def test_normalise():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    result = normalise(images, mean, std)
    assert result.dtype == np.float32 and result.shape == (2, 3, 5, 4) and result.flags.c_contiguous
    for c in range(3):
        expected = (images[..., c].astype(np.float64) / 255 - mean[c]) / std[c]
        np.testing.assert_allclose(result[:, c], expected, rtol=1e-5, atol=1e-6)


def test_impossible_settings():
    with pytest.raises(UserError, match="--image_shape 1,28,28: give 3,HEIGHT,WIDTH"):
        Preprocess((1, 28, 28))
    with pytest.raises(UserError, match="--resize_short_size 0"):
        Preprocess(resize_short=0)
    with pytest.raises(UserError, match="--lower_scale 0"):
        Augment(lower_scale=0)
    with pytest.raises(UserError, match="--lower_ratio 2"):
        Augment(lower_ratio=2)


# Training


def test_boxes_cover_what_they_should():
    rng = np.random.default_rng(0)
    augment = Augment()
    boxes = np.array([reader._random_box(375, 500, augment, rng) for _ in range(4000)])
    top, left, height, width = boxes.T
    assert (top >= 0).all() and (left >= 0).all() and (top + height <= 375).all() and (left + width <= 500).all()
    share, ratio = height * width / (375 * 500), width / height
    assert 0.075 < share.min() < 0.09 and 0.95 < share.max() <= 1
    assert 0.74 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.35
    # uniform in ratio; uniform in area up to what fits: 4 : 3 is the shape of the image itself
    assert abs(ratio.mean() - (3 / 4 + 4 / 3) / 2) < 0.01
    square = share[np.abs(ratio - 1) < 0.05]
    assert abs(np.median(square) - (0.08 + 0.75) / 2) < 0.03
    assert len(set(top.tolist())) > 200 and len(set(left.tolist())) > 200


def test_boxes_exist_in_any_image():
    seed = random.randrange(2**31)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    for _ in range(2000):
        height, width = (int(2 ** rng.uniform(0, 9)) for _ in range(2))
        top, left, box_height, box_width = reader._random_box(height, width, Augment(), rng)
        assert 0 <= top < top + box_height <= height and 0 <= left < left + box_width <= width


@pytest.mark.parametrize("size", [(1, 1), (3, 97), (224, 224), (375, 500), (1500, 2000)])
def test_training_crop_has_the_right_shape_and_content(size):
    """A crop of a picture whose pixels tell their own position lies where a full decode puts it."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    image = np.stack([y * 255 // height, x * 255 // width, np.full(size, 128)], axis=-1).astype(np.uint8)
    content = encode(image, "JPEG", quality=95, subsampling=0)
    for seed in range(5):
        crop = training_image(content, Preprocess((3, 64, 48)), Augment(flip=False), np.random.default_rng(seed))
        assert crop.shape == (64, 48, 3)
        top, left, box_height, box_width = reader._random_box(height, width, Augment(), np.random.default_rng(seed))
        full = cv2.resize(decode_image(content)[top : top + box_height, left : left + box_width], (48, 64))
        assert np.abs(crop.astype(int) - full).max() <= 6


def test_large_jpegs_are_decoded_small(monkeypatch):
    factors = []
    original = cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda content, flags: factors.append(flags) or original(content, flags))
    content = encode(picture(1500, 2000), "JPEG")
    for seed in range(30):
        training_image(content, Preprocess(), Augment(), np.random.default_rng(seed))
    counts = {factor: factors.count(media._JPEG_FLAGS[factor]) for factor in (1, 2, 4, 8)}
    assert counts[2] > 5 and counts[4] > 3 and sum(counts.values()) == 30 and counts[8] == 0


def test_random_changes_are_functions_of_the_generator():
    augment = Augment(rotate=True, color_jitter=True)
    crops = [training_image(PHOTOGRAPH, SMALL, augment, np.random.default_rng(seed)).tobytes() for seed in (1, 1, 2)]
    assert crops[0] == crops[1] != crops[2]


def test_flip_mirrors_half_of_the_images():
    image = encode(picture(28, 28))
    plain = evaluation_image(decode_image(image), SMALL)
    rng = np.random.default_rng(0)
    found = [training_image(image, SMALL, Augment(crop="shifted", max_shift=0), rng) for _ in range(200)]
    mirrored = sum(np.array_equal(crop, plain[:, ::-1]) for crop in found)
    assert mirrored + sum(np.array_equal(crop, plain) for crop in found) == 200
    assert 70 < mirrored < 130


def test_shifts_move_by_every_number_of_pixels():
    image = np.zeros((28, 28, 3), np.uint8)
    image[14, 14] = 255
    rng = np.random.default_rng(0)
    augment = Augment(crop="shifted", max_shift=2, flip=False)
    found = {tuple(np.argwhere(training_image(encode(image), SMALL, augment, rng)[..., 0])[0]) for _ in range(400)}
    assert found == {(y, x) for y in range(12, 17) for x in range(12, 17)}


@pytest.mark.parametrize("crop", ["resized", "shifted"])
def test_rotation_turns_by_up_to_ten_degrees(crop):
    y, x = np.mgrid[-100:101, -100:101]
    image = ((np.abs(np.arctan2(y, x)) < 0.02) * 255).astype(np.uint8)[..., None].repeat(3, 2)  # a ray to the right
    angles = []
    for seed in range(60):
        augment = Augment(crop=crop, lower_scale=1, lower_ratio=1, upper_ratio=1, max_shift=0, flip=False, rotate=True)
        turned = training_image(encode(image), Preprocess((3, 201, 201), 201), augment, np.random.default_rng(seed))
        ys, xs = np.nonzero(turned[:, 160:, 0] > 128)
        angles.append(np.degrees(np.arctan2(-(ys.mean() - 100), xs.mean() + 60)))
    assert -10.5 < min(angles) < -8 and 8 < max(angles) < 10.5


def test_colour_jitter_changes_brightness_contrast_and_saturation():
    image = picture(64, 64)
    changed = [augment.jitter_colors(image, np.random.default_rng(seed)) for seed in range(200)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    brightness = np.array([c.mean() for c in changed]) / image.mean()
    assert 0.45 < brightness.min() < 0.6 and 1.3 < brightness.max() < 1.6
    grey = np.full((8, 8, 3), 100, np.uint8)
    for seed in range(20):  # grey stays grey, and a uniform image has no contrast to change
        result = augment.jitter_colors(grey, np.random.default_rng(seed))
        assert np.ptp(result) <= 1 and 49 <= result.mean() <= 150


def test_archive_is_what_the_build_script_packs(tmp_path):
    """Without the sources of the data: its own images, written and packed again, are the same bytes."""
    folder = embedded_dataset()
    splits = {}
    for split in ("train", "val"):
        images = read_list(folder / f"{split}_list.txt", folder, 10)
        splits[split] = np.stack([np.asarray(Image.open(images.path(i))) for i in range(len(images))]), images.labels
    prepare_fashion_mnist.write_dataset(tmp_path, splits)
    (tmp_path / "LICENSE.txt").write_bytes((reader.EMBEDDED / "LICENSE-fashion-mnist.txt").read_bytes())
    packed = lzma.decompress((reader.EMBEDDED / "fashion_mini.tar.xz").read_bytes())
    assert build.pack(tmp_path) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}


# What file systems and editors leave behind


def tree(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PHOTOGRAPH)


def test_hidden_files_and_folders_are_no_samples_and_links_are(tmp_path):
    tree(
        tmp_path, "d/train/a/1.jpg", "d/train/a/._1.jpg", "d/train/a/.ipynb_checkpoints/1-checkpoint.jpg", "else/2.jpg"
    )
    tree(tmp_path, "d/train/b/x.JFIF", "d/train/b/y.jpe")
    os.symlink(tmp_path / "else", tmp_path / "d" / "train" / "a" / "more")
    os.symlink("..", tmp_path / "d" / "train" / "a" / "up")
    images = open_images(tmp_path / "d", "train", 2)
    found = [os.path.relpath(images.path(index), tmp_path / "d" / "train") for index in range(len(images))]
    assert found == ["a/1.jpg", "a/more/2.jpg", "b/x.JFIF", "b/y.jpe"]
    assert not any("/." in name for name in found)


def test_accents_meet_however_they_are_spelt(tmp_path):
    tree(tmp_path, "train/caf\u00e9/1.jpg", "train/tee/1.jpg", "val/cafe\u0301/2.jpg")
    assert open_images(tmp_path, "val", 2).labels.tolist() == [0]
    assert class_names(tmp_path, "val") == ["café", "tee"]


def test_a_mark_at_the_start_and_blank_lines_at_the_end_are_no_names(tmp_path):
    (tmp_path / "class_names.txt").write_bytes("\ufeffcat\r\ndog\r\n\r\n\n".encode())
    assert class_names(tmp_path) == ["cat", "dog"]


def test_a_label_that_no_number_of_images_explains(tmp_path):
    write_images(tmp_path, "a.png", "b.png")
    images = read_list(write_list(tmp_path, "a.png 0\nb.png 999999\n"), tmp_path, 2**31)
    with pytest.raises(DataError, match=r"train_list\.txt:2: .*label 999999 would make 1000000 classes of 2 images"):
        reader.count_classes(images)


@pytest.mark.parametrize("augment", [None, Augment(crop="shifted"), Augment(crop="shifted", color_jitter=True)])
def test_small_sets_are_read_once_and_are_what_they_were(tmp_path, augment):
    write_images(tmp_path, "a.png", "b.png")
    images = read_list(write_list(tmp_path, "a.png 0\nb.png 1\n"), tmp_path, 2)
    source, fresh = ImageSource(images, SMALL, augment), ImageSource(images, SMALL, augment)
    first = [source.load(index, np.random.default_rng(index))["image"].copy() for index in (0, 1)]
    for name in ("a.png", "b.png"):
        os.remove(tmp_path / name)
    for index in (0, 1):
        again = source.load(index, np.random.default_rng(index))["image"]
        np.testing.assert_array_equal(again, first[index])
    with pytest.raises(DataError, match="no such file"):
        fresh.load(0, np.random.default_rng(0))


def test_large_sets_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "KEPT_BYTES", 10)
    write_images(tmp_path, "a.png")
    source = ImageSource(read_list(write_list(tmp_path, "a.png 0\n"), tmp_path, 1), SMALL, Augment(crop="shifted"))
    source.load(0, np.random.default_rng(0))
    os.remove(tmp_path / "a.png")
    with pytest.raises(DataError):
        source.load(0, np.random.default_rng(0))
