"""What must be known of a detector to use its weights, and the Programs made of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fluid.errors import UserError
from fluid.interface import Input
from fluid.program import Program, Value, build
from object_detection.box_ops import constant
from object_detection.boxes import VARIANCES
from object_detection.models import Model, find_model
from object_detection.nms import Nms, detect
from object_detection.priors import PriorMap

import numpy as np
import paddle

MEAN = 127.5
SCALE = 0.007843
"""Pixels of 0..255 become (pixel - MEAN) * SCALE."""

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Of PASCAL VOC, in alphabetical order as everybody numbers them."""


@dataclass(frozen=True)
class Detector:
    """A network, its priors and the names of its classes: the facts that travel with weights."""

    model: str
    """By its name in `models.MODELS`."""
    class_names: tuple[str, ...]
    """Of the classes 0, 1, ...; background is not one of them."""
    priors: tuple[PriorMap, ...] = ()
    """Instead of those of the model."""

    @property
    def network(self) -> Model:
        """The model with these priors. Raises UserError if there is no such model, or it has no such maps."""
        model = find_model(self.model)
        return model.with_priors(self.priors) if self.priors else model

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> "Detector":
        """As `facts` wrote them. Raises UserError if something is missing or of the wrong kind."""
        try:
            priors = [PriorMap(**{name: _tuple(value) for name, value in item.items()}) for item in facts["priors"]]
            return cls(str(facts["model"]), tuple(map(str, facts["class_names"])), tuple(priors))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"these weights do not say what detector they are of ({error!r})") from error

    def facts(self) -> dict[str, Any]:
        """For the files of weights, as they are read back from JSON."""
        return json.loads(json.dumps(asdict(self)))


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def image_input(detector: Detector) -> Input:
    """Images as the reader emits them, [N, size, size, 3] uint8 RGB."""
    size = detector.network.image_size
    return Input("image", (None, size, size, 3), "uint8")


def normalise(image: Value) -> Value:
    """[N, H, W, 3] uint8 RGB -> [N, 3, H, W] float32 BGR, around 0, as the released weights want it."""
    turned = paddle.transpose(paddle.flip(paddle.cast(image, "float32"), [3]), [0, 3, 1, 2])
    return (turned - MEAN) * SCALE


def normalise_array(images: np.ndarray) -> np.ndarray:
    """The same of an array: what an exported model is fed."""
    turned = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((turned - np.float32(MEAN)) * np.float32(SCALE))


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


def rows(detections: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Of `detections` [N, keep, 6] those of each image, [n, 6]."""
    return [own[:count] for own, count in zip(detections, counts, strict=True)]
