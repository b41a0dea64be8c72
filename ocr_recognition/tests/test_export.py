"""Exported recognisers read a word alike alone and in any batch, by paddle.inference and as ONNX."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.export import ONNX, ExportedModel, export
from fluid.program import initialise
from ocr_recognition.alphabet import Alphabet
from ocr_recognition.export import example
from ocr_recognition.network import inference_program
from ocr_recognition.preprocess import Preprocess
from ocr_recognition.recognizer import Recognizer

import numpy as np
import pytest

# Neither exists for every Python.
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("paddle2onnx", "onnxruntime"))


@pytest.mark.parametrize("model", ["crnn_small", "attention"])
def test_an_exported_word_does_not_depend_on_its_company(model: str, tmp_path: Path) -> None:
    recognizer = Recognizer(model, Alphabet(tuple("abcdefgh")), Preprocess(height=16), longest=6)
    program = inference_program(recognizer, 2)
    rng = np.random.default_rng(0)
    state = {
        name: array + 0.1 * rng.random(array.shape, np.float32) if array.ndim == 1 else array
        for name, array in initialise(program, seed=0).items()
    }
    # What is written has been tried out on batches of one and three words by both runtimes.
    examples = [example(recognizer, rows) for rows in (1, 3)]
    facts = {"recognizer": recognizer.to_facts()}
    folder = export(program, state, tmp_path / "exported", facts=facts, onnx=HAS_ONNX, examples=examples)
    exported = ExportedModel(folder)
    assert Recognizer.from_facts(exported.facts["recognizer"]) == recognizer
    words = [rng.uniform(-127.5, 127.5, (16, width)).astype(np.float32) for width in (40, 13, 29)]
    for run in [exported.run, *([onnx_run(folder)] if HAS_ONNX else [])]:
        alone = [run(batch([word], word.shape[1])) for word in words]
        for to in (40, 48, 72):
            together = run(batch(words, to))
            for row, one in enumerate(alone):
                steps = one["logits"].shape[1]
                have, want = together["logits"][row, :steps], one["logits"][0]
                np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4 * np.abs(want).max())
                assert together["decoded"][row, :steps].tolist() == one["decoded"][0].tolist()
                assert (together["decoded"][row, steps:] == -1).all()


def onnx_run(folder: Path) -> Callable[[dict[str, np.ndarray]], dict[str, Any]]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(None, feed), strict=True))


def batch(words: list[np.ndarray], to: int) -> dict[str, np.ndarray]:
    pixel = np.zeros((len(words), 1, 16, to), np.float32)
    for row, word in enumerate(words):
        pixel[row, 0, :, : word.shape[1]] = word
    return {"pixel": pixel, "width": np.array([word.shape[1] for word in words])}
