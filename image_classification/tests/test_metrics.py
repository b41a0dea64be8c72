"""Accuracy: ties, numbers that are none, rows that only fill a batch."""

from fluid.data import Batch
from fluid.engine.paddle import PaddleEngine
from fluid.pictures import most_confused
from image_classification.metrics import Accuracy, cross_entropy, hits

import numpy as np
import pytest


def test_a_label_is_ranked_behind_larger_logits_and_equal_ones_of_earlier_classes():
    logits = np.array([[1, 3, 3, 0], [1, 3, 3, 0], [0, 0, 0, 0], [np.nan, 1, 2, 3]])
    labels = np.array([1, 2, 3, 0])
    assert [hits(logits, labels, k).tolist() for k in (1, 2, 4)] == [
        [True, False, False, False],
        [True, True, False, False],
        [True, True, True, False],
    ]


def test_rows_that_fill_a_batch_do_not_count():
    accuracy = Accuracy(class_dim=3)
    logits = np.array([[0.0, 2, 1], [5, 0, 0], [5, 0, 0]], np.float32)
    accuracy.add({"logits": logits}, Batch({"label": np.array([1, 2, 0])}, size=2, epoch=0, index=0, padding=1))
    accuracy.add({"logits": logits[:2]}, Batch({"label": np.array([0, 0])}, size=0, epoch=0, index=1, padding=2))
    assert accuracy.samples == 2 and accuracy.confused() == {2: (0, 1)}
    expected = np.mean([np.log(np.exp([-2, 0, -1]).sum()), 5 + np.log(1 + 2 * np.exp(-5))])
    means = {"balanced_acc": 0.5, "precision": 0.5, "f1": 0.5}
    assert accuracy.result() == {"loss": pytest.approx(expected), "acc1": 0.5, **means}
    np.testing.assert_array_equal(accuracy.by_class()[0], [np.nan, 1, 0])


def test_figures_by_class_are_those_of_the_confusion_matrix():
    """Against the definitions, counted sample by sample; the last class has no samples and is predicted once."""
    accuracy = Accuracy(class_dim=4)
    labels, predicted = np.array([0, 0, 0, 1, 1, 2, 2, 2]), np.array([0, 0, 1, 1, 0, 0, 1, 3])
    accuracy.add({"logits": np.eye(4, dtype=np.float32)[predicted]}, Batch({"label": labels}, size=8, epoch=0, index=0))
    recall, precision, f1 = accuracy.by_class()
    np.testing.assert_allclose(recall, [2 / 3, 1 / 2, 0, np.nan])
    np.testing.assert_allclose(precision, [2 / 4, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(f1, [4 / 7, 2 / 5, 0, np.nan])
    result = accuracy.result()
    assert result["acc1"] == 3 / 8 and result["balanced_acc"] == pytest.approx((2 / 3 + 1 / 2) / 3)
    assert result["precision"] == pytest.approx((2 / 4 + 1 / 3) / 3) and result["f1"] == pytest.approx(
        (4 / 7 + 2 / 5) / 3
    )


def test_what_is_confused_and_the_worst_mistakes():
    accuracy = Accuracy(class_dim=8000)
    labels, predicted = np.array([7, 7, 7, 3, 5, 3]), np.array([1, 0, 0, 3, 7999, 7])
    sure = np.array([3, 1, 2, 9, 5, 1], np.float32)
    logits = np.zeros((6, 8000), np.float32)
    logits[np.arange(6), predicted] = sure
    accuracy.add({"logits": logits}, Batch({"label": labels}, 6, 0, 0, indices=np.array([4, 5, 6, 0, 1, 2])))
    assert accuracy.confused() == {3: (7, 1), 5: (7999, 1), 7: (0, 2)}
    accuracy.merge(PaddleEngine())
    assert accuracy.worst(3)["index"].tolist() == [1, 4, 6] and accuracy.seen["index"].tolist() == [0, 1, 2, 4, 5, 6]
    expected = np.exp(5) / (np.exp(5) + 7999)
    assert np.exp(-accuracy.worst(1)["predicted_loss"][0]) == pytest.approx(expected, rel=1e-5)
    result = accuracy.result()
    assert result["acc5"] == 2 / 6 and result["acc1"] == 1 / 6
    seen = accuracy.seen
    matrix, names, title = most_confused(seen["label"], seen["predicted"], 8000, str, most=4)
    assert names == ["0", "1", "7", "others"] and "3 of 8,000" in title
    assert matrix.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [2, 1, 0, 0], [0, 0, 1, 2]]


def test_cross_entropy_counts_a_logit_as_at_most_64_below_the_largest():
    np.testing.assert_allclose(cross_entropy(np.array([[0.0, 1000], [1, 1]]), np.array([0, 1])), [64, np.log(2)])
