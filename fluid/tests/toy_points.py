"""The samples of the toy task, in a module of their own so that reader processes can import them without paddle."""

import time
from dataclasses import dataclass

import numpy as np


@dataclass
class Points:
    """Points in four dimensions, labelled by the sign of their sum."""

    count: int = 64
    poison: str = ""
    pause: float = 0.0

    def __len__(self) -> int:
        return self.count

    def where(self, index: int) -> str:
        return f"points.txt:{index + 1}"

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        time.sleep(self.pause)
        point = np.random.default_rng(index).standard_normal(4).astype(np.float32)
        label = np.int64(point.sum() > 0)
        point = point + rng.standard_normal(4).astype(np.float32) * np.float32(0.1)
        if self.poison == "input" and index == 11:
            point[:] = np.nan
        if self.poison == "reader" and index == 11:
            raise ZeroDivisionError("no such point")
        return {"point": point, "label": label}
