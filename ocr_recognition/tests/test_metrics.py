"""Figures over a whole set, whatever its batches; confidences that can be taken at their word."""

from dataclasses import replace

from fluid.data import Batch
from fluid.engine.paddle import PaddleEngine
from fluid.errors import UserError
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.metrics import Accuracy, alphanumeric, calibration_of, reliability
from ocr_recognition.recognizer import Recognizer

import numpy as np
import pytest

RECOGNIZER = Recognizer("crnn_ctc", Alphabet(tuple("abcABC-")))
TEXTS = ["ab", "abc", "A-c", "bbb"]
READ = ["ab", "ac", "aC", ""]


def outputs_of(texts: list[str], alphabet: Alphabet = RECOGNIZER.alphabet) -> dict[str, np.ndarray]:
    """Frames that say each text, a blank between two characters."""
    logits = np.full((len(texts), 8, 8), -9.0, np.float32)
    logits[:, :, 7] = 0.0
    for row, text in enumerate(texts):
        for place, one in enumerate(text):
            logits[row, 2 * place, alphabet.classes[one]] = 9.0
    return {"logits": logits, "losses": np.arange(1.0, len(texts) + 1)}


def batch_of(indices: list[int], padding: int) -> Batch:
    rows = [*indices, *[indices[-1]] * padding]
    labels = [RECOGNIZER.alphabet.encode(TEXTS[index]) for index in rows]
    feed = {
        "index": np.array(rows),
        "width": np.full(len(rows), 64),
        "label": np.stack([np.pad(label, (0, 8 - len(label))) for label in labels]),
        "label_length": np.array([len(label) for label in labels]),
    }
    return Batch(feed, len(indices), 0, 0, padding=padding)


def measured(parts: list[tuple[list[int], int]]) -> Accuracy:
    accuracy = Accuracy(RECOGNIZER, TEXTS)
    for indices, padding in parts:
        outputs = outputs_of([READ[index] for index in [*indices, *[indices[-1]] * padding]])
        outputs["losses"] = np.array([1.0 + index for index in [*indices, *[indices[-1]] * padding]])
        accuracy.add(outputs, batch_of(indices, padding))
    accuracy.merge(PaddleEngine())
    return accuracy


def test_every_word_counts_once_whatever_the_batches() -> None:
    one, other = measured([([0, 1, 2, 3], 0)]), measured([([2, 0], 1), ([3], 2), ([1], 0)])
    assert one.result() == pytest.approx(other.result())
    result = one.result()
    assert result["exact"] == 0.25 and result["alphanumeric"] == 0.5
    # "ac" lacks a letter; "aC" lacks one and has two in the other case; of "bbb" all three are missing.
    assert result["cer"] == pytest.approx((1 + 3 + 3) / 11)
    assert result["1-ned"] == pytest.approx((1 + 2 / 3 + 0 + 0) / 4)
    assert result["distance"] == pytest.approx((0 + 1 / 3 + 1 + 1) / 4)
    assert result["loss"] == pytest.approx(2.5)
    assert one.by_length() == {2: (1, 1.0), 3: (3, 0.0)}


def test_what_cannot_be_aligned_has_no_loss() -> None:
    accuracy = Accuracy(RECOGNIZER, TEXTS)
    batch = batch_of([0, 3], 0)
    # "bbb" needs five frames, and has four.
    batch.feed["width"][:] = 32
    accuracy.add(outputs_of(["ab", ""]), batch)
    assert accuracy.result()["loss"] == 1.0


def test_what_an_exported_model_does_not_tell_is_no_loss_of_zero() -> None:
    accuracy, outputs = Accuracy(RECOGNIZER, TEXTS), outputs_of(["ab", "ac"])
    del outputs["losses"]
    accuracy.add(outputs, batch_of([0, 1], 0))
    assert accuracy.result().keys() == {"exact", "alphanumeric", "cer", "1-ned", "distance"}


def test_benchmarks_compare_letters_and_digits() -> None:
    assert alphanumeric("Caf\u00e9-7 No.") == "caf7no"
    assert alphanumeric("Caf\u00e9-7 \u041d\u0435!", any_script=True) == "caf\u00e97\u043d\u0435"


def test_letters_of_other_scripts_count() -> None:
    recognizer = replace(RECOGNIZER, alphabet=Alphabet(tuple("\u0414\u0430\u0434\u043d\u0435\u0442!")))
    accuracy = Accuracy(recognizer, ["\u0414\u0430!", "\u0414\u0430!"])
    accuracy.add(outputs_of(["\u0434\u0430", "\u043d\u0435\u0442"], recognizer.alphabet), batch_of([0, 1], 0))
    assert accuracy.result()["alphanumeric"] == 0.5


def test_reliability_is_by_tenths() -> None:
    table, error = reliability(np.array([0.95, 0.91, 0.15, 1.0]), np.array([1.0, 0.0, 0.0, 1.0]))
    assert table[9].tolist() == pytest.approx([3, (0.95 + 0.91 + 1.0) / 3, 2 / 3]) and table[1, 0] == 1
    assert error == pytest.approx((abs(0.95 + 0.91 + 1.0 - 2) + 0.15) / 4)


def test_calibration_finds_the_shares_that_confidences_stand_for() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.02, 0.98, 20_000)
    share = 1 / (1 + np.exp(-(0.5 * np.log(confidence / (1 - confidence)) - 1.0)))
    exact = (rng.random(len(share)) < share).astype(float)
    slope, offset = calibration_of(confidence, exact)
    assert slope == pytest.approx(0.5, abs=0.05) and offset == pytest.approx(-1.0, abs=0.05)
    known = Recognizer("crnn_ctc", RECOGNIZER.alphabet, calibration=(slope, offset))
    after = np.array([known.calibrated(one) for one in confidence.tolist()])
    assert reliability(after, exact)[1] < 0.02 < reliability(confidence, exact)[1]
    assert RECOGNIZER.calibrated(0.3) == 0.3
    assert Recognizer.from_facts(known.to_facts()) == known


def test_weights_of_a_network_that_there_is_not_are_told() -> None:
    with pytest.raises(
        UserError, match="of a network 'crnn_large', and there are only crnn, crnn_small, crnn_ctc, atten"
    ):
        Recognizer.from_facts(RECOGNIZER.to_facts() | {"model": "crnn_large"})
