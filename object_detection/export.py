"""Export a detector for deployment: a Paddle inference model and, with --onnx, ONNX, suppression included.

python export.py --checkpoint output --export_dir exported
python infer.py --exported_model exported photo.jpg
python export.py --checkpoint output --data_dir MINE --storage int8      8-bit weights too, in exported/weights.safetensors
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
from fluid.metrics import measure
from fluid.run import script
from object_detection.datasets import DataFlags, open_sound_part
from object_detection.detector import NMS, TASK, DetectionFlags, Detector, NetworkFlags
from object_detection.network import inference_program, nms_of, prediction_program
from object_detection.nms import ONNX_ROUNDS
from object_detection.opening import SUPPRESSION, open_detector
from object_detection.protocol import ByName, metric_for
from object_detection.reader import DetectionSource

import numpy as np

BATCH = 8


@dataclass
class Flags(NetworkFlags, DataFlags, DetectionFlags, ExportFlags):
    """Export a detector for deployment."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_detector(flags)
    detector = opened.facts
    # Loops cannot be converted.
    program = inference_program(detector, nms_of(flags, ONNX_ROUNDS if flags.onnx else None))
    return deploy(
        opened,
        program,
        flags,
        lambda state: precision(detector, state, flags),
        task=TASK,
        facts={"detector": detector.to_facts()},
        of_the_model={SUPPRESSION: {name: getattr(flags, name) for name in NMS}},
    )


def precision(detector: Detector, state: dict[str, np.ndarray], flags: Flags) -> dict[str, float]:
    """The average precision of a detector with these weights. Raises UserError where there are no pictures of its classes."""
    data = open_sound_part(flags, "val")
    metric = ByName(metric_for(data, "integral", 0.5), detector.class_names)
    program = prediction_program(detector, nms_of(flags))
    runs = batches_for_all(len(data.images), BATCH)
    engine, _ = engines.create(runs=runs, programs=[program])
    engine.load(state)
    return measure(
        engine, program, DetectionSource(data, detector.network.image_size), metric, batch_size=BATCH
    ).result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases={"model_save_dir": "export_dir"})))
