"""Searching for the most probable sequences of words, and drawing random ones, inside a Program.

A decoder is a function `step(word, place, caches) -> (logits, caches)`: what it needs of the words so far it keeps in
`caches`, arrays of fixed size with one row for each of K hypotheses of each of N sentences, or of any shape if they stay
where they are. Everything has the same shape in every iteration, so one compiled loop serves both engines and the exported model.

A hypothesis is a row of `ids` [T]: its words up to and including the end word, then that word again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from fluid.program import Value

import numpy as np
import paddle

LengthPenalty = Literal["gnmt", "average", "none"]

Step = Callable[[Value, Value, Sequence[Value]], tuple[Value, Sequence[Value]]]
"""(words [N, K] int64, their place [1] int64, caches [N * K, ...]) -> logits of the next word [N, K, V], and caches."""

NEVER = -1e9
"""A score that is never chosen."""

UNFINISHED = -1e6
"""Added to the rank of hypotheses that were cut off, so that any finished one comes first."""


@dataclass(frozen=True)
class Beam:
    """How many hypotheses are kept, and how they are ranked."""

    beam_size: int = 5
    length_penalty: LengthPenalty = "gnmt"
    """What the log-probability is divided by: gnmt, ((5 + length) / 6)**alpha (Wu et al., arXiv:1609.08144, equation 14);
    average, length; none, 1, as Fluid's beam search did."""
    alpha: float = 0.6
    """Exponent of gnmt."""

    def penalty(self, length: Value | np.ndarray | float) -> Value | np.ndarray | float:
        """The divisor for hypotheses of `length` words, the end word included."""
        if self.length_penalty == "gnmt":
            return ((length + 5.0) / 6.0) ** self.alpha
        return length * 1.0 if self.length_penalty == "average" else length * 0.0 + 1.0


def beam_search(
    step: Step,
    caches: Sequence[Value],
    beam: Beam,
    *,
    rows: Value | int,
    length: Value | int,
    bos: int,
    eos: int,
    staying: int = 0,
    shut: Callable[[Value], Value] | None = None,
    halvings: int = 0,
) -> dict[str, Value]:
    """The most probable sequences of each of N sentences.

    Args:
        step: the decoder, for K = `beam_size` hypotheses a sentence.
        caches: what it is first called with, after the word `bos`; the rows of a sentence lie together and are equal.
        rows: N.
        length: T, the most words of a hypothesis, `eos` included.
        staying: so many of the first caches stay as `step` leaves them, where the others follow the hypotheses that go on.
            Moving large ones costs more than a decoder that keeps in a small one which of their rows are a hypothesis's.
        shut: place [1] -> [N, 1, V], `NEVER` for words that may not stand there and 0 for others; probabilities stay as
            they are.
        halvings: so many times, when half of the sentences are done, these are left behind. For this `step` must have all
            that belongs to a sentence from `caches`, the first axis of each being sentences or their hypotheses.

    Returns `ids` [N, K, T] int64 and `scores` [N, K] float32, best first: the log-probability of the words divided by the
    length penalty. A sentence is done when none of its growing hypotheses, as it stands, ranks above the worst of K
    finished ones.
    """
    size = beam.beam_size
    board = _Board(rows, size, length, eos)
    at_first = np.full((1, size), NEVER, np.float32)
    at_first[0, 0] = 0.0
    growing_score = board.zeros + paddle.assign(at_first)
    finished_score = board.zeros + NEVER

    def unfinished(place: Value, growing_score: Value, finished_score: Value) -> Value:
        best = growing_score[:, :1] / beam.penalty(paddle.clip(paddle.cast(place, "float32"), min=1.0))
        return best > finished_score[:, size - 1 :]

    def advance(
        board: "_Board",
        place: Value,
        word: Value,
        growing_score: Value,
        growing_ids: Value,
        finished_score: Value,
        finished_ids: Value,
        *caches: Value,
    ) -> list[Value]:
        # A sentence that is done stays as it is while others of its batch go on: the result must not depend on company.
        going_on = unfinished(place, growing_score, finished_score)
        growing_score = paddle.where(going_on, growing_score, _never(growing_score))
        logits, next_caches = step(word, place, caches)
        # The best words of each hypothesis first: a search over vocabulary x beam would sort far more.
        wide = min(2 * size, logits.shape[2])
        kept = min(2 * size, size * wide)
        best, words = _best(logits if shut is None else logits + shut(place), wide)
        best = best - paddle.logsumexp(logits, axis=2, keepdim=True) + growing_score.unsqueeze(2)
        score, order = _best(best.reshape([0, size * wide]), kept)
        parent = order // wide
        word = paddle.take_along_axis(words.reshape([0, size * wide]), order, axis=1)
        ids = board.write(board.choose(growing_ids, parent), place, word)
        ended = word == eos

        # Only an end that would have stayed in the beam counts; so a beam of 1 is greedy search.
        stays = paddle.logical_and(ended, paddle.arange(0, kept) < size)
        rank = paddle.where(stays, score / beam.penalty(paddle.cast(place + 1, "float32")), _never(score))
        finished_score, order = _best(paddle.concat([finished_score, rank], axis=1), size)
        finished_ids = board.choose(paddle.concat([finished_ids, ids], axis=1), order)

        growing_score, order = _best(paddle.where(ended, _never(score), score), size)
        growing_ids = board.choose(ids, order)
        word = paddle.take_along_axis(word, order, axis=1)
        moved = board.reorder(next_caches[staying:], paddle.take_along_axis(parent, order, axis=1))
        hypotheses = [growing_score, growing_ids, finished_score, finished_ids]
        return [place + 1, word, *hypotheses, *next_caches[:staying], *moved]

    def search(board: "_Board", state: Sequence[Value], left: Value | int) -> list[Value]:
        """Until no more than `left` sentences are not done."""

        def running(
            place: Value, word: Value, growing_score: Value, growing_ids: Value, finished_score: Value, *_: Value
        ) -> Value:
            more = paddle.sum(paddle.cast(unfinished(place, growing_score, finished_score), "int64")) > left
            return paddle.logical_and(place < board.length, more)

        return list(paddle.static.nn.while_loop(running, lambda *state: advance(board, *state), list(state)))

    def thinned(board: "_Board", state: Sequence[Value], times: int) -> list[Value]:
        """Until all are done, without those that are when half of them are, so many times."""
        if not times:
            return search(board, state, 0)
        half = (board.rows + 1) // 2
        place, word, *found = search(board, state, half)
        order = _best(paddle.cast(unfinished(place, found[0], found[2]), "float32").reshape([-1]), half)[1]
        stay = [paddle.gather(value, order) for value in (word, *found[: 4 + staying])]
        move = [board.pick(cache, order) for cache in found[4 + staying :]]
        place, word_after, *rest = thinned(board.part(half), [place, *stay, *move], times - 1)
        merged = [paddle.scatter(whole, order, part) for whole, part in zip(found[:4], rest[:4], strict=True)]
        return [place, word_after, *merged]

    start = [*board.first(bos), growing_score, board.ids, finished_score, board.ids, *caches]
    place, _, growing_score, growing_ids, finished_score, finished_ids, *_ = thinned(board, start, halvings)
    growing_score = growing_score / beam.penalty(paddle.cast(place, "float32"))
    scores = paddle.concat([finished_score, growing_score], axis=1)
    rank = paddle.concat([finished_score, growing_score + UNFINISHED], axis=1)
    _, order = _best(rank, size)
    ids = board.choose(paddle.concat([finished_ids, growing_ids], axis=1), order)
    return {"ids": ids, "scores": paddle.take_along_axis(scores, order, axis=1)}


def sample(
    step: Step,
    caches: Sequence[Value],
    *,
    rows: Value | int,
    length: Value | int,
    bos: int,
    eos: int,
    temperature: float = 1.0,
    top_k: int = 0,
    forbidden: Sequence[int] = (),
) -> dict[str, Value]:
    """One random sequence for each of N sentences.

    Each word is drawn from softmax(logits / temperature), with `top_k` from its `top_k` most probable words alone, and never
    one of the `forbidden`. `step` decodes one hypothesis a sentence; the other arguments as in `beam_search`. Returns `ids`
    [N, 1, T] int64 and `scores` [N, 1] float32, the log-probability under the model.
    """
    board = _Board(rows, 1, length, eos)

    def allowed(logits: Value) -> Value:
        if not forbidden:
            return logits
        never = np.zeros((1, 1, logits.shape[2]), np.float32)
        never[..., list(forbidden)] = NEVER
        return logits + paddle.assign(never)

    def running(place: Value, word: Value, score: Value, ids: Value, *caches: Value) -> Value:
        return paddle.logical_and(place < board.length, paddle.any(paddle.logical_or(word != eos, place == 0)))

    def advance(place: Value, word: Value, score: Value, ids: Value, *caches: Value) -> list[Value]:
        growing = paddle.logical_or(word != eos, place == 0)
        logits, next_caches = step(word, place, caches)
        best = allowed(logits)
        best, words = _best(best, min(top_k, best.shape[2])) if top_k else (best, None)
        # The largest of logits + Gumbel noise is a draw from their softmax (Gumbel, 1954).
        noise = -paddle.log(-paddle.log(paddle.uniform(paddle.shape(best), "float32", 1e-9, 1.0)))
        drawn = paddle.argmax(best / temperature + noise, axis=2, keepdim=True)
        gained = paddle.take_along_axis(best, drawn, axis=2).squeeze(2) - paddle.logsumexp(logits, axis=2)
        drawn = (drawn if words is None else paddle.take_along_axis(words, drawn, axis=2)).squeeze(2)
        word = paddle.where(growing, drawn, paddle.full_like(drawn, eos))
        score = paddle.where(growing, score + gained, score)
        return [place + 1, word, score, board.write(ids, place, word), *next_caches]

    start = [*board.first(bos), board.zeros, board.ids, *caches]
    _, _, score, ids, *_ = paddle.static.nn.while_loop(running, advance, start)
    return {"ids": ids, "scores": score}


def for_each_hypothesis(value: Value, hypotheses: int) -> Value:
    """`value` [N, ...] as the rows of a cache, [N * hypotheses, ...]: those of a sentence lie together."""
    return paddle.tile(value.unsqueeze(1), [1, hypotheses, *[1] * (len(value.shape) - 1)]).flatten(0, 1)


class _Board:
    """The words of K hypotheses for each of N sentences, and how they are rearranged."""

    def __init__(self, rows: Value | int, hypotheses: int, length: Value | int, eos: int):
        self.length = paddle.full([1], length, "int64") if isinstance(length, int) else length.reshape([1])
        self.zeros = paddle.zeros([rows, hypotheses], "float32")
        self.ids = paddle.full([rows, hypotheses, self.length], eos, "int64")
        self.rows, self._hypotheses, self._eos = rows, hypotheses, eos
        self._positions = paddle.arange(0, self.length, dtype="int64").reshape([1, 1, -1])
        self._sentences = paddle.arange(0, rows, dtype="int64").unsqueeze(1)

    def first(self, bos: int) -> tuple[Value, Value]:
        """Place [1] and words [N, K] that a loop starts with."""
        return paddle.zeros([1], "int64"), paddle.full([self.rows, self._hypotheses], bos, "int64")

    def choose(self, ids: Value, order: Value) -> Value:
        """ids [N, M, T], order [N, K] of 0..M-1 -> [N, K, T]."""
        flat = (self._sentences * ids.shape[1] + order).reshape([-1])
        chosen = paddle.gather(ids.flatten(0, 1), flat)
        return paddle.reshape(chosen, [-1, order.shape[1], paddle.shape(ids)[2]])

    def write(self, ids: Value, place: Value, word: Value) -> Value:
        """ids [N, K, T] with `word` [N, K] at `place`."""
        return paddle.where(self._positions == place, word.unsqueeze(2), ids)

    def part(self, rows: Value | int) -> "_Board":
        """For the first so many of the sentences."""
        return _Board(rows, self._hypotheses, self.length, self._eos)

    def pick(self, cache: Value, sentences: Value) -> Value:
        """A cache of hypotheses, of these sentences alone."""
        rows = sentences.unsqueeze(1) * self._hypotheses + paddle.arange(0, self._hypotheses, dtype="int64")
        return paddle.gather(cache, rows.reshape([-1]))

    def reorder(self, caches: Sequence[Value], parent: Value) -> list[Value]:
        """Caches of hypotheses that continue the hypotheses `parent` [N, K]."""
        flat = (self._sentences * self._hypotheses + parent).reshape([-1])
        return [paddle.gather(cache, flat) for cache in caches]


def _best(score: Value, count: int) -> tuple[Value, Value]:
    """The `count` largest along the last axis and their places; of equal ones the first, as Paddle's topk does not say."""
    order = paddle.argsort(score, axis=-1, descending=True, stable=True)[..., :count]
    return paddle.take_along_axis(score, order, axis=-1), order


def _never(like: Value) -> Value:
    return paddle.full_like(like, NEVER)
