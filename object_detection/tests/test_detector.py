"""The facts of a detector, and its images."""

import json
from pathlib import Path

from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError
from fluid.export import ExportedModel, export
from fluid.interface import Input
from fluid.program import Value, build, initialise
from fluid.tests.extras import need_onnx
from object_detection.detector import Detector, normalise_array
from object_detection.network import inference_program, normalise
from object_detection.nms import ONNX_ROUNDS, Nms
from object_detection.priors import PriorMap

import numpy as np
import pytest


def test_facts_through_json() -> None:
    detector = Detector("ssd_mobilenet_v1", ("tree", "bush"), (PriorMap(38, (0.1, 0.2), ratios=(2.0,)),))
    again = Detector.from_facts(json.loads(json.dumps(detector.to_facts())))
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


SMALL = Detector("ssd_mobilenet_v1_x0_25", ("cat", "dog"), (PriorMap(10, (0.3,)), PriorMap(5, (0.6,))))


def test_export_with_its_loop_for_any_batch(tmp_path: Path) -> None:
    program = inference_program(SMALL, Nms(candidates=50, keep=20))
    state = initialise(program, seed=0)
    model = ExportedModel(export(program, state, tmp_path / "model", facts=SMALL.to_facts()))
    images = np.random.default_rng(0).normal(size=(3, 3, 300, 300)).astype(np.float32)
    engine = PaddleEngine()
    engine.load(state)
    expected = engine.run(program, {"image": images})
    found = model.run({"image": images})
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-4, err_msg=name)
    assert (np.asarray(expected["detections_num"]) > 0).all()


@pytest.mark.full
def test_onnx_without_loops_and_operations_for_suppression(tmp_path: Path) -> None:
    """What is written is run by ONNX Runtime before it appears, in batches of 1 and 3."""
    need_onnx()
    import onnx

    program = inference_program(SMALL, Nms(candidates=50, keep=20, rounds=ONNX_ROUNDS))
    export(program, initialise(program, seed=0), tmp_path / "model", facts=SMALL.to_facts(), onnx=True)
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "model" / "model.onnx")).graph.node}
    assert not kinds & {"NonMaxSuppression", "Loop", "If"}
