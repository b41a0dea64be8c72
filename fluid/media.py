"""Pictures from wherever people keep them, each with its place: image and video files, folders, globs, lists, cameras.

    for place, picture in pictures(find(["photo.jpg", "holiday/", "*.png", "@list.txt", "film.mp4", "camera:0"])): ...

How files become pixels, [H, W, 3] uint8 RGB, wherever the zoo reads one:

* Grey and palette images become RGB. Of 16-bit samples the high byte counts. Transparent pixels are laid over white.
  CMYK is converted by Pillow's formula. Of an animation or a multi-picture file the first picture counts.
* The EXIF orientation is applied, as `cv2.imread` does by default, that of XMP is not; the Pillow reader of July 2018
  ignored both. Videos are turned as they say, too.
* What is not an image (or in none of the formats of `FORMATS`), is empty, truncated, has 32-bit samples or is more than
  100 times as long as wide is a `DataError`.

Reader processes import this module; it imports neither paddle nor jax.
"""

import contextlib
import io
import os
import re
import struct
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO

from fluid import finding
from fluid.errors import DataError
from fluid.files import open_plain, read_plain

import cv2
import numpy as np
from PIL import Image, ImageOps

# Pillow remarks on odd metadata and on large pictures; what cannot be read is an error anyway.
warnings.filterwarnings("ignore", module=r"PIL\.")
# So do OpenCV, and FFmpeg in it, on videos and cameras.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
# The function moved between OpenCV 4.12 and 4.14; 2 stands for errors in both.
getattr(cv2.utils, "logging", cv2).setLogLevel(2)
Image.init()  # load all of Pillow's plugins; until then it knows only some of FORMATS
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
VIDEO_EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
CAMERA = re.compile(r"camera:(\d{1,9})")

# What else people have, by its first bytes, and what makes pictures of it.
_OTHERS = {
    b"%PDF-": "a PDF; `pdftoppm -r 300 -png` makes pictures of its pages",
    b"ftyphei": "a HEIC of a telephone; `heif-convert` makes a JPEG of it",
    b"ftypmif1": "a HEIC of a telephone; `heif-convert` makes a JPEG of it",
    b"ftypavif": "an AVIF; `avifdec` makes a PNG of it",
}
MAX_PIXELS = 100_000_000
"""Of a picture: a file of some kilobytes can claim any number of them."""
_MAX_ASPECT = 100
_STRIP = 256
_EXIF_ORIENTATION = 0x0112
_IMAGEMAGICK = "Raw profile type exif"
# Pillow finds an orientation there, too; OpenCV and browsers do not look.
_XMP = ("xmp", "XML:com.adobe.xmp")
# What Pillow and OpenCV raise on bytes that are not what they claim to be.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    ArithmeticError,
    LookupError,
    EOFError,
    struct.error,
    cv2.error,
)
# OpenCV has no reduced modes that return RGB.
_JPEG_FLAGS = {
    1: cv2.IMREAD_COLOR_RGB,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def find(words: Iterable[str]) -> list[str]:
    """The files and cameras that the words of a command line name, in order; hidden files are passed over.

    A word is an image or a video, a folder (everything below it), a pattern (`*`, `?`, `**`), `@LIST` for a file with
    one of these a line, `-` for the same on standard input, or `camera:NUMBER`.

    Raises DataError if something named does not exist, or there is nothing in it.
    """
    return finding.find(words, "image or video", EXTENSIONS + VIDEO_EXTENSIONS, apart=is_camera)


def pictures(
    names: Iterable[str], *, step: int = 1, unreadable: Callable[[DataError], None] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """(place, picture [H, W, 3] uint8 RGB) of what `find` found.

    The place is the path of an image, `PATH#NUMBER` for a frame, counted from 0, of a video or a camera. Pictures are read
    as they are asked for, and a camera never ends.

    Args:
        names: image files, videos and cameras.
        step: of a video or camera, every so many frames.
        unreadable: told of each file that cannot be read, and the next one follows; without it the first ends all.

    Raises:
        DataError: something named cannot be read.
    """
    for name in names:
        try:
            if is_moving(name):
                yield from _frames(name, step)
            else:
                yield name, read_image(name)
        except DataError as error:
            if unreadable is None:
                raise
            unreadable(error)


def is_moving(name: str) -> bool:
    """Whether a name that `find` found is a video or a camera."""
    return name.lower().endswith(VIDEO_EXTENSIONS) or is_camera(name)


def is_camera(name: str) -> bool:
    """Whether a name that `find` found is a camera, whose pictures have no end."""
    return CAMERA.fullmatch(name) is not None and not os.path.exists(name)


def batch_size(names: Iterable[str], usual: int) -> int:
    """Pictures in a batch: 1 if a camera is among them, as nobody waits for more of its frames to see what is in one."""
    return 1 if any(map(is_camera, names)) else usual


def until_interrupted(names: Iterable[str]) -> contextlib.AbstractContextManager[None]:
    """If a camera is among them, Ctrl-C ends the block: its pictures have no other end."""
    return contextlib.suppress(*[KeyboardInterrupt] if any(map(is_camera, names)) else [])


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """A file's picture, [H, W, 3] uint8 RGB, upright. Raises DataError naming the file."""
    try:
        return decode_image(read_bytes(path))
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def read_named(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises DataError naming the file."""
    try:
        return read_bytes(path)
    except DataError as error:
        raise DataError(f"{os.fspath(path)}: {error}") from None


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file. Raises DataError that says what is wrong, without the name of the file."""
    try:
        return read_plain(path)
    except FileNotFoundError:
        raise DataError("no such file") from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from None


def open_named(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file. Raises DataError naming it."""
    try:
        return open_plain(path)
    except OSError as error:
        raise DataError(f"{os.fspath(path)}: cannot be read ({error.strerror})") from None


def decode_image(data: bytes, shrink: Callable[[int, int], int] | None = None) -> np.ndarray:
    """Decode the content of an image file: [H, W, 3] uint8 RGB, upright.

    Args:
        data: the file's content.
        shrink: given (height, width), the factor (1, 2, 4 or 8) by which a JPEG may be decoded smaller; it is called for
            every image but only JPEGs obey.

    Raises:
        DataError: what is wrong, without the name of the file.
    """
    with opened_image(data) as header:
        width, height = header.size
        if max(width, height) > _MAX_ASPECT * min(width, height):
            raise DataError(f"{width} x {height} pixels: one side is more than {_MAX_ASPECT} times the other")
        if _lies_on_its_side(header):
            width, height = height, width
        factor = shrink(height, width) if shrink else 1
        if header.format in ("JPEG", "MPO") and header.mode in ("RGB", "L"):
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _JPEG_FLAGS[factor])
            if image is None:
                header.load()  # Pillow says what is wrong
                raise DataError("the file is damaged")
            return image if factor == 1 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return _to_rgb(header)


def image_size(data: bytes) -> tuple[int, int]:
    """Height and width that `decode_image` would give the content of an image file, from its header. Raises DataError."""
    with opened_image(data) as header:
        width, height = header.size
        # Pillow turns TIFF by itself.
        turned = _lies_on_its_side(header) and header.format != "TIFF"
    return (width, height) if turned else (height, width)


def _lies_on_its_side(header: Image.Image) -> bool:
    """By its EXIF, which is looked for only where there is one: looking reads all of a PNG."""
    exif = Image.Exif()
    if "exif" in header.info:
        # Opening a JPEG, Pillow has looked into its XMP already.
        exif.load(header.info["exif"])
    elif _IMAGEMAGICK in header.info:
        exif = header.getexif()
    return exif.get(_EXIF_ORIENTATION, 1) >= 5


@contextlib.contextmanager
def opened_image(data: bytes) -> Iterator[Image.Image]:
    """An image of which no more than the header is read. Raises DataError, without the name of the file, also for what goes
    wrong in the block."""
    if not data:
        raise DataError("the file is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as header:
            width, height = header.size
            if width * height > MAX_PIXELS:
                raise DataError(f"{width} x {height} pixels are more than {MAX_PIXELS:,}; cut it, or make it smaller")
            for name in _XMP:
                header.info.pop(name, None)
            yield header
    except Image.UnidentifiedImageError:
        other = next((what for start, what in _OTHERS.items() if start in data[:12]), None)
        raise DataError(other or f"not an image, or damaged, or in none of the formats {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError as error:
        raise DataError(str(error)) from None
    except _DECODER_ERRORS as error:
        raise DataError(f"the file is damaged or truncated ({error})") from None


def _to_rgb(image: Image.Image) -> np.ndarray:
    file_format = image.format
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        grey = (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise DataError("has 32-bit samples; save it with 8 or 16 bits a sample")
    if image.has_transparency_data:
        return np.concatenate([_over_white(strip) for strip in _strips(image)])
    return np.asarray(image.convert("RGB"))


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """Some rows at a time: what is made of them on the way takes little memory."""
    for top in range(0, image.height, _STRIP):
        yield image.crop((0, top, image.width, min(top + _STRIP, image.height)))


def _over_white(image: Image.Image) -> np.ndarray:
    image = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def _frames(name: str, step: int) -> Iterator[tuple[str, np.ndarray]]:
    camera = is_camera(name)
    if not camera:
        with contextlib.closing(open_named(name)):
            pass
    video = cv2.VideoCapture(int(name.partition(":")[2]) if camera else name)
    try:
        number = 0
        while video.grab():
            if number % step == 0:
                good, frame = video.retrieve()
                if not good:
                    raise DataError(f"{name}#{number}: the frame is damaged")
                yield f"{name}#{number}", cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            number += 1
        if camera:
            raise DataError(f"{name}: {'the camera stopped' if number else 'there is no such camera'}")
        if number == 0:
            raise DataError(f"{name}: not a video, or damaged, or in a format that OpenCV does not read")
        declared = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        if number < declared:
            print(f"note: {name}: {number} frames could be read of the {declared} that it declares", file=sys.stderr)
    finally:
        video.release()
