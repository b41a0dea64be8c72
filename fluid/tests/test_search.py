"""Beam search and sampling with a small recurrent decoder, against every sequence that it could have found."""

import itertools
from collections.abc import Iterator
from typing import Any

from fluid.engine.paddle import PaddleEngine
from fluid.engine.xla import create
from fluid.program import Input, Program, Value, build
from fluid.recurrent import gru_cell
from fluid.search import NEVER, Beam, beam_search, for_each_hypothesis, sample

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

WORDS, BOS, EOS, SIZE, PLACES, LENGTH = 5, 0, 1, 4, 3, 4
INPUT = Input("memory", (None, PLACES, SIZE))
MEMORY = np.random.default_rng(0).normal(size=(3, PLACES, SIZE)).astype(np.float32)


class Decoder:
    """A gated recurrent unit that looks at the mean of a memory, its cache the hidden state."""

    def __init__(self, memory: Value, hypotheses: int):
        self.table = paddle.create_parameter([WORDS, 3 * SIZE], "float32", "table")
        self.output = paddle.create_parameter([SIZE, WORDS], "float32", "output")
        self.cell = gru_cell(SIZE, name="unit")
        self.hypotheses = hypotheses
        self.bounds = {"rows": paddle.shape(memory)[0], "length": LENGTH, "bos": BOS, "eos": EOS}
        self.caches = [for_each_hypothesis(paddle.mean(memory, axis=1), hypotheses)]

    def step(self, word: Value, place: Value, caches: Any) -> tuple[Value, list[Value]]:
        (hidden,) = self.cell(F.embedding(word.reshape([-1]), self.table), (caches[0],))
        return paddle.matmul(hidden, self.output).reshape([-1, self.hypotheses, WORDS]), [hidden]


def search_program(beam: Beam) -> Program:
    def network(memory: Value, training: bool) -> dict[str, Value]:
        decoder = Decoder(memory, beam.beam_size)
        return beam_search(decoder.step, decoder.caches, beam, **decoder.bounds)

    return build(network, [INPUT], name="search")


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Weights of enough contrast that some hypotheses end early."""
    rng = np.random.default_rng(2)
    shapes = {
        "table": (WORDS, 3 * SIZE),
        "output": (SIZE, WORDS),
        "unit.w_0": (SIZE, 3 * SIZE),
        "unit.b_0": (1, 3 * SIZE),
    }
    return {name: rng.normal(scale=1.5, size=shape).astype(np.float32) for name, shape in shapes.items()}


def log_probabilities(state: dict[str, np.ndarray], hidden: np.ndarray, word: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the words after `word`, by the formula of the unit; and the next hidden state."""
    flat = state["unit.w_0"].ravel()
    w_gates, w_candidate = flat[: 2 * SIZE**2].reshape(SIZE, -1), flat[2 * SIZE**2 :].reshape(SIZE, -1)
    x = state["table"][word] + state["unit.b_0"][0]
    update, reset = np.split(1 / (1 + np.exp(-(x[: 2 * SIZE] + hidden @ w_gates))), 2)
    candidate = np.tanh(x[2 * SIZE :] + (reset * hidden) @ w_candidate)
    hidden = (1 - update) * hidden + update * candidate
    logits = hidden @ state["output"]
    return logits - np.log(np.exp(logits).sum()), hidden


def every_sequence(state: dict[str, np.ndarray], memory: np.ndarray) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Log-probability and words, the end among them, of all sequences that end within LENGTH words."""
    for count in range(LENGTH):
        for words in itertools.product([word for word in range(WORDS) if word != EOS], repeat=count):
            hidden, total = memory.mean(axis=0), 0.0
            for before, word in itertools.pairwise((BOS, *words, EOS)):
                scores, hidden = log_probabilities(state, hidden, before)
                total += scores[word]
            yield total, (*words, EOS)


@pytest.mark.parametrize("penalty", ["gnmt", "average", "none"])
def test_a_wide_beam_finds_the_best_of_all(state, penalty):
    """With 320 hypotheses none of the 4 * 4 * 4 * 5 sequences is pruned."""
    beam = Beam(320, penalty, alpha=0.8)
    program = search_program(beam)
    for engine in (PaddleEngine(), create("cpu")):
        engine.load(state)
        outputs = {name: np.asarray(value) for name, value in engine.run(program, {"memory": MEMORY}).items()}
        for row, memory in enumerate(MEMORY):
            ranked = [(total / beam.penalty(len(words)), words) for total, words in every_sequence(state, memory)]
            best = sorted(ranked, reverse=True)[:5]
            assert outputs["scores"][row, :5] == pytest.approx([score for score, _ in best], rel=1e-5)
            found = [tuple(ids[: len(words)]) for ids, (_, words) in zip(outputs["ids"][row], best, strict=False)]
            assert found == [words for _, words in best]


def test_a_narrow_beam_scores_what_it_finds(state):
    """Whatever it finds, its scores are those of its words: the caches followed the hypotheses."""
    program, engine = search_program(Beam(3, "none")), PaddleEngine()
    engine.load(state)
    outputs = engine.run(program, {"memory": MEMORY})
    for row, memory in enumerate(MEMORY):
        known = {words: total for total, words in every_sequence(state, memory)}
        for ids, score in zip(outputs["ids"][row], outputs["scores"][row], strict=True):
            if EOS in ids:
                assert score == pytest.approx(known[(*ids[: list(ids).index(EOS)], EOS)], rel=1e-5)


def test_words_that_are_shut_out_change_no_probability(state):
    """A word that may not come first; and a cache of another shape stays as the decoder leaves it."""
    banned, size = 3, 3

    def network(memory: Value, training: bool) -> dict[str, Value]:
        decoder = Decoder(memory, size)

        def step(word: Value, place: Value, caches: Any) -> tuple[Value, list[Value]]:
            logits, moved = decoder.step(word, place, caches[1:])
            return logits, [caches[0] + 1.0, *moved]

        def shut(place: Value) -> Value:
            word = paddle.assign(np.arange(WORDS) == banned).reshape([1, 1, -1])
            return paddle.cast(paddle.logical_and(word, place == 0), "float32") * NEVER

        caches = [paddle.zeros([7]), *decoder.caches]
        return beam_search(step, caches, Beam(size, "none"), staying=1, shut=shut, **decoder.bounds)

    engine = PaddleEngine()
    engine.load(state)
    outputs = engine.run(build(network, [INPUT], name="shut"), {"memory": MEMORY})
    assert (outputs["ids"][:, :, 0] != banned).all()
    free = engine.run(search_program(Beam(size, "none")), {"memory": MEMORY})
    assert (free["ids"][:, :, 0] == banned).any()
    for row, memory in enumerate(MEMORY):
        known = {words: total for total, words in every_sequence(state, memory)}
        for ids, score in zip(outputs["ids"][row], outputs["scores"][row], strict=True):
            if EOS in ids:
                assert score == pytest.approx(known[(*ids[: list(ids).index(EOS)], EOS)], rel=1e-5)


def test_sampled_words_follow_the_decoder(state):
    def network(memory: Value, training: bool) -> dict[str, Value]:
        decoder = Decoder(memory, 1)
        return sample(decoder.step, decoder.caches, **decoder.bounds)

    engine, rows = PaddleEngine(seed=3), 4000
    engine.load(state)
    ids = engine.run(build(network, [INPUT], name="sample"), {"memory": np.repeat(MEMORY[:1], rows, axis=0)})["ids"]
    expected, hidden = log_probabilities(state, MEMORY[0].mean(axis=0), BOS)
    seen = np.bincount(ids[:, 0, 0], minlength=WORDS) / rows
    assert np.abs(seen - np.exp(expected)).max() < 4 * np.sqrt(0.25 / rows)
    first = int(np.argmax(np.where(np.arange(WORDS) == EOS, 0, seen)))
    expected, _ = log_probabilities(state, hidden, first)
    after = ids[ids[:, 0, 0] == first, 0, 1]
    seen = np.bincount(after, minlength=WORDS) / len(after)
    assert np.abs(seen - np.exp(expected)).max() < 4 * np.sqrt(0.25 / len(after))


def test_of_equally_probable_words_the_first_counts_on_both_engines():
    """Logits of 0, 1 and 2 for 600 words: every place of every hypothesis is a tie of hundreds."""
    sentences, words, beam = 4, 600, Beam(3, "none")
    logits = np.random.default_rng(5).integers(0, 3, (sentences, words)).astype(np.float32)
    logits[:, EOS] = -100.0

    def network(logits: Value, training: bool) -> dict[str, Value]:
        def step(word: Value, place: Value, caches: Any) -> tuple[Value, Any]:
            return caches[0].reshape([sentences, beam.beam_size, words]), caches

        caches = [for_each_hypothesis(logits, beam.beam_size)]
        return beam_search(step, caches, beam, rows=sentences, length=LENGTH, bos=BOS, eos=EOS)

    program = build(network, [Input("logits", logits.shape)], name="search")
    best = np.argsort(-logits, axis=1, kind="stable")[:, :3]
    for engine in (PaddleEngine(), create("cpu")):
        ids = np.asarray(engine.run(program, {"logits": logits})["ids"])
        assert np.array_equal(ids[:, :, 0], np.repeat(best[:, :1], 3, axis=1))
        assert np.array_equal(ids[:, :, -1], best), "the last word tells the hypotheses of equal probability apart"
