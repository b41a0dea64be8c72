"""Pictures that tests draw, and files of them."""

import io

import numpy as np
from PIL import Image


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture without any symmetry, [height, width, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(y / height * 6 * a + x / width * 6 * b + c) for a, b, c in rng.uniform(0.5, 1.5, (3, 3))]
    return (np.stack(waves, axis=-1) * 100 + 128).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()
