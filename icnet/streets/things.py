"""What stands and moves in a street: cars, lorries, buses, people, trees, hedges, poles, signs, traffic lights, fences."""

from dataclasses import dataclass

from icnet.classes import ID
from icnet.streets.camera import UP, Camera, Canvas, Texture
from icnet.streets.textures import ASPHALT, CLOUDS, FOLIAGE, GRAIN, PLASTER, patch, surface, varied

import cv2
import numpy as np

PAINTS = np.array(
    [
        (0.85, 0.85, 0.85), (0.85, 0.85, 0.85), (0.06, 0.06, 0.07), (0.06, 0.06, 0.07), (0.35, 0.36, 0.38),
        (0.55, 0.56, 0.58), (0.55, 0.56, 0.58), (0.45, 0.05, 0.05), (0.08, 0.12, 0.32), (0.15, 0.25, 0.45),
        (0.08, 0.22, 0.14), (0.50, 0.42, 0.28), (0.70, 0.45, 0.08), (0.20, 0.20, 0.22), (0.65, 0.08, 0.06),
    ]
)  # fmt: skip
"""Colours of cars, the frequent ones several times."""


@dataclass(frozen=True)
class Light:
    """Where light comes from."""

    sun: np.ndarray
    """Direction to it, [3], of length 1."""
    ambient: float
    """Brightness of what no sun falls on, as a share of its colour."""
    direct: float
    """What the sun adds where it falls straight on a surface."""

    def on(self, normal: np.ndarray) -> float:
        """How bright a surface with this normal [3] of length 1 is (Lambert's law)."""
        return self.ambient + self.direct * max(0.0, float(normal @ self.sun))


def upright(camera: Camera, foot: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixels of a flat figure that stands at `foot` [3] and faces the camera: `points` [n, 2] are metres right and up."""
    right = camera.axes[0] * (1, 0, 1)
    right /= np.linalg.norm(right)
    return camera.project(foot + points[:, :1] * right + points[:, 1:] * UP)


def circle(x: float, y: float, radius: float, stretch: float = 1.0, corners: int = 18) -> np.ndarray:
    """An ellipse as a polygon [corners, 2], `stretch` times as high as wide."""
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * stretch * np.sin(angle)], axis=1)


def box(left: float, bottom: float, right: float, top: float) -> np.ndarray:
    """A rectangle as a polygon [4, 2]."""
    return np.array([(left, bottom), (right, bottom), (right, top), (left, top)])


def material(
    rng: np.random.Generator, color: np.ndarray, *, kind: int = PLASTER, contrast: float = 0.1, zoom: float = 1.0
) -> Texture:
    """A `surface`."""
    return lambda height, width: surface(rng, height, width, color, kind=kind, contrast=contrast, zoom=zoom)


def glossy(rng: np.random.Generator, color: np.ndarray, light: float) -> Texture:
    """Paint that mirrors the sky above a line and the dark of the street below it."""

    def make(height: int, width: int) -> np.ndarray:
        mirrored = patch(rng, height, width, CLOUDS if rng.random() < 0.7 else PLASTER, max(0.3, height / 60))[:, :, :1]
        rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None] + 0.06 * mirrored
        above = np.clip((rng.uniform(0.15, 0.7) - rows) * rng.uniform(2, 14) + 0.5, 0, 1)
        sky, street = rng.uniform(0.0, 0.26), rng.uniform(0.0, 0.16)
        shine = above * sky - (1 - above) * street * np.clip(color.mean() * 2, 0.2, 1)
        return np.clip(color * light * (1 + 0.06 * mirrored) + shine * light, 0.005, 1.3)

    return make


class Vehicle:
    """A body on wheels at (x, z), its front towards `heading` (radians to the right of the street's direction)."""

    def __init__(self, rng: np.random.Generator, kind: str, x: float, z: float, heading: float):
        self.rng, self.kind, self.place = rng, kind, np.array([x, 0.0, z])
        self.ahead = np.array([np.sin(heading), 0.0, np.cos(heading)])
        self.side = np.array([np.cos(heading), 0.0, -np.sin(heading)])
        self.paint = varied(rng, PAINTS[rng.integers(len(PAINTS))], 0.1)
        self.glass = varied(rng, (0.09, 0.10, 0.11), 0.4)
        if kind == "car":
            self.length, self.width, self.height = (
                rng.uniform(3.5, 5.0),
                rng.uniform(1.65, 1.95),
                rng.uniform(1.38, 1.9),
            )
            self.waist = self.height * rng.uniform(0.56, 0.64)
            self.bottom = rng.uniform(0.17, 0.26)
        else:
            low, high = ((5.0, 10.0), (2.4, 3.6)) if kind == "truck" else ((9.0, 14.0), (2.9, 3.5))
            self.length, self.width, self.height = rng.uniform(*low), rng.uniform(2.1, 2.5), rng.uniform(*high)
            self.waist, self.bottom = self.height, 0.45
        self.profile = self._outline()

    def _outline(self) -> np.ndarray:
        """What the body looks like from the side, from the front to the back: metres ahead and up, [n, 2]."""
        rng, reach, low, waist = self.rng, self.length / 2, self.bottom, self.waist
        if self.kind != "car":
            return np.array([(reach, low), (reach * 0.98, waist), (-reach * 0.99, waist), (-reach, low)])
        hood, boot = waist * rng.uniform(0.76, 0.95), waist * rng.uniform(0.84, 1.0)
        return np.array(
            [(reach * 0.95, low), (reach, low + 0.16), (reach * 0.99, hood * 0.82), (reach * 0.92, hood), (reach * 0.45, waist)]
            + [(-reach * 0.72, waist), (-reach * 0.94, boot), (-reach, boot * 0.8), (-reach, low + 0.16), (-reach * 0.95, low)]
        )  # fmt: skip

    def at(self, along: float, up: float, across: float) -> np.ndarray:
        """A place of the world by metres from the middle of the vehicle."""
        return self.place + along * self.ahead + across * self.side + up * UP

    def distance(self) -> float:
        """Metres over the ground from the camera to its sides."""
        gaps = (abs(self.place @ self.ahead) - self.length / 2, abs(self.place @ self.side) - self.width / 2)
        return float(np.hypot(*np.maximum(gaps, 0)))

    def shadow(self, canvas: Canvas, light: Light) -> None:
        """Darken the ground under it, and where it keeps the sun off."""
        reach, half = self.length / 2 + 0.1, self.width / 2 + 0.1
        corners = np.stack(
            [self.at(a, 0, b) for a, b in ((reach, half), (reach, -half), (-reach, -half), (-reach, half))]
        )
        polygons = [canvas.camera.project(corners)]
        if light.direct > 0.2:
            away = -light.sun / max(light.sun[1], 0.3) * self.height * 0.8
            polygons.append(canvas.camera.project(corners * (1, 0, 1) + away * (1, 0, 1)))
        canvas.shade(polygons[:1], 0.25, 1.0)
        canvas.shade(polygons[1:], 0.55)

    def draw(self, canvas: Canvas, light: Light) -> None:
        """Draw it: the faces that the camera sees, then what is on them."""
        label, half = ID[self.kind], self.width / 2
        seen = []
        for across, normal in ((half, self.side), (-half, -self.side)):
            points = np.stack([self.at(along, up, across) for along, up in self.profile])
            if self._faces(canvas.camera, points, normal):
                seen.append("right" if across > 0 else "left")
                canvas.fill([canvas.camera.project(points)], glossy(self.rng, self.paint, light.on(normal)), label)
        for (along, up), (behind, higher) in zip(self.profile[:-1], self.profile[1:], strict=True):
            normal = (higher - up) * self.ahead + (along - behind) * UP
            normal = normal / np.linalg.norm(normal)
            places = ((along, up, -half), (along, up, half), (behind, higher, half), (behind, higher, -half))
            points = np.stack([self.at(*place) for place in places])
            if self._faces(canvas.camera, points, normal):
                canvas.fill([canvas.camera.project(points)], glossy(self.rng, self.paint, light.on(normal)), label)
        for name, sign in (("front", 1), ("back", -1)):
            if self._faces(canvas.camera, self.at(sign * self.length / 2, 0.5, 0)[None], sign * self.ahead):
                seen.append(name)
        if self.kind == "car":
            self._cabin(canvas, light, label)
        else:
            self._box_details(canvas, seen, light, label)
        self._wheels(canvas, label)
        self._ends(canvas, seen, label)

    def _faces(self, camera: Camera, points: np.ndarray, normal: np.ndarray) -> bool:
        return float(normal @ (camera.above * UP - points.mean(axis=0))) > 0

    def _cabin(self, canvas: Canvas, light: Light, label: int) -> None:
        """The roof and the windows."""
        rng, half, reach = self.rng, self.width / 2, self.length / 2
        back, front = -reach * rng.uniform(0.72, 0.98), reach * rng.uniform(0.3, 0.5)
        roof_back, roof_front = back + rng.uniform(0.05, 0.5) * reach * 0.5, front - rng.uniform(0.25, 0.4) * reach
        top, narrow = self.height, half * rng.uniform(0.78, 0.9)
        w, p = self.waist, np.array
        quads = [
            (p([(front, w, -half), (front, w, half), (roof_front, top, narrow), (roof_front, top, -narrow)]), self.ahead, True),
            (p([(back, w, half), (back, w, -half), (roof_back, top, -narrow), (roof_back, top, narrow)]), -self.ahead, True),
            (p([(back, w, half), (front, w, half), (roof_front, top, narrow), (roof_back, top, narrow)]), self.side, True),
            (p([(front, w, -half), (back, w, -half), (roof_back, top, -narrow), (roof_front, top, -narrow)]), -self.side, True),
            (p([(roof_back, top, narrow), (roof_front, top, narrow), (roof_front, top, -narrow), (roof_back, top, -narrow)]), UP, False),
        ]  # fmt: skip
        for corners, normal, window in quads:
            points = np.stack([self.at(*corner) for corner in corners])
            if not self._faces(canvas.camera, points, normal):
                continue
            canvas.fill([canvas.camera.project(points)], glossy(rng, self.paint, light.on(normal)), label)
            if window:
                middle = points.mean(axis=0)
                panes = [middle + 0.86 * (points - middle)]
                if normal is self.side or (normal == -self.side).all():
                    low, high = panes[0][:2], panes[0][3:1:-1]
                    cut = rng.uniform(0.42, 0.58)
                    at_low, at_high = low[0] + cut * (low[1] - low[0]), high[0] + cut * (high[1] - high[0])
                    gap = 0.03 * (low[1] - low[0])
                    panes = [
                        np.stack([low[0], at_low - gap, at_high - gap, high[0]]),
                        np.stack([at_low + gap, low[1], high[1], at_high + gap]),
                    ]
                canvas.fill([canvas.camera.project(pane) for pane in panes], self._pane(light), label)

    def _pane(self, light: Light) -> Texture:
        """Glass: dark, with the sky in its upper part."""
        rng = self.rng

        def make(height: int, width: int) -> np.ndarray:
            ramp = np.linspace(rng.uniform(0.0, 0.35), 0, height, dtype=np.float32)[:, None, None] * light.ambient
            inside = 0.06 * patch(rng, height, width, FOLIAGE, max(0.3, height / 40))
            return np.clip(self.glass + ramp + inside, 0.005, 1)

        return make

    def _box_details(self, canvas: Canvas, seen: list[str], light: Light, label: int) -> None:
        """Windows of a bus; cabin, tarpaulin and joints of a lorry."""
        rng, half, reach = self.rng, self.width / 2 + 0.01, self.length / 2
        sides = {"right": half, "left": -half}
        cargo = varied(rng, rng.uniform(0.1, 0.9, 3), 0.2)
        for name in seen:
            if name in sides and self.kind == "bus":
                self._painted(canvas, sides[name], light, label)
                count = int(self.length / 1.5)
                for at in np.linspace(-reach + 0.3, reach - 1.5, count):
                    pane = [
                        (at, 1.3, sides[name]),
                        (at + 1.2, 1.3, sides[name]),
                        (at + 1.2, 2.5, sides[name]),
                        (at, 2.5, sides[name]),
                    ]
                    canvas.fill([canvas.camera.project(np.stack([self.at(*c) for c in pane]))], self._pane(light), label)  # fmt: skip
            elif name in sides:
                x = sides[name]
                load = [
                    (-reach, 0.9, x),
                    (reach - 2.2, 0.9, x),
                    (reach - 2.2, self.height, x),
                    (-reach, self.height, x),
                ]
                window = [(reach - 1.6, 1.5, x), (reach - 0.4, 1.5, x), (reach - 0.5, 2.2, x), (reach - 1.6, 2.2, x)]
                canvas.fill([canvas.camera.project(np.stack([self.at(*c) for c in load]))], material(rng, cargo, contrast=0.12), label)  # fmt: skip
                canvas.fill([canvas.camera.project(np.stack([self.at(*c) for c in window]))], self._pane(light), label)
        for name, at in (("front", reach * 1.001), ("back", -reach * 1.001)):
            if name in seen and (self.kind == "bus" or name == "front"):
                low, high = self.height * 0.42, self.height * 0.8
                pane = [
                    (at, low, -half * 0.88),
                    (at, low, half * 0.88),
                    (at, high, half * 0.85),
                    (at, high, -half * 0.85),
                ]
                canvas.fill([canvas.camera.project(np.stack([self.at(*c) for c in pane]))], self._pane(light), label)

    def _painted(self, canvas: Canvas, across: float, light: Light, label: int) -> None:
        """Stripes, rounds and a dark band of windows on the side of a bus."""
        rng, reach = self.rng, self.length / 2
        brightness = light.on(self.side * np.sign(across))
        for _ in range(rng.integers(0, 4)):
            at, up, size = rng.uniform(-0.8, 0.8) * reach, rng.uniform(0.3, 0.8) * self.height, rng.uniform(0.3, 1.2)
            if rng.random() < 0.5:
                figure = circle(at, up, size, min(1.0, 0.2 * self.height / size))
            else:
                slant, long = rng.uniform(-1, 1), rng.uniform(0.5, 4)
                figure = box(at, up - size / 4, at + long, up + size / 4) + [(0, 0), (0, 0), (slant, 0), (slant, 0)]
            figure = np.clip(figure, (-reach, self.bottom), (reach, self.height))
            color = varied(rng, rng.uniform(0.05, 0.95, 3), 0.1) * brightness
            points = np.stack([self.at(along, height, across) for along, height in figure])
            canvas.fill([canvas.camera.project(points)], material(rng, color, contrast=0.08), label)
        if rng.random() < 0.6:
            corners = box(-reach * 0.98, 1.15, reach * 0.98, 2.65)
            band = np.stack([self.at(along, min(height, self.height - 0.2), across) for along, height in corners])
            canvas.fill([canvas.camera.project(band)], self._pane(light), label)

    def _wheels(self, canvas: Canvas, label: int) -> None:
        """On the side that is seen."""
        radius = 0.32 if self.kind == "car" else 0.48
        camera = canvas.camera
        across = camera.above * UP - self.place
        side = np.sign(across @ self.side) * self.width / 2 * 1.005
        for along in (-0.3 * self.length, 0.31 * self.length):
            for size, color in (
                (1.22, (0.02, 0.02, 0.02)),
                (1.0, (0.04, 0.04, 0.04)),
                (0.62, varied(self.rng, (0.4, 0.4, 0.4), 0.3)),
            ):
                ring = circle(along, radius, radius * size)
                points = np.stack([self.at(a, b, side) for a, b in ring])
                canvas.fill(
                    [camera.project(points)], material(self.rng, np.asarray(color), contrast=0.25, kind=GRAIN), label
                )

    def _ends(self, canvas: Canvas, seen: list[str], label: int) -> None:
        """Lamps, plate, bumper and grille of the front or the back."""
        bottom = self.bottom
        for name, sign in (("front", 1.002), ("back", -1.002)):
            if name not in seen:
                continue
            at, half, rng = sign * self.length / 2, self.width / 2, self.rng
            low, high = bottom + 0.42 * (min(self.waist, 1.2) - bottom), min(self.waist, 1.3) * 0.9
            rear = name == "back"
            lamp = varied(rng, (0.45, 0.03, 0.03) if rear else (0.85, 0.85, 0.8), 0.2)
            if rear and rng.random() < 0.2:
                lamp = np.array([1.0, 0.15, 0.1])

            def piece(left: float, low: float, right: float, high: float, at: float = at) -> np.ndarray:
                corners = [(at, low, left), (at, low, right), (at, high, right), (at, high, left)]
                return canvas.camera.project(np.stack([self.at(*corner) for corner in corners]))

            lamps = [piece(-half * 0.97, low, -half * 0.66, high), piece(half * 0.66, low, half * 0.97, high)]
            canvas.fill(lamps, material(rng, lamp, contrast=0.2), label)
            dark = varied(rng, (0.06, 0.06, 0.06), 0.3)
            canvas.fill([piece(-half * 0.95, bottom, half * 0.95, bottom + 0.16)], material(rng, dark), label)
            if not rear:
                canvas.fill(
                    [piece(-half * 0.55, low * 0.8, half * 0.55, low)], material(rng, dark, contrast=0.5), label
                )
            plate = piece(-0.26, bottom + 0.2, 0.26, bottom + 0.32)
            canvas.fill([plate], material(rng, np.array([0.85, 0.85, 0.8]), contrast=0.2, kind=GRAIN), label)


def person(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, light: Light) -> None:
    """Somebody standing or walking."""
    tall = rng.uniform(1.5, 1.9) if rng.random() < 0.85 else rng.uniform(1.0, 1.4)
    stride, lean, wide = rng.uniform(0, 0.28), rng.uniform(-0.05, 0.05), rng.uniform(0.19, 0.28)
    hip, shoulder = 0.5 * tall, 0.83 * tall
    skirt = rng.random() < 0.25
    legs = [
        np.array([(-0.09 - stride, 0), (0.02 - stride, 0), (0.02, hip), (-wide * 0.75, hip)]),
        np.array([(stride - 0.02, 0), (stride + 0.09, 0), (wide * 0.75, hip), (-0.02, hip)]),
    ]
    coat = hip * rng.uniform(0.55, 1.0)
    torso = np.array([(-wide * 0.85, coat), (wide * 0.85, coat), (wide + lean, shoulder), (-wide + lean, shoulder)])
    arms = [
        np.array([(s * wide + lean, shoulder), (s * wide * 0.7 + lean, shoulder), (s * wide * 1.0, hip * 0.95), (s * wide * 1.35, hip)])
        for s in (-1, 1)
    ]  # fmt: skip
    head = circle(lean * 1.5, 0.915 * tall, 0.062 * tall, 1.25)
    hair = head[: len(head) // 2 + 1]
    brightness = light.on(0.5 * UP)
    coat_color, leg_color = (
        varied(rng, rng.choice([0.08, 0.2, 0.5, 0.8]) * rng.uniform(0.5, 1.4, 3)) for _ in range(2)
    )
    skin = rng.choice([0.3, 0.55, 0.8]) * np.array([1.0, 0.75, 0.6])
    parts = [
        (legs if not skirt else [np.concatenate([legs[0][:2], legs[1][1:3], legs[0][3:]])], leg_color),
        ([torso, *arms], coat_color),
        ([head], skin),
        ([hair], varied(rng, rng.choice([0.05, 0.15, 0.4]) * np.array([1.0, 0.8, 0.6]))),
    ]
    for polygons, color in parts:
        placed = [upright(canvas.camera, foot, polygon) for polygon in polygons]
        canvas.fill(placed, material(rng, color * brightness, contrast=0.22, kind=PLASTER), ID["person"])
    if rng.random() < 0.3:  # a bag
        bag = upright(canvas.camera, foot, box(wide, hip * 0.8, wide + 0.3, hip * 1.3))
        canvas.fill(
            [bag], material(rng, varied(rng, rng.uniform(0.05, 0.7, 3)) * brightness, contrast=0.2), ID["person"]
        )


RAGGED = 1.4
"""How far leaves reach beyond their ellipse, as a share of it."""
LEAVES = np.array(
    [
        (0.16, 0.24, 0.07),
        (0.10, 0.18, 0.07),
        (0.22, 0.28, 0.10),
        (0.13, 0.20, 0.12),
        (0.30, 0.27, 0.09),
        (0.34, 0.42, 0.16),
    ]
)
"""Colours of leaves in summer."""
AUTUMN = np.array([(0.45, 0.30, 0.08), (0.40, 0.20, 0.07), (0.33, 0.25, 0.13)])
"""Colours of leaves in autumn."""


def foliage(
    canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, outline: np.ndarray, light: Light, *, bare: bool = False
) -> None:
    """Leaves, or twigs, inside an ellipse with a ragged edge that stands at `foot`: `outline` is centre and half axes, [4]."""
    x, y, half_width, half_height = outline * (1, 1, RAGGED, RAGGED)
    corners = upright(canvas.camera, foot, box(x - half_width, y - half_height, x + half_width, y + half_height))
    if len(corners) < 3:
        return
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    height, width = canvas.label.shape
    x0, x1 = max(0, int(left)), min(width, int(right) + 1)
    y0, y1 = max(0, int(top)), min(height, int(bottom) + 1)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    rows = (((np.arange(y0, y1) + 0.5 - top) / (bottom - top) * 2 - 1) * RAGGED).astype(np.float32)[:, None]
    columns = (((np.arange(x0, x1) + 0.5 - left) / (right - left) * 2 - 1) * RAGGED).astype(np.float32)[None]
    size = right - left
    ragged = patch(rng, y1 - y0, x1 - x0, FOLIAGE, max(0.25, size / 220))
    inside = 1 - rows**2 - columns**2 + 0.36 * ragged[:, :, 0]
    leaves = patch(rng, y1 - y0, x1 - x0, ASPHALT, max(0.4, size / 260))
    clumps = patch(rng, y1 - y0, x1 - x0, FOLIAGE, max(0.3, size / 160))[:, :, :1]
    shade = light.ambient * 0.75 + light.direct * np.clip(0.35 - 0.55 * rows, 0.05, 1)[:, :, None]
    if bare:
        color = varied(rng, (0.20, 0.16, 0.13), 0.2)
        dense, left_over = rng.uniform(0.05, 0.8), rng.uniform(1.2, 4.0)
        share = np.clip((dense - np.abs(leaves[:, :, 0])) * 4, 0, 1) * np.clip(inside * 2, 0, 1) * rng.uniform(0.6, 1.0)
        piece = color * shade * (1 + 0.3 * leaves)
        leaf = (clumps > left_over) & (inside > 0)[:, :, None]
        piece = np.where(leaf, varied(rng, AUTUMN[rng.integers(len(AUTUMN))], 0.2) * shade, piece)
        share = np.maximum(share, leaf[:, :, 0])
    else:
        kinds = AUTUMN if rng.random() < 0.12 else LEAVES
        color = varied(rng, kinds[rng.integers(len(kinds))], 0.15) * rng.uniform(0.7, 1.6)
        share = np.clip(inside * rng.uniform(3, 7), 0, 1)
        share = share * np.where(leaves[:, :, 0] < -rng.uniform(1.2, 2.5), 0.35, 1.0)  # where one sees through
        piece = color * shade * np.clip(1 + 0.42 * clumps + 0.32 * leaves, 0.08, 3)
    canvas.blend(slice(y0, y1), slice(x0, x1), share.astype(np.float32), np.clip(piece, 0.005, 1.2).astype(np.float32))
    # What one sees through thin twigs is what stands behind them.
    around = cv2.GaussianBlur(share.astype(np.float32), (0, 0), max(1.5, width / 200))
    covered = around > 0.4 if bare else inside > 0.12
    canvas.label[y0:y1, x0:x1][covered] = ID["vegetation"]


def bark(rng: np.random.Generator, color: np.ndarray) -> Texture:
    """Furrows from top to bottom, darker towards the sides."""

    def make(height: int, width: int) -> np.ndarray:
        zoom, depth = max(0.4, width / 120), rng.uniform(0.15, 0.5)
        furrows = cv2.resize(patch(rng, max(2, height // 6), width, ASPHALT, zoom), (width, height))
        across = np.linspace(-1, 1, width, dtype=np.float32)[None, :, None] + rng.uniform(-0.5, 0.5)
        round_ = 1 - rng.uniform(0, 0.5) * across**2
        return np.clip(
            color * round_ * (1 + depth * furrows + 0.15 * patch(rng, height, width, GRAIN, zoom)), 0.005, 1.2
        )

    return make


LABELLED = 2.0
"""Pixels that a branch must be wide to have a label."""


def branches(
    canvas: Canvas,
    rng: np.random.Generator,
    foot: np.ndarray,
    start: tuple[float, float],
    length: float,
    half: float,
    color: np.ndarray,
) -> None:
    """Limbs and twigs of a bare tree, which fork from `start`, metres right and up of its foot; `half` as wide as the trunk."""
    wide: list[np.ndarray] = []
    thin: list[np.ndarray] = []
    pixels = canvas.camera.focal / max(1.0, float(np.hypot(foot[0], foot[2])))
    tips = [(np.array(start), np.pi / 2 + rng.normal(0, 0.2), length, half)]
    for _ in range(5):
        grown = []
        for place, angle, long, thick in tips:
            for _ in range(rng.integers(2, 4)):
                turned = angle + rng.normal(0, 0.5)
                reach, left = long * rng.uniform(0.6, 1.1), thick * rng.uniform(0.5, 0.8)
                end = place + reach * np.array([np.cos(turned), np.sin(turned)])
                beside = np.array([-np.sin(turned), np.cos(turned)])
                figure = np.stack(
                    [place - thick * beside, place + thick * beside, end + left * beside, end - left * beside]
                )
                (wide if (thick + left) * pixels > LABELLED else thin).append(upright(canvas.camera, foot, figure))
                grown.append((end, turned, reach * 0.75, left))
        tips = grown
    texture = material(rng, color, contrast=0.3, kind=ASPHALT)
    canvas.fill(thin, texture, None)
    canvas.fill(wide, texture, ID["vegetation"])


def tree(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, light: Light, bare: bool) -> None:
    """A trunk and a crown of several parts."""
    tall, radius = rng.uniform(4, 12), rng.uniform(1.3, 3.6)
    thick, stem = rng.uniform(0.08, 0.42), tall * rng.uniform(0.25, 0.45)
    lean = rng.uniform(-0.6, 0.6)
    wood = varied(rng, (0.20, 0.16, 0.13), 0.4) * light.on(0.4 * UP)
    up = np.linspace(0, 1, 7)
    middle, half = (
        lean * up**1.5 + rng.normal(0, 0.25 * thick, 7),
        thick * (1 - 0.3 * up) * (1 + rng.normal(0, 0.07, 7)),
    )
    half[0] *= rng.uniform(1.0, 1.5)
    left, right = (np.stack([middle + side * half, 0.7 * tall * up], axis=1) for side in (-1, 1))
    trunk = upright(canvas.camera, foot, np.concatenate([left, right[::-1]]))
    canvas.fill([trunk], bark(rng, wood), ID["vegetation"])
    if bare:
        branches(canvas, rng, foot, (float(middle[3]), 0.35 * tall), 0.22 * tall, 0.6 * thick, wood)
    for _ in range(rng.integers(2, 6)):
        x, y = lean + rng.normal(0, radius * 0.45), rng.uniform(stem + radius * 0.4, tall - radius * 0.2)
        size = radius * rng.uniform(0.5, 1.0)
        foliage(canvas, rng, foot, np.array([x, y, size, size * rng.uniform(0.7, 1.3)]), light, bare=bare)


def hedge(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, light: Light) -> None:
    """A bush, or a piece of a hedge."""
    for _ in range(rng.integers(1, 4)):
        wide, tall = rng.uniform(0.6, 2.2), rng.uniform(0.4, 1.5)
        foliage(canvas, rng, foot, np.array([rng.uniform(-1.5, 1.5), tall * 0.8, wide, tall]), light)


def pole(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, light: Light, carries: str) -> None:
    """A pole, with a lamp, a sign or a traffic light on it."""
    tall = {"lamp": rng.uniform(4.5, 9), "sign": rng.uniform(2.3, 3.4), "light": rng.uniform(3.0, 4.2)}[carries]
    half = rng.uniform(0.045, 0.11) if carries != "lamp" else rng.uniform(0.07, 0.16)
    color = varied(rng, [(0.4, 0.41, 0.42), (0.55, 0.55, 0.55), (0.12, 0.13, 0.13), (0.2, 0.26, 0.22)][rng.integers(4)])
    color = color * light.on(canvas.camera.axes[2] * -0.7)
    metal = material(rng, color, contrast=0.15, kind=GRAIN, zoom=3)
    camera = canvas.camera
    canvas.fill([upright(camera, foot, box(-half, 0, half, tall))], metal, ID["pole"])
    if carries == "lamp":
        arm = rng.choice((-1, 1)) * rng.uniform(0.0, 2.2)
        beam = np.array([(-half, tall - 0.14), (-half, tall), (arm, tall + 0.35), (arm, tall + 0.2)])
        canvas.fill([upright(camera, foot, beam)], metal, ID["pole"])
        bulb = upright(camera, foot, circle(arm, tall + 0.25, rng.uniform(0.2, 0.42), rng.uniform(0.3, 0.8)))
        canvas.fill([bulb], material(rng, varied(rng, (0.7, 0.7, 0.68), 0.2)), ID["pole"])
    elif carries == "sign":
        at = tall
        for _ in range(rng.integers(1, 3)):
            at -= 1.05 * sign_plate(canvas, rng, foot, at, light)
    else:
        traffic_light(canvas, rng, foot, tall)


SIGNS = [
    ("circle", (0.75, 0.05, 0.06), (0.9, 0.9, 0.9)), ("circle", (0.05, 0.16, 0.55), (0.05, 0.16, 0.55)),
    ("triangle", (0.75, 0.05, 0.06), (0.9, 0.9, 0.9)), ("triangle", (0.75, 0.06, 0.06), (0.9, 0.8, 0.3)),
    ("box", (0.05, 0.16, 0.55), (0.85, 0.85, 0.9)), ("box", (0.9, 0.9, 0.9), (0.1, 0.1, 0.1)),
    ("box", (0.85, 0.65, 0.05), (0.1, 0.1, 0.1)), ("wide", (0.04, 0.35, 0.15), (0.9, 0.9, 0.9)),
    ("diamond", (0.9, 0.9, 0.9), (0.9, 0.7, 0.05)), ("octagon", (0.7, 0.04, 0.05), (0.9, 0.9, 0.9)),
]  # fmt: skip
"""Shape, colours of rim and middle."""


def sign_plate(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, top: float, light: Light) -> float:
    """A traffic sign below `top`; returns its height in metres."""
    shape, rim, middle = SIGNS[rng.integers(len(SIGNS))]
    radius = rng.uniform(0.26, 0.42)
    center = top - radius
    outline = {
        "circle": circle(0, center, radius),
        "triangle": np.array([(-radius * 1.1, center - radius * 0.7), (radius * 1.1, center - radius * 0.7), (0, top)]),
        "box": box(-radius * 0.85, center - radius * 0.85, radius * 0.85, top),
        "wide": box(-radius * 1.9, center - radius * 0.7, radius * 1.9, top),
        "diamond": circle(0, center, radius * 1.1, corners=4),
        "octagon": circle(0, center, radius, corners=8),
    }[shape]
    brightness = light.ambient + 0.5 * light.direct
    inner = (outline - (0, center)) * rng.uniform(0.6, 0.8) + (0, center)
    for polygon, color in ((outline, rim), (inner, middle)):
        placed = upright(canvas.camera, foot, polygon)
        canvas.fill([placed], material(rng, varied(rng, color) * brightness, contrast=0.08), ID["traffic sign"])
    mark = (outline - (0, center)) * (rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.35)) + (0, center)
    ink = material(rng, varied(rng, rng.choice([0.05, 0.9]) * np.ones(3)) * brightness, contrast=0.2)
    canvas.fill([upright(canvas.camera, foot, mark)], ink, ID["traffic sign"])
    return 2 * radius


def traffic_light(canvas: Canvas, rng: np.random.Generator, foot: np.ndarray, top: float) -> None:
    """A box of three lamps, one of them on."""
    half = rng.uniform(0.15, 0.22)
    camera, dark = canvas.camera, varied(rng, (0.05, 0.05, 0.05), 0.3)
    if rng.random() < 0.2:
        dark = varied(rng, (0.5, 0.42, 0.05))
    housing = upright(camera, foot, box(-half, top - 6 * half, half, top))
    canvas.fill([housing], material(rng, dark, contrast=0.2), ID["traffic light"])
    on = rng.integers(3)
    for number, color in enumerate(((1.0, 0.12, 0.08), (1.0, 0.65, 0.1), (0.1, 0.95, 0.55))):
        lamp = upright(camera, foot, circle(0, top - (1 + 2 * number) * half, half * 0.75))
        shade = np.asarray(color) if number == on else np.asarray(color) * 0.12
        canvas.fill([lamp], material(rng, shade, contrast=0.1), ID["traffic light"])


def fence(canvas: Canvas, rng: np.random.Generator, start: np.ndarray, end: np.ndarray, light: Light) -> None:
    """Bars or boards between two places on the ground; what shows between bars is fence too, as labels have it."""
    tall = rng.uniform(0.8, 1.8)
    up = tall * UP
    color = varied(rng, [(0.15, 0.16, 0.16), (0.45, 0.33, 0.2), (0.7, 0.7, 0.7), (0.2, 0.32, 0.24)][rng.integers(4)])
    color = color * (light.ambient + 0.4 * light.direct)
    camera = canvas.camera
    whole = camera.project(np.stack([start, end, end + up, start + up]))
    boards = rng.random() < 0.4
    canvas.fill(
        [whole], material(rng, color, contrast=0.3, kind=ASPHALT), ID["fence"], opacity=0.97 if boards else 0.08
    )
    length = float(np.linalg.norm(end - start))
    step = rng.uniform(0.12, 0.3)
    bars = []
    for at in np.arange(0, length, step):
        here = start + (end - start) * at / length
        across = (end - start) / length * step * 0.22
        bars.append(camera.project(np.stack([here, here + across, here + across + up, here + up])))
    for level in (0.12, 0.92):
        low, high = up * level, up * (level + 0.06)
        bars.append(camera.project(np.stack([start + low, end + low, end + high, start + high])))
    canvas.fill(bars, material(rng, color * (0.6 if boards else 1.0), contrast=0.15), None)
