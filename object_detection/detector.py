"""What must be known of a detector to use its weights. Without Paddle, so that Programs from files can be trained."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from fluid.config import Count, Share, WeightsFlags
from fluid.errors import UserError
from object_detection.priors import PriorMap

import numpy as np

if TYPE_CHECKING:
    # Only to build Programs is Paddle needed.
    from object_detection.models import Model

TASK = "object_detection"
MEAN = 127.5
SCALE = 0.007843
"""Pixels of 0..255 become (pixel - MEAN) * SCALE."""

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Of PASCAL VOC, in alphabetical order as everybody numbers them."""

COCO_CLASSES = (
    *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light"),
    *("fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow"),
    *("elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee"),
    *("skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard"),
    *("tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
    *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed"),
    *("dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven"),
    *("toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""Of COCO, in the order of their category ids."""
COCO_UNUSED_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""Category ids of 1 to 90 that no object of COCO has; weights of 2018 predict the ids as they are."""
DETECTION_VARIABLES = (
    *("conv2d_1[4-9].*", "conv2d_[23]?.*", "batch_norm_2[7-9].*", "batch_norm_3?.*"),
    *("conv[6-9]_*", "conv10_*", "conv4_3_norm.*", "*_mbox_*"),
)
"""Names of variables, as patterns, that a network for classification lacks: the extra layers and what predicts."""
HEAD_VARIABLES = ("conv2d_2[2-9].*", "conv2d_3?.*", "*_mbox_*")
"""Of these, those whose shapes follow from the classes and priors."""


def classes_of(count: int) -> tuple[str, ...]:
    """Names of so many classes, for weights that do not tell them; of 20, 80 and 90 those of VOC, of COCO and of its ids."""
    match count:
        case 20:
            return VOC_CLASSES
        case 80:
            return COCO_CLASSES
        case 90:
            names = iter(COCO_CLASSES)
            return tuple(f"unused {number}" if number in COCO_UNUSED_IDS else next(names) for number in range(1, 91))
    return tuple(f"class {number}" for number in range(count))


SIZES_OF_2018 = ("image_shape", "resize_h", "resize_w")
TOLD_BY_NETWORK = {
    **dict.fromkeys(SIZES_OF_2018, "the network tells"),
    **dict.fromkeys(
        ("mean_value_B", "mean_value_G", "mean_value_R", "mean_BGR"), f"pixels are normalised around {MEAN}"
    ),
}
"""Flags of 2018 that no script needs any more -> why."""


@dataclass
class NetworkFlags(WeightsFlags):
    """Which weights, and the network of those that do not say it themselves."""

    model: str | None = None
    """Network of --pretrained_model, where that does not say."""


@dataclass
class DetectionFlags:
    """Which detections are kept."""

    conf: Share = 0.01
    """Only detections with a score above this are kept."""
    iou: Share = 0.45
    """Of two detections of a class that overlap by more than this the better one is kept."""
    max_det: Count = 200
    """Most detections that are kept of an image."""


NMS = tuple(item.name for item in fields(DetectionFlags))
"""Flags that the suppression is built with."""


@dataclass(frozen=True)
class Detector:
    """A network, its priors and the names of its classes: the facts that travel with weights."""

    model: str
    """By its name in `models.MODELS`."""
    class_names: tuple[str, ...]
    """Of the classes 0, 1, ...; background is not one of them."""
    priors: tuple[PriorMap, ...] = ()
    """Instead of those of the model."""
    image_size: int | None = None
    """Side of the network's input, where it is not the model's own."""

    @property
    def network(self) -> "Model":
        """The model with these priors. Raises UserError if there is no such model, or it has no such maps."""
        from object_detection.models import find_model

        model = find_model(self.model).with_image_size(self.image_size)
        return model.with_priors(self.priors) if self.priors else model

    def to_facts(self) -> dict[str, Any]:
        """As JSON-able data."""
        facts = json.loads(json.dumps(asdict(self)))
        return {name: value for name, value in facts.items() if value is not None}

    @staticmethod
    def from_facts(facts: Mapping[str, Any]) -> "Detector":
        """The inverse of `to_facts`; raises UserError if something is missing or of the wrong kind."""
        try:
            priors = [PriorMap(**{name: _tuple(value) for name, value in item.items()}) for item in facts["priors"]]
            names = tuple(map(str, facts["class_names"]))
            return Detector(str(facts["model"]), names, tuple(priors), facts.get("image_size"))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"these weights do not say what detector they are of ({error!r})") from error


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def normalise_array(images: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] uint8 RGB -> [N, 3, H, W] float32 BGR, around 0: what an exported model is fed."""
    turned = images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((turned - np.float32(MEAN)) * np.float32(SCALE))


def rows(detections: np.ndarray, counts: Sequence[int]) -> list[np.ndarray]:
    """Of `detections` [N, keep, 6] those of each image, [n, 6]."""
    return [own[:count] for own, count in zip(detections, counts, strict=True)]
