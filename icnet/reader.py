"""Images and their labels: data sets on disk, label files, the random changes of training.

A data set is a folder in one of these layouts, or nothing at all for drawn streets (icnet/streets):

    DIR/leftImg8bit/SPLIT/CITY/*_leftImg8bit.png    Cityscapes; labels gtFine/SPLIT/CITY/*_gtFine_labelTrainIds.png, or
                                                    *_gtFine_labelIds.png, whose ids are translated
    DIR/SPLIT.list                                  lines `image label`, paths relative to DIR, of all layouts the first
    DIR/images/[SPLIT/]*, DIR/labels/[SPLIT/]*.png  of equal names; without SPLIT every tenth is for validation
    DIR/SPLIT/*, DIR/SPLITannot/*.png               CamVid

SPLIT is train, val or test. Labels are PNGs of ids or of colours; DIR/classes.csv says whose they are, lines
`id,name,red,green,blue`. Samples are `image` [H, W, 3] uint8 RGB and `label` [H, W] uint8, 0..n-1 or 255.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fluid import media
from fluid.errors import DataError
from fluid.media import EXTENSIONS, read_image, read_named
from fluid.text import number_of
from icnet.classes import CAMVID, CITYSCAPES, CLASS_FILE, IGNORE, Classes, read_classes
from icnet.segmenter import MEAN
from icnet.streets.files import drawn_streets

import cv2
import numpy as np

GREY = (0.299, 0.587, 0.114)
"""How much red, green and blue give to the brightness of a pixel (ITU-R BT.601)."""
PARTS = ("train", "val", "test")
_ADVICE = "Of a mask of 0 and 255, map 255 to 1 first: 255 means ignored"
VALIDATION = 10
"""Without parts of its own, every tenth pair of a folder is for validation."""


@dataclass(frozen=True)
class Augment:
    """Random changes of a training image."""

    crop: tuple[int, int]
    """Height and width of what is cut out; what it reaches beyond the image is mean colour, and ignored."""
    scales: tuple[float, float] = (0.5, 2.0)
    """The image is resized by a factor between these; equal ones: by this factor."""
    flip: bool = True
    """Mirror every second image."""
    color: float = 0.0
    """Change brightness, contrast and saturation by up to this share."""
    cast: float = 0.0
    """Change red, green and blue, each by up to this share, as light of another colour does."""


@dataclass(frozen=True)
class Pairs:
    """Images and label files."""

    origin: str
    """Where they were found, for messages."""
    images: tuple[str, ...]
    labels: tuple[str, ...]
    classes: Classes
    reduce_zero_label: bool = False
    """Id 0 means nothing, and every other one is one less than in the file."""

    def __len__(self) -> int:
        return len(self.images)

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each image, from the heads of the files. Raises DataError."""
        return [image_size(path) for path in self.images]


def open_pairs(data_dir: str | os.PathLike | None, split: str, reduce_zero_label: bool = False) -> Pairs:
    """Find the pairs of one part of a data set; none of them is read. Raises DataError if there are none, or one lacks."""
    folder = drawn_streets(split) if data_dir is None else Path(data_dir)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give another --data_dir, or leave it out for drawn streets")
    named = folder / CLASS_FILE
    classes = read_classes(named) if named.is_file() else None
    if (folder / f"{split}.list").is_file():
        images, labels = _listed(folder / f"{split}.list", folder)
        found = CITYSCAPES if all("gtFine" in path for path in labels) else None
    elif (folder / "leftImg8bit").is_dir():
        images, labels = _cityscapes(folder, split)
        found = CITYSCAPES
    elif (folder / "images").is_dir():
        images, labels = _folders(folder, split)
        found = None
    elif (folder / f"{split}annot").is_dir():
        images, labels = _matched(folder / split, folder / f"{split}annot")
        found = CAMVID
    else:
        raise DataError(
            f"{folder}: has neither {split}.list nor leftImg8bit/{split} nor images/ and labels/ nor {split}/ and "
            f"{split}annot/; README.md shows the layouts"
        )
    chosen = classes or found
    if chosen is None:
        raise DataError(
            f"{folder}: {CLASS_FILE} is missing, lines `id,name,red,green,blue` that say what the labels mean"
        )
    return Pairs(str(folder), tuple(images), tuple(labels), chosen, reduce_zero_label)


class Source:
    """Samples of some pairs for `fluid.data`; with `augment` changed at random, as training wants it."""

    def __init__(self, pairs: Pairs, augment: Augment | None = None, only: Sequence[int] | None = None) -> None:
        self.pairs, self.augment = pairs, augment
        self.only = np.arange(len(pairs)) if only is None else np.asarray(only)
        """Which of the pairs."""

    def __len__(self) -> int:
        return len(self.only)

    def where(self, index: int) -> str:
        """For messages."""
        return self.pairs.images[self.only[index]]

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One sample. Raises DataError naming the file that cannot be used."""
        image, label = read_pair(self.pairs, int(self.only[index]))
        if self.augment is not None:
            image, label = changed(image, label, self.augment, rng)
        return {"image": image, "label": label}


def read_pair(pairs: Pairs, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Image and labels of a pair. Raises DataError for what cannot be read, and where they differ in size."""
    image = read_image(pairs.images[index])
    label = read_label(pairs.labels[index], pairs)
    if image.shape[:2] != label.shape:
        raise DataError(f"{pairs.labels[index]}: is {_size(label)}, its image {pairs.images[index]} {_size(image)}")
    return image, label


def read_label(path: str, pairs: Pairs) -> np.ndarray:
    """Labels [H, W] uint8 of a file of ids or colours. Raises DataError for an id or colour that is no class."""
    values = label_values(path)
    if values.ndim == 3:
        try:
            label, unknown = labels_of_colors(values, pairs.classes)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        if unknown and not pairs.classes.others_ignored:
            raise DataError(f"{path}: {unknown} pixels have a colour of no class; `--check_data` lists all faults")
        return label
    if pairs.reduce_zero_label:
        values = np.where((values == 0) | (values == IGNORE), IGNORE, values - 1).astype(np.uint8)
    if "labelTrainIds" in os.path.basename(path):
        table = np.where(np.arange(256) < len(pairs.classes), np.arange(256), IGNORE).astype(np.uint8)
        return table[values]
    label = cv2.LUT(values, pairs.classes.of_id)
    if not pairs.classes.others_ignored and (wrong := set(np.unique(values[label == IGNORE])) - {IGNORE}):
        raise DataError(f"{path}: {_what_ids(wrong, pairs.classes)}; `--check_data` lists all faults")
    return label


def label_values(path: str) -> np.ndarray:
    """What a label file holds: ids [H, W] uint8, or colours [H, W, 3] uint8. Raises DataError."""
    data = read_named(path)
    try:
        with media.opened_image(data) as image:
            if image.mode in ("P", "L", "1"):
                return np.asarray(image).astype(np.uint8, copy=False)
            if image.mode.startswith("I"):
                values = np.asarray(image)
                if len(wrong := values[(values < 0) | (values > 255)]):
                    raise DataError(f"holds the id {wrong[0]}; ids are 0..255")
                return values.astype(np.uint8)
            return np.asarray(image.convert("RGB"))
    except DataError as error:
        raise DataError(f"{path}: not a readable picture of labels ({error})") from None


def labels_of_colors(colors: np.ndarray, classes: Classes) -> tuple[np.ndarray, int]:
    """Labels [H, W] of colours [H, W, 3], and how many pixels but black ones have a colour of no class.

    Raises DataError if two classes have one colour.
    """
    if twice := [name for name, color in zip(classes.names, classes.colors) if classes.colors.count(color) > 1]:
        raise DataError(
            f"{', '.join(twice)} have a colour that is not theirs alone in {CLASS_FILE}; labels are colours here"
        )
    codes = colors.astype(np.int32) @ np.array([65536, 256, 1])
    known = np.array(classes.colors) @ np.array([65536, 256, 1])
    order = np.argsort(known)
    at = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    right = known[order][at] == codes
    return np.where(right, order[at], IGNORE).astype(np.uint8), int((~right & (codes != 0)).sum())


def changed(
    image: np.ndarray, label: np.ndarray, augment: Augment, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random part of a pair in a random scale, mirrored or not: [crop, 3] and [crop]."""
    scale = rng.uniform(*augment.scales)
    height, width = (max(1, round(side * scale)) for side in label.shape)
    (tall, wide), fresh = augment.crop, image
    top, left = (int(rng.integers(min(0, o - c), max(0, o - c) + 1)) for o, c in ((height, tall), (width, wide)))
    # Only what is wanted is resized: the corresponding rectangle of the original, by one affine map.
    matrix = np.array([[1 / scale, 0, (left + 0.5) / scale - 0.5], [0, 1 / scale, (top + 0.5) / scale - 0.5]])
    whole, mean = (wide, tall), tuple(map(round, MEAN))
    linear, nearest = (method | cv2.WARP_INVERSE_MAP for method in (cv2.INTER_LINEAR, cv2.INTER_NEAREST))
    image = cv2.warpAffine(fresh, matrix, whole, flags=linear, borderMode=cv2.BORDER_CONSTANT, borderValue=mean)
    label = cv2.warpAffine(label, matrix, whole, flags=nearest, borderMode=cv2.BORDER_CONSTANT, borderValue=IGNORE)
    if augment.flip and rng.random() < 0.5:
        image, label = cv2.flip(image, 1), cv2.flip(label, 1)
    if augment.color or augment.cast:
        image = _with_other_colors(image, augment, rng)
    return image, label


def _with_other_colors(image: np.ndarray, augment: Augment, rng: np.random.Generator) -> np.ndarray:
    """Other saturation, contrast and brightness, in other light, as one affine map of the colours."""
    brightness, contrast, saturation = rng.uniform(1 - augment.color, 1 + augment.color, 3)
    light = rng.uniform(1 - augment.cast, 1 + augment.cast, 3) if augment.cast else np.ones(3)
    colors = saturation * np.eye(3) + (1 - saturation) * np.array(GREY)
    offset = np.full((3, 1), 128 * (1 - contrast))
    change = brightness * light[:, None] * np.concatenate([contrast * colors, offset], axis=1)
    return cv2.transform(image, change.astype(np.float32))


def image_size(path: str) -> tuple[int, int]:
    """Height and width of an image, upright, from the head of its file. Raises DataError."""
    try:
        return media.image_size(media.read_bytes(path))
    except DataError as error:
        raise DataError(f"{path}: not a readable picture ({error})") from None


# Faults of a data set.


@dataclass
class Findings:
    """What a look at every label file brought to light."""

    pixels: np.ndarray
    """By label, [256]; 255 are ignored."""
    faults: list[str] = field(default_factory=list)


def check(pairs: Pairs) -> Findings:
    """Read every label file and the head of every image; nothing is raised for what is wrong with them."""
    findings = Findings(np.zeros(256, np.int64))
    for image, path in zip(pairs.images, pairs.labels, strict=True):
        try:
            values = label_values(path)
            if values.shape[:2] != (size := image_size(image)):
                findings.faults.append(f"{path}: is {_size(values)}, its image {image} {size[1]} x {size[0]}")
            wrong = _wrong_values(values, path, pairs)
            if wrong:
                findings.faults.append(f"{path}: {wrong}")
                continue
            findings.pixels += np.bincount(read_label(path, pairs).reshape(-1), minlength=256)
        except DataError as error:
            findings.faults.append(str(error))
    if fault := _fault_of_masks(pairs, findings.pixels):
        findings.faults.append(fault)
    return findings


def refuse_masks(pairs: Pairs) -> None:
    """Raise DataError where all labels together have one class of two, and pixels that are ignored.

    Label files are read until both classes have come up.
    """
    pixels = np.zeros(256, np.int64)
    for path in pairs.labels if _may_be_masks(pairs.classes) else ():
        try:
            pixels += np.bincount(read_label(path, pairs).reshape(-1), minlength=256)
        except DataError:
            continue  # Whoever trains with it says so.
        if pixels[:2].all():
            return
    if fault := _fault_of_masks(pairs, pixels):
        raise DataError(fault)


def _may_be_masks(classes: Classes) -> bool:
    return len(classes) == 2 and not classes.others_ignored


def _fault_of_masks(pairs: Pairs, pixels: np.ndarray) -> str:
    """What is wrong where the pixels [256] of all labels are of one class of two, or ignored; nothing otherwise."""
    classes = pairs.classes
    if not _may_be_masks(classes) or pixels[:2].all() or not pixels[IGNORE]:
        return ""
    lacking = classes.names[int(np.argmin(pixels[:2]))]
    return f"{pairs.origin}: no pixel is {lacking}, and {pixels[IGNORE]:,} are ignored. {_ADVICE}"


def _wrong_values(values: np.ndarray, path: str, pairs: Pairs) -> str:
    """What is wrong with the ids or colours of a label file; nothing if they are those of the classes."""
    classes = pairs.classes
    if values.ndim == 3:
        if (values == values[:, :, :1]).all():
            return "is a grey picture saved in colour: save the ids with one channel (mode L or P)"
        try:
            unknown = labels_of_colors(values, classes)[1]
        except DataError as error:
            return str(error)
        return (
            f"{unknown} pixels have a colour of no class in {CLASS_FILE}"
            if unknown and not classes.others_ignored
            else ""
        )
    if "labelTrainIds" in os.path.basename(path) or classes.others_ignored:
        return ""
    found = set(np.unique(values).tolist())
    if pairs.reduce_zero_label:
        found = {value - 1 for value in found - {0, IGNORE}}
    wrong = found - set(classes.ids) - {IGNORE}
    return _what_ids(wrong, classes) if wrong else ""


def _what_ids(wrong: set[int], classes: Classes) -> str:
    shown = ", ".join(map(str, sorted(map(int, wrong))))
    ids = f"{min(classes.ids)}..{max(classes.ids)}" if len(classes) > 1 else str(classes.ids[0])
    advice = ""
    if 255 in classes.ids or (len(classes) == 2 and max(wrong) > 127):
        advice = f". {_ADVICE}"
    return f"holds {shown}, which is no class ({ids}, and 255 for what is ignored){advice}"


def class_weights(pixels: np.ndarray, power: float = 1.0) -> list[float]:
    """A weight for each class from its number of pixels, [classes]: 1 / log(1.02 + share) (Paszke et al., arXiv:1606.02147).

    A `power` between 0 and 1 brings them nearer to each other.
    """
    share = pixels / max(1, pixels.sum())
    return ((1 / np.log(1.02 + share)) ** power).tolist()


# Where the files are.


def list_lines(path: Path) -> list[str]:
    """Lines of a list of files, with or without a byte order mark, in whatever bytes the names are. Raises DataError."""
    return [os.fsdecode(line) for line in read_named(path).removeprefix(b"\xef\xbb\xbf").splitlines()]


def _listed(path: Path, folder: Path) -> tuple[list[str], list[str]]:
    images: list[str] = []
    labels: list[str] = []
    for number, line in enumerate(list_lines(path), 1):
        parts = line.strip().split("\t") if "\t" in line else line.split()
        if not parts:
            continue
        if len(parts) != 2:
            raise DataError(
                f"{path}:{number}: each line must be `image label`, with a tab if a path has spaces; got {line[:200]!r}"
            )
        for name, found in zip(parts, (images, labels), strict=True):
            if not os.path.isfile(folder / name):
                raise DataError(f"{path}:{number}: {folder / name}: no such file; paths are relative to {folder}")
            found.append(str(folder / name))
    if not images:
        raise DataError(f"{path}: names no pair; each line must be `image label`")
    return images, labels


def _cityscapes(folder: Path, split: str) -> tuple[list[str], list[str]]:
    images = sorted(path for path in (folder / "leftImg8bit" / split).glob("*/*_leftImg8bit.*") if _is_image(path))
    if not images:
        raise DataError(f"{folder / 'leftImg8bit' / split}: no CITY/*_leftImg8bit.png there")
    labels = []
    for path in images:
        stem = path.name.rpartition("_leftImg8bit")[0]
        place = folder / "gtFine" / split / path.parent.name
        choices = [place / f"{stem}_gtFine_{kind}.png" for kind in ("labelTrainIds", "labelIds")]
        label = next((choice for choice in choices if choice.is_file()), None)
        if label is None:
            raise DataError(
                f"{path}: has no labels, neither {choices[0]} nor {choices[1].name}; "
                "`./zoo prepare icnet cityscapes` makes them from polygons"
            )
        labels.append(str(label))
    return [str(path) for path in images], labels


def _folders(folder: Path, split: str) -> tuple[list[str], list[str]]:
    if (folder / "images" / split).is_dir():
        return _matched(folder / "images" / split, folder / "labels" / split)
    if parts := [part for part in PARTS if (folder / "images" / part).is_dir()]:
        raise DataError(
            f"{folder / 'images'}: has a part {parts[0]}/ but no {split}/; make images/{split} and labels/{split}"
        )
    images, labels = _matched(folder / "images", folder / "labels")
    chosen = [index for index in range(len(images)) if (index % VALIDATION == VALIDATION - 1) == (split != "train")]
    if len(images) < VALIDATION:
        raise DataError(
            f"{folder}: {number_of(len(images), 'pair')}, too few to set some aside; make images/train and images/val"
        )
    return [images[index] for index in chosen], [labels[index] for index in chosen]


def _matched(images: Path, labels: Path) -> tuple[list[str], list[str]]:
    """Pictures and label files of one name, `_L` left out; where a name occurs twice, of one folder too."""
    found, masks = _below(images, EXTENSIONS), _below(labels, (".png",))
    if not found:
        raise DataError(f"{images}: no image there")
    twice = any(len({path.stem for path in paths}) < len(paths) for paths in (found, masks))

    def name(path: Path, root: Path) -> Path:
        return path.relative_to(root).parent / path.stem if twice else Path(path.stem)

    named = {str(name(path, labels)).removesuffix("_L"): str(path) for path in masks}
    wanted = [str(name(path, images)) for path in found]
    lacking = [index for index, key in enumerate(wanted) if key not in named]
    if lacking:
        more = f" (and {len(lacking) - 1} more)" if len(lacking) > 1 else ""
        raise DataError(f"{found[lacking[0]]}: has no labels {labels / wanted[lacking[0]]}.png{more}")
    return [str(path) for path in found], [named[key] for key in wanted]


def _below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files in a folder and in those below it, in order; what is hidden is passed over."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in endings and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
