"""Classify images.

    python infer.py photo.jpg more/ 'holiday/*.png'        files, folders, globs; without any, the photographs that come along
    ls *.jpg | python infer.py -                           names from standard input
    python infer.py film.mp4 --frame_step 25               every 25th frame of a video; camera:0 is the first camera
    python infer.py --image_list val_list.txt --data_dir ILSVRC2012 --pretrained_model ResNet50
    python infer.py --feature pool5 photo.jpg              a layer's output instead of classes
    python infer.py --feed in.npz --fetch out.npz          raw arrays through the inference Program

Prints the best classes of each image and writes predictions.jsonl, predictions.csv and sheet.png to --output_dir.
"""

import csv
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import media
from fluid.arrays import write_npz
from fluid.config import ArrayFlags, BatchFlags, Count, EngineFlags, ExportedFlags, Was, defaults, nearest
from fluid.data import batches_for_all
from fluid.errors import DataError, UserError, raise_unreadable
from fluid.files import whole
from fluid.interface import Interface
from fluid.picture_files import prepared
from fluid.pictures import draw_sheet
from fluid.records import json_lines, say_written, set_aside
from fluid.run import console, script
from fluid.runner import Runner, run_arrays
from fluid.text import number_of
from image_classification.classes import with_labels_of
from image_classification.classifier import IMAGENET, Classifier, NetworkFlags
from image_classification.opening import open_classifier, open_runner
from image_classification.reader import EMBEDDED, class_names, read_list
from image_classification.shipped import made_of_evaluation
from image_classification.views import NumViews, mean_logits, views_of

import numpy as np
import tyro

Named = tuple[str, np.ndarray, int | None]
"""Place, views [V, H, W, 3] uint8, and the label where a list tells it."""
RESULTS = ("predictions.jsonl", "predictions.csv", "sheet.png", "features.npz")
ON_SHEET = 100
"""So many pictures are shown on sheet.png."""


@dataclass
@defaults(test_batch_size=16)
class Flags(NetworkFlags, BatchFlags, ArrayFlags, ExportedFlags, EngineFlags):
    """Classify images."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image and video files, folders, patterns, @LIST for a file of names, - for names on standard input, or camera:0; by
    default the photographs that come along."""
    image_list: Path | None = None
    """A list file of 2018, `path label` a line; the predictions are then checked against the labels."""
    data_dir: Path | None = None
    """What the paths of --image_list are relative to; by default its own folder."""
    class_map: tuple[str, ...] = ()
    """Classes that the list's data call otherwise than the network, NAME_IN_THE_DATA=CLASS_OF_THE_NETWORK."""
    frame_step: Count = 1
    """Of a video or camera, classify every so many frames."""
    views: NumViews = 1
    """Views of each picture whose probabilities are averaged: 1 the centre, 2 and mirrored, 5 centre and corners, 10 both."""
    top_k: Annotated[Count, Was("topk")] = 5
    """Classes to name for each image."""
    feature: str | None = None
    """Write this layer's output to features.npz instead of classifying."""
    output_dir: Path = Path("predictions")
    """Folder for results: predictions.jsonl, predictions.csv and sheet.png, or features.npz; records of an earlier call are moved
    to FOLDER/before."""
    feed: Path | None = None
    """Raw inputs: an .npz with `image` [N, 3, H, W] float32, normalised already."""
    fetch: Path | None = None
    """Raw outputs: the .npz to write, with `logits` [N, class_dim]."""


ALIASES = {
    "exported": "exported_model",
    "save_dir": "output_dir",
    "model_save_dir": "output_dir",
    "reader_thread": "num_workers",
}
RETIRED = {"with_mem_opt": "the engines plan memory themselves", "save_inference": "see export.py"}


def main(flags: Flags) -> list[dict[str, Any]]:
    """Classify, print and write; returns the records of predictions.jsonl."""
    arrays = flags.arrays()
    if flags.feature is not None and flags.views > 1:
        raise UserError("--views averages probabilities; --feature is of one view")
    opened = open_classifier(flags, IMAGENET)
    classifier = opened.facts
    if arrays is not None:
        run_arrays(Runner(opened, flags), lambda: build_program("infer", classifier), *arrays)
        return []
    files = find_files(flags, classifier)
    names = [name for name, _ in files]
    flags = replace(flags, test_batch_size=media.batch_size(names, flags.test_batch_size))
    endless = any(map(media.is_moving, names))
    runner = open_runner(opened, flags, None if endless else batches_for_all(len(files), flags.test_batch_size))
    console.print(f"{classifier.model}, {runner.how}")
    unreadable: list[DataError] = []
    pictures = read_all(files, classifier, flags, unreadable.append)
    if flags.feature is not None:
        records = extract(runner, classifier, pictures, names, flags)
    else:
        records = classify(runner, classifier, pictures, names, flags)
    raise_unreadable(unreadable, len(files))
    return records


def build_program(role: str, classifier: Classifier) -> Interface:
    """The Program for images as the reader emits them, `eval`, or for raw arrays, `infer`; built with Paddle."""
    from image_classification.network import evaluation_program, inference_program

    return evaluation_program(classifier) if role == "eval" else inference_program(classifier)


def find_files(flags: Flags, classifier: Classifier) -> list[tuple[str, int | None]]:
    """What the flags name, in order, with labels where a list tells. Raises DataError for what does not exist."""
    if flags.image_list is None:
        return [(name, None) for name in media.find(flags.images or (str(EMBEDDED / "photographs"),))]
    folder = flags.data_dir or flags.image_list.parent
    by_name = bool(classifier.class_names and class_names(folder, "val"))
    listed = read_list(flags.image_list, folder, 2**31 if by_name else classifier.class_dim)
    listed = with_labels_of(listed, folder, "val", classifier.class_names, flags.class_map)
    return [(listed.path(index), int(listed.labels[index])) for index in range(len(listed))]


def read_all(
    files: list[tuple[str, int | None]], classifier: Classifier, flags: Flags, unreadable: Callable[[DataError], None]
) -> Iterator[Named]:
    """Every picture of these files, as the network is to see it."""
    found = prepared(
        [name for name, _ in files],
        partial(views_of, preprocess=classifier.preprocess, views=flags.views),
        step=flags.frame_step,
        batch_size=flags.test_batch_size,
        num_workers=flags.num_workers,
        unreadable=unreadable,
    )
    yield from ((place, seen, files[number][1]) for number, place, seen in found)


def outputs_of(
    runner: Runner, classifier: Classifier, pictures: Iterator[Named], batch_size: int, name: str
) -> Iterator[tuple[str, np.ndarray, int | None, np.ndarray]]:
    """(place, what the network sees [H, W, 3] uint8, label, output `name`) of each picture."""
    program = runner.program("eval", lambda: build_program("eval", classifier), made_of_evaluation(classifier))
    if name not in program.outputs and program.layers and name not in program.layers:
        raise UserError(
            f"--feature {name}: {classifier.model} has no such layer."
            f"{nearest(name, list(program.layers))} All layers: {', '.join(program.layers)}"
        )
    rows_of_all = 0
    while batch := list(itertools.islice(pictures, batch_size)):
        seen = np.concatenate([views for _, views, _ in batch])
        # The last batch has the size of the others: another would be compiled for.
        rows_of_all = max(rows_of_all, len(seen))
        filled = np.concatenate([seen, np.repeat(seen[-1:], rows_of_all - len(seen), axis=0)])
        rows = np.asarray(runner.engine.run(program, {"image": filled}, fetch=[name])[name])[: len(seen)]
        rows = mean_logits(rows, len(seen) // len(batch))
        yield from ((place, views[0], label, row) for (place, views, label), row in zip(batch, rows, strict=True))


def classify(
    runner: Runner, classifier: Classifier, pictures: Iterator[Named], names: Sequence[str], flags: Flags
) -> list[dict[str, Any]]:
    """Print and write the best classes of each picture in the files `names`."""
    folder = set_aside(flags.output_dir, RESULTS)
    records, seen = [], []
    with json_lines(folder / "predictions.jsonl") as write, media.until_interrupted(names):
        for place, image, label, logits in outputs_of(runner, classifier, pictures, flags.test_batch_size, "logits"):
            record = {"image": place, "predictions": best_classes(classifier, logits, flags.top_k)}
            if label is not None:
                record |= {"label": label, "correct": record["predictions"][0]["class"] == label}
            write(record)
            records.append(record)
            if len(seen) < ON_SHEET:
                seen.append(image)
            shown = ", ".join(f"{entry['name']} {entry['score']:.3f}" for entry in record["predictions"])
            console.print(f"{place}: {shown}")
    if records:
        write_results(folder, records, seen)
    return records


def best_classes(classifier: Classifier, logits: np.ndarray, count: int) -> list[dict[str, Any]]:
    """The most probable classes, best first: logits [class_dim]."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    scores = shifted / shifted.sum()
    return [
        {"class": int(label), "name": classifier.name_of(int(label)), "score": round(float(scores[label]), 6)}
        for label in np.argsort(-scores, kind="stable")[:count]
    ]


def write_results(folder: Path, records: list[dict[str, Any]], seen: list[np.ndarray]) -> None:
    """predictions.csv and, of the first pictures, sheet.png: what the network saw and what it took it for."""
    with (
        whole(folder / "predictions.csv") as unfinished,
        open(unfinished, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["image", "rank", "class", "name", "score"])
        for record in records:
            for rank, entry in enumerate(record["predictions"], 1):
                writer.writerow([record["image"], rank, entry["class"], entry["name"], entry["score"]])
    shown = records[: len(seen)]
    captions = [
        "\n".join(f"{entry['score']:.2f} {entry['name']}" for entry in record["predictions"][:2]) for record in shown
    ]
    draw_sheet(folder / "sheet.png", seen, captions, [record.get("correct") for record in shown])
    known = [record["correct"] for record in records if "correct" in record]
    if known:
        console.print(f"top-1 {np.mean(known):.4f} of {number_of(len(known), 'labelled image')}")
    say_written(folder, ["predictions.jsonl", "predictions.csv", "sheet.png"])


def extract(
    runner: Runner, classifier: Classifier, pictures: Iterator[Named], names: Sequence[str], flags: Flags
) -> list[dict[str, Any]]:
    """Write a layer's output of all pictures in the files `names` to features.npz: `features` [N, ...] and `images`, their places."""
    places, features = [], []
    with media.until_interrupted(names):
        for place, _, _, output in outputs_of(runner, classifier, pictures, flags.test_batch_size, flags.feature):
            places.append(place)
            features.append(output)
    if places:
        path = set_aside(flags.output_dir, RESULTS) / "features.npz"
        write_npz(path, {"features": np.stack(features), "images": np.array(places)})
        console.print(f"{flags.feature}: {[len(places), *features[0].shape]}")
        say_written(path.parent, [path.name])
    return []


if __name__ == "__main__":
    script(lambda: main(configuration.parse(Flags, aliases=ALIASES, retired=RETIRED)))
