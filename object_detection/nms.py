"""From predictions to detections, in plain operations of fixed sizes that every engine and every exported model runs."""

from collections.abc import Callable
from dataclasses import dataclass

from fluid.program import Value
from object_detection import box_ops

import numpy as np
import paddle
import paddle.nn.functional as F

NO_CLASS = -1
"""The class in the rows behind the last detection of an image."""
APPLICATIONS_A_LOOK = 2
"""Of a function whose fixed point is searched, between two looks whether it is reached."""
ONNX_ROUNDS = 20
"""`Nms.rounds` for ONNX. On 1,250 crowds of 400 boxes, priors moved at random among them, the longest chain had 10 links."""


@dataclass(frozen=True)
class Nms:
    """Which detections are kept."""

    score: float = 0.01
    """Only scores above it count."""
    iou: float = 0.45
    """Of two detections of a class that overlap by more than this the better one stays."""
    candidates: int = 400
    """Best priors of each class that take part."""
    keep: int = 200
    """Most detections of an image."""
    rounds: int | None = None
    """Rounds of suppression that are written out one after the other, where loops cannot be converted (to ONNX); None
    goes on until nothing changes. The longest chain of boxes that suppress each other is judged right if it has no more
    links than this."""


def detect(offsets: Value, logits: Value, priors: np.ndarray, nms: Nms) -> dict[str, Value]:
    """Detections of N images: offsets [N, P, 4], logits of background and classes [N, P, 1 + C], priors [P, 4].

    Returns `detections` [N, keep, 6] float32, class from 0, score, xmin, ymin, xmax, ymax in 0..1 of the input, and
    `detections_num` [N] int64; see `multiclass_nms`.
    """
    boxes = box_ops.decode(offsets.astype("float32"), box_ops.constant(priors))
    scores = paddle.transpose(F.softmax(logits.astype("float32"), axis=2)[:, :, 1:], [0, 2, 1])
    detections, count = multiclass_nms(boxes, scores, nms)
    return {"detections": detections, "detections_num": count}


def multiclass_nms(boxes: Value, scores: Value, nms: Nms) -> tuple[Value, Value]:
    """Non-maximum suppression of each class: boxes [N, P, 4], scores [N, C, P] without background.

    Equals Paddle's `multiclass_nms3` row for row, and of equal scores takes the first prior, then the first class. Returns
    rows [N, keep, 6] in the order of (class, score), filled up with class -1 and zeros, and their number [N] int64.
    """
    classes, priors = scores.shape[1:]
    candidates = min(nms.candidates, priors)
    order = paddle.argsort(scores, axis=2, descending=True, stable=True)[:, :, :candidates]
    best = paddle.take_along_axis(scores, order, 2)
    chosen = _take_rows(boxes, order.flatten(1)).reshape([-1, classes, candidates, 4])
    kept = _suppress(chosen, best > nms.score, nms)
    best = paddle.where(kept, best, paddle.zeros_like(best)).flatten(1)

    rows = min(nms.keep, classes * candidates)
    order = paddle.argsort(best, axis=1, descending=True, stable=True)[:, :rows]
    # By number the candidates lie class by class, and in a class by score; those that were not kept go to the end.
    score = paddle.take_along_axis(best, order, 1)
    end = classes * candidates
    order = paddle.sort(paddle.where(score > 0, order, paddle.full_like(order, end)), axis=1)
    real = order < end
    order = paddle.clip(order, max=end - 1)
    score = paddle.take_along_axis(best, order, 1)
    columns = [paddle.cast(order // candidates, "float32").unsqueeze(2), score.unsqueeze(2)]
    detections = paddle.concat([*columns, _take_rows(chosen.flatten(1, 2), order)], axis=2)
    empty = box_ops.constant(np.array([NO_CLASS, 0, 0, 0, 0, 0]))
    detections = paddle.where(real.unsqueeze(2), detections, empty)
    if rows < nms.keep:
        filler = detections[:, :1] * 0.0 + empty
        detections = paddle.concat([detections, filler.expand([-1, nms.keep - rows, 6])], axis=1)
    return detections, paddle.cast(real, "int64").sum(axis=1)


def _take_rows(rows: Value, index: Value) -> Value:
    """rows [N, M, 4], index [N, K] -> [N, K, 4]."""
    return paddle.take_along_axis(rows, index.unsqueeze(2).expand([-1, -1, rows.shape[2]]), 1)


def _suppress(boxes: Value, valid: Value, nms: Nms) -> Value:
    """Which of the boxes [N, C, K, 4] stay, bool [N, C, K]: those `valid` ones that no better one which stays overlaps.

    All are judged at once by the last round's verdicts, until these no longer change: after as many rounds as the longest
    chain of boxes that suppress each other has links, where going through them in order would take K.
    """
    count = boxes.shape[2]
    shared = box_ops.intersections(boxes, boxes)
    overlap = shared > nms.iou * box_ops.unions(boxes, boxes, shared)
    rank = paddle.arange(count)
    # [.., i, j]: the better box i would suppress j. A round takes as long as it takes to read this: a byte a pair.
    suppresses = paddle.logical_and(overlap, rank.unsqueeze(1) < rank.unsqueeze(0))
    if nms.rounds is not None:
        suppresses = suppresses.astype("float32")
    start = valid.astype("float32")

    def judged(stays: Value) -> Value:
        beaten = paddle.matmul(stays.unsqueeze(2), paddle.cast(suppresses, "float32")).squeeze(2)
        return start * paddle.cast(beaten < 0.5, "float32")

    if nms.rounds is None:
        return fixed_point(judged, start) > 0.5
    stays = start
    for _ in range(nms.rounds):
        stays = judged(stays)
    return stays > 0.5


def fixed_point(function: Callable[[Value], Value], start: Value) -> Value:
    """`function` applied again and again, until it changes nothing."""

    def changes(now: Value, before: Value) -> Value:
        return paddle.any(now != before)

    def advance(now: Value, before: Value) -> list[Value]:
        # A GPU waits for the host at each look at the condition, as long as for several applications.
        for _ in range(APPLICATIONS_A_LOOK):
            now, before = function(now), now
        return [now, before]

    result, _ = paddle.static.nn.while_loop(changes, advance, [start, start - 1.0])
    return result
