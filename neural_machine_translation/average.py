"""Average the last checkpoints of a run, as section 6.1 of the paper does for its results.

python average.py --run_dir output --last 5 --output_dir averaged
python eval.py --checkpoint averaged
"""

import sys
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import checkpoint
from fluid import config as configuration
from fluid.errors import UserError
from fluid.run import console, script
from neural_machine_translation.model import parameter_shapes
from neural_machine_translation.network import TASK, Translator

import numpy as np


@dataclass
class Flags:
    """Average the last checkpoints of a run."""

    run_dir: Path = Path("output")
    """Output folder of the run; keep enough checkpoints there with train.py --keep_checkpoints."""
    last: int = 5
    """How many."""
    output_dir: Path = Path("averaged")
    """Where the averaged checkpoint goes."""


def main(flags: Flags) -> Path:
    """Average as `flags` say; returns the new checkpoint."""
    newest = checkpoint.find_newest(flags.run_dir)
    folders = sorted(newest.parent.glob("step_*"), key=lambda path: int(path.name.removeprefix("step_")))[-flags.last :]
    if flags.last < 1 or len(folders) < flags.last:
        raise UserError(
            f"{flags.run_dir} has {len(folders)} checkpoints, not {flags.last}; train with --keep_checkpoints {flags.last}"
        )
    total: dict[str, np.ndarray] = {}
    for folder in folders:
        state, meta = checkpoint.load(folder, task=TASK)
        names = parameter_shapes(Translator.from_facts(meta.extra["translator"]).config)
        for name in names:
            total[name] = total.get(name, 0.0) + state[name].astype(np.float64)
    averaged = {name: (array / len(folders)).astype(np.float32) for name, array in total.items()}
    meta.metrics, meta.best, meta.best_step = {}, None, 0
    written = checkpoint.save(flags.output_dir, averaged, meta)
    console.print(f"{written}: mean of {', '.join(folder.name for folder in folders)}", markup=False)
    return written


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
