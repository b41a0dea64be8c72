"""Pictures from everywhere: what becomes of the pixels, what is found where, what is refused."""

import io
import random
import sys
from pathlib import Path

from fluid import media
from fluid.errors import DataError
from fluid.media import decode_image, find, image_size, pictures
from fluid.tests.drawn import encode, picture

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

COLOURS = picture(40, 30)
GREY = COLOURS[:, :, 0]


def transparent(mode: str) -> Image.Image:
    """Red, half of it transparent with green behind, which must not be seen."""
    image = Image.new("RGBA", (30, 40), (0, 255, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 15, 40))
    return image.convert(mode)


def palette_with_transparency() -> bytes:
    image = Image.fromarray(np.repeat(np.arange(30) // 15, 40).reshape(30, 40).T.astype(np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    return encode(image, transparency=1)


RED_AND_WHITE = np.where((np.arange(30) < 15)[None, :, None], [255, 0, 0], [255, 255, 255]).repeat(40, 0)
FILES = {
    "RGB": (encode(COLOURS), COLOURS),
    "grey": (encode(GREY), GREY[..., None].repeat(3, 2)),
    "grey 16 bit": (encode(GREY.astype(np.uint16) * 256 + 77), GREY[..., None].repeat(3, 2)),
    "grey 16 bit TIFF": (encode(GREY.astype(np.uint16) * 256 + 77, "TIFF"), GREY[..., None].repeat(3, 2)),
    "RGB 16 bit": (cv2.imencode(".png", COLOURS[..., ::-1].astype(np.uint16) * 256 + 77)[1].tobytes(), COLOURS),
    "black and white": (encode(Image.fromarray(GREY > 128)), ((GREY > 128) * 255)[..., None].repeat(3, 2)),
    "alpha": (encode(transparent("RGBA")), RED_AND_WHITE),
    "grey with alpha": (
        encode(transparent("LA")),
        np.where((np.arange(30) < 15)[None, :, None], [76] * 3, [255] * 3).repeat(40, 0),
    ),
    "palette": (
        encode(Image.fromarray(COLOURS).quantize(16)),
        np.asarray(Image.fromarray(COLOURS).quantize(16).convert("RGB")),
    ),
    "palette with transparency": (palette_with_transparency(), RED_AND_WHITE),
    "animated GIF": (
        encode(
            Image.new("RGB", (30, 40), (255, 0, 0)), "GIF", save_all=True,
            append_images=[Image.new("RGB", (30, 40), (0, 0, 255))],
        ),
        np.full((40, 30, 3), (255, 0, 0)),
    ),
    "animated PNG": (
        encode(Image.fromarray(COLOURS), save_all=True, append_images=[Image.new("RGB", (30, 40), (0, 0, 255))]),
        COLOURS,
    ),
    "animated WebP": (
        encode(
            Image.fromarray(COLOURS), "WEBP", save_all=True, lossless=True,
            append_images=[Image.new("RGB", (30, 40), (0, 0, 255))],
        ),
        COLOURS,
    ),
    "multi-page TIFF": (
        encode(Image.fromarray(COLOURS), "TIFF", save_all=True, append_images=[Image.new("RGB", (30, 40))]),
        COLOURS,
    ),
    "BMP": (encode(COLOURS, "BMP"), COLOURS),
    "PPM": (encode(COLOURS, "PPM"), COLOURS),
    "PGM 16 bit": (b"P5 30 40 65535\n" + (GREY.astype(np.uint16) * 256 + 77).astype(">u2").tobytes(), GREY[..., None].repeat(3, 2)),
    "one pixel": (encode(np.full((1, 1, 3), 200, np.uint8)), np.full((1, 1, 3), 200)),
    "CMYK TIFF": (encode(Image.new("CMYK", (30, 40), (0, 255, 255, 0)), "TIFF"), np.full((40, 30, 3), (255, 0, 0))),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_has_the_right_pixels(kind):
    content, expected = FILES[kind]
    decoded = decode_image(content)
    assert decoded.dtype == np.uint8 and decoded.shape == expected.shape
    np.testing.assert_array_equal(decoded, expected)


JPEGS = {
    "RGB": (Image.fromarray(COLOURS), {}),
    "progressive": (Image.fromarray(COLOURS), {"progressive": True}),
    "grey": (Image.fromarray(GREY), {}),
    "CMYK": (Image.fromarray(COLOURS).convert("CMYK"), {}),
    "multi-picture": (Image.fromarray(COLOURS), {"save_all": True, "append_images": [Image.new("RGB", (30, 40))]}),
}


@pytest.mark.parametrize("kind", JPEGS)
def test_jpegs_of_every_kind(kind):
    image, options = JPEGS[kind]
    content = encode(image, "MPO" if kind == "multi-picture" else "JPEG", quality=95, **options)
    expected = np.asarray(Image.fromarray(GREY if kind == "grey" else COLOURS).convert("RGB"), np.int32)
    assert np.abs(decode_image(content) - expected).mean() < 3
    with Image.open(io.BytesIO(content)) as pillow:
        np.testing.assert_array_equal(decode_image(content), np.asarray(pillow.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_applied(kind, orientation):
    upright = picture(64, 48)
    # what a camera that was held in that way stores
    turn = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(np.ascontiguousarray(turn[orientation]), kind, exif=exif, quality=95)
    sizes = []
    decoded = decode_image(content, lambda height, width: sizes.append((height, width)) or 2)
    assert sizes == [(64, 48)]
    expected = upright if kind != "JPEG" else cv2.resize(upright, (24, 32), interpolation=cv2.INTER_AREA)
    assert np.abs(decoded.astype(int) - expected).mean() < 4
    assert np.abs(decode_image(content).astype(int) - upright).mean() < 4
    assert (
        image_size(content)
        == image_size(encode(np.ascontiguousarray(turn[orientation]), "TIFF", exif=exif))
        == (64, 48)
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_of_xmp_is_not(kind):
    upright, exif, text = picture(64, 48), Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x010F] = "of a camera"
    xmp = '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>'
    text.add_itxt("XML:com.adobe.xmp", xmp)
    options = {"PNG": {"pnginfo": text}, "TIFF": {"tiffinfo": {700: xmp.encode()}}}
    for more in ({}, {} if kind == "TIFF" else {"exif": exif}):
        content = encode(upright, kind, **options.get(kind, {"xmp": xmp.encode()}), quality=95, **more)
        assert image_size(content) == decode_image(content).shape[:2] == (64, 48)


def test_exif_as_imagemagick_writes_it_into_png():
    exif, text = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif.tobytes())}\n{exif.tobytes().hex()}\n")
    content = encode(picture(64, 48), "PNG", pnginfo=text)
    assert image_size(content) == decode_image(content).shape[:2] == (48, 64)


def test_the_size_comes_from_the_header():
    assert image_size(encode(picture(30, 50), "PNG")[:60]) == (30, 50)
    for content in (b"", b"no picture", encode(picture(30, 50), "JPEG")[:10]):
        with pytest.raises(DataError):
            image_size(content)


def truncated(content: bytes) -> list[bytes]:
    return [content[: len(content) * share // 100] for share in (5, 30, 60, 90)]


PHOTOGRAPH = encode(picture(120, 160), "JPEG", quality=90)
BROKEN = {
    "empty": ([b""], r"the file is empty \(0 bytes\)"),
    "text": ([b"hello world" * 20], "not an image, or damaged, or in none of the formats JPEG, PNG"),
    "pdf": ([b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + b"0" * 99], "a PDF; `pdftoppm"),
    "heic": (
        [b"\0\0\0\x18ftyp" + brand + b"\0" * 99 for brand in (b"heic", b"heix", b"mif1")],
        "a HEIC .* `heif-convert",
    ),
    "avif": ([b"\0\0\0\x20ftypavif" + b"\0" * 99], "an AVIF; `avifdec"),
    "truncated JPEG": ([*truncated(PHOTOGRAPH), PHOTOGRAPH[:-2], PHOTOGRAPH[:2]], "damaged|not an image"),
    "truncated PNG": (truncated(encode(picture(120, 160))), "damaged|not an image"),
    "truncated GIF": (truncated(encode(Image.fromarray(COLOURS).quantize(64), "GIF"))[:3], "damaged|not an image"),
    "truncated WebP": (truncated(encode(COLOURS, "WEBP")), "damaged|not an image"),
    "32 bit": (
        [
            encode(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
            encode(Image.fromarray(GREY.astype(np.float32)), "TIFF"),
        ],
        "has 32-bit samples",
    ),
    "too long": (
        [encode(np.zeros((1, 101, 3), np.uint8))],
        "101 x 1 pixels: one side is more than 100 times the other",
    ),
    "bomb": ([b"P6 60000 60000 255\n" + b"\0" * 100], "decompression bomb"),
    "eps": ([b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"], "not an image"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_are_one_clear_error(kind, capfd):
    contents, message = BROKEN[kind]
    for content in contents:
        with pytest.raises(DataError, match=message):
            decode_image(content)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow; the reader silences them, which pytest undoes
def test_random_damage_raises_data_errors_only():
    seed = random.randrange(2**31)
    print(f"{seed=}")
    rng = np.random.default_rng(seed)
    contents = [content for content, _ in FILES.values()] + [PHOTOGRAPH]
    contents += [encode(image, "JPEG") for image, _ in JPEGS.values()] + [encode(COLOURS, "WEBP")]
    read = 0
    for content in contents * 12:
        damaged = np.frombuffer(content, np.uint8).copy()
        for position in rng.integers(0, len(damaged), rng.integers(1, 8)):
            damaged[position] = rng.integers(256)
        damaged = damaged[: rng.integers(1, len(damaged) + 1)] if rng.random() < 0.3 else damaged
        try:
            image = decode_image(damaged.tobytes())
            assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
            read += 1
        except DataError as error:
            assert str(error)
    assert 0 < read < 12 * len(contents)


# Finding


def write(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(picture(8, 8, seed)))


def write_video(path: Path, count: int = 6) -> list[int]:
    """Grey frames; returns their brightness."""
    levels = [20 + 30 * number for number in range(count)]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
    for level in levels:
        writer.write(np.full((16, 32, 3), (level, level // 2, 0), np.uint8))
    writer.release()
    return levels


def test_files_folders_patterns_and_lists_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(
        tmp_path, "b.png", "a.png", "in/2.PNG", "in/deeper/1.png", "in/.hidden.png", "in/.folder/3.png", "odd [1].png"
    )
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "list.txt").write_bytes("\ufeffb.png\r\n\n  in/deeper  \n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"in/2.PNG\n*.png\n")))
    names = [name for name, _ in pictures(find(["b.png", "in", "[ab].png", "odd [1].png", "@list.txt", "-"]))]
    assert names == [
        "b.png",
        *("in/2.PNG", "in/deeper/1.png"),
        *("a.png", "b.png"),
        "odd [1].png",
        *("b.png", "in/deeper/1.png"),
        *("in/2.PNG", "a.png", "b.png", "odd [1].png"),
    ]


@pytest.mark.parametrize(
    "word, message",
    [
        ("nowhere.png", "nowhere.png: no such file, and nothing matches it as a pattern"),
        ("empty", "empty: no image or video in this folder"),
        ("@nowhere.txt", "nowhere.txt: no such file"),
        ("@blank.txt", "blank.txt: names no image or video"),
        ("@wrong.txt", "wrong.txt:2: c.png: no such file"),
        ("@a.png", "a.png: is no list of names, one a line, but another file"),
        ("@nested.txt", "nested.txt:1: @wrong.txt: a list names files"),
        ("-", "standard input: names no image or video"),
        ("broken.png", "broken.png: not an image, or damaged"),
        ("broken.mp4", "broken.mp4: not a video, or damaged"),
        ("cut.mp4", "cut.mp4: not a video, or damaged"),
        ("camera:99", "camera:99: there is no such camera"),
        ("nothing.png", "nothing.png: no such file, and nothing matches it"),
        ("noth*.png", "noth*.png: no such file, and nothing matches it"),
        ("camera:99999999999", "camera:99999999999: no such file, and nothing matches it"),
    ],
)
def test_what_is_not_there_or_no_picture_is_named(tmp_path, monkeypatch, capfd, word, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b" \n")))
    (tmp_path / "empty").mkdir()
    (tmp_path / "nothing.png").symlink_to("nowhere.png")
    for name in ("broken.png", "broken.mp4"):
        (tmp_path / name).write_text("hello " * 50)
    write(tmp_path, "a.png")
    for name, text in (("blank", "\n"), ("wrong", "a.png\nc.png\n"), ("nested", "@wrong.txt\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "cut.mp4").write_bytes(b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(200))
    with pytest.raises(DataError) as error:
        list(pictures(find([word])))
    assert str(error.value).startswith(message)
    assert capfd.readouterr().err == ""


def test_of_several_files_that_cannot_be_read_each_is_told(tmp_path):
    write(tmp_path, "a.png", "c.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "d.mp4").write_bytes(b"no film")
    (tmp_path / "e.png").symlink_to("nowhere.png")
    told: list[DataError] = []
    found = [Path(place).name for place, _ in pictures(find([str(tmp_path)]), unreadable=told.append)]
    assert found == ["a.png", "c.png"]
    assert [str(error)[len(str(tmp_path)) + 1 :][:22] for error in told] == [
        "b.png: the file is emp",
        "d.mp4: not a video, or",
        "e.png: no such file",
    ]


def test_the_frames_of_a_video(tmp_path, capsys):
    levels = write_video(tmp_path / "film.avi")
    found = list(pictures(find([str(tmp_path)])))
    assert [place for place, _ in found] == [f"{tmp_path}/film.avi#{number}" for number in range(6)]
    for level, (_, frame) in zip(levels, found, strict=True):
        assert frame.shape == (16, 32, 3) and frame.dtype == np.uint8
        # OpenCV writes blue first.
        assert np.abs(frame.mean(axis=(0, 1)) - [0, level // 2, level]).max() < 6
    assert [place[-2:] for place, _ in pictures(find([str(tmp_path)]), step=4)] == ["#0", "#4"]
    assert capsys.readouterr().err == ""


def test_a_video_that_ends_early_says_so(tmp_path, capsys):
    path, noise = tmp_path / "film.avi", np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for frame in noise:
        writer.write(frame)
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    found = len(list(pictures([str(path)])))
    assert 0 < found < 20
    assert f"note: {path}: {found} frames could be read of the 20" in capsys.readouterr().err


def test_a_camera_is_read_until_it_stops(monkeypatch):
    class Camera:
        def __init__(self, number: int):
            assert number == 1
            self.left = 3

        def grab(self) -> bool:
            self.left -= 1
            return self.left >= 0

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.full((2, 2, 3), (0, 0, 255), np.uint8)

        def release(self) -> None:
            self.left = 0

    monkeypatch.setattr(media.cv2, "VideoCapture", Camera)
    camera = pictures(["camera:1"])
    found = [next(camera) for _ in range(3)]
    assert [place for place, _ in found] == ["camera:1#0", "camera:1#1", "camera:1#2"]
    assert (found[0][1] == (255, 0, 0)).all()
    with pytest.raises(DataError, match="camera:1: the camera stopped"):
        next(camera)


def test_grey_alpha_and_turned_files_come_as_the_network_sees_them(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(encode(np.zeros((10, 20, 3), np.uint8), "JPEG", exif=exif))
    (tmp_path / "alpha.png").write_bytes(encode(transparent("RGBA")))
    shapes = {Path(place).name: image.shape for place, image in pictures(find([str(tmp_path)]))}
    assert shapes == {"alpha.png": (40, 30, 3), "turned.jpg": (20, 10, 3)}


def test_a_camera_is_ended_by_an_interrupt_and_nothing_else_is() -> None:
    with media.until_interrupted(["photo.jpg", "camera:0"]):
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), media.until_interrupted(["photo.jpg"]):
        raise KeyboardInterrupt
