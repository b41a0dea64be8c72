"""Scores of a segmentation, exact over a whole set whatever the batch size: all follow from one matrix of counts."""

from collections.abc import Mapping, Sequence

from fluid.data import Batch
from fluid.engine import Engine
from icnet.classes import Classes

import numpy as np


class Confusion:
    """Pixels by label and by what was predicted, `matrix` [classes, classes] int64, of a Program with that output.

    The Program sums over the whole batch, masked and on the device, so every process is shown the same.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.matrix = np.zeros((len(classes), len(classes)), np.int64)

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        self.matrix += outputs["confusion"].astype(np.int64)

    def merge(self, engine: Engine) -> None:
        """Nothing: all processes have counted everything."""

    def result(self) -> dict[str, float]:
        """`miou` and what else `scores` gives."""
        return scores(self.matrix, self.classes)


def iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, [classes]; not a number for one that has no pixel in the labels.

    Everingham et al., IJCV 2010: true positives / (true + false positives + false negatives).
    """
    hits, labelled, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return np.where(labelled > 0, hits / np.maximum(labelled + predicted - hits, 1), np.nan)


def accuracies(matrix: np.ndarray) -> np.ndarray:
    """Share of each class's pixels that is right, [classes]; not a number for one that has none."""
    labelled = matrix.sum(axis=1)
    return np.where(labelled > 0, matrix.diagonal() / np.maximum(labelled, 1), np.nan)


def scores(matrix: np.ndarray, classes: Classes) -> dict[str, float]:
    """All scores, 0..1: means are over the classes that occur in the labels.

    `miou`, `accuracy` (of pixels), `mean_accuracy` (of classes), `weighted_iou` (by the pixels of the classes) and, where
    classes have categories, `category_miou`.
    """
    occurring = matrix.sum(axis=1) > 0
    own, total = iou(matrix), max(1, int(matrix.sum()))
    share = matrix.sum(axis=1) / total
    result = {
        "miou": _mean(own[occurring]),
        "accuracy": float(matrix.diagonal().sum() / total),
        "mean_accuracy": _mean(accuracies(matrix)[occurring]),
        "weighted_iou": float((own[occurring] * share[occurring]).sum()),
    }
    if classes.categories:
        grouped = by_category(matrix, classes)
        result["category_miou"] = _mean(iou(grouped)[grouped.sum(axis=1) > 0])
    return result


def by_category(matrix: np.ndarray, classes: Classes) -> np.ndarray:
    """The counts of categories, in the order in which they first occur."""
    names = list(dict.fromkeys(classes.categories))
    of_class = np.array([names.index(category) for category in classes.categories])
    grouped = np.zeros((len(names), len(names)), np.int64)
    np.add.at(grouped, (of_class[:, None], of_class[None]), matrix)
    return grouped


def only(matrix: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """The counts where some classes alone are scored: pixels of others do not count, whatever is predicted there."""
    kept = np.zeros_like(matrix)
    kept[list(chosen)] = matrix[list(chosen)]
    return kept


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0
