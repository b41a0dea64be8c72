"""The newcomer's tour: train a small classifier on the embedded images, evaluate and use it.

    ./zoo demo      then shows every task at work; --quick shows that alone

The flags of train.py are understood; the run lands in ./output/demo/training.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import Count
from fluid.run import console, script, show
from image_classification import eval as evaluation
from image_classification import infer, train
from image_classification.reader import embedded_dataset

from rich.panel import Panel
from rich.table import Table


@dataclass
class Flags(train.Flags):
    """Train, evaluate and use a small classifier on the embedded images."""

    output_dir: Path = Path("output/demo/training")
    """Folder of everything that is made here."""
    num_epochs: Count = 30
    """Passes over the training images."""
    log_every: Count = 62
    """Updates between log lines; 62 are a pass over the embedded images."""
    eval_every: Count | None = 310
    """Updates between evaluations."""


def main(flags: Flags) -> None:
    """Run the tour."""
    began = time.perf_counter()
    heading("1/3  training on 4,000 images of clothes, ten classes")
    outcome = train.main(flags)
    heading("2/3  evaluating the final weights on 1,000 other images")
    # Not the best checkpoint: that was chosen by these very images.
    common = {
        "checkpoint": flags.output_dir,
        "newest": True,
        "engine": flags.engine,
        "device": flags.device,
        "precision": flags.precision,
    }
    result = evaluation.main(
        evaluation.Flags(**common, data_dir=flags.data_dir, per_class=True, output_dir=flags.output_dir / "eval")
    )
    heading("3/3  classifying test images with it")
    clothes = flags.output_dir / "clothes.txt"
    clothes.write_text("".join((embedded_dataset() / "val_list.txt").read_text().splitlines(keepends=True)[::50]))
    infer.main(
        infer.Flags(
            image_list=clothes, data_dir=embedded_dataset(), top_k=3, output_dir=flags.output_dir / "clothes", **common
        )
    )

    table = Table(title=f"{flags.model or 'SmallNet'} after {time.perf_counter() - began:.0f} s")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("test top-1", f"{result['acc1']:.4f}")
    table.add_row("test top-5", f"{result.get('acc5', 1):.4f}")
    table.add_row("training speed", f"{outcome.samples_per_second:.0f} images/s")
    table.add_row("waiting for data", f"{outcome.data_wait:.1%}")
    show(table)
    folder = flags.output_dir
    for path, what in (
        (folder / "curves.png", "loss and accuracy by step"),
        (folder / "eval" / "confusion.png", "what is taken for what"),
        (folder / "clothes" / "sheet.png", "test images and their predictions"),
    ):
        console.print(f"{path}: {what}")


def heading(text: str) -> None:
    """A line that separates the demo's parts."""
    console.print(Panel.fit(text))


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=train.ALIASES, retired=train.RETIRED)))
