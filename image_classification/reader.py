"""Images and labels: data sets on disk, decoding, augmentation for training, the fixed preprocessing of everything else.

A data set is a folder in one of two layouts, or nothing at all for the embedded small Fashion-MNIST:

    DATA_DIR/train_list.txt, val_list.txt     lines `path label`, the path relative to DATA_DIR, labels from 0
    DATA_DIR/train/CLASS/*.jpg, val/CLASS/    labels number the class folders of `train` in alphabetical order

Lists win if there are both. `class_names.txt`, one name a line in the order of the labels, is optional.

Images leave the reader as uint8 [H, W, 3] RGB; `normalise` shows what a Program then computes. How files become pixels:
fluid/media.py.
"""

import hashlib
import math
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fluid import cache
from fluid.errors import DataError, UserError
from fluid.files import read_plain
from fluid.formats.archive import unpack
from fluid.media import EXTENSIONS, decode_image, read_bytes, read_named
from fluid.text import as_text
from image_classification.augment import Augment, finished, rotation, shift

import cv2
import numpy as np

Interpolation = Literal["linear", "area", "cubic", "lanczos"]
EMBEDDED = Path(__file__).parent / "data"
KEPT_BYTES = 64_000_000
"""What the evaluation images of a set may take to be kept in memory."""
INTERPOLATIONS: dict[Interpolation, int] = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
_LIST_FORMAT = 'each line must be "path label", the path relative to the data folder, the label a number from 0'


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input wherever nothing is random: evaluation, inference, export."""

    image_shape: tuple[int, int, int] = (3, 224, 224)
    """Channels, height and width of the network's input."""
    resize_short: int = 256
    """Short side in pixels before the central crop; grown where that is too small for the crop."""
    interpolation: Interpolation = "linear"
    """Interpolation of every resize."""

    def __post_init__(self) -> None:
        if len(self.image_shape) != 3 or self.image_shape[0] != 3 or min(self.image_shape) < 1:
            shown = ",".join(map(str, self.image_shape))
            raise UserError(
                f"--image_shape {shown}: give 3,HEIGHT,WIDTH (grey images are read as three equal channels)"
            )
        if self.resize_short < 1:
            raise UserError(f"--resize_short_size {self.resize_short}: must be at least 1")


# Data sets


@dataclass(frozen=True)
class ImageList:
    """Image files and their labels. Held in arrays, which reader processes share, since a data set has millions of them."""

    origin: str
    """The list file, or the folder that was searched."""
    root: str
    """What the paths are relative to."""
    names: np.ndarray
    """All relative paths as the system has them, one after the other, [bytes] uint8."""
    ends: np.ndarray
    """Where each path ends in `names`, [N] int64."""
    labels: np.ndarray
    """[N] int64."""
    lines: np.ndarray | None
    """Line of each image in the list file, [N] int32; None for a folder."""

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        """The file of one image."""
        start = self.ends[index - 1] if index else 0
        return os.path.join(self.root, os.fsdecode(self.names[start : self.ends[index]].tobytes()))

    def where(self, index: int) -> str:
        """The same with the place that mentions it, for messages: `LIST:LINE: PATH`."""
        return self.path(index) if self.lines is None else f"{self.origin}:{self.lines[index]}: {self.path(index)}"


def open_images(
    data_dir: str | os.PathLike | None, split: Literal["train", "val", "test"], class_dim: int
) -> ImageList:
    """Find the images of one split of a data set, and check the whole list before anything else is done.

    Args:
        data_dir: folder in one of the layouts above; None takes the embedded data set.
        split: which part.
        class_dim: number of classes, for the check of the labels.

    Raises:
        DataError: no such data, or a list with a broken line, a missing file or a label outside 0..class_dim-1; the
            message names file and line.
    """
    folder = embedded_dataset() if data_dir is None else Path(data_dir)
    list_file = folder / f"{split}_list.txt"
    if list_file.is_file():
        return read_list(list_file, folder, class_dim)
    if (folder / split).is_dir():
        return scan_folders(folder, split, class_dim)
    what, rather = ("holds neither", "nor") if folder.is_dir() else ("is not a folder; one would hold", "or")
    raise DataError(
        f"{folder} {what} {split}_list.txt (lines `path label`) {rather} a folder {split}/ with one folder of images a class. "
        "Give another --data_dir, or leave it out for the embedded data set; `./zoo prepare image_classification split` "
        "divides one folder of classes"
    )


def read_list(list_file: str | os.PathLike, root: str | os.PathLike, class_dim: int) -> ImageList:
    """Read a list file. Blank lines, Windows line ends and spaces in paths are fine. Raises DataError as `open_images`."""
    content = read_named(list_file).removeprefix(b"\xef\xbb\xbf")
    try:
        content.decode()
        if b"\0" in content:
            raise UnicodeDecodeError("utf-8", content, content.index(b"\0"), len(content), "no character of a text")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start)
        shown = content.split(b"\n")[line][:60]
        raise DataError(
            f"{list_file}:{line + 1}: is not UTF-8 text; save the list in that encoding ({shown!r})"
        ) from None
    names, labels, lines = [], [], []
    for number, line in enumerate(content.split(b"\n"), 1):
        parts = line.rsplit(None, 1)
        if not parts:
            continue
        if len(parts) < 2 or not parts[1].isdigit():
            raise DataError(f"{list_file}:{number}: {_LIST_FORMAT}; got {line.decode().strip()[:200]!r}")
        # Python refuses to read numbers of thousands of digits.
        label = int(parts[1][:20])
        if label >= class_dim:
            raise DataError(
                f"{list_file}:{number}: label {parts[1].decode()} is not in 0..{class_dim - 1}: "
                "correct it, or give a --class_dim above it"
            )
        names.append(parts[0].strip())
        labels.append(label)
        lines.append(number)
    if not names:
        raise DataError(f"{list_file}: lists no image; {_LIST_FORMAT}")
    images = _image_list(str(list_file), str(root), names, labels, lines)
    _check_files_exist(images, names)
    return images


def scan_folders(data_dir: str | os.PathLike, split: str, class_dim: int) -> ImageList:
    """List DATA_DIR/SPLIT/CLASS/..., classes numbered as they are in DATA_DIR/train. Raises DataError as `open_images`."""
    folder = Path(data_dir) / split
    reference = Path(data_dir) / "train" if (Path(data_dir) / "train").is_dir() else folder
    # A file system may spell an accent as a character of its own.
    classes, found = ({_composed(name): name for name in _subfolders(place)} for place in (reference, folder))
    if unknown := sorted(found.keys() - classes.keys()):
        raise DataError(f"{folder / unknown[0]}: there is no class of this name in {reference}")
    if not found:
        raise DataError(f"{folder}: holds no folder; expected one folder of images a class")
    if len(classes) > class_dim:
        raise DataError(f"{reference}: has {len(classes)} class folders, more than --class_dim {class_dim}")
    return _scanned(folder, Path(data_dir), {label: found[name] for label, name in enumerate(classes) if name in found})


def class_folders(folder: str | os.PathLike) -> tuple[ImageList, list[str]]:
    """The images of FOLDER/CLASS/..., and the classes' names, in alphabetical order. Raises DataError as `open_images`."""
    classes = {_composed(name): name for name in _subfolders(Path(folder))} if Path(folder).is_dir() else {}
    if not classes:
        raise DataError(f"{folder}: holds no folder; expected one folder of images a class")
    return _scanned(Path(folder), Path(folder), dict(enumerate(classes.values()))), [*map(as_text, classes)]


def _scanned(folder: Path, root: Path, classes: dict[int, str]) -> ImageList:
    """The images of FOLDER/CLASS for each class by its label, paths relative to `root`."""
    names, labels = [], []
    for label, name in classes.items():
        before = len(names)
        names += _images_below(folder / name, root)
        if len(names) == before:
            raise DataError(f"{folder / name}: holds no image ({', '.join(EXTENSIONS)})")
        labels += [label] * (len(names) - before)
    return _image_list(str(folder), str(root), names, labels, None)


def class_names(data_dir: str | os.PathLike | None, split: str = "train") -> list[str] | None:
    """Names of the classes in the order of the labels of a part, or None if the data set does not tell."""
    folder = embedded_dataset() if data_dir is None else Path(data_dir)
    if (folder / "class_names.txt").is_file():
        return _read_names(folder / "class_names.txt")
    if (folder / f"{split}_list.txt").is_file():
        return None
    for place in (folder / "train", folder / split):
        if place.is_dir():
            return [as_text(_composed(name)) for name in _subfolders(place)]
    return None


def imagenet_names() -> list[str]:
    """The 1,000 classes of ILSVRC2012 in the usual order, that of their WordNet numbers."""
    return _read_names(EMBEDDED / "imagenet_names.txt")


def embedded_dataset() -> Path:
    """Folder of the small Fashion-MNIST data set, unpacked into the cache when it is first asked for. Raises UserError."""
    archive = EMBEDDED / "fashion_mini.tar.xz"
    place = cache.folder() / f"fashion_mini-{hashlib.sha256(archive.read_bytes()).hexdigest()[:12]}"
    if not place.is_dir():
        try:
            unpack(archive, place)
        except UserError as error:
            if not place.is_dir():  # no other process was faster
                raise DataError(f"the embedded data set {archive} could not be unpacked: {error}") from None
    return place


def count_classes(images: ImageList) -> int:
    """As many classes as the labels ask for. Raises DataError, with its line, for a label that none of these images explains."""
    largest = int(images.labels.argmax())
    if (count := int(images.labels[largest]) + 1) > max(len(images), 2):
        raise DataError(
            f"{images.where(largest)}: label {count - 1} would make {count} classes of {len(images)} images; labels are "
            "numbered from 0 without gaps: correct it, or give --class_dim"
        )
    return count


# Reading


class ImageSource:
    """Samples {"image": [H, W, 3] uint8 RGB, "label": int64} of an `ImageList`, for `fluid.data`.

    With `augment` the image is changed at random, as training wants it; without, it is its `evaluation_image`. Where all
    evaluation images together are small, as of the embedded data set, they stay in memory once they are read.
    """

    def __init__(self, images: ImageList, preprocess: Preprocess, augment: Augment | None = None) -> None:
        self.images = images
        self.preprocess = preprocess
        self.augment = augment
        fixed = augment is None or (augment.crop == "shifted" and not augment.rotate)
        self._kept: dict[int, np.ndarray] | None = (
            {} if fixed and len(images) * math.prod(preprocess.image_shape) <= KEPT_BYTES else None
        )

    def __len__(self) -> int:
        return len(self.images)

    def where(self, index: int) -> str:
        return self.images.where(index)

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        kept = None if self._kept is None else self._kept.get(index)
        try:
            image = self._changed(kept, rng) if kept is not None else self._read(index, rng)
        except DataError as error:
            raise DataError(f"{self.where(index)}: {error}") from None
        return {"image": image, "label": self.images.labels[index]}

    def _read(self, index: int, rng: np.random.Generator) -> np.ndarray:
        data = read_bytes(self.images.path(index))
        if self._kept is None and self.augment is not None:
            return training_image(data, self.preprocess, self.augment, rng)
        image = evaluation_image(decode_image(data), self.preprocess)
        if self._kept is not None:
            self._kept[index] = image
        return self._changed(image, rng)

    def _changed(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """An evaluation image as training wants it, if it does."""
        if self.augment is None:
            return image
        return finished(shift(image, self.augment.max_shift, rng), self.augment, rng)


def normalise(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32, (x / 255 - mean) / std by channel: what an exported model is fed."""
    scaled = images.astype(np.float32) / np.float32(255)
    normal = (scaled - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2))


def evaluation_image(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Resize [h, w, 3] so that the short side is `resize_short`, and cut the centre out: [H, W, 3].

    The crop of a `scaled_image` [h', w', 3] starts at ((h' - H) // 2, (w' - W) // 2).
    """
    image = scaled_image(image, preprocess)
    _, height, width = preprocess.image_shape
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def scaled_image(image: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """[h, w, 3] resized so that the short side is `resize_short`: [h', w', 3].

    Both sides are scaled by s = resize_short / min(h, w), or by the least that covers the crop if that is more, and
    rounded to the nearest integer, halves to even. No low-pass filter precedes the interpolation, as in OpenCV's plain
    resize, with which the releases since 2019 were measured.
    """
    _, crop_height, crop_width = preprocess.image_shape
    height, width = image.shape[:2]
    scale = max(preprocess.resize_short / min(height, width), crop_height / height, crop_width / width)
    height, width = max(round(height * scale), crop_height), max(round(width * scale), crop_width)
    return _resize(image, height, width, preprocess)


def read_picture(images: ImageList, index: int) -> np.ndarray:
    """One of the pictures as it is, [h, w, 3]. Raises DataError that says where it stands."""
    try:
        return decode_image(read_bytes(images.path(index)))
    except DataError as error:
        raise DataError(f"{images.where(index)}: {error}") from None


def training_image(data: bytes, preprocess: Preprocess, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Decode a file's content and change it at random: [H, W, 3] uint8. A large JPEG is decoded at 1/2, 1/4 or 1/8 size
    as far as the crop stays at least as large as the result."""
    if augment.crop == "shifted":
        image = decode_image(data)
        if augment.rotate:
            height, width = image.shape[:2]
            turned = rotation(height, width, rng)
            image = cv2.warpAffine(image, turned, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        image = shift(evaluation_image(image, preprocess), augment.max_shift, rng)
    else:
        image = _random_resized_crop(data, preprocess, augment, rng)
    return finished(image, augment, rng)


def _random_resized_crop(data: bytes, preprocess: Preprocess, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    _, out_height, out_width = preprocess.image_shape
    box = (0, 0, 0, 0)
    full = (0, 0)

    def choose(height: int, width: int) -> int:
        nonlocal box, full
        full = height, width
        box = _random_box(height, width, augment, rng)
        ratio = min(box[2] / out_height, box[3] / out_width)
        return next(factor for factor in (8, 4, 2, 1) if factor <= max(ratio, 1))

    image = decode_image(data, choose)
    height, width = image.shape[:2]
    top, left = box[0] * height // full[0], box[1] * width // full[1]
    bottom, right = top + max(box[2] * height // full[0], 1), left + max(box[3] * width // full[1], 1)
    if augment.rotate:
        # One interpolation for both: the rotated image is not needed but for this part of it.
        part = _part_of((top, left, bottom, right), out_height, out_width)
        matrix = np.vstack([rotation(height, width, rng), [0, 0, 1]]) @ part
        flags = INTERPOLATIONS[preprocess.interpolation] | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, matrix[:2], (out_width, out_height), flags=flags)
    return _resize(image[top:bottom, left:right], out_height, out_width, preprocess)


def _part_of(box: tuple[int, int, int, int], height: int, width: int) -> np.ndarray:
    """From the pixels of a part (top, left, bottom, right), resized, to those of the image: a matrix [3, 3]."""
    top, left, bottom, right = box
    x, y = (right - left) / width, (bottom - top) / height
    return np.array([[x, 0, left + x / 2 - 0.5], [0, y, top + y / 2 - 0.5], [0, 0, 1]])


def _random_box(height: int, width: int, augment: Augment, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width): the side ratio is uniform in its range, then the area, as far as the image holds it."""
    ratio = rng.uniform(augment.lower_ratio, augment.upper_ratio)
    # The largest share of the area that a box of this ratio can cover.
    largest = min(height * ratio / width, width / (height * ratio))
    share = rng.uniform(min(augment.lower_scale, largest), largest)
    box_width = min(max(int((height * width * share * ratio) ** 0.5), 1), width)
    box_height = min(max(int((height * width * share / ratio) ** 0.5), 1), height)
    top, left = rng.integers(0, height - box_height + 1), rng.integers(0, width - box_width + 1)
    return int(top), int(left), box_height, box_width


def _resize(image: np.ndarray, height: int, width: int, preprocess: Preprocess) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    return cv2.resize(image, (width, height), interpolation=INTERPOLATIONS[preprocess.interpolation])


# Files


def _image_list(origin: str, root: str, names: list[bytes], labels: list[int], lines: list[int] | None) -> ImageList:
    return ImageList(
        origin,
        root,
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names]),
        np.array(labels, np.int64),
        None if lines is None else np.array(lines, np.int32),
    )


def _check_files_exist(images: ImageList, names: list[bytes]) -> None:
    """One directory listing instead of one question a file: a list has millions of lines, a disk may be far away."""
    listings: dict[bytes, set[bytes]] = {}
    missing = []
    for index, name in enumerate(names):
        folder, file = os.path.split(name)
        listing = listings.get(folder)
        if listing is None:
            try:
                listing = set(os.listdir(os.path.join(os.fsencode(images.root), folder)))
            except OSError:
                listing = set()
            listings[folder] = listing
        if file not in listing:
            missing.append(index)
    if not missing:
        return
    folder, file = os.path.split(names[missing[0]])
    similar = [os.fsdecode(other) for other in listings[folder] if other.lower() == file.lower()]
    hint = f"; there is {similar[0]}, with other letter case" if similar else ""
    more = f" ({len(missing)} of {len(images)} images are missing)" if len(missing) > 1 else ""
    raise DataError(f"{images.where(missing[0])}: no such file{hint}{more}; paths are relative to {images.root}")


def _images_below(folder: Path, root: Path) -> Iterator[bytes]:
    """Paths relative to `root`, in order. Links to folders are followed, each folder once; what is hidden is passed over."""
    # A link upward would bring the other classes in.
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for place, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        inside = os.path.relpath(place, root)
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield os.fsencode(os.path.join(inside, file))


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def _read_names(path: Path) -> list[str]:
    try:
        return read_plain(path).decode("utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text, one class name a line ({error})") from None
