"""Decoding inside the Program: beam search and sampling, as loops with caches of fixed size.

Everything has the same shape in every iteration, so one compiled loop serves both engines and the exported model.
A hypothesis is a row of `ids` [T]: its words up to and including `<e>`, then `<e>` again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from fluid.program import Value
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.model import (
    MASKED,
    Transformer,
    decode_step,
    encode,
    memory_keys_values,
)

import numpy as np
import paddle

LengthPenalty = Literal["gnmt", "average", "none"]

UNFINISHED = -1e6
"""Added to the rank of hypotheses that were cut off, so that any finished one comes first."""


@dataclass(frozen=True)
class Search:
    """How hypotheses are searched and ranked."""

    beam_size: int = 5
    max_out_len: int = 256
    """Longest translation in words, `<e>` included; at most twice the source and 10 more are tried."""
    length_penalty: LengthPenalty = "gnmt"
    """What the log-probability is divided by: gnmt, ((5 + length) / 6)**alpha (Wu et al., arXiv:1609.08144, equation 14);
    average, length; none, 1, as Fluid's beam search did."""
    alpha: float = 0.6
    """Exponent of gnmt."""

    def penalty(self, length: Value | np.ndarray | float) -> Value | np.ndarray | float:
        """The divisor for hypotheses of `length` words, `<e>` included."""
        if self.length_penalty == "gnmt":
            return ((length + 5.0) / 6.0) ** self.alpha
        return length * 1.0 if self.length_penalty == "average" else length * 0.0 + 1.0


def beam_search(
    parameters: Mapping[str, Value], config: Transformer, search: Search, src_word: Value
) -> dict[str, Value]:
    """The most probable translations of `src_word` [N, S] int64.

    Returns `ids` [N, beam_size, T] int64 and `scores` [N, beam_size] float32, best first: the log-probability of the
    words divided by the length penalty. A sentence is done when none of its growing hypotheses, as it stands, ranks
    above the worst of `beam_size` finished ones.
    """
    beam = search.beam_size
    wide = min(2 * beam, config.trg_vocab_size)
    kept = min(2 * beam, beam * wide)
    decoder = Decoder(parameters, config, search.max_out_len, beam, src_word)
    at_first = np.full((1, beam), MASKED, np.float32)
    at_first[0, 0] = 0.0
    growing_score = decoder.zeros + paddle.assign(at_first)
    finished_score = decoder.zeros + MASKED

    def unfinished(step: Value, growing_score: Value, finished_score: Value) -> Value:
        best = growing_score[:, :1] / search.penalty(paddle.clip(paddle.cast(step, "float32"), min=1.0))
        return best > finished_score[:, beam - 1 :]

    def running(step, word, growing_score, growing_ids, finished_score, finished_ids, *caches):
        more = paddle.any(unfinished(step, growing_score, finished_score))
        return paddle.logical_and(step < decoder.length, more)

    def advance(step, word, growing_score, growing_ids, finished_score, finished_ids, *caches):
        # A sentence that is done stays as it is while others of its batch go on: the result must not depend on company.
        going_on = unfinished(step, growing_score, finished_score)
        growing_score = paddle.where(going_on, growing_score, decoder.masked(growing_score))
        logits, caches = decoder.step(word, step, caches)
        # The best words of each hypothesis first: a search over vocabulary x beam would sort far more.
        best, words = paddle.topk(logits, wide, axis=2)
        best = best - paddle.logsumexp(logits, axis=2, keepdim=True) + growing_score.unsqueeze(2)
        score, place = paddle.topk(best.reshape([0, beam * wide]), kept, axis=1)
        parent = place // wide
        word = paddle.take_along_axis(words.reshape([0, beam * wide]), place, axis=1)
        ids = decoder.write(decoder.choose(growing_ids, parent), step, word)
        ended = word == EOS

        # Only an end that would have stayed in the beam counts; so a beam of 1 is greedy search.
        stays = paddle.logical_and(ended, paddle.arange(0, kept) < beam)
        rank = paddle.where(stays, score / search.penalty(paddle.cast(step + 1, "float32")), decoder.masked(score))
        finished_score, order = paddle.topk(paddle.concat([finished_score, rank], axis=1), beam, axis=1)
        finished_ids = decoder.choose(paddle.concat([finished_ids, ids], axis=1), order)

        growing_score, order = paddle.topk(paddle.where(ended, decoder.masked(score), score), beam, axis=1)
        growing_ids = decoder.choose(ids, order)
        word = paddle.take_along_axis(word, order, axis=1)
        caches = decoder.reorder(caches, paddle.take_along_axis(parent, order, axis=1))
        return [step + 1, word, growing_score, growing_ids, finished_score, finished_ids, *caches]

    state = [
        decoder.first_step,
        decoder.first_word,
        growing_score,
        decoder.ids,
        finished_score,
        decoder.ids,
        *decoder.caches,
    ]
    step, _, growing_score, growing_ids, finished_score, finished_ids, *_ = paddle.static.nn.while_loop(
        running, advance, state
    )
    growing_score = growing_score / search.penalty(paddle.cast(step, "float32"))
    scores = paddle.concat([finished_score, growing_score], axis=1)
    rank = paddle.concat([finished_score, growing_score + UNFINISHED], axis=1)
    _, order = paddle.topk(rank, beam, axis=1)
    ids = decoder.choose(paddle.concat([finished_ids, growing_ids], axis=1), order)
    return {"ids": ids, "scores": paddle.take_along_axis(scores, order, axis=1)}


def sample(
    parameters: Mapping[str, Value],
    config: Transformer,
    src_word: Value,
    *,
    max_out_len: int = 256,
    temperature: float = 1.0,
    top_k: int = 0,
) -> dict[str, Value]:
    """One random translation of each sentence of `src_word` [N, S] int64.

    Each word is drawn from softmax(logits / temperature), with `top_k` from its `top_k` most probable words alone.
    Returns `ids` [N, 1, T] int64 and `scores` [N, 1] float32, the log-probability under the model.
    """
    decoder = Decoder(parameters, config, max_out_len, 1, src_word)
    candidates = min(top_k or config.trg_vocab_size, config.trg_vocab_size)

    def running(step, word, score, ids, *caches):
        return paddle.logical_and(step < decoder.length, paddle.any(paddle.logical_or(word != EOS, step == 0)))

    def advance(step, word, score, ids, *caches):
        growing = paddle.logical_or(word != EOS, step == 0)
        logits, caches = decoder.step(word, step, caches)
        best, words = paddle.topk(logits, candidates, axis=2)
        # The largest of logits + Gumbel noise is a draw from their softmax (Gumbel, 1954).
        noise = -paddle.log(-paddle.log(paddle.uniform(paddle.shape(best), "float32", 1e-9, 1.0)))
        place = paddle.argmax(best / temperature + noise, axis=2, keepdim=True)
        drawn = paddle.take_along_axis(words, place, axis=2).squeeze(2)
        gained = paddle.take_along_axis(best, place, axis=2).squeeze(2) - paddle.logsumexp(logits, axis=2)
        word = paddle.where(growing, drawn, paddle.full_like(drawn, EOS))
        score = paddle.where(growing, score + gained, score)
        return [step + 1, word, score, decoder.write(ids, step, word), *caches]

    state = [decoder.first_step, decoder.first_word, decoder.zeros, decoder.ids, *decoder.caches]
    _, _, score, ids, *_ = paddle.static.nn.while_loop(running, advance, state)
    return {"ids": ids, "scores": score}


class Decoder:
    """What every way of decoding needs: the encoded sentences, the caches, and bookkeeping for K hypotheses each."""

    def __init__(
        self, parameters: Mapping[str, Value], config: Transformer, max_out_len: int, hypotheses: int, src_word: Value
    ):
        self.parameters, self.config, self.hypotheses = parameters, config, hypotheses
        memory, self.source_bias = encode(parameters, config, src_word, training=False)
        self.memory = memory_keys_values(parameters, config, memory)
        sentences, words = paddle.shape(src_word)[0], paddle.shape(src_word)[1]
        longest = paddle.full([], min(max_out_len, config.max_length), "int64")
        length = paddle.minimum(2 * words + 10, longest)
        self.length = length.reshape([1])
        self.positions = paddle.arange(0, length, dtype="int64").reshape([1, 1, -1])
        self.zeros = paddle.zeros([sentences, hypotheses], "float32")
        self.first_step = paddle.zeros([1], "int64")
        self.first_word = paddle.full([sentences, hypotheses], BOS, "int64")
        self.ids = paddle.full([sentences, hypotheses, length], EOS, "int64")
        empty = paddle.zeros([sentences * hypotheses, config.n_head, length, config.d_head], "float32")
        self.caches = [empty] * (2 * config.n_layer)
        self.rows = paddle.arange(0, sentences, dtype="int64").unsqueeze(1)

    def step(self, word: Value, step: Value, caches: tuple[Value, ...]) -> tuple[Value, list[Value]]:
        """Logits [N, K, V] after `word` [N, K] at position `step`, and the caches with that position filled in."""
        pairs = list(zip(caches[::2], caches[1::2], strict=True))
        logits, pairs = decode_step(self.parameters, self.config, word, step, pairs, self.memory, self.source_bias)
        return logits, [cache for pair in pairs for cache in pair]

    def masked(self, like: Value) -> Value:
        """A score that is never chosen, in the shape of `like`."""
        return paddle.full_like(like, MASKED)

    def choose(self, ids: Value, order: Value) -> Value:
        """ids [N, M, T], order [N, K] of 0..M-1 -> [N, K, T]."""
        flat = (self.rows * ids.shape[1] + order).reshape([-1])
        chosen = paddle.gather(ids.flatten(0, 1), flat)
        return paddle.reshape(chosen, [-1, order.shape[1], paddle.shape(ids)[2]])

    def write(self, ids: Value, step: Value, word: Value) -> Value:
        """ids [N, K, T] with `word` [N, K] at position `step`."""
        return paddle.where(self.positions == step, word.unsqueeze(2), ids)

    def reorder(self, caches: list[Value], parent: Value) -> list[Value]:
        """Caches of hypotheses that continue the hypotheses `parent` [N, K]."""
        flat = (self.rows * self.hypotheses + parent).reshape([-1])
        return [paddle.gather(cache, flat) for cache in caches]
