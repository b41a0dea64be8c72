"""What a run looks like: its learning curves, and the confusion matrix."""

from collections.abc import Sequence
from pathlib import Path

from fluid.pictures import Panel
from fluid.plots import new_figure

import numpy as np

CURVES = (Panel("loss", "loss", "loss"), Panel("top-1 accuracy", "acc1", "acc1"))
"""Of training and of the test images, by step."""


def draw_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> Path:
    """The confusion matrix [true class, predicted class]: rows are normalised, cells of small ones hold the counts."""
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = min(3 + 0.5 * classes, 14)
    figure, axis = new_figure(size, size)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true")
    if classes <= 40:
        axis.set_xticks(range(classes), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(classes), names, fontsize=8)
    if classes <= 20:
        for row, column in np.ndindex(confusion.shape):
            if confusion[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=120)
    return path
