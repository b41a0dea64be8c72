"""Suppression that was built in, and flags that wish for another."""

from types import SimpleNamespace
from typing import Any

from fluid import config as configuration
from fluid.errors import UserError
from fluid.weights import Opened
from object_detection import eval as evaluation
from object_detection import infer
from object_detection.detector import VOC_CLASSES, Detector
from object_detection.opening import SUPPRESSION, settle

import pytest

BUILT = {"conf": 0.02, "iou": 0.45, "max_det": 100}


def opened(kind: str) -> Opened[Detector]:
    model: Any = {
        "exported": {"exported": SimpleNamespace(facts={SUPPRESSION: BUILT})},
        "captured": {"captured": SimpleNamespace(settings={**BUILT, "lr": 0.1})},
        "weights": {},
    }[kind]
    return Opened(Detector("ssd_mobilenet_v1", VOC_CLASSES), {}, "some model", "", **model)


@pytest.mark.parametrize("kind", ["exported", "captured"])
def test_what_is_not_named_is_what_was_built(kind: str) -> None:
    flags = settle(opened(kind), configuration.parse(evaluation.Flags, []))
    assert (flags.conf, flags.iou, flags.max_det) == (0.02, 0.45, 100)
    with pytest.raises(UserError, match="some model was built with --iou 0.45, not 0.5"):
        settle(opened(kind), configuration.parse(evaluation.Flags, ["--iou", "0.5"]))


def test_fewer_detections_can_be_had() -> None:
    flags = settle(opened("exported"), configuration.parse(infer.Flags, ["--max_det", "7"]), fewer=True)
    assert (flags.conf, flags.iou, flags.max_det) == (0.5, 0.45, 7)
    for wish, message in (("--conf 0.01", "--conf 0.02, not 0.01"), ("--max_det 101", "--max_det 100, not 101")):
        with pytest.raises(UserError, match=message):
            settle(opened("exported"), configuration.parse(infer.Flags, wish.split()), fewer=True)


def test_weights_take_any() -> None:
    flags = configuration.parse(evaluation.Flags, ["--iou", "0.6", "--conf", "0"])
    assert (settle(opened("weights"), flags).iou, settle(opened("weights"), flags).conf) == (0.6, 0.0)
