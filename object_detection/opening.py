"""Opening a detector by flags. Needs Paddle only to fit weights that do not say which network they are for."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from fluid import weights
from fluid.config import EngineFlags, named
from fluid.errors import UserError, WeightsError
from fluid.interface import Interface
from fluid.runner import Runner
from fluid.weights import Bare, Opened, Report
from object_detection import caffe_names
from object_detection.detector import NMS, DetectionFlags, Detector, NetworkFlags, classes_of, normalise_array
from object_detection.starting import FOLDER

import numpy as np

if TYPE_CHECKING:
    from object_detection.models import Model

Flags = TypeVar("Flags", bound=DetectionFlags)
SUPPRESSION = "suppression"
"""Under which an exported model keeps the flags that its suppression was built with."""
SHIPPED = "ssd_mobilenet_v1_voc"
"""What comes along: the twenty classes of PASCAL VOC."""
SHAPES = "shapes"
"""What train.py makes without flags, which comes along too: eval.py measures it on the drawn shapes."""


def open_detector(flags: NetworkFlags, default: str = SHIPPED) -> Opened[Detector]:
    """The detector that the flags name, or else the best there is; raises UserError for what cannot be used."""
    fit = partial(fit_detector, flags=flags)
    return weights.open(FOLDER, flags, default=default, key="detector", from_facts=Detector.from_facts, fit=fit)


def open_runner(opened: Opened[Detector], flags: EngineFlags, batches: int | None) -> Runner:
    """What finds objects in images as the reader emits them, of so many batches."""
    return Runner(opened, flags, runs=batches, prepare=lambda feed: {"image": normalise_array(feed["image"])})


def open_prediction(runner: Runner, detector: Detector, flags: DetectionFlags) -> tuple[Interface, int]:
    """The Program that finds objects in images as the reader emits them, and the side of its input."""
    program = runner.program("predict", lambda: build_program("predict", detector, flags))
    # Of [N, H, W, 3], and of an exported model's [N, 3, H, W].
    size = program.inputs["image"].shape[2]
    assert size is not None
    return program, size


def settle(opened: Opened[Detector], flags: Flags, *, fewer: bool = False) -> Flags:
    """`flags` with the suppression that an exported model, or Programs from files, were built with.

    Raises UserError for a flag that is named otherwise; with `fewer`, a higher --conf and a lower --max_det are fine, as
    detections can be dropped afterwards.
    """
    if opened.exported is not None:
        built = opened.exported.facts.get(SUPPRESSION, {})
    else:
        built = {} if opened.captured is None else opened.captured.settings
    limits = {name: built[name] for name in NMS if name in built}
    if fewer and limits:
        limits["conf"] = max(limits["conf"], flags.conf)
        limits["max_det"] = min(limits["max_det"], flags.max_det)
    settled = replace(flags, **{name: value for name, value in limits.items() if name not in named(flags)})
    if wrong := [
        f"--{name} {value}, not {found}" for name, value in limits.items() if value != (found := getattr(settled, name))
    ]:
        raise UserError(f"{opened.source} was built with {'; '.join(wrong)}")
    return settled


def build_program(role: str, detector: Detector, flags: DetectionFlags) -> Interface:
    """The Program for images as the reader emits them, `predict`, or for raw arrays, `infer`; built with Paddle."""
    from object_detection.network import inference_program, nms_of, prediction_program

    return {"predict": prediction_program, "infer": inference_program}[role](detector, nms_of(flags))


def fit_detector(bare: Bare, flags: NetworkFlags) -> tuple[Detector, dict[str, np.ndarray], Report]:
    """Weights that do not say which network they are for: the flags do, or the list of released ones.

    The number of classes is that of their heads. Raises UserError if nothing says which network it is, WeightsError if they
    do not fit or have no heads.
    """
    from fluid.program import initialise
    from object_detection.models import find_model
    from object_detection.network import prediction_program
    from object_detection.nms import Nms

    arrays = bare.read()
    of_caffe = caffe_names.MODEL if caffe_names.is_caffe(arrays) else None
    name = flags.model or of_caffe or (bare.entry.model if bare.entry else None)
    if name is None:
        raise UserError(f"--pretrained_model {bare.spec} does not say which network it is for; give --model too")
    model, arrays = find_model(name), caffe_names.known_names(arrays)
    detector = Detector(name, classes_of(count_classes(model, arrays, bare.spec)))
    initial = initialise(prediction_program(detector, Nms()), seed=0)
    state, report = weights.load_into(initial, arrays, head=(), allow_partial=flags.allow_partial)
    return detector, state, report


def count_classes(model: "Model", arrays: Mapping[str, np.ndarray], spec: str) -> int:
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
