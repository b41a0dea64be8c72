"""The network and its Programs."""

from collections.abc import Callable
from typing import Any

from fluid.program import Input, Program, Value, build
from fluid.schedule import Schedule
from points_task.net import Net

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
