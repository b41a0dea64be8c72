"""Loss and accuracy over a whole part of the data."""

from collections.abc import Mapping

from fluid.data import Batch
from fluid.engine import Engine

import numpy as np


class Accuracy:
    """Mean loss and share of right answers, of a Program with the outputs `losses` and `hits`, both [N]."""

    def __init__(self) -> None:
        self.sums = np.zeros(3)

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        self.sums += [float(outputs[name][batch.mask].sum()) for name in ("losses", "hits")] + [batch.size]

    def merge(self, engine: Engine) -> None:
        """Add up what all processes counted."""
        self.sums = engine.total(self.sums)

    def result(self) -> dict[str, float]:
        """`loss` and `accuracy`, means over the points."""
        loss, hits, points = self.sums.tolist()
        return {"loss": loss / points, "accuracy": hits / points}
