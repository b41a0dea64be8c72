"""Classify images.

    python infer.py photo.jpg more/ 'holiday/*.png'        files, folders, globs; without any, the photographs that come along
    ls *.jpg | python infer.py -                           names from standard input
    python infer.py --image_list val_list.txt --data_dir ILSVRC2012 --pretrained_model ResNet50
    python infer.py --feature pool5 photo.jpg              a layer's output instead of classes
    python infer.py --feed in.npz --fetch out.npz          raw arrays through the inference Program

Prints the best classes of each image and writes predictions.jsonl, predictions.csv and sheet.png to --output_dir.
"""

import csv
import glob
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from fluid import config as configuration
from fluid import engine as engines
from fluid.arrays import read_npz, write_npz
from fluid.config import EngineFlags, ExportedFlags, nearest
from fluid.data import batches_for_all
from fluid.engine import Engine
from fluid.errors import DataError, UserError
from fluid.program import Program
from fluid.run import console, script
from fluid.weights import Opened
from image_classification import pictures
from image_classification.classifier import Classifier, NetworkFlags
from image_classification.network import evaluation_program, inference_program, open_classifier
from image_classification.reader import EMBEDDED, EXTENSIONS, load_image, normalise, read_list

import numpy as np
import tyro


@dataclass
class Flags(NetworkFlags, ExportedFlags, EngineFlags):
    """Classify images."""

    images: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """Image files, folders, globs, or - for names on standard input; by default the photographs that come along."""
    image_list: Path | None = None
    """A list file of 2018, `path label` a line; the predictions are then checked against the labels."""
    data_dir: Path | None = None
    """What the paths of --image_list are relative to; by default its own folder."""
    batch_size: int = 16
    """Images in a batch; the result does not depend on it."""
    topk: int = 5
    """Classes to name for each image."""
    feature: str | None = None
    """Write this layer's output to features.npz instead of classifying."""
    output_dir: Path = Path("predictions")
    """Folder for the results."""
    feed: Path | None = None
    """An .npz with the Program's raw inputs: `image` [N, 3, H, W] float32, normalised already."""
    fetch: Path | None = None
    """Where --feed's raw outputs go: `logits` [N, class_dim]."""


ALIASES = {
    "exported": "exported_model",
    "save_dir": "output_dir",
    "model_save_dir": "output_dir",
    "reader_thread": "num_workers",
}
RETIRED = {"with_mem_opt": "the engines plan memory themselves", "save_inference": "see export.py"}


@dataclass
class Item:
    """An image to classify, with its label where a list tells."""

    path: str
    label: int | None = None


def main(flags: Flags) -> list[dict]:
    """Classify, print and write; returns the records of predictions.jsonl."""
    if (flags.feed is None) != (flags.fetch is None):
        raise UserError("--feed and --fetch go together: raw inputs in, raw outputs out")
    if flags.topk < 1:
        raise UserError(f"--topk {flags.topk}: must be at least 1")
    opened = open_classifier(flags)
    items = [] if flags.feed is not None else find_images(flags, opened.facts.class_dim)
    batches = batches_for_all(len(items), flags.batch_size)
    network = Trained(opened, flags, batches) if opened.exported is None else Exported(opened)
    if flags.feed is not None:
        run_raw(network, flags)
        return []
    console.print(f"{network.classifier.model} on {len(items)} images", markup=False)
    if flags.feature is not None:
        extract(network, items, flags)
        return []
    return classify(network, items, flags)


class Trained:
    """A checkpoint or a set of weights, run by an engine."""

    def __init__(self, opened: Opened[Classifier], flags: Flags, batches: int):
        self.classifier, self.state = opened.facts, opened.state
        self.engine: Engine
        self.engine, _ = engines.create(flags.engine, flags.device, flags.precision, flags.seed, runs=batches)

    def _loaded(self, program: Program) -> Program:
        self.engine.load({name: self.state[name] for name in program.state_names})
        return program

    def predict(self, batches: Iterator[np.ndarray], feature: str | None = None) -> Iterator[np.ndarray]:
        """Logits, or a layer's output, of batches [N, H, W, 3] uint8. Raises UserError for an unknown layer."""
        program = self._loaded(evaluation_program(self.classifier))
        if feature is not None and feature not in program.layers:
            raise UserError(
                f"--feature {feature}: {self.classifier.model} has no such layer."
                f"{nearest(feature, list(program.layers))} All layers: {', '.join(program.layers)}"
            )
        name = feature or "logits"
        for batch in batches:
            yield np.asarray(self.engine.run(program, {"image": batch}, fetch=[name])[name])

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw outputs of the inference Program."""
        outputs = self.engine.run(self._loaded(inference_program(self.classifier)), feed)
        return {name: np.asarray(array) for name, array in outputs.items()}


class Exported:
    """An exported model, run by paddle.inference."""

    def __init__(self, opened: Opened[Classifier]):
        self.model, self.classifier = opened.exported, opened.facts

    def predict(self, batches: Iterator[np.ndarray], feature: str | None = None) -> Iterator[np.ndarray]:
        """Logits of batches [N, H, W, 3] uint8."""
        if feature is not None:
            raise UserError("--feature needs a checkpoint or weights: an exported model has only its outputs")
        for batch in batches:
            image = normalise(batch, self.classifier.mean, self.classifier.std)
            yield self.model.run({"image": image})["logits"]

    def run(self, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raw outputs."""
        return self.model.run(feed)


def find_images(flags: Flags, class_dim: int) -> list[Item]:
    """The images that the flags name, in order. Raises DataError if something named does not exist."""
    if flags.image_list is not None:
        listed = read_list(flags.image_list, flags.data_dir or flags.image_list.parent, class_dim)
        return [Item(listed.path(index), int(listed.labels[index])) for index in range(len(listed))]
    items: list[Item] = []
    for word in flags.images or (str(EMBEDDED / "photographs"),):
        if word == "-":
            items += [Item(line.strip()) for line in sys.stdin if line.strip()]
        elif Path(word).is_dir():
            inside = [path for path in sorted(Path(word).rglob("*")) if path.suffix.lower() in EXTENSIONS]
            if not inside:
                raise DataError(f"{word}: no image in this folder ({', '.join(EXTENSIONS)})")
            items += [Item(str(path)) for path in inside]
        elif Path(word).exists():
            items.append(Item(word))
        elif matches := sorted(glob.glob(word, recursive=True)):
            items += [Item(path) for path in matches]
        else:
            raise DataError(f"{word}: no such file, and nothing matches it as a pattern")
    if not items:
        raise DataError("no image named: standard input was empty")
    return items


def read_batches(items: list[Item], classifier: Classifier, batch_size: int) -> Iterator[np.ndarray]:
    """Batches [N, H, W, 3] uint8, prepared as for evaluation. Raises DataError naming a file that cannot be read."""
    for start in range(0, len(items), batch_size):
        yield np.stack([load_image(item.path, classifier.preprocess) for item in items[start : start + batch_size]])


def classify(network: Trained | Exported, items: list[Item], flags: Flags) -> list[dict]:
    """Print and write the best classes of each image."""
    classifier = network.classifier
    topk = min(flags.topk, classifier.class_dim)
    records = []
    for logits in network.predict(read_batches(items, classifier, flags.batch_size)):
        shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
        scores = shifted / shifted.sum(axis=1, keepdims=True)
        for row in scores:
            item = items[len(records)]
            order = np.argsort(-row, kind="stable")[:topk]
            best = [
                {"class": int(label), "name": classifier.name_of(int(label)), "score": round(float(row[label]), 6)}
                for label in order
            ]
            record = {"image": item.path, "predictions": best}
            if item.label is not None:
                record |= {"label": item.label, "correct": best[0]["class"] == item.label}
            records.append(record)
            shown = ", ".join(f"{entry['name']} {entry['score']:.3f}" for entry in best)
            console.print(f"{item.path}: {shown}", markup=False)
    write_results(records, items, flags)
    return records


def write_results(records: list[dict], items: list[Item], flags: Flags) -> None:
    """predictions.jsonl, predictions.csv and, of the first 100 images, sheet.png."""
    folder = make_folder(flags.output_dir)
    with open(folder / "predictions.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with open(folder / "predictions.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "rank", "class", "name", "score"])
        for record in records:
            for rank, entry in enumerate(record["predictions"], 1):
                writer.writerow([record["image"], rank, entry["class"], entry["name"], entry["score"]])
    shown = records[:100]
    captions = [
        "\n".join(f"{entry['score']:.2f} {entry['name']}" for entry in record["predictions"][:2]) for record in shown
    ]
    thumbnails = [pictures.thumbnail(item.path) for item in items[: len(shown)]]
    pictures.draw_sheet(folder / "sheet.png", thumbnails, captions, [record.get("correct") for record in shown])
    known = [record["correct"] for record in records if "correct" in record]
    if known:
        console.print(f"top-1 {np.mean(known):.4f} of {len(known)} labelled images")
    console.print(f"written to {folder}: predictions.jsonl, predictions.csv, sheet.png", markup=False)


def extract(network: Trained | Exported, items: list[Item], flags: Flags) -> None:
    """Write a layer's output of all images to features.npz: `features` [N, ...] and `images`, their paths."""
    batches = read_batches(items, network.classifier, flags.batch_size)
    features = np.concatenate(list(network.predict(batches, flags.feature)))
    folder = make_folder(flags.output_dir)
    np.savez(folder / "features.npz", features=features, images=np.array([item.path for item in items]))
    console.print(f"{flags.feature} {list(features.shape)} written to {folder / 'features.npz'}", markup=False)


def run_raw(network: Trained | Exported, flags: Flags) -> None:
    """--feed to --fetch."""
    outputs = network.run(read_npz(flags.feed))
    write_npz(flags.fetch, outputs)
    shown = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
    console.print(f"{flags.fetch}: {shown}", markup=False)


def make_folder(folder: Path) -> Path:
    """Create the output folder; raises UserError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {folder} cannot be made ({error.strerror})") from error
    return folder


def cli(argv: Sequence[str] | None = None) -> None:
    """Run with these words of a command line; None takes those of the process."""
    script(lambda: main(configuration.parse(Flags, argv, aliases=ALIASES, retired=RETIRED)))


if __name__ == "__main__":
    cli()
