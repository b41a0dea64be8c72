"""Pictures of words, made without end: each a function of its random numbers alone.

    made = WordMaker().make(np.random.default_rng(7));  made.picture [h, w] uint8 grey, made.text, made.effects

A word is first drafted: text, font, places of its letters, the quadrilateral that it is seen as, the box that is cut around
it. A draft tells the shape of the picture before anything is drawn, so that words of a given width can be asked for. Then
letters are drawn, bent and seen in perspective, laid over a background, lit, covered in part, and photographed: blurred,
noisy, compressed. Every change is gentle enough that a person still reads the word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from fluid.errors import DataError
from ocr_recognition.alignment import frames_needed, frames_of_width
from ocr_recognition.backgrounds import Backgrounds
from ocr_recognition.fonts import PIXELS, SIZES, UNIT, Font, Glyph, weights
from ocr_recognition.words import Texts

import cv2
import numpy as np

HEIGHTS = (18, 120)
"""Pixels a word's picture is high before it is resized."""
ASPECTS = (0.5, 12.0)
"""Least and largest width : height of a picture."""
LOWEST_CONTRAST = 20
"""Grey levels between ink and ground, at least."""
EFFECTS = {
    "spaced": 0.15,
    "stretched": 0.3,
    "sheared": 0.2,
    "rotated": 0.25,
    "perspective": 0.25,
    "curved": 0.1,
    "bouncing": 0.04,
    "bold": 0.06,
    "outlined": 0.06,
    "shadowed letters": 0.06,
    "embossed": 0.03,
    "unsteady": 0.12,
    "dot matrix": 0.07,
    "stencilled": 0.03,
    "neighbours": 0.2,
    "framed": 0.14,
    "panel": 0.1,
    "cut": 0.12,
    "low contrast": 0.12,
    "photograph": 0.25,
    "cloud": 0.25,
    "gradient": 0.25,
    "highlight": 0.1,
    "shadow": 0.12,
    "occluded": 0.14,
    "blur": 0.4,
    "motion": 0.06,
    "sharpened": 0.25,
    "enlarged": 0.15,
    "noise": 0.3,
    "jpeg": 0.4,
}
"""How often each is drawn, where a maker does not say otherwise. Half of all words are light on dark, which is counted as "light"."""
_GEOMETRY = ("spaced", "stretched", "sheared", "rotated", "perspective", "curved", "bouncing", "cut")
_STYLES = ("outlined", "shadowed letters", "embossed", "dot matrix", "stencilled", "bold")
_TRIES = 5000
_IN_RELIEF = ("outlined", "shadowed letters", "embossed")
# Styles of which other styles would leave too little.
_FINE = ("script", "outlined", "dot matrix", "segments", "uncial", "stencil")
_ON_A_GRID = ("dot matrix", "segments")
_DIMMING = ("photograph", "cloud", "shadow", "highlight", "occluded", "gradient")
# Pixels of the letters' canvas around the ink, as parts of an em.
_PAD = 0.4


class Made(NamedTuple):
    """A picture of a word."""

    picture: np.ndarray
    """[h, w] uint8 grey."""
    text: str
    effects: frozenset[str]
    """What was done to it."""


@dataclass
class Draft:
    """All of a word but its pixels. Places are in units of which an em has UNIT, from the first pen on the base line."""

    text: str
    font: Font
    pens: list[float]
    """x of each character."""
    lifts: list[float]
    """y of each character."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of the ink, bending included."""
    bend: float
    """How much lower the ends are than the middle."""
    corners: list[tuple[float, float]]
    """Where the corners of the box are seen in the picture: clockwise from the upper left, in pixels."""
    shape: tuple[int, int]
    """Height and width of the picture."""
    letter_height: float
    """Pixels of an em in the picture."""
    letter_size: float
    """The same, or less where letters are narrow: what blur is measured by."""
    effects: set[str]
    rates: Mapping[str, float]
    """How often each of EFFECTS is drawn."""


@dataclass
class WordMaker:
    """Makes pictures of words. Holds no state but what it renders once."""

    fonts: Sequence[Font]
    texts: Texts = field(default_factory=Texts)
    columns_a_frame: int | None = 8
    """Of the network: a word gets at least the frames that its label needs at a height of `height`; None is any width."""
    height: int = 48
    backgrounds: Backgrounds = field(default_factory=Backgrounds)
    rates: Mapping[str, float] = field(default_factory=lambda: EFFECTS)
    """How often each effect is drawn."""

    def make(self, rng: np.random.Generator, widths: tuple[int, int] = (0, 1 << 30)) -> Made:
        """A word whose picture, resized to `height`, is wider than widths[0] and at most widths[1].

        Raises DataError if hardly any word is.
        """
        draft = self.draft(rng, widths)
        return Made(draw(draft, self.backgrounds, rng), draft.text, frozenset(draft.effects))

    def draft(self, rng: np.random.Generator, widths: tuple[int, int] = (0, 1 << 30)) -> Draft:
        """The next draft that fits."""
        for _ in range(_TRIES):
            text = self.texts.draw(rng)
            font = self.fonts[min(int(np.searchsorted(self._upto, rng.random())), len(self.fonts) - 1)]
            if font.capitals and text != text.upper() and self.texts.cases:
                text = text.upper()
            if not font.draws(text):
                continue
            draft = draft_word(text, font, rng, self.rates)
            if draft is not None and self._fits(draft, widths):
                return draft
        raise DataError(
            f"in {_TRIES} tries no word that a font has was {widths[0] + 1} to {widths[1]} pixels wide: use other texts or fonts"
        )

    @cached_property
    def _upto(self) -> np.ndarray:
        return np.cumsum(weights(self.fonts))

    def _fits(self, draft: Draft, widths: tuple[int, int]) -> bool:
        width = width_at(draft.shape, self.height)
        if not widths[0] < width <= widths[1]:
            return False
        if self.columns_a_frame is None:
            return True
        label = np.frombuffer(draft.text.encode("utf-32-le"), np.uint32)
        return frames_needed(label) <= frames_of_width(width, self.columns_a_frame)


def width_at(shape: tuple[int, int], height: int) -> int:
    """Width of a picture of this (height, width) resized to a height, its sides' ratio kept."""
    return max(round(shape[1] * height / shape[0]), 1)


# Drafting


def draft_word(text: str, font: Font, rng: np.random.Generator, rates: Mapping[str, float]) -> Draft | None:
    """Places, quadrilateral and box of a word; None if its picture would be too narrow or too wide."""
    random = rng.random
    effects = {name for name in _GEOMETRY if random() < rates[name]}
    spacing = UNIT * (_between(rng, 0.12, 0.6) if "spaced" in effects else _between(rng, -0.02, 0.05))
    if font.kind in ("script", "dot matrix"):
        # Letters that join, and dots on one grid.
        spacing = 0.0
        effects.discard("spaced")
    lift = 0.1 * UNIT if "bouncing" in effects else 0.0
    pens, lifts, x = [], [], 0.0
    left = top = float("inf")
    right = bottom = float("-inf")
    for character in text:
        glyph = font.glyph(character, UNIT)
        y = lift * (2 * random() - 1) if lift else 0.0
        pens.append(x)
        lifts.append(y)
        rows, columns = glyph.mask.shape
        if rows and columns:
            left, right = min(left, x + glyph.left), max(right, x + glyph.left + columns)
            top, bottom = min(top, y + glyph.top), max(bottom, y + glyph.top + rows)
        x += glyph.advance + spacing
    if right <= left:
        return None
    bend = 0.0
    if "curved" in effects and len(text) > 3:
        bend = (bottom - top) * _between(rng, 0.1, 0.4) * _sign(rng)
        top, bottom = top + min(bend, 0.0), bottom + max(bend, 0.0)
    else:
        effects.discard("curved")
    # Boxes of short letters are not always tight: those of a line of text are as high as its letters can be.
    if random() < 0.25:
        top, bottom = min(top, -0.7 * UNIT), max(bottom, 0.2 * UNIT)
    box = left, top, right, bottom
    corners = _seen(box, effects, rng)
    shape = _framed(corners, effects, rng)
    if shape is None:
        return None
    letter_height = UNIT * (corners[3][1] - corners[0][1]) / (bottom - top)
    letter_size = min(letter_height, 2 * (corners[1][0] - corners[0][0]) / len(text))
    return Draft(text, font, pens, lifts, box, bend, corners, shape, letter_height, letter_size, effects, rates)


def _seen(
    box: tuple[float, float, float, float], effects: set[str], rng: np.random.Generator
) -> list[tuple[float, float]]:
    """The corners of the box after stretching, shearing, turning and perspective, for an ink height of 1."""
    height, width = 1.0, (box[2] - box[0]) / (box[3] - box[1])
    if "stretched" in effects:
        width *= _between(rng, 0.7, 1.4)
    near, far = (_between(rng, 0.0, 0.16), _between(rng, 0.0, 0.16)) if "perspective" in effects else (0.0, 0.0)
    if rng.random() < 0.5:
        corners = [(0.0, near), (width, 0.0), (width, height), (0.0, height - far)]
    else:
        corners = [(0.0, 0.0), (width, near), (width, height - far), (0.0, height)]
    shear = _between(rng, -0.35, 0.35) if "sheared" in effects else 0.0
    # Long words are turned less: their boxes would be mostly background.
    angle = _between(rng, -0.2, 0.2) / max(width / 3, 1.0) if "rotated" in effects else 0.0
    sine, cosine = np.sin(angle), np.cos(angle)
    sheared = [(x + shear * (height / 2 - y), y) for x, y in corners]
    return [(cosine * x - sine * y, sine * x + cosine * y) for x, y in sheared]


def _framed(corners: list[tuple[float, float]], effects: set[str], rng: np.random.Generator) -> tuple[int, int] | None:
    """Scale and move the corners into a picture with margins; its shape, or None outside of ASPECTS."""
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
    ink = bottom - top
    draw = rng.random()
    low, high = (-0.01, 0.06) if draw < 0.35 else (0.04, 0.18) if draw < 0.8 else (0.15, 0.45)
    margins = [ink * _between(rng, low, high) for _ in range(4)]
    if "cut" in effects:
        for side in range(2 if rng.random() < 0.7 else 4):
            margins[side] = -ink * _between(rng, 0.02, 0.07 if side < 2 else 0.05)
    else:
        # The sides vary less than top and bottom do.
        margins[2:] = [0.7 * margin for margin in margins[2:]]
    height, width = ink + margins[0] + margins[1], right - left + margins[2] + margins[3]
    if not ASPECTS[0] <= width / height <= ASPECTS[1]:
        return None
    pixels = HEIGHTS[0] * (HEIGHTS[1] / HEIGHTS[0]) ** rng.random()
    scale = pixels / height
    for number, (x, y) in enumerate(corners):
        corners[number] = ((x - left + margins[2]) * scale, (y - top + margins[0]) * scale)
    rows, columns = max(round(pixels), 1), max(round(width * scale), 1)
    return (rows, columns) if ASPECTS[0] <= columns / rows <= ASPECTS[1] else None


# Drawing


def draw(draft: Draft, backgrounds: Backgrounds, rng: np.random.Generator) -> np.ndarray:
    """The picture of a draft, [h, w] uint8; what is done to it joins the draft's effects."""
    effects = draft.effects
    rest = (name for name in EFFECTS if name not in _GEOMETRY and name not in _STYLES)
    effects |= {name for name in rest if rng.random() < draft.rates[name]}
    if draft.font.kind in _ON_A_GRID:
        effects.discard("unsteady")
    style = _style(draft, rng)
    if style:
        effects.add(style)
    ground, ink, other = _levels(draft, style, rng)
    alpha, level = _seen_letters(draft, style, ink, other, ground, rng)
    picture = _ground(draft, ground, abs(ink - ground), backgrounds, rng)
    picture += alpha * (level - picture)
    _light(picture, draft, abs(ink - ground), rng)
    return _photographed(picture, draft, abs(ink - ground), backgrounds, rng)


def _style(draft: Draft, rng: np.random.Generator) -> str | None:
    """How the letters are drawn, or None for plainly."""
    if draft.font.family in PIXELS and draft.letter_height > 34:
        return "dot matrix" if rng.random() < 0.6 else None
    draw = rng.random()
    for style in _STYLES:
        draw -= draft.rates[style]
        if draw < 0:
            fine = draft.font.kind in _FINE or draft.letter_height < 28
            fine = fine or (style == "dot matrix" and draft.letter_height < 45)
            return None if fine and style != "shadowed letters" else style
    return None


def _levels(draft: Draft, style: str | None, rng: np.random.Generator) -> tuple[float, float, float]:
    """Grey levels of ground, ink, and a second ink of outlines and shadows."""
    if style in _IN_RELIEF:
        draft.effects.difference_update(("low contrast", *_DIMMING))
        contrast = _between(rng, 70, 160)
    elif "low contrast" in draft.effects:
        # Little ink is all that such a word can lose.
        draft.effects.difference_update(_DIMMING)
        contrast = _between(rng, LOWEST_CONTRAST, 60)
    else:
        contrast = _between(rng, 60, 250)
    dark = _between(rng, 0, 255 - contrast)
    light = dark + contrast
    if rng.random() < 0.5:
        draft.effects.add("light")
        ground, ink = dark, light
    else:
        ground, ink = light, dark
    # A second ink stands out from the ground as the first does, on the other side where there is room.
    further = ground - (ink - ground) * _between(rng, 0.4, 1.0)
    return ground, ink, min(max(further, 0.0), 255.0)


def _seen_letters(
    draft: Draft,
    style: str | None,
    ink: float,
    other: float,
    ground: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | float]:
    """How much ink covers each pixel, [h, w] in 0..1, and its grey level."""
    need = draft.letter_height * 0.9
    size = next((size for size in SIZES if size >= need), SIZES[-1])
    above = 1.5 if "neighbours" in draft.effects else _PAD
    mask, origin = _letters(draft, size, above)
    if "unsteady" in draft.effects:
        mask = _unsteady(mask, size, rng)
    if "neighbours" in draft.effects:
        _add_neighbours(mask, origin, draft, size, rng)
    if "framed" in draft.effects and not draft.bend:
        _add_frame(mask, origin, draft, size, rng)
    layers = _styled(mask, style, draft.font, origin, size, (ink, other, ground), rng)
    if draft.bend:
        layers = [(_bent(layer, origin, draft, size), level) for layer, level in layers]
    matrix = _perspective(draft, origin, size)
    height, width = draft.shape
    warped = [
        (
            cv2.warpPerspective(layer, matrix, (width, height), flags=cv2.INTER_LINEAR).astype(np.float32)
            * np.float32(1 / 255),
            level,
        )
        for layer, level in layers
    ]
    if len(warped) == 1:
        return warped[0]
    return _over(warped)


def _over(layers: Sequence[tuple[np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Layers of (coverage, level), the last one on top, as one."""
    alpha, paint = layers[0][0].copy(), layers[0][0] * np.float32(layers[0][1])
    for cover, level in layers[1:]:
        paint += cover * (np.float32(level) - paint)
        alpha += cover * (1 - alpha)
    return alpha, paint / np.maximum(alpha, np.float32(1e-3))


def _letters(draft: Draft, size: int, above: float) -> tuple[np.ndarray, tuple[float, float]]:
    """The ink of the letters at `size` pixels an em, [h, w] uint8, and where the first pen is in it."""
    scale = size / UNIT
    left, top, right, bottom = (side * scale for side in draft.box)
    # Bending happens on the canvas; what it adds to the box is room there.
    origin_x, origin_y = _PAD * size - left, above * size - top
    shape = int(bottom - top + 2 * above * size) + 1, int(right - left + 2 * _PAD * size) + 1
    mask = np.zeros(shape, np.uint8)
    for character, pen, lift in zip(draft.text, draft.pens, draft.lifts):
        _stamp(mask, draft.font.glyph(character, size), origin_x + pen * scale, origin_y + lift * scale)
    return mask, (origin_x, origin_y)


def _stamp(mask: np.ndarray, glyph: Glyph, x: float, y: float) -> None:
    """Add a glyph with its pen at (x, y), as far as it is inside."""
    left, top = round(x) + glyph.left, round(y) + glyph.top
    rows, columns = glyph.mask.shape
    skip_top, skip_left = max(-top, 0), max(-left, 0)
    place = mask[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)]
    if place.size:
        part = glyph.mask[skip_top : skip_top + place.shape[0], skip_left : skip_left + place.shape[1]]
        np.maximum(place, part, out=place)


def _unsteady(mask: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """The letters as a hand draws them: no line is quite straight, no letter as wide or high as the same one beside it."""
    rows, columns = mask.shape
    moves = rng.standard_normal((2, 2 + 3 * rows // size, 2 + 3 * columns // size), np.float32)
    moves *= np.float32(size * _between(rng, 0.015, 0.05))
    across, down = (cv2.resize(move, (columns, rows), interpolation=cv2.INTER_CUBIC) for move in moves)
    across += np.arange(columns, dtype=np.float32)
    down += np.arange(rows, dtype=np.float32)[:, None]
    return cv2.remap(mask, across, down, cv2.INTER_LINEAR)


def _add_neighbours(
    mask: np.ndarray, origin: tuple[float, float], draft: Draft, size: int, rng: np.random.Generator
) -> None:
    """Lines of text above, below or both, so near that their edges may be seen."""
    scale = size / UNIT
    ink = (draft.box[3] - draft.box[1]) * scale
    where = rng.random()
    for side in (-1,) if where < 0.4 else (1,) if where < 0.8 else (-1, 1):
        x = origin[0] + draft.box[0] * scale - rng.random() * size
        lead = max(ink, 0.75 * size) + size * _between(rng, 0.08, 0.3)
        y = origin[1] + side * lead
        while x < mask.shape[1]:
            character = draft.text[int(rng.random() * len(draft.text))]
            glyph = draft.font.glyph(character, size)
            _stamp_outside(mask, glyph, x, y, origin[1] + draft.box[1] * scale, origin[1] + draft.box[3] * scale)
            x += max(glyph.advance, 1.0)


def _stamp_outside(mask: np.ndarray, glyph: Glyph, x: float, y: float, top: float, bottom: float) -> None:
    """Add a glyph unless it would reach into the rows of the word itself."""
    first, last = y + glyph.top, y + glyph.top + glyph.mask.shape[0]
    if last < top or first > bottom:
        _stamp(mask, glyph, x, y)


def _add_frame(
    mask: np.ndarray, origin: tuple[float, float], draft: Draft, size: int, rng: np.random.Generator
) -> None:
    """Lines around the word or under it, as of signs and plates."""
    scale, gap = size / UNIT, size * _between(rng, 0.08, 0.4)
    left, top, right, bottom = (side * scale for side in draft.box)
    x0, x1 = round(origin[0] + left - gap), round(origin[0] + right + gap)
    y0, y1 = round(origin[1] + top - gap), round(origin[1] + bottom + gap)
    thickness = max(round(size * _between(rng, 0.03, 0.14)), 1)
    if rng.random() < 0.6:
        cv2.rectangle(mask, (x0, y0), (x1, y1), 255, thickness)
    else:
        row = y1 if rng.random() < 0.7 else y0
        cv2.line(mask, (x0, row), (x1, row), 255, thickness)


def _styled(
    mask: np.ndarray,
    style: str | None,
    font: Font,
    origin: tuple[float, float],
    size: int,
    levels: tuple[float, float, float],
    rng: np.random.Generator,
) -> list[tuple[np.ndarray, float]]:
    """Layers of (ink [h, w] uint8, grey level) from the lowest to the topmost; `levels` of ink, second ink and ground."""
    ink, other, ground = levels
    if style == "bold":
        return [(cv2.dilate(mask, _disc(size * 0.02)), ink)]
    if style == "stencilled":
        cut = mask.copy()
        period, width = round(size * _between(rng, 0.28, 0.4)), max(round(size * 0.045), 1)
        row = round(mask.shape[0] / 2 + size * _between(rng, -0.1, 0.1))
        cut[row : row + width] = 0
        if rng.random() < 0.5:
            cut[row + period : row + period + width] = 0
        return [(cut, ink)]
    if style == "dot matrix":
        return [(_dots(mask, font, origin, size, rng), ink)]
    if style == "outlined":
        edge = cv2.dilate(mask, _disc(size * _between(rng, 0.025, 0.05)))
        if rng.random() < 0.5:
            return [(edge, other), (mask, ink)]
        inner = cv2.erode(mask, _disc(size * 0.02))
        return [(edge, ink), (inner, ground)]
    if style == "shadowed letters":
        shift = round(size * _between(rng, 0.03, 0.09)) or 1
        fallen = _shifted(mask, shift * _sign(rng), shift)
        if rng.random() < 0.5:
            fallen = cv2.blur(fallen, (2 * shift + 1, 2 * shift + 1))
        return [(fallen, other), (mask, ink)]
    if style == "embossed":
        shift = max(round(size * 0.025), 1)
        lit, dim = _shifted(mask, -shift, -shift), _shifted(mask, shift, shift)
        body = (ground + ink) / 2 if rng.random() < 0.5 else ground
        return [(lit, max(ink, other)), (dim, min(ink, other)), (mask, body)]
    return [(mask, ink)]


def _disc(radius: float) -> np.ndarray:
    side = 2 * max(round(radius), 1) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _shifted(mask: np.ndarray, right: int, down: int) -> np.ndarray:
    moved = np.zeros_like(mask)
    rows, columns = mask.shape
    moved[max(down, 0) : rows + min(down, 0), max(right, 0) : columns + min(right, 0)] = mask[
        max(-down, 0) : rows - max(down, 0), max(-right, 0) : columns - max(right, 0)
    ]
    return moved


def _dots(mask: np.ndarray, font: Font, origin: tuple[float, float], size: int, rng: np.random.Generator) -> np.ndarray:
    """The letters as dots or squares on a grid, as displays have them."""
    pitch = size * PIXELS.get(font.family, 1 / _between(rng, 11, 20))
    # Dots of such families are where their own are.
    right, down = origin if font.family in PIXELS else (0.0, 0.0)
    columns, rows = np.arange(mask.shape[1]) + 0.5 - right, np.arange(mask.shape[0]) + 0.5 - down
    if font.family not in PIXELS:
        cells = cv2.resize(mask, None, fx=1 / pitch, fy=1 / pitch, interpolation=cv2.INTER_AREA)
        mask = cv2.resize((cells > 110).astype(np.uint8) * 255, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)
        pitch = mask.shape[1] / cells.shape[1]
        if rng.random() < 0.5:
            return mask
    across, along = np.abs(columns / pitch % 1 - 0.5), np.abs(rows / pitch % 1 - 0.5)
    if rng.random() < 0.5:
        return mask * ((along[:, None] ** 2 + across**2) < 0.22)
    return mask * ((along[:, None] < 0.4) & (across < 0.4))


def _bent(mask: np.ndarray, origin: tuple[float, float], draft: Draft, size: int) -> np.ndarray:
    """The canvas with its columns moved along a parabola."""
    scale = size / UNIT
    left, right = origin[0] + draft.box[0] * scale, origin[0] + draft.box[2] * scale
    columns = np.arange(mask.shape[1], dtype=np.float32)
    moved = ((columns - (left + right) / 2) / ((right - left) / 2)) ** 2 * np.float32(draft.bend * scale)
    rows = np.arange(mask.shape[0], dtype=np.float32)[:, None] - moved.astype(np.float32)
    return cv2.remap(mask, np.broadcast_to(columns, mask.shape).copy(), rows, cv2.INTER_LINEAR)


def _perspective(draft: Draft, origin: tuple[float, float], size: int) -> np.ndarray:
    """The matrix from the canvas to the picture."""
    scale = size / UNIT
    left, top, right, bottom = (side * scale for side in draft.box)
    left, right, top, bottom = left + origin[0], right + origin[0], top + origin[1], bottom + origin[1]
    canvas = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], np.float32)
    return cv2.getPerspectiveTransform(canvas, np.array(draft.corners, np.float32))


def _ground(
    draft: Draft, level: float, contrast: float, backgrounds: Backgrounds, rng: np.random.Generator
) -> np.ndarray:
    """What is behind the letters, [h, w] float32."""
    height, width = draft.shape
    ground = np.full((height, width), level, np.float32)
    if "panel" in draft.effects:
        # The sign or plate ends within the picture.
        gaps = [height * _between(rng, 0.02, 0.2) for _ in range(4)]
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = draft.corners
        sign = [
            (x0 - gaps[0], y0 - gaps[1]),
            (x1 + gaps[2], y1 - gaps[1]),
            (x2 + gaps[2], y2 + gaps[3]),
            (x3 - gaps[0], y3 + gaps[3]),
        ]
        ground[:] = _between(rng, 0, 255)
        cv2.fillConvexPoly(ground, np.array(sign).round().astype(np.int32), level, cv2.LINE_AA)
    if "photograph" in draft.effects:
        draft.effects.discard("cloud")
        texture = backgrounds.photograph(rng, height, width)
    elif "cloud" in draft.effects:
        texture = backgrounds.cloud(rng, height, width)
    else:
        return ground
    # Three deviations reach 60 % of the way to the ink at most, less where letters are small.
    strength = contrast * _between(rng, 0.05, 0.2) * min(draft.letter_size / 40, 1.0)
    return ground + texture * np.float32(strength)


def _light(picture: np.ndarray, draft: Draft, contrast: float, rng: np.random.Generator) -> None:
    """Uneven light, shadows, highlights and what stands before the word, in place."""
    height, width = picture.shape
    effects = draft.effects
    if contrast < 120 and effects & {"shadow", "highlight"}:
        effects.discard("gradient")
        if "shadow" in effects:
            effects.discard("highlight")
    across = np.linspace(-1, 1, width, dtype=np.float32)
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    if "gradient" in effects:
        # Darker than it was everywhere: nothing is lost beyond white.
        x, y = _between(rng, -0.16, 0.16), _between(rng, -0.16, 0.16)
        picture *= 1 - abs(x) - abs(y) + np.float32(x) * across + np.float32(y) * down
    if "shadow" in effects:
        # The dark side of a line through the picture.
        angle, place = _between(rng, 0, 6.28), _between(rng, -0.6, 0.6)
        side = np.float32(np.cos(angle)) * across + np.float32(np.sin(angle)) * down - np.float32(place)
        soft = np.float32(_between(rng, 0.03, 0.4))
        picture *= 1 - np.float32(_between(rng, 0.2, 0.55)) * np.clip(side / soft + 0.5, 0, 1)
    if "highlight" in effects:
        x, y, reach = _between(rng, -0.9, 0.9), _between(rng, -0.9, 0.9), _between(rng, 0.1, 0.5)
        spot = np.exp(
            -(((across - np.float32(x)) * np.float32(width / height / 3)) ** 2 + (down - np.float32(y)) ** 2)
            / np.float32(reach)
        )
        picture += spot * np.float32(_between(rng, 0.2, 0.6)) * (255 - picture)
    if "occluded" in effects:
        if contrast < 60:
            effects.discard("occluded")
        else:
            _occlude(picture, rng)


def _occlude(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A pole, branches, wires, dirt: narrow enough that letters are still known by what is left of them."""
    height, width = picture.shape
    level = float(_between(rng, 0, 255))
    if rng.random() < 0.3:
        x, lean = rng.random() * width, height * _between(rng, -0.25, 0.25)
        thickness = max(round(height * _between(rng, 0.06, 0.16)), 2)
        cv2.line(picture, (round(x - lean), -1), (round(x + lean), height), level, thickness, cv2.LINE_AA)
        return
    for _ in range(1 + int(rng.random() * 2)):
        draw = rng.random()
        x, y = rng.random() * width, rng.random() * height
        if draw < 0.5:
            end = x + _between(rng, -1, 1) * height, y + _between(rng, -1, 1) * height
            thickness = max(round(height * _between(rng, 0.02, 0.08)), 1)
            cv2.line(picture, (round(x), round(y)), (round(end[0]), round(end[1])), level, thickness, cv2.LINE_AA)
        else:
            axes = max(round(height * _between(rng, 0.03, 0.16)), 1), max(round(height * _between(rng, 0.03, 0.12)), 1)
            cv2.ellipse(picture, (round(x), round(y)), axes, _between(rng, 0, 180), 0, 360, level, -1, cv2.LINE_AA)


def _photographed(
    picture: np.ndarray, draft: Draft, contrast: float, backgrounds: Backgrounds, rng: np.random.Generator
) -> np.ndarray:
    """Blur, sharpening, noise and compression, [h, w] uint8."""
    effects = draft.effects
    if "motion" in effects:
        effects.discard("blur")
    if "blur" in effects:
        sigma = _between(rng, 0.3, max(0.03 * draft.letter_size, 0.5))
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    if "motion" in effects:
        length = round(draft.letter_size * _between(rng, 0.05, 0.1))
        if length > 1:
            kernel = np.zeros((length, length), np.float32)
            if rng.random() < 0.6:
                kernel[length // 2] = 1 / length
            else:
                kernel[np.arange(length), np.arange(length)] = 1 / length
            picture = cv2.filter2D(picture, -1, kernel)
        else:
            effects.discard("motion")
    if "enlarged" in effects:
        picture = _enlarged(picture, draft, rng)
    if "sharpened" in effects:
        # As cameras do.
        soft = cv2.GaussianBlur(picture, (0, 0), _between(rng, 0.8, 1.6))
        picture = picture + np.float32(_between(rng, 0.4, 1.5)) * (picture - soft)
    if "noise" in effects:
        picture = picture + backgrounds.grain(rng, *picture.shape) * np.float32(
            _between(rng, 1, min(contrast * 0.16, 20))
        )
    grey = np.clip(picture, 0, 255).astype(np.uint8)
    if "jpeg" in effects:
        quality = round(_between(rng, 60 if contrast < 50 else 25, 90))
        _, packed = cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE))
    return grey


def _enlarged(picture: np.ndarray, draft: Draft, rng: np.random.Generator) -> np.ndarray:
    """A word seen from afar, its letters 14 to 24 pixels high, enlarged to the size that it has."""
    if draft.letter_size <= 24:
        draft.effects.discard("enlarged")
        return picture
    part = _between(rng, 14, 24) / draft.letter_size
    rows, columns = (max(round(length * part), 8) for length in picture.shape)
    small = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, picture.shape[::-1], interpolation=cv2.INTER_CUBIC)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _sign(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1
