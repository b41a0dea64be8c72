"""./zoo average RUN: the mean of a run's last checkpoints, as section 6.1 of Vaswani et al. (arXiv:1706.03762) does.

./zoo average output --last 3 --output_dir averaged
./zoo eval TASK --checkpoint averaged
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from fluid import checkpoint
from fluid.errors import UserError
from fluid.formats.legacy import is_optimizer_state
from fluid.run import script
from fluid.text import number_of
from fluid.weights.files import with_averages

import numpy as np


def main(argv: Sequence[str] | None = None) -> None:
    """Average and say what was written; raises UserError, a wrong flag exits with code 2."""
    parser = argparse.ArgumentParser(
        prog="zoo average", description="Average the last checkpoints of a run.", allow_abbrev=False
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="output folder of a run of any task")
    parser.add_argument(
        "--last", type=int, default=3, help="how many, 3 by default, as a run keeps them without --keep_checkpoints"
    )
    parser.add_argument(
        "--output_dir", type=Path, default=Path("averaged"), help="where the mean goes; ./averaged by default"
    )
    args = parser.parse_args(argv)
    folders = last_checkpoints(args.run, args.last)
    written = average(folders, args.output_dir)
    print(f"{written}: mean of {', '.join(folder.name for folder in folders)}")


def last_checkpoints(run: Path, count: int) -> list[Path]:
    """The newest `count` checkpoints of a run, oldest first. Raises UserError if there are fewer."""
    folders = checkpoint.checkpoints_in(checkpoint.find_newest(run).parent)
    if not 1 <= count <= len(folders):
        raise UserError(
            f"{run} has {number_of(len(folders), 'checkpoint')}, not {count}; train with --keep_checkpoints {max(count, 1)}"
        )
    return folders[-count:]


def average(folders: Sequence[Path], output_dir: Path) -> Path:
    """Write the mean of checkpoints, optimizer state left out, as a run of one checkpoint, which is returned.

    Of a run with moving averages these are averaged; what is no floating point is the newest's. Raises UserError.
    """
    total: dict[str, np.ndarray] = {}
    for folder in folders:
        state, meta = checkpoint.load(folder)
        for name, array in with_averages(state).items():
            if not is_optimizer_state(name, state):
                is_mean = array.dtype.kind == "f"
                total[name] = total.get(name, 0.0) + array.astype(np.float64) / len(folders) if is_mean else array
    mean = {name: array.astype(state[name].dtype) for name, array in total.items()}
    meta.metrics, meta.best, meta.best_step, meta.stale, meta.due = {}, None, 0, 0, []
    return checkpoint.save(output_dir, mean, meta)


if __name__ == "__main__":
    script(main)
