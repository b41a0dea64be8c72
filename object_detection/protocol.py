"""What is measured of detectors: which figures, over which objects, of which classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from fluid.data import Batch
from fluid.engine import Engine
from fluid.errors import UserError
from fluid.text import number_of
from object_detection.annotations import DataSet
from object_detection.metrics import CocoMap, VocMap

import numpy as np

Protocol = Literal["11point", "integral", "cocoMAP"]


def metric_for(data: DataSet, protocol: Protocol, overlap: float) -> VocMap | CocoMap:
    """A fresh metric of the objects of a data set."""
    if protocol == "cocoMAP":
        return CocoMap(data.objects, data.class_names)
    return VocMap(data.objects, data.class_names, iou=overlap, version=protocol)


def deciding(protocol: Protocol) -> str:
    """The figure that says which of two detectors is the better one."""
    return "AP" if protocol == "cocoMAP" else "map"


def described(data: DataSet, protocol: Protocol, overlap: float) -> str:
    """How the figures came about, for people."""
    objects = sum(len(item.labels) for item in data.objects)
    counted = f"{number_of(len(data.images), 'picture')}, {number_of(objects, 'object')}"
    if protocol == "cocoMAP":
        return f"COCO, by pycocotools; {counted}"
    area = "11 points" if protocol == "11point" else "area below the curve"
    return f"PASCAL VOC, IoU {overlap:g}, {area}, difficult objects left out; {counted}"


class ByName:
    """A metric that is shown detections of classes in another order, or of more classes, than the data have.

    Detections of classes that the data do not know are left out.
    """

    def __init__(self, metric: VocMap | CocoMap, predicted: Sequence[str]) -> None:
        """`predicted` are the names of the detector's classes. Raises UserError if one of the data's is not among them."""
        missing = [name for name in metric.class_names if name not in predicted]
        if missing:
            raise UserError(
                f"these weights do not know the classes {', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''} of the "
                f"data; they know {', '.join(predicted[:5])}{' ...' if len(predicted) > 5 else ''}. Name weights with "
                "--checkpoint or --pretrained_model, or train them: train.py"
            )
        self.metric = metric
        order = {name: number for number, name in enumerate(metric.class_names)}
        self._numbers = np.array([order.get(name, -1) for name in predicted])

    def add(self, outputs: Mapping[str, Any], batch: Batch) -> None:
        """As the metric's own."""
        detections, counts = np.array(outputs["detections"]), np.array(outputs["detections_num"])
        for row in range(len(counts)):
            own = detections[row, : counts[row]]
            numbers = self._numbers[own[:, 0].astype(np.int64)]
            known = own[numbers >= 0]
            known[:, 0] = numbers[numbers >= 0]
            counts[row] = len(known)
            detections[row, : len(known)] = known
        self.metric.add({"detections": detections, "detections_num": counts}, batch)

    def merge(self, engine: Engine) -> None:
        """As the metric's own."""
        self.metric.merge(engine)

    def result(self) -> dict[str, float]:
        """As the metric's own."""
        return self.metric.result()
