"""Lines to translations: markup survives, long lines are split, the order stays, memory and output are those of a stream."""

import itertools
import re
from pathlib import Path

from fluid.errors import DataError
from neural_machine_translation import infer, score_pairs
from neural_machine_translation.lines import Rules, split, translate_lines
from neural_machine_translation.markup import ITEM, keeps_numbers, pieces, protect
from neural_machine_translation.translate import Hypothesis, one_line
from neural_machine_translation.vocabulary import SPECIAL_WORDS, WordList

import numpy as np
import pytest

FIFTY = Path(__file__).with_name("fifty.txt").read_text(encoding="utf-8").splitlines()
RULES = Rules(words_of=lambda text: len(text.split()), room=12, split_over=6)


def shouting(sentences):
    """A network that changes every word but numbers, and joins words to numbers with a hyphen."""
    return [[Hypothesis(re.sub(r"(\d+) (?=[a-z])", r"\1-", text).upper(), -1.0, (3,))] for text in sentences]


def forgetting(sentences):
    """A network that drops every number."""
    return [[Hypothesis(re.sub(r"\d+", "", text).upper(), -1.0, (3,))] for text in sentences]


@pytest.mark.parametrize("network", [shouting, forgetting])
def test_fifty_kinds_of_markup_survive(network):
    translated = translate_lines(((str(n), text) for n, text in enumerate(FIFTY)), network, Rules(len, 10**6), window=7)
    for line in translated:
        marked, text = ITEM.findall(line.text), line.hypotheses[0].text
        assert all(text.count(item) >= marked.count(item) for item in marked), (line.text, text)
        assert keeps_numbers(line.text, text), (line.text, text)


@pytest.mark.full
def test_the_fifty_survive_the_network_that_comes_along(tmp_path):
    (tmp_path / "fifty.txt").write_text("\n".join(FIFTY), encoding="utf-8")
    for line in infer.translated(infer.Flags(inputs=(str(tmp_path / "fifty.txt"),), device="cpu")):
        marked, text = ITEM.findall(line.text), line.hypotheses[0].text
        assert all(text.count(item) >= marked.count(item) for item in marked), (line.text, text)
        assert keeps_numbers(line.text, text), (line.text, text)


def test_every_line_of_the_fifty_holds_something_to_keep():
    assert len(FIFTY) == 50
    assert sum(bool(pieces(text)[1:]) for text in FIFTY) >= 48


def test_stand_ins_are_put_back_where_they_were():
    protected = protect("Click <b>Save</b> or press F5 4711 times.")
    assert protected.text == "Click 2938 Save 6054 or press 8127 4711 times."
    assert protected.restore("Drück 2938-Sichern 6054 oder 8127 4711-mal.") == "Drück <b>Sichern</b> oder F5 4711-mal."
    assert protected.restore("Drück 2938 Sichern oder 8127 4711-mal.") is None, "lost"
    assert protected.restore("2938 2938 6054 8127") is None, "twice"
    assert protected.restore("29380 6054 8127 und 2938,5") is None, "part of another number"


def test_what_is_written_in_capitals_is_translated_in_small_letters():
    protected = protect("DO I OPEN {name}?")
    assert protected.text == "Do I open 4711?"
    assert protected.restore("Öffne ich 4711?") == "ÖFFNE ICH {name}?"
    assert protect("HTTP {name} A").text == "HTTP 4711 A", "one word may be an abbreviation"


def test_straight_quotation_marks_stay_straight():
    assert protect('Click "OK".').restore('Klick „OK“, "OK”.') == 'Klick "OK", "OK".'
    assert protect("Click “OK”.").restore("Klick „OK“.") == "Klick „OK“."


@pytest.mark.parametrize("mark", ["", "- ", "* ", "• ", "12. ", "2) ", "(a) ", "  - "])
def test_the_mark_of_an_item_of_a_list_is_not_translated(mark):
    seen = []

    def remembering(sentences):
        seen.extend(sentences)
        return [[Hypothesis("Datei öffnen", -1.0, (3,))] for _ in sentences]

    (line,) = translate_lines([("a:1", f"{mark}Open the file")], remembering, Rules(len, 80), window=1)
    assert (line.hypotheses[0].text, seen) == (f"{mark}Datei öffnen", ["Open the file"])
    asked = [("a:1", f"{mark}Open the file")]
    (line,) = translate_lines(asked, remembering, Rules(len, 80, split_over=0, keep_markup=False), window=1)
    assert (line.hypotheses[0].text, seen[1]) == ("Datei öffnen", f"{mark}Open the file".strip())


def test_pictures_survive():
    assert protect("I ❤️ it 👩‍💻😀!").text == "I 4711 it 2938!"


def test_long_lines_are_cut_where_sentences_end():
    text = "Mr. Smith went home. He slept, e.g. Until noon; then he ate. „Good.“ It was 3.5 p. m."
    assert split("a:1", text, RULES) == [
        "Mr. Smith went home.",
        "He slept, e.g. Until noon; then he ate.",
        "„Good.“",
        "It was 3.5 p. m.",
    ]
    assert split("a:1", "Stay. Here. You.", RULES) == ["Stay. Here. You."], "short lines stay whole"
    assert split("a:1", " \t", RULES) == []


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Help! No. Let's go.", ["Help!", "No.", "Let's go."]),
        ('He said, "Stop. Go." She went.', ['He said, "Stop. Go."', "She went."]),
        ("It is No. 5 of St. Paul and J. Bach.", ["It is No. 5 of St. Paul and J. Bach."]),
    ],
)
def test_short_lines_are_cut_too_unless_told_otherwise(text, sentences):
    assert split("a:1", text, Rules(words_of=len, room=80)) == sentences
    assert split("a:1", text, Rules(words_of=len, room=80, split_over=0)) == [text]


def test_sentences_too_long_for_the_network_are_cut_at_clauses():
    words = [f"w{number}{',' * (number % 5 == 4)}" for number in range(43)]
    parts = split("a:1", " ".join(words), RULES)
    assert " ".join(parts).split() == words
    assert all(len(part.split()) <= RULES.room for part in parts)
    assert all(part.endswith(",") for part in parts[:-1])
    warnings = []
    one = Rules(words_of=len, room=12, warn=warnings.append)
    assert split("a:7", "x" * 30, one) == ["x" * 30]
    assert warnings == ["a:7: 30 words, more than the 12 the network takes; the rest is left out"]


def test_translations_of_a_line_are_put_together_rank_by_rank():
    def two(sentences):
        return [
            [Hypothesis(text.upper(), -1.0, (3,)), Hypothesis(text[::-1], -2.0, (4, 5), complete=False)][
                : 1 + (len(text) > 5)
            ]
            for text in sentences
        ]

    lines = [("a:1", "One two three. Four. Five six seven eight nine."), ("a:2", "")]
    first, second = translate_lines(lines, two, RULES, window=2, n_best=2)
    assert [item.text for item in first.hypotheses] == [
        "ONE TWO THREE. FOUR. FIVE SIX SEVEN EIGHT NINE.",
        ".eerht owt enO FOUR. .enin thgie neves xis eviF",
    ]
    assert [item.score for item in first.hypotheses] == [-3.0, -5.0]
    assert [item.complete for item in first.hypotheses] == [True, False]
    assert second.hypotheses == [Hypothesis("", 0, ())] and second.sentences == []


def test_one_text_in_several_cuts_is_one_translation_unless_it_was_drawn():
    def cuts(sentences):
        return [
            [Hypothesis(text, -float(n), (n,)) for n, text in enumerate(["Tag", "Tag", "Hallo"], 1)] for _ in sentences
        ]

    def scores(**flags):
        (line,) = translate_lines([("a:1", "hello")], cuts, RULES, window=1, n_best=3, **flags)
        return [(item.text, item.score) for item in line.hypotheses]

    assert scores() == [("Tag", -1), ("Hallo", -3)]
    assert scores(drawn=True) == [("Tag", -1), ("Tag", -2), ("Hallo", -3)]


def test_no_more_lines_are_read_than_are_translated_together():
    read = itertools.count(1)
    lines = ((f"a:{number}", "word") for number in read)
    translated = translate_lines(lines, shouting, RULES, window=8)
    assert [next(translated).place for _ in range(9)] == [f"a:{number}" for number in range(1, 10)]
    assert next(read) == 17


def test_a_translation_is_one_line():
    assert one_line("a\nb\r\u2028c\x07\x85d\te") == "a b  c  d e"


@pytest.mark.parametrize("network", [shouting, forgetting])
def test_what_is_carried_over_cannot_end_the_line_either(network):
    texts = ["see http://a.b/\x1b[31m now", "<b\u2028x>word</b>", "<a\thref>word</a>", "12\x0b%s\x85word"]
    lines = [line.hypotheses[0].text for line in translate_lines(zip("abcd", texts), network, Rules(len, 99), window=4)]
    assert all(text.isprintable() for text in lines) and "http://a.b/ [31m" in lines[0] and "<b x>" in lines[1]


def test_begin_and_end_words_in_a_text_are_unknown_words():
    digits = WordList((*SPECIAL_WORDS, *"0123456789"))
    assert digits.encode("1 <e> 2 <s> <unk>").tolist() == [4, 2, 5, 2, 2]


def test_the_network_that_comes_along_knows_which_word_belongs_to_which(capsys, tmp_path):
    pairs = [
        "The children are playing in the garden.\tDie Kinder spielen im Garten.",
        "Hello.\tDie Kinder spielen im Garten.",
    ]
    (tmp_path / "pairs.tsv").write_text("\n".join(pairs), encoding="utf-8")
    assert score_pairs.main(score_pairs.Flags(inputs=(str(tmp_path / "pairs.tsv"),), alignment=True, device="cpu")) == 2
    right, wrong = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert right[2] == "0-0 1-1 3-2 4-3 6-4"
    assert float(right[0]) > -4 > -20 > float(wrong[0]) and right[1] == wrong[1]
    (tmp_path / "pairs.tsv").write_text("one\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"pairs.tsv:1: 1 field, where a sentence, a tab and its translation"):
        score_pairs.main(score_pairs.Flags(inputs=(str(tmp_path / "pairs.tsv"),), device="cpu"))


@pytest.fixture(scope="module")
def shipped():
    flags = infer.Flags(sampling=True, temperature=5.0, max_out_len=12, device="cpu", test_batch_size=16)
    translator, _, search = infer.open_search(flags, 16)
    return translator, search


def test_nothing_unspeakable_is_drawn(shipped):
    """At this temperature all words are about equally probable, so a tenth of the draws would be bytes."""
    translator, search = shipped
    drawn = [hypothesis for some in search(["Where is the train station?"] * 16) for hypothesis in some]
    words = np.concatenate([hypothesis.words for hypothesis in drawn])
    assert len(words) > 100
    assert not set(words.tolist()) & set(translator.target.unspeakable)
    assert not any(letter in hypothesis.text for hypothesis in drawn for letter in "\n\ufffd⁇")


def test_several_translations_are_a_table(capsys):
    """Always so many lines each: number, rank, score, text; an empty line has nothing but its first."""
    infer.show(
        infer.Line("a:1", "x", [Hypothesis("X", -0.5, (3,)), Hypothesis("Y", -1, (4,), complete=False)], []),
        7,
        infer.Flags(n_best=2),
    )
    infer.show(infer.Line("a:2", "", [Hypothesis("", 0.0, ())], []), 8, infer.Flags(n_best=2))
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["7", "1", "-0.5000", "X"],
        ["7", "2", "-1.0000", f"Y{infer.CUT}"],
        ["8", "1", "0.0000", ""],
        ["8", "2", "-inf", ""],
    ]
