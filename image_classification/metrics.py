"""Accuracy of a classifier, exact over a whole set whatever the batch size."""

from collections.abc import Mapping
from dataclasses import dataclass

from fluid.data import Batch
from fluid.engine import Engine

import numpy as np

MOST_IN_PICTURE = 1000
"""Classes up to which a confusion matrix is drawn: 8,000 took 4 GB."""


def hits(logits: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Whether each label is among the k largest logits: logits [N, C], labels [N] -> bool [N].

    Classes that share the label's logit count as ranked before it if their number is smaller, so the result does not
    depend on the order a sort happens to leave equal values in.
    """
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    classes = np.arange(logits.shape[1])[None, :]
    rank = (logits > own).sum(axis=1) + ((logits == own) & (classes < labels[:, None])).sum(axis=1)
    # A logit that is not a number is no hit: every comparison with it is false.
    return (rank < k) & ~np.isnan(own[:, 0])


@dataclass
class Accuracy:
    """Counts over the samples seen so far, of a Program whose `logits` are [N, class_dim] and a source with a `label`."""

    class_dim: int
    samples: int = 0
    loss_sum: float = 0.0
    top1: int = 0
    top5: int = 0

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.class_dim, self.class_dim), np.int64)
        """[true class, predicted class] counts."""

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        logits, labels = outputs["logits"][batch.mask], batch.feed["label"][batch.mask]
        self.samples += len(labels)
        self.loss_sum += float(np.sum(cross_entropy(logits, labels), dtype=np.float64))
        self.top1 += int(hits(logits, labels, 1).sum())
        self.top5 += int(hits(logits, labels, 5).sum())
        np.add.at(self.confusion, (labels, logits.argmax(axis=1)), 1)

    def merge(self, engine: Engine) -> None:
        """Add up what the hosts of a distributed run have counted."""
        sums = engine.total(np.array([self.samples, self.loss_sum, self.top1, self.top5], np.float64))
        self.samples, self.loss_sum, self.top1, self.top5 = int(sums[0]), float(sums[1]), int(sums[2]), int(sums[3])
        self.confusion = engine.total(self.confusion)

    def result(self) -> dict[str, float]:
        """`loss`, `acc1` and `acc5` as means over all samples, accuracies in 0..1; and the means of `by_class` over the classes
        that have samples: `balanced_acc`, `precision`, `f1`."""
        recall, precision, f1 = self.by_class()
        return {
            "loss": self.loss_sum / self.samples,
            "acc1": self.top1 / self.samples,
            "acc5": self.top5 / self.samples,
            "balanced_acc": float(np.nanmean(recall)),
            "precision": float(np.nanmean(precision)),
            "f1": float(np.nanmean(f1)),
        }

    def by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recall, precision and F1 of each class, [class_dim]; not a number for a class without samples.

        Recall is the class's top-1 accuracy. The precision of a class that is never predicted is 0.
        """
        right, samples, predicted = self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0)
        recall, precision = right / np.maximum(samples, 1), right / np.maximum(predicted, 1)
        f1 = 2 * right / np.maximum(samples + predicted, 1)
        return tuple(np.where(samples > 0, values, np.nan) for values in (recall, precision, f1))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of each sample: logits [N, C], labels [N] -> [N].

    As in Paddle's kernels, a logit counts as at most 64 below the largest.
    """
    shifted = np.maximum(logits - logits.max(axis=1, keepdims=True), -64)
    own = np.take_along_axis(shifted, labels.reshape(-1, 1), axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - own
