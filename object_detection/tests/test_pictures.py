"""Precision, recall and confusion as pictures."""

from pathlib import Path

from object_detection.annotations import DataSet, Objects
from object_detection.metrics import Curve, VocMap
from object_detection.pictures import best_threshold, confusions, draw_evaluation

import numpy as np
import pytest
from PIL import Image


def objects(boxes: list[list[float]], labels: list[int], *, difficult: tuple[int, ...] = ()) -> Objects:
    marked = np.isin(np.arange(len(labels)), difficult)
    corners = np.array(boxes, np.float32).reshape(-1, 4)
    return Objects(
        corners, np.array(labels, np.int64), 10, 10, marked, np.zeros(len(labels), bool), np.ones(len(labels))
    )


LEFT, RIGHT, TOP = [0.0, 0.0, 0.4, 1.0], [0.6, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.1]
IMAGES = [objects([LEFT, RIGHT, TOP], [0, 1, 1], difficult=(2,)), objects([], []), objects([LEFT], [0])]
TABLE = np.array(
    [
        [0, 0, 0.9, *LEFT],
        [0, 0, 0.8, *RIGHT],  # taken for another class
        [0, 1, 0.7, *TOP],  # of a difficult object
        [0, 1, 0.3, 0.0, 0.5, 0.4, 1.0],  # hardly on anything
        [1, 1, 0.6, *LEFT],  # where nothing is
        [2, 0, 0.2, *LEFT],  # too little score: missed
    ]
)


def test_confusion_by_hand() -> None:
    found = confusions(TABLE, IMAGES, 2, 0.5)
    assert found.sum(axis=(1, 2)).tolist() == [3, 1, 1]
    assert found.sum(axis=0).tolist() == [[1, 0, 1], [1, 0, 0], [0, 2, 0]]


def test_better_overlaps_are_paired_first() -> None:
    """The second detection fits the first object best, and leaves the other one to the first."""
    images = [objects([[0, 0, 0.5, 1], [0.1, 0, 0.6, 1]], [0, 1])]
    table = np.array([[0, 1, 0.5, 0.05, 0, 0.55, 1], [0, 0, 0.9, 0, 0, 0.5, 1]])
    assert confusions(table, images, 2, 0.5)[0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    "hits, scores, expected",
    [
        ([True, False, True], [0.9, 0.5, 0.3], (2 * (2 / 3) * 1 / (2 / 3 + 1), 0.3)),
        ([True, False, False], [0.9, 0.5, 0.3], (2 / 3, 0.9)),
        # One of two equal scores cannot be had without the other.
        ([True, False], [0.9, 0.9], (0.5, 0.9)),
        ([False], [0.9], (0.0, 1.0)),
        ([], [], (0.0, 1.0)),
    ],
)
def test_threshold_of_the_best_f1(hits: list[bool], scores: list[float], expected: tuple[float, float]) -> None:
    curve = Curve(np.array([2]), np.zeros(len(hits), int), np.array(scores), np.array(hits, bool))
    assert best_threshold(curve) == pytest.approx(expected)


@pytest.mark.parametrize("table", [TABLE, TABLE[:0]], ids=["some", "nothing found"])
@pytest.mark.parametrize("classes", [2, 30])
def test_pictures_are_written(tmp_path: Path, table: np.ndarray, classes: int) -> None:
    names = [f"class {number}" for number in range(classes)]
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for file in files:
        Image.new("RGB", (40, 60), "grey").save(file)
    metric = VocMap(IMAGES, names)
    metric._parts = [table]
    drawn = draw_evaluation(tmp_path, metric, DataSet("", list(map(str, files)), IMAGES, names), 0.5)
    assert [path.name for path in drawn] == ["precision_recall.png", "confusion.png", "worst.jpg"]
    for path in drawn:
        with Image.open(path) as picture:
            assert min(picture.size) > 300
