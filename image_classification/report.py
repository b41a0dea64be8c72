"""The end of a training run: its pictures and its summary."""

from fluid.pictures import draw_confusion, draw_curves
from fluid.run import Run, events, show_summary
from fluid.trainer import Outcome
from image_classification import pictures
from image_classification.classifier import Classifier
from image_classification.metrics import MOST_IN_PICTURE, Accuracy


def finish(run: Run, outcome: Outcome, measured: Accuracy, classifier: Classifier) -> None:
    """Draw the run's pictures and print its summary."""
    folder = run.output_dir
    drawn = [draw_curves(folder / "curves.png", pictures.CURVES, events(folder, "train"), events(folder, "eval"))]
    if measured.samples and classifier.class_dim <= MOST_IN_PICTURE:
        classes = [classifier.name_of(label) for label in range(classifier.class_dim)]
        drawn.append(draw_confusion(folder / "confusion.png", measured.confusion, classes))
    names = {"top-1": "acc1", "top-5": "acc5", "mean of the classes": "balanced_acc", "F1": "f1", "loss": "loss"}
    if classifier.class_dim <= 5:
        del names["top-5"]
    show_summary(f"{classifier.model}, {measured.samples} test images", outcome.summary("images", names))
    if outcome.skipped_samples:
        run.say(
            f"{outcome.skipped_samples} unreadable training images were replaced; the log names those that this process read"
        )
    run.say(f"checkpoints, best one at {folder / 'best'}; pictures: {', '.join(map(str, drawn))}")
