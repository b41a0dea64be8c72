"""Suppression against Paddle's own operation."""

import dataclasses

from fluid.engine import Engine
from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.engine.xla.kernels import Kernels, suppression
from fluid.interface import Input
from fluid.program import Value, build
from object_detection.nms import NO_CLASS, ONNX_ROUNDS, Nms, detect, multiclass_nms
from object_detection.priors import PriorMap

import jax
import numpy as np
import paddle
import pytest

P, CLASSES = 120, 5


@pytest.fixture(scope="module", params=["paddle", "xla"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return PaddleEngine() if request.param == "paddle" else create("cpu")


def crowded(rng: np.random.Generator, images: int) -> dict[str, np.ndarray]:
    """Boxes that overlap a lot, and scores without ties, above and below the threshold."""
    corner = rng.uniform(0, 0.6, (images, P, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (images, P, 2))], axis=2)
    scores = rng.permutation(images * CLASSES * P).reshape(images, CLASSES, P) / (images * CLASSES * P)
    return {"boxes": boxes.astype(np.float32), "scores": (scores**4).astype(np.float32)}


INPUTS = [Input("boxes", (None, P, 4)), Input("scores", (None, CLASSES, P))]


def ours(engine: Engine, feed: dict[str, np.ndarray], nms: Nms) -> list[np.ndarray]:
    def network(boxes: Value, scores: Value, training: bool) -> dict[str, Value]:
        detections, count = multiclass_nms(boxes, scores, nms)
        return {"detections": detections, "count": count}

    found = engine.run(build(network, INPUTS, name="nms"), feed)
    detections, counts = np.asarray(found["detections"]), np.asarray(found["count"])
    assert detections.shape[1] == nms.keep
    for rows, count in zip(detections, counts, strict=True):
        assert (rows[count:] == [NO_CLASS, 0, 0, 0, 0, 0]).all()
    return [rows[:count] for rows, count in zip(detections, counts, strict=True)]


def paddles(feed: dict[str, np.ndarray], nms: Nms) -> list[np.ndarray]:
    def network(boxes: Value, scores: Value, training: bool) -> dict[str, Value]:
        # The class -1 is background; there is none here.
        out, _, count = paddle._C_ops.multiclass_nms3(
            boxes, scores, None, nms.score, nms.candidates, nms.keep, nms.iou, True, 1.0, -1
        )
        return {"out": out, "count": count}

    program = build(network, INPUTS, name="paddle's nms", batch_axes={"out": None})
    found = PaddleEngine().run(program, feed)
    return np.split(np.asarray(found["out"]), np.cumsum(found["count"])[:-1])


@pytest.mark.parametrize("images", [1, 8])
@pytest.mark.parametrize("nms", [Nms(candidates=60, keep=50), Nms(score=0.3, iou=0.6)], ids=["many", "few"])
def test_row_for_row_as_multiclass_nms3(engine: Engine, images: int, nms: Nms) -> None:
    feed = crowded(np.random.default_rng(images), images)
    for found, expected in zip(ours(engine, feed, nms), paddles(feed, nms), strict=True):
        assert 0 < len(expected) <= nms.keep
        np.testing.assert_array_equal(found[:, 0], expected[:, 0])
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_kernel_of_gpus_takes_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    found, whole = [], suppression.suppress

    def counted(kernels: Kernels, valid: jax.Array, overlaps: jax.Array) -> jax.Array:
        found.append(overlaps.shape)
        return whole(kernels, valid, overlaps)

    monkeypatch.setattr(suppression, "suppress", counted)
    engine, feed, nms = create("cpu"), crowded(np.random.default_rng(0), 2), Nms(candidates=50)
    engine.tuning = dataclasses.replace(engine.tuning, kernels=True)
    for have, want in zip(ours(engine, feed, nms), paddles(feed, nms), strict=True):
        np.testing.assert_allclose(have, want, atol=1e-6)
    assert found == [(2, CLASSES, 50, 50)]


def test_a_long_chain(engine: Engine) -> None:
    """Each box overlaps the next alone: every second one stays, decided one after the other."""
    start = np.arange(P) * 0.4 / P
    feed = {
        "boxes": np.stack([start, 0 * start, start + 1 / P, 0 * start + 1], axis=1)[None].astype(np.float32),
        "scores": np.tile(np.linspace(0.9, 0.5, P, dtype=np.float32), (1, CLASSES, 1)),
    }
    (found,) = ours(engine, feed, Nms(iou=0.3, keep=CLASSES * P))
    assert len(found) == CLASSES * P // 2
    np.testing.assert_allclose(found[: P // 2, 2], start[::2], rtol=1e-6)

    (cut_short,) = ours(engine, feed, Nms(iou=0.3, keep=CLASSES * P, rounds=3))
    assert len(cut_short) != len(found)


def test_written_out_rounds_are_enough() -> None:
    """For ONNX, on 1,000 images."""
    feed, engine = crowded(np.random.default_rng(7), 1000), create("cpu")
    looped, written_out = (ours(engine, feed, Nms(candidates=P, rounds=rounds)) for rounds in (None, ONNX_ROUNDS))
    for one, other in zip(looped, written_out, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nothing_found(engine: Engine) -> None:
    feed = crowded(np.random.default_rng(0), 2)
    feed["scores"] *= 0.0
    assert [len(rows) for rows in ours(engine, feed, Nms())] == [0, 0]


def test_of_equal_scores_the_first_prior_stays(engine: Engine) -> None:
    feed = crowded(np.random.default_rng(0), 1)
    feed["boxes"][:] = feed["boxes"][:, :1]
    feed["boxes"][0, 0] += 0.001
    feed["scores"][:] = 0.5
    (found,) = ours(engine, feed, Nms())
    np.testing.assert_array_equal(found[:, 0], np.arange(CLASSES))
    np.testing.assert_array_equal(found[:, 2:], np.repeat(feed["boxes"][0, :1], CLASSES, axis=0))


def test_detect_decodes_and_leaves_background_out(engine: Engine) -> None:
    priors = PriorMap(2, (0.5,)).boxes()
    logits = np.zeros((1, 4, 1 + CLASSES), np.float32)
    logits[:, :, 0] = 10
    logits[0, 2, 3] = 30

    def network(offsets: Value, logits: Value, training: bool) -> dict[str, Value]:
        return detect(offsets, logits, priors, Nms())

    inputs = [Input("offsets", (None, 4, 4)), Input("logits", (None, 4, 1 + CLASSES))]
    found = engine.run(
        build(network, inputs, name="detect"), {"offsets": np.zeros((1, 4, 4), np.float32), "logits": logits}
    )
    assert np.asarray(found["detections_num"]).tolist() == [1]
    np.testing.assert_allclose(np.asarray(found["detections"])[0, 0], [2, 1, 0, 0.5, 0.5, 1], atol=1e-6)
