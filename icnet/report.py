"""Tables and pictures: what an evaluation found, what a run came to, what a data set holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fluid.pictures import Panel, draw_curves
from fluid.run import Run, events, show, show_summary
from fluid.text import number_of
from fluid.trainer import Outcome
from icnet import pictures
from icnet.classes import IGNORE, Classes
from icnet.evaluation import role_of
from icnet.metrics import accuracies, iou
from icnet.reader import Findings, read_pair

import numpy as np
from rich.table import Table

if TYPE_CHECKING:
    from icnet.train import Evaluator

CURVES = (Panel("loss", "loss"), Panel("loss of sub124", "loss_sub124"), Panel("mean IoU", evaluation="miou"))
SHOWN = 6
"""Test images on samples.png."""


def finish(run: Run, outcome: Outcome, evaluator: "Evaluator") -> None:
    """Draw the run's pictures and print its summary."""
    folder, classes = run.output_dir, evaluator.pairs.classes
    drawn = []
    if evaluator.measured.matrix.any():
        show_classes(evaluator.measured.matrix, classes)
        drawn.append(draw_samples(folder / "samples.png", evaluator))
    drawn.append(draw_curves(folder / "curves.png", CURVES, events(folder, "train"), events(folder, "eval")))
    names = {"mean IoU": "miou", "pixel accuracy": "accuracy"}
    show_summary(f"ICNet, {number_of(len(evaluator.pairs), 'test image')}", outcome.summary("images", names))
    run.say_left(drawn, skipped_samples=outcome.skipped_samples)


def draw_samples(path: Path, evaluator: "Evaluator") -> Path:
    """Some test images, their labels, and what the network makes of them."""
    pairs, rows = evaluator.pairs, []
    size, indices = next(iter(evaluator.groups.items()))
    engine = evaluator.weights.engine()
    chosen = [indices[at] for at in np.linspace(0, len(indices) - 1, min(SHOWN, len(indices))).astype(int)]
    found = [read_pair(pairs, index) for index in chosen]
    count = engine.shared_rows(len(found))
    padded = [found[min(row, len(found) - 1)] for row in range(count)]
    feed = {
        "image": np.stack([image for image, _ in padded]),
        "label": np.stack([label for _, label in padded]),
        "mask": np.arange(count) < len(found),
    }
    labels = np.asarray(engine.run(evaluator.programs[role_of(size)], feed, fetch=["labels"])["labels"])
    for (image, label), predicted in zip(found, labels):
        rows.append(
            [image, pictures.overlay(image, label, pairs.classes), pictures.overlay(image, predicted, pairs.classes)]
        )
    return pictures.write_grid(path, rows)


def show_classes(matrix: np.ndarray, classes: Classes) -> None:
    """A table of the classes that occur: IoU, accuracy, share of the pixels."""
    table = Table("class", "IoU", "accuracy", "of all pixels")
    own, right, labelled = iou(matrix), accuracies(matrix), matrix.sum(axis=1)
    for number, name in enumerate(classes.names):
        if labelled[number]:
            share = labelled[number] / labelled.sum()
            table.add_row(name, f"{own[number]:.4f}", f"{right[number]:.4f}", f"{share:.2%}")
    show(table)


def show_findings(classes: Classes, findings: Sequence[Findings]) -> None:
    """The pixels of each class in each part of a data set."""
    table = Table("class", "id", "train", "val")
    for number, name in [*enumerate(classes.names), (IGNORE, "ignored")]:
        counts = [
            f"{item.pixels[number]:,} ({item.pixels[number] / max(1, item.pixels.sum()):.2%})" for item in findings
        ]
        table.add_row(name, str(classes.ids[number] if number < len(classes) else IGNORE), *counts)
    show(table)
