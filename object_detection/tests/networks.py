"""Small detectors for tests."""

from fluid.engine.paddle import PaddleEngine
from fluid.program import Program, build, initialise
from object_detection.detector import Detector
from object_detection.network import Freeze, training_network
from object_detection.priors import PriorMap
from object_detection.shapes import draw_shapes

import cv2
import numpy as np
import paddle

SIZE = 64
NARROW = "ssd_mobilenet_v1_x0_25"
SHAPES = ("disc", "square", "triangle")
PRIORS = (PriorMap(8, (0.2,)), PriorMap(4, (0.4,)))
DETECTOR = Detector(NARROW, SHAPES, PRIORS, SIZE)
MAX_BOXES = 4


def training(detector: Detector = DETECTOR, freeze: Freeze = "none", conv_lr: float = 1.0) -> Program:
    """A training Program with plain descent at rate 1."""
    network, inputs = training_network(detector, max_boxes=MAX_BOXES, freeze=freeze, conv_lr=conv_lr)
    descent = {"optimizer": lambda: paddle.optimizer.SGD(1.0), "schedule": None}
    return build(network, inputs, name="train", training=True, **descent)


def batch(count: int = 4) -> dict[str, np.ndarray]:
    """Drawn shapes as the reader gives them."""
    data = draw_shapes("train")
    boxes, labels = np.zeros((count, MAX_BOXES, 4), np.float32), np.full((count, MAX_BOXES), -1)
    for row, item in enumerate(data.objects[:count]):
        boxes[row, : len(item.boxes)], labels[row, : len(item.labels)] = item.boxes, item.labels
    images = np.stack([cv2.resize(data.picture(index), (SIZE, SIZE)) for index in range(count)])
    return {"image": images, "boxes": boxes, "labels": labels}


def after_one_step(program: Program, rate: float = 0.01) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The state before and after an update at a small rate."""
    from fluid.schedule import Constant

    program.schedule = Constant(rate)
    engine, state = PaddleEngine(), initialise(program, seed=0)
    engine.load(state)
    engine.run(program, batch())
    return state, engine.state()
