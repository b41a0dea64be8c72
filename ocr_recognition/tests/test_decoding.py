"""Searching with what is known beside the picture, against every alignment summed one by one; language models; places."""

import itertools
import math
from types import SimpleNamespace
from typing import Any

from fluid.errors import DataError, UserError
from fluid.weights import Opened
from fluid.weights.opening import SETTINGS
from ocr_recognition import eval as evaluate
from ocr_recognition import infer
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.decoding import CharacterModel, Search, align, likelihood, read_lexicon
from ocr_recognition.opening import search_of
from ocr_recognition.options import ReadingFlags, SearchFlags
from ocr_recognition.readings import log_softmax, readings
from ocr_recognition.recognizer import END, Recognizer

import numpy as np
import pytest
from PIL import Image

ABC = Recognizer("crnn_ctc", Alphabet(tuple("abc")))
STEPS, BLANK = 5, 3
WIDTH = np.array([STEPS * 8])


def outputs(seed: int) -> dict[str, np.ndarray]:
    return {"logits": np.random.default_rng(seed).normal(0, 2, (1, STEPS, 4)).astype(np.float32)}


def merged(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(item for item, _ in itertools.groupby(path) if item != BLANK)


def sums(sure: np.ndarray) -> dict[tuple[int, ...], float]:
    """Probability of every label, over all its alignments."""
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(4), repeat=STEPS):
        label = merged(path)
        found[label] = found.get(label, 0.0) + math.exp(sure[range(STEPS), path].sum())
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_wide_beam_finds_the_most_probable_label(seed: int) -> None:
    sure = log_softmax(outputs(seed)["logits"][0])
    every = sums(sure)
    (found,) = Search(beam_size=1000).read(ABC, outputs(seed), WIDTH)
    assert found.label == max(every, key=lambda label: every[label])
    for label in [*itertools.islice(every, 20), ()]:
        assert likelihood(sure, label, BLANK) == pytest.approx(math.log(every[label]), rel=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_an_alignment_is_the_most_probable_path(seed: int) -> None:
    sure = log_softmax(outputs(seed)["logits"][0])
    for label in ((0,), (1, 1), (0, 2, 1), (2, 2, 2)):
        paths = [path for path in itertools.product(range(4), repeat=STEPS) if merged(path) == label]
        best = max(paths, key=lambda path: sure[range(STEPS), path].sum())
        found = align(sure, label, BLANK)
        assert found.label == label and len(found.spans) == len(label)
        for (begin, end), one in zip(found.spans, label, strict=True):
            assert set(best[begin:end]) == {one}
    # Three equal characters need five frames.
    assert align(sure[:4], (2, 2, 2), BLANK).spans == ()


def test_without_knowledge_it_is_the_greedy_reading() -> None:
    assert Search().read(ABC, outputs(3), WIDTH) == readings(ABC, outputs(3), WIDTH)


def test_allowed_characters_alone_are_read() -> None:
    for beam in (1, 4):
        for seed in range(5):
            (found,) = Search(beam_size=beam, allowed=frozenset("b")).read(ABC, outputs(seed), WIDTH)
            assert set(found.label) <= {1}


def test_a_lexicon_gives_its_most_probable_word() -> None:
    words = ("abc", "cab", "bb", "a")
    for seed in range(5):
        (found,) = Search(lexicon=words).read(ABC, outputs(seed), WIDTH)
        every = sums(log_softmax(outputs(seed)["logits"][0]))
        best = max(words, key=lambda word: every[tuple("abc".index(one) for one in word)])
        assert ABC.text_of(found.label) == best


def test_a_word_that_leaves_letters_out_is_not_sure() -> None:
    logits = np.full((1, 5, 4), -9.0, np.float32)
    logits[0, range(5), [0, BLANK, 1, BLANK, 2]] = 9.0
    (right,) = Search(lexicon=("abc", "c")).read(ABC, {"logits": logits}, WIDTH)
    (wrong,) = Search(lexicon=("c", "a")).read(ABC, {"logits": logits}, WIDTH)
    assert ABC.text_of(right.label) == "abc" and right.confidence > 0.99
    assert wrong.confidence < 0.01


def test_a_language_model_decides_between_alike_readings() -> None:
    logits = np.full((1, 3, 4), -9.0, np.float32)
    logits[0, 0, 0] = logits[0, 1, 3] = 9.0
    # b or c, c a little more probable.
    logits[0, 2, 1], logits[0, 2, 2] = 4.0, 4.2
    width = np.array([24])
    (plain,) = Search(beam_size=8).read(ABC, {"logits": logits}, width)
    (known,) = Search(beam_size=8, language=CharacterModel(["ab"] * 5 + ["abab"])).read(ABC, {"logits": logits}, width)
    assert (ABC.text_of(plain.label), ABC.text_of(known.label)) == ("ac", "ab")


def test_blank_lines_are_no_words_of_a_language_model(tmp_path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("ab\n\n cab \n\n")
    language = SearchFlags(language_model=path).search(ABC).language
    assert language is not None
    assert language.gain("", "\n") == CharacterModel(["ab", "cab"]).gain("", "\n")


def test_probabilities_of_a_language_model_add_up_to_one() -> None:
    model = CharacterModel(["abba", "abc"], order=3)
    for before in ("", "a", "ab", "zz"):
        total = sum(math.exp(model.gain(before, one)) / model._known for one in "abc\n")
        # What was never seen has the rest.
        assert 0.8 < total < 1.0


def test_attention_reads_its_hypotheses() -> None:
    recognizer = Recognizer("attention", Alphabet(tuple("abc")))
    ids = np.array([[[2, 3, END, END], [2, 4, END, END]]])
    logits = np.zeros((1, 4, 5), np.float32)
    logits[0, [0, 1, 2], [2, 3, END]] = 5.0
    given = {
        "decoded": np.where(ids[:, 0] == END, -1, ids[:, 0]),
        "logits": logits,
        "places": np.array([[0.5, 2.5, 3.0, 3.0]]),
        "hypotheses": ids,
        "scores": np.array([[-1.0, -1.1]]),
    }
    (found,) = Search().read(recognizer, given, WIDTH)
    sure = math.exp(5) / (math.exp(5) + 4)
    assert recognizer.text_of(found.label) == "ab" and found.confidence == pytest.approx(sure)
    assert found.spans == ((0, 2), (2, 4)) and found.probabilities == pytest.approx([sure, sure])
    (other,) = Search(language=CharacterModel(["ac"] * 9)).read(recognizer, given, WIDTH)
    assert recognizer.text_of(other.label) == "ac" and other.spans == ()
    (listed,) = Search(lexicon=("bb", "aba")).read(recognizer, given, WIDTH)
    assert recognizer.text_of(listed.label) == "aba" and listed.confidence == pytest.approx(sure * 2 / 3)


def test_a_word_that_does_not_end_has_as_many_characters_as_the_longest() -> None:
    """The search has room for the end sign after them, and none to say that another character is one too many."""
    recognizer = Recognizer("attention", Alphabet(tuple("abc")), longest=2)
    given = {
        "decoded": np.array([[2, 3, 4], [2, 3, -1], [2, -1, -1]]),
        "logits": np.zeros((3, 3, 5), np.float32),
        "places": np.array([[0.5, 1.5, 2.5]] * 3),
        "hypotheses": np.array([[[2, 3, 4]], [[2, 3, END]], [[2, END, END]]]),
        "scores": np.full((3, 1), -1.0),
    }
    for search in (Search(), Search(language=CharacterModel(["abc"] * 9))):
        found = search.read(recognizer, given, np.array([12, 12, 12]))
        assert [recognizer.text_of(one.label) for one in found] == ["ab", "ab", "a"]
        assert [one.confidence for one in found] == pytest.approx([0.2] * 3)


class Built(Exception):
    pass


@pytest.mark.parametrize("script", [evaluate, infer])
def test_a_language_model_gets_hypotheses_of_attention(script: Any, tmp_path, monkeypatch) -> None:
    def build(recognizer: Recognizer, beam_size: int, allowed: frozenset[str] | None) -> Any:
        raise Built(beam_size, allowed)

    recognizer = Recognizer("attention", Alphabet(tuple("abc")))
    monkeypatch.setattr(script, "open_recognizer", lambda *_, **__: Opened(recognizer, {}, "here", "a test"))
    monkeypatch.setattr(script, "build_program", build)
    (tmp_path / "words.txt").write_text("ab\n")
    Image.fromarray(np.zeros((20, 60), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "test.txt").write_text("a.png\tab\n")
    where = {"data_dir": tmp_path} if script is evaluate else {"images": (str(tmp_path / "a.png"),)}
    for options, wanted in (
        ({"language_model": tmp_path / "words.txt"}, (8, None)),
        ({"language_model": tmp_path / "words.txt", "beam_size": 12}, (12, None)),
        ({"allowed": "ab"}, (1, frozenset("ab"))),
    ):
        with pytest.raises(Built) as built:
            script.main(script.Flags(**where, **options))
        assert built.value.args == wanted


def test_a_written_search_of_attention_is_asked_for_what_it_can_do(tmp_path) -> None:
    model: Any = SimpleNamespace(facts={SETTINGS: {"beam_size": 1}})
    exported = Opened(Recognizer("attention", Alphabet(tuple("abc"))), {}, "exported", "a test", exported=model)
    (tmp_path / "words.txt").write_text("ab\n")
    assert search_of(exported, ReadingFlags(lexicon=tmp_path / "words.txt")).lexicon == ("ab",)
    for options, message in (
        ({"allowed": "ab"}, "--allowed needs a checkpoint or weights"),
        ({"language_model": tmp_path / "words.txt"}, "this search was written with --beam_size 1"),
        ({"beam_size": 4}, "exported was built with --beam_size 1, not 4"),
    ):
        with pytest.raises(UserError, match=message):
            search_of(exported, ReadingFlags(**options))


def test_words_of_the_lexicon_that_are_not_allowed_are_not_read(tmp_path) -> None:
    (tmp_path / "words.txt").write_text("ab\nbb\nca\n")
    search = SearchFlags(lexicon=tmp_path / "words.txt", allowed="ab").search(ABC)
    assert search.lexicon == ("ab", "bb")
    with pytest.raises(UserError, match="--allowed leaves no word of --lexicon"):
        SearchFlags(lexicon=tmp_path / "words.txt", allowed="c").search(ABC)


def test_what_cannot_be_searched_is_one_message(tmp_path) -> None:
    with pytest.raises(UserError, match="does not know 'xy'; it reads 'abc'"):
        SearchFlags(allowed="yax").search(ABC)
    with pytest.raises(UserError, match="--allowed names no character"):
        SearchFlags(allowed="").search(ABC)
    empty, unknown = tmp_path / "empty.txt", tmp_path / "unknown.txt"
    empty.write_text("\n")
    unknown.write_text("abc\nabd\n")
    with pytest.raises(DataError, match="holds no word"):
        read_lexicon(empty, ABC)
    with pytest.raises(DataError, match="holds no word"):
        SearchFlags(language_model=empty).search(ABC)
    with pytest.raises(DataError, match="unknown.txt: 'abd' holds 'd' .* of the network; remove the word"):
        read_lexicon(unknown, ABC)
