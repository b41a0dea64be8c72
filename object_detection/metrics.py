"""Average precision as PASCAL VOC and as COCO define it.

Detections are collected while they come, and each knows the number of its image; the ground truth is that of the data set
itself, with every box, however many a network takes. So the figures do not depend on batches, devices or processes.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fluid.data import Batch
from fluid.engine.base import Engine
from object_detection import boxes as box
from object_detection.annotations import Objects

import numpy as np

ApVersion = Literal["11point", "integral"]
COLUMNS = 7
"""Of a collected detection: number of the image, class, score, xmin, ymin, xmax, ymax."""
COCO_FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)
"""What pycocotools summarises, in its order: averages over IoU .5, .55, ..., .95, or at one IoU, or of objects of a size."""


class Detections:
    """The detections of a data set: the part of a `fluid.metrics.Metric` that those for VOC and COCO have in common.

    Programs have the outputs `detections` [N, keep, 6] and `detections_num` [N]; batches the field `index` [N], the numbers
    of the images in the data set.
    """

    def __init__(self) -> None:
        self._parts: list[np.ndarray] = []

    def add(self, outputs: Mapping[str, Any], batch: Batch) -> None:
        """Collect those of the real samples of a batch."""
        detections, counts = np.asarray(outputs["detections"]), np.asarray(outputs["detections_num"])
        for row in range(batch.size):
            own = detections[row, : counts[row]].astype(np.float64)
            self._parts.append(np.insert(own, 0, batch.feed["index"][row], axis=1))

    def merge(self, engine: Engine) -> None:
        """Bring those of all processes together."""
        self._parts = [np.asarray(engine.gather(self.table()))]

    def table(self) -> np.ndarray:
        """All of them, [n, COLUMNS], in the order of the images."""
        table = np.concatenate(self._parts) if self._parts else np.zeros((0, COLUMNS))
        return table[np.argsort(table[:, 0], kind="stable")]


class VocMap(Detections):
    """Mean average precision as in PASCAL VOC.

    Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", 2010, section 4.2. The overlap is that of boxes with
    real sides (the challenge's own program adds 1 pixel to each). Classes without an object that counts are left out.
    """

    def __init__(
        self,
        objects: Sequence[Objects],
        class_names: Sequence[str],
        *,
        iou: float = 0.5,
        version: ApVersion = "integral",
    ) -> None:
        super().__init__()
        self.objects, self.class_names, self.iou, self.version = objects, class_names, iou, version

    def result(self) -> dict[str, float]:
        """`map`, `recall` of all that was detected, and `ap/CLASS` of every class with objects; 0..1."""
        curves = dict(zip(self.class_names, self.curves(), strict=True))
        figures = {
            f"ap/{name}": curve.average_precision(self.version) for name, curve in curves.items() if curve.objects
        }
        found = sum(int(curve.hits.sum()) for curve in curves.values())
        recall = found / max(sum(curve.objects for curve in curves.values()), 1)
        return {"map": float(np.mean(list(figures.values()))) if figures else 0.0, "recall": recall, **figures}

    def curves(self) -> list["Curve"]:
        """Of every class."""
        return voc_curves(self.table(), self.objects, len(self.class_names), self.iou)

    def interval(self, draws: int, seed: int = 0) -> tuple[float, float]:
        """Between which figures `map` lies for 95 % of `draws` sets of as many pictures, drawn from these with replacement.

        Efron, "Bootstrap methods: another look at the jackknife", 1979.
        """
        curves, count, rng = self.curves(), len(self.objects), np.random.default_rng(seed)
        figures = []
        for _ in range(draws):
            times = np.bincount(rng.integers(count, size=count), minlength=count)
            drawn = [curve.drawn(times) for curve in curves]
            averages = [curve.average_precision(self.version) for curve in drawn if curve.objects]
            figures.append(float(np.mean(averages)) if averages else 0.0)
        low, high = np.quantile(figures, [0.025, 0.975])
        return float(low), float(high)


@dataclass(frozen=True)
class Curve:
    """Precision and recall of one class as the threshold on the score falls."""

    objects_of: np.ndarray
    """Those that count in each image, [images]."""
    images: np.ndarray
    """Numbers of the images of the detections that count, [n]."""
    scores: np.ndarray
    """Of these detections, highest first, [n]."""
    hits: np.ndarray
    """Whether each is right, bool [n]."""

    @property
    def objects(self) -> int:
        """Those that count."""
        return int(self.objects_of.sum())

    def drawn(self, times: np.ndarray) -> "Curve":
        """The curve of a set that has each image so many times, [images]."""
        rows = np.repeat(np.arange(len(self.images)), times[self.images])
        return Curve(self.objects_of * times, self.images[rows], self.scores[rows], self.hits[rows])

    @property
    def recall(self) -> np.ndarray:
        """[n]; 0 where there is no object."""
        return np.cumsum(self.hits) / max(self.objects, 1)

    @property
    def precision(self) -> np.ndarray:
        """[n]"""
        return np.cumsum(self.hits) / np.arange(1, len(self.hits) + 1)

    def average_precision(self, version: ApVersion) -> float:
        """The mean of the best precision at recall 0, .1, ..., 1 or more (VOC 2007), or the area below it (from 2010 on)."""
        best = np.maximum.accumulate(self.precision[::-1])[::-1]
        if version == "11point":
            at_least = [best[self.recall >= tenth / 10 - 1e-12] for tenth in range(11)]
            return float(np.mean([found[0] if len(found) else 0.0 for found in at_least]))
        return float(np.sum(np.diff(self.recall, prepend=0.0) * best))


def voc_curves(table: np.ndarray, objects: Sequence[Objects], classes: int, iou: float) -> list[Curve]:
    """The curve of every class: detections [n, COLUMNS], the objects of every image.

    From the highest score on (of equal ones in the order of the images), a detection is right if the object of its class
    that it overlaps most is overlapped by at least `iou` and was not found before. Difficult objects and crowds do not
    count, and neither do detections of them.
    """
    curves = []
    for number in range(classes):
        own = table[table[:, 1] == number]
        own = own[np.argsort(-own[:, 2], kind="stable")]
        images = [_OfClass(item, number) for item in objects]
        verdicts = [images[int(row[0])].judge(row[3:], iou) for row in own]
        counted = np.array([verdict is not None for verdict in verdicts], bool)
        hits = np.array([bool(verdict) for verdict in verdicts], bool)[counted]
        objects_of = np.array([(~image.ignored).sum() for image in images], np.int64)
        curves.append(Curve(objects_of, own[counted, 0].astype(np.int64), own[counted, 2], hits))
    return curves


class _OfClass:
    """The objects of one class in an image, and which of them have been found."""

    def __init__(self, objects: Objects, number: int) -> None:
        own = objects.labels == number
        self.boxes = objects.boxes[own].astype(np.float64)
        self.ignored = (objects.difficult | objects.crowd)[own]
        self.found = np.zeros(len(self.boxes), bool)

    def judge(self, detection: np.ndarray, iou: float) -> bool | None:
        """Whether a detection [4] is right; None if it does not count."""
        if len(self.boxes) == 0:
            return False
        overlaps = box.ious(detection[None], self.boxes)[0]
        best = int(overlaps.argmax())
        if overlaps[best] < iou:
            return False
        if self.ignored[best]:
            return None
        right = not self.found[best]
        self.found[best] = True
        return right


class CocoMap(Detections):
    """Average precision and recall as in COCO, computed by pycocotools.

    Lin et al., "Microsoft COCO", arXiv:1405.0312; https://cocodataset.org/#detection-eval. COCO knows no difficult objects: those of
    VOC count here as any other.
    """

    def __init__(self, objects: Sequence[Objects], class_names: Sequence[str]) -> None:
        super().__init__()
        self.objects, self.class_names = objects, class_names

    def result(self) -> dict[str, float]:
        """The figures of COCO_FIGURES, 0..1; -1 where there is no object of that size. Raises ImportError."""
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        # It reports its progress on standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = self._truth()
            truth.createIndex()
            rows = self._rows()
            # It cannot load none.
            found = truth.loadRes(rows) if len(rows) else COCO()
            evaluation = COCOeval(truth, found, "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return dict(zip(COCO_FIGURES, map(float, evaluation.stats), strict=True))

    def _truth(self) -> dict[str, list[dict[str, Any]]]:
        annotations: list[dict[str, Any]] = []
        for number, item in enumerate(self.objects):
            for label, corners, area, crowd in zip(item.labels, item.pixels(), item.areas, item.crowd, strict=True):
                xmin, ymin, xmax, ymax = map(float, corners)
                annotations.append(
                    {
                        # An object of the number 0 would be taken as not found.
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": int(label),
                        "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                        "area": float(area),
                        "iscrowd": int(crowd),
                    }
                )
        return {
            "images": [
                {"id": number, "width": item.width, "height": item.height} for number, item in enumerate(self.objects)
            ],
            "categories": [{"id": number, "name": name} for number, name in enumerate(self.class_names)],
            "annotations": annotations,
        }

    def _rows(self) -> np.ndarray:
        """As `COCO.loadRes` takes them: image, x, y, width, height, score, category."""
        table = self.table()
        sizes = np.array([(item.width, item.height) for item in self.objects], np.float64)
        size = sizes[table[:, 0].astype(np.int64)]
        start, end = table[:, 3:5] * size, table[:, 5:7] * size
        return np.concatenate([table[:, :1], start, end - start, table[:, 2:3], table[:, 1:2]], axis=1)
