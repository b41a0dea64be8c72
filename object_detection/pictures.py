"""What an evaluation looks like: precision against recall, which classes are taken for which, and the worst pictures."""

from collections.abc import Sequence
from pathlib import Path

from fluid.lettering import font
from fluid.pictures import draw_confusion, most_confused
from fluid.plots import new_figure, plain
from fluid.records import writing
from fluid.text import number_of
from object_detection import boxes as box
from object_detection.annotations import DataSet, Objects
from object_detection.drawing import color_of, draw
from object_detection.found import in_pixels
from object_detection.metrics import Curve, Detections, voc_curves

import numpy as np
from PIL import Image, ImageDraw

SCORE = 0.25
"""From which on a detection counts in the confusion matrix, as ultralytics has it."""
NOTHING = "(background)"
WORST, WORST_WIDTH = 6, 1200
"""Pictures with mistakes that are shown, and the width of two side by side."""
INSIDE, IN_LEGEND = 3, 25
"""So many classes are named inside of the diagram, and so many at all."""


def draw_evaluation(folder: Path, metric: Detections, data: DataSet, iou: float) -> list[Path]:
    """Write precision_recall.png, confusion.png and worst.jpg of what a metric has collected of a data set.

    A detection is right from an IoU of `iou` on.
    """
    table, classes = metric.table(), len(data.class_names)
    curves = voc_curves(table, data.objects, classes, iou)
    matrices = confusions(table, data.objects, classes, iou)
    confusion, names, which = shown_confusion(matrices.sum(axis=0), [*data.class_names, NOTHING])
    title = f"boxes of score {SCORE:g} and more, IoU {iou:g}" + (f"; {which}" if which else "")
    return [
        draw_precision_recall(folder / "precision_recall.png", curves, data.class_names, iou),
        draw_confusion(folder / "confusion.png", confusion, names, title=title),
        draw_worst(folder / "worst.jpg", table, data, matrices),
    ]


def shown_confusion(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str], str]:
    """As much of a confusion matrix as can be looked at, its names, and which part it is."""
    rows, columns = matrix.nonzero()
    return most_confused(rows, columns, len(names), names.__getitem__, counts=matrix[rows, columns])


def best_threshold(curve: Curve) -> tuple[float, float]:
    """The largest F1, the harmonic mean of precision and recall, and the score from which on detections must be kept for it.

    (0, 1) for a class of which nothing was found.
    """
    both = curve.precision + curve.recall
    f1 = np.divide(2 * curve.precision * curve.recall, both, out=np.zeros_like(both), where=both > 0)
    # Detections of the same score are kept together.
    last = np.append(np.diff(curve.scores) != 0, True)[: len(f1)]
    f1 = np.where(last, f1, 0)
    if not f1.any():
        return 0.0, 1.0
    best = int(f1.argmax())
    return float(f1[best]), float(curve.scores[best])


def draw_precision_recall(path: Path, curves: Sequence[Curve], class_names: Sequence[str], iou: float) -> Path:
    """The curve of every class with objects, in the class's colour, and a point where F1 is largest."""
    shown = [(number, curve) for number, curve in enumerate(curves) if curve.objects]
    figure, axis = new_figure(7 if len(shown) <= INSIDE else 9.5, 5)
    for number, curve in shown:
        f1, score = best_threshold(curve)
        color = np.array(color_of(number)) / 255
        average = curve.average_precision("integral")
        label = f"{plain(class_names[number])} AP {average:.3f}, F1 {f1:.2f} from {score:.2f}"
        axis.step([0, *curve.recall], [1, *curve.precision], where="post", color=color, lw=1.5, label=label)
        if f1:
            at = int(np.flatnonzero(curve.scores >= score)[-1])
            axis.plot(curve.recall[at], curve.precision[at], "o", ms=5, color=color)
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=f"IoU {iou:g}")
    axis.grid(alpha=0.3)
    if 0 < len(shown) <= INSIDE:
        axis.legend(frameon=False, loc="lower left")
    elif 0 < len(shown) <= IN_LEGEND:
        axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    with writing(path):
        figure.savefig(path, dpi=120)
    return path


def draw_worst(path: Path, table: np.ndarray, data: DataSet, matrices: np.ndarray) -> Path:
    """The pictures with the most mistakes, worst first: what is annotated on the left, what was found on the right."""
    mistakes = matrices.sum(axis=(1, 2)) - np.trace(matrices, axis1=1, axis2=2)
    rows = []
    for index in np.argsort(-mistakes, kind="stable")[:WORST]:
        picture, item = data.picture(int(index)), data.objects[index]
        own = table[(table[:, 0] == index) & (table[:, 2] >= SCORE)][:, 1:]
        truth = np.concatenate([item.labels[:, None], np.ones((len(item.labels), 1)), item.boxes], axis=1)
        both = [draw(picture, in_pixels(boxes, picture, data.class_names)) for boxes in (truth, own)]
        pair = Image.fromarray(
            np.concatenate([np.pad(x, ((0, 0), (0, 8), (0, 0)), constant_values=255) for x in both], axis=1)
        )
        pair.thumbnail((WORST_WIDTH, WORST_WIDTH))
        rows.append((f"{data.images[index]}: {number_of(mistakes[index], 'mistake')}", pair))
    sheet = Image.new("RGB", (WORST_WIDTH, sum(pair.height + 28 for _, pair in rows)), "white")
    pen, top = ImageDraw.Draw(sheet), 0
    for caption, pair in rows:
        pen.text((4, top + 4), caption, fill="black", font=font(caption, 14))
        sheet.paste(pair, (0, top + 24))
        top += pair.height + 28
    with writing(path):
        sheet.save(path, quality=88)
    return path


def confusions(table: np.ndarray, objects: Sequence[Objects], classes: int, iou: float) -> np.ndarray:
    """Of each image counts [1 + classes, 1 + classes], the class of an object by that of its detection; the last is background.

    Of the detections [n, COLUMNS] with a score of `SCORE` or more, pairs with the objects of their image are made in the order
    of their IoU, down to `iou`, whatever the classes. What is left is missed, or found where nothing is. Difficult
    objects and crowds do not count, and neither do detections on them.
    """
    matrices = np.zeros((len(objects), classes + 1, classes + 1), np.int64)
    table = table[table[:, 2] >= SCORE]
    for number, (matrix, item) in enumerate(zip(matrices, objects, strict=True)):
        own = table[table[:, 0] == number]
        ignored = item.difficult | item.crowd
        overlaps = box.ious(item.boxes.astype(np.float64), own[:, 3:])
        found_by = _pairs(overlaps, iou)
        for index, label in enumerate(item.labels):
            if not ignored[index]:
                by = found_by.get(index)
                matrix[label, classes if by is None else int(own[by, 1])] += 1
        for by in set(range(len(own))) - set(found_by.values()):
            if not (overlaps[ignored, by] >= iou).any():
                matrix[classes, int(own[by, 1])] += 1
    return matrices


def _pairs(overlaps: np.ndarray, iou: float) -> dict[int, int]:
    """Of overlaps [objects, detections] the largest again and again, each row and column once: object -> detection."""
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        row, column = divmod(int(flat), overlaps.shape[1])
        if overlaps[row, column] < iou:
            break
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs
