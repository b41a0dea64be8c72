"""Draw streets into a folder, in the layout of Cityscapes: pictures and label ids.

python prepare_streets.py --output_dir streets --size 512 1024 --train 2000 --val 100
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import Count, Natural, Range, Was
from fluid.errors import UserError
from fluid.records import refuse_existing
from fluid.run import console, script
from icnet.streets.files import COUNTS, SIZE, write_streets


@dataclass
class Flags:
    """Draw streets."""

    output_dir: Annotated[Path, Was("out_dir")] = Path("streets")
    """Folder to write, which must not be there yet."""
    size: tuple[Annotated[int, Range(64, 4096)], Annotated[int, Range(64, 8192)]] = SIZE
    """Height and width."""
    train: Natural = COUNTS["train"]
    """Streets to learn from."""
    val: Natural = COUNTS["val"]
    """Streets to evaluate on, none of them among the others."""
    test: Natural = 0
    """Further ones."""
    num_workers: Annotated[Count | None, Was("processes")] = None
    """Processes that draw; by default one a core."""


def main(flags: Flags) -> Path:
    """Draw; returns the folder."""
    refuse_existing(flags.output_dir)
    if not flags.train + flags.val + flags.test:
        raise UserError("--train, --val and --test are 0: there is nothing to draw")
    counts = {part: getattr(flags, part) for part in ("train", "val", "test") if getattr(flags, part)}
    began = time.perf_counter()
    write_streets(flags.output_dir, flags.size, counts, flags.num_workers)
    shown = ", ".join(f"{count} {part}" for part, count in counts.items())
    console.print(f"{flags.output_dir}: {shown} streets, {time.perf_counter() - began:.0f} s")
    return flags.output_dir


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags)))
