"""Measure how well words are read: every word of a set, exactly once each.

python eval.py                                             the run in ./output, or `simple`, which comes along, on made words
python eval.py --data_dir IIIT5K                           test.txt, test.list or an LMDB of a folder
python eval.py --lexicon words.txt --beam_size 8           with what is known beside the picture
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid.config import Count, ResultFlags, defaults
from fluid.interface import Interface
from fluid.metrics import measure
from fluid.records import make_folder, say_measured, write_result
from fluid.run import console, script, show
from fluid.runner import Runner
from ocr_recognition import pictures
from ocr_recognition.metrics import Accuracy, reliability
from ocr_recognition.opening import ENGLISH, SIMPLE, feed_of, open_recognizer, search_of
from ocr_recognition.options import ALIASES, RETIRED, ReadingFlags, Style
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.report import draw_found
from ocr_recognition.sources import MeasuredWords, measured_words, notes_on

from rich.table import Table


@dataclass
@defaults(test_batch_size=64)
class Flags(ReadingFlags, ResultFlags):
    """Measure how well words are read."""

    data_dir: Path | None = None
    """Folder of the data set, of which the test part is read; by default words are made."""
    test_list: Path | None = None
    """List of the words to read, instead of data_dir."""
    test_images: Path | None = None
    """Folder that the files of test_list are in; by default the list's own."""
    style: Style | None = None
    """What made words say; by default what the network reads."""
    num_words: Count = 1000
    """How many words are made."""


def main(flags: Flags) -> dict[str, float]:
    """Measure, print and return the figures."""
    began = time.perf_counter()
    opened = open_recognizer(flags, default=SIMPLE if made_simple(flags) else ENGLISH)
    recognizer = opened.facts
    source = measured_words(flags, recognizer)
    runner = Runner(opened, flags, runs=len(source), prepare=feed_of)
    search = search_of(opened, flags)
    program = runner.program("eval", lambda: build_program(recognizer, search.beam_size, search.allowed))
    for line in [f"{recognizer.model}, {runner.how}; {source.origin}", *notes_on(source, recognizer)]:
        console.print(line)
    rows = runner.engine.shared_rows(flags.test_batch_size)
    accuracy = measure(
        runner.engine,
        program,
        source,
        Accuracy(recognizer, source.texts, lambda outputs, width: search.read(recognizer, outputs, width)),
        batch_size=rows,
        num_workers=flags.num_workers,
        plan=source.evaluation_plan(rows),
    )
    result = accuracy.result()
    print_result(accuracy, result)
    seconds = say_measured(len(source), "word", began)
    if flags.output_dir is not None:
        write(flags.output_dir, accuracy, result, source, opened.source, seconds)
    return result


def made_simple(flags: Flags) -> bool:
    """Whether no other words are asked for than those that train.py learns by default."""
    return flags.data_dir is None and flags.test_list is None and flags.style != "general"


def build_program(recognizer: Recognizer, beam_size: int, allowed: frozenset[str] | None) -> Interface:
    """The evaluation Program, built with Paddle."""
    from ocr_recognition.network import evaluation_program

    return evaluation_program(recognizer, beam_size, allowed)


def print_result(accuracy: Accuracy, result: dict[str, float]) -> None:
    """The figures, and those of words of each length."""
    table = Table("characters", "words", "read exactly")
    for length, (words, share) in accuracy.by_length().items():
        table.add_row(str(length), str(words), f"{share:.4f}")
    show(table)
    console.print(
        f"sequence error {1 - result['exact']:.5f}, normalised distance {result['distance']:.5f}, as 2018 printed them"
    )
    console.print(
        f"exact {result['exact']:.4f}, letters and digits without case {result['alphanumeric']:.4f}, character error rate "
        f"{result['cer']:.4f}, 1-NED {result['1-ned']:.4f}"
    )


def write(
    folder: Path, accuracy: Accuracy, result: dict[str, float], source: MeasuredWords, weights: str, seconds: float
) -> None:
    """result.json, words.png with errors first, reliability.png."""
    table = accuracy.table
    bins, error = reliability(table["confidence"], table["exact"])
    lengths = {str(length): share for length, (_, share) in accuracy.by_length().items()}
    drawn = [make_folder(folder) / "reliability.png", folder / "words.png"]
    pictures.draw_reliability(drawn[0], bins, error)
    draw_found(drawn[1], accuracy, source)
    found = {**result, "calibration_error": error, "exact_by_length": lengths}
    of = {"weights": weights, "data": source.origin}
    write_result(folder, found, **of, samples=len(source), seconds=seconds, pictures=drawn)


if __name__ == "__main__":
    aliases = {**ALIASES, "input_images_list": "test_list", "input_images_dir": "test_images"}
    script(lambda: main(configuration.parse(Flags, aliases=aliases, retired=RETIRED)))
