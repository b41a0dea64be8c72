"""Letters in pictures: fonts that have those of a text, which may be in any language."""

import contextlib
from functools import cache

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FAMILIES = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "PingFang HK"),
    *("Hiragino Sans GB", "Heiti TC", "Arial Unicode MS"),
)
"""Fonts of Linux, Windows and macOS that have Chinese characters; those that are installed are used. Of a file with several
fonts matplotlib knows the first alone, in which all characters are: of Noto's CJK fonts that is JP.
"""


def font(text: str, size: int, *, mono: bool = False) -> Font:
    """A font of `size` pixels for `text`: Pillow's own, which has ASCII; DejaVu, which matplotlib brings along; or an
    installed one of `FAMILIES`. Where none has all letters, that which has most; `mono`: rather one whose letters are as wide
    as each other, so that columns stand below each other.
    """
    if text.replace("…", "").isascii() and not mono:
        return _loaded(None, size)
    files = [*([_dejavu("DejaVuSansMono")] if mono else []), *_files()]
    return _loaded(max(files, key=lambda file: len(_letters_of(text) & _letters_in(file))), size)


def drawable(text: str) -> bool:
    """Whether a font has all letters of `text`."""
    return text.isascii() or any(_letters_of(text) <= _letters_in(file) for file in _files())


@cache
def installed() -> dict[str, str]:
    """Those of `FAMILIES` that are installed -> their files."""
    from matplotlib.font_manager import findSystemFonts, fontManager

    # Matplotlib's list is of the day when it was made: what was installed since is new to it.
    for file in set(findSystemFonts()) - {entry.fname for entry in fontManager.ttflist}:
        with contextlib.suppress(OSError, RuntimeError):  # no font, or a damaged one
            fontManager.addfont(file)
    found = {entry.name: entry.fname for entry in fontManager.ttflist}
    return {name: found[name] for name in FAMILIES if name in found}


@cache
def _files() -> list[str]:
    return [_dejavu("DejaVuSans"), *installed().values()]


def _dejavu(name: str) -> str:
    import matplotlib

    return f"{matplotlib.get_data_path()}/fonts/ttf/{name}.ttf"


@cache
def _letters_in(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())


def _letters_of(text: str) -> set[int]:
    return {ord(letter) for letter in text if not letter.isspace()}


@cache
def _loaded(file: str | None, size: int) -> Font:
    return ImageFont.load_default(size) if file is None else ImageFont.truetype(file, size)
