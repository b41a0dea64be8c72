"""Write a recogniser for deployment: a Paddle inference model and, with --onnx, ONNX.

python export.py --checkpoint output --export_dir exported
python infer.py --exported_model exported word.png
python export.py --storage int8                            8-bit weights too, in exported/weights.safetensors
"""

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.config import Beam, Count, ExportFlags
from fluid.deployment import deploy
from fluid.metrics import measure
from fluid.run import console, script
from fluid.weights import Opened
from fluid.weights.opening import SETTINGS
from ocr_recognition.metrics import Accuracy, calibration_of, reliability
from ocr_recognition.network import evaluation_program, inference_program
from ocr_recognition.opening import open_recognizer
from ocr_recognition.options import ALIASES, RETIRED, NetworkFlags, Style
from ocr_recognition.recognizer import TASK, Recognizer
from ocr_recognition.sources import measured_words

import numpy as np


@dataclass
class Flags(NetworkFlags, ExportFlags):
    """Write a recogniser for deployment."""

    beam_size: Beam = 1
    """attention: hypotheses kept by the search that is exported."""
    data_dir: Path | None = None
    """Folder of the data set on whose test part --storage is measured; by default words are made."""
    test_list: Path | None = None
    """List of the words to measure on, instead of data_dir."""
    test_images: Path | None = None
    """Folder that the files of test_list are in; by default the list's own."""
    style: Style | None = None
    """What made words say; by default what the network reads."""
    num_words: Count = 500
    """How many words are made."""
    calibrate: bool = False
    """Measure how many words of each confidence are read exactly, and let the exported weights say that instead."""


def main(flags: Flags) -> Path:
    """Export; returns the folder."""
    opened = open_recognizer(flags)
    recognizer = calibrated(opened, flags) if flags.calibrate else opened.facts
    meter = functools.cache(lambda: measuring(recognizer, flags))
    return deploy(
        opened,
        inference_program(recognizer, flags.beam_size),
        flags,
        lambda state: accuracy(meter()(state)),
        task=TASK,
        facts={"recognizer": recognizer.to_facts()},
        of_the_model={SETTINGS: {"beam_size": flags.beam_size}},
        examples=[example(recognizer, rows) for rows in (1, 3)],
    )


def accuracy(measured: Accuracy) -> dict[str, float]:
    """How well a network reads."""
    result = measured.result()
    return {name: result[name] for name in ("exact", "cer", "loss") if name in result}


def calibrated(opened: Opened[Recognizer], flags: Flags) -> Recognizer:
    """The recogniser, whose confidences are shares of words; prints what they were off by before and after."""
    plain = replace(opened.facts, calibration=(1.0, 0.0))
    table = measuring(plain, flags)(opened.state).table
    found = replace(plain, calibration=calibration_of(table["confidence"], table["exact"]))
    after = np.array([found.calibrated(one) for one in table["confidence"].tolist()])
    errors = [reliability(sure, table["exact"])[1] for sure in (table["confidence"], after)]
    console.print(f"expected calibration error {errors[0]:.4f}, calibrated {errors[1]:.4f}")
    return found


def measuring(recognizer: Recognizer, flags: Flags) -> Callable[[dict[str, np.ndarray]], Accuracy]:
    """What the network reads, as a function of its weights; it is built once."""
    source, program = measured_words(flags, recognizer), evaluation_program(recognizer, flags.beam_size)
    engine, _ = engines.create(runs=len(source), programs=[program])

    def measured(state: dict[str, np.ndarray]) -> Accuracy:
        engine.load(state)
        metric = Accuracy(recognizer, source.texts)
        return measure(engine, program, source, metric, batch_size=32, plan=source.evaluation_plan(32))

    return measured


def example(recognizer: Recognizer, rows: int) -> dict[str, np.ndarray]:
    """What the written model is tried out with: noise as high as words are, of several widths."""
    rng = np.random.default_rng(rows)
    pixel = rng.uniform(-127.5, 127.5, (rows, 1, recognizer.preprocess.height, 64)).astype(np.float32)
    return {"pixel": pixel, "width": np.array([64, 37, 16][:rows])}


if __name__ == "__main__":
    aliases = {**ALIASES, "save_model_dir": "export_dir"}
    script(lambda: main(configuration.parse(Flags, aliases=aliases, retired=RETIRED)))
