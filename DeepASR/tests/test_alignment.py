"""Alignments: the best path through a known text, and the flat start that finds alignments by itself."""

import tracemalloc

from DeepASR.decoding.lexicon import STATES, Lexicon
from DeepASR.forced_alignment import NO_WORD, align_words, make_chain
from DeepASR.preparing.flat_start import flat_start
from fluid.errors import DataError

import numpy as np
import pytest

LEXICON = Lexicon({"tree": (("t", "r", "i"), ("d", "r", "i")), "bow": (("b", "a"),), "a": (("a",),)})


def frames_of(phones: str, frames: int = 2) -> np.ndarray:
    """Class of each frame, every state for so many frames."""
    numbers = [LEXICON.number[phone] for phone in phones.split()]
    return np.array([STATES * phone + state for phone in numbers for state in range(STATES) for _ in range(frames)])


def scores_of(labels: np.ndarray) -> np.ndarray:
    scores = np.full((len(labels), LEXICON.class_num), -5.0)
    scores[np.arange(len(labels)), labels] = 0
    return scores


@pytest.mark.parametrize("phones", ["t r i b a", "d r i b a", "SIL t r i SIL b a SIL", "d r i b a SIL"])
def test_the_path_is_found_whatever_the_pronunciation_and_the_pauses(phones: str) -> None:
    labels = frames_of(phones)
    alignment = align_words(scores_of(labels), LEXICON, ["tree", "bow"])
    np.testing.assert_array_equal(alignment.pdfs, labels)
    assert alignment.score == 0
    assert [phone for phone, *_ in alignment.phones(LEXICON)] == phones.split()
    (tree, start, middle), (bow, begin, end) = alignment.spans()
    assert (tree, bow, middle - start, end - begin) == ("tree", "bow", 18, 12)
    assert np.sum(alignment.places == NO_WORD) == 6 * phones.count("SIL")


def test_no_path_is_better() -> None:
    """Of all that the chain allows, tried one by one."""
    rng = np.random.default_rng()
    scores = rng.normal(size=(7, LEXICON.class_num))
    chain = make_chain(LEXICON, ["a"])
    paths = [(state,) for state in chain.first]
    for _ in range(6):
        paths = [(*path, state) for path in paths for state in np.flatnonzero((chain.before == path[-1]).any(axis=1))]
    ended = [path for path in paths if path[-1] in chain.last]
    assert len(ended) > 20
    best = max(scores[np.arange(7), chain.pdfs[list(path)]].sum() for path in ended)
    assert align_words(scores, LEXICON, ["a"]).score == pytest.approx(best)


def test_a_long_text_takes_a_byte_for_each_frame_and_state() -> None:
    labels = np.concatenate([frames_of("SIL t r i b a")] * 30)
    words = ["tree", "bow"] * 30
    cells = len(labels) * len(make_chain(LEXICON, words).pdfs)
    tracemalloc.start()
    try:
        alignment = align_words(scores_of(labels), LEXICON, words)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(alignment.pdfs, labels)
    assert most < 2 * cells


def test_what_cannot_be_aligned_is_told() -> None:
    with pytest.raises(DataError, match="8 frames for its 1 word, too few: 9 are needed"):
        align_words(np.zeros((8, LEXICON.class_num)), LEXICON, ["tree"])
    with pytest.raises(DataError, match="no pronunciation of leaf, root"):
        align_words(np.zeros((80, LEXICON.class_num)), LEXICON, ["leaf", "tree", "root"])
    with pytest.raises(DataError, match="a score is not a number"):
        align_words(np.full((80, LEXICON.class_num), np.nan), LEXICON, ["tree"])


def test_a_flat_start_finds_the_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of made-up speech in which each state has features of its own, and phones last for different times.

    Half of it is aligned by what was learned from the other half. Now and then it settles for neighbours of the true states, so
    three draws count together.
    """
    monkeypatch.setattr("DeepASR.preparing.flat_start.LEARNED_FROM", 45)
    rng = np.random.default_rng()
    agreements = []
    for _ in range(3):
        spectra = rng.normal(size=(LEXICON.class_num, 24)) * 3
        features, truths, texts = {}, {}, {}
        for number in range(90):
            words = [("tree", "bow", "a")[word] for word in rng.integers(0, 3, rng.integers(2, 5))]
            phones = ["SIL", *(phone for word in words for phone in LEXICON.words[word][0]), "SIL"]
            labels = np.concatenate([np.repeat(frames_of(phone, 1), rng.integers(1, 5, 3)) for phone in phones])
            name = f"utt{number}"
            features[name] = (spectra[labels] + rng.normal(size=(len(labels), 24))).astype(np.float32)
            truths[name], texts[name] = labels, words
        found = flat_start(features, texts, LEXICON, rounds=(1, 1, 1, 1, 1, 1, 2))
        agreements.append(np.mean(np.concatenate([found[name] == truth for name, truth in truths.items()])))
    assert np.mean(agreements) > 0.75
    with pytest.raises(DataError, match="utt0: 5 frames, too few"):
        flat_start({"utt0": features["utt0"][:5]}, {"utt0": texts["utt0"]}, LEXICON)
