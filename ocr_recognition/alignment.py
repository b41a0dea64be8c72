"""Which labels CTC can align with the frames of a picture; free of Paddle, for readers."""

from collections.abc import Sequence

import numpy as np


def frames_needed(label: Sequence[int] | np.ndarray) -> int:
    """Fewest frames that a label can be aligned with: one a character, and a blank between equal neighbours."""
    label = np.asarray(label)
    return len(label) + int(np.sum(label[1:] == label[:-1]))


def frames_of_width(width: int, columns_a_frame: int) -> int:
    """Frames of a picture this wide: each pooling rounds up."""
    return -(-width // columns_a_frame)
