"""The Programs that come along with the recognisers, see `fluid.shipped`."""

from collections.abc import Collection
from functools import partial
from typing import Any

from fluid.shipped import Recipe, models
from ocr_recognition.opening import open_recognizer
from ocr_recognition.options import ReadingFlags
from ocr_recognition.recognizer import FOLDER, Recognizer


def made_of_inference(recognizer: Recognizer, beam_size: int, allowed: Collection[str] | None) -> dict[str, Any]:
    """What an inference Program is built from; of CTC, the search is none of the Program's."""
    facts = {name: value for name, value in recognizer.to_facts().items() if name != "calibration"}
    if recognizer.is_ctc:
        return facts
    return {**facts, "beam_size": beam_size, "allowed": None if allowed is None else sorted(allowed)}


def recipes() -> list[Recipe]:
    """Those of infer.py without flags."""
    from ocr_recognition.network import inference_program

    found = []
    for name in models(FOLDER):
        flags = ReadingFlags(pretrained_model=name)
        one = open_recognizer(flags).facts
        made_of = made_of_inference(one, flags.beam_size, None)
        found.append(Recipe("infer", made_of, partial(inference_program, one, flags.beam_size)))
    return found
