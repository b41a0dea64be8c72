"""The automatic variable names of Fluid, under which weights were released until December 2018.

Networks of that time did not name their parameters. Fluid counted the layers of each type in the order of their
creation: the third convolution had `conv2d_2.w_0` (filter) and `conv2d_2.b_0` (bias), the first batch normalisation
`batch_norm_0.w_0` (scale), `.b_0` (offset), `.w_1` (mean) and `.w_2` (variance). The networks of this folder create
their layers in the same order, so the table follows from the Program alone.

It holds for AlexNet, VGG (the `_bias` form), ResNet, InceptionV4, MobileNetV1 and SE_ResNeXt. GoogLeNet's pool
projections then had biases that the later releases lack, and DPN had narrower convolutions (by a mistake corrected
before any DPN weights were released): such weights are refused, or do not fit by shape.
"""

import re
from collections import Counter

from fluid.errors import WeightsError
from fluid.program import Program

import numpy as np
from paddle.pir import Value

AUTOMATIC_NAME = re.compile(r"(conv2d|depthwise_conv2d|batch_norm|fc)_\d+\.[wb]_\d+")
# Paddle's operator -> Fluid's layer type
LAYER_TYPES = {"conv2d": "conv2d", "depthwise_conv2d": "depthwise_conv2d", "batch_norm_": "batch_norm", "matmul": "fc"}


def automatic_names(program: Program) -> dict[str, str]:
    """Automatic name -> parameter name of every variable of `program`, a network of this folder."""
    names: dict[str, str] = {}
    counts: Counter[str] = Counter()
    layer_of: dict[int, str] = {}
    for op in program.main.global_block().ops:
        kind = op.name().removeprefix("pd_op.")
        operands = op.operands_source()
        if kind in LAYER_TYPES:
            layer = f"{LAYER_TYPES[kind]}_{counts[LAYER_TYPES[kind]]}"
            counts[LAYER_TYPES[kind]] += 1
            layer_of[op.id()] = layer
            if kind == "batch_norm_":
                _, mean, variance, scale, offset = operands[:5]
                names |= {f"{layer}.w_0": scale.name, f"{layer}.b_0": offset.name}
                names |= {f"{layer}.w_1": mean.name, f"{layer}.w_2": variance.name}
            else:
                names[f"{layer}.w_0"] = operands[1].name
        elif kind == "add" and (bias := _parameter(operands[1])) is not None:
            names[f"{layer_of[operands[0].get_defining_op().id()]}.b_0"] = bias
    return names


def rename_automatic(weights: dict[str, np.ndarray], program: Program) -> dict[str, np.ndarray]:
    """`weights` with automatic names replaced by the names in `program`; other entries keep theirs.

    Raises:
        WeightsError: an automatically named variable has no counterpart: the weights are another network's.
    """
    names = automatic_names(program)
    strangers = [name for name in weights if AUTOMATIC_NAME.fullmatch(name) and name not in names]
    if strangers:
        raise WeightsError(
            f"{program.name}: the weights belong to another network. They have automatic names of 2018, and "
            f"{len(strangers)} of them, such as {strangers[0]}, have no counterpart here: choose the network they are for"
        )
    return {names.get(name, name): array for name, array in weights.items()}


def _parameter(value: Value) -> str | None:
    """Name of the parameter behind a bias, which a convolution's reshapes to [1, C, 1, 1]; None for anything else."""
    op = value.get_defining_op()
    if op.name() == "pd_op.reshape":
        op = op.operands_source()[0].get_defining_op()
    return op.attrs()["parameter_name"] if op.name() == "builtin.parameter" else None
