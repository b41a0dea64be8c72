"""Mixtures of two images and of their labels (mixup, CutMix): what of each pixel is the image's own.

The device mixes every image with its batch's reverse, which is as good a partner as any since the batch is in random order; what is
random is a function of (seed, position) like everything else about a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from fluid.config import Positive
from fluid.data import Batch

import numpy as np

SHARE = "own_share"
"""Input of a training Program that mixes."""
_MIXING = 3


@dataclass
class MixingFlags:
    """Training on mixtures of two images."""

    use_mixup: bool = False
    """Train on mixtures of two images (Zhang et al., arXiv:1710.09412)."""
    mixup_alpha: Positive = 0.2
    """Parameter of the Beta distribution that the mixture is drawn from."""
    use_cutmix: bool = False
    """Train on images with a rectangle of another (Yun et al., arXiv:1905.04899); with --use_mixup every second batch."""
    cutmix_alpha: Positive = 1.0
    """Parameter of the Beta distribution that the rest of the image is drawn from."""

    def share_shape(self, height: int, width: int) -> tuple[int, int] | None:
        """Shape of the shares that images of this size are mixed with; None where nothing is mixed."""
        if self.use_cutmix:
            return height, width
        return (1, 1) if self.use_mixup else None


def mixed(batches: Iterator[Batch], flags: MixingFlags, seed: int, height: int, width: int) -> Iterator[Batch]:
    """Add each batch's `own_share` [height, width] or [1, 1] float32, where the flags ask for mixtures."""
    if flags.share_shape(height, width) is None:
        yield from batches
        return
    for batch in batches:
        rng = np.random.default_rng((seed, _MIXING, batch.index))
        yield replace(batch, feed={**batch.feed, SHARE: own_share(flags, rng, height, width)})


def own_share(flags: MixingFlags, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Share of each pixel that is the image's own, float32: the same everywhere, or 1 outside a rectangle and 0 in it."""
    shape = flags.share_shape(height, width)
    assert shape is not None
    if not flags.use_cutmix or (flags.use_mixup and rng.random() < 0.5):
        return np.full(shape, rng.beta(flags.mixup_alpha, flags.mixup_alpha), np.float32)
    side = (1 - rng.beta(flags.cutmix_alpha, flags.cutmix_alpha)) ** 0.5
    share = np.ones(shape, np.float32)
    # The middle lies anywhere, so a part of the rectangle may lie outside.
    rows, columns = (
        slice(max(round(middle - length * side / 2), 0), round(middle + length * side / 2))
        for middle, length in ((rng.uniform(0, height), height), (rng.uniform(0, width), width))
    )
    share[rows, columns] = 0
    return share
