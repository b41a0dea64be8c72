"""Draw what is where in pictures.

    python infer.py photo.jpg more/ 'streets/*.png'    files, folders, globs; without any, drawn streets
    python infer.py film.mp4 --frame_step 5            every fifth frame of a video; camera:0 is the first camera
    python infer.py --images_list list.txt --images_path DIR --out_path results      as in 2018
    python infer.py --feed in.npz --fetch out.npz      raw arrays through the inference Program

Writes for each picture NAME_result.png (colours), NAME_label.png (ids), NAME_overlay.jpg and NAME_side.jpg.
"""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import media
from fluid.arrays import read_npz
from fluid.config import ArrayFlags, BatchFlags, Count, EngineFlags, ExportedFlags, Share, Was, defaults
from fluid.errors import DataError, UserError, raise_unreadable
from fluid.interface import Interface
from fluid.records import json_lines, say_written, set_aside
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from fluid.weights import Opened
from icnet import pictures
from icnet.classes import Classes
from icnet.evaluation import Names, Size, write_ids
from icnet.opening import open_segmenter
from icnet.reader import list_lines
from icnet.segmenter import MEAN, OUTPUTS, NetworkFlags, Segmenter
from icnet.streets.files import example_streets

import cv2
import numpy as np
import tyro

Kind = Literal["result", "label", "overlay", "side"]
SHARES = "shares.jsonl"
ENDINGS: dict[Kind, str] = {"result": "png", "label": "png", "overlay": "jpg", "side": "jpg"}


@dataclass
@defaults(test_batch_size=4)
class Flags(NetworkFlags, BatchFlags, ArrayFlags, ExportedFlags, EngineFlags):
    """Draw what is where in pictures."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image and video files, folders, patterns, @LIST for a file of names, - for names on standard input, or camera:0; by
    default some drawn streets."""
    pretrained_model: Annotated[str | None, Was("model_path")] = None
    """Weights: a name that `./zoo list weights` shows, or a file or folder of any format."""
    image_list: Annotated[Path | None, Was("images_list")] = None
    """A file with the name of a picture a line."""
    image_dir: Annotated[Path | None, Was("images_path")] = None
    """What the names in --image_list are relative to; without a list, a folder of pictures."""
    frame_step: Count = 1
    """Of a video or camera, every so many frames."""
    long_side: Count | None = None
    """Pictures that are longer are made smaller for the network, down to this many pixels; by default what the weights
    say, else the length of those that they learnt from. Results have the picture's own size."""
    own_statistics: Share | None = None
    """Share of a picture's own means and variances in batch normalisation, for pictures unlike those that were learnt from;
    by default what the weights say, 0.1 for `streets` and 0 for most."""
    write: tuple[Kind, ...] = ("result", "label", "overlay", "side")
    """What to write of each picture: colours, ids, colours over the picture, both side by side with a legend."""
    opacity: Share = pictures.OPACITY
    """Of the colours in an overlay."""
    output_dir: Annotated[Path, Was("out_path")] = Path("segmented")
    """Folder for results; records of an earlier call are moved to FOLDER/before."""
    outputs: tuple[Literal["sub4", "sub24", "sub124", "logits", "labels"], ...] = ()
    """What --fetch writes; by default everything that the Program computes."""
    feed: Path | None = None
    """Raw inputs: an .npz with `image`, [N, H, W, 3] uint8 RGB or [N, 3, H, W] float32, BGR minus the mean."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write: `sub4`, `sub24`, `sub124`, `logits` in full size, `labels` uint8."""


ALIASES = {"exported": "exported_model"}
RETIRED: dict[str, str] = {}


def main(flags: Flags) -> list[dict[str, Any]]:
    """Segment, print and write; returns the records of shares.jsonl."""
    arrays = flags.arrays()
    opened = open_segmenter(flags)
    segmenter = segmenter_of(opened, flags.own_statistics)
    if arrays is not None:
        outputs = flags.outputs or OUTPUTS
        size, normalised = raw_form(arrays[0])
        exported = opened.exported is not None
        run_arrays(
            Runner(opened, flags),
            lambda: build_program(segmenter, size, outputs, normalised),
            *arrays,
            outputs=flags.outputs or None if exported else outputs,
        )
        return []
    words = named_pictures(flags)
    runner = Runner(opened, flags, runs=None if any(map(media.is_moving, words)) else len(words))
    console.print(f"ICNet of width {opened.facts.width:g}, {runner.how}")
    unreadable: list[DataError] = []
    found = media.pictures(words, step=flags.frame_step, unreadable=unreadable.append)
    records = segment(Labeller(runner, segmenter, flags.long_side), found, words, flags)
    raise_unreadable(unreadable, len(words))
    return records


def segmenter_of(opened: Opened[Segmenter], own_statistics: float | None) -> Segmenter:
    """The network as the flags want it. Raises UserError where its Program is a file already."""
    if own_statistics is None:
        return opened.facts
    if opened.exported is not None or opened.captured is not None:
        raise UserError("--own_statistics: this Program is built already, with a share of its own")
    return replace(opened.facts, own_statistics=own_statistics)


def build_program(segmenter: Segmenter, size: Size, outputs: Sequence[str], normalised: bool = False) -> Interface:
    """The inference Program, built with Paddle; nothing else here needs it."""
    from icnet.network import inference_program

    return inference_program(segmenter, size, outputs, normalised=normalised)


def raw_form(feed: Path) -> tuple[Size, bool]:
    """Height and width of the raw images, and whether they are floats, normalised already. Raises DataError."""
    image = read_npz(feed).get("image")
    if image is None or image.ndim != 4:
        raise DataError(f"{feed}: needs an array `image`, [N, H, W, 3] uint8 or [N, 3, H, W] float32")
    normalised = image.dtype.kind == "f"
    return (image.shape[2:4] if normalised else image.shape[1:3]), normalised


def named_pictures(flags: Flags) -> list[str]:
    """The files and cameras that the flags name. Raises DataError for what does not exist."""
    if flags.image_list is not None:
        folder = flags.image_dir or flags.image_list.parent
        # Lists of 2018 may have the label behind the image.
        names = [line.split("\t")[0].strip() for line in list_lines(flags.image_list) if line.strip()]
        if not names:
            raise DataError(f"{flags.image_list}: names no picture")
        return media.find([str(folder / name) for name in names])
    if flags.image_dir is not None:
        return media.find([str(flags.image_dir), *flags.images])
    if flags.images:
        return media.find(flags.images)
    return example_streets()


class Labeller:
    """Labels pictures of any size."""

    def __init__(self, runner: Runner, segmenter: Segmenter, long_side: int | None):
        self.runner, self.segmenter = runner, segmenter
        self.long_side = long_side or segmenter.long_side or max(segmenter.size)
        self.fixed: Size | None = None
        """The only size that an exported model, or Programs from files, take."""
        self._program: Callable[[Size], Interface]
        if runner.takes_other_programs:
            self._program = cache(
                lambda size: runner.program("infer", lambda: build_program(segmenter, size, ["labels"]))
            )
            return
        program = runner.program("infer", lambda: Interface(name="never built"))
        if "labels" not in program.outputs:
            raise UserError("this exported model has no output `labels`; export it with --outputs labels")
        _, height, width, _ = program.inputs["image"].shape
        assert height is not None and width is not None
        self.fixed, self._program = (height, width), lambda size: program

    def size_for(self, image: np.ndarray) -> Size:
        """What size a picture is given to the network in."""
        height, width = image.shape[:2]
        if self.fixed is not None:
            share = min(self.fixed[0] / height, self.fixed[1] / width)
        else:
            share = min(1.0, self.long_side / max(height, width))
        return max(1, round(height * share)), max(1, round(width * share))

    def __call__(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Labels [H, W] uint8 of each picture [H, W, 3]; all of them have one size."""
        size = self.size_for(images[0])
        small = [_resized(image, size) for image in images]
        target = self.fixed or size
        batch = np.stack([_padded(image, target) for image in small])
        rows = self.runner.engine.shared_rows(len(batch))
        batch = np.concatenate([batch, np.repeat(batch[-1:], rows - len(batch), axis=0)])
        labels = np.asarray(self.runner.engine.run(self._program(target), {"image": batch}, fetch=["labels"])["labels"])
        return [
            cv2.resize(label[: size[0], : size[1]], image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            for label, image in zip(labels, images)
        ]


def _resized(image: np.ndarray, size: Size) -> np.ndarray:
    if image.shape[:2] == size:
        return image
    shrinks = size[0] < image.shape[0]
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _padded(image: np.ndarray, size: Size) -> np.ndarray:
    """With the mean colour below and to the right."""
    below, beside = size[0] - image.shape[0], size[1] - image.shape[1]
    mean = tuple(map(round, MEAN))
    return cv2.copyMakeBorder(image, 0, below, 0, beside, cv2.BORDER_CONSTANT, value=mean)


def segment(
    labeller: Labeller, found: Iterator[tuple[str, np.ndarray]], files: Sequence[str], flags: Flags
) -> list[dict[str, Any]]:
    """Label the pictures found in `files`, those of one size that follow each other together; write and print."""
    folder, classes = set_aside(flags.output_dir, [SHARES]), labeller.segmenter.classes
    records, names = [], Names()
    with json_lines(folder / SHARES) as write, media.until_interrupted(files):
        for batch in batches_of_one_size(found, media.batch_size(files, flags.test_batch_size)):
            for (place, image), label in zip(batch, labeller([image for _, image in batch])):
                stem = names.of(place)
                write_all(folder, stem, image, label, classes, flags)
                written = [name_of(stem, kind) for kind in flags.write]
                covered = shares(label, classes)
                record = {"image": place, "files": written, "shares": covered}
                write(record)
                records.append(record)
                shown = ", ".join(f"{name} {share:.1%}" for name, share in itertools.islice(covered.items(), 6))
                console.print(f"{place}: {shown}")
    if records:
        say_written(folder, [SHARES, *(name_of("*", kind) for kind in flags.write)])
    return records


def batches_of_one_size(
    found: Iterator[tuple[str, np.ndarray]], batch_size: int
) -> Iterator[list[tuple[str, np.ndarray]]]:
    """Neighbours of one size, at most `batch_size` of them."""
    for _, group in itertools.groupby(found, key=lambda item: item[1].shape):
        while batch := list(itertools.islice(group, batch_size)):
            yield batch


def shares(label: np.ndarray, classes: Classes) -> dict[str, float]:
    """What share of the picture each class that is in it has, the largest first."""
    counts = np.bincount(label.reshape(-1), minlength=256)[: len(classes)]
    order = np.argsort(-counts, kind="stable")
    return {classes.names[number]: round(counts[number] / label.size, 4) for number in order if counts[number]}


def name_of(stem: str, kind: Kind) -> str:
    """Of the file with what --write asks for of a picture."""
    return f"{stem}_{kind}.{ENDINGS[kind]}"


def write_all(folder: Path, stem: str, image: np.ndarray, label: np.ndarray, classes: Classes, flags: Flags) -> None:
    """What --write asks for."""
    if "result" in flags.write:
        pictures.write(folder / name_of(stem, "result"), pictures.colored(label, classes))
    if "label" in flags.write:
        write_ids(folder / name_of(stem, "label"), label, classes)
    if "overlay" in flags.write:
        pictures.write(folder / name_of(stem, "overlay"), pictures.overlay(image, label, classes, flags.opacity))
    if "side" in flags.write:
        pictures.write(folder / name_of(stem, "side"), pictures.side_by_side(image, label, classes))


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
