"""The Programs of a detector, and the loading of weights."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from fluid import weights
from fluid.config import EngineFlags
from fluid.errors import UserError, WeightsError
from fluid.interface import Input
from fluid.optimizers import OptimizerFlags, optimizer
from fluid.program import Program, Value, build, build_accumulating, initialise
from fluid.runner import Runner
from fluid.schedule import Schedule
from fluid.weights import Bare, Opened, Report
from object_detection.box_ops import constant
from object_detection.boxes import VARIANCES
from object_detection.detector import (
    DETECTION_VARIABLES,
    HEAD_VARIABLES,
    MEAN,
    SCALE,
    DetectionFlags,
    Detector,
    NetworkFlags,
    classes_of,
    normalise_array,
)
from object_detection.loss import ssd_loss
from object_detection.models import Model, find_model
from object_detection.nms import Nms, detect
from object_detection.starting import matches

import numpy as np
import paddle

FOLDER = Path(__file__).resolve().parent
SHIPPED = "ssd_mobilenet_v1_voc"
"""What comes along: the twenty classes of PASCAL VOC."""


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
    common = {"optimizer": lambda: optimizer(flags), "schedule": rate, "ema_decay": flags.averaging}
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}


def nms_of(flags: DetectionFlags, rounds: int | None = None) -> Nms:
    """The suppression that the flags ask for."""
    return Nms(score=flags.conf, iou=flags.iou, keep=flags.max_det, rounds=rounds)


def open_detector(flags: NetworkFlags, default: str = SHIPPED) -> Opened[Detector]:
    """The detector that the flags name, or else the best there is; raises UserError for what cannot be used."""
    fit = partial(fit_detector, flags=flags)
    return weights.open(FOLDER, flags, default=default, key="detector", from_facts=Detector.from_facts, fit=fit)


def open_runner(opened: Opened[Detector], flags: EngineFlags, batches: int | None) -> Runner:
    """What finds objects in images as the reader emits them, of so many batches."""
    return Runner(opened, flags, runs=batches, prepare=lambda feed: {"image": normalise_array(feed["image"])})


def fit_detector(bare: Bare, flags: NetworkFlags) -> tuple[Detector, dict[str, np.ndarray], Report]:
    """Weights that do not say which network they are for: the flags do, or the list of released ones.

    The number of classes is that of their heads. Raises UserError if nothing says which network it is, WeightsError if they
    do not fit or have no heads.
    """
    name = flags.model or (bare.entry.model if bare.entry else None)
    if name is None:
        raise UserError(f"--pretrained_model {bare.spec} does not say which network it is for; give --model too")
    model = find_model(name)
    arrays = bare.read()
    detector = Detector(name, classes_of(count_classes(model, arrays, bare.spec)))
    initial = initialise(prediction_program(detector, Nms()), seed=0)
    state, report = weights.load_into(initial, arrays, head=(), allow_partial=flags.allow_partial)
    return detector, state, report


def count_classes(model: Model, arrays: Mapping[str, np.ndarray], spec: str) -> int:
    """Classes, without background, that the heads in `arrays` predict. Raises WeightsError if there are no such heads."""
    counts = set()
    for layer, item in model.priors.items():
        bias = arrays.get(f"{model.head_names(layer)[1]}.b_0", np.zeros(0))
        counts.add(len(bias) / len(item.shapes) - 1)
    (count,) = counts if len(counts) == 1 else (0.0,)
    if count < 1 or count != int(count):
        raise WeightsError(
            f"{spec} does not predict objects with the priors of {model.name}: to be trained from alone "
            "(train.py --pretrained_model)"
        )
    return int(count)
