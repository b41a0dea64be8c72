"""Find objects in pictures.

    python infer.py photo.jpg more/ 'holiday/*.png'        files, folders, patterns; without any, photographs that come along
    ls *.jpg | python infer.py -                           names from standard input
    python infer.py film.mp4 --frame_step 25               every 25th frame of a video; camera:0 is the first camera
    python infer.py --feed in.npz --fetch out.npz          raw arrays through the inference Program

Prints the objects of each picture and writes detections.jsonl to --output_dir; boxes are in pixels of the picture.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import media
from fluid.config import ArrayFlags, BatchFlags, Count, EngineFlags, ExportedFlags, defaults
from fluid.data import batches_for_all
from fluid.errors import DataError, UserError
from fluid.records import json_lines
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from fluid.weights import Opened
from object_detection.detector import NMS, DetectionFlags, Detector, NetworkFlags, rows
from object_detection.opening import build_program, open_detector, open_prediction, open_runner
from object_detection.reader import resize

import cv2
import numpy as np
import tyro

PHOTOGRAPHS = Path(__file__).resolve().parent / "tests" / "golden" / "photographs"


@dataclass
@defaults(test_batch_size=8, conf=0.5)
class Flags(NetworkFlags, DetectionFlags, BatchFlags, ArrayFlags, ExportedFlags, EngineFlags):
    """Find objects in pictures."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image and video files, folders, patterns, @LIST for a file of names, - for names on standard input, or camera:0; by
    default the photographs that come along."""
    frame_step: Count = 1
    """Of a video or camera, look at every so many frames."""
    output_dir: Path = Path("detections")
    """Folder for results: detections.jsonl."""
    feed: Path | None = None
    """Raw inputs: an .npz with `image` [N, 3, size, size] float32, normalised already."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `loc`, `conf`, `prior_boxes`, `prior_variances`, `detections`, `detections_num`."""


ALIASES = {
    "exported": "exported_model",
    "model_dir": "pretrained_model",
    "confs_threshold": "conf",
    "nms_threshold": "iou",
}
RETIRED = {
    "dataset": "class names come with the weights",
    "image_shape": "the network tells",
    "resize_h": "the network tells",
    "resize_w": "the network tells",
    "mean_value_B": "pixels are normalised around 127.5",
    "mean_value_G": "pixels are normalised around 127.5",
    "mean_value_R": "pixels are normalised around 127.5",
    "mean_BGR": "pixels are normalised around 127.5",
}


def main(flags: Flags) -> list[dict[str, Any]]:
    """Find, print and write; returns the records of detections.jsonl."""
    if (flags.feed is None) != (flags.fetch is None):
        raise UserError("--feed and --fetch go together: raw inputs in, raw outputs out")
    opened = open_detector(flags)
    detector = opened.facts
    if flags.feed is not None:
        flags = opened.settle(flags, *NMS)
        run_arrays(Runner(opened, flags), lambda: build_program("infer", detector, flags), flags.feed, flags.fetch)
        return []
    flags = settle(flags, opened)
    files = media.find(flags.images or (str(PHOTOGRAPHS),))
    endless = any(map(media.is_moving, files))
    runner = open_runner(opened, flags, None if endless else batches_for_all(len(files), flags.test_batch_size))
    console.print(f"{detector.model}, {runner.how}", markup=False)
    unreadable: list[DataError] = []
    pictures = media.pictures(files, step=flags.frame_step, unreadable=unreadable.append)
    records = []
    with json_lines(flags.output_dir / "detections.jsonl") as write:
        for place, found in detections_of(runner, detector, pictures, flags):
            record = {"image": place, "detections": found}
            write(record)
            records.append(record)
            shown = ", ".join(f"{item['name']} {item['score']:.2f}" for item in found) or "nothing"
            console.print(f"{place}: {shown}", markup=False)
    if unreadable:
        raise DataError("\n".join(map(str, unreadable)))
    return records


def settle(flags: Flags, opened: Opened[Detector]) -> Flags:
    """The flags with the suppression that Programs from files were built with; raises UserError if they drop too much."""
    if opened.captured is not None and flags.conf < (built := opened.captured.settings["conf"]):
        raise UserError(f"--conf {flags.conf}: the Programs in {opened.captured.folder} keep what scores above {built}")
    return opened.settle(flags, "iou", "max_det")


def detections_of(
    runner: Runner, detector: Detector, pictures: Iterator[tuple[str, np.ndarray]], flags: Flags
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(place, what was found there) of each picture."""
    program, size = open_prediction(runner, detector, flags)
    while batch := list(itertools.islice(pictures, flags.test_batch_size)):
        seen = np.stack([resize(picture, size, cv2.INTER_LINEAR) for _, picture in batch])
        outputs = runner.engine.run(program, {"image": seen}, fetch=["detections", "detections_num"])
        found = rows(np.asarray(outputs["detections"]), np.asarray(outputs["detections_num"]).tolist())
        for (place, picture), own in zip(batch, found, strict=True):
            yield place, [as_record(detector, row, picture.shape) for row in own if row[1] > flags.conf]


def as_record(detector: Detector, row: np.ndarray, shape: tuple[int, ...]) -> dict[str, Any]:
    """A detection [6] in words and in pixels of a picture of this shape."""
    height, width = shape[:2]
    corners = row[2:].clip(0, 1) * [width, height, width, height]
    return {
        "class": int(row[0]),
        "name": detector.class_names[int(row[0])],
        "score": round(float(row[1]), 4),
        "box": [round(float(value), 1) for value in corners],
    }


def cli(argv: Sequence[str] | None = None) -> None:
    """Run with these words of a command line; None takes those of the process."""
    script(lambda: main(configuration.parse(Flags, argv, aliases=ALIASES, retired=RETIRED)))


if __name__ == "__main__":
    cli()
