"""The end of a training run: its pictures and its summary."""

from pathlib import Path

from fluid.pictures import draw_curves
from fluid.run import Run, events, show_summary
from fluid.trainer import Outcome
from ocr_recognition import pictures
from ocr_recognition.metrics import Accuracy
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.sources import MeasuredWords

SHOWN = 60
"""Words on a sheet."""


def finish(run: Run, outcome: Outcome, measured: Accuracy, source: MeasuredWords, recognizer: Recognizer) -> None:
    """Draw the run's pictures and print its summary."""
    folder = run.output_dir
    drawn = [draw_curves(folder / "curves.png", pictures.CURVES, events(folder, "train"), events(folder, "eval"))]
    if measured.found:
        drawn.append(draw_found(folder / "words.png", measured, source))
    names = {
        "read exactly": "exact",
        "without case and marks": "alphanumeric",
        "character error rate": "cer",
        "1-NED": "1-ned",
    }
    show_summary(f"{recognizer.model}, {source.origin}", outcome.summary("words", names))
    run.say_left(drawn, skipped_samples=outcome.skipped_samples)


def draw_found(path: Path, measured: Accuracy, source: MeasuredWords) -> Path:
    """A sheet of words with what was read in them, those that were misread first."""
    right = {index: text == source.texts[index] for index, (text, _) in measured.found.items()}
    order = sorted(right, key=lambda index: (right[index], index))[:SHOWN]
    captions = [
        f"{text}  {sure:.2f}" + ("" if right[index] else f"  not {source.texts[index]}")
        for index in order
        for text, sure in [measured.found[index]]
    ]
    return pictures.draw_words(
        path, [source.picture(index) for index in order], captions, [right[index] for index in order]
    )
