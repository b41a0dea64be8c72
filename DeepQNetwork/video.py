"""A game as a .gif or .mp4, written while it is played: however long it is, a picture or two of it are in memory."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from fluid import files
from fluid.errors import UserError
from fluid.films import Add, mp4

import numpy as np
from PIL import GifImagePlugin, Image

COLOURS = 64
"""Of a picture of a GIF. Atari's screens use fewer: with a palette each they stay exact."""
LONGEST = 60_000
"""Hundredths of a second that a picture of a GIF stands; the format counts them with 16 bits."""


class Recorder:
    """Hands on every so many screens of a game, or each several times, so that the video runs at the game's speed.

    A frame shows the screen of its time: the frames that begin before a screen's time is over are of that screen.
    """

    def __init__(self, add: Add, frames_per_second: float, screens_per_second: float) -> None:
        self.frames = 0
        """Handed on so far."""
        self._add = add
        self._frames_per_second, self._screens_per_second = frames_per_second, screens_per_second
        self._seen = 0

    def add(self, screens: list[np.ndarray]) -> None:
        """Take what is due of the next screens [H, W, 3] uint8."""
        for screen in screens:
            self._seen += 1
            # A product on either side: the quotient of the rates would be rounded.
            while self.frames * self._screens_per_second < self._seen * self._frames_per_second:
                self._add(screen)
                self.frames += 1


@contextlib.contextmanager
def recording(path: Path | None, frames_per_second: float, screens_per_second: float) -> Iterator[Recorder | None]:
    """What records a game to a .gif or .mp4, which is there after the block; without a path nothing does.

    Of a block that fails nothing is left. Raises UserError for another suffix, or if the video cannot be written.
    """
    if path is None:
        yield None
        return
    check_name(path)
    with {".gif": _gif, ".mp4": mp4}[path.suffix](path, frames_per_second) as add:
        yield Recorder(add, frames_per_second, screens_per_second)


def check_name(path: Path) -> None:
    """Raise UserError if `recording` writes no such file."""
    if path.suffix not in (".gif", ".mp4"):
        raise UserError(f"{path}: videos are written as .gif or .mp4")


@contextlib.contextmanager
def _gif(path: Path, frames_per_second: float) -> Iterator[Add]:
    with files.whole(path) as unfinished, open(unfinished, "wb") as file:
        gif = _Gif(file, frames_per_second)
        yield gif.add
        gif.finish()


class _Gif:
    """A GIF written picture by picture, where Pillow's own `save` keeps all of them until it has the last.

    Only changes are stored, and of equal frames one. A picture is written when the next one ends its time.
    """

    def __init__(self, file: BinaryIO, frames_per_second: float) -> None:
        self._file, self._rate = file, frames_per_second
        self._frames = 0
        self._shown: np.ndarray | None = None
        self._waiting: tuple[Image.Image, tuple[int, int], dict[str, Any]] | None = None
        self._since = 0

    def add(self, frame: np.ndarray) -> None:
        """See `Add`."""
        image = Image.fromarray(frame).quantize(COLOURS, dither=Image.Dither.NONE)
        used = [color for color, count in enumerate(image.histogram()) if count]
        image = image.remap_palette(used)
        shown = np.asarray(image.convert("RGB"))
        if self._shown is None:
            header, _ = GifImagePlugin.getheader(image, info={"loop": 0})
            self._file.writelines(header)
            self._waiting = image, (0, 0), {}
        else:
            changed = (shown != self._shown).any(axis=2)
            # A picture that has stood too long is shown again, by one pixel of it.
            changed[0, 0] |= self._now() - self._since >= LONGEST
            if (box := Image.fromarray(changed).getbbox()) is not None:
                self._write_waiting()
                unchanged = len(used)
                image.paste(unchanged, mask=Image.fromarray(~changed))
                options = {"include_color_table": True, "transparency": unchanged}
                self._waiting = image.crop(box), box[:2], options
        self._shown = shown
        self._frames += 1

    def finish(self) -> None:
        """Write the last picture and the end."""
        self._write_waiting()
        self._file.write(b";")

    def _now(self) -> int:
        # GIF counts in hundredths of a second: rounding the time of each frame would change the game's speed.
        return round(100 * self._frames / self._rate)

    def _write_waiting(self) -> None:
        if self._waiting is not None:
            piece, corner, options = self._waiting
            milliseconds = 10 * (self._now() - self._since)
            self._file.writelines(GifImagePlugin.getdata(piece, corner, duration=milliseconds, **options))
        self._since = self._now()
