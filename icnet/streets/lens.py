"""The faults of cameras: lens, bonnet, dirt, blur, exposure, noise. Compression comes when the picture is written."""

from icnet.streets.setting import Setting
from icnet.streets.textures import CLOUDS, GRAIN, PLASTER, patch, surface, varied

import cv2
import numpy as np

EGO = 1
"""Label id of the own vehicle, which is not evaluated."""


def photograph(
    rng: np.random.Generator, setting: Setting, image: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the camera makes of a drawn street: [H, W, 3] uint8 and [H, W] uint8."""
    height, width = label.shape
    if setting.distortion:
        image, label = _distorted(image, label, setting.distortion)
    if setting.bonnet:
        image, label = _with_bonnet(rng, setting, image, label)
    image = _blurred(rng, setting, image)
    if setting.dirt:
        image = _dirty(rng, setting.dirt, image)
    columns, rows = np.meshgrid(
        np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)
    )
    falloff = (1 - setting.vignette * 0.5 * (columns**2 + rows**2))[:, :, None]
    tint = np.array([1 + setting.warmth, 1.0, 1 - setting.warmth], np.float32)
    image = np.clip(image * falloff * tint * setting.exposure, 0, None)
    # A soft shoulder instead of hard clipping, then the curve of the camera.
    image = np.where(image > 0.8, 1 - 0.2 * np.exp(-(image - 0.8) / 0.2), image)
    image = np.clip(image, 1e-3, 1) ** np.float32(1 / setting.gamma)
    grey = image @ np.array([0.3, 0.6, 0.1], np.float32)
    image = grey[:, :, None] + setting.saturation * (image - grey[:, :, None])
    image = (image - 0.5) * setting.contrast + 0.5
    if setting.noise:
        image = image + setting.noise * patch(rng, height, width, GRAIN, rng.uniform(0.6, 1.6))
    if setting.sharpening:
        image = image + setting.sharpening * (image - cv2.GaussianBlur(image, (0, 0), max(0.6, width / 900)))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), label


def _distorted(image: np.ndarray, label: np.ndarray, amount: float) -> tuple[np.ndarray, np.ndarray]:
    height, width = label.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (columns - width / 2) / (width / 2), (rows - height / 2) / (width / 2)
    # Scaled so that what is asked for always lies inside.
    factor = (1 + amount * (x**2 + y**2)) / (1 + max(amount, 0) * (1 + (height / width) ** 2))
    columns, rows = x * factor * width / 2 + width / 2, y * factor * width / 2 + height / 2
    where = {"map1": columns.astype(np.float32), "map2": rows.astype(np.float32), "borderMode": cv2.BORDER_REPLICATE}
    return (
        cv2.remap(image, interpolation=cv2.INTER_LINEAR, **where),
        cv2.remap(label, interpolation=cv2.INTER_NEAREST, **where),
    )


def _with_bonnet(
    rng: np.random.Generator, setting: Setting, image: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The front of the own car at the bottom, which mirrors the sky."""
    height, width = label.shape
    columns = np.linspace(-1, 1, width)
    top = height * (1 - setting.bonnet * (1 - rng.uniform(0.2, 0.8) * np.abs(columns) ** rng.uniform(2, 5)))
    inside = np.clip(np.arange(height)[:, None] - top[None] + 0.5, 0, 1).astype(np.float32)
    color = varied(rng, rng.choice([0.05, 0.25, 0.6]) * np.ones(3), 0.1)
    ramp = np.linspace(0.9, 0.1, max(2, int(height * setting.bonnet) + 1), dtype=np.float32)
    mirrored = np.zeros((height, 1, 1), np.float32)
    mirrored[height - len(ramp) :, 0, 0] = ramp
    piece = surface(rng, height, width, color, contrast=0.08) + 0.35 * mirrored * (
        1 + 0.3 * patch(rng, height, width, PLASTER, 3)[:, :, :1]
    )
    image = image + inside[:, :, None] * (piece - image)
    label = np.where(inside > 0.5, EGO, label).astype(np.uint8)
    return image, label


def _blurred(rng: np.random.Generator, setting: Setting, image: np.ndarray) -> np.ndarray:
    width = image.shape[1]
    if setting.focus_blur * width > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), setting.focus_blur * width)
    length = int(setting.motion_blur * width)
    if length >= 2:
        kernel = np.zeros((length, length), np.float32)
        angle = rng.normal(0, 0.3)
        reach = (length - 1) / 2
        end = (int(reach + reach * np.cos(angle) + 0.5), int(reach + reach * np.sin(angle) + 0.5))
        cv2.line(kernel, (length - 1 - end[0], length - 1 - end[1]), end, 1.0)
        image = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    return image


def _dirty(rng: np.random.Generator, amount: float, image: np.ndarray) -> np.ndarray:
    """Blurred specks and drops, and the glare of a dirty pane."""
    height, width = image.shape[:2]
    specks = np.zeros((height // 4, width // 4), np.float32)
    for _ in range(int(25 * amount)):
        place = (int(rng.integers(width // 4)), int(rng.integers(height // 4)))
        cv2.circle(specks, place, int(rng.uniform(0.003, 0.014) * width), float(rng.uniform(0.2, 0.7)), -1)
    specks = cv2.resize(cv2.GaussianBlur(specks, (0, 0), width / 400), (width, height))[:, :, None]
    veil = np.clip(patch(rng, height, width, CLOUDS, 2)[:, :, :1] * 0.06 + 0.05, 0, 0.2) * amount
    color = varied(rng, (0.5, 0.48, 0.44), 0.2)
    if rng.random() < 0.5:  # drops show what is behind them, unsharp
        return image + specks * (cv2.GaussianBlur(image, (0, 0), width / 60) * 1.15 - image) + veil * (1 - image)
    return image + specks * 0.7 * (color * 0.6 - image) + veil * (color * 1.4 - image)
