"""Networks that read a word from its picture: CRNN-CTC and the attention recogniser of 2018, and a deeper CRNN.

    logits, frames = crnn_ctc(pixel, width, classes, training)          [N, T, classes + blank]; crnn likewise
    memory = encode(pixel, width, training);  logits = decode(memory, word, classes)     teacher forcing

`pixel` [N, 1, height, W] holds words of different width, 0 beyond each one's own `width` [N]. **Padding never changes a
result**: after every layer the columns beyond a word are 0 again, batch statistics count real columns alone, and each
direction of a recurrence starts at the word's own end. So a word gives the same by itself and in any batch.

A frame, one step of the recurrences, is eight columns of the picture wide, four in the deeper CRNN. Convolution, batch normalisation and recurrences
carry the names that Fluid generated in 2018, `conv2d_0.w_0`, `gru_0.b_0`, ..., so released weights load as they are.
"""

from typing import NamedTuple

from fluid.normalization import masked_batch_norm
from fluid.program import Value, name_layer
from fluid.recurrent import Cell, States, bidirectional_gru, gru_cell, recur

import paddle
import paddle.nn.functional as F

GROUPS = (16, 32, 64, 128)
"""Channels of the four groups of two convolutions each; each of the first three halves height and width."""
HIDDEN, DECODER, WORD = 200, 128, 128
"""Units of a direction of the encoder and of the decoder, and width of the embedding of a character."""


class Sizes(NamedTuple):
    """Of a deeper CRNN."""

    groups: tuple[tuple[int, int], ...]
    """Channels and residual blocks of each group; between two of them the height is halved."""
    hidden: int
    """Units of a direction of a recurrence."""


DEEP = {
    "crnn": Sizes(((32, 1), (64, 1), (128, 2), (160, 2)), 160),
    "crnn_small": Sizes(((16, 0), (32, 0), (64, 1), (64, 0)), 96),
}
HALVINGS_OF_WIDTH = 2
"""Of the poolings between the groups of a deeper CRNN, so many halve the width too."""


def crnn_ctc(
    pixel: Value, width: Value, classes: int, training: bool, *, as_in_2018: bool = False
) -> tuple[Value, Value]:
    """CRNN-CTC as released in 2018: logits [N, T, classes + 1] of characters and, last, the blank; frames [N].

    `as_in_2018`: convolutions begin with the normal distributions of then, too.
    """
    columns, frames = _columns(pixel, width, training, offsets=True, as_in_2018=as_in_2018)
    directions = _both_directions(columns, frames, offsets=True)
    products = [_product(x, f"fc_2.w_{index}", classes + 1) for index, x in enumerate(directions)]
    return products[0] + products[1] + _offset("fc_2.b_0", classes + 1), frames


class Memory(NamedTuple):
    """What the decoder of the attention recogniser looks at."""

    encoded: Value
    """[N, T, 2 * HIDDEN]."""
    projected: Value
    """[N, T, DECODER]."""
    inside: Value
    """[N, T], 1 for frames of the word."""
    start: Value
    """[N, DECODER], the decoder's first state."""


def encode(pixel: Value, width: Value, training: bool, *, as_in_2018: bool = False) -> Memory:
    """The encoder of the attention recogniser of 2018: bidirectional, over the same columns as `crnn_ctc`."""
    columns, frames = _columns(pixel, width, training, offsets=False, as_in_2018=as_in_2018)
    forward, backward = _both_directions(columns, frames, offsets=False)
    encoded = paddle.concat([forward, backward], axis=2)
    start = F.relu(_product(backward[:, 0], "fc_3.w_0", DECODER))
    return Memory(encoded, _product(encoded, "fc_2.w_0", DECODER), _before(frames, encoded), start)


def decode(memory: Memory, word: Value, classes: int) -> Value:
    """Logits [N, T, classes + 2] of the character after each of `word` [N, T], which begins with the start sign."""
    return Decoder(classes).forced(memory, word)[0]


class Decoder:
    """Writes a word character by character; additive attention (Bahdanau et al., arXiv:1409.0473) looks at the frames.

    Its variables are created once, when it is made.
    """

    def __init__(self, classes: int) -> None:
        self._table = _weight("embedding_0.w_0", [classes + 2, WORD])
        self._query, self._score = _weight("fc_4.w_0", [DECODER, DECODER]), _weight("fc_5.w_0", [DECODER, 1])
        self._context = _weight("fc_6.w_0", [2 * HIDDEN, 3 * DECODER])
        self._word = _weight("fc_7.w_0", [WORD, 3 * DECODER])
        self._unit = gru_cell(DECODER, name="gru_unit_0")
        self._out, self._out_offset = _weight("fc_8.w_0", [DECODER, classes + 2]), _offset("fc_8.b_0", classes + 2)

    def forced(self, memory: Memory, word: Value) -> tuple[Value, Value]:
        """Logits [N, T, classes + 2] after each of `word` [N, T], and the states after it [N, T, DECODER]."""
        states, _ = recur(self._cell(memory), self._embedded(word), (memory.start,))
        return self._logits(states), states

    def step(self, memory: Memory, word: Value, state: Value) -> tuple[Value, Value]:
        """Logits [N, classes + 2] of the next character and the state after it: `word` [N] is the last one."""
        (state,) = self._cell(memory)(self._embedded(word), (state,))
        return self._logits(state), state

    def looked_at(self, memory: Memory, states: Value) -> Value:
        """Weights [N, T, frames] with which each frame was looked at on the way to the states [N, T, DECODER]."""
        before = paddle.concat([memory.start.unsqueeze(1), states[:, :-1]], axis=1)
        return self._weights(_with_axis(memory, 1), before)

    def _cell(self, memory: Memory) -> Cell:
        def advance(x: Value, states: States) -> States:
            context = paddle.matmul(self._weights(memory, states[0]).unsqueeze(1), memory.encoded).squeeze(1)
            return self._unit(x + paddle.matmul(context, self._context), states)

        return advance

    def _weights(self, memory: Memory, state: Value) -> Value:
        asked = paddle.matmul(state, self._query).unsqueeze(-2)
        scores = paddle.matmul(paddle.tanh(memory.projected + asked), self._score).squeeze(-1)
        return F.softmax(scores + (1.0 - memory.inside) * -1e9, axis=-1)

    def _embedded(self, word: Value) -> Value:
        """What the last characters add to the gates, [..., 3 * DECODER]."""
        return paddle.matmul(F.embedding(word, self._table), self._word)

    def _logits(self, state: Value) -> Value:
        return paddle.matmul(state, self._out) + self._out_offset


def _with_axis(memory: Memory, axis: int) -> Memory:
    """The memory with one more axis of length 1, for several states a word at once."""
    return Memory(*(part.unsqueeze(axis) for part in memory))


def crnn(pixel: Value, width: Value, classes: int, training: bool, sizes: Sizes = DEEP["crnn"]) -> tuple[Value, Value]:
    """A deeper CRNN-CTC with residual blocks (He et al., arXiv:1512.03385) before its two recurrences.

    Logits [N, T, classes + 1] with the blank; frames [N].
    """
    x, inside = pixel, _inside(pixel, width)
    for group, (channels, blocks) in enumerate(sizes.groups):
        x = _normalised(_convolution(x, f"deep{group}_in", channels), inside, f"deep{group}_in_norm", training)
        for block in range(blocks):
            name = f"deep{group}_{block}"
            y = _normalised(_convolution(x, f"{name}a", channels), inside, f"{name}a_norm", training)
            y = _convolution(y, f"{name}b", channels)
            y = masked_batch_norm(y, inside, name=f"{name}b_norm", training=training)
            x = F.relu(x + y) * inside
        if group < len(sizes.groups) - 1:
            halved = 2 if group < HALVINGS_OF_WIDTH else 1
            x, width = F.max_pool2d(x, (2, halved), (2, halved), ceil_mode=True), (width + halved - 1) // halved
            inside = _inside(x, width)
    size = sizes.hidden
    x = _flattened(x)
    x = F.relu(_product(x, "deep_in.w_0", 2 * size) + _offset("deep_in.b_0", 2 * size))
    for layer in range(2):
        names = (f"deep_forward{layer}", f"deep_backward{layer}")
        forward, backward = (_product(x, f"{name}.w_1", 3 * size) for name in names)
        x = paddle.concat(bidirectional_gru(forward, backward, size, names=names, lengths=width), axis=2)
    return _product(x, "deep_out.w_0", classes + 1) + _offset("deep_out.b_0", classes + 1), width


def _columns(pixel: Value, width: Value, training: bool, *, offsets: bool, as_in_2018: bool) -> tuple[Value, Value]:
    """The convolutions of 2018: features [N, T, 768] of each frame, and how many frames each word has [N]."""
    x, inside = pixel, _inside(pixel, width)
    for group, channels in enumerate(GROUPS):
        for layer in (2 * group, 2 * group + 1):
            spread = (0.0005 if layer == 0 else 0.01) if as_in_2018 else None
            x = _convolution(x, f"conv2d_{layer}", channels, offset=offsets, spread=spread)
            x = name_layer(f"conv{layer}", _normalised(x, inside, f"batch_norm_{layer}", training))
        if group < len(GROUPS) - 1:
            x, width = F.max_pool2d(x, 2, 2, ceil_mode=True), (width + 1) // 2
            inside = _inside(x, width)
    return _flattened(x), width


def _both_directions(columns: Value, frames: Value, *, offsets: bool) -> tuple[Value, Value]:
    """Two recurrences over the frames, [N, T, HIDDEN] each, 0 beyond a word's end."""
    both = []
    for index in range(2):
        gates = _product(columns, f"fc_{index}.w_0", 3 * HIDDEN)
        both.append(gates + _offset(f"fc_{index}.b_0", 3 * HIDDEN) if offsets else gates)
    forward, backward = both
    return bidirectional_gru(forward, backward, HIDDEN, names=("gru_0", "gru_1"), lengths=frames, candidate=F.relu)


def _flattened(x: Value) -> Value:
    """[N, C, rows, T] -> [N, T, C * rows], channel by channel."""
    channels, rows = x.shape[1], x.shape[2]
    return x.transpose([0, 3, 1, 2]).reshape([0, 0, channels * rows])


def _normalised(x: Value, inside: Value, name: str, training: bool) -> Value:
    return F.relu(masked_batch_norm(x, inside, name=name, training=training)) * inside


def _convolution(x: Value, name: str, channels: int, *, offset: bool = False, spread: float | None = None) -> Value:
    kernel = _weight(f"{name}.w_0", [channels, x.shape[1], 3, 3], spread)
    return F.conv2d(x, kernel, _offset(f"{name}.b_0", channels) if offset else None, padding=1)


def _inside(x: Value, width: Value) -> Value:
    """[N, 1, 1, W], 1 for the columns of each word."""
    return _before(width, x.transpose([0, 3, 1, 2])).unsqueeze([1, 2])


def _before(length: Value, x: Value) -> Value:
    """[N, T], 1 for the first `length` [N] steps of x [N, T, ...]."""
    steps = x.shape[1] if x.shape[1] >= 0 else paddle.shape(x)[1]
    return paddle.cast(paddle.arange(steps, dtype=length.dtype).unsqueeze(0) < length.unsqueeze(1), x.dtype)


def _product(x: Value, name: str, size: int) -> Value:
    return paddle.matmul(x, _weight(name, [x.shape[-1], size]))


def _weight(name: str, shape: list[int], spread: float | None = None) -> Value:
    """Begins, with `spread`, with a normal distribution of that deviation."""
    initializer = None if spread is None else paddle.nn.initializer.Normal(0.0, spread)
    return paddle.create_parameter(shape, "float32", attr=paddle.ParamAttr(name=name, initializer=initializer))


def _offset(name: str, size: int) -> Value:
    return paddle.create_parameter([size], "float32", attr=paddle.ParamAttr(name=name), is_bias=True)
