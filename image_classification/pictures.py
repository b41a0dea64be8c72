"""Pictures of a run: learning curves, the confusion matrix, and a sheet of images with their predictions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid.plots import new_figure

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

GREEN, RED, GREY = (34, 139, 84), (190, 50, 50), (90, 90, 90)


def draw_curves(path: Path, train: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> Path:
    """Loss and top-1 accuracy by step, from the events of a run's log."""
    figure, (left, right) = new_figure(10, 3.6, columns=2)
    for axis, name, title in ((left, "loss", "loss"), (right, "acc1", "top-1 accuracy")):
        axis.plot([row["step"] for row in train], [row[name] for row in train], lw=0.9, alpha=0.7, label="training")
        axis.plot([row["step"] for row in evaluations], [row[name] for row in evaluations], "o-", ms=4, label="test")
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def draw_confusion(path: Path, confusion: np.ndarray, names: Sequence[str]) -> Path:
    """The confusion matrix [true class, predicted class]: rows are normalised, cells of small ones hold the counts."""
    classes = len(confusion)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = min(3 + 0.5 * classes, 14)
    figure, axis = new_figure(size, size)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set(xlabel="predicted", ylabel="true")
    if classes <= 40:
        axis.set_xticks(range(classes), names, rotation=60, ha="right", fontsize=8)
        axis.set_yticks(range(classes), names, fontsize=8)
    if classes <= 20:
        for row, column in np.ndindex(confusion.shape):
            if confusion[row, column]:
                color = "white" if shares[row, column] > 0.5 else "black"
                axis.text(column, row, str(confusion[row, column]), ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=120)
    return path


def draw_sheet(
    path: Path, images: Sequence[np.ndarray], captions: Sequence[str], correct: Sequence[bool | None], columns: int = 5
) -> Path:
    """A sheet of pictures [H, W, 3] uint8, each with a caption: green if correct, red if wrong, grey if unknown."""
    tile, text_height, margin = 150, 34, 8
    rows = -(-len(images) // columns)
    width, height = columns * (tile + margin) + margin, rows * (tile + text_height + margin) + margin
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for number, (image, caption, right) in enumerate(zip(images, captions, correct)):
        left = margin + number % columns * (tile + margin)
        top = margin + number // columns * (tile + text_height + margin)
        picture = Image.fromarray(image)
        smooth = Image.Resampling.BICUBIC if max(picture.size) > tile else Image.Resampling.NEAREST
        scale = tile / max(picture.size)
        picture = picture.resize([max(1, round(side * scale)) for side in picture.size], smooth)
        sheet.paste(picture, (left + (tile - picture.width) // 2, top + (tile - picture.height) // 2))
        color = GREY if right is None else GREEN if right else RED
        for line, text in enumerate(caption.split("\n")[:2]):
            draw.text((left, top + tile + 2 + 14 * line), _fit(text, tile, font), fill=color, font=font)
    sheet.save(path)
    return path


def _fit(text: str, width: int, font: ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def thumbnail(path: str, side: int = 300) -> np.ndarray:
    """A file's picture, upright, no larger than `side` pixels: [H, W, 3] uint8."""
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)
        image.thumbnail((side, side))
        return np.asarray(image.convert("RGB"))
