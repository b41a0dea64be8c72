"""Networks that read a word from its picture: CRNN-CTC and the attention recogniser of 2018, and a deeper CRNN.

    logits, frames = crnn_ctc(pixel, width, classes, training)          [N, T, classes + blank]
    memory = encode(pixel, width, training);  logits = decode(memory, word, classes)     teacher forcing

`pixel` [N, 1, height, W] holds words of different width, 0 beyond each one's own `width` [N]. **Padding never changes a
result**: after every layer the columns beyond a word are 0 again, batch statistics count real columns alone, and each
direction of a recurrence starts at the word's own end. So a word gives the same by itself and in any batch.

A frame, one step of the recurrences, is eight columns of the picture wide. Convolution, batch normalisation and recurrences
carry the names that Fluid generated in 2018, `conv2d_0.w_0`, `gru_0.b_0`, ..., so released weights load as they are.
"""

from typing import NamedTuple

from fluid.normalization import masked_batch_norm
from fluid.program import Value, name_layer
from fluid.recurrent import Cell, States, gru, gru_cell, recur

import paddle
import paddle.nn.functional as F

GROUPS = (16, 32, 64, 128)
"""Channels of the four groups of two convolutions each; each of the first three halves height and width."""
COLUMNS_A_FRAME = 8
HIDDEN, DECODER, WORD = 200, 128, 128
"""Units of a direction of the encoder and of the decoder, and width of the embedding of a character."""
DEEP_GROUPS = ((32, 1), (64, 1), (128, 2), (256, 2))
"""Channels and residual blocks of the groups of the deeper network."""


def frames_of(width: Value) -> Value:
    """Frames [N] of words of these widths [N]: each of three poolings rounds up."""
    return (width + (COLUMNS_A_FRAME - 1)) // COLUMNS_A_FRAME


def crnn_ctc(pixel: Value, width: Value, classes: int, training: bool) -> tuple[Value, Value]:
    """CRNN-CTC as released in 2018: logits [N, T, classes + 1] of characters and, last, the blank; frames [N]."""
    columns, frames = _columns(pixel, width, training, offsets=True)
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


def encode(pixel: Value, width: Value, training: bool) -> Memory:
    """The encoder of the attention recogniser of 2018: bidirectional, over the same columns as `crnn_ctc`."""
    columns, frames = _columns(pixel, width, training, offsets=False)
    forward, backward = _both_directions(columns, frames, offsets=False)
    encoded = paddle.concat([forward, backward], axis=2)
    start = F.relu(_product(backward[:, 0], "fc_3.w_0", DECODER))
    return Memory(encoded, _product(encoded, "fc_2.w_0", DECODER), _before(frames, encoded), start)


def decode(memory: Memory, word: Value, classes: int) -> Value:
    """Logits [N, T, classes + 2] of the character after each of `word` [N, T], which begins with the start sign."""
    outputs, _ = recur(decoder_cell(memory), _embedded(word, classes), (memory.start,))
    return _characters(outputs, classes)


def decode_step(memory: Memory, word: Value, state: Value, classes: int) -> tuple[Value, Value]:
    """Logits [N, classes + 2] of the next character and the state after it: `word` [N] is the last one."""
    (state,) = decoder_cell(memory)(_embedded(word, classes), (state,))
    return _characters(state, classes), state


def decoder_cell(memory: Memory) -> Cell:
    """A gated recurrent unit that looks at the frames through additive attention (Bahdanau et al., arXiv:1409.0473)."""
    unit = gru_cell(DECODER, name="gru_unit_0")
    query, score = _weight("fc_4.w_0", [DECODER, DECODER]), _weight("fc_5.w_0", [DECODER, 1])
    into = _weight("fc_6.w_0", [2 * HIDDEN, 3 * DECODER])
    outside = (1.0 - memory.inside) * -1e9

    def advance(x: Value, states: States) -> States:
        asked = paddle.matmul(states[0], query).unsqueeze(1)
        scores = paddle.matmul(paddle.tanh(memory.projected + asked), score).squeeze(2)
        weights = name_layer("attention", F.softmax(scores + outside, axis=1))
        context = paddle.matmul(weights.unsqueeze(1), memory.encoded).squeeze(1)
        return unit(x + paddle.matmul(context, into), states)

    return advance


def crnn(pixel: Value, width: Value, classes: int, training: bool) -> tuple[Value, Value]:
    """A deeper CRNN-CTC with residual blocks (He et al., arXiv:1512.03385) before its two recurrences.

    Logits [N, T, classes + 1], the blank last; frames [N].
    """
    x, inside = pixel, _inside(pixel, width)
    for group, (channels, blocks) in enumerate(DEEP_GROUPS):
        x = _normalised(_convolution(x, f"deep{group}_in", channels), inside, f"deep{group}_in_norm", training)
        for block in range(blocks):
            name = f"deep{group}_{block}"
            y = _normalised(_convolution(x, f"{name}a", channels), inside, f"{name}a_norm", training)
            y = _convolution(y, f"{name}b", channels)
            y = masked_batch_norm(y, inside, name=f"{name}b_norm", training=training)
            x = F.relu(x + y) * inside
        if group < len(DEEP_GROUPS) - 1:
            x, width = F.max_pool2d(x, 2, 2, ceil_mode=True), (width + 1) // 2
            inside = _inside(x, width)
    x = _flattened(x)
    x = F.relu(_product(x, "deep_in.w_0", 2 * HIDDEN) + _offset("deep_in.b_0", 2 * HIDDEN))
    for layer in range(2):
        steps = []
        for direction in ("forward", "backward"):
            name = f"deep_{direction}{layer}"
            gates = _product(x, f"{name}.w_1", 3 * HIDDEN)
            steps.append(gru(gates, HIDDEN, name=name, lengths=width, reverse=direction == "backward")[0])
        x = paddle.concat(steps, axis=2)
    return _product(x, "deep_out.w_0", classes + 1) + _offset("deep_out.b_0", classes + 1), width


def _columns(pixel: Value, width: Value, training: bool, *, offsets: bool) -> tuple[Value, Value]:
    """The convolutions of 2018: features [N, T, 768] of each frame, and how many frames each word has [N]."""
    x, inside = pixel, _inside(pixel, width)
    for group, channels in enumerate(GROUPS):
        for layer in (2 * group, 2 * group + 1):
            x = _convolution(x, f"conv2d_{layer}", channels, offset=offsets)
            x = name_layer(f"conv{layer}", _normalised(x, inside, f"batch_norm_{layer}", training))
        if group < len(GROUPS) - 1:
            x, width = F.max_pool2d(x, 2, 2, ceil_mode=True), (width + 1) // 2
            inside = _inside(x, width)
    return _flattened(x), width


def _both_directions(columns: Value, frames: Value, *, offsets: bool) -> list[Value]:
    """Two recurrences over the frames, [N, T, HIDDEN] each, 0 beyond a word's end."""
    outputs = []
    for index, reverse in enumerate((False, True)):
        gates = _product(columns, f"fc_{index}.w_0", 3 * HIDDEN)
        if offsets:
            gates = gates + _offset(f"fc_{index}.b_0", 3 * HIDDEN)
        options = {"name": f"gru_{index}", "lengths": frames, "reverse": reverse, "candidate": F.relu}
        outputs.append(gru(gates, HIDDEN, **options)[0])
    return outputs


def _flattened(x: Value) -> Value:
    """[N, C, rows, T] -> [N, T, C * rows], channel by channel."""
    channels, rows = x.shape[1], x.shape[2]
    return x.transpose([0, 3, 1, 2]).reshape([0, 0, channels * rows])


def _normalised(x: Value, inside: Value, name: str, training: bool) -> Value:
    return F.relu(masked_batch_norm(x, inside, name=name, training=training)) * inside


def _convolution(x: Value, name: str, channels: int, *, offset: bool = False) -> Value:
    kernel = _weight(f"{name}.w_0", [channels, x.shape[1], 3, 3])
    return F.conv2d(x, kernel, _offset(f"{name}.b_0", channels) if offset else None, padding=1)


def _inside(x: Value, width: Value) -> Value:
    """[N, 1, 1, W], 1 for the columns of each word."""
    return _before(width, x.transpose([0, 3, 1, 2])).unsqueeze([1, 2])


def _before(length: Value, x: Value) -> Value:
    """[N, T], 1 for the first `length` [N] steps of x [N, T, ...]."""
    steps = x.shape[1] if x.shape[1] >= 0 else paddle.shape(x)[1]
    return paddle.cast(paddle.arange(steps, dtype=length.dtype).unsqueeze(0) < length.unsqueeze(1), x.dtype)


def _embedded(word: Value, classes: int) -> Value:
    """What the last characters add to the decoder's gates, [..., 3 * DECODER]."""
    table = _weight("embedding_0.w_0", [classes + 2, WORD])
    return _product(F.embedding(word, table), "fc_7.w_0", 3 * DECODER)


def _characters(state: Value, classes: int) -> Value:
    return _product(state, "fc_8.w_0", classes + 2) + _offset("fc_8.b_0", classes + 2)


def _product(x: Value, name: str, size: int) -> Value:
    return paddle.matmul(x, _weight(name, [x.shape[-1], size]))


def _weight(name: str, shape: list[int]) -> Value:
    return paddle.create_parameter(shape, "float32", attr=paddle.ParamAttr(name=name))


def _offset(name: str, size: int) -> Value:
    return paddle.create_parameter([size], "float32", attr=paddle.ParamAttr(name=name), is_bias=True)
