"""Connectionist temporal classification (Graves et al., ICML 2006): the loss.

The blank is a class of its own; where it stands among the classes travels with the weights (2018: last).
"""

from fluid.program import Value

import paddle
import paddle.nn.functional as F


def ctc_losses(logits: Value, label: Value, frames: Value, length: Value, *, blank: int) -> Value:
    """Negative log-likelihood [N] of labels.

    Args:
        logits: [N, T, classes], the blank among them.
        label: [N, L] int32, padded with anything that is a class.
        frames: [N] int64, steps of each sample.
        length: [N] int64, characters of each label.
        blank: its class.

    A label that cannot be aligned (`alignment.frames_needed`) has the loss 0 and the gradient 0 in Paddle: find such samples before.
    """
    by_step = paddle.transpose(logits, [1, 0, 2])
    return F.ctc_loss(by_step, label, frames, length, blank=blank, reduction="none").reshape([-1])
