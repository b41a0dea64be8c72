"""A pinhole camera in a street, and the canvas that it draws on: colours and labels together.

World axes: x to the right, y up, z along the street, in metres; the ground is y = 0. The camera stands at x = z = 0.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

NEAR = 0.4
"""Metres in front of the camera before which nothing is drawn."""
FINER = 4
"""Polygons are drawn so many times finer than the picture, and shrunk."""
UP = np.array([0.0, 1.0, 0.0])
"""Away from the ground."""

Texture = Callable[[int, int], np.ndarray]
"""Makes a piece [height, width, 3], 0..1."""


@dataclass(frozen=True)
class Camera:
    """Where the camera is and how it looks."""

    height: int
    """Of the picture, in pixels."""
    width: int
    """In pixels, too."""
    focal: float
    """In pixels."""
    above: float
    """Metres above the ground."""
    yaw: float
    """Radians to the right of the street's direction."""
    pitch: float
    """Radians downward."""
    roll: float
    """Radians by which it is turned clockwise."""

    @cached_property
    def axes(self) -> np.ndarray:
        """[3, 3]: the directions right, down and forward of the picture, in the world."""
        cy, sy, cp, sp, cr, sr = (f(a) for a in (self.yaw, self.pitch, self.roll) for f in (np.cos, np.sin))
        forward = np.array([sy * cp, -sp, cy * cp])
        right = np.array([cy, 0.0, -sy])
        down = np.cross(right, forward)
        return np.stack([cr * right + sr * down, cr * down - sr * right, forward])

    @cached_property
    def matrix(self) -> np.ndarray:
        """[3, 3]: from places relative to the camera to homogeneous pixels."""
        inner = np.array([[self.focal, 0, self.width / 2], [0, self.focal, self.height / 2], [0, 0, 1.0]])
        return inner @ self.axes

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels [n, 2] of a polygon [m, 3] of the world, cut where it comes too near; fewer than 3 if nothing is left."""
        relative = points - np.array([0.0, self.above, 0.0])
        visible = _cut(relative, relative @ self.axes[2] - NEAR)
        if len(visible) < 3:
            return np.zeros((0, 2))
        pixels = visible @ self.matrix.T
        return pixels[:, :2] / pixels[:, 2:]

    def ground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, z and distance of the ground under every pixel, [H, W] each; the distance is infinite in the sky."""
        columns, rows = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
        rays = (pixels @ np.linalg.inv(self.matrix).T).astype(np.float32)
        down = -rays[:, :, 1]
        length = np.where(down > 1e-4, self.above / np.maximum(down, 1e-4), np.inf).astype(np.float32)
        reach = np.minimum(length, 1e4)
        return rays[:, :, 0] * reach, rays[:, :, 2] * reach, length


class Canvas:
    """A picture [H, W, 3] float32 in 0..1 and its labels [H, W] uint8."""

    def __init__(self, camera: Camera, label: int):
        self.camera = camera
        self.image = np.zeros((camera.height, camera.width, 3), np.float32)
        self.label = np.full((camera.height, camera.width), label, np.uint8)

    def fill(self, polygons: Sequence[np.ndarray], texture: Texture, label: int | None, opacity: float = 1.0) -> None:
        """Draw polygons of pixels [n, 2] with `opacity` 0..1; without `label` the labels stay."""
        found = self._mask(polygons)
        if found is not None:
            rows, columns, share = found
            self.blend(rows, columns, share * opacity, texture(*share.shape))
            if label is not None:
                self.label[rows, columns][share > 0.5] = label

    def blend(self, rows: slice, columns: slice, share: np.ndarray, piece: np.ndarray) -> None:
        """Lay `piece` [h, w, 3] over a part of the picture: `share` [h, w] of 0..1 says how much of it shows."""
        part = self.image[rows, columns]
        part += share[:, :, None] * (piece - part)

    def shade(self, polygons: Sequence[np.ndarray], factor: float, softness: float = 0.0) -> None:
        """Multiply what lies under polygons of pixels [n, 2] by `factor`; `softness` pixels blur the edge (standard deviation)."""
        found = self._mask(polygons)
        if found is not None:
            rows, columns, share = found
            if softness:
                share = cv2.GaussianBlur(share, (0, 0), softness)
            self.image[rows, columns] *= 1 - (1 - factor) * share[:, :, None]

    def quad(self, origin: np.ndarray, along: np.ndarray, up: np.ndarray, texture: np.ndarray, label: int) -> None:
        """A rectangle of the world with the corner `origin` and two sides [3]; `texture` [h, w, 3] stands upright on it."""
        found = self._mask([self.camera.project(np.stack([origin, origin + along, origin + along + up, origin + up]))])
        if found is None:
            return
        rows, columns, share = found
        relative = origin - np.array([0.0, self.camera.above, 0.0])
        place = self.camera.matrix @ np.stack([along, up, relative], axis=1)
        if abs(np.linalg.det(place)) < 1e-9:
            return
        tall, wide = texture.shape[:2]
        # One step of a pyramid, as coarse as the picture is where the rectangle is largest.
        shrink = int(max(1, min(tall / max(share.shape[0], 1), 16)))
        if shrink > 1:
            texture = cv2.resize(
                texture, (max(2, wide // shrink), max(2, tall // shrink)), interpolation=cv2.INTER_AREA
            )
            tall, wide = texture.shape[:2]
        to_texture = np.array([[wide, 0, 0], [0, -tall, tall], [0, 0, 1.0]]) @ np.linalg.inv(place)
        to_texture = to_texture @ np.array([[1, 0, columns.start + 0.5], [0, 1, rows.start + 0.5], [0, 0, 1.0]])
        piece = cv2.warpPerspective(
            texture,
            to_texture,
            share.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        self.blend(rows, columns, share, piece)
        self.label[rows, columns][share > 0.5] = label

    def touches(self, points: np.ndarray) -> bool:
        """Whether a polygon [n, 3] of the world lies in the picture, as far as its bounding box tells."""
        pixels = self.camera.project(points)
        if len(pixels) < 3:
            return False
        (left, top), (right, bottom) = pixels.min(axis=0), pixels.max(axis=0)
        return bool(right > 0 and bottom > 0 and left < self.camera.width and top < self.camera.height)

    def _mask(self, polygons: Sequence[np.ndarray]) -> tuple[slice, slice, np.ndarray] | None:
        """The part of the picture that polygons touch, and how much of each pixel they cover, [h, w] float32."""
        polygons = [polygon for polygon in polygons if len(polygon) >= 3]
        if not polygons:
            return None
        points = np.concatenate(polygons)
        height, width = self.label.shape
        low = np.maximum(np.floor(points.min(axis=0)), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0)), (width, height)).astype(int)
        if (high <= low).any():
            return None
        fine = np.zeros(((high[1] - low[1]) * FINER, (high[0] - low[0]) * FINER), np.uint8)
        limit = 30000  # OpenCV's coordinates are 32 bits with 4 bits of fraction
        placed = [
            np.clip((polygon - low) * FINER * 16, -limit * 16, limit * 16).astype(np.int32) for polygon in polygons
        ]
        for polygon in placed:  # one by one: of all together, what two of them cover would be left out
            cv2.fillPoly(fine, [polygon], 255, lineType=cv2.LINE_8, shift=4)
        share = cv2.resize(fine, (high[0] - low[0], high[1] - low[1]), interpolation=cv2.INTER_AREA)
        return slice(low[1], high[1]), slice(low[0], high[0]), share.astype(np.float32) / 255


def _cut(points: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The part of a polygon [n, 3] where `depth` [n] is positive (Sutherland and Hodgman)."""
    kept = []
    for index in range(len(points)):
        before, here = depth[index - 1], depth[index]
        if (before > 0) != (here > 0):
            kept.append(points[index - 1] + (points[index] - points[index - 1]) * before / (before - here))
        if here > 0:
            kept.append(points[index])
    return np.array(kept)
