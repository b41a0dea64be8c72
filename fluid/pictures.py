"""Pictures that every task draws: the curves of a run, a confusion matrix, and a sheet of what a network saw.

Each function raises UserError, naming the file, if it cannot be written.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluid.lettering import Font, font
from fluid.plots import new_figure, plain
from fluid.records import writing

import numpy as np
from PIL import Image, ImageDraw

GREEN, RED, GREY = (34, 139, 84), (190, 50, 50), (90, 90, 90)
MOST_CLASSES, MOST_COUNTED = 40, 25
"""More would not have names, or counts in the cells, in a confusion matrix."""
FAR = 5
"""So many times the range of most values lies outside what a diagram shows."""


@dataclass(frozen=True)
class Panel:
    """One of the diagrams of `draw_curves`; each field names a value in the events of a run's log."""

    title: str
    train: str | None = None
    """From the log lines of training."""
    evaluation: str | None = None
    deviation: str | None = None
    """Of the evaluation, drawn as bars."""
    shown: Callable[[float], float] = float
    """What is drawn for a value of training."""
    log_scale: bool = False


def draw_curves(
    path: Path,
    panels: Sequence[Panel],
    train: Sequence[Mapping[str, Any]],
    evaluations: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    steps: str = "step",
) -> Path:
    """Values by step, from the events of a run's log; those that have no such value are left out."""
    figure, axes = new_figure(5 * len(panels), 3.6, columns=len(panels))
    for axis, panel in zip(np.atleast_1d(axes), panels):
        rows = [row for row in train if panel.train in row]
        if rows and panel.train:
            values = [panel.shown(row[panel.train]) for row in rows]
            axis.plot([row["step"] for row in rows], values, lw=0.9, alpha=0.7, label="training")
        rows = [row for row in evaluations if panel.evaluation in row]
        if rows and panel.evaluation:
            bars = [row[panel.deviation] for row in rows] if panel.deviation else None
            values = [row[panel.evaluation] for row in rows]
            axis.errorbar([row["step"] for row in rows], values, bars, fmt="o-", ms=4, capsize=2, label="evaluation")
        axis.set(title=panel.title, xlabel=steps, yscale="log" if panel.log_scale else "linear")
        axis.grid(alpha=0.3)
        if not panel.log_scale:
            _keep_readable(axis)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    figure.suptitle(title)
    with writing(path):
        figure.savefig(path, dpi=120)
    return path


def _keep_readable(axis: Any) -> None:
    """Cut off what lies far outside of where most values are, a first evaluation say, and tell it at the edge."""
    drawn = [(x, y) for line in axis.get_lines() for x, y in zip(line.get_xdata(), line.get_ydata()) if np.isfinite(y)]
    if len(drawn) < 4:
        return
    values = np.array([y for _, y in drawn])
    low, high = np.quantile(values, [0.1, 0.9])
    room = max(high - low, 1e-9)
    if values.max() > high + FAR * room:
        top = values[values <= high + FAR * room].max() + 0.1 * room
        axis.set_ylim(values.min() - 0.1 * room, top)
        for x, y in drawn:
            if y > top:
                axis.annotate(f"{y:.3g}", (x, top), ha="center", va="top", fontsize=8, color="tab:red")


def draw_confusion(path: Path, confusion: np.ndarray, names: Sequence[str], *, title: str = "") -> Path:
    """The confusion matrix [true class, predicted class]: rows are normalised, cells of small ones hold the counts."""
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = min(3 + 0.5 * classes, 14)
    figure, axis = new_figure(size, size)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true", title=title)
    if classes <= MOST_CLASSES:
        drawn = [plain(name) for name in names]
        axis.set_xticks(range(classes), drawn, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(classes), drawn, fontsize=8)
    if classes <= MOST_COUNTED:
        for row, column in np.ndindex(confusion.shape):
            if confusion[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=8)
    with writing(path):
        figure.savefig(path, dpi=120)
    return path


def most_confused(
    labels: np.ndarray,
    predicted: np.ndarray,
    classes: int,
    name_of: Callable[[int], str],
    *,
    counts: np.ndarray | None = None,
    most: int = MOST_CLASSES,
) -> tuple[np.ndarray, list[str], str]:
    """A confusion matrix that can be looked at, its names and a title: `labels` and `predicted` [N] of 0..classes-1.

    Of pairs that stand for several samples `counts` [N] says for how many.

    More than `most` classes are grouped: those of the most mistakes, from or to them, have a row each, the others share the
    last one.
    """
    kept, title = np.arange(classes), ""
    counts = np.ones(len(labels), np.int64) if counts is None else counts
    if classes > most:
        wrong = np.where(labels != predicted, counts, 0)
        mistakes = sum(np.bincount(of, wrong, minlength=classes) for of in (labels, predicted))
        kept = np.sort(np.argsort(-mistakes, kind="stable")[: most - 1])
        title = f"the {most - 1} of {classes:,} classes that are confused most"
    size = min(classes, most)
    place = np.full(classes, size - 1)
    place[kept] = np.arange(len(kept))
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (place[labels], place[predicted]), counts)
    names = [name_of(int(label)) for label in kept]
    return matrix, names + (["others"] if classes > most else []), title


def draw_sheet(
    path: Path, images: Sequence[np.ndarray], captions: Sequence[str], correct: Sequence[bool | None], columns: int = 5
) -> Path:
    """A sheet of pictures [H, W, 3] uint8, each with a caption: green if correct, red if wrong, grey if unknown."""
    tile, text_height, margin = 150, 34, 8
    rows = -(-len(images) // columns)
    width, height = columns * (tile + margin) + margin, rows * (tile + text_height + margin) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (image, caption, right) in enumerate(zip(images, captions, correct)):
        left = margin + number % columns * (tile + margin)
        top = margin + number // columns * (tile + text_height + margin)
        picture = Image.fromarray(image)
        smooth = Image.Resampling.BICUBIC if max(picture.size) > tile else Image.Resampling.NEAREST
        scale = tile / max(picture.size)
        picture = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), smooth)
        sheet.paste(picture, (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2))
        color = GREY if right is None else GREEN if right else RED
        for line, text in enumerate(caption.split("\n")[:2]):
            own = font(text, 12)
            draw.text((left, top + tile + 2 + 14 * line), _fit(text, tile, own), fill=color, font=own)
    with writing(path):
        sheet.save(path)
    return path


def _fit(text: str, width: int, own: Font) -> str:
    if own.getlength(text) <= width:
        return text
    while text and own.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
