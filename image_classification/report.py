"""What a measured classifier looks like: figures by class, what is confused, the worst mistakes; the end of a training run."""

import math
from pathlib import Path
from typing import Any

from fluid.errors import DataError
from fluid.pictures import draw_confusion, draw_curves, draw_sheet, most_confused
from fluid.run import Run, events, show_summary
from fluid.text import number_of
from fluid.trainer import Outcome
from image_classification import pictures
from image_classification.classifier import Classifier
from image_classification.metrics import Accuracy
from image_classification.reader import ImageSource

import numpy as np

WORST = 30
"""So many mistakes are shown."""


def finish(run: Run, outcome: Outcome, measured: Accuracy, classifier: Classifier, source: ImageSource) -> None:
    """Draw the run's pictures and print its summary."""
    folder = run.output_dir
    drawn = [draw_curves(folder / "curves.png", pictures.CURVES, events(folder, "train"), events(folder, "eval"))]
    if measured.samples:
        drawn.append(draw_what_is_confused(folder, measured, classifier))
        drawn += draw_mistakes(folder, measured, source, classifier)
    names = {"top-1": "acc1", "top-5": "acc5", "mean of the classes": "balanced_acc", "F1": "f1", "loss": "loss"}
    if classifier.class_dim <= 5:
        del names["top-5"]
    show_summary(f"{classifier.model}, {number_of(measured.samples, 'test image')}", outcome.summary("images", names))
    run.say_left(drawn, skipped_samples=outcome.skipped_samples, note=" (chosen by these very test images)")


def records_by_class(accuracy: Accuracy, classifier: Classifier) -> list[dict[str, Any]]:
    """Each class that has samples: its name, figures, and what it was most often taken for."""
    images, confused, records = (
        np.bincount(accuracy.seen["label"], minlength=classifier.class_dim),
        accuracy.confused(),
        [],
    )
    for label, (recall, precision, f1) in enumerate(zip(*accuracy.by_class(), strict=True)):
        if images[label]:
            figures = {"recall": float(recall), "precision": float(precision), "f1": float(f1)}
            record = {"class": label, "name": classifier.name_of(label), "images": int(images[label]), **figures}
            if label in confused:
                other, times = confused[label]
                record |= {"taken_for": classifier.name_of(other), "times": times}
            records.append(record)
    return records


def records_of_mistakes(accuracy: Accuracy, source: ImageSource, classifier: Classifier) -> list[dict[str, Any]]:
    """The worst mistakes: file, class, and what it was taken for with which probability."""
    return [
        {
            "image": source.images.path(int(row["index"])),
            "name": classifier.name_of(int(row["label"])),
            "taken_for": classifier.name_of(int(row["predicted"])),
            "score": round(math.exp(-float(row["predicted_loss"])), 6),
        }
        for row in accuracy.worst(WORST)
    ]


def draw_mistakes(folder: Path, accuracy: Accuracy, source: ImageSource, classifier: Classifier) -> list[Path]:
    """mistakes.png: the pictures that the network was surest to know and did not, the worst first; none without mistakes."""
    seen, captions = [], []
    for row, record in zip(accuracy.worst(WORST), records_of_mistakes(accuracy, source, classifier), strict=True):
        try:
            seen.append(source.load(int(row["index"]), np.random.default_rng(0))["image"])
        except DataError:
            continue  # it was there a minute ago
        captions.append(f"{record['name']}\n{record['score']:.2f} {record['taken_for']}")
    return [draw_sheet(folder / "mistakes.png", seen, captions, [False] * len(seen))] if seen else []


def draw_what_is_confused(folder: Path, accuracy: Accuracy, classifier: Classifier) -> Path:
    """confusion.png: all classes, or of many those that are confused most."""
    seen = accuracy.seen
    matrix, names, title = most_confused(seen["label"], seen["predicted"], classifier.class_dim, classifier.name_of)
    return draw_confusion(folder / "confusion.png", matrix, names, title=title)
