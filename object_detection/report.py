"""The end of a training run: its curves and its summary."""

from fluid.pictures import Panel, draw_curves
from fluid.run import Run, events, show_summary
from fluid.trainer import Outcome

FIGURES = {"map": "mAP", "AP": "AP of IoU .5 to .95"}


def finish(run: Run, outcome: Outcome, figure: str, protocol: str) -> None:
    """Draw the run's curves and print its summary; `figure` is the one that decides, `protocol` how it came about."""
    folder = run.output_dir
    panels = [
        Panel("loss", train="loss", log_scale=True),
        Panel("loss of boxes", train="loss_box", log_scale=True),
        Panel("loss of classes", train="loss_class", log_scale=True),
        Panel(FIGURES[figure], evaluation=figure),
    ]
    drawn = draw_curves(folder / "curves.png", panels, events(folder, "train"), events(folder, "eval"))
    show_summary(protocol, outcome.summary("images", {FIGURES[figure]: figure}))
    run.say(f"Best test map {outcome.best:.4f} at step {outcome.best_step}")
    run.say_left([drawn], skipped_samples=outcome.skipped_samples)
