"""The loss of SSD: which prior answers for which box, and what its prediction should have been.

Liu et al., "SSD: Single Shot MultiBox Detector", 2016, https://arxiv.org/abs/1512.02325, section 2.2, with Fluid's
`ssd_loss` where the paper leaves a choice.
"""

from fluid.program import Value
from object_detection import box_ops
from object_detection.boxes import PADDING
from object_detection.priors import MATCH_IOU

import numpy as np
import paddle
import paddle.nn.functional as F

NEGATIVES_PER_POSITIVE = 3
LEAST_IOU = 1e-6
"""A box that overlaps no prior by more than this stays without one."""


def ssd_loss(offsets: Value, logits: Value, priors: np.ndarray, boxes: Value, labels: Value) -> dict[str, Value]:
    """The loss of a batch of N images with up to G boxes each.

    Args:
        offsets: predicted, [N, P, 4].
        logits: of background and classes, [N, P, 1 + C].
        priors: [P, 4].
        boxes: [N, G, 4], 0..1. What sticks out of the image does not count, nor does a box that has no area in it.
        labels: [N, G] int64, classes from 0; `PADDING` where there is no box.

    Positive are the priors that `match` assigns a box; negative, of the others of the same image, the three times as many
    whose classification is worst (of equal ones those that come first). Smooth L1 of the positives' offsets, summed over
    the four, and cross-entropy of positives and negatives are divided by the positives of the whole batch.

    Returns scalars: `loss`, its parts `loss_box` and `loss_class`, and of each the denominator `..._weight`.
    """
    boxes = paddle.clip(boxes, 0.0, 1.0)
    present = paddle.logical_and(labels != PADDING, box_ops.areas(boxes) > 0)
    matched = match(boxes, present, priors)
    positive = matched >= 0
    index = paddle.clip(matched, min=0)
    wanted_class = paddle.where(positive, paddle.take_along_axis(labels, index, 1) + 1, paddle.zeros_like(index))
    own_box = paddle.take_along_axis(boxes, index.unsqueeze(2).expand([-1, -1, 4]), 1)
    wanted_offsets = box_ops.encode(own_box, box_ops.constant(priors))

    offsets, logits = offsets.astype("float32"), logits.astype("float32")
    class_loss = F.cross_entropy(logits, wanted_class.unsqueeze(2), reduction="none").squeeze(2)
    box_loss = F.smooth_l1_loss(offsets, wanted_offsets, reduction="none").sum(axis=2)
    negative = hard_negatives(class_loss, positive)
    positives = paddle.cast(positive, "float32")
    counted = positives + paddle.cast(negative, "float32")

    weight = positives.sum()
    divisor = paddle.clip(weight, min=1.0)
    parts = {"loss_box": (box_loss * positives).sum() / divisor, "loss_class": (class_loss * counted).sum() / divisor}
    losses = {"loss": parts["loss_box"] + parts["loss_class"], **parts}
    return {**losses, **{f"{name}_weight": weight for name in losses}}


def match(boxes: Value, present: Value, priors: np.ndarray) -> Value:
    """The box that each prior answers for, [N, P] int64, or -1: boxes [N, G, 4] where `present` [N, G], priors [P, 4].

    First every box takes one prior: again and again the pair with the largest IoU of all that are left (of equal ones the
    first box, then the first prior). Then each prior that is left takes its best box if their IoU is at least .5.
    """
    prior_boxes = box_ops.constant(priors)
    shared = box_ops.intersections(boxes, prior_boxes)
    iou = shared / paddle.clip(box_ops.unions(boxes, prior_boxes, shared), min=1e-12)
    iou = paddle.where(present.unsqueeze(2), iou, paddle.full_like(iou, -1.0))
    iou.stop_gradient = True
    matched = _each_box_its_prior(iou)
    best_box, best = paddle.argmax(iou, axis=1), paddle.max(iou, axis=1)
    more = paddle.logical_and(matched < 0, best >= MATCH_IOU)
    return paddle.where(more, best_box, matched)


def _each_box_its_prior(iou: Value) -> Value:
    """The greedy matching, [N, P] int64: iou [N, G, P].

    A pair whose box and prior are each other's best of what is left is the best in its row and its column, so the greedy
    search will take it sooner or later: all such pairs are taken in the same round (Preis, 1999, "Linear time
    1/2-approximation algorithm for maximum weighted matching in general graphs"). Few rounds are left of G.
    """
    boxes, priors = iou.shape[1:]
    box_numbers = paddle.arange(boxes, dtype="int64").unsqueeze(0)
    prior_numbers = paddle.arange(priors, dtype="int64").unsqueeze(0)
    nothing = paddle.full_like(iou[:, 0, :], -1, "int64")

    def more(matched: Value, free: Value, found: Value) -> Value:
        return paddle.any(found > 0)

    def advance(matched: Value, free: Value, found: Value) -> list[Value]:
        left = paddle.logical_and((free > 0).unsqueeze(2), (matched < 0).unsqueeze(1))
        left = paddle.where(left, iou, paddle.full_like(iou, -1.0))
        best_prior, best_box = paddle.argmax(left, axis=2), paddle.argmax(left, axis=1)
        overlaps = paddle.max(left, axis=2) > LEAST_IOU
        mutual = paddle.logical_and(paddle.take_along_axis(best_box, best_prior, 1) == box_numbers, overlaps)
        taken = paddle.take_along_axis(best_prior, best_box, 1) == prior_numbers
        taken = paddle.logical_and(taken, paddle.take_along_axis(mutual.astype("int64"), best_box, 1) > 0)
        found = mutual.astype("int64")
        return [paddle.where(taken, best_box, matched), free - found, found]

    all_free = paddle.full_like(iou[:, :, 0], 1, "int64")
    matched, *_ = paddle.static.nn.while_loop(more, advance, [nothing, all_free, all_free])
    return matched


def hard_negatives(class_loss: Value, positive: Value) -> Value:
    """Which priors count as background, bool [N, P]: those of the largest `class_loss` that are not `positive`, both [N, P]."""
    rivals = paddle.where(positive, paddle.full_like(class_loss, -1.0), class_loss)
    rivals.stop_gradient = True
    order = paddle.argsort(rivals, axis=1, descending=True, stable=True)
    rank = paddle.argsort(order, axis=1, stable=True)
    count = NEGATIVES_PER_POSITIVE * paddle.cast(positive, "int64").sum(axis=1, keepdim=True)
    return paddle.logical_and(rank < count, paddle.logical_not(positive))
