"""Priors against Paddle's own operation; the coding of boxes; fitting."""

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.program import Value, build
from object_detection import box_ops
from object_detection import boxes as box
from object_detection.priors import GOOD_SHARE, PriorMap, best_ious, covered_share, fit_priors, prior_boxes

import numpy as np
import paddle
import pytest


def paddles_priors(item: PriorMap, pixels: int) -> np.ndarray:
    """Of the operation that Fluid's multi_box_head used."""

    def network(image: Value, training: bool) -> dict[str, Value]:
        feature = paddle.zeros([1, 1, item.cells, item.cells])
        boxes, _ = paddle.vision.ops.prior_box(
            feature,
            image,
            [size * pixels for size in item.min_sizes],
            [size * pixels for size in item.max_sizes] or None,
            list(item.ratios) or [1.0],
            flip=True,
            offset=0.5,
        )
        return {"boxes": boxes}

    program = build(network, [Input("image", (1, 3, pixels, pixels))], name="priors", batch_axes={"boxes": None})
    feed = {"image": np.zeros((1, 3, pixels, pixels), np.float32)}
    return np.asarray(PaddleEngine().run(program, feed)["boxes"]).reshape(-1, 4)


@pytest.mark.parametrize(
    "item",
    [
        PriorMap(19, (0.2,), ratios=(2.0,)),
        PriorMap(10, (0.35,), (0.5,), (2.0, 3.0)),
        PriorMap(3, (0.2, 0.4), (0.3, 0.5), (2.0,)),
        PriorMap(1, (0.95,)),
    ],
)
def test_as_prior_box_makes_them(item: PriorMap) -> None:
    np.testing.assert_allclose(item.boxes(), paddles_priors(item, 300), atol=1e-6)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner = rng.uniform(0, 0.7, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0.01, 0.3, (count, 2))], axis=1).astype(np.float32)


def test_numpy_and_programs_agree() -> None:
    priors = prior_boxes([PriorMap(4, (0.3,), ratios=(2.0,))])
    boxes = random_boxes(np.random.default_rng(0), len(priors))

    def network(boxes: Value, training: bool) -> dict[str, Value]:
        constant = box_ops.constant(priors)
        coded = box_ops.encode(boxes, constant)
        shared = box_ops.intersections(boxes, constant)
        iou = shared / box_ops.unions(boxes, constant, shared)
        return {"coded": coded, "again": box_ops.decode(coded, constant), "iou": iou, "areas": box_ops.areas(boxes)}

    program = build(network, [Input("boxes", (None, *boxes.shape))], name="boxes")
    coded = box.encode(boxes, priors)
    expected = {"coded": coded, "again": boxes, "iou": box.ious(boxes, priors), "areas": box.areas(boxes)}
    for engine in (PaddleEngine(), create("cpu")):
        found = engine.run(program, {"boxes": boxes[None]})
        for name, array in expected.items():
            np.testing.assert_allclose(np.asarray(found[name])[0], array, rtol=1e-4, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(box.decode(coded, priors), boxes, atol=1e-6)


def test_iou_counts_pixels() -> None:
    """Boxes on a grid of 10 x 10, and how many of its squares they share."""
    rng = np.random.default_rng(1)
    corners = np.sort(rng.integers(0, 11, (2, 12, 2, 2)), axis=2).reshape(2, 12, 4) / 10
    centre = (np.arange(10) + 0.5) / 10

    def squares(boxes: np.ndarray) -> np.ndarray:
        inside_x = (boxes[:, None, 0] < centre) & (centre < boxes[:, None, 2])
        inside_y = (boxes[:, None, 1] < centre) & (centre < boxes[:, None, 3])
        return inside_y[:, :, None] & inside_x[:, None, :]

    one, other = (squares(boxes)[:, None] if i == 0 else squares(boxes)[None] for i, boxes in enumerate(corners))
    union = (one | other).sum(axis=(2, 3))
    expected = np.where(union > 0, (one & other).sum(axis=(2, 3)) / np.maximum(union, 1), 0)
    np.testing.assert_allclose(box.ious(*corners), expected, atol=1e-12)


def test_fitted_priors_cover_the_boxes() -> None:
    """Small boxes of the ratio 1, which the priors of the released network do not know."""
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 0.85, (500, 2))
    side = rng.uniform(0.05, 0.15, (500, 1)) * [[1, 1]] * rng.uniform(0.95, 1.05, (500, 2))
    boxes = np.concatenate([corner, corner + side], axis=1)
    released = [PriorMap(19, (0.2,), ratios=(2.0,)), PriorMap(10, (0.35,), (0.5,), (2.0, 3.0))]
    fitted = fit_priors(boxes, [75, 38, 19, 10, 5, 3, 1])
    assert covered_share(boxes, released) < 0.5
    assert covered_share(boxes, fitted) >= GOOD_SHARE
    assert {item.cells for item in fitted} <= {38, 19, 10}
    assert all(item.ratios == () for item in fitted)
    assert covered_share(boxes, fitted) == np.mean(best_ious(boxes, prior_boxes(fitted)) >= 0.5)


def test_elongated_boxes_get_priors_of_their_shape() -> None:
    boxes = np.array([[0.1, 0.1, 0.7, 0.3], [0.2, 0.2, 0.4, 0.81], [0.1, 0.1, 0.5, 0.5]])
    assert fit_priors(boxes, [10, 5])[0].ratios == (2.0, 3.0)


def test_nothing_to_fit_to() -> None:
    with pytest.raises(ValueError, match="no boxes"):
        fit_priors(np.array([[0.5, 0.5, 0.5, 0.9]]), [10])
