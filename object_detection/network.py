"""The Programs of a detector."""

from collections.abc import Callable
from typing import Any, Literal

from fluid.interface import Input
from fluid.optimizers import OptimizerFlags, optimizer
from fluid.program import Program, Value, build, build_accumulating
from fluid.schedule import Schedule
from object_detection.box_ops import constant
from object_detection.boxes import VARIANCES
from object_detection.detector import (
    DETECTION_VARIABLES,
    HEAD_VARIABLES,
    MEAN,
    SCALE,
    DetectionFlags,
    Detector,
)
from object_detection.loss import ssd_loss
from object_detection.nms import Nms, detect
from object_detection.starting import matches

import numpy as np
import paddle


def image_input(detector: Detector) -> Input:
    """Images as the reader emits them, [N, size, size, 3] uint8 RGB."""
    size = detector.network.image_size
    return Input("image", (None, size, size, 3), "uint8")


def normalise(image: Value) -> Value:
    """[N, H, W, 3] uint8 RGB -> [N, 3, H, W] float32 BGR, around 0, as the released weights want it."""
    turned = paddle.transpose(paddle.flip(paddle.cast(image, "float32"), [3]), [0, 3, 1, 2])
    return (turned - MEAN) * SCALE


def prediction_program(detector: Detector, nms: Nms) -> Program:
    """Input `image` as `image_input`; outputs `detections` [N, keep, 6] and `detections_num` [N], see `nms.detect`."""
    model = detector.network

    def network(image: Value, training: bool) -> dict[str, Value]:
        offsets, logits = model.build(normalise(image), len(detector.class_names), training)
        return detect(offsets, logits, model.prior_boxes, nms)

    return build(network, [image_input(detector)], name="predict", independent_rows=True)


def inference_program(detector: Detector, nms: Nms) -> Program:
    """What is exported: input `image` [N, 3, size, size] float32, normalised already.

    Outputs: `loc` [N, P, 4], `conf` logits [N, P, 1 + C], `prior_boxes` and `prior_variances` [P, 4], `detections`
    [N, keep, 6], `detections_num` [N].
    """
    model = detector.network
    variances = np.tile(np.asarray(VARIANCES, np.float32), (len(model.prior_boxes), 1))

    def network(image: Value, training: bool) -> dict[str, Value]:
        offsets, logits = model.build(image, len(detector.class_names), training)
        priors = {"prior_boxes": constant(model.prior_boxes), "prior_variances": constant(variances)}
        return {"loc": offsets, "conf": logits, **priors, **detect(offsets, logits, model.prior_boxes, nms)}

    inputs = [Input("image", (None, 3, model.image_size, model.image_size))]
    return build(network, inputs, name="infer", batch_axes=dict.fromkeys(("prior_boxes", "prior_variances")))


Freeze = Literal["none", "statistics", "backbone"]


def training_network(
    detector: Detector, *, max_boxes: int, freeze: Freeze = "none", conv_lr: float = 1.0
) -> tuple[Callable[..., dict[str, Value]], list[Input]]:
    """The network of a training Program and its inputs.

    Inputs: `image` as `image_input`, `boxes` [N, max_boxes, 4] and `labels` [N, max_boxes] int64, see `ssd_loss`, which gives
    the outputs.

    Args:
        detector: to be trained.
        max_boxes: of an image.
        freeze: `statistics` lets batch normalisation keep its means and variances; `backbone` also the parameters that a
            network for classification has.
        conv_lr: factor on the learning rate of the convolutions that do not predict.
    """
    model = detector.network

    def network(image: Value, boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        moving = training and freeze == "none"
        offsets, logits = model.build(normalise(image), len(detector.class_names), moving)
        for parameter in paddle.static.default_main_program().global_block().all_parameters():
            if freeze == "backbone" and not matches(parameter.name, DETECTION_VARIABLES):
                parameter.trainable, parameter.stop_gradient = False, True
            elif len(parameter.shape) == 4 and not matches(parameter.name, HEAD_VARIABLES):
                parameter.optimize_attr = {"learning_rate": conv_lr}
        return ssd_loss(offsets, logits, model.prior_boxes, boxes, labels)

    objects = [Input("boxes", (None, max_boxes, 4)), Input("labels", (None, max_boxes), "int64")]
    return network, [image_input(detector), *objects]


def training_programs(
    flags: OptimizerFlags, detector: Detector, rate: Schedule, *, max_boxes: int, freeze: Freeze, conv_lr: float
) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`."""
    network, inputs = training_network(detector, max_boxes=max_boxes, freeze=freeze, conv_lr=conv_lr)
    common: dict[str, Any] = {"optimizer": lambda: optimizer(flags), "schedule": rate, "ema_decay": flags.averaging}
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}


def nms_of(flags: DetectionFlags, rounds: int | None = None) -> Nms:
    """The suppression that the flags ask for."""
    return Nms(score=flags.conf, iou=flags.iou, keep=flags.max_det, rounds=rounds)
