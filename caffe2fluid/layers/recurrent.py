"""LSTM and RNN. Time is axis 0; the second bottom [T, N] is 0 where a sequence starts, else 1."""

from __future__ import annotations

from .node import Node, arguments, register_layer


def _recurrent(node: Node, gates: int, matrices: list[tuple[str, list[int]]], function: str, states: int) -> None:
    """``matrices``: suffix and stored shape of the blobs that follow those of the input."""
    params = node.params("recurrent_param")
    units, exposed = node.positive(params, "num_output"), params.flag("expose_hidden", False)
    node.needs_bottoms(2)
    steps, batch, *rest = node.shape
    static = len(node.inputs) - 2 - (states if exposed else 0)
    if node.shapes[1] != [steps, batch] or not rest or static not in (0, 1):
        raise node.error(f"bottoms of shapes {node.shapes} for {units} units")
    features, fixed = 1, 1
    for dim in rest:
        features *= dim
    for dim in node.shapes[2][1:] if static else []:
        fixed *= dim

    def matrix(suffix: str, index: int, rows: int, columns: int) -> str:
        return node.parameter(suffix, index, [rows, columns], filler="weight_filler")

    weights = {
        "w_x": matrix("wx", 0, gates * units, features),
        "bias": node.parameter("bias", 1, [gates * units], filler="bias_filler"),
    }
    index = 2
    if static:
        weights |= {"x_static": node.inputs[2], "w_static": matrix("wstatic", 2, gates * units, fixed)}
        index = 3
    for offset, (suffix, shape) in enumerate(matrices):
        weights[suffix] = node.parameter(suffix.replace("_", ""), index + offset, shape, filler="weight_filler")
    if exposed:
        names = ["hidden", "cell"][:states]
        weights |= dict(zip(names, node.inputs[2 + static :], strict=True))
    x = node.x if len(rest) == 1 else f"paddle.flatten({node.x}, 2)"
    if exposed and function == "caffe_lstm":
        function = "caffe_lstm_from"
    call = f"{node.helper(function)}({arguments(x, node.inputs[1], steps, units, **weights)})"
    node.multiply_adds = steps * gates * units * (features + units)
    node.output(f"{call}[0]", [steps, batch, units])
    if exposed:
        for state in range(states):
            node.output(f"{call}[{state + 1}]", [1, batch, units])


@register_layer("LSTM")
def lstm(node: Node) -> None:
    units = node.positive(node.params("recurrent_param"), "num_output")
    _recurrent(node, 4, [("w_hidden", [4 * units, units])], "caffe_lstm", states=2)


@register_layer("RNN")
def rnn(node: Node) -> None:
    units = node.positive(node.params("recurrent_param"), "num_output")
    matrices = [("w_hidden", [units, units]), ("w_output", [units, units]), ("bias_output", [units])]
    _recurrent(node, 1, matrices, "caffe_rnn", states=1)


@register_layer("LSTMUnit")
def lstm_unit(node: Node) -> None:
    """One step of an LSTM: the last cell state [1, N, units], gates [1, N, 4 * units] and continuation [1, N]."""
    node.needs_bottoms(3, 3)
    cell, gates, continues = node.shapes
    if len(cell) != 3 or gates != [*cell[:2], 4 * cell[2]] or continues != cell[:2]:
        raise node.error(f"bottoms of shapes {node.shapes}")
    call = f"{node.helper('lstm_unit')}({arguments(*node.inputs)})"
    for index in range(2):
        node.output(f"{call}[{index}]", cell)


@register_layer("ContinuationIndicator")
def continuation_indicator(node: Node) -> None:
    """[time_step, batch_size]: 0 at the first step, then 1; with ``flag`` 1 everywhere (the sequence goes on)."""
    params = node.params("continuation_indicator_param")
    steps, batch = params.integer("time_step"), params.integer("mini_batch", params.integer("batch_size", 1))
    if node.inputs:
        raise node.unsupported("with a bottom that says which sequences go on")
    if steps < 1 or batch < 1:
        raise node.error(f"time_step {steps}, batch_size {batch}")
    first = 1.0 if params.flag("flag", False) else 0.0
    rest = [f"paddle.ones([{steps - 1}, {batch}])"] if steps > 1 else []
    parts = [f"paddle.full([1, {batch}], {first})", *rest]
    node.output(f"paddle.concat([{', '.join(parts)}], 0)", [steps, batch])
