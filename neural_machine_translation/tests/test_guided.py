"""Translations that begin with given words, hold the terms of a glossary, or copy words of the source."""

from functools import partial
from types import SimpleNamespace

from fluid import engine as engines
from fluid.errors import DataError, UserError
from fluid.program import initialise
from fluid.weights import Opened
from neural_machine_translation import infer, opening, scoring
from neural_machine_translation.decode import Search
from neural_machine_translation.guided import begun_lines, read_glossary, with_copies, with_terms
from neural_machine_translation.indices import UNK
from neural_machine_translation.network import evaluation_program, scoring_program, search_program
from neural_machine_translation.options import ModelFlags
from neural_machine_translation.translate import Hypothesis, runner, translate
from neural_machine_translation.translator import SHIPPED, Transformer, Translator
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList, train_sentencepiece

import numpy as np
import pytest
from forced_scores import forced_scores

CONFIG = Transformer(8, 8, max_length=24, d_model=16, d_inner_hid=32, n_head=2, n_layer=1)
WORDS = WordList((*SPECIAL_WORDS, "a", "b", "c", "d", "e"))
TRANSLATOR = Translator(CONFIG, WORDS, WORDS)
SENTENCES = ["a b c", "d", "b e e a"]


@pytest.fixture(scope="module")
def engine():
    made, _ = engines.create("paddle", "cpu")
    rng = np.random.default_rng(8)
    state = initialise(scoring_program(CONFIG), seed=3)
    made.load(
        {
            name: array if "pos_enc" in name else (array + 0.4 * rng.standard_normal(array.shape)).astype(np.float32)
            for name, array in state.items()
        }
    )
    return made


@pytest.fixture(scope="module")
def search(engine):
    run = runner(engine, search_program(CONFIG, Search(beam_size=3, max_out_len=20), begun=True))
    found = partial(translate, run, TRANSLATOR, batch_size=4)
    return lambda sentences, beginnings: found(sentences, beginnings=beginnings)


def test_lines_with_a_beginning(search):
    found = begun_lines(search, TRANSLATOR)(["a b c\tc c", "d", "b e e a\te"])
    for hypotheses, beginning in zip(found, ("c c", "", "e"), strict=True):
        assert all(item.text.startswith(beginning) for item in hypotheses)
    assert found[1] == search(["d"], [()])[0]
    with pytest.raises(UserError, match="'c d': a translation cannot begin with 23 words: the network takes 22"):
        begun_lines(search, TRANSLATOR)(["a\tb", "c d\t" + "b " * 23, "e e e\ta"])


def test_terms_are_held_at_the_best_place(search, engine, tmp_path):
    (tmp_path / "terms.tsv").write_text("B\tb b b\na b\td d d\ne e\te a e\n")
    glossary = read_glossary(tmp_path / "terms.tsv")
    assert [glossary.wanted(text) for text in SENTENCES] == [["d d d"], [], ["e a e", "b b b"]]
    free = search(SENTENCES, [()] * 3)
    found = with_terms(search, TRANSLATOR, glossary)(SENTENCES)
    assert found[1] == free[1], "nothing is asked for"
    assert all("d d d" in item.text for item in found[0])
    assert all("e a e" in item.text and "b b b" in item.text for item in found[2])
    best = found[0][0]
    assert best.score == max(item.score for item in found[0])
    forced = forced_scores(engine, evaluation_program(CONFIG), TRANSLATOR, SENTENCES[:1], [best.words])
    length = len(best.words) + best.complete
    if best.complete:
        assert best.score == pytest.approx(forced[0] / Search().penalty(float(length)), rel=1e-4)
    (tmp_path / "terms.tsv").write_text("a\tb\nc\t\n")
    with pytest.raises(DataError, match=r"terms\.tsv:2: an empty term"):
        read_glossary(tmp_path / "terms.tsv")
    (tmp_path / "terms.tsv").write_text("a\tb\nA\tb\nA\td\n")
    with pytest.raises(DataError, match=r"terms\.tsv:3: 'A' is to be called 'b' by an earlier line"):
        read_glossary(tmp_path / "terms.tsv")
    (tmp_path / "terms.tsv").write_text("a\tb\nc d\n")
    with pytest.raises(DataError, match=r"terms\.tsv:2: 1 field, where a term, a tab and what it must be called"):
        read_glossary(tmp_path / "terms.tsv")


def test_unknown_words_are_copied_from_where_it_looked():
    pieces = train_sentencepiece(["the cat sat", "the hat sat", "that cat", "that hat"] * 4, 40)
    for vocabulary, sentence, expected in (
        (WORDS, "a wombat c", "b wombat d a"),
        (pieces, "the \u2603\u2603 sat", "that \u2603\u2603 cat"),
    ):
        translator = Translator(CONFIG, vocabulary, vocabulary)
        source = vocabulary.encode(sentence)
        unknown = int(np.flatnonzero(source == UNK)[0])
        words = (4, UNK, 6, 3) if vocabulary is WORDS else tuple(vocabulary.encode("that \u2603 cat").tolist())
        weights = np.full((1, 2, 24, 24), 0.01)
        weights[0, :, words.index(UNK), 1 + unknown] = 1.0
        engine = SimpleNamespace(run=lambda program, feed, fetch, weights=weights: {fetch[0]: weights})
        told = [[Hypothesis("", -1.0, words), Hypothesis("a", -2.0, (3,))]]
        found = with_copies(lambda sentences, told=told: told, engine, None, translator)([sentence])
        assert found[0][0].text == expected and found[0][1] is told[0][1]


def test_attention_where_both_sides_were_cut_off(engine):
    words = [3, 4] * (CONFIG.max_length // 2)
    found, _, target = scoring.cross_attention(engine, scoring_program(CONFIG), TRANSLATOR, "a b " * 30, words)
    assert found.shape == (CONFIG.max_length + 1, CONFIG.max_length) and len(target) == CONFIG.max_length + 1
    assert found.sum(axis=1) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize(("options", "told"), [({"prefix": True}, 1), ({"terms": "terms.tsv"}, 0)])
def test_the_search_tells_what_it_leaves_out_of_lines_with_a_beginning(options, told, tmp_path, monkeypatch, capsys):
    """Others are split, and told of there."""

    def cut(run, translator, texts, *, batch_size, warn, beginnings):
        warn(0, "30 words, more than the 22 the network takes; the rest is left out")
        return [[Hypothesis("b", -1.0, (4,))] for _ in texts]

    (tmp_path / "terms.tsv").write_text("a\tb\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(infer, "translate", cut)
    monkeypatch.setattr(infer, "open_together", lambda *_, **__: (Opened(TRANSLATOR, {}, "here", "a test"), []))
    monkeypatch.setattr(infer, "Runner", lambda *_, **__: SimpleNamespace(program=lambda *_: None, engine=None))
    list(infer.translated(infer.Flags(inputs=("a b c",), **options)))
    warning = "warning: 'a b c': 30 words, more than the 22 the network takes; the rest is left out"
    assert capsys.readouterr().err.splitlines() == [warning] * told


def test_guidance_that_cannot_be_followed_is_refused(tmp_path):
    for options, message in (
        ({"prefix": True, "terms": tmp_path / "x"}, "give one of them"),
        ({"prefix": True, "sampling": True}, "--prefix is about searching"),
    ):
        with pytest.raises(UserError, match=message):
            infer.main(infer.Flags(inputs=("a",), pretrained_model=SHIPPED, **options))
    flags = ModelFlags(pretrained_model=SHIPPED, ensemble=(SHIPPED,))
    opened, others = opening.open_together(flags)
    assert len(others) == 1 and len(opened.state) == 2 * len(opening.open_translator(flags).state)
