"""Export a network for deployment: a Paddle inference model and, with --onnx, ONNX. uint8 images in, uint8 labels out."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import Count, ExportFlags
from fluid.deployment import deploy
from fluid.errors import UserError
from fluid.run import script
from icnet.evaluation import by_size, confusion
from icnet.network import evaluation_program, inference_program
from icnet.opening import open_segmenter
from icnet.reader import open_pairs
from icnet.segmenter import TASK, NetworkFlags, Segmenter

import numpy as np

NEAR_TIES = 2e-3
"""Share of the pixels of noise where two classes are so near to each other that rounding decides."""


@dataclass
class Flags(NetworkFlags, ExportFlags):
    """Export a network for deployment."""

    size: tuple[Count, Count] | None = None
    """Height and width of its images; by default those of the pictures that the weights learnt from."""
    outputs: tuple[Literal["sub4", "sub24", "sub124", "logits", "labels"], ...] = ("labels",)
    """What it computes."""
    data_dir: Path | None = None
    """Data set on which --storage is measured; by default drawn streets."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_segmenter(flags)
    segmenter, size = opened.facts, flags.size or opened.facts.size
    rng = np.random.default_rng(0)
    return deploy(
        opened,
        inference_program(segmenter, size, flags.outputs),
        flags,
        lambda state: measured(segmenter, state, flags),
        task=TASK,
        facts={"segmenter": segmenter.to_facts()},
        examples=[{"image": rng.integers(0, 256, (rows, *size, 3)).astype(np.uint8)} for rows in (1, 2)],
        near_ties={"labels": NEAR_TIES},
    )


def measured(segmenter: Segmenter, state: dict[str, np.ndarray], flags: Flags) -> dict[str, float]:
    """Scores of a network with these weights. Raises UserError where there are no images of its classes."""
    pairs = open_pairs(flags.data_dir, "val")
    if pairs.classes.names != segmenter.classes.names:
        raise UserError(f"--storage {flags.storage} is measured, on images of the network's classes: give --data_dir")
    groups = by_size(pairs)
    engine, _ = engines.create(runs=-(-len(pairs) // 4))
    engine.load(state)
    programs = {size: evaluation_program(segmenter, size) for size in groups}
    return confusion(engine, programs.__getitem__, pairs, groups, batch_size=4).result()


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
