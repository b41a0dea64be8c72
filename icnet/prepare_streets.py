"""Draw streets into a folder, in the layout of Cityscapes: pictures and label ids.

python prepare_streets.py --out_dir streets --size 512 1024 --train 2000 --val 100
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import Count, Natural
from fluid.errors import UserError
from fluid.run import console, script
from icnet.streets.files import COUNTS, SIZE, write_streets


@dataclass
class Flags:
    """Draw streets."""

    out_dir: Path = Path("streets")
    """Folder to write, which must not be there yet."""
    size: tuple[Count, Count] = SIZE
    """Height and width."""
    train: Natural = COUNTS["train"]
    """Streets to learn from."""
    val: Natural = COUNTS["val"]
    """Streets to evaluate on, none of them among the others."""
    test: Natural = 0
    """Further ones."""
    processes: Count | None = None
    """Processes that draw; by default one a core."""


def main(flags: Flags) -> Path:
    """Draw; returns the folder."""
    if flags.out_dir.exists():
        raise UserError(f"{flags.out_dir} exists already; choose another --out_dir, or remove it")
    counts = {part: getattr(flags, part) for part in ("train", "val", "test") if getattr(flags, part)}
    began = time.perf_counter()
    write_streets(flags.out_dir, flags.size, counts, flags.processes)
    console.print(
        f"{sum(counts.values())} streets drawn into {flags.out_dir}, {time.perf_counter() - began:.0f} s", markup=False
    )
    return flags.out_dir


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
