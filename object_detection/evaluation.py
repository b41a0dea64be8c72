"""The evaluation that `eval.py` and `eval_coco_map.py` run."""

import time
from dataclasses import dataclass

from fluid.config import BatchFlags, EngineFlags, ExportedFlags, Natural, ResultFlags, Share
from fluid.data import batches_for_all
from fluid.errors import UserError
from fluid.metrics import measure
from fluid.records import make_folder, say_measured, write_result
from fluid.run import console
from object_detection.datasets import DataFlags, open_sound_part
from object_detection.detector import TOLD_BY_NETWORK, DetectionFlags, NetworkFlags
from object_detection.metrics import VocMap
from object_detection.opening import SHAPES, SHIPPED, open_detector, open_prediction, open_runner, settle
from object_detection.pictures import draw_evaluation
from object_detection.protocol import ByName, Protocol, described, metric_for
from object_detection.reader import DetectionSource
from object_detection.shapes import CLASSES

ALIASES = {
    "exported": "exported_model",
    "model_dir": "pretrained_model",
    "model_save_dir": "output_dir",
    "nms_threshold": "iou",
    "test_list": "split",
}
RETIRED = {
    **TOLD_BY_NETWORK,
    "dataset": "the layout of --data_dir tells",
    "use_multiprocess": "see --num_workers",
}


@dataclass
class EvaluationFlags(NetworkFlags, DataFlags, DetectionFlags, BatchFlags, ResultFlags, ExportedFlags, EngineFlags):
    """How a detector is measured."""

    split: str | None = None
    """Split to measure on; by default val, valid, test, val2017 or val2014, whichever there is."""
    ap_version: Protocol = "integral"
    """Evaluation: PASCAL VOC's mean of 11 points (2007) or area (from 2010 on), or the averages of COCO."""
    overlap: Share = 0.5
    """IoU from which on a detection is right, for PASCAL VOC's figures."""
    bootstrap: Natural = 0
    """Print between which figures the mAP lies for 95 % of so many sets drawn from these pictures, with replacement."""


def evaluate(flags: EvaluationFlags) -> dict[str, float]:
    """Measure, print, and return the figures. Raises UserError if the weights do not know a class of the data."""
    if flags.bootstrap and flags.ap_version == "cocoMAP":
        raise UserError(
            "--bootstrap draws for PASCAL VOC's mAP; leave it out, or choose --ap_version integral or 11point"
        )
    began = time.perf_counter()
    data = open_sound_part(flags, "val", flags.split)
    opened = open_detector(flags, default=SHAPES if tuple(data.class_names) == CLASSES else SHIPPED)
    flags, detector = settle(opened, flags), opened.facts
    runner = open_runner(opened, flags, batches_for_all(len(data.images), flags.test_batch_size))
    program, size = open_prediction(runner, detector, flags)
    metric = ByName(metric_for(data, flags.ap_version, flags.overlap), detector.class_names)
    console.print(f"{detector.model}, {runner.how}; {data.origin}")
    source = DetectionSource(data, size)
    measure(
        runner.engine,
        program,
        source,
        metric,
        batch_size=flags.test_batch_size,
        num_workers=flags.num_workers,
        fetch=["detections", "detections_num"],
    )
    figures = metric.result()
    for name, value in figures.items():
        console.print(f"{name:>20} {value:.4f}")
    if flags.bootstrap and isinstance(metric.metric, VocMap):
        low, high = metric.metric.interval(flags.bootstrap)
        console.print(f"{'map of drawn sets':>20} {low:.4f} to {high:.4f}")
    if not any(len(item.labels) for item in data.objects):
        console.print("note: there is no object in these pictures, so the figures say nothing")
    protocol = described(data, flags.ap_version, flags.overlap)
    console.print(f"{protocol}; NMS {flags.iou:g}")
    console.print(f"Test model {opened.source}, map {figures.get('map', figures.get('AP', 0.0)):.4f}")
    seconds = say_measured(len(data.images), "image", began)
    if flags.output_dir is not None:
        drawn = draw_evaluation(make_folder(flags.output_dir), metric.metric, data, flags.overlap)
        found = {"protocol": protocol, **figures}
        of = {"weights": opened.source, "data": data.origin}
        write_result(flags.output_dir, found, **of, samples=len(data.images), seconds=seconds, pictures=drawn)
    return figures
