"""What lies behind made words: photographs (data/photographs) and fractal noise, as textures of mean 0 and deviation 1."""

from pathlib import Path

from fluid.media import read_image

import cv2
import numpy as np

FOLDER = Path(__file__).resolve().parent / "data" / "photographs"
_SIZE = 512
_CLOUDS = 6


class Backgrounds:
    """Textures, and noise, to cut pieces of."""

    def __init__(self) -> None:
        rng = np.random.default_rng(20)
        photographs = [cv2.cvtColor(read_image(path), cv2.COLOR_RGB2GRAY) for path in sorted(FOLDER.glob("*.jpg"))]
        self.photographs = [photograph.astype(np.float32) for photograph in photographs]
        self.clouds = [_fractal(rng, roughness) for roughness in np.linspace(0.45, 0.8, _CLOUDS)]
        self.noise = rng.standard_normal((_SIZE, _SIZE * 2)).astype(np.float32)

    def photograph(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """A piece of a photograph, [height, width] float32."""
        return _standard(_piece(rng, self.photographs[int(rng.random() * len(self.photographs))], height, width))

    def cloud(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """A piece of fractal noise, [height, width] float32."""
        return _standard(_piece(rng, self.clouds[int(rng.random() * len(self.clouds))], height, width))

    def grain(self, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
        """Independent noise, [height, width] float32 of deviation 1."""
        rows, columns = self.noise.shape
        if height > rows or width > columns:
            return cv2.resize(self.noise, (width, height), interpolation=cv2.INTER_NEAREST)
        top, left = int(rng.random() * (rows - height + 1)), int(rng.random() * (columns - width + 1))
        return self.noise[top : top + height, left : left + width]


def _piece(rng: np.random.Generator, picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A part of a picture with the sides' ratio, resized; mirrored every other time."""
    rows, columns = picture.shape
    scale = min(rows / height, columns / width) * (0.25 + 0.75 * rng.random())
    part_height, part_width = max(int(height * scale), 1), max(int(width * scale), 1)
    top, left = int(rng.random() * (rows - part_height + 1)), int(rng.random() * (columns - part_width + 1))
    part = picture[top : top + part_height, left : left + part_width]
    return cv2.resize(part[:, ::-1] if rng.random() < 0.5 else part, (width, height), interpolation=cv2.INTER_LINEAR)


def _standard(picture: np.ndarray) -> np.ndarray:
    mean, deviation = cv2.meanStdDev(picture)
    return (picture - np.float32(mean[0, 0])) * np.float32(1 / max(deviation[0, 0], 1.0))


def _fractal(rng: np.random.Generator, roughness: float) -> np.ndarray:
    """Noise of many scales (Perlin, SIGGRAPH 1985): each octave is `roughness` times as strong as the coarser one."""
    total = np.zeros((_SIZE, _SIZE), np.float32)
    for octave in range(1, 9):
        grid = rng.standard_normal((2**octave, 2**octave)).astype(np.float32)
        total += cv2.resize(grid, (_SIZE, _SIZE), interpolation=cv2.INTER_CUBIC) * np.float32(100 * roughness**octave)
    return total
