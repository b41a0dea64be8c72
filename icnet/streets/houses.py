"""Houses of a street: a front, the ends that show, a roof."""

from collections.abc import Callable

from icnet.classes import ID
from icnet.streets import things
from icnet.streets.camera import UP, Canvas
from icnet.streets.textures import ASPHALT, facade, surface, varied, wall_color, wall_contrast
from icnet.streets.things import Light

import numpy as np

Haze = Callable[[np.ndarray, float], np.ndarray]
"""A colour seen from so many metres."""
TILES = [(0.42, 0.2, 0.14), (0.22, 0.21, 0.21), (0.35, 0.28, 0.22)]
"""Colours of roofs."""


class House:
    """A house whose front reaches on the ground from `start` to `end` [3], on the right (`side` 1) or the left (-1).

    It is `tall` metres high to its eaves, and if `pitched` has a gabled roof above them.
    """

    def __init__(
        self, rng: np.random.Generator, start: np.ndarray, end: np.ndarray, side: int, tall: float, pitched: bool
    ):
        self.rng, self.start, self.end, self.side, self.pitched = rng, start, end, side, pitched
        self.tall, self.deep = tall, rng.uniform(7, 14)
        self.out = side * np.array([self.deep, 0.0, 0.0])
        self.up = tall * UP
        self.ridge = self.up + self.out / 2 + rng.uniform(1.5, 4) * UP

    def is_seen(self, canvas: Canvas) -> bool:
        """Whether any of it lies in the picture."""
        corners = [at + more for at in (self.start, self.end) for more in (0 * self.up, self.up, self.out + self.up)]
        front = [self.start, self.end, self.end + self.up, self.start + self.up]
        return any(canvas.touches(np.stack(face)) for face in (front, corners[:3], corners[3:]))

    def draw(self, canvas: Canvas, light: Light, haze: Haze) -> None:
        """Ends and roof, then the front before them."""
        rng = self.rng
        length = float(np.linalg.norm(self.end - self.start))
        nearest = max(1.0, min(np.hypot(*corner[::2]) for corner in (self.start, self.end)))
        middle = float(np.hypot(*((self.start + self.end) / 2)[::2]))
        # As many pixels a metre as the picture has of its nearest corner.
        density = int(np.clip(1.3 * canvas.camera.focal / nearest, 3, 18))
        wall = surface(rng, 64, 64, wall_color(rng), contrast=wall_contrast(rng))
        if rng.random() < 0.5:
            wall = facade(rng, self.deep, self.tall, density)
        for corner, normal in ((self.start, np.array([0, 0, -1.0])), (self.end, np.array([0, 0, 1.0]))):
            if normal @ (-corner) > 0:
                canvas.quad(corner, self.out, self.up, haze(wall * light.on(normal), middle), ID["building"])
                if self.pitched:
                    gable = np.stack([corner + self.up, corner + self.up + self.out, corner + self.ridge])
                    color = haze(wall.mean(axis=(0, 1)) * light.on(normal), middle)
                    canvas.fill([canvas.camera.project(gable)], things.material(rng, color), ID["building"])
        if self.pitched:
            tiles = surface(rng, 48, 96, varied(rng, TILES[rng.integers(3)], 0.1), contrast=0.2, kind=ASPHALT)
            eaves, slope = self.start + self.up - self.out * 0.03, self.ridge - self.up + self.out * 0.03
            lit = light.on(np.array([-self.side * 0.6, 0.8, 0.0]))
            canvas.quad(eaves, self.end - self.start, slope, haze(tiles * lit, middle), ID["building"])
        front = facade(rng, length, self.tall, density) * light.on(np.array([-self.side, 0.0, 0.0]))
        canvas.quad(self.start, self.end - self.start, self.up, haze(front, middle), ID["building"])

    def shadow(self, canvas: Canvas, light: Light) -> np.ndarray:
        """Where it keeps the sun off the ground, as a polygon of pixels."""
        away = -light.sun / light.sun[1] * self.tall * (1, 0, 1)
        return canvas.camera.project(np.stack([self.start, self.end, self.end + away, self.start + away]))
