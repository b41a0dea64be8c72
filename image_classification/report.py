"""The end of a training run: its pictures and its summary."""

from fluid.run import Run, console, events
from fluid.trainer import Outcome
from image_classification import pictures
from image_classification.classifier import Classifier
from image_classification.metrics import Accuracy

from rich.table import Table


def finish(run: Run, outcome: Outcome, measured: Accuracy, classifier: Classifier) -> None:
    """Draw the run's pictures and print its summary."""
    folder = run.output_dir
    drawn = [pictures.draw_curves(folder / "curves.png", events(folder, "train"), events(folder, "eval"))]
    if measured.samples:
        names = [classifier.name_of(label) for label in range(classifier.class_dim)]
        drawn.append(pictures.draw_confusion(folder / "confusion.png", measured.confusion, names))
    table = Table(title=f"{classifier.model}, {measured.samples} test images")
    for column in ("top-1", "top-5", "loss", "best top-1", "steps", "time", "images/s", "data wait"):
        table.add_column(column, justify="right")
    metrics = outcome.metrics
    table.add_row(
        *(f"{metrics[name]:.4f}" if metrics else "-" for name in ("acc1", "acc5", "loss")),
        f"{outcome.best:.4f}" if outcome.best is not None else "-",
        str(outcome.step),
        f"{outcome.seconds:.0f} s",
        f"{outcome.samples_per_second:.0f}",
        f"{outcome.data_wait:.1%}",
    )
    console.print(table)
    if outcome.skipped_samples:
        run.say(
            f"{outcome.skipped_samples} unreadable training images were replaced; the log names those that this process read"
        )
    run.say(f"checkpoints, best one at {folder / 'best'}; pictures: {', '.join(map(str, drawn))}")
