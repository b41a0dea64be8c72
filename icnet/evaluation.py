"""Measuring a set of pairs, each image at its own size; for train.py, eval.py and export.py."""

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fluid import media
from fluid.data import Batch
from fluid.engine import Engine
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.records import make_folder, writing
from icnet.classes import Classes
from icnet.metrics import Confusion
from icnet.reader import Pairs, Source

import cv2
import numpy as np

Size = tuple[int, int]


@dataclass(frozen=True)
class Views:
    """What is averaged over in evaluation."""

    flip: bool = False
    """Also the mirrored image."""
    scales: tuple[float, ...] = (1.0,)
    """The image in these sizes."""
    window: Size | None = None
    """Cut the image into windows of this height and width, which overlap by a third or more."""


PLAIN = Views()


def by_size(pairs: Pairs) -> dict[Size, list[int]]:
    """The pairs of each size of image."""
    groups: defaultdict[Size, list[int]] = defaultdict(list)
    for index, size in enumerate(pairs.sizes()):
        groups[size].append(index)
    return dict(groups)


def role_of(size: Size, views: Views = PLAIN) -> str:
    """The role of the Program that evaluates images of a size; only plain ones are captured."""
    return f"eval_{size[0]}x{size[1]}" + ("" if views == PLAIN else f" with {views}")


def confusion(
    engine: Engine,
    program: Callable[[Size], Interface],
    pairs: Pairs,
    groups: dict[Size, list[int]],
    *,
    batch_size: int,
    num_workers: int = 0,
    results: Path | None = None,
) -> Confusion:
    """The counts over all pairs.

    Args:
        engine: holds the weights.
        program: gives the evaluation Program for a size of images.
        pairs: what is measured.
        groups: from `by_size`.
        batch_size: decides the speed alone.
        num_workers: processes that read.
        results: folder for a PNG of the predicted ids of each image, as the Cityscapes server takes them.
    """
    whole, names = Confusion(pairs.classes), Names()
    for size, indices in groups.items():
        metric = Written(pairs, indices, results, names) if results is not None else Confusion(pairs.classes)
        measure(
            engine,
            program(size),
            Source(pairs, only=indices),
            metric,
            batch_size=min(batch_size, len(indices)),
            num_workers=num_workers,
            mask="mask",
            fetch=None if results is not None else ["confusion"],
        )
        whole.matrix += metric.matrix
    return whole


class Names:
    """Names of results: those of the pictures, numbered where two are called alike."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, place: str) -> str:
        """For a picture's path, or `PATH#NUMBER` of a frame."""
        source, _, number = place.rpartition("#")
        moving = media.is_moving(source)
        stem = f"{Path(source).stem.replace(':', '_')}_{int(number):06}" if moving else Path(place).stem
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in self._taken)
        self._taken.add(free)
        return free


class Written(Confusion):
    """Counts, and writes what was predicted."""

    def __init__(self, pairs: Pairs, indices: list[int], folder: Path, names: Names) -> None:
        super().__init__(pairs.classes)
        self._coming = iter(indices)
        self._pairs, self._folder, self._names = pairs, make_folder(folder), names

    def add(self, outputs, batch: Batch) -> None:  # type: ignore[no-untyped-def]
        """Count a batch and write its predictions."""
        super().add(outputs, batch)
        for label in outputs["labels"][batch.mask]:
            stem = self._names.of(self._pairs.images[next(self._coming)])
            write_ids(self._folder / f"{stem}.png", label, self._pairs.classes)


def write_ids(path: Path, label: np.ndarray, classes: Classes) -> None:
    """Labels [H, W] as a PNG of the ids that the classes have in label files. Raises UserError if it cannot be written."""
    with writing(path):
        path.write_bytes(cv2.imencode(".png", classes.to_id[label])[1].tobytes())
