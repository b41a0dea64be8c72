"""The acoustic model of 2018: a convolution over each frame's surroundings, and a stack of projected LSTMs.

    logits, states = stacked_lstmp(feature, length, sizes, training)          [N, T, classes]

`feature` [N, T, 3, 11, frame_dim] holds utterances of different length, `length` [N] the frames of each. **Padding changes
nothing**: batch statistics count real frames alone, as the batches of 2018 had no others, and beyond its end an utterance
keeps its state. What is returned there is not defined: mask it (`before`).

The parameters carry the names that Fluid generated, `conv2d_0.w_0`, `fc_0.w_0`, `lstmp_0.w_0`, ..., so the released weights
load as they are. The cell (Sak et al., arXiv:1402.1128) has peepholes and a tanh on its projection, as in 2018.
"""

from __future__ import annotations

from DeepASR.sizes import WIDTH, Sizes
from DeepASR.transforms import DELTAS
from fluid.normalization import masked_batch_norm
from fluid.program import Value
from fluid.recurrent import lstm

import paddle
import paddle.nn.functional as F

States = list[tuple[Value, Value]]
"""Output [N, proj_dim] and memory [N, hidden_dim] of each layer."""


def stacked_lstmp(
    feature: Value, length: Value, sizes: Sizes, training: bool, initial: States | None = None
) -> tuple[Value, States]:
    """Logits [N, T, class_num], and the states after each utterance's last frame.

    Args:
        feature: [N, T, 3, 11, frame_dim], features with deltas of a frame and its neighbours.
        length: [N] int64, frames of each.
        sizes: of the network.
        training: batch normalisation takes the statistics of the batch.
        initial: states before the first frame, those after the piece before in a stream; 0 by default.
    """
    x = _convolved(feature, sizes)
    inside = before(length, x).unsqueeze(1)
    states: States = []
    for layer in range(sizes.stacked_num):
        gates = _fully_connected(x, f"fc_{layer}", 4 * sizes.hidden_dim)
        start = None if initial is None else initial[layer]
        options = {"name": f"lstmp_{layer}", "projection": sizes.proj_dim, "lengths": length, "initial": start}
        x, state = lstm(gates, sizes.hidden_dim, **options)
        states.append(state)
        x = x.transpose([0, 2, 1])
        x = masked_batch_norm(x, inside, name=f"batch_norm_{layer}", training=training).transpose([0, 2, 1])
    return _fully_connected(x, f"fc_{sizes.stacked_num}", sizes.class_num), states


def before(length: Value, x: Value) -> Value:
    """[N, T], 1 for the first `length` [N] steps of x [N, T, ...] and 0 for the others."""
    steps = x.shape[1] if x.shape[1] >= 0 else paddle.shape(x)[1]
    return paddle.cast(paddle.arange(steps, dtype=length.dtype).unsqueeze(0) < length.unsqueeze(1), x.dtype)


def _convolved(feature: Value, sizes: Sizes) -> Value:
    """The convolution of each frame by itself, [N, T, pooled]."""
    x = feature.reshape([-1, DELTAS, WIDTH, sizes.frame_dim])
    kernel = _parameter("conv2d_0.w_0", [sizes.filters, DELTAS, 3, 3])
    x = F.relu(F.conv2d(x, kernel, _parameter("conv2d_0.b_0", [sizes.filters], is_bias=True), padding=1))
    x = F.max_pool2d(x, 3, 2)
    rows, steps = (feature.shape[axis] if feature.shape[axis] >= 0 else paddle.shape(feature)[axis] for axis in (0, 1))
    return x.reshape([rows, steps, sizes.pooled])


def _fully_connected(x: Value, name: str, size: int) -> Value:
    weight = _parameter(f"{name}.w_0", [x.shape[-1], size])
    return paddle.matmul(x, weight) + _parameter(f"{name}.b_0", [size], is_bias=True)


def _parameter(name: str, shape: list[int], *, is_bias: bool = False) -> Value:
    return paddle.create_parameter(shape, "float32", attr=paddle.ParamAttr(name=name), is_bias=is_bias)
