"""Pictures of a run."""

from fluid.pictures import Panel

CURVES = (
    Panel("cross-entropy of a frame", "loss", "loss", log_scale=True),
    Panel("frame accuracy, %", "accuracy", "frame_accuracy", shown=lambda share: 100 * share),
)
"""Of training and of the dev utterances, by step."""
