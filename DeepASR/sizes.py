"""The sizes of the acoustic model. Without Paddle, so that Programs from files can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from DeepASR.transforms import CONTEXT
from fluid.errors import WeightsError
from fluid.interface import Interface

import numpy as np

WIDTH = 2 * CONTEXT + 1


@dataclass(frozen=True)
class Sizes:
    """Of the network; the default is the one released in 2018."""

    frame_dim: int = 80
    """Features of a frame, without deltas."""
    stacked_num: int = 5
    """Recurrent layers."""
    hidden_dim: int = 1024
    """Cells of a layer."""
    proj_dim: int = 512
    """Outputs of a layer."""
    class_num: int = 3040
    """Tied states (pdfs) that are told apart."""
    filters: int = 32
    """Of the convolution."""

    @property
    def pooled(self) -> int:
        """Numbers that the convolution leaves of a frame: a pooling of 3 x 3 at every second place."""
        return self.filters * ((WIDTH - 1) // 2) * ((self.frame_dim - 1) // 2)


def sizes_of(state: Mapping[str, np.ndarray]) -> Sizes:
    """The sizes of the network that weights belong to. Raises WeightsError for other weights.

    The pooling drops an odd last feature, so of two possible `frame_dim` the even one is named.
    """
    layers = sum(f"lstmp_{number}.w_0" in state for number in range(len(state)))
    try:
        hidden, projection = state["lstmp_0.w_1"].shape
        filters = state["conv2d_0.w_0"].shape[0]
        columns = state["fc_0.w_0"].shape[0] // (filters * ((WIDTH - 1) // 2))
        classes = state[f"fc_{layers}.w_0"].shape[1]
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"these are not the weights of a stack of projected LSTMs ({error})") from error
    return Sizes(2 * columns + 2, layers, hidden, projection, classes, filters)


def silence(program: Interface, rows: int) -> dict[str, np.ndarray]:
    """The states before the first piece of `rows` utterances, by the inputs of a Program of `network.build_stream`."""
    widths = {name: program.inputs[name].shape[1] or 0 for name in program.carry.values()}
    return {name: np.zeros((rows, width), np.float32) for name, width in widths.items()}
