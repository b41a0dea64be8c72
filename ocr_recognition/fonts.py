"""Fonts that words are drawn with: the families that come along (data/fonts) or a folder of the user's.

Glyphs are rendered once a process and kept. Of a font of capitals the small letters look like the large ones, so that it
draws texts in capitals only; `fonts.tsv` says which these are, and which characters a font lacks.
"""

import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from fluid.errors import DataError
from fluid.text import read_lines
from ocr_recognition.words import Part

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FOLDER = Path(__file__).resolve().parent / "data" / "fonts"
EXTENSIONS = (".woff2", ".woff", ".ttf", ".otf")
SIZES = (24, 48, 96)
"""Pixels an em that glyphs are rendered at; the last is what places and sizes are given in."""
UNIT = SIZES[-1]
HELD_OUT = frozenset(
    [
        "barlow-condensed",
        "crimson-pro",
        "fredoka",
        "titan-one",
        "kalam",
        "zilla-slab",
        "raleway",
        "tinos",
        "pixelify-sans",
        "exo-2",
    ]
)
"""Families kept for tests of fonts never trained on."""

WEIGHTS = {
    "sans": 0.30,
    "condensed": 0.14,
    "slab": 0.08,
    "serif": 0.18,
    "rounded": 0.06,
    "display": 0.10,
    "script": 0.08,
    "uncial": 0.03,
    "stencil": 0.01,
    "dot matrix": 0.04,
    "segments": 0.03,
    "outlined": 0.02,
    "typewriter": 0.04,
}
"""How often a style is drawn; those of the user's folders each as often as sans."""
PIXELS = {"press-start-2p": 1 / 8, "tiny5": 1 / 8, "vt323": 0.08}
"""Parts of an em between the dots of families made of dots."""

# Nobody can read words in their capitals.
_OF_SMALL_LETTERS = {"unifrakturmaguntia"}
_TOLD_APART = "abdefghnqrt"
# Part of a coarse picture in which small and large letters differ: below it in fonts of capitals, above it in all others.
_SAME = 0.08
_ASCII = [character for character in string.printable if character.isprintable() and character != " "]
_COLUMNS = ("file", "kind", "letters", "lacks")


class Glyph(NamedTuple):
    """A character as drawn."""

    mask: np.ndarray
    """Ink, [h, w] uint8."""
    left: int
    """From the pen to the mask."""
    top: int
    """From the base line down to the mask; negative above it."""
    advance: float
    """To the next character's pen."""


@dataclass(eq=False)
class Font:
    """One file."""

    path: Path
    kind: str
    """Style of the family."""
    capitals: bool
    """Whether small letters look like large ones."""
    lacks: frozenset[str]
    """Characters of ASCII that it does not have."""
    _others: dict[str, bool] = field(default_factory=dict, repr=False)
    _faces: dict[int, ImageFont.FreeTypeFont] = field(default_factory=dict, repr=False)
    _glyphs: dict[tuple[str, int], Glyph] = field(default_factory=dict, repr=False)

    @property
    def family(self) -> str:
        """Name of the family, from the file's."""
        return self.path.name.partition("-latin")[0]

    def draws(self, text: str) -> bool:
        """Whether a text can be told from its picture in this font."""
        if self.family in _OF_SMALL_LETTERS and sum(map(str.isupper, text)) > 1:
            return False
        has_all = self.lacks.isdisjoint(text) and (text.isascii() or all(map(self.has, text)))
        return has_all and not (self.capitals and text != text.upper())

    def has(self, character: str) -> bool:
        """Whether it shows a character, and not a box in its place."""
        if character.isascii():
            return character not in self.lacks
        if character not in self._others:
            self._others[character] = not _is_absent(self._face(UNIT), character)
        return self._others[character]

    def glyph(self, character: str, size: int) -> Glyph:
        """A character at `size` pixels an em, one of SIZES."""
        found = self._glyphs.get((character, size))
        if found is None:
            found = self._glyphs[character, size] = self._render(character, size)
        return found

    def _face(self, size: int) -> ImageFont.FreeTypeFont:
        if size not in self._faces:
            self._faces[size] = _open(self.path, size)
        return self._faces[size]

    def _render(self, character: str, size: int) -> Glyph:
        face = self._face(size)
        left, top, right, bottom = face.getbbox(character, anchor="ls")
        image = Image.new("L", (max(int(right - left), 0), max(int(bottom - top), 0)))
        if image.width and image.height:
            mask, (left, top) = face.getmask2(character, mode="L", anchor="ls")
            image = Image.frombytes("L", mask.size, bytes(mask))
        return Glyph(np.asarray(image), int(left), int(top), float(face.getlength(character)))

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_faces": {}, "_glyphs": {}}


class Segments(Font):
    """Digits, and what else seven segments show, as clocks and tills have them."""

    def __init__(self) -> None:
        lacks = frozenset(_ASCII) - _SEGMENTS.keys() - {".", ":"}
        super().__init__(Path("seven-segments"), "segments", False, lacks)

    def has(self, character: str) -> bool:
        return character.isascii() and character not in self.lacks

    def _render(self, character: str, size: int) -> Glyph:
        unit = size / 100
        advance = 58 * unit
        if character == " ":
            return Glyph(np.zeros((0, 0), np.uint8), 0, 0, advance)
        canvas = Image.new("L", (4 * round(72 * unit), 4 * round(76 * unit)))
        draw, scale = ImageDraw.Draw(canvas), 4 * unit
        if character in ".:":
            advance = 24 * unit
            for y in (66,) if character == "." else (24, 50):
                draw.rectangle([scale * x for x in (4, y, 13, y + 9)], 255)
        for segment in _SEGMENTS.get(character, ""):
            draw.polygon([(scale * x, scale * y) for x, y in _PLACES[segment]], 255)
        mask = np.asarray(canvas.resize((canvas.width // 4, canvas.height // 4), Image.Resampling.BOX))
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        inked = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        return Glyph(inked.copy(), int(columns[0]), int(rows[0]) - round(75 * unit), advance)


def _segment(x: float, y: float, across: bool) -> list[tuple[float, float]]:
    """The six corners of a segment of length 34 and thickness 9 from (x, y) on."""
    along = [(1.5, 0), (6, -4.5), (29, -4.5), (33.5, 0), (29, 4.5), (6, 4.5)]
    return [(x + a, y + b) if across else (x + b, y + a) for a, b in along]


# From the top clockwise, the middle one last; leaning segments are left to shearing.
_PLACES = {
    "a": _segment(9, 5, True),
    "b": _segment(44, 5, False),
    "c": _segment(44, 40, False),
    "d": _segment(9, 75 - 5, True),
    "e": _segment(9, 40, False),
    "f": _segment(9, 5, False),
    "g": _segment(9, 38, True),
}
_SEGMENTS = {
    **{"0": "abcdef", "1": "bc", "2": "abged", "3": "abgcd", "4": "fgbc", "5": "afgcd", "6": "afgedc", "7": "abc"},
    **{"8": "abcdefg", "9": "abcdfg", "-": "g", "A": "abcefg", "C": "adef", "E": "adefg", "F": "aefg", "H": "bcefg"},
    **{"L": "def", "P": "abefg", "U": "bcdef", "b": "cdefg", "d": "bcdeg"},
}


def weights(fonts: Sequence[Font]) -> np.ndarray:
    """How often each font is drawn: WEIGHTS shared by the fonts of a style; they sum to 1."""
    styles = Counter(font.kind for font in fonts)
    shares = np.array([WEIGHTS.get(font.kind, WEIGHTS["sans"]) / styles[font.kind] for font in fonts])
    return shares / shares.sum()


def open_fonts(folder: Path | None = None, part: Part = "all") -> list[Font]:
    """The fonts that come along, or all those of a folder.

    Raises DataError if there is none in the folder or one cannot be opened.
    """
    if folder is not None:
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in EXTENSIONS)
        if not paths:
            raise DataError(f"{folder}: holds no font ({', '.join(EXTENSIONS)})")
        return [inspect(path, path.parent.name) for path in paths]
    return [font for font in _coming_along() if part == "all" or (font.family in HELD_OUT) == (part == "test")]


@cache
def _coming_along() -> tuple[Font, ...]:
    """Opened once a process: what one maker of words has rendered serves the others."""
    rows = [line.split("\t") for line in read_lines(FOLDER / "fonts.tsv")[1:]]
    fonts = [Font(FOLDER / name, kind, letters == "capitals", frozenset(lacks)) for name, kind, letters, lacks in rows]
    return (*fonts, Segments())


def write_table(fonts: Sequence[Font], path: Path) -> None:
    """Write what `inspect` found, as `open_fonts` reads it."""
    rows = [
        (font.path.name, font.kind, "capitals" if font.capitals else "all", "".join(sorted(font.lacks)))
        for font in fonts
    ]
    path.write_text("".join("\t".join(row) + "\n" for row in [_COLUMNS, *rows]), encoding="utf-8")


def inspect(path: Path, kind: str) -> Font:
    """Find out what a font lacks and whether its small letters are capitals. Raises DataError."""
    face = _open(path, 64)
    lacks = {character for character in _ASCII if _is_absent(face, character)}
    differing = [np.mean(_shape(face, letter) != _shape(face, letter.upper())) for letter in _TOLD_APART]
    return Font(path, kind, bool(np.median(differing) < _SAME), frozenset(lacks))


def _open(path: Path, size: int) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)
    except OSError as error:
        raise DataError(f"{path}: is not a font that can be opened ({error})") from None


def _is_absent(face: ImageFont.FreeTypeFont, character: str) -> bool:
    """Whether a character looks like one that no font has, or like nothing."""
    return bytes(face.getmask(character)) == bytes(face.getmask("\uffff")) or not face.getbbox(character)[2]


def _shape(face: ImageFont.FreeTypeFont, character: str) -> np.ndarray:
    """A character's picture whatever its size, coarsely: [64] bool."""
    mask = face.getmask(character)
    picture = Image.frombytes("L", mask.size, bytes(mask)) if all(mask.size) else Image.new("L", (8, 8))
    return np.asarray(picture.resize((8, 8), Image.Resampling.BOX)).reshape(-1) > 127
