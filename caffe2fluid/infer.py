"""Runs a converted net.

    python caffe2fluid/infer.py DIR photo.jpg folder/ 'more/*.png' list.txt -  --mean 104,117,123 --labels synset.txt
    python caffe2fluid/infer.py DIR --feed in.npz --fetch out.npz

Images: prints the best classes, or the boxes of a detector, and with --output_file one line of JSON an image. Arrays: keys are
the names of input and output blobs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caffe2fluid import images
from caffe2fluid.converted import Converted, Predictor, known_blobs, open_converted, read_feed, run_blobs
from caffe2fluid.errors import ConvertError, raise_unreadable, run_script
from caffe2fluid.flags import parsed, parser_of
from caffe2fluid.prototxt import read_bytes
from caffe2fluid.storage import naming, replaced_file

import numpy as np


def describe(outputs: dict[str, np.ndarray], labels: list[str], top_k: int, threshold: float) -> dict:
    """What one image's outputs (batch 1) say, by blob: classes, boxes in fractions of the image, or a summary."""
    result = {}
    for name, array in outputs.items():
        if array.ndim == 4 and array.shape[:2] == (1, 1) and array.shape[3] == 7:
            rows = [row for row in array[0, 0].tolist() if row[1] >= 0 and row[2] >= threshold]
            result[name] = [
                {**_named(labels, int(row[1])), "score": row[2], "box": row[3:]}
                for row in sorted(rows, key=lambda row: -row[2])
            ]
        elif array.size == array.shape[min(1, array.ndim - 1)] > 1:
            scores = array.ravel()
            best = np.argsort(-scores, kind="stable")[:top_k]
            result[name] = [{**_named(labels, int(i)), "score": float(scores[i])} for i in best]
        else:
            low, mean, high = float(array.min()), float(array.mean()), float(array.max())
            result[name] = {"shape": list(array.shape), "min": low, "mean": mean, "max": high}
    return result


def _named(labels: list[str], number: int) -> dict:
    return {"class": number, "name": labels[number] if number < len(labels) else str(number)}


def show(path: str, description: dict) -> None:
    """Prints what `describe` found in one image."""
    print(path)
    for name, content in description.items():
        if isinstance(content, dict):
            print(
                f"  {name} {content['shape']}: {content['min']:.4g} .. {content['max']:.4g}, mean {content['mean']:.4g}"
            )
            continue
        for entry in content or [{"name": "nothing found", "score": 0.0}]:
            box = "  " + " ".join(f"{edge:.3f}" for edge in entry["box"]) if "box" in entry else ""
            print(f"  {name}  {entry['score']:9.5f}  {entry['name']}{box}")


def draw(path: str, description: dict, folder: Path) -> None:
    """Writes a picture with the boxes, if the net gave any."""
    from PIL import Image, ImageDraw

    entries = [entry for content in description.values() if isinstance(content, list) for entry in content]
    picture = Image.fromarray(images.read_image(path))
    pen = ImageDraw.Draw(picture)
    for row, entry in enumerate(entries):
        text = f"{entry['name']} {entry['score']:.2f}"
        if "box" in entry:
            box = [edge * size for edge, size in zip(entry["box"], picture.size * 2, strict=True)]
            left, right = sorted((box[0], box[2]))
            top, bottom = sorted((box[1], box[3]))
            pen.rectangle([left, top, right, bottom], outline="red", width=max(2, min(picture.size) // 200))
            corner = (left + 2, top + 2)
        else:
            corner = (4, 4 + 12 * row)
        pen.text(corner, text, fill="white", stroke_width=1, stroke_fill="black")
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / (Path(path).stem + ".png")
    number = 1
    while target.exists():
        number += 1
        target = folder / f"{Path(path).stem}_{number}.png"
    with replaced_file(target) as file:
        picture.save(file, "PNG")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="files, folders, patterns, .txt lists, - for stdin")
    parser.add_argument("--feed", metavar="IN.npz", help="input arrays instead of images")
    parser.add_argument("--fetch", metavar="OUT.npz", help="write the output arrays here")
    parser.add_argument(
        "--blobs", metavar="A,B|all", help="fetch these blobs instead (runs model.py with weights.safetensors, slower)"
    )
    parser.add_argument("--labels", metavar="FILE", help="names of the classes, one a line")
    parser.add_argument("--top_k", "--topk", type=int, default=5)
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of a box")
    parser.add_argument("--output_file", "--json", metavar="FILE", help="one line of JSON an image")
    parser.add_argument("--output_dir", "--save_dir", metavar="DIR", help="write pictures with the results")
    args = parsed(parser, argv, "top_k")
    if bool(args.feed) == bool(args.images):
        parser.error("give images or --feed IN.npz")
    if args.feed and not args.fetch:
        parser.error("--feed needs --fetch OUT.npz")
    return args


def main(argv: list[str] | None = None) -> int:
    """Run the net on images, printing what it says of each, or on arrays."""
    args = parse(argv)
    converted = open_converted(args.model)
    if args.feed:
        save_arrays(args.fetch, run_arrays(args, converted, read_feed(args.feed)))
        return 0
    labels = read_bytes(args.labels).decode("utf-8-sig", "replace").splitlines() if args.labels else []
    paths, unreadable = images.find_images(args.images, sys.stdin), list[ConvertError]()
    results = run_images(args, converted, paths, unreadable)
    collected: dict[str, list[np.ndarray]] = {}
    with json_lines(args.output_file) as write:
        for path, outputs in results:
            description = describe(outputs, labels, args.top_k, args.threshold)
            show(path, description)
            write({"image": path, **description})
            if args.output_dir:
                draw(path, description, Path(args.output_dir))
            for key, array in outputs.items() if args.fetch else ():
                collected.setdefault(key, []).append(array)
    if args.fetch and collected:
        save_arrays(args.fetch, joined(collected))
    raise_unreadable(unreadable, len(paths))
    return 0


def run_images(
    args: argparse.Namespace, converted: Converted, paths: list[str], unreadable: list[ConvertError]
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Each image and the outputs for it; what cannot be read is left out and added to `unreadable`."""
    name, preprocess = images.from_flags(args, converted)
    predictor = None if args.blobs else Predictor(converted, not args.no_onednn, args.threads)
    batch = converted.inputs[name][0] or 1

    def outputs(image: np.ndarray) -> dict[str, np.ndarray]:
        feed = {name: np.repeat(preprocess(image)[None], batch, 0)}
        found = predictor(feed) if predictor else run_arrays(args, converted, feed)
        # A net that only takes this many images at once got copies.
        return {key: _first(array, batch) for key, array in found.items()} if batch > 1 else found

    for path in paths:
        try:
            image = images.read_image(path)
        except ConvertError as error:
            unreadable.append(error)
        else:
            yield path, outputs(image)


@contextlib.contextmanager
def json_lines(path: str | None) -> Iterator[Callable[[dict], None]]:
    """A function that adds a record to a file of JSON lines; None writes nothing. An error of writing names the file."""
    if path is None:
        yield lambda record: None
        return
    with naming(Path(path)):
        file = open(path, "w", encoding="utf-8")

    def write(record: dict) -> None:
        with naming(Path(path)):
            file.write(json.dumps(record) + "\n")
            file.flush()

    try:
        yield write
    finally:
        with naming(Path(path)):
            file.close()


def joined(collected: dict[str, list[np.ndarray]]) -> dict[str, np.ndarray]:
    """The outputs of all images as one array a blob; where their shapes differ, as BLOB:0, BLOB:1, ..."""
    result: dict[str, np.ndarray] = {}
    for key, arrays in collected.items():
        if len({array.shape for array in arrays}) == 1:
            result[key] = np.concatenate(arrays)
        else:
            result |= {f"{key}:{index}": array for index, array in enumerate(arrays)}
    return result


def _first(array: np.ndarray, batch: int) -> np.ndarray:
    if array.ndim == 4 and array.shape[:2] == (1, 1) and array.shape[3] == 7:
        return array[:, :, array[0, 0, :, 0] == 0]
    return array[:1] if array.ndim and array.shape[0] == batch else array


def run_arrays(args: argparse.Namespace, converted: Converted, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs, or the blobs of --blobs, for input arrays."""
    if not args.blobs:
        return Predictor(converted, not args.no_onednn, args.threads)(feed)
    return dict(run_blobs(converted, feed, known_blobs(converted, args.blobs)))


def save_arrays(path: str, arrays: dict[str, np.ndarray]) -> None:
    """Writes an archive under exactly this name."""
    with replaced_file(Path(path)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    print(f"{path}: " + ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items()))


if __name__ == "__main__":
    run_script(main)
