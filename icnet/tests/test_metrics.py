"""Scores against counting pixel by pixel."""

from icnet.classes import CITYSCAPES, IGNORE, numbered
from icnet.metrics import accuracies, by_category, iou, only, scores

import numpy as np
import pytest


def counted(label: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The matrix, slowly."""
    matrix = np.zeros((classes, classes), np.int64)
    for have, want in zip(predicted.reshape(-1).tolist(), label.reshape(-1).tolist()):
        if want != IGNORE:
            matrix[want, have] += 1
    return matrix


def test_scores_by_their_definitions() -> None:
    rng = np.random.default_rng(0)
    label, predicted = rng.integers(0, 4, (3, 20, 20)), rng.integers(0, 5, (3, 20, 20))
    label[0, :5] = IGNORE
    matrix = counted(label, predicted, 5)
    valid = label != IGNORE
    own = [
        ((label == c) & (predicted == c)).sum() / (((label == c) | (predicted == c)) & valid).sum() for c in range(4)
    ]
    assert iou(matrix)[:4] == pytest.approx(own) and np.isnan(iou(matrix)[4])
    right = [((label == c) & (predicted == c)).sum() / (label == c).sum() for c in range(4)]
    assert accuracies(matrix)[:4] == pytest.approx(right)
    result = scores(matrix, numbered(5))
    share = [(label == c).sum() / valid.sum() for c in range(4)]
    assert result["miou"] == pytest.approx(np.mean(own))
    assert result["accuracy"] == pytest.approx((label == predicted)[valid].mean())
    assert result["mean_accuracy"] == pytest.approx(np.mean(right))
    assert result["weighted_iou"] == pytest.approx(np.dot(share, own))
    assert "category_miou" not in result


def test_categories_are_coarser_classes() -> None:
    rng = np.random.default_rng(1)
    label, predicted = rng.integers(0, 19, 4000), rng.integers(0, 19, 4000)
    names = list(dict.fromkeys(CITYSCAPES.categories))
    assert len(names) == 7
    of = np.array([names.index(category) for category in CITYSCAPES.categories])
    expected = counted(of[label], of[predicted], 7)
    np.testing.assert_array_equal(by_category(counted(label, predicted, 19), CITYSCAPES), expected)


def test_a_subset_counts_only_its_own_pixels() -> None:
    rng = np.random.default_rng(2)
    label, predicted = rng.integers(0, 5, 2000), rng.integers(0, 5, 2000)
    chosen = only(counted(label, predicted, 5), [1, 3])
    kept = np.isin(label, [1, 3])
    own = [((label == c) & (predicted == c)).sum() / (((label == c) | (predicted == c)) & kept).sum() for c in (1, 3)]
    assert scores(chosen, numbered(5))["miou"] == pytest.approx(np.mean(own))


def test_nothing_labelled_is_no_error() -> None:
    assert scores(np.zeros((3, 3), np.int64), numbered(3))["miou"] == 0.0
