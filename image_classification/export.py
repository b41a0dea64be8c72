"""Export a classifier for deployment: a Paddle inference model and, with --onnx, ONNX.

python export.py --checkpoint output --export_dir exported
python infer.py --exported_model exported photo.jpg
python export.py --checkpoint output --storage int8        8-bit weights too, in exported/weights.safetensors
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import ExportFlags
from fluid.data import batches_for_all
from fluid.deployment import deploy
from fluid.errors import UserError
from fluid.metrics import measure
from fluid.run import script
from image_classification.classes import open_matched
from image_classification.classifier import IMAGENET, TASK, Classifier, NetworkFlags
from image_classification.metrics import Accuracy
from image_classification.network import evaluation_program, inference_program
from image_classification.opening import open_classifier
from image_classification.reader import ImageSource, class_names

import numpy as np


@dataclass
class Flags(NetworkFlags, ExportFlags):
    """Export a classifier for deployment."""

    data_dir: Path | None = None
    """Data set on which --storage is measured; by default the embedded images."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_classifier(flags, IMAGENET)
    classifier = opened.facts
    return deploy(
        opened,
        inference_program(classifier),
        flags,
        lambda state: accuracy(classifier, state, flags),
        task=TASK,
        facts={"classifier": classifier.to_facts()},
    )


def accuracy(classifier: Classifier, state: dict[str, np.ndarray], flags: Flags) -> dict[str, float]:
    """Loss and accuracies of a classifier with these weights. Raises UserError where there are no images of its classes."""
    if flags.data_dir is None and classifier.class_names != class_names(None):
        raise UserError(f"--storage {flags.storage} is measured, on images of the network's classes: give --data_dir")
    images = open_matched(flags.data_dir, "val", classifier)
    source = ImageSource(images, classifier.preprocess)
    program, metric = evaluation_program(classifier), Accuracy(classifier.class_dim)
    engine, _ = engines.create(runs=batches_for_all(len(source), 100), programs=[program])
    engine.load(state)
    return measure(engine, program, source, metric, batch_size=100).result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases={"model_save_dir": "export_dir"})))
