"""What every export.py does with opened weights: a model for deployment, and the weights in less memory."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fluid.config import ExportFlags
from fluid.export import ONNX, Feed, export
from fluid.program import Program
from fluid.run import console
from fluid.weights import Opened, compact

import numpy as np


def deploy(
    opened: Opened[Any],
    program: Program,
    flags: ExportFlags,
    measure: Callable[[dict[str, np.ndarray]], Mapping[str, float]],
    *,
    task: str,
    facts: Mapping[str, Any],
    of_the_model: Mapping[str, Any] | None = None,
    examples: Sequence[Feed] | None = None,
    near_ties: Mapping[str, float] | None = None,
) -> Path:
    """Write what the flags ask for, and say what that is; returns the folder.

    Args:
        opened: the weights.
        program: what the model computes.
        flags: where and how.
        measure: the task's metrics of a set of weights, by which --storage shows what it costs.
        task: whose weights they are.
        facts: what the task must know to use the weights.
        of_the_model: what it must know of the exported model beside that.
        examples: as of `fluid.export.export`, like `near_ties`.

    Raises UserError and WeightsError as that and `fluid.weights.compact` do.
    """
    own = {name: opened.state[name] for name in program.state_names}
    trial = compact.try_out(own, flags.storage, measure, console.print)
    folder = export(
        program,
        trial.state,
        flags.export_dir,
        facts={**facts, **(of_the_model or {})},
        onnx=flags.onnx,
        examples=examples,
        near_ties=near_ties,
    )
    trial.write(folder, task=task, facts=facts, source=opened.source)
    size = sum(file.stat().st_size for file in folder.iterdir())
    inputs, outputs = ", ".join(program.inputs), ", ".join(program.outputs)
    console.print(f"{opened.source} exported to {folder}: {size / 1e6:.1f} MB, {inputs} -> {outputs}")
    if flags.onnx:
        console.print(f"ONNX: {folder / ONNX}")
    return folder
