"""Write a trained network for deployment."""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import ExportFlags, WeightsFlags
from fluid.export import export
from fluid.metrics import measure
from fluid.run import console, script
from fluid.weights import compact
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
    facts = {"net": opened.facts.to_facts()}
    trial = compact.try_out(opened.state, flags.storage, lambda state: accuracy(opened.facts, state), console.print)
    folder = export(inference_program(opened.facts), trial.state, flags.export_dir, facts=facts, onnx=flags.onnx)
    trial.write(folder, task=TASK, facts=facts, source=opened.source)
    console.print(f"{opened.source} exported to {folder}", markup=False)
    return folder


def accuracy(net: Net, state: dict[str, np.ndarray]) -> dict[str, float]:
    """Loss and accuracy of the network with these weights, as eval.py measures them."""
    program = evaluation_program(net)
    engine, _ = engines.create("auto", "auto", "fp32", 0, programs=[program])
    engine.load(state)
    return measure(engine, program, Points("val"), Accuracy(), batch_size=50).result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
