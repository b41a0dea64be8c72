"""Opening a segmenter by flags. Needs Paddle only to fit weights that do not say which network they are for."""

import re
from collections.abc import Collection
from functools import partial

from fluid import weights
from fluid.errors import UserError
from fluid.weights import Bare, Opened, Report, load_into, registry
from icnet.classes import CITYSCAPES, numbered
from icnet.segmenter import BLOCKS, FOLDER, HEADS, Blocks, NetworkFlags, Segmenter, scaled

import numpy as np

DEFAULT = "streets"
"""What comes along for pictures, by its name in weights.toml."""
SIMPLE = "streets_simple"
"""What `train` without flags makes, which `eval` without flags measures."""


def load_weights(
    state: dict[str, np.ndarray], spec: str, *, allow_partial: bool = False
) -> tuple[dict[str, np.ndarray], Report]:
    """Put weights into `state`; heads for another number of classes keep their initial values.

    Raises WeightsError if something else does not fit, or the weights cannot be read.
    """
    entry = registry.identify(spec, FOLDER)
    arrays = Bare(spec, FOLDER, entry).read()
    heads = tuple(f"{name}.*" for name in HEADS)
    optional = entry.optional if entry else ()
    return load_into(state, arrays, head=heads, optional=optional, allow_partial=allow_partial)


def open_segmenter(flags: NetworkFlags, default: str = DEFAULT) -> Opened[Segmenter]:
    """The network that the flags name, or `default`, ready to be used; raises UserError for what cannot be."""
    fit = partial(_fit, flags=flags)
    return weights.open(FOLDER, flags, default=default, key="segmenter", from_facts=Segmenter.from_facts, fit=fit)


def _fit(bare: Bare, flags: NetworkFlags) -> tuple[Segmenter, dict[str, np.ndarray], Report]:
    """Weights alone: width, blocks and number of classes are those of their arrays, 19 classes are those of Cityscapes."""
    from fluid.program import initialise
    from icnet.model import SMALLEST_SIDE
    from icnet.network import inference_program

    arrays = bare.read()
    first, head = arrays.get("conv5_4_k1.w_0"), arrays.get("conv6_cls.w_0")
    width = flags.width or (1.0 if first is None else first.shape[0] / 256)
    if first is not None and scaled(256, width) != first.shape[0]:
        raise UserError(f"--width {width:g} contradicts {bare.spec}, whose conv5_4_k1 has {first.shape[0]} channels")
    count = 19 if head is None else head.shape[0]
    classes = CITYSCAPES if count == 19 else numbered(count)
    segmenter = Segmenter(width, flags.rounding or "floor", classes=classes, blocks=blocks_of(arrays))
    initial = initialise(inference_program(segmenter, (SMALLEST_SIDE, SMALLEST_SIDE)), seed=0)
    optional = bare.entry.optional if bare.entry else ()
    return segmenter, *load_into(initial, arrays, optional=optional, allow_partial=flags.allow_partial)


def blocks_of(names: Collection[str]) -> Blocks:
    """Residual blocks of the four groups, by the names of arrays; those of the release, where a group has none at all."""
    groups = range(2, 2 + len(BLOCKS))
    first, second, third, fourth = (
        sum(re.fullmatch(rf"conv{group}_\d+_1_1_reduce\.w_0", name) is not None for name in names) for group in groups
    )
    return (first, second, third, fourth) if first and second and third and fourth else BLOCKS
