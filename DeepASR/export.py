"""Write an acoustic model for deployment: a Paddle inference model and, with --onnx, ONNX.

python export.py                                what listens to pieces of 16 frames: states go in and come out
python export.py --what whole --export_dir m    whole utterances: `feature`, `length` -> `posterior`
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from DeepASR.corpus import open_corpus
from DeepASR.metrics import FrameAccuracy
from DeepASR.network import build_evaluation, build_inference, build_stream
from DeepASR.opening import open_recogniser
from DeepASR.options import NetworkFlags
from DeepASR.reader import Utterances, shapes
from DeepASR.recogniser import TASK, Recogniser
from DeepASR.sizes import silence
from fluid import config as configuration
from fluid import engine as engines
from fluid.config import ExportFlags
from fluid.deployment import deploy
from fluid.metrics import measure
from fluid.program import Program
from fluid.run import script

import numpy as np

PIECE = 16
"""Frames of the pieces by which an exported model is tried out; it takes pieces of any length."""


@dataclass
class Flags(NetworkFlags, ExportFlags):
    """Write an acoustic model for deployment."""

    data_dir: Path | None = None
    """Data set on whose dev part --storage is measured; by default the commands that come along."""
    what: Literal["stream", "whole"] = "stream"
    """stream: a piece of each utterance, with states in and out. whole: inputs feature and length, output posterior."""


def main(flags: Flags) -> Path:
    """Export as `flags` say; returns the folder."""
    opened = open_recogniser(flags)
    recogniser = opened.facts
    program = build_stream(recogniser.sizes) if flags.what == "stream" else build_inference(recogniser.sizes)
    return deploy(
        opened,
        program,
        flags,
        lambda state: accuracy(recogniser, state, flags),
        task=TASK,
        facts={"recogniser": recogniser.to_facts()},
        of_the_model={"what": flags.what},
        examples=[example(program, recogniser, rows) for rows in (1, 3)],
    )


def accuracy(recogniser: Recogniser, state: dict[str, np.ndarray], flags: Flags) -> dict[str, float]:
    """Frame accuracy of dev with these weights."""
    dev = Utterances(open_corpus(flags.data_dir).part("dev"), recogniser.normalisation, batch_size=16, uncut=None)
    program, plan = build_evaluation(recogniser.sizes), dev.buckets.evaluation_plan(16)
    engine, _ = engines.create(runs=len(dev), programs=[program])
    engine.load(state)
    found = measure(engine, program, dev, FrameAccuracy(), batch_size=16, plan=plan)
    return {name: value for name, value in found.result().items() if name != "frames"}


def example(program: Program, recogniser: Recogniser, rows: int) -> dict[str, np.ndarray]:
    """Pieces of noise, the last of them shorter."""
    rng = np.random.default_rng(rows)
    shape, _ = shapes(rows, PIECE, recogniser.sizes.frame_dim)["feature"]
    length = np.full(rows, PIECE)
    length[-1] = PIECE // 2
    return {"feature": rng.normal(size=shape).astype(np.float32), "length": length, **silence(program, rows)}


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
