"""Beam search and sampling: against exhaustive search, against forced scoring, on both engines."""

import itertools

from fluid import engine as engines
from fluid.program import initialise
from neural_machine_translation.decode import Search
from neural_machine_translation.indices import BOS, EOS
from neural_machine_translation.network import evaluation_program, sampling_program, scoring_program, search_program
from neural_machine_translation.score_pairs import scores
from neural_machine_translation.translate import runner, translate
from neural_machine_translation.translator import Transformer, Translator, of_other
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList

import numpy as np
import pytest
from forced_scores import forced_scores

CONFIG = Transformer(7, 7, max_length=24, d_model=16, d_inner_hid=32, n_head=2, n_layer=2, dropout=0.1)
WORDS = WordList((*SPECIAL_WORDS, "a", "b", "c", "d"))
TRANSLATOR = Translator(CONFIG, WORDS, WORDS)
SOURCE = np.array([[0, 3, 4, 5, 6, 1], [0, 5, 1, 1, 1, 1], [0, 6, 6, 3, 1, 1]])


@pytest.fixture(scope="module")
def state() -> dict[str, np.ndarray]:
    """Random weights with enough contrast that hypotheses differ and some end early."""
    arrays = initialise(scoring_program(CONFIG), seed=11)
    rng = np.random.default_rng(4)
    return {
        name: array if "pos_enc" in name else (array + 0.4 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in arrays.items()
    }


def engine_with(state, name="paddle"):
    engine, _ = engines.create(name, "cpu", seed=5)
    engine.load(state)
    return engine


def words_of(ids: np.ndarray) -> tuple[int, ...]:
    ends = np.flatnonzero(ids == EOS)
    return tuple(ids[: ends[0]].tolist()) if len(ends) else tuple(ids.tolist())


def exhaustive(engine, source: np.ndarray, search: Search) -> list[tuple[float, tuple[int, ...]]]:
    """Every translation of fewer than `max_out_len` words with its rank, best first."""
    program = scoring_program(CONFIG)
    found = []
    for length in range(search.max_out_len):
        every = list(itertools.product([word for word in range(7) if word != EOS], repeat=length))
        target = np.array([[BOS, *words] for words in every])
        logits = engine.run(program, {"src_word": np.repeat(source[None], len(every), 0), "trg_word": target})["logits"]
        log_probability = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=2, keepdims=True))
        for row, words in enumerate(every):
            total = sum(log_probability[row, place, word] for place, word in enumerate((*words, EOS)))
            found.append((total / search.penalty(float(length + 1)), words))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("penalty", ["gnmt", "average", "none"])
def test_a_wide_beam_finds_the_best_of_all(state, penalty):
    # With the third word there are 6 * 6 * 7 = 252 candidates, so nothing is pruned.
    search = Search(beam_size=252, max_out_len=3, length_penalty=penalty, alpha=0.8)
    engine = engine_with(state)
    outputs = engine.run(search_program(CONFIG, search), {"src_word": SOURCE})
    for row, source in enumerate(SOURCE):
        best = exhaustive(engine, source, search)[:4]
        assert [words_of(ids) for ids in outputs["ids"][row, :4]] == [words for _, words in best]
        assert outputs["scores"][row, :4] == pytest.approx([score for score, _ in best], rel=1e-4)


def test_beam_one_is_greedy(state):
    engine = engine_with(state)
    found = engine.run(search_program(CONFIG, Search(beam_size=1, max_out_len=10)), {"src_word": SOURCE})["ids"]
    scoring = scoring_program(CONFIG)
    for row, source in enumerate(SOURCE):
        words = [BOS]
        while len(words) <= 10:
            logits = engine.run(scoring, {"src_word": source[None], "trg_word": np.array([words])})["logits"]
            words.append(int(logits[0, -1].argmax()))
            if words[-1] == EOS:
                break
        assert words_of(found[row, 0]) == tuple(word for word in words[1:] if word != EOS)


@pytest.mark.parametrize("penalty", ["gnmt", "none"])
def test_scores_equal_forced_scoring(state, penalty):
    engine = engine_with(state)
    search = Search(beam_size=4, max_out_len=12, length_penalty=penalty)
    sentences = ["a b c d", "c", "d d a", "b b b b b b"]
    found = translate(runner(engine, search_program(CONFIG, search)), TRANSLATOR, sentences, batch_size=3)
    flat = [
        (text, hypothesis)
        for text, some in zip(sentences, found, strict=True)
        for hypothesis in some
        if hypothesis.complete
    ]
    assert len(flat) >= 8
    forced = forced_scores(
        engine, evaluation_program(CONFIG), TRANSLATOR, [text for text, _ in flat], [item.words for _, item in flat]
    )
    for (_, hypothesis), total in zip(flat, forced, strict=True):
        assert hypothesis.score * search.penalty(len(hypothesis.words) + 1.0) == pytest.approx(
            total, rel=1e-4, abs=1e-5
        )
    for some in found:
        scores = [item.score for item in some if item.complete]
        assert scores == sorted(scores, reverse=True)
        assert len({item.words for item in some}) == len(some), "n-best hypotheses differ"


def test_batch_size_and_order_change_nothing(state):
    run = runner(engine_with(state), search_program(CONFIG, Search(beam_size=3, max_out_len=12)))
    rng = np.random.default_rng(6)
    sentences = ["a b c d a b c d a b", "c", "", "d d a", "b"]
    sentences += [" ".join(rng.choice(list("abcd"), rng.integers(1, 7))) for _ in range(25)]
    one = translate(run, TRANSLATOR, sentences, batch_size=1)
    many = translate(run, TRANSLATOR, sentences, batch_size=16)
    assert [[item.text for item in some] for some in one] == [[item.text for item in some] for some in many]
    assert one[2][0].text == ""


def test_an_overlong_sentence_is_reported(state):
    run = runner(engine_with(state), search_program(CONFIG, Search(beam_size=2, max_out_len=4)))
    messages = []
    translate(
        run, TRANSLATOR, ["a", " ".join("abcd" * 8)], batch_size=2, warn=lambda *message: messages.append(message)
    )
    assert [index for index, _ in messages] == [1]
    assert "32 words" in messages[0][1]


def test_the_engines_find_the_same(state):
    program = search_program(CONFIG, Search(beam_size=3, max_out_len=10))
    paddle_found, xla_found = (
        engine_with(state, name).run(program, {"src_word": SOURCE}) for name in ("paddle", "xla")
    )
    assert np.array_equal(paddle_found["ids"], np.asarray(xla_found["ids"]))
    assert np.asarray(xla_found["scores"]) == pytest.approx(paddle_found["scores"], rel=1e-4)


def test_samples_follow_the_model(state):
    engine = engine_with(state)
    program = sampling_program(CONFIG, max_out_len=8, temperature=1.0, top_k=0)
    source = np.repeat(SOURCE[:1], 2000, axis=0)
    outputs = engine.run(program, {"src_word": source}, step=1)
    logits = engine.run(scoring_program(CONFIG), {"src_word": SOURCE[:1], "trg_word": np.array([[BOS]])})["logits"][
        0, 0
    ]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    seen = np.bincount(outputs["ids"][:, 0, 0], minlength=7) / 2000
    assert np.abs(seen - expected).max() < 4 * np.sqrt(0.25 / 2000)
    again = engine.run(program, {"src_word": source}, step=1)["ids"]
    other = engine.run(program, {"src_word": source}, step=2)["ids"]
    assert np.array_equal(again, outputs["ids"]) and not np.array_equal(other, outputs["ids"])
    hypotheses = [words_of(ids) for ids in outputs["ids"][:5, 0]]
    complete = [index for index, words in enumerate(hypotheses) if len(words) < 8]
    forced = forced_scores(
        engine,
        evaluation_program(CONFIG),
        TRANSLATOR,
        ["a b c d"] * len(complete),
        [hypotheses[index] for index in complete],
    )
    assert outputs["scores"][complete, 0] == pytest.approx(forced, rel=1e-4)


def test_top_k_sampling_keeps_to_the_best(state):
    engine = engine_with(state)
    program = sampling_program(CONFIG, max_out_len=3, temperature=1.0, top_k=2)
    ids = engine.run(program, {"src_word": np.repeat(SOURCE[:1], 500, axis=0)})["ids"]
    logits = engine.run(scoring_program(CONFIG), {"src_word": SOURCE[:1], "trg_word": np.array([[BOS]])})["logits"][
        0, 0
    ]
    assert set(ids[:, 0, 0].tolist()) == set(np.argsort(logits)[-2:].tolist())


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_scores_of_pairs_do_not_depend_on_their_company(state, rows):
    engine, program = engine_with(state), evaluation_program(CONFIG)
    pairs = [("a b c d", "d c"), ("c", ""), ("b b b", "a b c d a b c d"), ("a", " ".join("abcd" * 8)), ("d", "a")]
    found = scores(engine, program, TRANSLATOR, pairs, rows, alignment=True)
    assert found[3].log_probability == -np.inf, "longer than the network"
    for number in (0, 1, 2, 4):
        source, target = pairs[number]
        words = [TRANSLATOR.target.encode(target)]
        total = forced_scores(engine, program, TRANSLATOR, [source], words)
        assert found[number].log_probability == pytest.approx(float(total[0]), rel=1e-4)
        assert found[number].words == len(words[0]) + 1
        assert [link[1] for link in found[number].alignment] == list(range(len(words[0])))
        assert all(0 <= link[0] < len(source.split()) for link in found[number].alignment)


def test_translations_begin_as_they_must(state):
    search = Search(beam_size=3, max_out_len=12)
    engine = engine_with(state)
    program = search_program(CONFIG, search, begun=True)
    beginnings = np.array([[6, 4, 3], [EOS, EOS, EOS], [5, EOS, EOS]])
    outputs = engine.run(program, {"src_word": SOURCE, "prefix": beginnings})
    free = engine.run(search_program(CONFIG, search), {"src_word": SOURCE})
    assert (outputs["ids"][0, :, :3] == beginnings[0]).all() and (outputs["ids"][2, :, 0] == 5).all()
    assert words_of(outputs["ids"][1, 0]) == words_of(free["ids"][1, 0])
    words = words_of(outputs["ids"][0, 0])
    forced = forced_scores(engine, evaluation_program(CONFIG), TRANSLATOR, ["a b c d"], [words])
    assert outputs["scores"][0, 0] == pytest.approx(forced[0] / search.penalty(len(words) + 1.0), rel=1e-4)


def test_networks_decide_together_by_their_mean_probability(state):
    search = Search(beam_size=252, max_out_len=3)
    other = {name: array * (1.0 if "pos_enc" in name else 0.8) for name, array in state.items()}
    both = {**state, **{of_other(0, name): array for name, array in other.items()}}
    outputs = engine_with(both).run(search_program(CONFIG, search, others=[CONFIG]), {"src_word": SOURCE[:1]})
    program, feed = scoring_program(CONFIG), {"src_word": SOURCE[:1]}
    words = words_of(outputs["ids"][0, 0])
    feed["trg_word"] = np.array([[BOS, *words]])
    found = [engine_with(own).run(program, feed)["logits"][0] for own in (state, other)]
    probabilities = np.mean([np.exp(own) / np.exp(own).sum(axis=1, keepdims=True) for own in found], axis=0)
    score = sum(np.log(probabilities[place, word]) for place, word in enumerate((*words, EOS)))
    assert outputs["scores"][0, 0] == pytest.approx(score / search.penalty(len(words) + 1.0), rel=1e-4)
    same = {**state, **{of_other(0, name): array for name, array in state.items()}}
    alone = engine_with(state).run(search_program(CONFIG, search), {"src_word": SOURCE})
    twice = engine_with(same).run(search_program(CONFIG, search, others=[CONFIG]), {"src_word": SOURCE})
    assert twice["scores"] == pytest.approx(alone["scores"], rel=1e-4)


def test_sentences_that_are_done_are_left_behind(state, monkeypatch):
    """Five that end at different places: searched together, without those that are done, and each alone."""
    engine = engine_with(state, "xla")
    sentences = np.array(
        [[0, 3, 4, 5, 6, 1], [0, 6, 1, 1, 1, 1], [0, 5, 4, 1, 1, 1], [0, 4, 4, 6, 1, 1], [0, 3, 1, 1, 1, 1]]
    )
    found = {}
    for halvings in (0, 1, 2):
        monkeypatch.setattr("neural_machine_translation.decode.HALVINGS", halvings)
        found[halvings] = engine.run(
            search_program(CONFIG, Search(beam_size=3, max_out_len=16, length_penalty="average")),
            {"src_word": sentences},
        )
    lengths = (np.asarray(found[0]["ids"])[:, 0] != EOS).sum(axis=1)
    assert len(set(lengths.tolist())) > 1
    for halvings in (1, 2):
        assert np.array_equal(found[halvings]["ids"], found[0]["ids"])
        assert np.allclose(found[halvings]["scores"], found[0]["scores"], atol=1e-5)
