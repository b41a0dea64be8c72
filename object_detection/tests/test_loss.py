"""The loss against a slow implementation in NumPy that follows the definition."""

from functools import cache

from fluid.engine import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.program import Program, Value, build
from fluid.tests.gradients import gradients
from object_detection import boxes as box
from object_detection.loss import match, ssd_loss
from object_detection.priors import PriorMap, prior_boxes

import numpy as np
import paddle
import pytest

PRIORS = prior_boxes([PriorMap(5, (0.2,), ratios=(2.0,)), PriorMap(2, (0.5,), (0.8,), (2.0,))])
P, G, CLASSES = len(PRIORS), 9, 3
INPUTS = [
    Input("offsets", (None, P, 4)),
    Input("logits", (None, P, 1 + CLASSES)),
    Input("boxes", (None, G, 4)),
    Input("labels", (None, G), "int64"),
]


@pytest.fixture(scope="module", params=["paddle", "xla"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return PaddleEngine() if request.param == "paddle" else create("cpu")


def random_feed(rng: np.random.Generator, counts: list[int]) -> dict[str, np.ndarray]:
    boxes = np.zeros((len(counts), G, 4), np.float32)
    labels = np.full((len(counts), G), -1)
    for row, count in enumerate(counts):
        corner = rng.uniform(0, 0.7, (count, 2))
        boxes[row, :count] = np.concatenate([corner, corner + rng.uniform(0.05, 0.3, (count, 2))], axis=1)
        labels[row, :count] = rng.integers(0, CLASSES, count)
    return {
        "offsets": rng.normal(size=(len(counts), P, 4)).astype(np.float32),
        "logits": rng.normal(size=(len(counts), P, 1 + CLASSES)).astype(np.float32),
        "boxes": boxes,
        "labels": labels,
    }


def greedy_match(boxes: np.ndarray, present: np.ndarray) -> np.ndarray:
    """One pair a round."""
    iou = np.where(present[:, None], box.ious(boxes, PRIORS), -1)
    matched, left = np.full(P, -1), iou.copy()
    while left.size and left.max() > 1e-6:
        number, prior = np.unravel_index(left.argmax(), left.shape)
        matched[prior] = number
        left[number], left[:, prior] = -1, -1
    more = (matched < 0) & (iou.max(axis=0) >= 0.5)
    return np.where(more, iou.argmax(axis=0), matched)


def expected_loss(feed: dict[str, np.ndarray]) -> dict[str, float]:
    box_loss = class_loss = positives = 0.0
    for offsets, logits, boxes, labels in zip(*feed.values(), strict=True):
        boxes = box.clip(boxes)
        matched = greedy_match(boxes, (labels >= 0) & (box.areas(boxes) > 0))
        positive = matched >= 0
        wanted = np.where(positive, labels[matched] + 1, 0)
        log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        each = -log_softmax[np.arange(P), wanted]
        ranked = [prior for prior in np.argsort(-each, kind="stable") if not positive[prior]]
        class_loss += each[positive].sum() + each[ranked[: 3 * positive.sum()]].sum()
        error = np.abs(offsets[positive] - box.encode(boxes[matched[positive]], PRIORS[positive]))
        box_loss += np.where(error < 1, error**2 / 2, error - 0.5).sum()
        positives += positive.sum()
    parts = {"loss_box": box_loss / max(positives, 1), "loss_class": class_loss / max(positives, 1)}
    return {"loss": sum(parts.values()), **parts, "loss_weight": positives}


@cache
def loss_program() -> Program:
    def network(offsets: Value, logits: Value, boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        return ssd_loss(offsets, logits, PRIORS, boxes, labels)

    return build(network, INPUTS, name="loss")


def evaluate(engine: Engine, feed: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(value) for name, value in engine.run(loss_program(), feed).items()}


def test_against_the_definition(engine: Engine) -> None:
    feed = random_feed(np.random.default_rng(0), [9, 3, 0, 1])
    found = evaluate(engine, feed)
    assert found["loss_weight"] > 13
    for name, value in expected_loss(feed).items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


def test_of_equal_negatives_the_first_count(engine: Engine) -> None:
    feed = random_feed(np.random.default_rng(1), [2, 4])
    feed["logits"] = np.round(feed["logits"])
    assert evaluate(engine, feed)["loss"] == pytest.approx(expected_loss(feed)["loss"], rel=1e-5)


def test_no_box_at_all(engine: Engine) -> None:
    found = evaluate(engine, random_feed(np.random.default_rng(2), [0, 0]))
    assert found["loss"] == 0 and found["loss_weight"] == 0


def test_boxes_without_area_in_the_image_do_not_count(engine: Engine) -> None:
    feed = random_feed(np.random.default_rng(3), [3])
    alone = evaluate(engine, feed)
    feed["boxes"][0, 3:7] = [[0.3, 0.3, 0.3, 0.5], [1.1, 0.2, 1.4, 0.4], [0.6, 0.6, 0.2, 0.2], [0.5, 0.5, 0.5, 0.5]]
    feed["labels"][0, 3:7] = 1
    assert evaluate(engine, feed) == alone
    feed["boxes"][0, 3] = [-0.4, 0.5, 0.3, 1.5]
    sticking_out = evaluate(engine, feed)
    feed["boxes"][0, 3] = [0, 0.5, 0.3, 1]
    assert sticking_out == evaluate(engine, feed) != alone


def test_many_boxes_of_one_place(engine: Engine) -> None:
    """Equal boxes all want the same prior; each of them gets another one."""
    feed = random_feed(np.random.default_rng(4), [9])
    feed["boxes"][0, :] = [0.31, 0.32, 0.52, 0.5]
    assert evaluate(engine, feed)["loss"] == pytest.approx(expected_loss(feed)["loss"], rel=1e-5)


def test_matching_on_random_boxes(engine: Engine) -> None:
    def network(boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        return {"matched": match(boxes, labels >= 0, PRIORS)}

    program = build(network, INPUTS[2:], name="match")
    rng = np.random.default_rng(5)
    feed = random_feed(rng, [int(count) for count in rng.integers(0, G + 1, 40)])
    found = np.asarray(engine.run(program, {name: feed[name] for name in ("boxes", "labels")})["matched"])
    for row, boxes in enumerate(feed["boxes"]):
        np.testing.assert_array_equal(found[row], greedy_match(boxes, feed["labels"][row] >= 0))


def test_gradients_of_both_engines() -> None:
    """By a weight for every prediction, against the derivative written down."""
    feed = random_feed(np.random.default_rng(6), [4, 0])

    def network(offsets: Value, logits: Value, boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        zero = paddle.nn.initializer.Constant(0.0)
        shifts = [
            paddle.create_parameter(shape, "float32", name, default_initializer=zero)
            for name, shape in (("for_offsets", [2, P, 4]), ("for_logits", [2, P, 1 + CLASSES]))
        ]
        return ssd_loss(offsets + shifts[0], logits + shifts[1], PRIORS, boxes, labels)

    def make(optimizer):
        return build(network, INPUTS, name="train", training=True, optimizer=optimizer)

    found = [gradients(make, feed, engine) for engine in (PaddleEngine(), create("cpu"))]
    for name, gradient in found[0].items():
        assert np.abs(gradient - found[1][name]).max() < 1e-6
    assert not found[0]["for_offsets"][1].any() and not found[0]["for_logits"][1].any()
    step = 0.01
    moved = dict(feed, logits=feed["logits"] - step * found[0]["for_logits"])
    moved["offsets"] = feed["offsets"] - step * found[0]["for_offsets"]
    decrease = expected_loss(feed)["loss"] - expected_loss(moved)["loss"]
    square = sum(float((gradient**2).sum()) for gradient in found[0].values())
    assert decrease == pytest.approx(step * square, rel=0.05)
