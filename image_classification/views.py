"""Several views of an image, whose probabilities are averaged: mirrored, and other crops than the centre."""

from collections.abc import Mapping
from typing import Literal

from fluid.data import Batch
from fluid.engine import Engine
from image_classification.metrics import Accuracy
from image_classification.reader import ImageList, Preprocess, read_picture, scaled_image

import numpy as np

NumViews = Literal[1, 2, 5, 10]
"""1: the centre; 2: and its mirror image; 5: centre and corners; 10: and their mirror images (Krizhevsky et al. 2012)."""
CENTRE, CORNERS = (0.5, 0.5), ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))


def views_of(image: np.ndarray, preprocess: Preprocess, views: NumViews = 1) -> np.ndarray:
    """The views [views, H, W, 3] of an image [h, w, 3], the `evaluation_image` first."""
    image = scaled_image(image, preprocess)
    _, height, width = preprocess.image_shape
    room = image.shape[0] - height, image.shape[1] - width
    crops = []
    for down, right in (CENTRE, *(CORNERS if views >= 5 else ())):
        top, left = int(room[0] * down), int(room[1] * right)
        crops.append(image[top : top + height, left : left + width])
    crops += [crop[:, ::-1] for crop in crops] if views in (2, 10) else []
    return np.stack(crops)


def mean_logits(logits: np.ndarray, views: int) -> np.ndarray:
    """Logits [N * views, C], those of an image side by side -> logarithms of the mean probabilities [N, C]."""
    if views == 1:
        return logits
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    mean = np.exp(logarithms).reshape(-1, views, logits.shape[1]).mean(axis=1)
    return np.log(np.maximum(mean, np.finfo(np.float64).tiny)).astype(np.float32)


class ViewSource:
    """The views of all images one after the other, samples {"image": [H, W, 3] uint8, "label": int64} for `fluid.data`."""

    def __init__(self, images: ImageList, preprocess: Preprocess, views: NumViews) -> None:
        self.images, self.preprocess, self.views = images, preprocess, views
        self._last: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.images) * self.views

    def where(self, index: int) -> str:
        """The image, for messages."""
        return self.images.where(index // self.views)

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One view; the image is read with the first that is asked for. Raises DataError."""
        number, view = divmod(index, self.views)
        if self._last is None or self._last[0] != number:
            self._last = number, views_of(read_picture(self.images, number), self.preprocess, self.views)
        return {"image": self._last[1][view], "label": self.images.labels[number]}


class MeanOfViews:
    """Shows an `Accuracy` the mean of the views of each image; of samples in the order of a `ViewSource`, in one process."""

    def __init__(self, accuracy: Accuracy, views: int) -> None:
        self.accuracy, self.views = accuracy, views
        self._rest: tuple[np.ndarray, ...] = ()

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count the images whose views are all there."""
        assert batch.indices is not None
        own = (outputs["logits"], batch.feed["label"], batch.indices)
        rows = tuple(
            np.concatenate(parts) for parts in zip(self._rest or [a[:0] for a in own], [a[batch.mask] for a in own])
        )
        count = len(rows[0]) // self.views
        self._rest = tuple(array[count * self.views :] for array in rows)
        logits, labels, indices = (array[: count * self.views] for array in rows)
        whole = Batch(
            {"label": labels[:: self.views]},
            count,
            batch.epoch,
            batch.index,
            indices=indices[:: self.views] // self.views,
        )
        self.accuracy.add({"logits": mean_logits(logits, self.views)}, whole)

    def merge(self, engine: Engine) -> None:
        """As of the accuracy."""
        self.accuracy.merge(engine)

    def result(self) -> dict[str, float]:
        """As of the accuracy."""
        return self.accuracy.result()
