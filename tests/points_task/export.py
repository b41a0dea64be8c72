"""Write a trained network for deployment."""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import ExportFlags, WeightsFlags
from fluid.deployment import deploy
from fluid.metrics import measure
from fluid.run import script
from points_task.metrics import Accuracy
from points_task.net import TASK, Net, open_net
from points_task.network import evaluation_program, inference_program
from points_task.reader import Points

import numpy as np


@dataclass
class Flags(WeightsFlags, ExportFlags):
    """Export a network for deployment."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_net(flags)
    net = opened.facts
    return deploy(
        opened,
        inference_program(net),
        flags,
        lambda state: accuracy(net, state),
        task=TASK,
        facts={"net": net.to_facts()},
    )


def accuracy(net: Net, state: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss and accuracy of the network with these weights, as eval.py measures them."""
    program = evaluation_program(net)
    engine, _ = engines.create(programs=[program])
    engine.load(state)
    return measure(engine, program, Points("val"), Accuracy(), batch_size=50).result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
