"""Recurrences in the arithmetic and the weight layout of 2018's Fluid: `dynamic_gru`, `dynamic_lstm`, `dynamic_lstmp`.

A recurrence is a loop, and no form of loop serves everything. In training forms it is Paddle's `nn.RNN`, whose gradient is
right on both engines, but which never returns in `paddle.inference` and aborts the conversion to ONNX. All other forms
fill a buffer, which runs everywhere but has no gradient: **`paddle.static.nn.while_loop` with a body that fills a buffer
(`scatter`, `where`, `put_along_axis`) trains with gradients that are exactly zero, without a word.** So write no such loop
into a training form; use `recur`, which chooses. `fluid.tests.gradients` finds parameters that get no gradient.

Sequences of a batch are padded to one length; past the end of its own a sequence keeps its state and its outputs are 0.
To compute a long sequence in pieces, hand the final state of one piece to the next as its initial state.
"""

import copy
from collections.abc import Callable
from typing import Any

from fluid.program import Value, dtype_name, only_runs_forward

import paddle
import paddle.nn.functional as F

Activation = Callable[[Value], Value]
States = tuple[Value, ...]
Cell = Callable[[Value, States], States]
"""(input [N, ...] of one step, states before it, each [N, ...]) -> states after it; the first of them is the output."""


def recur(
    cell: Cell, inputs: Value, initial: States, *, lengths: Value | None = None, reverse: bool = False
) -> tuple[Value, States]:
    """Apply `cell` along axis 1 of `inputs` [N, T, features], starting from the states `initial`.

    Args:
        lengths: [N] whole numbers, how many steps each sequence has; None: T, for all.
        reverse: start at the end of each sequence.

    Returns the outputs [N, T, ...] and the final states.
    """
    inside = None
    if lengths is not None:
        steps = paddle.arange(_length(inputs, 1), dtype="int64").unsqueeze(0)
        inside = steps < paddle.cast(lengths, "int64").unsqueeze(1)
    loop = _forward_loop if only_runs_forward() else _trained_loop
    outputs, final = loop(cell, inputs, initial, inside, reverse)
    if inside is not None:
        outputs = paddle.where(inside.unsqueeze(2), outputs, paddle.zeros_like(outputs))
    return outputs, final


def gru(
    x: Value,
    size: int,
    *,
    name: str,
    lengths: Value | None = None,
    reverse: bool = False,
    initial: Value | None = None,
    **options: Any,
) -> tuple[Value, Value]:
    """Fluid's `dynamic_gru` of `x` [N, T, 3 * size], the input times its weights: outputs [N, T, size], state [N, size].

    `lengths` and `reverse` as in `recur`; `initial` is 0 by default; `name` and `options` as in `gru_cell`.
    """
    cell = gru_cell(size, name=name, dtype=dtype_name(x), **options)
    start = _zeros(x, size) if initial is None else initial
    outputs, (final,) = recur(cell, x, (start,), lengths=lengths, reverse=reverse)
    return outputs, final


def bidirectional_gru(
    forward: Value,
    backward: Value,
    size: int,
    *,
    names: tuple[str, str],
    lengths: Value,
    gate: Activation = F.sigmoid,
    candidate: Activation = F.tanh,
) -> tuple[Value, Value]:
    """Two of Fluid's `dynamic_gru` in one loop, the second of which starts at the end of each sequence.

    The same as two calls of `gru` with `forward` and `backward` [N, T, 3 * size], of half as many steps one after the other.
    Returns both outputs [N, T, size]; `names` and their parameters as in `gru_cell`.
    """
    dtype = dtype_name(forward)
    weights = [_parameter([size, 3 * size], f"{name}.w_0", None, dtype).reshape([-1]) for name in names]
    bias = paddle.stack(
        [_parameter([1, 3 * size], f"{name}.b_0", None, dtype, is_bias=True).reshape([-1]) for name in names]
    )
    w_gates = paddle.stack([flat[: 2 * size * size].reshape([size, 2 * size]) for flat in weights])
    w_candidate = paddle.stack([flat[2 * size * size :].reshape([size, size]) for flat in weights])
    steps = paddle.arange(_length(forward, 1), dtype="int64").unsqueeze(0)
    inside = paddle.cast(steps < paddle.cast(lengths, "int64").unsqueeze(1), dtype).unsqueeze(2)
    features = 6 * size
    joined = paddle.concat([forward, _backwards(backward), inside, _backwards(inside)], axis=2)

    def times(x: Value, weight: Value) -> Value:
        """[N, 2, in] by [2, in, out] -> [N, 2, out]."""
        return paddle.matmul(x.transpose([1, 0, 2]), weight).transpose([1, 0, 2])

    def advance(x: Value, states: States) -> States:
        (hidden,) = states
        before = hidden.reshape([-1, 2, size])
        given = x[:, :features].reshape([-1, 2, 3 * size]) + bias
        gates = gate(given[:, :, : 2 * size] + times(before, w_gates))
        update, reset = gates[:, :, :size], gates[:, :, size:]
        fresh = candidate(given[:, :, 2 * size :] + times(reset * before, w_candidate))
        after = (1.0 - update) * before + update * fresh
        return (paddle.where(x[:, features:].unsqueeze(2) > 0.5, after, before).reshape([-1, 2 * size]),)

    outputs, _ = recur(advance, joined, (_zeros(forward, 2 * size),))
    return outputs[:, :, :size] * inside, _backwards(outputs[:, :, size:]) * inside


def gru_cell(
    size: int,
    *,
    name: str,
    gate: Activation = F.sigmoid,
    candidate: Activation = F.tanh,
    origin_mode: bool = False,
    weight_attr: paddle.ParamAttr | None = None,
    bias_attr: paddle.ParamAttr | None = None,
    dtype: str = "float32",
) -> Cell:
    """One step of a gated recurrent unit (Cho et al., arXiv:1406.1078) as in Fluid's `gru_unit`, of inputs [N, 3 * size].

    With x = (x_u, x_r, x_c):
        u = gate(x_u + h W_u + b_u),  r = gate(x_r + h W_r + b_r),  c = candidate(x_c + (r * h) W_c + b_c),
        h' = (1 - u) * h + u * c, or u * h + (1 - u) * c in `origin_mode`.

    Parameters: `<name>.w_0` [size, 3 * size], in memory the matrix [W_u W_r] and after it W_c; `<name>.b_0` [1, 3 * size].
    """
    weight = _parameter([size, 3 * size], f"{name}.w_0", weight_attr, dtype)
    bias = _parameter([1, 3 * size], f"{name}.b_0", bias_attr, dtype, is_bias=True)
    flat = weight.reshape([-1])
    w_gates = flat[: 2 * size * size].reshape([size, 2 * size])
    w_candidate = flat[2 * size * size :].reshape([size, size])

    def advance(x: Value, states: States) -> States:
        (hidden,) = states
        x = x + bias
        gates = gate(x[:, : 2 * size] + paddle.matmul(hidden, w_gates))
        update, reset = gates[:, :size], gates[:, size:]
        fresh = candidate(x[:, 2 * size :] + paddle.matmul(reset * hidden, w_candidate))
        return ((1.0 - update) * fresh + update * hidden if origin_mode else (1.0 - update) * hidden + update * fresh,)

    return advance


def lstm(
    x: Value,
    size: int,
    *,
    name: str,
    projection: int | None = None,
    lengths: Value | None = None,
    reverse: bool = False,
    initial: tuple[Value, Value] | None = None,
    **options: Any,
) -> tuple[Value, tuple[Value, Value]]:
    """Fluid's `dynamic_lstm` of `x` [N, T, 4 * size], the input times its weights; with `projection`, `dynamic_lstmp`.

    Returns the outputs [N, T, projection or size] and the final (output, memory). `lengths` and `reverse` as in `recur`;
    `initial` is 0 by default; `name`, `projection` and `options` as in `lstm_cell`.
    """
    cell = lstm_cell(size, name=name, projection=projection, dtype=dtype_name(x), **options)
    start = (_zeros(x, projection or size), _zeros(x, size)) if initial is None else initial
    outputs, (output, memory) = recur(cell, x, start, lengths=lengths, reverse=reverse)
    return outputs, (output, memory)


def lstm_cell(
    size: int,
    *,
    name: str,
    projection: int | None = None,
    peepholes: bool = True,
    gate: Activation = F.sigmoid,
    cell: Activation = F.tanh,
    candidate: Activation = F.tanh,
    projected: Activation = F.tanh,
    weight_attr: paddle.ParamAttr | None = None,
    bias_attr: paddle.ParamAttr | None = None,
    dtype: str = "float32",
) -> Cell:
    """One step of a long short-term memory, with a projected output (Sak et al., arXiv:1402.1128) if `projection` is set.

    With x = (x_c, x_i, x_f, x_o) [N, 4 * size], the output r and the memory c of the step before:
        i = gate(x_i + r W_i + b_i + p_i * c),  f = gate(x_f + r W_f + b_f + p_f * c),
        c' = f * c + i * candidate(x_c + r W_c + b_c),  o = gate(x_o + r W_o + b_o + p_o * c'),
        r' = o * cell(c'), or projected((o * cell(c')) W_p).

    Parameters: `<name>.w_0` [projection or size, 4 * size] = [W_c W_i W_f W_o]; with a projection `<name>.w_1`
    [size, projection] = W_p; `<name>.b_0` [1, 7 * size] = (b_c, b_i, b_f, b_o, p_i, p_f, p_o), without `peepholes`
    [1, 4 * size]. `weight_attr` holds for both weights.
    """
    weight = _parameter([projection or size, 4 * size], f"{name}.w_0", weight_attr, dtype)
    w_projection = _parameter([size, projection], f"{name}.w_1", weight_attr, dtype) if projection else None
    bias = _parameter([1, (7 if peepholes else 4) * size], f"{name}.b_0", bias_attr, dtype, is_bias=True)

    def peep(place: int, memory: Value) -> Value | float:
        return bias[:, (4 + place) * size : (5 + place) * size] * memory if peepholes else 0.0

    def advance(x: Value, states: States) -> States:
        output, memory = states
        fresh, i, f, o = paddle.split(x + paddle.matmul(output, weight) + bias[:, : 4 * size], 4, axis=1)
        i, f = gate(i + peep(0, memory)), gate(f + peep(1, memory))
        memory = f * memory + i * candidate(fresh)
        output = gate(o + peep(2, memory)) * cell(memory)
        if w_projection is not None:
            output = projected(paddle.matmul(output, w_projection))
        return output, memory

    return advance


def _trained_loop(
    cell: Cell, inputs: Value, initial: States, inside: Value | None, reverse: bool
) -> tuple[Value, States]:
    features = inputs.shape[2]
    if inside is not None:
        # The mask travels as one more feature: nn.RNN's own would let NaN through from the padding.
        inputs = paddle.concat([inputs, paddle.cast(inside, inputs.dtype).unsqueeze(2)], axis=2)

    def advance(x: Value, states: States) -> States:
        if inside is None:
            return cell(x, states)
        return _where(x[:, features:] > 0.5, cell(x[:, :features], states), states)

    outputs, final = paddle.nn.RNN(_Layer(advance), is_reverse=reverse)(inputs, initial_states=initial)
    return outputs, final


class _Layer(paddle.nn.RNNCellBase):
    """A cell as `nn.RNN` wants it."""

    def __init__(self, cell: Cell):
        super().__init__()
        self._cell = cell

    def forward(self, x: Value, states: States) -> tuple[Value, States]:
        states = self._cell(x, states)
        return states[0], states


def _forward_loop(
    cell: Cell, inputs: Value, initial: States, inside: Value | None, reverse: bool
) -> tuple[Value, States]:
    rows, steps = _length(inputs, 0), _length(inputs, 1)
    by_step = inputs.transpose([1, 0, 2])
    # Transposed last: oneDNN would fuse it with what follows into an operation that has no kernel for booleans.
    inside_by_step = None if inside is None else inside.unsqueeze(2).transpose([1, 0, 2])
    outputs = paddle.zeros([steps, rows, *initial[0].shape[1:]], dtype_name(inputs))
    first = paddle.full([1], steps - 1 if reverse else 0, "int64")

    def running(step: Value, outputs: Value, *states: Value) -> Value:
        return step >= 0 if reverse else step < steps

    def advance(step: Value, outputs: Value, *states: Value) -> list[Value]:
        after = cell(paddle.index_select(by_step, step).squeeze(0), states)
        if inside_by_step is not None:
            after = _where(paddle.index_select(inside_by_step, step).squeeze(0), after, states)
        outputs = paddle.scatter(outputs, step, after[0].unsqueeze(0))
        return [step - 1 if reverse else step + 1, outputs, *after]

    # Copies, because Paddle's loop takes away what it starts from, for whoever comes after it too.
    start = [paddle.assign(state) for state in initial]
    _, outputs, *final = paddle.static.nn.while_loop(running, advance, [first, outputs, *start])
    return outputs.transpose([1, 0, 2]), tuple(final)


def _where(condition: Value, new: States, old: States) -> States:
    return tuple(paddle.where(condition, after, before) for after, before in zip(new, old, strict=True))


def _backwards(x: Value) -> Value:
    """[N, T, ...] from the last step to the first; `flip` of a free length has no form in ONNX."""
    length = _length(x, 1)
    return paddle.index_select(x, length - 1 - paddle.arange(length, dtype="int64"), axis=1)


def _zeros(x: Value, size: int) -> Value:
    return paddle.zeros([_length(x, 0), size], dtype_name(x))


def _length(value: Value, axis: int) -> int | Value:
    """Length of an axis: a number if it is known while the Program is built."""
    return value.shape[axis] if value.shape[axis] >= 0 else paddle.shape(value)[axis].astype("int64")


def _parameter(
    shape: list[int], name: str, attributes: paddle.ParamAttr | None, dtype: str, *, is_bias: bool = False
) -> Value:
    attributes = copy.copy(attributes) or paddle.ParamAttr()
    attributes.name = attributes.name or name
    return paddle.create_parameter(shape, dtype, attr=attributes, is_bias=is_bias)
