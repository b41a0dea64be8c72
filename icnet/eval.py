"""Measure a segmentation: every pixel of every image, at full resolution.

python eval.py                                              the run in ./output, or what comes along, on drawn streets
python eval.py --data_dir CITYSCAPES --checkpoint output --flip --scales 0.75 1 1.25
python eval.py --classes road,sky,building,vegetation,car   only these classes are scored
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, Range, ResultFlags, Was, defaults, nearest
from fluid.errors import UserError
from fluid.interface import Interface
from fluid.records import say_measured, write_result
from fluid.run import console, script
from fluid.runner import Runner
from fluid.text import number_of
from icnet.classes import Classes
from icnet.evaluation import Size, Views, by_size, confusion, role_of
from icnet.metrics import accuracies, iou, only, scores
from icnet.opening import SIMPLE, open_segmenter
from icnet.reader import Pairs, open_pairs
from icnet.report import show_classes
from icnet.segmenter import NetworkFlags, Segmenter

import numpy as np


@dataclass
@defaults(test_batch_size=4)
class Flags(NetworkFlags, BatchFlags, ResultFlags, EngineFlags):
    """Measure a segmentation."""

    pretrained_model: Annotated[str | None, Was("model_path")] = None
    """Weights: a name that `./zoo list weights` shows, or a file or folder of any format."""
    data_dir: Path | None = None
    """Folder of the data set; by default drawn streets."""
    split: Literal["val", "train", "test"] = "val"
    """Which part of the data."""
    reduce_zero_label: bool = False
    """Id 0 of label files means nothing, and every other one is one less."""
    classes: tuple[str, ...] = ()
    """Score these classes alone; pixels of others do not count."""
    flip: bool = False
    """Average over the image and its mirror image."""
    scales: tuple[Annotated[float, Range(0.05, 8)], ...] = (1.0,)
    """Average over the image in these sizes."""
    window: tuple[Annotated[int, Range(32, 2**15)], Annotated[int, Range(32, 2**15)]] | None = None
    """Height and width of windows that slide over the image, overlapping by a third; by default it is seen whole."""
    label_dir: Path | None = None
    """Folder for a PNG of predicted label ids of each image, in the form that the Cityscapes server takes."""


ALIASES: dict[str, str] = {}
RETIRED: dict[str, str] = {}


def main(flags: Flags) -> dict[str, float]:
    """Measure, print, and return the scores."""
    began = time.perf_counter()
    opened = open_segmenter(flags, SIMPLE)
    segmenter = opened.facts
    pairs = open_pairs(flags.data_dir, flags.split, flags.reduce_zero_label)
    check_classes(segmenter.classes, pairs)
    chosen = numbers_of(flags.classes, segmenter.classes)
    groups, views = by_size(pairs), Views(flags.flip, flags.scales, flags.window)
    runner = Runner(opened, flags, runs=sum(-(-len(group) // flags.test_batch_size) for group in groups.values()))
    console.print(
        f"ICNet of width {segmenter.width:g}, {runner.how}; {number_of(len(pairs), 'image')} of {pairs.origin}"
    )

    @cache
    def program(size: Size) -> Interface:
        return runner.program(role_of(size, views), lambda: build_program(segmenter, size, views))

    measured = confusion(
        runner.engine,
        program,
        pairs,
        groups,
        batch_size=flags.test_batch_size,
        num_workers=flags.num_workers,
        results=flags.label_dir,
    )
    matrix = measured.matrix if not chosen else only(measured.matrix, chosen)
    result = scores(matrix, segmenter.classes)
    show_classes(matrix, segmenter.classes)
    print_scores(result, matrix, segmenter.classes)
    seconds = say_measured(len(pairs), "image", began)
    if flags.output_dir is not None:
        found = {**result, "classes": by_class(matrix, segmenter.classes)}
        weights, data = opened.source, pairs.origin
        write_result(flags.output_dir, found, weights=weights, data=data, samples=len(pairs), seconds=seconds)
    return result


def build_program(segmenter: Segmenter, size: Size, views: Views) -> Interface:
    """The evaluation Program, built with Paddle; nothing else here needs it."""
    from icnet.network import evaluation_program

    return evaluation_program(segmenter, size, views)


def check_classes(classes: Classes, pairs: Pairs) -> None:
    """Raise UserError if the data have other classes than the weights."""
    if pairs.classes.names != classes.names:
        raise UserError(
            f"the weights tell apart {', '.join(classes.names)}; {pairs.origin} has the classes {', '.join(pairs.classes.names)}"
        )


def numbers_of(names: Sequence[str], classes: Classes) -> list[int]:
    """The numbers of some classes. Raises UserError for a name that none has."""
    for name in names:
        if name not in classes.names:
            raise UserError(f"--classes {name}: no such class.{nearest(name, list(classes.names))}")
    return [classes.names.index(name) for name in names]


def by_class(matrix: np.ndarray, classes: Classes) -> dict[str, dict[str, float]]:
    """IoU and accuracy of each class that occurs."""
    own, right = iou(matrix), accuracies(matrix)
    return {
        name: {"iou": float(own[number]), "accuracy": float(right[number])}
        for number, name in enumerate(classes.names)
        if matrix[number].any()
    }


def print_scores(result: dict[str, float], matrix: np.ndarray, classes: Classes) -> None:
    """The scores over all classes, and which these are."""
    occurring = int((matrix.sum(axis=1) > 0).sum())
    console.print(
        f"mean IoU {result['miou']:.4f} over the {occurring} of {number_of(len(classes), 'class', 'classes')} that occur, pixel accuracy "
        f"{result['accuracy']:.4f}, mean accuracy {result['mean_accuracy']:.4f}, frequency weighted IoU {result['weighted_iou']:.4f}"
        + (f", mean IoU of categories {result['category_miou']:.4f}" if "category_miou" in result else "")
    )


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
