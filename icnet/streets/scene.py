"""A drawn street: sky, ground, buildings and what stands before them, from the far to the near; then the faults of a camera.

    jpeg, label = draw_street(seed, 512, 1024)

The same seed gives the same street on every machine with the same versions of NumPy and OpenCV. These are drawings: surfaces
are fractal noise, not photographs.
"""

from collections.abc import Callable
from functools import partial

from icnet.classes import ID
from icnet.streets import things
from icnet.streets.camera import UP, Camera, Canvas
from icnet.streets.houses import House
from icnet.streets.lens import photograph
from icnet.streets.setting import Setting
from icnet.streets.textures import (
    ASPHALT,
    CLOUDS,
    FOLIAGE,
    GRAIN,
    NOISE_SIDE,
    PLASTER,
    cloud_cover,
    facade,
    noise,
    patch,
    varied,
)
from icnet.streets.things import Light

import cv2
import numpy as np

FAR = 110.0
"""Metres to which the street is built."""

ROOM = 1.3
"""Metres between the camera and vehicles."""

Thing = tuple[float, Callable[[], None]]
"""Distance, and what draws it."""


def draw_street(seed: int, height: int, width: int) -> tuple[bytes, np.ndarray]:
    """One street of `height` x `width` pixels: the content of a JPEG file, and label ids of Cityscapes [height, width] uint8."""
    # With a number beside it, no other use of the same seed draws the same.
    rng = np.random.default_rng((2018, seed))
    setting = Setting.draw(rng)
    focal = float(width / 2 / np.tan(np.radians(setting.field_of_view / 2)))
    pitch = float(np.arctan((0.5 - setting.horizon) * height / focal))
    camera = Camera(height, width, focal, setting.camera_height, setting.yaw, pitch, setting.roll)
    canvas = Canvas(camera, ID["sky"])
    Street(rng, setting, canvas).draw()
    image, label = photograph(rng, setting, canvas.image, canvas.label)
    quality = [cv2.IMWRITE_JPEG_QUALITY, setting.jpeg_quality]
    return cv2.imencode(".jpg", image[:, :, ::-1], quality)[1].tobytes(), label


class Street:
    """One street while it is drawn. Left and right are -1 and 1."""

    def __init__(self, rng: np.random.Generator, setting: Setting, canvas: Canvas):
        self.rng, self.setting, self.canvas, self.camera = rng, setting, canvas, canvas.camera
        steep = rng.uniform(0.35, 1.1)  # radians of the sun above the horizon
        sun = np.array(
            [np.cos(setting.sun_angle) * np.cos(steep), np.sin(steep), np.sin(setting.sun_angle) * np.cos(steep)]
        )
        dim = 0.6 if setting.sky == "dusk" else 1.0
        self.light = Light(sun, dim * (0.62 if setting.sun > 0.2 else 0.85), dim * setting.sun)
        self.air = 0.75 * self.light.ambient * np.array([0.92, 0.97, 1.04], np.float32)
        """Colour of what is too far away to be seen through the air."""
        town = setting.place == "town"
        self.pavement = {s: rng.uniform(1.4, 4.0) if town or rng.random() < 0.7 else 0.0 for s in (-1, 1)}
        """Metres, by side."""
        self.strip = {s: rng.uniform(0.8, 3.5) if rng.random() < (0.2 if town else 0.6) else 0.0 for s in (-1, 1)}
        """Metres of grass beside the pavement, on the side of the road or of the houses."""
        beyond, standing = abs(setting.beside) - setting.road_width / 2, 1 if setting.beside > 0 else -1
        if beyond > 0:  # whoever stands beside the road stands on something
            self.pavement[standing] = max(self.pavement[standing], beyond + 0.8 - self.strip[standing])
        self.front = {s: 0.0 if town and rng.random() < 0.7 else rng.uniform(1.0, 9.0) for s in (-1, 1)}
        """Metres of garden before the houses."""
        self.crossing = rng.uniform(10, 40) if rng.random() < 0.35 else None
        """z of the middle of a street that crosses, in metres."""
        self.things: list[Thing] = []

    def middle(self, z: np.ndarray | float) -> np.ndarray | float:
        """x of the middle of the road, in metres."""
        return -self.setting.beside + self.setting.bend * np.sign(z) * np.minimum(np.abs(z) / 100.0, 3.0) ** 2

    def house_line(self, side: int) -> float:
        """Metres from the middle of the road to the fronts of the houses."""
        return self.setting.road_width / 2 + self.strip[side] + self.pavement[side] + self.front[side]

    def draw(self) -> None:
        """Everything, from behind."""
        self.draw_sky()
        self.draw_horizon()
        self.draw_ground()
        shadows: list[np.ndarray] = []
        for side in (-1, 1):
            self.add_houses(side, shadows)
            self.add_roadside(side)
        self.add_traffic()
        self.add_people()
        if self.light.direct > 0.25:
            self.canvas.shade(shadows, self.rng.uniform(0.4, 0.65), self.camera.width / 1000)
        for _, draw in sorted(self.things, key=lambda thing: -thing[0]):
            draw()

    def add(self, x: float, z: float, draw: Callable[[], None], nearest: float = 2.5) -> None:
        """Something to be drawn when everything farther away is there, unless it is nearer than `nearest` metres: nothing
        shall fill the whole picture."""
        distance = float(np.hypot(x, z))
        if distance > nearest:
            self.things.append((distance, draw))

    # Far away.

    def draw_sky(self) -> None:
        """A gradient with clouds."""
        rng, (height, width) = self.rng, self.canvas.label.shape
        tops = {
            "clear": (0.30, 0.50, 0.82),
            "cloudy": (0.38, 0.54, 0.80),
            "overcast": (0.78, 0.80, 0.83),
            "dusk": (0.30, 0.33, 0.48),
        }
        lows = {
            "clear": (0.74, 0.83, 0.93),
            "cloudy": (0.80, 0.85, 0.90),
            "overcast": (0.90, 0.90, 0.90),
            "dusk": (0.85, 0.62, 0.48),
        }
        top, low = varied(rng, tops[self.setting.sky], 0.15), varied(rng, lows[self.setting.sky], 0.08)
        if self.setting.sky in ("clear", "cloudy"):  # from pale to deep
            deep = rng.uniform(0, 1)
            top = top + deep * (varied(rng, (0.06, 0.22, 0.58), 0.2) - top)
            low = low + deep * rng.uniform(0, 0.8) * (varied(rng, (0.35, 0.58, 0.85), 0.1) - low)
        ramp = np.linspace(0, 1 / max(self.setting.horizon, 0.2), height, dtype=np.float32)[
            :, None, None
        ] ** rng.uniform(0.6, 1.4)
        sky = top + (low - top) * np.clip(ramp, 0, 1) + np.zeros((1, width, 1), np.float32)
        if self.setting.sky != "clear":
            share = cloud_cover(rng, height, width)[:, :, None] * (0.5 if self.setting.sky == "overcast" else 1.0)
            white = varied(rng, (0.97, 0.97, 0.97) if self.setting.sky == "cloudy" else (0.7, 0.71, 0.73), 0.12)
            # Thick clouds are darker where they are thickest.
            sky = sky + share * (white * (1 - rng.uniform(0, 0.5) * share**2) - sky)
        self.canvas.image[:] = np.clip(sky * (1 + 0.012 * patch(rng, height, width, CLOUDS)), 0, 1.4)

    def draw_horizon(self) -> None:
        """Woods, hills and roofs at the end of the view."""
        rng, camera = self.rng, self.camera
        fronts = [facade(rng, 30, 22, 6) for _ in range(3)]
        for distance in (400.0, 220.0):
            direction = camera.axes[2] * (1, 0, 1)
            center = direction / np.linalg.norm(direction) * distance
            right = np.array([direction[2], 0, -direction[0]]) / np.linalg.norm(direction)
            at = -distance * 1.6
            while at < distance * 1.6:
                wide = rng.uniform(0.06, 0.3) * distance
                tall = rng.uniform(0.015, 0.085) * distance
                foot = center + right * (at + wide / 2)
                if rng.random() < (0.5 if self.setting.place == "town" else 0.15):
                    front = self.hazy(fronts[rng.integers(3)] * rng.uniform(0.7, 1.2), distance)
                    self.canvas.quad(foot - right * wide / 2, right * wide, tall * UP, front, ID["building"])
                else:
                    color = self.hazy(things.LEAVES[rng.integers(len(things.LEAVES))] * 0.9, distance)
                    bumps = 0.6 + 0.4 * np.abs(noise(FOLIAGE)[rng.integers(NOISE_SIDE), :24, 0])
                    edge = np.stack([np.linspace(-wide, wide, 24), tall * bumps], axis=1)
                    outline = np.concatenate([[(-wide, -2)], edge, [(wide, -2)]])
                    texture = things.material(rng, color, contrast=0.18, kind=FOLIAGE, zoom=0.5)
                    self.canvas.fill([things.upright(camera, foot, outline)], texture, ID["vegetation"])
                at += wide * rng.uniform(0.5, 0.9)

    def hazy(self, color: np.ndarray, distance: float) -> np.ndarray:
        """A colour [..., 3] seen through so many metres of air."""
        share = float(np.exp(-distance / self.setting.haze))
        return (color * share + self.air * (1 - share)).astype(np.float32)

    # The ground.

    def draw_ground(self) -> None:
        """Road, kerbs, pavements, grass, by what lies under each pixel."""
        rng, canvas = self.rng, self.canvas
        x, z, distance = self.camera.ground()
        below = distance < 1500
        if not below.any():
            return
        first = int(np.argmax(below.any(axis=1)))
        x, z, distance, below = x[first:], z[first:], distance[first:], below[first:]
        image, label = canvas.image[first:], canvas.label[first:]
        offset = (x - self.middle(z)).astype(np.float32)
        # Metres a pixel is wide, so that edges are a pixel soft wherever they are.
        pixel = np.maximum(distance / self.camera.focal, 1e-3)
        seen = np.where(below, np.exp(-distance / 55.0), 0).astype(np.float32)[:, :, None]
        grass = self._grass(x, z, seen)
        paving = self._paving(offset, z, seen)
        ground, names = grass, np.full(label.shape, ID["terrain"], np.uint8)
        if self.setting.place == "town" and rng.random() < 0.75:
            ground, names = paving, np.full(label.shape, ID["sidewalk"], np.uint8)
        road = self._road(offset, z, distance, seen, pixel)
        half = self.setting.road_width / 2
        for side in (-1, 1):
            beyond = (offset * side - half) / pixel
            strips = [(self.strip[side], grass, "terrain"), (self.pavement[side], paving, "sidewalk")]
            if rng.random() < 0.5:
                strips.reverse()
            start = 0.0
            for wide, material, name in strips:
                inside = np.clip(np.minimum(beyond - start / pixel, (start + wide) / pixel - beyond) + 0.5, 0, 1)
                start += wide
                ground = ground + inside[:, :, None] * (material - ground)
                names[inside > 0.5] = ID[name]
        inside = np.clip((half - np.abs(offset)) / pixel + 0.5, 0, 1)
        if self.crossing is not None:
            across = np.clip((4.5 - np.abs(z - self.crossing)) / pixel + 0.5, 0, 1)
            inside = np.maximum(inside, across)
        ground = ground + inside[:, :, None] * (road - ground)
        names[inside > 0.5] = ID["road"]
        kerb = np.clip((0.16 - np.abs(np.abs(offset) - half - 0.08)) / pixel + 0.5, 0, 1) * (
            1 if self.crossing is None else 1 - across
        )
        stone = varied(rng, (0.55, 0.54, 0.52) if rng.random() < 0.85 else (0.78, 0.62, 0.12)) * self.light.on(UP)
        ground = ground + 0.6 * kerb[:, :, None] * (stone - ground)
        share = np.exp(-np.minimum(distance, 1e4) / self.setting.haze)[:, :, None]
        ground = ground * share + self.air * (1 - share)
        image[below] = ground[below]
        label[below] = names[below]

    def _tiled(self, kind: int, x: np.ndarray, z: np.ndarray, period: float) -> np.ndarray:
        """Noise on the ground, repeated every `period` metres: [h, w, 3]."""
        start = self.rng.random(2)
        columns, rows = (
            x * np.float32(1 / period) + np.float32(start[0]),
            z * np.float32(1 / period) + np.float32(start[1]),
        )
        # Not np.mod, which takes ten times as long.
        columns, rows = ((place - np.floor(place)) * np.float32(NOISE_SIDE) for place in (columns, rows))
        return cv2.remap(noise(kind), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def _road(
        self, x: np.ndarray, z: np.ndarray, distance: np.ndarray, seen: np.ndarray, pixel: np.ndarray
    ) -> np.ndarray:
        """Asphalt or stones, with patches, lanes, stains and puddles."""
        rng, half = self.rng, self.setting.road_width / 2
        color = varied(
            rng, [(0.30, 0.30, 0.31), (0.38, 0.37, 0.36), (0.22, 0.22, 0.23), (0.45, 0.43, 0.41)][rng.integers(4)]
        )
        color = color * self.light.on(UP)
        coarse = self._tiled(PLASTER, x * 2, z, 38)
        road = color * (
            1
            + rng.uniform(0.01, 0.16) * coarse[:, :, :1]
            + rng.uniform(0.01, 0.16) * seen * self._tiled(ASPHALT, x, z, 5)
        )
        if rng.random() < 0.22:  # stones
            joints = np.maximum(np.cos(x * 2 * np.pi / 0.5), np.cos(z * 2 * np.pi / 0.35)) > 0.8
            road = road * (1 - 0.3 * joints[:, :, None] * np.clip(seen * 2 - 0.9, 0, 1))
        cracks = np.abs(self._tiled(CLOUDS, x, z, 17)[:, :, 1:2])
        road = road * (1 - rng.uniform(0.0, 0.35) * np.clip(1 - cracks * 22, 0, 1) * seen)
        patches = np.clip((coarse[:, :, 2:] - rng.uniform(1.0, 2.2)) * 30, 0, 1)
        road = road * (1 + patches * rng.uniform(-0.3, 0.2))
        wheels = np.cos((x / half) * np.pi * 4)[:, :, None]
        road = road * (1 + rng.uniform(-0.08, 0.08) * wheels)
        road = self._markings(road, x, z, pixel)
        if self.setting.wet:
            mirror = np.clip(self._tiled(PLASTER, x, z, 23)[:, :, :1] * 0.5 + 0.4, 0, 1) * self.setting.wet
            road = road * (1 - 0.6 * mirror) + mirror * self.light.ambient * np.array([0.62, 0.65, 0.7], np.float32) * (
                0.4 + 0.6 * (1 - seen)
            )
        return np.clip(road, 0.005, 1.3).astype(np.float32)

    def _markings(self, road: np.ndarray, x: np.ndarray, z: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        """Lines between lanes, at the edges, and a zebra crossing."""
        rng, half = self.rng, self.setting.road_width / 2
        paint = varied(rng, (0.80, 0.80, 0.78) if rng.random() < 0.85 else (0.8, 0.62, 0.15)) * self.light.on(UP)
        share = np.zeros(x.shape, np.float32)
        lanes = max(2, int(self.setting.road_width / rng.uniform(2.8, 3.8)))
        period, drawn = rng.uniform(6, 13), rng.uniform(0.3, 0.6)
        dashes = np.mod(z, period) < period * drawn
        for number in range(1, lanes):
            at = -half + number * 2 * half / lanes
            solid = rng.random() < 0.3
            line = np.clip((0.07 - np.abs(x - at)) / pixel + 0.5, 0, np.minimum(1, 0.14 / pixel))
            share = np.maximum(share, line * (1 if solid else dashes))
        if rng.random() < 0.5:
            share = np.maximum(
                share, np.clip((0.07 - np.abs(np.abs(x) - half + 0.35)) / pixel + 0.5, 0, np.minimum(1, 0.14 / pixel))
            )
        if rng.random() < 0.3:
            at = rng.uniform(5, 28) if self.crossing is None else self.crossing - 6.5
            zebra = (np.abs(z - at) < 1.6) & (np.mod(x, 1.0) < 0.5) & (np.abs(x) < half - 0.2)
            share = np.maximum(share, cv2.GaussianBlur(zebra.astype(np.float32), (0, 0), 0.6))
        worn = np.clip(self._tiled(ASPHALT, x, z, 7)[:, :, :1] * 0.4 + rng.uniform(0.35, 1.0), 0, 1)
        if rng.random() < 0.2:
            worn = worn * 0
        return road + share[:, :, None] * worn * (paint - road)

    def _paving(self, x: np.ndarray, z: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Slabs or asphalt of a pavement."""
        rng = self.rng
        color = varied(
            rng, [(0.50, 0.49, 0.47), (0.42, 0.41, 0.40), (0.55, 0.48, 0.42), (0.45, 0.36, 0.32)][rng.integers(4)], 0.1
        )
        color = color * self.light.on(UP)
        ground = color * (
            1
            + rng.uniform(0.02, 0.12) * self._tiled(PLASTER, x, z, 15)[:, :, :1]
            + rng.uniform(0.02, 0.16) * seen * self._tiled(GRAIN, x, z, 6)
        )
        if rng.random() < 0.75:
            size = rng.uniform(0.25, 1.2)
            joints = np.maximum(np.cos(x * 2 * np.pi / size), np.cos(z * 2 * np.pi / size / rng.uniform(0.5, 1.5)))
            ground = ground * (
                1 - 0.25 * np.clip((joints[:, :, None] - 0.86) * 10, 0, 1) * np.clip(seen * 2.2 - 0.9, 0, 1)
            )
        return np.clip(ground, 0.005, 1.3).astype(np.float32)

    def _grass(self, x: np.ndarray, z: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Grass, earth and leaves."""
        rng = self.rng
        green, earth = varied(rng, (0.25, 0.33, 0.10), 0.15), varied(rng, (0.36, 0.29, 0.18), 0.12)
        share = np.clip(self._tiled(FOLIAGE, x, z, 19)[:, :, :1] * 0.4 + rng.uniform(-0.1, 0.6), 0, 1)
        color = (green + share * (earth - green)) * self.light.on(UP)
        blades = self._tiled(GRAIN, x, z, 2.5) * 0.5 + self._tiled(ASPHALT, x, z, 9)
        return np.clip(color * (1 + rng.uniform(0.08, 0.36) * (0.25 + 0.75 * seen) * blades), 0.005, 1.3).astype(
            np.float32
        )

    # Beside the road.

    def add_houses(self, side: int, shadows: list[np.ndarray]) -> None:
        """Houses along one side, or gardens and woods where there is none."""
        rng, place = self.rng, self.setting.place
        built = {"town": 0.93, "suburb": 0.6, "park": 0.12}[place]
        z = -30.0
        while z < FAR:
            length = rng.uniform(7, 26) if place == "town" else rng.uniform(7, 14)
            open_street = self.crossing is not None and z - 5 < self.crossing < z + length + 5
            if not open_street and rng.random() < built:
                self.add_house(side, z, length, shadows)
            elif not open_street:
                for _ in range(int(rng.integers(1, 5))):
                    self.add_tree(side, z + rng.uniform(0, length), self.house_line(side) + rng.uniform(-1, 9))
                for _ in range(int(rng.integers(0, 4))):
                    self.add_hedge(side, z + rng.uniform(0, length), self.house_line(side) + rng.uniform(-0.5, 4))
            z += length + (0.0 if place == "town" and rng.random() < 0.8 else rng.uniform(1, 7))

    def add_house(self, side: int, z: float, length: float, shadows: list[np.ndarray]) -> None:
        """One house, and its garden."""
        rng, town = self.rng, self.setting.place == "town"
        tall = rng.uniform(6, 26) if town else rng.uniform(4, 9)
        line = self.house_line(side) + rng.uniform(0, 1.2)
        start, end = self.at(side, z, line), self.at(side, z + length, line)
        house = House(rng, start, end, side, tall, bool(rng.random() < (0.35 if town else 0.85)))
        if house.is_seen(self.canvas):
            middle = (start + end) / 2
            # Behind what stands before it.
            self.things.append(
                (float(np.hypot(middle[0], middle[2])) + 8.0, lambda: house.draw(self.canvas, self.light, self.hazy))
            )
        if self.light.sun[0] * side > 0.05:
            shadows.append(house.shadow(self.canvas, self.light))
        if self.front[side] > 1.5 and rng.random() < 0.7:
            self.add_garden(side, z, length)

    def add_garden(self, side: int, z: float, length: float) -> None:
        """A fence or a hedge before a house, and bushes behind it."""
        rng = self.rng
        line = self.house_line(side) - self.front[side] + 0.2
        if rng.random() < 0.5:
            for at in np.arange(z, z + length, 4.0).tolist():
                start, end = (np.array([float(self.middle(w)) + side * line, 0.0, w]) for w in (at, at + 4.0))
                own = np.random.default_rng(int(rng.integers(2**31)))
                self.add(start[0], at + 2, partial(things.fence, self.canvas, own, start, end, self.light))
        for _ in range(int(rng.integers(1, 6))):
            self.add_hedge(side, z + rng.uniform(0, length), line + rng.uniform(0.6, max(0.7, self.front[side] - 0.4)))

    def at(self, side: int, z: float, beside: float) -> np.ndarray:
        """A place [3] on the ground, `beside` metres from the middle of the road."""
        return np.array([float(self.middle(z)) + side * beside, 0.0, z])

    def add_tree(self, side: int, z: float, beside: float) -> None:
        """A tree, `beside` metres from the middle of the road, and its shadow."""
        foot = self.at(side, z, beside)
        bare = self.setting.bare_trees and self.rng.random() < 0.8
        self.add(foot[0], z, lambda: things.tree(self.canvas, self.rng, foot, self.light, bare), 2.5)
        if self.light.direct > 0.25:
            away = foot - self.light.sun / self.light.sun[1] * 5.0 * (1, 0, 1)
            ring = things.circle(0, 0, self.rng.uniform(1.5, 3.5), corners=12)
            corners = away + ring[:, :1] * np.array([1.0, 0, 0]) + ring[:, 1:] * np.array([0, 0, 1.0])
            self.canvas.shade([self.camera.project(corners)], 0.6, self.camera.width / 300)

    def add_hedge(self, side: int, z: float, beside: float) -> None:
        """A bush, `beside` metres from the middle of the road."""
        foot = self.at(side, z, beside)
        self.add(foot[0], z, lambda: things.hedge(self.canvas, self.rng, foot, self.light))

    def add_roadside(self, side: int) -> None:
        """Trees in a row, lamps, signs, traffic lights, railings."""
        rng, half = self.rng, self.setting.road_width / 2
        if rng.random() < 0.55:
            step = rng.uniform(6, 16)
            for z in np.arange(rng.uniform(-6, 10), 70, step).tolist():
                if rng.random() < 0.85:
                    self.add_tree(side, z + rng.normal(0, 1), half + rng.uniform(0.6, 1.2) + self.strip[side] * 0.5)
        for z in np.arange(rng.uniform(-3, 12), 48, rng.uniform(12, 30)).tolist():
            self.add_pole(side, z, half + rng.uniform(0.3, 0.9), "lamp")
        for _ in range(int(rng.integers(0, 4))):
            self.add_pole(side, rng.uniform(3, 34), half + rng.uniform(0.3, 1.2), "sign")
        lights = 2 if self.crossing is not None else int(rng.random() < 0.3)
        for number in range(lights):
            z = (
                rng.uniform(6, 28)
                if self.crossing is None
                else self.crossing + (-6 if number else 6) + rng.normal(0, 1)
            )
            if z < 36:
                self.add_pole(side, z, half + rng.uniform(0.3, 0.8), "light")
        if rng.random() < 0.2:
            start = rng.uniform(-5, 20)
            for z in np.arange(start, start + rng.uniform(6, 24), 3.0).tolist():
                a, b = self.at(side, z, half + 0.35), self.at(side, z + 3.0, half + 0.35)
                own = np.random.default_rng(int(rng.integers(2**31)))
                self.add(a[0], z + 1.5, partial(things.fence, self.canvas, own, a, b, self.light))

    def add_pole(self, side: int, z: float, beside: float, carries: str) -> None:
        """A pole, `beside` metres from the middle of the road, that carries a lamp, a sign or a (traffic) light."""
        foot = self.at(side, z, beside)
        self.add(
            foot[0],
            z,
            lambda: things.pole(self.canvas, self.rng, foot, self.light, carries),
            3.5 if carries == "lamp" else 6.0,
        )

    # On the road.

    def add_traffic(self) -> None:
        """Vehicles in the lanes and at the kerb."""
        rng, half, busy = self.rng, self.setting.road_width / 2, self.setting.traffic
        for side in (-1, 1):
            if half > 3.6 and rng.random() < 0.35 + 0.5 * busy:  # parked in a row
                z = rng.uniform(-4, 8)
                while z < 65:
                    if rng.random() < 0.35 + 0.55 * busy:
                        self.add_vehicle(
                            side * (half - rng.uniform(1.0, 1.3)),
                            z,
                            rng.normal(0, 0.03) + (np.pi if rng.random() < 0.4 else 0.0),
                        )
                    z += rng.uniform(5.4, 7.5)
        for _ in range(rng.poisson(1.0 + 4.0 * busy)):  # under way
            lane = rng.choice((-1, 1))
            beside = lane * rng.uniform(0.25, 0.55) * half
            self.add_vehicle(beside, rng.uniform(6, 75), rng.normal(0, 0.04) + (np.pi if lane < 0 else 0.0))
        if self.crossing is not None and rng.random() < 0.4:
            self.add_vehicle(rng.uniform(-12, 12), self.crossing + rng.uniform(-2, 2), np.pi / 2 * rng.choice((-1, 1)))

    def add_vehicle(self, beside: float, z: float, heading: float) -> None:
        """A vehicle, `beside` metres from the middle of the road, its front towards `heading` (see `things.Vehicle`), unless
        it would stand in the camera."""
        rng, foot = self.rng, self.at(1, z, beside)
        kind = str(rng.choice(("car", "truck", "bus"), p=(0.84, 0.09, 0.07)))
        vehicle = things.Vehicle(rng, kind, foot[0], z, heading)
        if vehicle.distance() < ROOM:
            return

        def draw() -> None:
            vehicle.shadow(self.canvas, self.light)
            vehicle.draw(self.canvas, self.light)

        self.add(foot[0], z, draw)

    def add_people(self) -> None:
        """On the pavements, some on the road."""
        rng, half = self.rng, self.setting.road_width / 2
        for _ in range(rng.poisson(0.5 + 6.0 * self.setting.traffic)):
            side = rng.choice((-1, 1))
            room = self.strip[side] + self.pavement[side] + 0.3
            beside = half + rng.uniform(0.2, room) if rng.random() < 0.88 else rng.uniform(0, half)
            foot = self.at(side, rng.uniform(2, 40), beside)
            for _ in range(rng.integers(1, 3)):
                here = foot + np.array([rng.normal(0, 0.45), 0, rng.normal(0, 0.45)])
                self.add(here[0], here[2], partial(things.person, self.canvas, rng, here, self.light), 2.0)
