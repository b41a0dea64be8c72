"""Find objects in pictures.

    python infer.py photo.jpg more/ 'holiday/*.png'        files, folders, patterns; without any, photographs that come along
    ls *.jpg | python infer.py -                           names from standard input
    python infer.py film.mp4 --frame_step 5                every 5th frame of a video; camera:0 is the first camera
    python infer.py street.jpg --classes person car --conf 0.3
    python infer.py aerial.tif --tile_size 400             part by part, what is small in a large picture
    python infer.py photo.jpg --write json coco voc yolo    as annotations of data sets, to be corrected and trained on
    python infer.py --feed in.npz --fetch out.npz          raw arrays through the inference Program

Prints the objects of each picture; draws them and writes detections.jsonl to --output_dir, with boxes in pixels of the picture.
"""

import collections
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import media
from fluid.config import ArrayFlags, BatchFlags, Count, EngineFlags, ExportedFlags, Was, defaults
from fluid.data import batches_for_all
from fluid.errors import DataError, UserError, raise_unreadable
from fluid.records import say_written
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from object_detection.detector import TOLD_BY_NETWORK, DetectionFlags, Detector, NetworkFlags, rows
from object_detection.finding import TileFlags, find_objects
from object_detection.found import Found, classes_named, in_pixels
from object_detection.opening import build_program, open_detector, open_prediction, open_runner, settle
from object_detection.storing import WRITTEN, Form, record, storage

import numpy as np
import tyro

NAMED = 6
"""Of more objects in a picture the line that is printed only counts them."""
LEAST_TILE = 32
PHOTOGRAPHS = Path(__file__).resolve().parent / "data" / "photographs"


@dataclass
@defaults(test_batch_size=8, conf=0.5)
class Flags(NetworkFlags, DetectionFlags, TileFlags, BatchFlags, ArrayFlags, ExportedFlags, EngineFlags):
    """Find objects in pictures."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image and video files, folders, patterns, @LIST for a file of names, - for names on standard input, or camera:0; by
    default the photographs that come along."""
    image_path: str | None = None
    """One more picture, file or folder; this is how one was named in 2018."""
    frame_step: Count = 1
    """Of a video or camera, look at every so many frames."""
    classes: tuple[str, ...] = ()
    """Only objects of these classes, by name or number."""
    feed: Path | None = None
    """Raw inputs: an .npz with `image` [N, 3, size, size] float32, normalised already."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `loc`, `conf`, `prior_boxes`, `prior_variances`, `detections`, `detections_num`."""
    output_dir: Path = Path("detections")
    """Folder for results; records of an earlier call are moved to FOLDER/before."""
    write: Annotated[tuple[Form, ...], Was("save")] = ("json", "pictures")
    """What to write: json (detections.jsonl), pictures (drawn; videos as .mp4), and the layouts of COCO, VOC and YOLO."""


ALIASES = {
    "exported": "exported_model",
    "model_dir": "pretrained_model",
    "confs_threshold": "conf",
    "nms_threshold": "iou",
}
RETIRED = {**TOLD_BY_NETWORK, "dataset": "class names come with the weights"}


def main(flags: Flags) -> list[dict[str, Any]]:
    """Find, print and write; returns the records of detections.jsonl."""
    arrays = flags.arrays()
    if 0 < flags.tile_size < LEAST_TILE:
        raise UserError(
            f"--tile_size {flags.tile_size}: squares have at least {LEAST_TILE} pixels a side, or 0 for none"
        )
    opened = open_detector(flags)
    detector = opened.facts
    if arrays is not None:
        flags = settle(opened, flags)
        run_arrays(Runner(opened, flags), lambda: build_program("infer", detector, flags), *arrays)
        return []
    flags = settle(opened, flags, fewer=True)
    classes_named(flags.classes, detector.class_names)
    named = (*flags.images, *([flags.image_path] if flags.image_path else []))
    files = media.find(named or (str(PHOTOGRAPHS),))
    endless = any(map(media.is_moving, files)) or flags.tile_size > 0
    runner = open_runner(opened, flags, None if endless else batches_for_all(len(files), flags.test_batch_size))
    console.print(f"{detector.model}, {runner.how}")
    unreadable: list[DataError] = []
    pictures = media.pictures(files, step=flags.frame_step, unreadable=unreadable.append)
    batch_size = media.batch_size(files, flags.test_batch_size)
    records = []
    stored_in = storage(flags.output_dir, flags.write, detector.class_names, frame_step=flags.frame_step)
    with stored_in as stored, media.until_interrupted(files):
        for place, picture, found in find_all(runner, detector, pictures, flags, batch_size):
            stored.add(place, picture, found)
            records.append(record(place, picture, found))
            console.print(f"{place}: {in_words(found)}")
    if records:
        say_written(flags.output_dir, [WRITTEN[form] for form in flags.write])
    raise_unreadable(unreadable, len(files))
    return records


def find_all(
    runner: Runner, detector: Detector, pictures: Iterator[tuple[str, np.ndarray]], flags: Flags, batch_size: int
) -> Iterator[tuple[str, np.ndarray, list[Found]]]:
    """(place, picture, what was found in it) of each picture."""
    wanted = classes_named(flags.classes, detector.class_names)
    program, size = open_prediction(runner, detector, flags)

    def look(images: np.ndarray) -> list[np.ndarray]:
        outputs = runner.engine.run(program, {"image": images}, fetch=["detections", "detections_num"])
        return rows(np.asarray(outputs["detections"]), np.asarray(outputs["detections_num"]).tolist())

    for place, picture, own in find_objects(
        pictures, look, size=size, batch_size=batch_size, flags=flags, iou=flags.iou, keep=flags.max_det
    ):
        # An exported model was made with limits of its own.
        own = own[own[:, 1] > flags.conf]
        yield place, picture, in_pixels(own, picture, detector.class_names, wanted=wanted)[: flags.max_det]


def in_words(found: Sequence[Found]) -> str:
    """A line for people."""
    if len(found) > NAMED:
        return ", ".join(f"{count} x {name}" for name, count in collections.Counter(x.name for x in found).items())
    return ", ".join(f"{item.name} {item.score:.2f}" for item in found) or "nothing"


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
