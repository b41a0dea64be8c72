"""Sentences of Debian's packages: how they are found, which are taken, and that the parts stay apart."""

import random
import shutil

from fluid.errors import DataError, UserError
from neural_machine_translation import prepare_debian
from neural_machine_translation.debian_origins import from_books, from_dictionary, usable
from neural_machine_translation.prepare_debian import Company, best_company, digest_of, informal_copies, weighted
from neural_machine_translation.reader import EMBEDDED, read_tsv
from neural_machine_translation.resemblance import Everyday, Resemblance

import numpy as np
import pytest


def test_embedded_parts_do_not_resemble_each_other():
    parts = {part: read_tsv(EMBEDDED / f"{part}.tsv") for part in ("train", "dev", "test", "everyday")}
    assert {name: len(pairs) for name, pairs in parts.items()} == {
        "train": 2537,
        "dev": 231,
        "test": 229,
        "everyday": 100,
    }
    for name, other in (("train", "dev"), ("train", "test"), ("dev", "test"), ("train", "everyday")):
        resembles = Resemblance(parts[other].sources)
        assert not [text for text in parts[name].sources if resembles(text)], (name, other)


def test_resemblance_equals_the_plain_formula():
    rng = np.random.default_rng(5)
    texts = [" ".join(rng.choice(list("abcdefghij"), rng.integers(1, 9))) for _ in range(60)]
    resembles = Resemblance(texts)

    def overlap(one: str, other: str) -> float:
        left, right = one.split(), other.split()
        common = sum(min(left.count(word), right.count(word)) for word in set(left))
        return 2 * common / (len(left) + len(right))

    for text in (" ".join(rng.choice(list("abcdefghij"), rng.integers(1, 9))) for _ in range(200)):
        assert resembles(text) == any(overlap(text, other) > 0.8 for other in texts), text


def test_dictionary_lines_become_pairs():
    line = "# comment\nUhr {f}; Zeit {f} | Haben Sie etw. gesehen/gehört? :: time | Did you see sth.?; Have you seen sth.?\n"
    assert list(from_dictionary({"de-en": line.encode()})) == [
        ("time", "Uhr"),
        ("time", "Zeit"),
        ("Did you see something?", "Haben Sie etwas gesehen?"),
        ("Have you seen something?", "Haben Sie etwas gesehen?"),
    ]


def test_of_what_a_dictionary_lists_that_in_good_company_remains():
    texts = [
        ("train stations", "Bahnhöfe"),
        ("the station of Bonn", "der Bahnhof von Bonn"),
        ("this stand", "dieser Stand"),
    ]
    company = Company([*texts, ("station", "Stand"), ("as it stands", "nach dem Stand")])
    listed = [("station", "Stand"), ("station", "Bahnhof"), ("station", "Rang"), ("time", "Uhr"), ("time", "Uhr")]
    assert company("station", "Bahnhof") > company("station", "Stand") == company("to", "Stand") == 0
    assert list(best_company(listed, company, 1)) == [("station", "Bahnhof"), ("time", "Uhr")]


def test_pairs_are_usable_if_they_look_like_text():
    assert usable("Have you seen it?", "Haben Sie es gesehen?")
    assert not usable("%d files", "%d Dateien") and not usable("same", "same")


def test_informal_copies_are_those_of_short_sentences():
    pairs = [("How are you?", "Wie geht es dir?"), ("word", "Wort"), ("No stop here at all", "Kein Punkt")]
    assert informal_copies(pairs, 1.0, random.Random(0)) == [("how are you", "Wie geht es dir")]


def test_paraphrases_of_everyday_sentences_are_found():
    everyday = Everyday(
        [("Where is the train station?", "Wo ist der Bahnhof?"), ("My car is broken.", "Mein Auto ist kaputt.")]
    )
    assert everyday(("Where is the station?", "Wo ist die Station?"))
    assert everyday(("Can you tell me the way?", "Wo ist hier der Bahnhof?"))
    assert everyday(("Do you know where is the train station in Bonn today?", "Wissen Sie, wie man nach Bonn kommt?"))
    assert not everyday(("My car is red and fast.", "Mein Wagen ist rot und schnell."))


def test_sentences_count_as_often_as_wished():
    pairs = [("word", "Wort"), ("It rains.", "Es regnet."), ("the old house by the lake", "das alte Haus am See")]
    assert sorted(weighted(pairs, (), 3, random.Random(0))) == sorted(pairs[:1] + pairs[1:] * 3)
    assert sorted(weighted(pairs, pairs[2:], 3, random.Random(0))) == sorted([*pairs[:1], *pairs[1:2] * 3, *pairs[2:]])


def test_pages_of_manuals_are_found_in_both_languages():
    page = "<h1>{}</h1><p>{}</p>"
    english, german = page.format("Start", "Press it.").encode(), page.format("Anfang", "Drücken Sie.").encode()
    places = [("/a/en-US/x.html", "/a/de-DE/x.html"), ("/guide/html/y.en.html", "/guide-de/html/y.de.html"), ("/g/en/z.html", "/g/de/z.html"),
              ("/apt/guide.en.html/1.html", "/apt/guide.de.html/1.html"), ("/FAQ/q.en.html", "/FAQ/de/q.de.html")]  # fmt: skip
    files = {path: content for pair in places for path, content in zip(pair, (english, german), strict=True)}
    assert list(from_books(files)) == [("Start", "Anfang"), ("Press it.", "Drücken Sie.")] * len(places)


def test_pairs_that_are_held_out_are_named_by_their_digests(monkeypatch, tmp_path):
    pairs = [("It rains.", "Es regnet."), ("It snows.", "Es schneit."), ("It hails.", "Es hagelt.")]
    named = tmp_path / "held_out.tsv"
    named.write_text(f"# comment\ndev\t{digest_of(pairs[0])}\ntest\t{digest_of(pairs[2])}\n")
    monkeypatch.setattr(prepare_debian, "HELD_OUT", named)
    parts = prepare_debian.held_out({"one": pairs, "two": pairs[:1]})
    assert [part[-1] for part in parts.values()] == [pairs[0], pairs[2]]
    assert [len(part) for part in parts.values()] == [232, 230]


def test_an_origin_that_nobody_knows_is_not_left_out(tmp_path):
    config = prepare_debian.Flags(output_dir=tmp_path / "corpora", leave_out=("manuals", "letters"))
    with pytest.raises(UserError, match="--leave_out 'letters': no such origin; there are dictionary"):
        prepare_debian.main(config)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="reads packages")
def test_a_damaged_package_and_missing_lists_are_one_message(tmp_path):
    (tmp_path / "fortunes_1_all.deb").write_text("broken")
    with pytest.raises(DataError, match="fortunes_1_all.deb: dpkg-deb cannot read it; remove it"):
        prepare_debian.read_package("fortunes", tmp_path, ".*")
    with pytest.raises(DataError, match="holds no .*i18n_Translation-en.*; give --descriptions_dir, or --leave_out"):
        list(prepare_debian.descriptions(tmp_path, tmp_path))
