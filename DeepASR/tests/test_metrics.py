"""Error rates: alignments, what is missing, speakers, intervals; and the accuracy of frames through `measure`."""

from functools import lru_cache
from types import SimpleNamespace

from DeepASR.metrics import Counts, FrameAccuracy, align, count_errors, error_rates, split
from DeepASR.model import Sizes
from DeepASR.network import build_evaluation
from fluid.data import Batch
from fluid.engine.paddle import PaddleEngine
from fluid.errors import DataError
from fluid.metrics import measure
from fluid.program import initialise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

WORDS = st.lists(st.sampled_from("abc"), max_size=7)


@given(WORDS, WORDS)
def test_an_alignment_has_the_fewest_errors(reference: list[str], hypothesis: list[str]) -> None:
    @lru_cache(None)
    def distance(row: int, column: int) -> int:
        if not row or not column:
            return row + column
        same = reference[row - 1] == hypothesis[column - 1]
        return min(
            distance(row - 1, column) + 1, distance(row, column - 1) + 1, distance(row - 1, column - 1) + 1 - same
        )

    counts = count_errors(reference, hypothesis)
    assert counts.errors == distance(len(reference), len(hypothesis)) and counts.length == len(reference)
    operations = align(reference, hypothesis)
    assert [wanted for wanted, _ in operations if wanted is not None] == reference
    assert [found for _, found in operations if found is not None] == hypothesis
    assert counts.insertions - counts.deletions == len(hypothesis) - len(reference)


def test_kinds_of_errors() -> None:
    assert align("abcd", "axd") == [("a", "a"), ("b", None), ("c", "x"), ("d", "d")]
    assert count_errors("abcd", "axd") == Counts(substitutions=1, deletions=1, insertions=0, length=4)
    assert count_errors("", "ab") == Counts(insertions=2)
    assert count_errors("ab", "ba").errors == 2 and count_errors("ab", "ba").substitutions == 2
    assert np.isnan(Counts(insertions=2).rate) and Counts(insertions=3, length=2).rate == 1.5


def test_texts_are_compared_by_words_or_by_characters() -> None:
    assert split(" turn  on ", "wer") == ["turn", "on"] and split("开 灯a", "cer") == ["开", "灯", "a"]
    references = {"a": "turn on <NOISE> the light", "b": "off"}
    hypotheses = {"a": "turn the <NOISE> <NOISE> lights", "b": "<NOISE> off"}
    words = error_rates(references, hypotheses, unit="wer", ignored=["<NOISE>"])
    assert words.total == Counts(substitutions=1, deletions=1, length=5)
    characters = error_rates(references, hypotheses, unit="cer", ignored=["<NOISE>"])
    assert characters.total == Counts(deletions=2, insertions=1, length=17)


def test_a_missing_hypothesis_is_all_deletions() -> None:
    rates = error_rates({"a": "one two", "b": "three"}, {"b": "three", "c": "four"}, unit="wer")
    assert rates.total == Counts(deletions=2, length=3)
    assert rates.missing == ["a"] and rates.unknown == ["c"]
    assert error_rates({"a": "one two"}, {"a": ""}, unit="wer").utterances == {"a": Counts(deletions=2, length=2)}
    with pytest.raises(DataError, match="no reference"):
        error_rates({}, {"a": "one"}, unit="wer")


def test_speakers_and_worst_utterances() -> None:
    references = {"a": "x x x x", "b": "x x", "c": "x", "empty": ""}
    rates = error_rates(references, {"a": "x y y x", "b": "x", "c": "x", "empty": "z z z"}, unit="wer")
    speakers = {"a": "anna", "b": "bert", "c": "anna", "empty": "bert"}
    assert rates.worst(2) == ["empty", "a"] and rates.worst(4) == ["empty", "a", "b"]
    assert rates.by_speaker(speakers) == {
        "bert": Counts(deletions=1, insertions=3, length=2),
        "anna": Counts(substitutions=2, length=5),
    }
    assert list(rates.by_speaker(speakers)) == ["bert", "anna"]
    with pytest.raises(DataError, match="utterance a: its speaker is not listed"):
        rates.by_speaker({"b": "bert"})


def test_the_interval_is_that_of_drawing_utterances() -> None:
    """Of 400 words by themselves, one in five wrong: 1.96 standard deviations of 2 % each way."""
    references = {str(number): "x" for number in range(400)}
    rates = error_rates(references, {name: "y" if int(name) % 5 == 0 else "x" for name in references}, unit="wer")
    low, high = rates.interval()
    assert rates.total.rate == 0.2
    assert low == pytest.approx(0.2 - 1.96 * 0.02, abs=0.005) and high == pytest.approx(0.2 + 1.96 * 0.02, abs=0.005)
    narrow = rates.interval(level=0.5)
    assert low < narrow[0] < 0.2 < narrow[1] < high
    assert all(np.isnan(error_rates({"a": ""}, {}, unit="wer").interval()))


def test_frames_of_real_utterances_count_once() -> None:
    metric = FrameAccuracy()
    outputs = {"losses": [4.0, 1.0, 99.0], "correct": [1.0, 1.0, 99.0], "counted": [3.0, 1.0, 99.0]}
    arrays = {name: np.array(values, np.float32) for name, values in outputs.items()}
    metric.add(arrays, Batch({}, size=2, epoch=0, index=0, padding=1))
    metric.merge(SimpleNamespace(total=lambda sums: sums * 2))
    assert metric.result() == {"loss": 1.25, "frame_accuracy": 50.0, "frames": 8.0}
    with pytest.raises(DataError, match="no frame has a label"):
        FrameAccuracy().result()


class Utterances:
    """Five of different length, padded to the longest."""

    def __len__(self) -> int:
        return 5

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        own = np.random.default_rng(index)
        feature = own.normal(size=(5, 3, 11, 4)).astype(np.float32)
        return {"feature": feature, "length": np.array(index + 1), "label": own.integers(-1, 3, 5)}


def test_the_size_of_the_batches_changes_no_accuracy() -> None:
    program, engine = build_evaluation(Sizes(4, 1, 3, 2, 3, 2)), PaddleEngine()
    engine.load(initialise(program, seed=0))
    results = [measure(engine, program, Utterances(), FrameAccuracy(), batch_size=size).result() for size in (1, 3, 5)]
    labels = [Utterances().load(index, np.random.default_rng())["label"][: index + 1] for index in range(5)]
    assert results[0]["frames"] == sum((label >= 0).sum() for label in labels)
    for result in results[1:]:
        assert result == pytest.approx(results[0], rel=1e-5)
