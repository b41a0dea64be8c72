"""Lexicon, language model, grammar and graph: what may be said, and that the decoder finds it."""

import sys
from pathlib import Path
from typing import Any

from DeepASR.decoding import language_model
from DeepASR.decoding.decoder import Decoder, confidences
from DeepASR.decoding.grammar import parse_grammar
from DeepASR.decoding.graph_building import ANYTHING, from_grammar, from_language_model
from DeepASR.decoding.lexicon import STATES, Lexicon, lexicon_lines, read_lexicon
from DeepASR.decoding.processes import decode_all
from DeepASR.decoding.pronouncing import by_command, completed
from DeepASR.decoding.rescoring import Rescoring
from DeepASR.decoding.search import refuse_idle
from DeepASR.options import SearchFlags
from DeepASR.voice_activity import speech
from fluid.errors import DataError, UserError

import numpy as np
import pytest

LEXICON = Lexicon(
    {
        "bow": (("b", "a"),),
        "bough": (("b", "a"),),
        "bower": (("b", "a", "r"),),
        "tree": (("t", "r", "i"), ("d", "r", "i")),
    }
)
"""Two words that sound alike, one that begins like them, one of two pronunciations."""


def heard(*phones: str, classes: int = LEXICON.class_num) -> np.ndarray:
    """Posteriors in which every state of these phones comes for two frames."""
    labels = [STATES * LEXICON.number[phone] + state for phone in phones for state in range(STATES) for _ in range(2)]
    posterior = np.full((len(labels), classes), 0.001, np.float32)
    posterior[np.arange(len(labels)), labels] = 1
    return posterior


def decoder(graph_and_words: tuple, **options: float) -> Decoder:
    return Decoder(*graph_and_words, np.zeros(LEXICON.class_num), acoustic_scale=1.0, **options)


def test_a_lexicon_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text(lexicon_lines(LEXICON))
    assert read_lexicon(tmp_path / "lexicon.txt") == LEXICON
    assert LEXICON.phones == ("SIL", "a", "b", "d", "i", "r", "t") and LEXICON.class_num == 21
    (tmp_path / "lexicon.txt").write_text("one w ah n\ntwo\n")
    with pytest.raises(DataError, match=r"lexicon.txt:2: 'two' has no phones"):
        read_lexicon(tmp_path / "lexicon.txt")
    (tmp_path / "lexicon.txt").write_text("one 1.0 w ah n\ntwo 0.5 t uw\n")
    with pytest.raises(DataError, match=r"lexicon.txt:1: the number 1.0 .* lexiconp.txt"):
        read_lexicon(tmp_path / "lexicon.txt")


def test_the_dictionary_of_cmu_is_a_lexicon(tmp_path: Path) -> None:
    lines = [";;; # CMUdict", "a  AH0", "a(2)  EY1", "d'or  D AO1 R # foreign french", "(1)  W AH1 N", "deux D 2"]
    (tmp_path / "cmudict.dict").write_text("\n".join(lines))
    assert read_lexicon(tmp_path / "cmudict.dict").words == {
        "a": (("AH0",), ("EY1",)),
        "d'or": (("D", "AO1", "R"),),
        "(1)": (("W", "AH1", "N"),),
        "deux": (("D", "2"),),
    }


def test_all_words_without_a_pronunciation_are_listed() -> None:
    with pytest.raises(DataError, match="no pronunciation of leaf, root;"):
        from_grammar(LEXICON, "tree leaf root leaf")
    with pytest.raises(DataError, match="the network knows no phone u, z"):
        LEXICON.with_words({"zoo": (("z", "u"),)})


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_of_a_language_model_sum_to_one(order: int) -> None:
    sentences = [text.split() for text in ("tree bow", "bow tree bow", "bough", "tree bow tree")]
    model = language_model.train(sentences, order)
    words = ["tree", "bow", "bough", language_model.END]
    for history in [(), ("tree",), ("bow", "tree"), ("bough", "bough")]:
        total = 0.0
        for word in words:
            context, weight = history[-(order - 1) :] if order > 1 else (), 0.0
            while (*context, word) not in model:
                weight += model.get(context, (0.0, 0.0))[1]
                context = context[1:]
            total += 10 ** (weight + model[(*context, word)][0])
        assert total == pytest.approx(1)
    again = language_model.from_arpa(language_model.to_arpa(model))
    assert again.keys() == model.keys()
    np.testing.assert_allclose([again[gram] for gram in model], list(model.values()), atol=1e-4)
    with pytest.raises(DataError, match=r"lm.arpa:2: 'LOG10 1 WORDS"):
        language_model.from_arpa("\\1-grams:\nx\n", "lm.arpa")
    text = language_model.to_arpa(model)
    with pytest.raises(DataError, match=r"lm.arpa: .*cut off: it has no line .end"):
        language_model.from_arpa(text[: text.index("\\end")], "lm.arpa")


def test_cost_of_a_path_is_that_of_the_language_model() -> None:
    """By frames without cost: the words, and half of every chance of silence."""
    model = language_model.train([text.split() for text in ("tree bow", "bow tree bow", "bough tree", "tree tree")])
    search = decoder(from_language_model(LEXICON, model), beam=1000)
    for text, phones in (("tree bow", "t r i b a"), ("bough tree", "b a d r i"), ("bow bow", "b a b a")):
        posterior = heard(*phones.split())
        found = search.decode(posterior)
        spoken = found.words
        wanted = -language_model.score(model, spoken) * np.log(10) + (1 + len(spoken)) * np.log(2)
        assert found.cost == pytest.approx(wanted - np.log(posterior.max(axis=1)).sum(), abs=2e-2)
        assert found.complete and (spoken == tuple(text.split()) or "bow" in text)
        np.testing.assert_array_equal(found.pdfs, posterior.argmax(axis=1))


def test_what_sounds_alike_is_told_apart_by_what_stands_around() -> None:
    model = language_model.train([text.split() for text in ("tree bough", "bow tree", "tree bough", "bow tree")])
    search = decoder(from_language_model(LEXICON, model))
    assert search.decode(heard(*["t", "r", "i", "b", "a"])).text == "tree bough"
    assert search.decode(heard(*["b", "a", "t", "r", "i"])).text == "bow tree"


def test_a_grammar_says_what_may_be_said() -> None:
    grammar = "(bow | tree)+  # a remark\n\nbower [tree]\n"
    search = decoder(from_grammar(LEXICON, grammar))
    for phones, text in (
        ("b a", "bow"),
        ("t r i SIL b a", "tree bow"),
        ("SIL b a r d r i SIL", "bower tree"),
        ("b a r", "bower"),
        ("d r i t r i d r i", "tree tree tree"),
    ):
        assert search.decode(heard(*phones.split())).text == text
    # Two bowers must be heard as something else.
    assert search.decode(heard(*["b", "a", "r", "b", "a", "r"])).text != "bower bower"


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ("", "holds no line of words"),
        ("bow\n(tree", r"g:2: '\(' is not closed"),
        ("tree)", r"g:1: '\)' closes nothing"),
        ("bow |", "g:1: an alternative without words"),
        ("+ bow", r"g:1: '\+' stands behind nothing"),
        (f"{'(' * 5000}bow{')' * 5000}", "g:1: groups are nested too deep"),
    ],
)
def test_a_wrong_grammar_is_told_with_its_line(grammar: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_grammar(grammar, "g")


def test_foreign_speech_is_heard_as_unknown() -> None:
    graph = from_grammar(LEXICON, "bow tree", anything=True)
    assert decoder(graph).decode(heard(*["b", "a", "t", "r", "i"])).text == "bow tree"
    assert decoder(graph).decode(heard(*["i", "i", "a", "r", "i", "a"])).text == ANYTHING


def test_posteriors_that_cannot_be_decoded_are_refused() -> None:
    graph, words = from_grammar(LEXICON, "bow tree")
    search = decoder((graph, words))
    posterior = heard("b", "a")
    posterior[3, 1] = np.nan
    with pytest.raises(DataError, match="utt7: the posterior of frame 3 is not a number"):
        search.decode(posterior, "utt7")
    with pytest.raises(DataError, match=r"\[12, 20\] where \[frames, 21\]"):
        search.decode(heard("b", "a")[:, :20])
    with pytest.raises(DataError, match="the graph has the input label"):
        Decoder(graph, words, np.zeros(5))
    with pytest.raises(DataError, match="has the word 2 of a list of 2"):
        Decoder(graph, words[:2], np.zeros(LEXICON.class_num))
    assert search.decode(np.zeros((0, LEXICON.class_num), np.float32)).words == ()


def test_alternatives_are_different_and_tell_how_sure_a_word_is() -> None:
    model = language_model.train([text.split() for text in ("tree bow", "tree bow", "tree bough", "bow tree")], 2)
    search = decoder(from_language_model(LEXICON, model))
    posterior = heard(*["t", "r", "i", "b", "a"])
    found = search.n_best(posterior, 5)
    assert [item.text for item in found[:2]] == ["tree bow", "tree bough"] and len(
        {item.words for item in found}
    ) == len(found)
    wanted = [language_model.score(model, item.words) * np.log(10) for item in found]
    assert found[1].cost - found[0].cost == pytest.approx(wanted[0] - wanted[1], abs=1e-2)
    assert found[0].cost == pytest.approx(search.decode(posterior).cost, abs=1e-2)
    share = 1 / (1 + np.exp(wanted[1] - wanted[0]))
    assert confidences(found[0].words, found) == pytest.approx([1, share], abs=1e-2)


def test_a_network_that_is_unsure_has_alternatives_too() -> None:
    model = language_model.train([["tree", "bow", "bough"]], 1)
    search = decoder(from_language_model(LEXICON, model))
    posterior = np.random.default_rng(0).dirichlet(np.full(LEXICON.class_num, 50.0), 150).astype(np.float32)
    # Of so many paths that making their graph deterministic takes minutes.
    found = search.n_best(posterior, 50)
    assert len({item.words for item in found}) == len(found) == 50
    costs = [item.cost for item in found]
    assert costs == sorted(costs) and costs[0] == pytest.approx(search.decode(posterior).cost, abs=1e-2)


def test_a_stream_is_decoded_as_the_whole() -> None:
    search = decoder(from_grammar(LEXICON, "(bow | bough | bower | tree)+"))
    posterior = heard(*["t", "r", "i", "SIL", "b", "a", "r", "b", "a", "d", "r", "i"])
    whole, listening, partial = search.decode(posterior), search.open(), []
    for start in range(0, len(posterior), 7):
        listening.accept(posterior[start : start + 7])
        partial.append(listening.partial().text)
    assert listening.result().words == whole.words
    assert partial[-1].startswith("tree bower") and len(partial[2]) < len(partial[-1])


def test_words_that_the_lexicon_lacks_are_pronounced_by_a_hook(tmp_path: Path) -> None:
    script = tmp_path / "g2p.py"
    script.write_text("import sys\nfor word in sys.stdin.read().split():\n    print(word, -1.5, *word)\n")
    lexicon = completed(LEXICON, ["tree", "bat", "tart"], by_command(f"{sys.executable} {script}"))
    assert lexicon.words["bat"] == (("b", "a", "t"),) and lexicon.words["tree"] == LEXICON.words["tree"]
    assert decoder(from_grammar(lexicon, "(bat | tart)")).decode(heard(*"tart")).text == "tart"
    assert completed(LEXICON, ["zoo"], lambda words: {}).missing(["zoo", "tree"]) == ["zoo"]
    with pytest.raises(DataError, match="knows no phone o, z"):
        completed(LEXICON, ["zoo"], by_command(f"{sys.executable} {script}"))
    script.write_text("print('nonsense')")
    with pytest.raises(DataError, match="line 1 of its output is not 'WORD PHONE PHONE ...': 'nonsense'"):
        completed(LEXICON, ["bat"], by_command(f"{sys.executable} {script}"))
    script.write_text("raise SystemExit('no model')")
    with pytest.raises(UserError, match="no model"):
        completed(LEXICON, ["bat"], by_command(f"{sys.executable} {script}"))
    for command in ("", "'unclosed", "no_such_program_anywhere"):
        with pytest.raises(UserError, match=f"--g2p {command}: "):
            completed(LEXICON, ["bat"], by_command(command))


def test_a_larger_model_chooses_among_alternatives() -> None:
    sentences = [text.split() for text in ("tree bough", "bow tree", "bow tree", "tree bough", "bow bow")]
    small, large = language_model.train(sentences, 1), language_model.train(sentences, 3)
    graph, words = from_language_model(LEXICON, small)
    rescoring = Rescoring(graph, words, np.zeros(LEXICON.class_num), small=small, large=large, acoustic_scale=1.0)
    posterior = heard(*"tri", *"ba")
    assert decoder((graph, words)).decode(posterior).text == "tree bow"
    assert rescoring.decode(posterior).text == "tree bough"
    best, other = rescoring.n_best(posterior, 2)
    assert other.text == "tree bow"
    difference = language_model.score(large, best.words) - language_model.score(large, other.words)
    assert other.cost - best.cost == pytest.approx(difference * np.log(10), abs=1e-3)
    ((_, found),) = decode_all(rescoring, [("u", posterior)], 1)
    ((_, elsewhere),) = decode_all(rescoring, [("u", posterior)], 2)
    assert found.words == elsewhere.words == ("tree", "bough")
    unknown = {gram: value for gram, value in large.items() if "bough" not in gram}
    strange = Rescoring(graph, words, np.zeros(LEXICON.class_num), small=small, large=unknown, acoustic_scale=1.0)
    assert strange.decode(posterior).text == "tree bow", "a word that the large model lacks costs more"


def test_a_larger_model_beside_a_graph_of_another_small_one_is_refused() -> None:
    sentences = [text.split() for text in ("tree bough", "bow tree")]
    graph, words = from_language_model(LEXICON, language_model.train(sentences))
    large, other = language_model.train(sentences), language_model.train([["tree"]])
    with pytest.raises(DataError, match="graph: has 2 words that its language model does not have, as bough: "):
        Rescoring(graph, words, np.zeros(LEXICON.class_num), small=other, large=large)
    unknown = language_model.from_arpa(language_model.to_arpa({**other, ("<UNK>",): (-0.5, 0.0)}))
    assert language_model.vocabulary(unknown) == ["tree"]
    rescoring = Rescoring(graph, words, np.zeros(LEXICON.class_num), small=unknown, large=large)
    assert all(np.isfinite(item.cost) for item in rescoring.n_best(heard(*"tri", *"ba"), 4))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"vocabulary": Path("words.txt")}, "--vocabulary goes with --graphs"),
        ({"unknown_words": True}, "--unknown_words goes with --grammar"),
        ({"graphs": Path("g"), "vocabulary": Path("w"), "grammar": Path("x")}, "--graphs and --grammar each say"),
        ({"graphs": Path("g"), "vocabulary": Path("w"), "lexicon": Path("x")}, "--graphs and --lexicon each say"),
        (
            {"graphs": Path("g"), "vocabulary": Path("w"), "language_model": Path("x")},
            "--graphs has its language model",
        ),
        ({"grammar": Path("g"), "language_model": Path("x")}, "--grammar and --language_model each say"),
    ],
)
def test_flags_that_mean_nothing_beside_others_are_refused(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        refuse_idle(SearchFlags(**flags))


def test_stretches_of_speech_are_found() -> None:
    labels = np.zeros(400, np.intp)
    labels[50:100] = labels[110:150] = labels[300:360] = 5
    labels[200:204] = 5
    posterior = np.eye(LEXICON.class_num)[labels]
    assert speech(posterior, 0.5) == [(30, 170), (280, 380)]
    assert speech(posterior, 0.05) == [(48, 102), (108, 152), (298, 362)]
    assert speech(posterior[:40], 0.5) == []
