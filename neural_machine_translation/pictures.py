"""Pictures of a run and of a translation: learning curves and attention heat-maps."""

from collections.abc import Sequence
from pathlib import Path

from fluid.pictures import Panel
from fluid.plots import new_figure, plain
from fluid.records import writing

import numpy as np

CURVES = (
    Panel("perplexity of a word", "nll", "ppl", shown=lambda nll: np.exp(min(nll, 30.0)), log_scale=True),
    Panel("BLEU", evaluation="bleu"),
)
"""Of training, with its dropout, and of the dev sentences, by step."""


def draw_attention(path: Path, weights: np.ndarray, source: Sequence[str], target: Sequence[str]) -> Path:
    """Where the decoder looked: weights [len(target), len(source)], a row for each word it wrote."""
    width, height = 1.6 + 0.32 * len(source), 1.4 + 0.28 * len(target)
    figure, axis = new_figure(max(width, 3.0), max(height, 2.5))
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=max(float(weights.max()), 1e-6), aspect="auto")
    axis.set_xticks(range(len(source)), [plain(word) for word in source], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(target)), [plain(word) for word in target], fontsize=8)
    axis.set_xlabel("source")
    axis.set_ylabel("translation")
    with writing(path):
        figure.savefig(path, dpi=120)
    return path
