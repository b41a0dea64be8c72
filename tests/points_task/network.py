"""The network, its Programs, and the opening of its weights."""

from collections.abc import Callable
from typing import Any

from fluid import weights
from fluid.config import WeightsFlags
from fluid.program import Input, Program, Value, build, initialise
from fluid.schedule import Schedule
from fluid.weights import Bare, Opened, Report, load_into
from points_task.net import FOLDER, Net

import numpy as np
import paddle
import paddle.nn.functional as F

POINT, LABEL = Input("point", (None, 4)), Input("label", (None,), "int64")


def logits(net: Net, point: Value, training: bool) -> Value:
    """Logits [N, 2] of points [N, 4]: one hidden layer with dropout."""
    first = paddle.nn.Linear(4, net.hidden, weight_attr=paddle.ParamAttr(name="fc1_w"), bias_attr=False)
    second = paddle.nn.Linear(net.hidden, 2, weight_attr=paddle.ParamAttr(name="fc2_w"), bias_attr=False)
    return second(F.dropout(F.relu(first(point)), 0.1, training=training))


def training_program(net: Net, optimizer: Callable[[], Any], schedule: Schedule | None) -> Program:
    """Outputs `loss` and `accuracy`, means over the batch."""

    def network(point: Value, label: Value, training: bool) -> dict[str, Value]:
        scores = logits(net, point, training)
        hits = paddle.cast(paddle.argmax(scores, axis=1) == label, "float32")
        return {"loss": F.cross_entropy(scores, label), "accuracy": paddle.mean(hits)}

    return build(network, [POINT, LABEL], name="train", training=True, optimizer=optimizer, schedule=schedule)


def evaluation_program(net: Net) -> Program:
    """Outputs `losses` [N] and `hits` [N], 1 where the larger logit is the label's."""

    def network(point: Value, label: Value, training: bool) -> dict[str, Value]:
        scores = logits(net, point, training)
        hits = paddle.cast(paddle.argmax(scores, axis=1) == label, "float32")
        return {"losses": F.cross_entropy(scores, label, reduction="none"), "hits": hits}

    return build(network, [POINT, LABEL], name="eval")


def inference_program(net: Net) -> Program:
    """What is exported: input `point` [N, 4], output `logits` [N, 2]."""

    def network(point: Value, training: bool) -> dict[str, Value]:
        return {"logits": logits(net, point, training)}

    return build(network, [POINT], name="infer")


def open_net(flags: WeightsFlags) -> Opened[Net]:
    """The weights that the flags name, or else the best there are; raises UserError for what cannot be used."""
    return weights.open(FOLDER, flags, default="small", key="net", from_facts=Net.from_facts, fit=fit)


def fit(bare: Bare) -> tuple[Net, dict[str, np.ndarray], Report]:
    """Weights alone: the width of the network is that of its first matrix."""
    arrays = bare.read()
    net = Net(arrays["fc1_w"].shape[1] if "fc1_w" in arrays else 1)
    return net, *load_into(initialise(inference_program(net), seed=0), arrays)
