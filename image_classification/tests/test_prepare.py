"""The preparation scripts on tiny files of the official formats: what they write is what the reader takes."""

import gzip
import io
import struct
import tarfile
from pathlib import Path

from fluid.errors import DataError, UserError
from image_classification import prepare_fashion_mnist, prepare_imagenet, prepare_split, prepare_stamps
from image_classification.reader import ImageSource, Preprocess, class_names, open_images

import numpy as np
import pytest
import scipy.io
from PIL import Image

# Fashion-MNIST


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes()))


@pytest.fixture
def fashion(tmp_path):
    rng = np.random.default_rng(0)
    source = tmp_path / "source"
    source.mkdir()
    for prefix, count in (("train", 12), ("t10k", 5)):
        write_idx(source / f"{prefix}-images-idx3-ubyte.gz", rng.integers(0, 256, (count, 28, 28), np.uint8))
        write_idx(source / f"{prefix}-labels-idx1-ubyte.gz", rng.integers(0, 10, count, np.uint8))
    return prepare_fashion_mnist.Flags(source, tmp_path / "new" / "fashion")


def test_fashion_mnist(fashion, capsys):
    prepare_fashion_mnist.main(fashion)
    assert "12 train, 5 val images in 10 classes" in capsys.readouterr().out
    assert sorted(path.name for path in fashion.output_dir.iterdir()) == [
        "class_names.txt", "train", "train_list.txt", "val", "val_list.txt",
    ]  # fmt: skip
    for split, prefix in (("train", "train"), ("val", "t10k")):
        images, labels = prepare_fashion_mnist.read_split(fashion.source_dir, prefix)
        found = open_images(fashion.output_dir, split, 10)
        assert found.labels.tolist() == labels.tolist()
        source = ImageSource(found, Preprocess((3, 28, 28), 28))
        for index, image in enumerate(images):
            np.testing.assert_array_equal(source.load(index, None)["image"], image[..., None].repeat(3, 2))
    assert class_names(fashion.output_dir)[9] == "ankle boot"


def test_fashion_mnist_overwrites_nothing(fashion):
    fashion.output_dir.mkdir(parents=True)
    with pytest.raises(UserError, match="exists already; choose another --output_dir, or remove it"):
        prepare_fashion_mnist.main(fashion)


def test_fashion_mnist_from_broken_files_leaves_nothing(fashion):
    labels = fashion.source_dir / "t10k-labels-idx1-ubyte.gz"
    good = labels.read_bytes()
    write_idx(fashion.source_dir / "wrong.gz", np.arange(4, dtype=np.uint8))
    for content, message in [
        (good[:-9], "cannot be read as a gzip file"),
        (b"hello", "cannot be read as a gzip file"),
        (gzip.compress(b"hello world"), "is not an IDX file of bytes"),
        (gzip.compress(gzip.decompress(good)[:-1]), r"holds 4 values, its header says \(5,\)"),
        ((fashion.source_dir / "wrong.gz").read_bytes(), "do not belong together"),
    ]:
        labels.write_bytes(content)
        with pytest.raises(DataError, match=message):
            prepare_fashion_mnist.main(fashion)
    labels.unlink()
    with pytest.raises(DataError, match=r"no such file\. Install the Debian package dataset-fashion-mnist"):
        prepare_fashion_mnist.main(fashion)
    assert not fashion.output_dir.parent.exists()


def test_fashion_mnist_into_a_place_that_cannot_be_written(fashion):
    fashion.output_dir.parent.write_text("a file")
    with pytest.raises(UserError, match="fashion: cannot be written"):
        prepare_fashion_mnist.main(fashion)


# ILSVRC2012

IDS = ["n01440764", "n01443537", "n02085620"]
NUMBERS = [2, 3, 1]  # ILSVRC2012_ID of each, in an order of its own
VALIDATION = [3, 1, 2, 2]


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def jpeg(colour: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            add(archive, name, content)
    return buffer.getvalue()


def tar_of_folder(name: str) -> bytes:
    """As one makes it of what has been unpacked."""
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(member)
    return buffer.getvalue()


def class_tar(wnid: str) -> bytes:
    return tar({f"{wnid}_{number}.JPEG": jpeg(number) for number in (7, 10)})


def write_devkit(path: Path) -> None:
    kind = [(name, object) for name in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    rows = [(number, wnid, f"{wnid}, name", "", 0) for number, wnid in zip(NUMBERS, IDS)]
    rows.append((1001, "n00000001", "animal", "", 2))  # an inner node of the hierarchy
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": np.array(rows, dtype=kind)})
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", buffer.getvalue())
        truth = "".join(f"{number}\n" for number in VALIDATION).encode()
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)


@pytest.fixture
def imagenet(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    write_devkit(source / prepare_imagenet.DEVKIT)
    shuffled = [IDS[1], IDS[2], IDS[0]]
    (source / prepare_imagenet.TRAIN_TAR).write_bytes(tar({f"{wnid}.tar": class_tar(wnid) for wnid in shuffled}))
    names = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (2, 1, 4, 3)]
    (source / prepare_imagenet.VAL_TAR).write_bytes(tar({name: jpeg(int(name[-6])) for name in names}))
    return prepare_imagenet.Flags(source, tmp_path / "new" / "ILSVRC2012")


def assert_complete(folder: Path) -> None:
    assert (folder / "train_list.txt").read_text().splitlines() == [
        f"train/{wnid}/{wnid}_{number}.JPEG {label}" for label, wnid in enumerate(IDS) for number in (10, 7)
    ]
    labels = {2: 0, 3: 1, 1: 2}
    assert (folder / "val_list.txt").read_text().splitlines() == [
        f"val/ILSVRC2012_val_{number:08d}.JPEG {labels[truth]}" for number, truth in enumerate(VALIDATION, 1)
    ]
    assert class_names(folder) == [f"{wnid}, name" for wnid in IDS]
    assert not list(folder.rglob("*partial*"))


def test_imagenet(imagenet, capsys):
    prepare_imagenet.main(imagenet)
    assert "6 training and 4 validation images in 3 classes" in capsys.readouterr().out
    assert_complete(imagenet.output_dir)
    train = ImageSource(open_images(imagenet.output_dir, "train", 3), Preprocess((3, 8, 8), 10))
    assert abs(int(train.load(1, None)["image"][0, 0, 0]) - 7) <= 2
    (imagenet.output_dir / "train_list.txt").unlink()  # the tree alone means the same
    assert open_images(imagenet.output_dir, "train", 3).labels.tolist() == train.images.labels.tolist()


def test_imagenet_goes_on_where_it_stopped(imagenet):
    train = imagenet.source_dir / prepare_imagenet.TRAIN_TAR
    good = train.read_bytes()
    train.write_bytes(good[: len(good) // 2])
    with pytest.raises(DataError, match="ILSVRC2012_img_train.tar: damaged or not completely downloaded|ends inside"):
        prepare_imagenet.main(imagenet)
    assert not list(imagenet.output_dir.glob("*.txt"))
    done = imagenet.output_dir / "train" / IDS[1]
    assert len(list(done.iterdir())) == 2
    before = done.stat().st_ctime_ns
    train.write_bytes(good)
    for _ in range(2):
        prepare_imagenet.main(imagenet)
        assert_complete(imagenet.output_dir)
    assert done.stat().st_ctime_ns == before


def test_imagenet_with_wrong_files(imagenet):
    source, output = imagenet.source_dir, imagenet.output_dir
    good = {path.name: path.read_bytes() for path in source.iterdir()}
    for name, content, message in [
        (prepare_imagenet.DEVKIT, b"hello", "devkit_t12.tar.gz: damaged or not completely downloaded"),
        (
            prepare_imagenet.DEVKIT,
            good[prepare_imagenet.VAL_TAR],
            "is not the development kit of tasks 1 and 2 of 2012",
        ),
        (
            prepare_imagenet.TRAIN_TAR,
            tar({"n09999999.tar": b""}),
            "'n09999999.tar', which is no tar of one of the 3 cl",
        ),
        (prepare_imagenet.TRAIN_TAR, tar_of_folder(IDS[2]), f"'{IDS[2]}', which is no tar of one of the 3 classes"),
        (
            prepare_imagenet.TRAIN_TAR,
            tar({f"{IDS[0]}.tar": class_tar(IDS[0])}),
            "2 of 3 classes are missing, n01443537 first",
        ),
        (
            prepare_imagenet.TRAIN_TAR,
            tar({f"{IDS[1]}.tar": tar({"../../evil_1.JPEG": b"x"})}),
            "holds '../../evil_1.JPEG', which is not one of its images",
        ),
    ]:
        (source / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            prepare_imagenet.main(imagenet)
        (source / name).write_bytes(good[name])
    assert not list(output.parent.rglob("evil*"))
    (source / prepare_imagenet.VAL_TAR).write_bytes(tar({"ILSVRC2012_val_00000001.JPEG": jpeg(1)}))
    with pytest.raises(DataError, match="val: 1 image, but the kit has 4 labels"):
        prepare_imagenet.main(imagenet)
    (source / prepare_imagenet.DEVKIT).unlink()
    with pytest.raises(DataError, match=r"devkit_t12\.tar\.gz: no such file; it comes from"):
        prepare_imagenet.main(imagenet)


def test_stamps_are_split_by_thing(tmp_path):
    for kind in prepare_stamps.KINDS:
        for name in ("one1", "one2", "two", "three", "four"):
            path = tmp_path / "source" / kind / "photographs" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGBA", (30, 50), (200, 30, 30, 255)).save(path)
        drawing = tmp_path / "source" / kind / "cartoon" / "drawing.png"
        drawing.parent.mkdir()
        drawing.write_bytes(b"")
    config = prepare_stamps.Flags(tmp_path / "data", tmp_path / "source", views=2)
    prepare_stamps.main(config)
    things = {
        split: {path.stem.rpartition("_")[0] for path in (tmp_path / "data" / split).rglob("*.jpg")}
        for split in ("train", "val")
    }
    assert not things["train"] & things["val"] and things["train"] | things["val"] == {"one1", "two", "three", "four"}
    assert len(open_images(tmp_path / "data", "train", 5)) == 5 * 2 * 2
    with pytest.raises(UserError, match="exists"):
        prepare_stamps.main(config)
    with pytest.raises(DataError, match="apt install tuxpaint-stamps-default"):
        prepare_stamps.main(prepare_stamps.Flags(tmp_path / "other", tmp_path / "nowhere"))
    for path in (tmp_path / "source" / prepare_stamps.KINDS[-1]).rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match="vehicles: no stamp is there"):
        prepare_stamps.main(prepare_stamps.Flags(tmp_path / "other", tmp_path / "source"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "source"]


# One folder of classes


@pytest.fixture
def photographs(tmp_path) -> Path:
    """Twenty pictures of one class, ten of another, among each a copy; and one picture that is in both."""
    rng = np.random.default_rng(0)
    for name, count in (("big", 20), ("small", 10)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number:02}.png")
        copied = tmp_path / "photos" / name / "03.png"
        (copied.parent / "zz copy.png").write_bytes(copied.read_bytes())
    return tmp_path / "photos"


def parts(folder: Path) -> dict[str, set[str]]:
    found = {}
    for part in ("train", "val", "test"):
        images = open_images(folder, part, 2)
        found[part] = {images.path(index) for index in range(len(images))}
        counts = np.bincount(images.labels).tolist()
        assert len(counts) == 2 and counts[0] >= counts[1] > 0
    return found


def test_a_split_is_stratified_reproducible_and_keeps_copies_together(photographs, tmp_path, capsys):
    make = lambda name, seed: prepare_split.main(prepare_split.Flags(photographs, tmp_path / name, 0.2, 0.1, seed))  # noqa: E731
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        make(name, seed)
    out = capsys.readouterr().out
    assert "images of 2 classes" in out and "what they are copies of: 2 pictures" in out
    one, again, other = (parts(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again != other
    assert sum(map(len, one.values())) == 32 and len(set().union(*one.values())) == 32
    assert len(one["val"]) in (6, 7, 8) and len(one["test"]) in (3, 4, 5)
    contents = [{Path(path).read_bytes() for path in paths} for paths in one.values()]
    assert not (contents[0] & contents[1] or contents[0] & contents[2] or contents[1] & contents[2])
    assert class_names(tmp_path / "one") == ["big", "small"]
    # Names do not matter, contents do.
    for number, path in enumerate(sorted(photographs.rglob("*.png"))):
        path.rename(path.with_name(f"renamed {number}.png"))
    make("renamed", 1)
    renamed = {part: {Path(path).read_bytes() for path in paths} for part, paths in parts(tmp_path / "renamed").items()}
    assert list(renamed.values()) == contents


def test_a_split_that_cannot_be_is_refused(photographs, tmp_path, capsys):
    config = prepare_split.Flags(photographs, tmp_path / "new", 0.5, 0.5)
    with pytest.raises(UserError, match="leave nothing to train on"):
        prepare_split.main(config)
    with pytest.raises(DataError, match="small: 10 different images, too few for a part `test`"):
        prepare_split.main(prepare_split.Flags(photographs, tmp_path / "new", 0.5, 0.04))
    with pytest.raises(DataError, match="holds no folder"):
        prepare_split.main(prepare_split.Flags(photographs / "big", tmp_path / "new"))
    (photographs / "small" / "05.png").write_bytes((photographs / "big" / "05.png").read_bytes())
    prepare_split.main(prepare_split.Flags(photographs, tmp_path / "new"))
    assert "one picture in several classes" in capsys.readouterr().out
    with pytest.raises(UserError, match="exists"):
        prepare_split.main(prepare_split.Flags(photographs, tmp_path / "new"))


def test_a_split_on_a_full_disk_leaves_nothing(photographs, tmp_path, monkeypatch):
    write = Path.write_text

    def full(path: Path, text: str, **options: str) -> int:
        if path.name == "class_names.txt":
            raise OSError(28, "No space left on device")
        return write(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match="new: cannot be written .No space left on device"):
        prepare_split.main(prepare_split.Flags(photographs, tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
