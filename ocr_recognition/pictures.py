"""Pictures of readings: sheets of words with what was read, curves of a run, and how far confidences can be trusted."""

from collections.abc import Sequence
from pathlib import Path

from fluid.lettering import font
from fluid.pictures import GREEN, GREY, RED, Panel
from fluid.plots import new_figure
from fluid.records import writing

import numpy as np
from PIL import Image, ImageDraw

CURVES = (
    Panel("loss", train="loss", evaluation="loss", log_scale=True),
    Panel("words read exactly", evaluation="exact"),
    Panel("character error rate", evaluation="cer"),
)
_TILE, _TEXT, _MARGIN = (260, 48), 18, 8
_ROWS = 96
"""Of a word whose characters are shown."""


def draw_words(
    path: Path, words: Sequence[np.ndarray], captions: Sequence[str], correct: Sequence[bool | None], columns: int = 4
) -> Path:
    """A sheet of words [H, W] or [H, W, 3] uint8, each with a caption: green if correct, red if wrong, grey if unknown."""
    rows = -(-len(words) // columns)
    across, down = _TILE[0] + _MARGIN, _TILE[1] + _TEXT + _MARGIN
    sheet = Image.new("RGB", (columns * across + _MARGIN, rows * down + _MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (word, caption, right) in enumerate(zip(words, captions, correct, strict=True)):
        left, top = _MARGIN + number % columns * across, _MARGIN + number // columns * down
        picture = Image.fromarray(word).convert("RGB")
        picture.thumbnail(_TILE, Image.Resampling.BICUBIC)
        sheet.paste(picture, (left, top))
        color = GREY if right is None else GREEN if right else RED
        draw.text((left, top + _TILE[1] + 2), caption, fill=color, font=font(caption, 13))
    with writing(path):
        sheet.save(path)
    return path


def draw_places(picture: np.ndarray, spans: Sequence[tuple[float, float]], text: str) -> np.ndarray:
    """A word [H, W] or [H, W, 3] uint8, 96 rows high, its characters below it, each between the columns where it was read."""
    image = Image.fromarray(picture).convert("RGB")
    scale = _ROWS / image.height
    image = image.resize((max(1, round(image.width * scale)), _ROWS), Image.Resampling.BICUBIC)
    sheet = Image.new("RGB", (image.width, image.height + 28), "white")
    sheet.paste(image)
    draw, own = ImageDraw.Draw(sheet), font(text, 18)
    for character, (begin, end) in zip(text, spans, strict=True):
        draw.line([(begin * scale, image.height - 2), (end * scale - 2, image.height - 2)], fill=GREEN, width=3)
        draw.text(((begin + end) / 2 * scale, image.height + 2), character, fill=GREY, font=own, anchor="ma")
    return np.asarray(sheet)


def draw_reliability(path: Path, table: np.ndarray, error: float) -> Path:
    """How many of the words that were read with a confidence were read exactly: `table` of `metrics.reliability`."""
    figure, axis = new_figure(4.2, 4.0)
    used = table[:, 0] > 0
    axis.plot([0, 1], [0, 1], color="grey", lw=0.8, ls=":")
    axis.bar((np.arange(len(table)) + 0.5) / len(table), table[:, 2], width=0.9 / len(table), alpha=0.5)
    axis.plot(table[used, 1], table[used, 2], "o-", ms=4)
    axis.set(xlabel="confidence", ylabel="share read exactly", title=f"expected calibration error {error:.3f}")
    axis.set(xlim=(0, 1), ylim=(0, 1))
    with writing(path):
        figure.savefig(path, dpi=120)
    return path
