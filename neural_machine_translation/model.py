"""The Transformer (Vaswani et al., arXiv:1706.03762) as plain functions over named parameters.

    parameters = create_parameters(config)
    memory, source_bias = encode(parameters, config, src_word, training)
    logits = decode(parameters, config, trg_word, memory, source_bias, training)

Two forms, both of the original repository. `norm="pre"` is the network of the released weights (2019): layer
normalisation before each sublayer and once more at the end of encoder and decoder. `norm="post"` is that of July 2018:
normalisation after each sublayer, as in the paper. Two habits of the original are kept, because weights depend on them:
attention scores are divided by sqrt(d_model), where the paper has sqrt(d_key); and dropout multiplies by (1 - rate) in
inference instead of dividing by it in training.

Parameters carry the names that Fluid generated, `fc_0.w_0`, `layer_norm_0.w_0`, ... in the order of construction, so
released weights load as they are. The position tables are parameters as well, not trained: the released ones were
computed by a formula with a misplaced parenthesis and cannot be recomputed from the paper.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from fluid.errors import UserError, WeightsError
from fluid.program import Value, name_layer
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.translator import SIZES, Transformer

import numpy as np
import paddle
import paddle.nn.functional as F

MASKED = -1e9
"""Added to the attention scores of positions that must not be seen."""

SOURCE_TABLE, TARGET_TABLE = "src_word_emb_table", "trg_word_emb_table"
SOURCE_POSITIONS, TARGET_POSITIONS = "src_pos_enc_table", "trg_pos_enc_table"


def fc(number: int) -> str:
    """Name of the weight of a fully connected layer; the offset, where there is one, ends in `b_0`."""
    return f"fc_{number}.w_0"


def norm_scale(number: int) -> str:
    """Name of the scale of a layer normalisation; its offset ends in `b_0`."""
    return f"layer_norm_{number}.w_0"


def offset_of(weight: str) -> str:
    """`fc_4.w_0` -> `fc_4.b_0`."""
    return weight.removesuffix("w_0") + "b_0"


@dataclass(frozen=True)
class Layer:
    """Numbers of the first fully connected layer and of the first normalisation of an encoder or decoder layer."""

    fc: int
    norm: int


def encoder_layers(config: Transformer) -> list[Layer]:
    """Per layer: q, k, v, o, inner, outer; normalisations of attention and feed-forward."""
    return [Layer(6 * index, 2 * index) for index in range(config.n_layer)]


def decoder_layers(config: Transformer) -> list[Layer]:
    """Per layer: q, k, v, o of self-attention, then of cross-attention, inner, outer; three normalisations."""
    first_norm = 2 * config.n_layer + (config.norm == "pre")
    return [Layer(6 * config.n_layer + 10 * index, first_norm + 3 * index) for index in range(config.decoder_depth)]


def output_layer(config: Transformer) -> str:
    """Name of the weights that make logits, where they are not the word table."""
    return fc(6 * config.n_layer + 10 * config.decoder_depth)


def final_norms(config: Transformer) -> tuple[int, int]:
    """Numbers of the normalisations after the last layer of encoder and decoder (`norm="pre"` only)."""
    return 2 * config.n_layer, 2 * config.n_layer + 3 * config.decoder_depth + 1


def parameter_shapes(config: Transformer) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by name."""
    wide, inner = config.d_model, config.d_inner_hid
    shapes: dict[str, tuple[int, ...]] = {SOURCE_TABLE: (config.src_vocab_size, wide)}
    if not config.weight_sharing:
        shapes[TARGET_TABLE] = (config.trg_vocab_size, wide)
    shapes[SOURCE_POSITIONS] = shapes[TARGET_POSITIONS] = (config.max_length + 1, wide)

    def add_norm(number: int) -> None:
        shapes[norm_scale(number)] = shapes[offset_of(norm_scale(number))] = (wide,)

    def add_layer(layer: Layer, attentions: int) -> None:
        for number in range(4 * attentions):
            shapes[fc(layer.fc + number)] = (wide, wide)
        first = layer.fc + 4 * attentions
        shapes[fc(first)], shapes[offset_of(fc(first))] = (wide, inner), (inner,)
        shapes[fc(first + 1)], shapes[offset_of(fc(first + 1))] = (inner, wide), (wide,)
        for number in range(attentions + 1):
            add_norm(layer.norm + number)

    for layer in encoder_layers(config):
        add_layer(layer, attentions=1)
    for layer in decoder_layers(config):
        add_layer(layer, attentions=2)
    if config.norm == "pre":
        for number in final_norms(config):
            add_norm(number)
    if not config.weight_sharing:
        shapes[output_layer(config)] = (wide, config.trg_vocab_size)
    return shapes


def config_of(weights: Mapping[str, np.ndarray], n_head: int | None = None, **changes: Any) -> Transformer:
    """The network that weights belong to, read off their names and shapes.

    Args:
        weights: arrays by name.
        n_head: attention heads, which no shape tells; by default as many as make them 64 wide, as in every release.
        changes: fields to set otherwise, such as `dropout`, which no shape tells either: 0.3 for big and 0.1 for smaller.

    Raises WeightsError if these are no Transformer's weights.
    """
    try:
        vocabulary, wide = weights[SOURCE_TABLE].shape
        sharing = TARGET_TABLE not in weights
        encoder, decoder, norm = depths(weights, 0 if sharing else 1)
        config = Transformer(
            src_vocab_size=vocabulary,
            trg_vocab_size=vocabulary if sharing else weights[TARGET_TABLE].shape[0],
            max_length=weights[SOURCE_POSITIONS].shape[0] - 1,
            d_model=wide,
            d_inner_hid=weights[fc(4)].shape[1],
            n_head=n_head or max(1, wide // 64),
            n_layer=encoder,
            n_decoder_layer=None if decoder == encoder else decoder,
            dropout=SIZES["big"]["dropout"] if wide >= SIZES["big"]["d_model"] else SIZES["base"]["dropout"],
            norm=norm,
            weight_sharing=sharing,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise WeightsError(f"these are not the weights of a Transformer: no usable {error}") from None
    return dataclasses.replace(config, **changes)


def depths(names: Iterable[str], further: int) -> tuple[int, int, Literal["pre", "post"]]:
    """Layers of encoder and decoder, and where they normalise, by the names of their parameters.

    An encoder layer has 6 matrices, two of them with an offset, and 2 normalisations; a decoder layer 10, two, and 3. There
    are `further` matrices beside these.
    """
    numbers: dict[str, set[int]] = {"fc_w": set(), "fc_b": set(), "layer_norm_w": set()}
    for name in names:
        if found := re.fullmatch(r"(fc|layer_norm)_(\d+)\.(w|b)_0", name):
            numbers.setdefault(f"{found[1]}_{found[3]}", set()).add(int(found[2]))
    # The largest number tells how many there are even where one is missing, which is said elsewhere.
    matrices, normalisations = (1 + max(numbers[kind]) for kind in ("fc_w", "layer_norm_w"))
    offsets = len(numbers["fc_b"])
    decoder = (matrices - further - 3 * offsets) // 4
    encoder = offsets // 2 - decoder
    return encoder, decoder, "post" if normalisations == 2 * encoder + 3 * decoder else "pre"


def position_table(config: Transformer) -> np.ndarray:
    """Sinusoids, [max_length + 1, d_model] float32: sines in the first half of a row, cosines in the second.

    Position p and frequency i: p / 10000**(i / (d_model / 2 - 1)), the timescales of tensor2tensor that Fluid's formula
    aimed at (section 3.5 of the paper interleaves sines and cosines instead; the model cannot tell the difference).
    """
    frequencies = 10000.0 ** (-np.arange(config.d_model // 2) / max(config.d_model // 2 - 1, 1))
    angles = np.arange(config.max_length + 1)[:, None] * frequencies[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def with_dropout(weights: Mapping[str, np.ndarray], config: Transformer, rate: float) -> dict[str, np.ndarray]:
    """Weights that answer as `weights` do in the network `config`, in the same one with another rate of dropout.

    Inference multiplies what dropout saw by (1 - rate): attention's weights and hidden units, for which the matrices behind
    them make up; and the residual stream as a whole, which the next normalisation takes out. Raises UserError for
    `norm="post"`, where the stream is normalised piece by piece.
    """
    if config.norm == "post":
        raise UserError("weights with --norm post keep the dropout that they were trained with")
    factor = np.float32((1 - config.dropout) / (1 - rate))
    behind = [layer.fc + number for layer in encoder_layers(config) for number in (3, 5)]
    behind += [layer.fc + number for layer in decoder_layers(config) for number in (3, 7, 9)]
    scaled = {fc(number): weights[fc(number)] * factor for number in behind}
    return {**weights, **scaled}


def create_parameters(config: Transformer, owner: str = "") -> dict[str, Value]:
    """Create every parameter in the Program under construction, initialised as in Fluid (Xavier, uniform).

    There the names begin with `owner`, which tells several networks of one Program apart.
    """
    created = {}
    for name, shape in parameter_shapes(config).items():
        trainable = name not in (SOURCE_POSITIONS, TARGET_POSITIONS)
        if not trainable:
            initializer = paddle.nn.initializer.Assign(position_table(config))
        elif name in (SOURCE_TABLE, TARGET_TABLE):
            initializer = paddle.nn.initializer.Normal(0.0, config.d_model**-0.5)
        elif len(shape) == 2:
            initializer = paddle.nn.initializer.XavierUniform()
        else:
            initializer = paddle.nn.initializer.Constant(
                1.0 if name.startswith("layer_norm") and ".w_" in name else 0.0
            )
        attributes = paddle.ParamAttr(name=f"{owner}{name}", initializer=initializer, trainable=trainable)
        created[name] = paddle.create_parameter(list(shape), "float32", attr=attributes)
    return created


def encode(
    parameters: Mapping[str, Value], config: Transformer, src_word: Value, training: bool
) -> tuple[Value, Value]:
    """The encoder.

    Args:
        src_word: [N, S] int64, `<s> words <e>`, padded with `<e>`.

    Returns:
        memory [N, S, d_model], and what cross-attention adds to its scores, [N, 1, 1, S].
    """
    net = Network(parameters, config, training)
    inside = is_inside(src_word)
    bias = ((1.0 - inside) * MASKED).unsqueeze([1, 2])
    x = net.embed(src_word, SOURCE_TABLE, SOURCE_POSITIONS, inside)
    for index, layer in enumerate(encoder_layers(config)):
        x = net.sublayer(x, layer.norm, net.self_attention, layer.fc, bias, f"encoder_{index}")
        x = net.sublayer(x, layer.norm + 1, net.feed_forward, layer.fc + 4)
        x = name_layer(f"encoder_{index}", x)
    return net.final(x, final_norms(config)[0]), bias


def decode(
    parameters: Mapping[str, Value],
    config: Transformer,
    trg_word: Value,
    memory: Value,
    source_bias: Value,
    training: bool,
) -> Value:
    """The decoder over whole sentences: logits [N, T, trg_vocab_size] of the word after each of `trg_word`.

    Args:
        trg_word: [N, T] int64, `<s> words`, padded with `<e>`.
        memory, source_bias: from `encode`.
    """
    net = Network(parameters, config, training)
    length = paddle.shape(trg_word)[1]
    steps = paddle.arange(0, length, dtype="int64")
    later = paddle.cast(steps.unsqueeze(0) > steps.unsqueeze(1), "float32")
    bias = (later * MASKED).unsqueeze([0, 1])
    inside = paddle.cast(trg_word != EOS, "float32")
    x = net.embed(trg_word, _target_table(config), TARGET_POSITIONS, inside)
    for index, layer in enumerate(decoder_layers(config)):
        x = net.sublayer(x, layer.norm, net.self_attention, layer.fc, bias, f"decoder_{index}_self")
        pair, name = net.keys_values(memory, layer.fc + 4), f"decoder_{index}_cross"
        x = net.sublayer(x, layer.norm + 1, net.attention, pair, layer.fc + 4, source_bias, name)
        x = net.sublayer(x, layer.norm + 2, net.feed_forward, layer.fc + 8)
        x = name_layer(f"decoder_{index}", x)
    return net.output(net.final(x, final_norms(config)[1]))


def joined(parameters: Mapping[str, Value], config: Transformer) -> dict[str, Value]:
    """`parameters`, and under `queries_keys_values` those of each self-attention of the decoder side by side: one product, not three."""
    wide = {
        queries_keys_values(layer.fc): paddle.concat([parameters[fc(layer.fc + number)] for number in range(3)], axis=1)
        for layer in decoder_layers(config)
    }
    return {**parameters, **wide}


def queries_keys_values(number: int) -> str:
    """What `joined` calls the weights of the attention whose first fully connected layer is `number`."""
    return f"fc_{number}..{number + 2}.w_0"


def memory_keys_values(
    parameters: Mapping[str, Value], config: Transformer, memory: Value
) -> list[tuple[Value, Value]]:
    """Keys and values of the cross-attention of each layer, [N, n_head, S, d_head], computed once a sentence."""
    net = Network(parameters, config, training=False)
    return [net.keys_values(memory, layer.fc + 4) for layer in decoder_layers(config)]


def decode_step(
    parameters: Mapping[str, Value],
    config: Transformer,
    word: Value,
    step: Value,
    own: list[tuple[Value, Value]],
    writer: Value,
    memory: list[tuple[Value, Value]],
    source_bias: Value,
) -> tuple[Value, list[tuple[Value, Value]], Value]:
    """The decoder for one position of K hypotheses a sentence, with the keys and values of earlier positions given.

    Keys and values stay where they were written when hypotheses change places: each asks all of its sentence's, and is
    shown those of its own past.

    Args:
        parameters: from `joined`.
        word: [N, K] int64, the words at this position.
        step: [1] int64, the position.
        own: per layer, keys and values of self-attention, [N, n_head, T * K, d_head]; entries from `step` on are ignored.
        writer: [N * K, T] int64, which of the K wrote what belongs to a hypothesis's past; entries from `step` on are ignored.
        memory: from `memory_keys_values`; source_bias: from `encode`.

    Returns:
        logits [N, K, trg_vocab_size], and `own` and `writer` with the entries of this position filled in.
    """
    net = Network(parameters, config, training=False)
    hypotheses = word.shape[1]
    positions = paddle.arange(0, paddle.shape(writer)[1], dtype="int64")
    number = paddle.arange(0, hypotheses, dtype="int64")
    writer = paddle.where(
        positions == step, number.reshape([1, -1, 1]), paddle.reshape(writer, [-1, hypotheses, paddle.shape(writer)[1]])
    )
    seen = paddle.logical_and(writer.unsqueeze(3) == number, (positions <= step).reshape([1, 1, -1, 1]))
    bias = ((1.0 - paddle.cast(seen, "float32")) * MASKED).flatten(2).unsqueeze(1)
    inside = paddle.ones_like(paddle.cast(word, "float32"))
    x = net.embed(word, _target_table(config), TARGET_POSITIONS, inside, first=step)
    updated: list[tuple[Value, Value]] = []
    for layer, cache, pair in zip(decoder_layers(config), own, memory, strict=True):
        x = net.sublayer(x, layer.norm, net.cached_attention, layer.fc, cache, step, bias, updated)
        # The hypotheses of a sentence are its queries: the memory is not repeated for each of them.
        x = net.sublayer(x, layer.norm + 1, net.attention, pair, layer.fc + 4, source_bias)
        x = net.sublayer(x, layer.norm + 2, net.feed_forward, layer.fc + 8)
    return net.output(net.final(x, final_norms(config)[1])), updated, writer.flatten(0, 1)


def is_inside(words: Value) -> Value:
    """1.0 for the words of a sentence up to and including its first `<e>`, 0.0 for the padding after it: [N, T] float32."""
    ends = paddle.cast(words == EOS, "int64")
    return paddle.cast(paddle.cumsum(ends, axis=1) - ends == 0, "float32")


def _target_table(config: Transformer) -> str:
    return SOURCE_TABLE if config.weight_sharing else TARGET_TABLE


class Network:
    """The parts that encoder and decoder are made of."""

    def __init__(self, parameters: Mapping[str, Value], config: Transformer, training: bool):
        self.parameters, self.config, self.training = parameters, config, training

    def linear(self, x: Value, number: int, offset: bool = False) -> Value:
        """Fully connected layer `number`; the projections of attention have no offset."""
        name = fc(number)
        return F.linear(x, self.parameters[name], self.parameters[offset_of(name)] if offset else None)

    def dropout(self, x: Value) -> Value:
        """Dropout (Srivastava et al., JMLR 2014), undone in inference by the factor (1 - rate)."""
        rate = self.config.dropout
        return F.dropout(x, rate, training=self.training, mode="downscale_in_infer") if rate else x

    def norm(self, x: Value, number: int) -> Value:
        """Layer normalisation (Ba et al., arXiv:1607.06450)."""
        name = norm_scale(number)
        return F.layer_norm(x, self.config.d_model, self.parameters[name], self.parameters[offset_of(name)], 1e-5)

    def final(self, x: Value, number: int) -> Value:
        """What follows the last layer."""
        return self.norm(x, number) if self.config.norm == "pre" else x

    def sublayer(self, x: Value, norm: int, function: Callable[..., Value], *arguments: Any) -> Value:
        """A residual connection around `function(x, *arguments)`, with the normalisation before or after."""
        if self.config.norm == "pre":
            return x + self.dropout(function(self.norm(x, norm), *arguments))
        return self.norm(x + self.dropout(function(x, *arguments)), norm)

    def embed(self, words: Value, table: str, positions: str, inside: Value, first: Value | None = None) -> Value:
        """Word vectors times sqrt(d_model) plus position vectors, [N, T, d_model].

        In 2018 positions counted from 1, with 0 for the padding. In 2019 they count from 0, and `<s>` has no vector.
        """
        pre = self.config.norm == "pre"
        vectors = F.embedding(words, self.parameters[table], padding_idx=BOS if pre else None)
        if first is None:
            number = paddle.arange(0, paddle.shape(words)[1], dtype="int64").unsqueeze(0) + (0 if pre else 1)
        else:
            number = first.unsqueeze(0) + (0 if pre else 1)
        number = number * paddle.cast(inside, "int64")
        return self.dropout(vectors * self.config.d_model**0.5 + F.embedding(number, self.parameters[positions]))

    def heads(self, x: Value) -> Value:
        """[N, T, d_model] -> [N, n_head, T, d_head]."""
        config = self.config
        return paddle.transpose(x.reshape([0, 0, config.n_head, config.d_head]), [0, 2, 1, 3])

    def keys_values(self, x: Value, number: int) -> tuple[Value, Value]:
        """Keys and values of `x` [N, T, d_model] for the attention whose first layer is `number`."""
        return self.heads(self.linear(x, number + 1)), self.heads(self.linear(x, number + 2))

    def self_attention(self, x: Value, number: int, bias: Value, name: str) -> Value:
        """Attention of a sentence to itself."""
        return self.attention(x, self.keys_values(x, number), number, bias, name)

    def cached_attention(
        self,
        x: Value,
        number: int,
        cache: tuple[Value, Value],
        step: Value,
        bias: Value,
        updated: list[tuple[Value, Value]],
    ) -> Value:
        """Attention of one position, x [N, K, d_model], to what `bias` [N, 1, K, T * K] shows of `cache`, in which the
        position `step` is filled in first; it is appended to `updated`."""
        hypotheses = x.shape[1]
        here = (slice(None), slice(None), slice(step * hypotheses, step * hypotheses + hypotheses))
        projected = F.linear(x, self.parameters[queries_keys_values(number)])
        queries, *fresh = (self.heads(part) for part in paddle.split(projected, 3, axis=2))
        # Without a change of shape between writing and reading, XLA writes in place.
        keys, values = (paddle.static.setitem(old, here, new) for new, old in zip(fresh, cache, strict=True))
        updated.append((keys, values))
        return self.mixed(queries, keys, values, number, bias)

    def attention(
        self, x: Value, keys_values: tuple[Value, Value], number: int, bias: Value, name: str | None = None
    ) -> Value:
        """Multi-head attention: x [N, Q, d_model] asks, keys and values [N, n_head, T, d_head] answer.

        `bias` is added to the scores [N, n_head, Q, T]; the weights can be fetched as the layer `NAME_attention`.
        """
        return self.mixed(self.heads(self.linear(x, number)), *keys_values, number, bias, name)

    def mixed(
        self, queries: Value, keys: Value, values: Value, number: int, bias: Value, name: str | None = None
    ) -> Value:
        """What `queries` [N, n_head, Q, d_head] find, [N, Q, d_model]; the rest as of `attention`."""
        config = self.config
        scores = paddle.matmul(queries * config.d_model**-0.5, keys, transpose_y=True)
        weights = F.softmax(scores + bias, axis=-1)
        if name is not None:
            weights = name_layer(f"{name}_attention", weights)
        mixed = paddle.transpose(paddle.matmul(self.dropout(weights), values), [0, 2, 1, 3])
        return self.linear(mixed.reshape([0, 0, config.d_model]), number + 3)

    def feed_forward(self, x: Value, number: int) -> Value:
        """Two fully connected layers with ReLU between; since 2019 with dropout there too."""
        hidden = F.relu(self.linear(x, number, offset=True))
        if self.config.norm == "pre":
            hidden = self.dropout(hidden)
        return self.linear(hidden, number + 1, offset=True)

    def output(self, x: Value) -> Value:
        """Logits over the target vocabulary."""
        if self.config.weight_sharing:
            return paddle.matmul(x, self.parameters[SOURCE_TABLE], transpose_y=True)
        return F.linear(x, self.parameters[output_layer(self.config)])
