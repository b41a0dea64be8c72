"""How the picture of a word becomes what networks take: grey, of one height, as wide as it then is."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

TALL = 1.5
"""Height : width from which a picture is taken to show its word on its side."""


@dataclass(frozen=True)
class Preprocess:
    """What is the same wherever a word is read: in training, evaluation, inference and export."""

    height: int = 48
    """Pixels."""
    max_width: int = 1024
    """Pictures that would be wider are squeezed."""
    rotate_tall: bool = False
    """Turn pictures of more than TALL times their width by 90 degrees, counter-clockwise."""

    def picture(self, picture: np.ndarray) -> np.ndarray:
        """A picture [h, w, 3] RGB or [h, w] grey, uint8, as [height, width] grey; its sides' ratio is kept."""
        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) if picture.ndim == 3 else picture
        if self._turns(grey.shape):
            grey = np.ascontiguousarray(np.rot90(grey))
        size = self.width(picture.shape), self.height
        if grey.shape == size[::-1]:
            return grey
        smaller = grey.shape[0] > self.height
        return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)

    def width(self, shape: Sequence[int]) -> int:
        """The width that `picture` gives a picture of this (height, width); halves are rounded to even."""
        rows, columns = shape[1::-1] if self._turns(shape) else shape[:2]
        return min(max(round(columns * self.height / rows), 1), self.max_width)

    def _turns(self, shape: Sequence[int]) -> bool:
        return self.rotate_tall and shape[0] >= TALL * shape[1]
