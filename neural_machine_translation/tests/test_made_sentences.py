"""Sentences made by a grammar: forms of words, order of words, and that the seed decides."""

import random

from neural_machine_translation.made_sentences import (
    ACCUSATIVE,
    DATIVE,
    LEXICON,
    NOMINATIVE,
    Grammar,
    Subject,
    make,
    shortened,
    with_ing,
    with_s,
)
from neural_machine_translation.reader import read_tsv
from neural_machine_translation.resemblance import Everyday, words_of

import pytest

GRAMMAR = Grammar(random.Random(0))
NOUNS = {noun.english[0]: noun for noun in GRAMMAR.nouns}
VERBS = {verb.english[0]: verb for verb in [*GRAMMAR.verbs, *GRAMMAR.moves]}
ADJECTIVES = {adjective.english: adjective for adjective in GRAMMAR.adjectives}


@pytest.mark.parametrize(
    "noun, case, kind, adjective, english, german",
    [
        ("dog", NOMINATIVE, "the", "old", "the old dog", "der alte Hund"),
        ("dog", ACCUSATIVE, "the", "old", "the old dog", "den alten Hund"),
        ("dog", ACCUSATIVE, "a", "old", "an old dog", "einen alten Hund"),
        ("cat", DATIVE, "I", "old", "my old cat", "meiner alten Katze"),
        ("horse", NOMINATIVE, "a", "white", "a white horse", "ein weißes Pferd"),
        ("house", DATIVE, "the", None, "the house", "dem Haus"),
        ("student", ACCUSATIVE, "the", None, "the student", "den Studenten"),
        ("student", NOMINATIVE, "You", None, "your student", "Ihr Student"),
        ("child", DATIVE, "many", None, "children", "Kindern"),
        ("apple", ACCUSATIVE, "many", "fresh", "fresh apples", "frische Äpfel"),
        ("bread", ACCUSATIVE, "a", "fresh", "fresh bread", "frisches Brot"),
        ("rice", ACCUSATIVE, "any", None, "any rice", "keinen Reis"),
        ("apple", ACCUSATIVE, "any", None, "an apple", "keinen Apfel"),
        ("car", NOMINATIVE, "no", "expensive", "no expensive car", "kein teures Auto"),
    ],
)
def test_articles_and_endings(noun, case, kind, adjective, english, german):
    own = ADJECTIVES.get(adjective)
    assert GRAMMAR.phrase(NOUNS[noun], case, kind, own) == (english, german)


@pytest.mark.parametrize(
    "verb, forms",
    [
        ("buy", "kaufe kaufst kauft kaufen kauft kaufen"),
        ("wait", "warte wartest wartet warten wartet warten"),
        ("open", "öffne öffnest öffnet öffnen öffnet öffnen"),
        ("dance", "tanze tanzt tanzt tanzen tanzt tanzen"),
        ("smile", "lächle lächelst lächelt lächeln lächelt lächeln"),
        ("drive", "fahre fährst fährt fahren fahrt fahren"),
    ],
)
def test_forms_of_the_present(verb, forms):
    assert " ".join(VERBS[verb].present(person) for person in ("ich", "du", "er", "wir", "ihr", "sie")) == forms


def test_english_forms():
    assert [with_s(verb) for verb in ("look for", "watch", "carry", "play", "go")] == [
        "looks for",
        "watches",
        "carries",
        "plays",
        "goes",
    ]
    assert [with_ing(verb) for verb in ("put on", "take", "see", "run")] == [
        "putting on",
        "taking",
        "seeing",
        "running",
    ]
    assert shortened("I am not sure that you can not swim.") == "I'm not sure that you can't swim."


@pytest.mark.parametrize(
    "tense, english, german, last",
    [
        ("now", "calls", "ruft an", "anruft"),
        ("going on", "is calling", "ruft an", "anruft"),
        ("past", "called", "hat angerufen", "angerufen hat"),
        ("done", "has called", "hat angerufen", "angerufen hat"),
        ("soon", "will call", "ruft an", "anruft"),
        ("will", "will call", "wird anrufen", "anrufen wird"),
        ("like", "would like to call", "möchte anrufen", "anrufen möchte"),
    ],
)
def test_predicates(tense, english, german, last):
    found = GRAMMAR.predicate(VERBS["call"], Subject("she", "sie", "er", "she"), tense)
    assert (found.plain, f"{found.finite} {found.tail}", found.final) == (english, german, last)


def test_sentences_are_whole_and_the_seeds():
    pairs = list(make(3000, random.Random(5)))
    assert pairs == list(make(3000, random.Random(5))) != list(make(3000, random.Random(6)))
    assert len({english for english, _ in pairs}) > 2900
    for pair in pairs:
        for text in pair:
            assert text[0].isupper() and text[-1] in ".?" and text[-2].isalpha() and "  " not in text, text


def test_none_that_remains_differs_from_an_everyday_sentence_in_one_word():
    known = read_tsv(LEXICON.parent / "everyday.tsv")
    everyday, patterns = Everyday(known), set()
    for english, _ in known:
        words = words_of(english)
        patterns |= {(*words[:place], None, *words[place + 1 :]) for place in range(len(words))}
    kept = [pair for pair in make(4000, random.Random(0)) if not everyday(pair)]
    assert 3500 < len(kept) < 4000
    for english, _ in kept:
        words = words_of(english)
        assert not any((*words[:place], None, *words[place + 1 :]) in patterns for place in range(len(words))), english
