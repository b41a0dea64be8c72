"""The fused recurrent networks of `paddle.nn.SimpleRNN`, `GRU` and `LSTM`: one operation for all layers and directions.

Recurrent cells written in Python (`nn.RNN(cell)`) are `while` loops in the Program; see `control.py`.
"""

from collections.abc import Callable
from typing import Any

from fluid.engine.xla.precision import Kind
from fluid.engine.xla.rules.registry import Call, rule

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Array = jax.Array
State = tuple[Array, ...]


@rule("rnn", kind=Kind.PRODUCT, random=True)
def rnn(
    op: Call, x: Array, start: list[Array], weights: list[Array], lengths: Array | None, dropout_state: Any = None
) -> tuple[Any, ...]:
    """x [T, B, features]; states [layers * directions, B, hidden]; returns (output, -, final states, -).

    `weights` lists (input, recurrent) matrices of every layer and direction, then their biases in the same order. Past
    the end of a sequence outputs are 0 and states stay; the backward direction starts at each sequence's own end.
    """
    directions = 2 if op["is_bidirec"] else 1
    matrices, biases = weights[: len(weights) // 2], weights[len(weights) // 2 :]
    inside = None
    if lengths is not None:
        inside = jnp.arange(x.shape[0])[:, None] < lengths.reshape(1, -1)
    final: list[State] = []
    for layer in range(op["num_layers"]):
        if layer and op["dropout_prob"] and not op["is_test"]:
            x = _dropout(x, op["dropout_prob"], jax.random.fold_in(op.key, layer))
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            parameters = matrices[2 * index : 2 * index + 2] + biases[2 * index : 2 * index + 2]
            state = tuple(item[index] for item in start)
            output, state = _layer(op, x, state, parameters, inside, backward=direction == 1)
            outputs.append(output)
            final.append(state)
        x = jnp.concatenate(outputs, -1)
    return x, None, [jnp.stack(states) for states in zip(*final, strict=True)], None


def _layer(
    op: Call, x: Array, state: State, parameters: list[Array], inside: Array | None, backward: bool
) -> tuple[Array, State]:
    cell: Callable[..., State] = CELLS[op["mode"]]
    w_input, w_hidden, b_input, b_hidden = parameters
    # The product with the inputs of all time steps is one large matrix product outside the loop.
    projected = jnp.einsum("tbi,hi->tbh", x, w_input) + b_input
    mask = jnp.ones(x.shape[:2], bool) if inside is None else inside

    def advance(state: State, item: tuple[Array, Array]) -> tuple[State, Array]:
        now, keep = item
        moved = cell(now, state, w_hidden, b_hidden)
        keep = keep[:, None]
        state = tuple(jnp.where(keep, new, old) for new, old in zip(moved, state, strict=True))
        return state, jnp.where(keep, moved[0], 0)

    unroll = op.tuning.steps_in_a_turn
    state, output = lax.scan(advance, state, (projected, mask), reverse=backward, unroll=unroll)
    return output, state


def _lstm(now: Array, state: State, w: Array, b: Array) -> State:
    """Hochreiter and Schmidhuber, 1997; gates in the order input, forget, cell, output."""
    hidden, memory = state
    i, f, g, o = jnp.split(now + hidden @ w.T + b, 4, -1)
    memory = jax.nn.sigmoid(f) * memory + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(memory), memory


def _gru(now: Array, state: State, w: Array, b: Array) -> State:
    """Cho et al., arXiv:1406.1078, with the reset gate applied after the matrix product (as in cuDNN)."""
    (hidden,) = state
    r, z, c = jnp.split(now, 3, -1)
    r_hidden, z_hidden, c_hidden = jnp.split(hidden @ w.T + b, 3, -1)
    r, z = jax.nn.sigmoid(r + r_hidden), jax.nn.sigmoid(z + z_hidden)
    return (z * hidden + (1 - z) * jnp.tanh(c + r * c_hidden),)


def _tanh(now: Array, state: State, w: Array, b: Array) -> State:
    return (jnp.tanh(now + state[0] @ w.T + b),)


def _relu(now: Array, state: State, w: Array, b: Array) -> State:
    return (jax.nn.relu(now + state[0] @ w.T + b),)


CELLS: dict[str, Callable[..., State]] = {"LSTM": _lstm, "GRU": _gru, "RNN_TANH": _tanh, "RNN_RELU": _relu}


def _dropout(x: Array, rate: float, key: Any) -> Array:
    kept = jax.random.bernoulli(key, np.float32(1 - rate), x.shape)
    return jnp.where(kept, x * np.asarray(1 / (1 - rate), x.dtype), 0)
