"""Pictures: the curves of a run, and what the network answered while words were said."""

from pathlib import Path

from DeepASR.decoding.lexicon import STATES, Lexicon
from DeepASR.features import FRAME_SHIFT
from DeepASR.forced_alignment import Alignment
from fluid.pictures import Panel
from fluid.plots import new_figure, plain
from fluid.records import writing

import numpy as np

CURVES = (
    Panel("cross-entropy of a frame", "loss", "loss", log_scale=True),
    Panel("frame accuracy, %", "accuracy", "frame_accuracy", shown=lambda share: 100 * share),
)
"""Of training and of the dev utterances, by step."""


def draw_alignment(path: Path, posterior: np.ndarray, alignment: Alignment, lexicon: Lexicon) -> Path:
    """Posteriors [T, classes] of the phones that were said, in their order, and the path through them."""
    phones = list(dict.fromkeys(alignment.pdfs // STATES))
    shares = posterior.reshape(len(posterior), -1, STATES).sum(axis=2)[:, phones].T
    row_of = {phone: row for row, phone in enumerate(phones)}
    seconds = FRAME_SHIFT * len(posterior)
    figure, axis = new_figure(max(4.0, 4 * seconds), 1.2 + 0.2 * len(phones))
    axis.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1, extent=(0, seconds, len(phones) - 0.5, -0.5))
    rows = [row_of[phone] for phone in alignment.pdfs // STATES]
    axis.step(FRAME_SHIFT * np.arange(len(rows)), rows, where="post", color="tab:red", lw=1)
    for _, start, _ in alignment.spans():
        axis.axvline(FRAME_SHIFT * start, color="grey", lw=0.5)
    axis.set_yticks(range(len(phones)), [plain(lexicon.phones[phone]) for phone in phones], fontsize=8)
    axis.set_xlabel("seconds; grey: a word begins")
    with writing(path):
        figure.savefig(path, dpi=100)
    return path
