"""The facts of a detector, and its images."""

import json

from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError
from fluid.interface import Input
from fluid.program import Value, build
from object_detection.detector import Detector, normalise, normalise_array
from object_detection.priors import PriorMap

import numpy as np
import pytest


def test_facts_through_json() -> None:
    detector = Detector("ssd_mobilenet_v1", ("tree", "bush"), (PriorMap(38, (0.1, 0.2), ratios=(2.0,)),))
    again = Detector.from_facts(json.loads(json.dumps(detector.facts())))
    assert again == detector
    assert len(again.network.prior_boxes) == 38 * 38 * 6
    assert len(Detector("ssd_mobilenet_v1", ("tree",)).network.prior_boxes) == 1917


@pytest.mark.parametrize("facts", [{}, {"model": "x", "class_names": 3, "priors": []}, {"model": "x", "priors": [3]}])
def test_facts_that_are_missing(facts: dict) -> None:
    with pytest.raises(UserError, match="do not say what detector"):
        Detector.from_facts(facts)


def test_pixels_in_and_outside_of_programs() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)

    def network(image: Value, training: bool) -> dict[str, Value]:
        return {"image": normalise(image)}

    found = PaddleEngine().run(
        build(network, [Input("image", (None, 4, 5, 3), "uint8")], name="pixels"), {"image": images}
    )
    np.testing.assert_allclose(found["image"], normalise_array(images), atol=1e-6)
    # Blue comes first: (255 - 127.5) * 0.007843 is 1.
    blue = np.zeros((1, 1, 1, 3), np.uint8)
    blue[..., 2] = 255
    np.testing.assert_allclose(normalise_array(blue).ravel(), [1, -1, -1], atol=2e-5)
