"""Surfaces: fractal noise, and walls and crowns made of it. Nothing in a drawn street has one colour."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

NOISE_SIDE = 512
"""Pixels of a side of a piece of noise."""
EXPONENTS = (0.5, 0.9, 1.2, 1.5, 1.9)
"""Amplitude falls with this power of the frequency: grain, asphalt, plaster, foliage, clouds."""
GRAIN, ASPHALT, PLASTER, FOLIAGE, CLOUDS = range(5)
TINT = 0.18
"""Share of coloured noise."""
VARIANTS = 4
"""Different windows of a front."""


@cache
def noise(kind: int) -> np.ndarray:
    """Fractal noise that can be tiled, [512, 512, 3] float32, about 0 with a standard deviation of about 1.

    By spectral synthesis (Saupe, "Algorithms for random fractals", in: The Science of Fractal Images, 1988); the same in
    every street.
    """
    rng = np.random.default_rng((7, kind))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(NOISE_SIDE), np.fft.rfftfreq(NOISE_SIDE), indexing="ij"))
    frequency[0, 0] = np.inf
    layers = []
    for _ in range(3):
        spectrum = np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency ** EXPONENTS[kind]
        layer = np.fft.irfft2(spectrum, (NOISE_SIDE, NOISE_SIDE))
        layers.append((layer - layer.mean()) / layer.std())
    # Mostly grey: what is uneven is rather brighter than of another colour.
    return np.stack([layers[0] + TINT * other for other in (0 * layers[0], *layers[1:])], axis=2).astype(np.float32)


def patch(rng: np.random.Generator, height: int, width: int, kind: int, zoom: float = 1.0) -> np.ndarray:
    """A random piece of noise, [height, width, 3], enlarged by `zoom`."""
    tall, wide = (min(max(2, int(side / zoom) + 1), NOISE_SIDE) for side in (height, width))
    top, left = rng.integers(0, NOISE_SIDE - tall + 1), rng.integers(0, NOISE_SIDE - wide + 1)
    piece = noise(kind)[top : top + tall, left : left + wide]
    return cv2.resize(piece, (width, height), interpolation=cv2.INTER_LINEAR)


def _size(image: np.ndarray) -> tuple[int, int]:
    """Height and width of an image [H, W, ...]."""
    return image.shape[0], image.shape[1]


def surface(
    rng: np.random.Generator,
    height: int,
    width: int,
    color: np.ndarray,
    *,
    kind: int = PLASTER,
    contrast: float = 0.1,
    zoom: float = 1.0,
) -> np.ndarray:
    """A piece of material around `color` [3], 0..1: [height, width, 3]. `contrast` is the share by which brightness varies."""
    color = np.asarray(color, np.float32)
    return np.clip(color * (1 + contrast * patch(rng, height, width, kind, zoom)), 0.0, 1.5)


def cloud_cover(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """How much of a cloud is everywhere, [height, width] 0..1."""
    whole = cv2.resize(noise(CLOUDS), (width * 2, height * 2), interpolation=cv2.INTER_LINEAR)
    top, left = rng.integers(0, height), rng.integers(0, width)
    return np.clip(
        whole[top : top + height, left : left + width, 0] * rng.uniform(0.3, 0.9) + rng.uniform(-0.2, 0.6), 0, 1
    )


WALLS = np.array(
    [
        (0.78, 0.74, 0.66), (0.70, 0.62, 0.50), (0.62, 0.36, 0.27), (0.50, 0.30, 0.24), (0.80, 0.78, 0.76),
        (0.60, 0.60, 0.60), (0.45, 0.45, 0.47), (0.75, 0.68, 0.45), (0.66, 0.52, 0.42), (0.55, 0.58, 0.62),
        (0.82, 0.70, 0.62), (0.35, 0.33, 0.33), (0.88, 0.86, 0.82), (0.58, 0.63, 0.55),
    ]
)  # fmt: skip
"""Colours of facades."""
BRICKS = np.array([(0.42, 0.19, 0.13), (0.52, 0.28, 0.20), (0.34, 0.19, 0.15), (0.60, 0.46, 0.33), (0.28, 0.17, 0.14)])
"""Colours of brick walls."""


def varied(
    rng: np.random.Generator, color: np.ndarray | tuple[float, float, float], amount: float = 0.08
) -> np.ndarray:
    """A colour near `color`, [3] float32, whose brightness varies by the share `amount` (standard deviation of its logarithm)."""
    brighter, tint = np.exp(rng.normal(0, amount)), np.exp(rng.normal(0, amount / 3, 3))
    # In float64 everything painted with it would be in float64, too.
    return np.clip(np.asarray(color) * brighter * tint, 0.01, 1.2).astype(np.float32)


def facade(rng: np.random.Generator, width: float, height: float, density: int) -> np.ndarray:
    """The front of a building of so many metres, with `density` pixels for each: wall, windows, shops, dirt.

    Returns [height * density, width * density, 3].
    """
    wide, tall = max(8, int(width * density)), max(8, int(height * density))
    style = rng.choice(("brick", "plain", "panels", "glass"), p=(0.35, 0.35, 0.2, 0.1))
    color = wall_color(rng, style == "brick")
    kind = (PLASTER, ASPHALT, CLOUDS, GRAIN)[rng.integers(4)]
    image = surface(rng, tall, wide, color, contrast=wall_contrast(rng), zoom=rng.uniform(0.5, 3), kind=kind)
    if style == "brick":
        _add_courses(image, density, rng)
    elif style == "panels":
        _add_joints(image, density, rng)
    floor = rng.uniform(2.7, 3.9)
    ground = rng.uniform(3.0, 4.6)
    shop = rng.random() < 0.45
    column = rng.uniform(1.6, 4.2)
    window = (column * rng.uniform(0.3, 0.72), floor * rng.uniform(0.4, 0.72))
    if style == "glass":
        window = (column * 0.9, floor * 0.88)
    windows = _WindowStyle.draw(rng)
    first = rng.uniform(0.2, 1.0)
    lefts = first + column * np.arange(max(0, int((width - first) / column)))
    bottoms = ground + floor * (np.arange(40) + 0.25)
    tops = height - bottoms[bottoms + window[1] <= height - 0.3] - window[1]
    windows.paint_all(image, rng, density, [(left, top) for top in tops for left in lefts], *window)
    _add_ground_floor(image, rng, density, height, ground, shop)
    if rng.random() < 0.5:
        _add_balconies(image, rng, density, [height - ground - level * floor for level in range(len(tops) + 1)])
    if rng.random() < 0.6:  # a cornice
        band = max(1, int(rng.uniform(0.2, 0.6) * density))
        image[:band] *= rng.uniform(0.55, 1.25)
    streaks = cv2.resize(patch(rng, 24, wide, ASPHALT, 0.7), (wide, tall), interpolation=cv2.INTER_LINEAR)[:, :, :1]
    return np.clip(image * (1 + wall_contrast(rng) * 0.6 * streaks), 0, 1.3)


def wall_color(rng: np.random.Generator, brick: bool = False) -> np.ndarray:
    """Of plaster, stone or brick; now and then of any paint."""
    if rng.random() < 0.2:
        paint = rng.uniform(0.15, 0.95, 3)
        return varied(rng, paint + rng.uniform(0.2, 0.8) * (paint.mean() - paint), 0.1)
    colors = BRICKS if brick and rng.random() < 0.75 else WALLS
    return varied(rng, colors[rng.integers(len(colors))], 0.18)


def wall_contrast(rng: np.random.Generator) -> float:
    """How uneven a wall is: from freshly painted to weathered."""
    return float(np.exp(rng.uniform(np.log(0.006), np.log(0.16))))


class _WindowStyle:
    """How the windows of one building look."""

    def __init__(self, frame: np.ndarray, glass: np.ndarray, bars: int, balcony: float, shutter: np.ndarray | None):
        self.frame, self.glass, self.bars, self.balcony, self.shutter = frame, glass, bars, balcony, shutter

    @staticmethod
    def draw(rng: np.random.Generator) -> "_WindowStyle":
        """A random one: colours of frame, glass and shutters, bars, and the share of windows that have a balcony."""
        frame = varied(rng, (0.85, 0.85, 0.83) if rng.random() < 0.6 else (0.25, 0.2, 0.17))
        glass = varied(rng, (0.16, 0.18, 0.2), 0.3)
        shutter = varied(rng, (0.3, 0.35, 0.3), 0.5) if rng.random() < 0.2 else None
        return _WindowStyle(frame, glass, int(rng.integers(0, 3)), float(rng.choice((0.0, 0.0, 0.35, 0.9))), shutter)

    def paint_all(
        self,
        image: np.ndarray,
        rng: np.random.Generator,
        density: int,
        corners: Sequence[tuple[float, float]],
        width: float,
        height: float,
    ) -> None:
        """Windows whose upper left corners are there, in metres: the first few differ, the others are copies of them."""
        wide, tall, border = int(width * density), int(height * density), max(1, int(0.08 * density))
        if wide < 3 or tall < 3:
            return
        beside, below = (wide // 3 if self.shutter is not None else border), 2 * border
        originals: list[np.ndarray] = []
        for left, top in corners:
            x0, y0 = int(left * density), int(top * density)
            if y0 < 0 or x0 + wide >= image.shape[1]:
                continue
            start = max(0, x0 - beside)
            if len(originals) < VARIANTS or x0 < beside:
                self._paint(image, rng, border, x0, y0, wide, tall)
                originals.append(image[y0 : y0 + tall + below, start : x0 + wide + beside])
            else:
                place = image[y0 : y0 + tall + below, start : x0 + wide + beside]
                source = originals[rng.integers(len(originals))]
                rows, columns = (min(a, b) for a, b in zip(place.shape[:2], source.shape[:2], strict=True))
                place[:rows, :columns] = source[:rows, :columns]

    def _paint(
        self, image: np.ndarray, rng: np.random.Generator, border: int, x0: int, y0: int, wide: int, tall: int
    ) -> None:
        """A window whose upper left pixel is there."""
        x1, y1 = x0 + wide, y0 + tall
        image[y0:y1, x0:x1] = self.frame
        pane = image[y0 + border : y1 - border, x0 + border : x1 - border]
        if not pane.size:
            return
        shade = self.glass * rng.uniform(0.5, 1.7)
        if rng.random() < 0.3:  # curtains, or the sky in the glass
            shade = varied(rng, (0.6, 0.6, 0.58), 0.3)
        pane[:] = shade + 0.07 * patch(rng, *_size(pane), FOLIAGE, 0.5)[:, :, :1] * rng.uniform(0.3, 1.5)
        for number in range(self.bars):
            at = x0 + wide * (number + 1) // (self.bars + 1)
            image[y0:y1, at : at + border] = self.frame
        image[y1 : y1 + border, x0:x1] *= 1.2
        if self.shutter is not None:
            wing = wide // 3
            for start in (max(0, x0 - wing), x1):
                image[y0:y1, start : start + wing] = self.shutter
        if self.balcony and rng.random() < self.balcony:
            rail = y1 - tall // 3
            image[rail : y1 + 2 * border, max(0, x0 - border) : x1 + border] *= rng.uniform(0.4, 0.8)
            image[rail : y1 : max(2, 2 * border), max(0, x0 - border) : x1 + border] = self.frame


def _add_courses(image: np.ndarray, density: int, rng: np.random.Generator) -> None:
    """The courses of a brick wall."""
    rows = np.maximum(1, np.arange(0, image.shape[0] / density, rng.uniform(0.08, 0.3)) * density).astype(int)
    image[rows[rows < len(image)]] *= rng.choice((0.7, 0.85, 1.25))
    shades = 1 + rng.uniform(0.03, 0.2) * rng.standard_normal(
        (len(rows) + 1, max(2, image.shape[1] // max(2, density // 4)), 1)
    )
    image *= cv2.resize(shades.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_NEAREST)[:, :, None]


def _add_balconies(image: np.ndarray, rng: np.random.Generator, density: int, floors: Sequence[float]) -> None:
    """Ledges at floors so many metres below the top, from end to end or in parts; some have a railing on them."""
    tall, wide = image.shape[:2]
    left = int(rng.uniform(0, 0.4) * wide) if rng.random() < 0.5 else 0
    right = wide - int(rng.uniform(0, 0.4) * wide) if rng.random() < 0.5 else wide
    slab = max(1, int(rng.uniform(0.1, 0.35) * density))
    rail = int(rng.uniform(0.8, 1.2) * density) if rng.random() < 0.45 else 0
    bright, dark = rng.uniform(0.8, 1.3), rng.uniform(0.35, 0.8)
    bars = max(2, int(0.3 * density))
    for floor in floors:
        row = int(floor * density)
        if row - rail < 0 or row + slab > tall:
            continue
        image[row : row + slab, left:right] *= bright
        image[row + slab : row + 2 * slab, left:right] *= 0.75
        if rail:
            image[row - rail : row, left:right:bars] *= dark
            image[row - rail : row - rail + max(1, slab // 2), left:right] *= dark


def _add_joints(image: np.ndarray, density: int, rng: np.random.Generator) -> None:
    """The joints of concrete panels."""
    step = max(3, int(rng.uniform(1, 3.2) * density))
    image[::step] *= 0.7
    image[:, :: max(3, int(step * rng.uniform(0.7, 2.0)))] *= 0.75


def _add_ground_floor(
    image: np.ndarray, rng: np.random.Generator, density: int, height: float, ground: float, shop: bool
) -> None:
    """Shops with panes and signs, or doors."""
    tall, wide = image.shape[:2]
    top = tall - int(ground * density)
    if top < 1:
        return
    if rng.random() < 0.15:
        _add_arcade(image, rng, density, top)
        return
    if shop:
        image[top:] = surface(rng, tall - top, wide, varied(rng, WALLS[rng.integers(len(WALLS))] * 0.7), contrast=0.15)
    at = rng.uniform(0.2, 1.0)
    while at < wide / density - 1.0:
        width = rng.uniform(2.0, 4.5) if shop else rng.uniform(0.9, 1.4)
        x0, x1 = int(at * density), min(wide, int((at + width) * density))
        y0 = tall - int(rng.uniform(0.62, 0.8) * ground * density)
        pane = image[y0 : tall - (int(0.4 * density) if shop else 0), x0:x1]
        if pane.size:
            pane[:] = varied(rng, (0.2, 0.18, 0.16), 0.5) + 0.08 * patch(rng, *_size(pane), FOLIAGE, 0.5)
        if shop:  # the sign above it
            band = image[top + 1 : max(top + 2, y0 - 1), x0:x1]
            if band.size:
                band[:] = rng.uniform(0.1, 0.95, 3) * (1 + 0.1 * patch(rng, *_size(band), GRAIN, 2.0))
        at += width + (rng.uniform(0.2, 0.8) if shop else rng.uniform(2.0, 7.0))
    if not shop:
        _add_ground_windows(image, rng, density, height, ground)


def _add_arcade(image: np.ndarray, rng: np.random.Generator, density: int, top: int) -> None:
    """Columns below row `top`, before what lies in the dark behind them."""
    tall, wide = image.shape[:2]
    wall = image[top:].copy()
    inside = varied(rng, WALLS[rng.integers(len(WALLS))] * rng.uniform(0.1, 0.5), 0.2)
    image[top:] = surface(rng, tall - top, wide, inside, kind=CLOUDS, contrast=0.3)
    for _ in range(int(rng.integers(0, 6))):  # doors, panes, lamps
        left, width = rng.uniform(0, wide), rng.uniform(0.4, 3.0) * density
        high = top + int(rng.uniform(0.1, 0.5) * (tall - top))
        image[high:, int(left) : int(left + width)] *= rng.uniform(0.3, 2.2)
    beam = int(rng.uniform(0.1, 0.3) * (tall - top))
    image[top : top + beam] = wall[:beam]
    step, thick = rng.uniform(2.0, 6.0) * density, max(1, int(rng.uniform(0.25, 0.9) * density))
    for left in np.arange(rng.uniform(0, step), wide, step).astype(int):
        image[top:, left : left + thick] = wall[:, left : left + thick]


def _add_ground_windows(
    image: np.ndarray, rng: np.random.Generator, density: int, height: float, ground: float
) -> None:
    """Windows between the doors."""
    kind, width = _WindowStyle.draw(rng), rng.uniform(0.8, 2.2)
    lefts = np.arange(rng.uniform(0.3, 1.5), image.shape[1] / density - width, width + rng.uniform(0.8, 3.0))
    kind.paint_all(image, rng, density, [(left, height - ground * 0.85) for left in lefts], width, ground * 0.5)
