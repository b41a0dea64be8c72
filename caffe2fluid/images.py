"""Images as Caffe's tools prepare them: blue-green-red, 0..255, resized without smoothing, mean taken off, scaled."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .caffemodel import read_mean
from .converted import Converted
from .errors import ConvertError, number_of
from .prototxt import read_bytes

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


@dataclass
class Preprocessing:
    """How an image becomes the input of a net: (pixels - mean) * scale.

    ``size`` and ``crop`` are [height, width]: the image is stretched to ``size`` (``short`` instead scales its shorter
    side), then ``crop`` is cut from the middle. ``mean``: one value, one per channel in the order of the net, or an
    image [C, H, W] of the size before or after cropping. Without ``crop`` an image keeps its size.
    """

    crop: tuple[int, int] | None
    channels: int = 3
    size: tuple[int, int] | None = None
    short: int | None = None
    mean: np.ndarray | None = None
    scale: float = 1.0
    rgb: bool = False

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """[H, W, 3] uint8 red-green-blue -> [C, *crop] float32. Raises ConvertError for a mean that does not fit."""
        height, width = image.shape[:2]
        crop = self.crop or (height, width)
        if self.short:
            factor = self.short / min(height, width)
            target = (max(round(height * factor), crop[0]), max(round(width * factor), crop[1]))
        else:
            target = self.size or crop
        if self.channels == 1:
            image = (image @ np.array([0.299, 0.587, 0.114])).round()[:, :, None]
        elif not self.rgb:
            image = image[:, :, ::-1]
        pixels = resize_bilinear(image, *target).transpose(2, 0, 1)
        if self.mean is not None and self.mean.shape[1:] == pixels.shape[1:] and self.mean.ndim == 3:
            return _middle(pixels - self.mean, crop) * np.float32(self.scale)
        pixels = _middle(pixels, crop)
        if self.mean is not None:
            try:
                pixels = pixels - self.mean
            except ValueError:
                height, width = self.mean.shape[1:]
                hint = f"; --resize {height}x{width} makes images of its size" if height >= crop[0] else ""
                raise ConvertError(f"a mean of shape {self.mean.shape} for images {pixels.shape}{hint}") from None
        return np.ascontiguousarray(pixels * np.float32(self.scale), dtype=np.float32)


def _middle(pixels: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    top, left = ((full - part) // 2 for full, part in zip(pixels.shape[1:], crop, strict=True))
    return pixels[:, top : top + crop[0], left : left + crop[1]]


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """[H, W, C] -> [height, width, C] float32, like OpenCV's INTER_LINEAR (Caffe's choice) rounded to whole values.

    Pixel centres at halves, border values repeated, no smoothing when it gets smaller.
    """
    if image.shape[:2] == (height, width):
        return image.astype(np.float32)
    result = image.astype(np.float32)
    for axis, size in enumerate((height, width)):
        old = result.shape[axis]
        position = np.clip((np.arange(size) + 0.5) * (old / size) - 0.5, 0, old - 1)
        low = np.floor(position).astype(np.int64)
        weight = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        high = np.minimum(low + 1, old - 1)
        result = result.take(low, axis) * (1 - weight) + result.take(high, axis) * weight
    return np.rint(result)


def read_image(path: str | Path) -> np.ndarray:
    """[H, W, 3] uint8, red-green-blue. Raises ConvertError naming the file."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise ConvertError(f"{path} does not exist") from None
    except Exception as error:
        raise ConvertError(f"{path} cannot be read as an image: {error}") from None


def find_images(arguments: list[str], standard_input: Iterable[str] | None = ()) -> list[str]:
    """Files from files, folders, glob patterns, lists (.txt, one path a line) and ``-`` for standard input."""
    found: list[str] = []
    for argument in arguments:
        path = Path(argument)
        if argument == "-":
            found += [line.strip() for line in standard_input or () if line.strip()]
        elif path.is_dir():
            inside = sorted(str(p) for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not inside:
                raise ConvertError(f"{path}: no images in this folder")
            found += inside
        elif path.suffix == ".txt" and path.is_file():
            lines = read_bytes(path).decode("utf-8-sig", "replace").splitlines()
            found += [line.strip() for line in lines if line.strip()]
        elif not path.exists() and any(character in argument for character in "*?["):
            inside = sorted(map(str, Path(path.anchor or ".").glob(str(path.relative_to(path.anchor)))))
            if not inside:
                raise ConvertError(f"{argument}: no such files")
            found += inside
        else:
            found.append(argument)
    return found


def from_flags(args: Namespace, converted: Converted) -> tuple[str, Preprocessing]:
    """The name of the image input and its preprocessing. Raises ConvertError if the net takes no single image."""
    images = {name: shape for name, shape in converted.inputs.items() if len(shape) == 4 and shape[1] in (1, 3)}
    if len(images) != 1 or len(converted.inputs) != 1:
        raise ConvertError(f"the net takes no single image but {converted.inputs}; use --feed with arrays")
    name, (_, channels, *free) = next(iter(images.items()))
    height, width = _input_size(args.size, free, converted.sizes[name][2:])
    transform = converted.report["transform"] or {}
    result = Preprocessing((height, width) if height else None, channels, rgb=args.rgb)
    result.scale = args.scale if args.scale is not None else transform.get("scale", 1.0)
    if not math.isfinite(result.scale):
        raise ConvertError(f"--scale {result.scale}: must be a finite number")
    result.mean = _mean(args.mean, transform, channels)
    if args.resize and not height:
        raise ConvertError("--resize and --size image contradict each other")
    if args.resize:
        kind, _, size = args.resize.rpartition(":")
        try:
            sizes = [int(part) for part in size.lower().split("x")]
        except ValueError:
            sizes = []
        if kind not in ("", "short") or len(sizes) not in (1, 2) or (kind and len(sizes) == 2):
            raise ConvertError(f"--resize {args.resize}: write 256, 256x340 or short:256")
        if min(sizes) < (min(height, width) if kind else 1) or (not kind and (sizes[0] < height or sizes[-1] < width)):
            raise ConvertError(f"--resize {args.resize} is smaller than the input of the net, {height}x{width}")
        if kind:
            result.short = sizes[0]
        else:
            result.size = (sizes[0], sizes[-1])
    return name, result


def _input_size(flag: str | None, free: list[int | None], size: list[int]) -> tuple[int, int]:
    """Height and width that the net is shown: those of --size, of the prototxt, or 0 where each image keeps its own."""
    if flag is None:
        return size[0], size[1]
    if None not in free:
        raise ConvertError(
            f"--size {flag}: the net takes images of {size[0]}x{size[1]} only; convert it with --any_size"
        )
    if flag == "image":
        return 0, 0
    parts = flag.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdecimal() and 0 < int(part) < 1 << 16 for part in parts):
        raise ConvertError(f"--size {flag}: write 240, 240x320 or image")
    return int(parts[0]), int(parts[-1])


def _mean(flag: str | None, transform: dict, channels: int) -> np.ndarray | None:
    """[C or 1, H or 1, W or 1], or None. Raises ConvertError."""
    if flag is None:
        if transform.get("mean_file") and not transform.get("mean"):
            raise ConvertError(f"the net wants the mean of {transform['mean_file']}; give it with --mean")
        if not transform.get("mean"):
            return None
        mean = np.array(transform["mean"], np.float32)
    elif flag.endswith(".npy"):
        mean = _read_npy(flag)
    elif flag.endswith(".binaryproto"):
        mean = read_mean(flag)
    else:
        try:
            mean = np.array([float(value) for value in flag.split(",")], np.float32)
        except ValueError:
            raise ConvertError(f"--mean {flag}: write numbers, 104,117,123, or a .binaryproto or .npy file") from None
    if mean.ndim < 2 and mean.size not in (1, channels):
        raise ConvertError(f"{number_of(mean.size, 'mean value')} for {number_of(channels, 'channel')}")
    shape = list(mean.shape)
    mean = mean.reshape(-1, 1, 1) if mean.ndim < 2 else mean[None] if mean.ndim == 2 else mean
    mean = mean[0] if mean.ndim == 4 and len(mean) == 1 else mean
    if mean.ndim != 3 or mean.shape[0] not in (1, channels):
        raise ConvertError(f"--mean {flag}: an array of shape {shape}; a mean image is [{channels}, H, W]")
    if not np.isfinite(mean).all():
        raise ConvertError(f"--mean {flag}: not all of its values are finite numbers")
    return mean


def _read_npy(path: str) -> np.ndarray:
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, TypeError) as error:
        raise ConvertError(f"--mean {path}: {error}") from None
