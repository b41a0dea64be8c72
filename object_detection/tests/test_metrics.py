"""Average precision against implementations that share nothing with it but the definition."""

import json
from collections.abc import Callable

from fluid.data import Batch
from fluid.engine.paddle import PaddleEngine
from object_detection.annotations import Objects
from object_detection.metrics import CocoMap, Curve, Detections, VocMap

import numpy as np
import pytest

CLASSES = ["cat", "dog", "sheep"]


def random_data(rng: np.random.Generator, images: int = 25, *, difficult: float = 0.2, crowd: float = 0.2):
    """Objects on a grid of places, and detections near most of them, some double, some nowhere."""
    objects, tables = [], []
    for _ in range(images):
        count = int(rng.integers(0, 7))
        corner = rng.uniform(0, 0.7, (count, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.3, (count, 2))], axis=1)
        labels = rng.integers(0, 2, count)
        objects.append(
            Objects(
                boxes.astype(np.float32),
                labels,
                width=200,
                height=100,
                difficult=rng.random(count) < difficult,
                crowd=rng.random(count) < crowd,
                areas=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) * 200 * 100,
            )
        )
        again = rng.integers(0, count, 2 * count) if count else np.zeros(0, int)
        near = boxes[again] + rng.normal(0, 0.02, (len(again), 4))
        some = rng.uniform(0, 0.5, (3, 2))
        near = np.concatenate([near, np.concatenate([some, some + 0.2], axis=1)])
        classes = np.where(
            rng.random(len(near)) < 0.8, np.append(labels[again], [0, 1, 2]), rng.integers(0, 2, len(near))
        )
        tables.append(np.column_stack([classes, rng.random(len(near)), near]))
    return objects, tables


def fill(metric: Detections, tables: list[np.ndarray], batch_size: int, order: list[int] | None = None) -> None:
    """As a Program's fixed-size outputs, the last batch filled up with a copy that must not count."""
    numbers = order or list(range(len(tables)))
    for start in range(0, len(numbers), batch_size):
        own = numbers[start : start + batch_size]
        padded = own + [own[-1]] * (batch_size - len(own))
        detections = np.full((batch_size, 40, 6), -1, np.float64)
        for row, number in enumerate(padded):
            detections[row, : len(tables[number])] = tables[number]
        counts = np.array([len(tables[number]) for number in padded])
        outputs = {"detections": detections, "detections_num": counts}
        feed = {"index": np.array(padded)}
        metric.add(outputs, Batch(feed, len(own), 0, 0, padding=batch_size - len(own)))


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = wide * high
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_voc(
    objects: list[Objects], tables: list[np.ndarray], number: int, iou: float, area: Callable[[list, list], float]
) -> float:
    """One pass over all detections of the class in the order of their scores, with sets of pairs."""
    entries = sorted(
        (
            (-row[1], image, place)
            for image, rows in enumerate(tables)
            for place, row in enumerate(rows)
            if row[0] == number
        )
    )
    total = sum(
        1
        for item in objects
        for label, easy in zip(item.labels, ~(item.difficult | item.crowd), strict=True)
        if label == number and easy
    )
    claimed: set[tuple[int, int]] = set()
    right = wrong = 0
    recalls, precisions = [], []
    for _, image, place in entries:
        item = objects[image]
        candidates = [
            (overlap(tables[image][place][2:], item.boxes[k]), -k)
            for k in range(len(item.labels))
            if item.labels[k] == number
        ]
        best, k = max(candidates, default=(0.0, 0))
        if candidates and best >= iou:
            if item.difficult[-k] or item.crowd[-k]:
                continue
            right, wrong = (right, wrong + 1) if (image, k) in claimed else (right + 1, wrong)
            claimed.add((image, k))
        else:
            wrong += 1
        recalls.append(right / total)
        precisions.append(right / (right + wrong))
    return area(recalls, precisions)


def eleven_points(recalls: list[float], precisions: list[float]) -> float:
    at = [[p for r, p in zip(recalls, precisions, strict=True) if r >= t / 10 - 1e-12] for t in range(11)]
    return sum(max(found, default=0.0) for found in at) / 11


def whole_area(recalls: list[float], precisions: list[float]) -> float:
    total, before = 0.0, 0.0
    for place, recall in enumerate(recalls):
        total += (recall - before) * max(precisions[place:])
        before = recall
    return total


@pytest.mark.parametrize("iou", [0.4, 0.5, 0.75])
@pytest.mark.parametrize("version, area", [("11point", eleven_points), ("integral", whole_area)])
def test_voc(iou: float, version: str, area: Callable[[list, list], float]) -> None:
    objects, tables = random_data(np.random.default_rng(0))
    metric = VocMap(objects, CLASSES, iou=iou, version=version)
    fill(metric, tables, 4)
    result = metric.result()
    for number, name in enumerate(CLASSES[:2]):
        expected = slow_voc(objects, tables, number, iou, area)
        assert 0.05 < expected < 0.999
        assert result[f"ap/{name}"] == pytest.approx(expected, abs=1e-9)
    # There is no sheep, though some are detected.
    assert "ap/sheep" not in result
    assert result["map"] == pytest.approx((result["ap/cat"] + result["ap/dog"]) / 2)


def test_an_example_by_hand() -> None:
    """Right, wrong, right; three objects: precision 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3."""
    curve = Curve(np.array([1, 2]), np.array([0, 1, 1]), np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    assert curve.average_precision("integral") == pytest.approx(1 / 3 + 2 / 9)
    assert curve.average_precision("11point") == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_recall_is_the_share_of_objects_that_are_found() -> None:
    """Of five cats three are found, one of them twice; a difficult one does not count."""
    boxes = np.array([[0.1 * k, 0, 0.1 * k + 0.08, 0.5] for k in range(6)])
    difficult = np.arange(6) == 5
    none = np.zeros(6, bool)
    objects = [Objects(boxes.astype(np.float32), np.zeros(6, int), 100, 100, difficult, none, np.ones(6))]
    found = np.column_stack([np.zeros(5), [0.9, 0.8, 0.7, 0.6, 0.5], boxes[[0, 1, 1, 3, 5]]])
    metric = VocMap(objects, CLASSES)
    fill(metric, [found], 1)
    assert metric.result()["recall"] == pytest.approx(3 / 5)


def test_the_interval_is_that_of_sets_drawn_from_the_pictures() -> None:
    objects, tables = random_data(np.random.default_rng(4), images=8)
    metric = VocMap(objects, CLASSES)
    fill(metric, tables, 4)
    figures, rng = [], np.random.default_rng(5)
    for _ in range(40):
        numbers = rng.integers(8, size=8)
        drawn = VocMap([objects[number] for number in numbers], CLASSES)
        fill(drawn, [tables[number] for number in numbers], 8)
        figures.append(drawn.result()["map"])
    assert metric.interval(40, seed=5) == pytest.approx(tuple(np.quantile(figures, [0.025, 0.975])))


@pytest.mark.parametrize("make", [VocMap, CocoMap])
def test_batches_and_their_order_do_not_matter(make: type[VocMap] | type[CocoMap]) -> None:
    objects, tables = random_data(np.random.default_rng(1))
    results = []
    for batch_size, order in ((1, None), (7, None), (4, [int(k) for k in np.random.default_rng(2).permutation(25)])):
        metric = make(objects, CLASSES)
        fill(metric, tables, batch_size, order)
        metric.merge(PaddleEngine())
        results.append(metric.result())
    assert results[0] == results[1] == results[2]
    json.dumps(results)


@pytest.mark.parametrize("make", [VocMap, CocoMap])
def test_nothing_detected(make: type[VocMap] | type[CocoMap]) -> None:
    objects, _ = random_data(np.random.default_rng(3))
    metric = make(objects, CLASSES)
    fill(metric, [np.zeros((0, 6))] * len(objects), 5)
    assert {value for name, value in metric.result().items() if name in ("map", "AP", "AP50", "AR_100")} == {0}


def slow_coco(objects: list[Objects], tables: list[np.ndarray], number: int, iou: float) -> float:
    """Precision at 101 recalls. In an image each detection takes the best free object; what a crowd covers is passed over."""
    verdicts = []
    total = 0
    for image, (item, rows) in enumerate(zip(objects, tables, strict=True)):
        mine = [k for k in range(len(item.labels)) if item.labels[k] == number]
        total += sum(not item.crowd[k] for k in mine)
        free = set(mine)
        for row in sorted((row for row in rows if row[0] == number), key=lambda row: -row[1]):
            counted = [(overlap(row[2:], item.boxes[k]), k) for k in mine if not item.crowd[k] and k in free]
            best, k = max(counted, default=(0.0, -1))
            if best >= iou:
                free.discard(k)
                verdicts.append((-row[1], image, True))
            elif not any(covered(row[2:], item.boxes[k]) >= iou for k in mine if item.crowd[k]):
                verdicts.append((-row[1], image, False))
    right, recalls, precisions = 0, [], []
    for place, (_, _, hit) in enumerate(sorted(verdicts), 1):
        right += hit
        recalls.append(right / total)
        precisions.append(right / place)
    at = [[p for r, p in zip(recalls, precisions, strict=True) if r >= t / 100 - 1e-12] for t in range(101)]
    return sum(max(found, default=0.0) for found in at) / 101


def covered(detection: np.ndarray, crowd: np.ndarray) -> float:
    wide = max(0.0, min(detection[2], crowd[2]) - max(detection[0], crowd[0]))
    high = max(0.0, min(detection[3], crowd[3]) - max(detection[1], crowd[1]))
    return wide * high / ((detection[2] - detection[0]) * (detection[3] - detection[1]))


def test_coco() -> None:
    objects, tables = random_data(np.random.default_rng(4), difficult=0.0)
    metric = CocoMap(objects, CLASSES)
    fill(metric, tables, 6)
    result = metric.result()
    for figure, ious in (("AP50", [0.5]), ("AP75", [0.75]), ("AP", np.arange(10) * 0.05 + 0.5)):
        expected = np.mean([slow_coco(objects, tables, number, iou) for number in (0, 1) for iou in ious])
        assert result[figure] == pytest.approx(expected, abs=1e-6), figure
    assert 0.1 < result["AP"] < result["AP50"] < 1


def test_coco_sizes_are_pixels() -> None:
    """An object of 20 x 10 pixels is small; there is no large one."""
    small = Objects(
        np.array([[0.1, 0.1, 0.2, 0.2]], np.float32),
        np.array([0]),
        200,
        100,
        np.zeros(1, bool),
        np.zeros(1, bool),
        np.array([200.0]),
    )
    metric = CocoMap([small], CLASSES)
    fill(metric, [np.array([[0, 0.9, 0.1, 0.1, 0.2, 0.2]])], 1)
    result = metric.result()
    assert result["AP_small"] == pytest.approx(1) and result["AP_large"] == -1
