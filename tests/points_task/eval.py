"""Measure loss and accuracy over every point of a part exactly once."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import EngineFlags, WeightsFlags
from fluid.run import console, script
from points_task.metrics import measure
from points_task.network import evaluation_program, open_net
from points_task.reader import Points


@dataclass
class Flags(WeightsFlags, EngineFlags):
    """Measure loss and accuracy."""

    split: Literal["val", "train"] = "val"
    """Which points."""
    batch_size: int = 50
    """Points a batch; the result does not depend on it."""
    output_dir: Path | None = None
    """Folder for result.json."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print and return the figures."""
    opened = open_net(flags)
    evaluation = evaluation_program(opened.facts)
    engine, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed)
    engine.load({name: opened.state[name] for name in evaluation.state_names})
    result = measure(engine, evaluation, Points(flags.split), flags.batch_size)
    console.print(f"loss {result['loss']:.4f}, accuracy {result['accuracy']:.4f}")
    if flags.output_dir is not None:
        flags.output_dir.mkdir(parents=True, exist_ok=True)
        (flags.output_dir / "result.json").write_text(json.dumps(result) + "\n", encoding="utf-8")
    return result


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
