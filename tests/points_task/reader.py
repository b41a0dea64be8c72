"""Points in four dimensions, labelled by the sign of their sum. Free of Paddle: reader processes import this module."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

SIZES = {"train": 1024, "val": 200}


@dataclass(frozen=True)
class Points:
    """One part of the data set, which is made from its index and nothing else. Feeds `point` [4] and `label`."""

    split: Literal["train", "val"] = "train"

    def __len__(self) -> int:
        return SIZES[self.split]

    def where(self, index: int) -> str:
        """For messages."""
        return f"point {index} of {self.split}"

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One sample; in training a little noise, drawn from `rng`, is added to it."""
        point = np.random.default_rng((list(SIZES).index(self.split), index)).standard_normal(4)
        label = np.array(point.sum() > 0, np.int64)
        noise = 0.1 * rng.standard_normal(4) if self.split == "train" else 0.0
        return {"point": (point + noise).astype(np.float32), "label": label}
