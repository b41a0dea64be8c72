"""Read words.

    python infer.py word.png more/ 'signs/*.jpg'         files, folders, globs; without any, words made on the spot
    ls *.png | python infer.py -                         names from standard input
    python infer.py street.jpg --boxes street.txt        words in a larger picture, whose quadrilaterals are known
    python infer.py --try_inverted --try_rotated x.png   the surest of several ways to look at it
    python infer.py --feed in.npz --fetch out.npz        raw arrays through the inference Program

Prints each word with how sure it is; writes readings.jsonl (with the place of every character) and words.png to
--output_dir. Finding the words in a picture is not part of it.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import media
from fluid.config import ArrayFlags, Was, defaults
from fluid.errors import DataError, UserError, raise_unreadable
from fluid.interface import Interface
from fluid.records import json_lines, say_written, set_aside
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from ocr_recognition import pictures
from ocr_recognition.boxes import read_boxes, rectify, refuse_outside
from ocr_recognition.opening import open_recognizer, search_of
from ocr_recognition.options import ALIASES, RETIRED, ReadingFlags
from ocr_recognition.reader import read_names
from ocr_recognition.recognize import Word, recognize, tries
from ocr_recognition.recognizer import Recognizer
from ocr_recognition.shipped import made_of_inference
from ocr_recognition.sources import example_words

import numpy as np
import tyro

Named = tuple[str, np.ndarray]
"""Place, and picture [H, W, 3] uint8."""
RESULTS = ("readings.jsonl", "words.png")
AT_ONCE = 8
"""So many batches of words are sorted by width together, if their pictures take no more than BYTES_AT_ONCE."""
BYTES_AT_ONCE = 2**27
ON_SHEET = 100
"""So many words are shown on words.png."""


@dataclass
@defaults(test_batch_size=16)
class Flags(ReadingFlags, ArrayFlags):
    """Read words."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image and video files, folders, patterns, @LIST for a file of names, - for names on standard input, or camera:0; by
    default words made on the spot."""
    image_dir: Annotated[Path | None, Was("input_images_dir")] = None
    """Folder that the files of image_list are in, or whose pictures are read, as in 2018."""
    image_list: Annotated[Path | None, Was("input_images_list")] = None
    """List of pictures, one a line, or as train.py takes them, as in 2018."""
    boxes: Path | None = None
    """Quadrilaterals of the words in the one picture given, a line each: x1,y1,x2,y2,x3,y3,x4,y4, clockwise from a word's
    upper left corner."""
    try_inverted: bool = False
    """Read every picture in its negative as well; the surer reading counts."""
    try_rotated: bool = False
    """Read every picture turned by 90 and 270 degrees as well; the surest reading counts."""
    output_dir: Path = Path("readings")
    """Folder for results: readings.jsonl and words.png; records of an earlier call are moved to FOLDER/before."""
    feed: Path | None = None
    """Raw inputs: an .npz with `pixel` [N, 1, height, W] float32, grey - 127.5, and `width` [N]."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `logits` and `decoded`, padded with -1."""


def main(flags: Flags) -> list[dict[str, Any]]:
    """Read, print and write; returns the records of readings.jsonl."""
    arrays = flags.arrays()
    opened = open_recognizer(flags)
    recognizer, search = opened.facts, search_of(opened, flags)
    build = partial(build_program, recognizer, search.beam_size, search.allowed)
    made_of = made_of_inference(recognizer, search.beam_size, search.allowed)
    if arrays is not None:
        run_arrays(Runner(opened, flags), build, *arrays, made_of=made_of, check=check_widths)
        return []
    names = find_files(flags)
    endless = any(map(media.is_moving, names))
    runner = Runner(opened, flags, runs=None if endless else max(len(names), 1))
    program = runner.program("infer", build, made_of)
    console.print(f"{recognizer.model}, {runner.how}")
    unreadable: list[DataError] = []
    found = named_pictures(flags, recognizer, names, unreadable.append)
    how = tries(inverted=flags.try_inverted, rotated=flags.try_rotated)

    def read(some: list[Named]) -> list[Word]:
        shown = [picture for _, picture in some]
        run, look = partial(runner.engine.run, program), partial(search.read, recognizer)
        return recognize(run, look, recognizer, shown, how, flags.test_batch_size)

    records = write_all(flags, found, names, read)
    raise_unreadable(unreadable, len(names))
    return records


def build_program(recognizer: Recognizer, beam_size: int, allowed: frozenset[str] | None) -> Interface:
    """The inference Program, built with Paddle."""
    from ocr_recognition.network import inference_program

    return inference_program(recognizer, beam_size, allowed)


def find_files(flags: Flags) -> list[str]:
    """What the flags name. Raises DataError for what does not exist, UserError for flags that contradict each other."""
    found = media.find(flags.images)
    if flags.image_list is not None:
        found += read_names(flags.image_list, flags.image_dir)
    elif flags.image_dir is not None:
        found += media.find([str(flags.image_dir)])
    if flags.boxes is not None and len(found) != 1:
        raise UserError(f"--boxes: the boxes are of one picture, and {len(found)} are given")
    return found


def named_pictures(
    flags: Flags, recognizer: Recognizer, names: Sequence[str], unreadable: Callable[[DataError], None]
) -> Iterator[Named]:
    """Every word to read, with its place: a file, or a box of one."""
    if not names:
        yield from example_words(recognizer)
        return
    boxes = read_boxes(flags.boxes) if flags.boxes is not None else []
    for place, picture in media.pictures(names, unreadable=unreadable):
        if flags.boxes is None:
            yield place, picture
            continue
        refuse_outside(flags.boxes, boxes, picture.shape)
        yield from ((f"{place} box {number}", rectify(picture, box)) for number, box in enumerate(boxes, 1))


def write_all(
    flags: Flags, found: Iterator[Named], files: Sequence[str], read: Callable[[list[Named]], list[Word]]
) -> list[dict[str, Any]]:
    """Read, print and write everything that was found in `files`, some batches at a time."""
    folder, records = set_aside(flags.output_dir, RESULTS), []
    shown: list[np.ndarray] = []
    at_once = media.batch_size(files, AT_ONCE * flags.test_batch_size)
    with json_lines(folder / RESULTS[0]) as write, media.until_interrupted(files):
        for some in groups(found, at_once):
            for (place, picture), word in zip(some, read(some), strict=True):
                record = {"image": place, **word.to_record()}
                write(record)
                records.append(record)
                console.print(f"{place}: {word.text}  {word.score:.3f}")
                if len(shown) < ON_SHEET:
                    spans = [(begin, end) for _, _, begin, end in word.characters]
                    shown.append(pictures.draw_places(word.how(picture), spans, word.text if spans else ""))
    if shown:
        captions = [f"{record['text']}  {record['score']:.2f}" for record in records[: len(shown)]]
        pictures.draw_words(folder / RESULTS[1], shown, captions, [None] * len(shown))
        say_written(folder, RESULTS)
    return records


def groups(found: Iterator[Named], words: int) -> Iterator[list[Named]]:
    """So many words at a time, or fewer whose pictures take BYTES_AT_ONCE."""
    some: list[Named] = []
    for one in found:
        some.append(one)
        if len(some) == words or sum(picture.nbytes for _, picture in some) >= BYTES_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def check_widths(feed: Any) -> None:
    """Raise UserError unless the arrays' words are as wide as they say."""
    pixel, width = feed["pixel"], feed["width"]
    if not (width.min() >= 1 and width.max() <= pixel.shape[3]):
        raise UserError(f"--feed: width must be between 1 and the {pixel.shape[3]} columns of pixel")


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
