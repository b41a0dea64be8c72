"""Measure a classifier: accuracies, precision and F1 over every image of the test list, exactly once each.

python eval.py                                                  the run in ./output on the embedded images
python eval.py --pretrained_model ResNet50 --data_dir ILSVRC2012
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, ExportedFlags, ResultFlags, defaults
from fluid.data import batches_for_all
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.pictures import draw_confusion
from fluid.records import write_result
from fluid.run import console, script
from image_classification.classes import open_matched
from image_classification.classifier import IMAGENET, SMALL, Classifier, NetworkFlags
from image_classification.metrics import MOST_IN_PICTURE, Accuracy
from image_classification.opening import open_classifier, open_runner
from image_classification.reader import ImageSource

import numpy as np
from rich.table import Table


@dataclass
@defaults(test_batch_size=100)
class Flags(NetworkFlags, BatchFlags, ResultFlags, ExportedFlags, EngineFlags):
    """Measure a classifier's accuracy."""

    data_dir: Path | None = None
    """Folder of the data set; by default the embedded images."""
    split: Literal["val", "train"] = "val"
    """Which part of the data."""
    class_map: tuple[str, ...] = ()
    """Classes that the data call otherwise than the network, NAME_IN_THE_DATA=CLASS_OF_THE_NETWORK; others are matched by name."""
    per_class: bool = False
    """Print the accuracy, precision and F1 of each class too."""


ALIASES = {
    "exported": "exported_model",
    "reader_thread": "num_workers",
    "model_save_dir": "output_dir",
}
RETIRED = {"with_mem_opt": "the engines plan memory themselves"}


def main(flags: Flags) -> dict[str, float]:
    """Measure, print, and return the metrics."""
    began = time.perf_counter()
    # The embedded images are clothes, which only SmallNet knows.
    opened = open_classifier(flags, SMALL if flags.data_dir is None else IMAGENET)
    classifier = opened.facts
    images = open_matched(flags.data_dir, flags.split, classifier, flags.class_map)
    runner = open_runner(opened, flags, batches_for_all(len(images), flags.test_batch_size))
    console.print(f"{classifier.model}, {runner.how}; {len(images)} images of {images.origin}", markup=False)
    accuracy = measure(
        runner.engine,
        runner.program("eval", lambda: build_program(classifier)),
        ImageSource(images, classifier.preprocess),
        Accuracy(classifier.class_dim),
        batch_size=flags.test_batch_size,
        num_workers=flags.num_workers,
    )
    result = accuracy.result()
    if flags.per_class:
        print_per_class(accuracy, classifier)
    # Among five classes each is one of the five best.
    top5 = f", test_acc5 {result['acc5']:.5f}" if classifier.class_dim > 5 else ""
    console.print(
        f"Test_loss {result['loss']:.5f}, test_acc1 {result['acc1']:.5f}{top5}, mean of the classes: accuracy "
        f"{result['balanced_acc']:.5f}, precision {result['precision']:.5f}, F1 {result['f1']:.5f} "
        f"({accuracy.samples} images, {time.perf_counter() - began:.1f} s)"
    )
    if flags.output_dir is not None:
        found = {"weights": opened.source, "list": images.origin, "images": accuracy.samples, **result}
        write_result(flags.output_dir, {**found, "classes": records_by_class(accuracy, classifier)})
        written = "result.json"
        if classifier.class_dim <= MOST_IN_PICTURE:
            names = [classifier.name_of(label) for label in range(classifier.class_dim)]
            draw_confusion(flags.output_dir / "confusion.png", accuracy.confusion, names)
            written += ", confusion.png"
        console.print(f"written to {flags.output_dir}: {written}", markup=False)
    return result


def build_program(classifier: Classifier) -> Interface:
    """The evaluation Program, built with Paddle."""
    from image_classification.network import evaluation_program

    return evaluation_program(classifier)


def records_by_class(accuracy: Accuracy, classifier: Classifier) -> list[dict[str, Any]]:
    """Each class that has samples: its name, figures, and what it was most often taken for."""
    wrong = accuracy.confusion - np.diag(accuracy.confusion.diagonal())
    images = accuracy.confusion.sum(axis=1)
    records = []
    for label, (recall, precision, f1) in enumerate(zip(*accuracy.by_class(), strict=True)):
        if images[label]:
            other = int(wrong[label].argmax())
            figures = {"recall": float(recall), "precision": float(precision), "f1": float(f1)}
            confused = {"taken_for": classifier.name_of(other), "times": int(wrong[label, other])}
            record = {"class": label, "name": classifier.name_of(label), "images": int(images[label]), **figures}
            records.append(record | (confused if confused["times"] else {}))
    return records


def print_per_class(accuracy: Accuracy, classifier: Classifier) -> None:
    """A table of the figures by class."""
    table = Table("class", "top-1 (recall)", "precision", "F1", "images", "most often taken for")
    for record in records_by_class(accuracy, classifier):
        figures = (f"{record[name]:.4f}" for name in ("recall", "precision", "f1"))
        confused = f"{record['taken_for']} ({record['times']})" if "times" in record else ""
        table.add_row(record["name"], *figures, str(record["images"]), confused)
    console.print(table)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
