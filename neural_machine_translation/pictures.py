"""Pictures of a run and of a translation: learning curves and attention heat-maps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid.plots import new_figure

import numpy as np


def draw_curves(path: Path, train: Sequence[dict[str, Any]], evaluations: Sequence[dict[str, Any]]) -> Path:
    """Perplexity (log scale) and BLEU by step, from the events of a run's log."""
    figure, (left, right) = new_figure(10, 3.6, columns=2)
    perplexity = [np.exp(min(row["nll"], 30.0)) for row in train]
    left.plot([row["step"] for row in train], perplexity, lw=0.9, alpha=0.7, label="training (with dropout)")
    left.plot([row["step"] for row in evaluations], [row["ppl"] for row in evaluations], "o-", ms=4, label="dev")
    left.set(title="perplexity of a word", xlabel="step", yscale="log")
    right.plot([row["step"] for row in evaluations], [row["bleu"] for row in evaluations], "o-", ms=4, label="dev")
    right.set(title="BLEU", xlabel="step", ylim=(0, None))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return path


def draw_attention(
    path: Path, weights: np.ndarray, source: Sequence[str], target: Sequence[str], title: str = ""
) -> Path:
    """Where the decoder looked: weights [len(target), len(source)], a row for each word it wrote."""
    width, height = 1.6 + 0.32 * len(source), 1.4 + 0.28 * len(target)
    figure, axis = new_figure(max(width, 3.0), max(height, 2.5))
    axis.imshow(weights, cmap="Blues", vmin=0, vmax=max(float(weights.max()), 1e-6), aspect="auto")
    axis.set_xticks(range(len(source)), [_plain(word) for word in source], rotation=60, ha="right", fontsize=8)
    axis.set_yticks(range(len(target)), [_plain(word) for word in target], fontsize=8)
    axis.set_xlabel("source")
    axis.set_ylabel("translation")
    if title:
        axis.set_title(_plain(title), fontsize=9)
    figure.savefig(path, dpi=120)
    return path


def _plain(text: str) -> str:
    """Without the dollar signs that would start a formula."""
    return text.replace("$", r"\$")
