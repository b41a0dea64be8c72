"""The Programs of translation."""

from collections.abc import Sequence
from typing import Any

from fluid.interface import Input, Window
from fluid.program import Program, Value, build, build_accumulating
from fluid.schedule import Schedule
from fluid.weights import Bare, Report, load_into
from neural_machine_translation.decode import Search, beam_search, sample
from neural_machine_translation.model import config_of, create_parameters, decode, encode, is_inside, parameter_shapes
from neural_machine_translation.translator import Transformer, of_other

import numpy as np
import paddle
import paddle.nn.functional as F

WORDS = [Input(name, (None, None), "int64") for name in ("src_word", "trg_word", "lbl_word")]
"""Source [N, S], decoder input [N, T] (`<s> words`), label [N, T] (`words <e>`), each padded with `<e>`."""
PREFIX = Input("prefix", (None, None), "int64")
"""How translations begin [N, P], padded with `<e>`."""


def losses(logits: Value, label: Value, label_smoothing: float) -> tuple[Value, Value, Value]:
    """Cross-entropy of each word: (smoothed, plain, whether it counts), each [N, T]; zero in the padding.

    The smoothed target gives `label_smoothing` evenly to all V words (Szegedy et al., arXiv:1512.00567).
    """
    counts = is_inside(label)
    plain = F.cross_entropy(logits, label, reduction="none") * counts
    if not label_smoothing:
        return plain, plain, counts
    smoothed = F.cross_entropy(logits, label, reduction="none", label_smoothing=label_smoothing)
    return paddle.squeeze(smoothed, 2) * counts, plain, counts


def training_programs(
    config: Transformer,
    *,
    label_smoothing: float,
    optimizer: Any,
    schedule: Schedule,
    accumulate_batches: int = 1,
    ema_decay: float | Window | None = None,
) -> tuple[Program, Program | None]:
    """The training Program, or the pair (accumulate, apply).

    Outputs: `loss` (smoothed) and `nll`, means over words, and `loss_weight` and `nll_weight`, how many words that is: so
    every word of several batches counts alike.
    """

    def network(src_word: Value, trg_word: Value, lbl_word: Value, training: bool) -> dict[str, Value]:
        parameters = create_parameters(config)
        memory, bias = encode(parameters, config, src_word, training)
        logits = decode(parameters, config, trg_word, memory, bias, training)
        smoothed, plain, counts = losses(logits, lbl_word, label_smoothing)
        words = paddle.sum(counts)
        means = {"loss": paddle.sum(smoothed) / words, "nll": paddle.sum(plain) / words}
        return means | {"loss_weight": words, "nll_weight": words}

    common = {"name": "train", "optimizer": optimizer, "schedule": schedule, "ema_decay": ema_decay}
    if accumulate_batches == 1:
        return build(network, WORDS, training=True, **common), None
    return build_accumulating(network, WORDS, batches=accumulate_batches, **common)


def evaluation_program(config: Transformer) -> Program:
    """Forced decoding of known translations: `nll` [N], negative log-probability of each, and `words` [N]."""

    def network(src_word: Value, trg_word: Value, lbl_word: Value, training: bool) -> dict[str, Value]:
        logits = forced_logits(config, src_word, trg_word)
        _, plain, counts = losses(logits, lbl_word, 0.0)
        return {"nll": paddle.sum(plain, axis=1), "words": paddle.sum(counts, axis=1)}

    return build(network, WORDS, name="eval")


def scoring_program(config: Transformer) -> Program:
    """Inputs `src_word` [N, S] and `trg_word` [N, T] int64, output `logits` [N, T, V]; layers hold attention weights."""

    def network(src_word: Value, trg_word: Value, training: bool) -> dict[str, Value]:
        return {"logits": forced_logits(config, src_word, trg_word)}

    return build(network, WORDS[:2], name="score")


def forced_logits(config: Transformer, src_word: Value, trg_word: Value) -> Value:
    """Logits [N, T, V] of the word after each word of a given translation."""
    parameters = create_parameters(config)
    memory, bias = encode(parameters, config, src_word, training=False)
    return decode(parameters, config, trg_word, memory, bias, training=False)


def search_program(
    config: Transformer, search: Search, *, others: Sequence[Transformer] = (), begun: bool = False
) -> Program:
    """Input `src_word` [N, S] int64, outputs `ids` [N, beam_size, T] int64 and `scores` [N, beam_size].

    The parameters of `others`, networks that decide together with this one, are named by `of_other`. With `begun` there is a
    further input `prefix` [N, P], how each translation begins.
    """

    def network(src_word: Value, training: bool, prefix: Value | None = None) -> dict[str, Value]:
        owners = ["", *(of_other(number, "") for number in range(len(others)))]
        forms = [config, *others]
        networks = [(create_parameters(form, owner), form) for form, owner in zip(forms, owners, strict=True)]
        return beam_search(networks, search, src_word, prefix)

    return build(network, [WORDS[0], *[PREFIX] * begun], name="search", independent_rows=True)


def sampling_program(
    config: Transformer, *, max_out_len: int, temperature: float, top_k: int, forbidden: Sequence[int] = ()
) -> Program:
    """Input `src_word` [N, S] int64, outputs `ids` [N, 1, T] int64, none of them `forbidden`, and `scores` [N, 1]."""

    def network(src_word: Value, training: bool) -> dict[str, Value]:
        return sample(
            create_parameters(config),
            config,
            src_word,
            max_out_len=max_out_len,
            temperature=temperature,
            top_k=top_k,
            forbidden=forbidden,
        )

    return build(network, WORDS[:1], name="sample")


def load_weights(
    bare: Bare, *, allow_partial: bool = False, **changes: Any
) -> tuple[Transformer, dict[str, np.ndarray], Report]:
    """Weights alone with the network that fits them.

    `changes` are fields of the network that the user set (None where not): the number of heads and the dropout rate,
    which shapes do not tell. Raises WeightsError if the weights are not those of a Transformer.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    # Only a combined file without names needs them, and every release has six layers.
    weights = bare.read(list(parameter_shapes(Transformer(1, 1, n_layer=changes.get("n_layer", 6)))))
    config = config_of(weights, **{name: changes[name] for name in ("n_head", "dropout", "norm") if name in changes})
    initial = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    state, report = load_into(initial, weights, allow_partial=allow_partial)
    return config, state, report
