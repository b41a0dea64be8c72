"""Batch normalisation of padded samples: what the padding holds and how long it is changes nothing."""

from functools import partial

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.interface import Input
from fluid.normalization import masked_batch_norm
from fluid.program import build, initialise
from fluid.schedule import Constant

import numpy as np
import paddle
import pytest

INPUTS = [Input("x", (None, 3, 4, None)), Input("width", (None,), "int64")]
ENGINES = {"paddle": PaddleEngine, "xla": partial(create, "cpu")}


def network(x, width, training):
    inside = paddle.cast(paddle.arange(paddle.shape(x)[3]) < width.unsqueeze(1), "float32").unsqueeze([1, 2])
    kernel = paddle.create_parameter([5, 3, 1, 1], "float32", attr=paddle.ParamAttr(name="kernel"))
    y = masked_batch_norm(paddle.nn.functional.conv2d(x, kernel), inside, name="norm", training=training) * inside
    if training:
        return {"loss": (paddle.tanh(y) * inside).sum() / (20 * inside.sum())}
    return {"y": y}


def released(x, training):
    """The same layers for samples of one width, by Paddle's own operation."""
    kernel = paddle.create_parameter([5, 3, 1, 1], "float32", attr=paddle.ParamAttr(name="kernel"))
    attributes = {"weight_attr": "norm.w_0", "bias_attr": "norm.b_0"}
    norm = paddle.nn.BatchNorm2D(5, **{key: paddle.ParamAttr(name=name) for key, name in attributes.items()})
    norm.training = training
    return {"loss": paddle.tanh(norm(paddle.nn.functional.conv2d(x, kernel))).mean()}


def training(net, inputs=INPUTS):
    options = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": Constant(0.5)}
    return build(net, inputs, name="train", training=True, **options)


def images(width, seed=0):
    return np.random.default_rng(seed).normal(size=(2, 3, 4, width)).astype(np.float32)


def padded(x, to, content):
    return np.concatenate([x, np.full((*x.shape[:3], to - x.shape[3]), content, np.float32)], axis=3)


@pytest.mark.parametrize("engine", ENGINES)
def test_padding_changes_neither_the_step_nor_the_statistics(engine):
    program, ends = training(network), []
    for to, content in ((7, 0.0), (12, 0.0), (12, 1e3)):
        running = ENGINES[engine]()
        running.load(initialise(program, seed=0))
        feed = {"x": padded(images(7), to, content), "width": np.array([7, 4])}
        outputs = running.run(program, feed)
        ends.append({"loss": np.asarray(outputs["loss"]), **running.state()})
    for other in ends[1:]:
        for name, array in ends[0].items():
            np.testing.assert_allclose(other[name], array, rtol=1e-4, atol=1e-6, err_msg=name)
    assert np.abs(ends[0]["norm.w_1"]).max() > 1e-3 and np.abs(ends[0]["norm.b_0"]).max() > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_without_padding_it_is_batch_normalisation(engine):
    program, reference = training(network), training(released, INPUTS[:1])
    names = {"norm.w_1": "batch_norm2d_0.w_0", "norm.w_2": "batch_norm2d_0.w_1"}
    state = initialise(program, seed=0)
    ours, theirs = ENGINES[engine](), PaddleEngine()
    ours.load(state)
    theirs.load({names.get(name, name): array for name, array in state.items()})
    x = images(7)
    for step in range(2):
        loss = ours.run(program, {"x": x, "width": np.array([7, 7])}, step)["loss"]
        wanted = theirs.run(reference, {"x": x}, step)["loss"]
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    for name, array in ours.state().items():
        np.testing.assert_allclose(
            array, theirs.state([names.get(name, name)])[names.get(name, name)], rtol=1e-4, atol=1e-6
        )


def test_evaluation_uses_the_running_statistics():
    evaluate = build(network, INPUTS, name="eval")
    state = initialise(evaluate, seed=0)
    state |= {"norm.w_1": np.arange(5, dtype=np.float32), "norm.w_2": np.full(5, 4.0, np.float32)}
    x, width = images(6), np.array([6, 2])
    results = []
    for make in ENGINES.values():
        engine = make()
        engine.load(state)
        results.append(np.asarray(engine.run(evaluate, {"x": x, "width": width})["y"]))
    features = np.einsum("oc,nchw->nohw", state["kernel"][:, :, 0, 0], x)
    wanted = (features - np.arange(5)[:, None, None]) / np.sqrt(4.0 + 1e-5)
    wanted[1, :, :, 2:] = 0
    for result in results:
        np.testing.assert_allclose(result, wanted, rtol=1e-4, atol=1e-5)
