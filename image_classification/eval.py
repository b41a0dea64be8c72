"""Measure a classifier: accuracies, precision and F1 over every image of the test list, exactly once each.

python eval.py                                                  the run in ./output on the embedded images
python eval.py --pretrained_model ResNet50 --data_dir ILSVRC2012
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import BatchFlags, EngineFlags, ExportedFlags, ResultFlags, defaults
from fluid.data import batches_for_all
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.records import make_folder, say_measured, write_result
from fluid.run import console, script, show
from fluid.runner import Runner
from fluid.text import number_of
from image_classification.classes import open_matched
from image_classification.classifier import IMAGENET, SMALL, Classifier, NetworkFlags
from image_classification.metrics import Accuracy
from image_classification.opening import open_classifier, open_runner
from image_classification.reader import ImageList, ImageSource
from image_classification.report import draw_mistakes, draw_what_is_confused, records_by_class, records_of_mistakes
from image_classification.views import MeanOfViews, NumViews, ViewSource

from rich.table import Table


@dataclass
@defaults(test_batch_size=100)
class Flags(NetworkFlags, BatchFlags, ResultFlags, ExportedFlags, EngineFlags):
    """Measure a classifier's accuracy."""

    data_dir: Path | None = None
    """Folder of the data set; by default the embedded images."""
    split: Literal["val", "train", "test"] = "val"
    """Which part of the data."""
    views: NumViews = 1
    """Views of each image whose probabilities are averaged: 1 the centre, 2 and mirrored, 5 centre and corners, 10 both."""
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
    runner = open_runner(opened, flags, batches_for_all(len(images) * flags.views, flags.test_batch_size))
    console.print(f"{classifier.model}, {runner.how}; {number_of(len(images), 'image')} of {images.origin}")
    accuracy = count(runner, classifier, images, flags)
    result = accuracy.result()
    if flags.per_class:
        print_per_class(accuracy, classifier)
    top5 = f", test_acc5 {result['acc5']:.5f}" if "acc5" in result else ""
    console.print(
        f"Test_loss {result['loss']:.5f}, test_acc1 {result['acc1']:.5f}{top5}, mean of the classes: accuracy "
        f"{result['balanced_acc']:.5f}, precision {result['precision']:.5f}, F1 {result['f1']:.5f}"
    )
    seconds = say_measured(accuracy.samples, "image", began)
    if flags.output_dir is not None:
        source = ImageSource(images, classifier.preprocess)
        records = {
            "classes": records_by_class(accuracy, classifier),
            "mistakes": records_of_mistakes(accuracy, source, classifier),
        }
        drawn = [
            draw_what_is_confused(make_folder(flags.output_dir), accuracy, classifier),
            *draw_mistakes(flags.output_dir, accuracy, source, classifier),
        ]
        write_result(
            flags.output_dir,
            {"views": flags.views, **result, **records},
            weights=opened.source,
            data=images.origin,
            samples=accuracy.samples,
            seconds=seconds,
            pictures=drawn,
        )
    return result


def count(runner: Runner, classifier: Classifier, images: ImageList, flags: Flags) -> Accuracy:
    """What the network makes of every image, in one view or several."""
    accuracy, program = Accuracy(classifier.class_dim), runner.program("eval", lambda: build_program(classifier))
    common = {"batch_size": flags.test_batch_size, "num_workers": flags.num_workers}
    if flags.views == 1:
        return measure(runner.engine, program, ImageSource(images, classifier.preprocess), accuracy, **common)
    source = ViewSource(images, classifier.preprocess, flags.views)
    measure(runner.engine, program, source, MeanOfViews(accuracy, flags.views), **common)
    return accuracy


def build_program(classifier: Classifier) -> Interface:
    """The evaluation Program, built with Paddle."""
    from image_classification.network import evaluation_program

    return evaluation_program(classifier)


def print_per_class(accuracy: Accuracy, classifier: Classifier) -> None:
    """A table of the figures by class."""
    table = Table("class", "top-1 (recall)", "precision", "F1", "images", "most often taken for")
    for record in records_by_class(accuracy, classifier):
        figures = (f"{record[name]:.4f}" for name in ("recall", "precision", "f1"))
        confused = f"{record['taken_for']} ({record['times']})" if "times" in record else ""
        table.add_row(record["name"], *figures, str(record["images"]), confused)
    show(table)


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
