"""Accuracy of a classifier, exact over a whole set whatever the batch size."""

from collections.abc import Mapping

from fluid.data import Batch
from fluid.engine import Engine

import numpy as np

SEEN = np.dtype(
    [
        *(("index", "i8"), ("label", "i4"), ("predicted", "i4")),
        *(("loss", "f4"), ("predicted_loss", "f4"), ("top1", "?"), ("top5", "?")),
    ]
)
"""Of each sample: its number in the source, cross-entropy of its label and of the best class, hits."""


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


class Accuracy:
    """Counts over the samples seen so far, of a Program whose `logits` are [N, class_dim] and a source with a `label`.

    A few numbers are kept of each sample and nothing of each pair of classes: of 8,000 classes these are 64 million.
    """

    def __init__(self, class_dim: int) -> None:
        self.class_dim = class_dim
        self.samples = 0
        self._parts: list[np.ndarray] = [np.zeros(0, SEEN)]

    @property
    def seen(self) -> np.ndarray:
        """What is known of each sample, [N] of type SEEN."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch."""
        logits, labels = outputs["logits"][batch.mask], batch.feed["label"][batch.mask]
        rows = np.zeros(len(labels), SEEN)
        rows["index"] = self.samples + np.arange(len(labels)) if batch.indices is None else batch.indices[batch.mask]
        rows["label"], rows["predicted"] = labels, logits.argmax(axis=1)
        rows["loss"], rows["predicted_loss"] = (cross_entropy(logits, rows[name]) for name in ("label", "predicted"))
        rows["top1"], rows["top5"] = hits(logits, labels, 1), hits(logits, labels, 5)
        self._parts.append(rows)
        self.samples += len(rows)

    def merge(self, engine: Engine) -> None:
        """Unite what the hosts of a distributed run have counted."""
        rows = engine.gather(self.seen.view(np.uint8).reshape(-1, SEEN.itemsize)).copy().view(SEEN)[:, 0]
        self._parts, self.samples = [rows[np.argsort(rows["index"], kind="stable")]], len(rows)

    def result(self) -> dict[str, float]:
        """`loss`, `acc1` and, of more than five classes, `acc5` as means over all samples, accuracies in 0..1; and the means
        of `by_class` over the classes that have samples: `balanced_acc`, `precision`, `f1`."""
        recall, precision, f1 = self.by_class()
        seen = self.seen
        return {
            "loss": float(np.mean(seen["loss"], dtype=np.float64)),
            "acc1": float(seen["top1"].mean()),
            # Among five classes each is one of the five best.
            **({"acc5": float(seen["top5"].mean())} if self.class_dim > 5 else {}),
            "balanced_acc": float(np.nanmean(recall)),
            "precision": float(np.nanmean(precision)),
            "f1": float(np.nanmean(f1)),
        }

    def by_class(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Recall, precision and F1 of each class, [class_dim]; not a number for a class without samples.

        Recall is the class's top-1 accuracy. The precision of a class that is never predicted is 0.
        """
        labels, guesses = self.seen["label"], self.seen["predicted"]
        counted = (np.bincount(of, minlength=self.class_dim) for of in (labels[labels == guesses], labels, guesses))
        right, samples, predicted = counted
        recall, precision = right / np.maximum(samples, 1), right / np.maximum(predicted, 1)
        f1 = 2 * right / np.maximum(samples + predicted, 1)
        return tuple(np.where(samples > 0, values, np.nan) for values in (recall, precision, f1))

    def confused(self) -> dict[int, tuple[int, int]]:
        """Class -> what it was most often taken for, and how often; the lowest of equals. Others are always right."""
        wrong = self.seen[self.seen["label"] != self.seen["predicted"]]
        pairs, times = np.unique(np.stack([wrong["label"], wrong["predicted"]]), axis=1, return_counts=True)
        order = np.lexsort((-pairs[1], times, pairs[0]))
        return {int(pairs[0, i]): (int(pairs[1, i]), int(times[i])) for i in order}

    def worst(self, count: int) -> np.ndarray:
        """The mistakes of which the network was surest, [up to count] of type SEEN: the largest losses among them first."""
        wrong = self.seen[self.seen["label"] != self.seen["predicted"]]
        return wrong[np.argsort(-wrong["loss"], kind="stable")[:count]]


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of each sample: logits [N, C], labels [N] -> [N].

    As in Paddle's kernels, a logit counts as at most 64 below the largest.
    """
    shifted = np.maximum(logits - logits.max(axis=1, keepdims=True), -64)
    own = np.take_along_axis(shifted, labels.reshape(-1, 1), axis=1)[:, 0]
    return np.log(np.exp(shifted).sum(axis=1)) - own
