"""Top-1 and top-5 accuracy of a converted classifier: did it survive the conversion?

    python caffe2fluid/eval.py DIR val.txt --root ILSVRC2012_img_val --resize 256 --mean 104,117,123

Each line of the list is "path label" with labels from 0, as Caffe's ImageData layer reads it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from caffe2fluid import images
from caffe2fluid.converted import Converted, Predictor, open_converted
from caffe2fluid.errors import ConvertError, number_of, run_script
from caffe2fluid.flags import parsed, parser_of
from caffe2fluid.prototxt import read_bytes
from caffe2fluid.storage import replaced_file

import numpy as np


def read_list(path: Path, root: Path) -> list[tuple[Path, int]]:
    """(image, label) of each line. Raises ConvertError with file and line, also for an image that is not there."""
    items = []
    for number, line in enumerate(read_bytes(path).decode("utf-8-sig", "replace").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal():
            raise ConvertError(f'{path}:{number}: expected "path label", found {line[:60]!r}')
        image = root / name.strip()
        if not image.is_file():
            raise ConvertError(f"{path}:{number}: {image} does not exist (--root is {root})")
        items.append((image, int(label)))
    if not items:
        raise ConvertError(f"{path}: the list is empty")
    return items


def ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """How many classes score at least as high as the right one, itself not counted; [N, classes] -> [N].

    Ties count against the net, so that one which gives every class the same score gains nothing by it.
    """
    right = scores[np.arange(len(labels)), labels]
    return (~(scores < right[:, None])).sum(1) - 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = parser_of(__doc__)
    parser.add_argument("list", metavar="LIST.txt", help="lines of: path label")
    parser.add_argument("--root", default="", help="folder that the paths start from (default: that of the list)")
    parser.add_argument("--blob", "--output", metavar="BLOB", help="the scores (default: the last output)")
    parser.add_argument("--test_batch_size", "--batch_size", type=int, default=16)
    parser.add_argument("--output_dir", metavar="DIR", help="folder for result.json; by default it is only printed")
    args = parsed(parser, argv, "test_batch_size")
    if args.size == "image":
        parser.error("--size image: images of one batch have one size; give it, --size 240x320")
    return args


def main(argv: list[str] | None = None) -> int:
    """Measure and print top-1 and top-5."""
    began = time.perf_counter()
    args = parse(argv)
    converted = open_converted(args.model)
    output = args.blob or converted.outputs[-1]
    if output not in converted.outputs:
        raise ConvertError(f"--blob {output}: the outputs of the net are {', '.join(converted.outputs)}")
    items = read_list(Path(args.list), Path(args.root) if args.root else Path(args.list).parent)
    found = []
    for scores, labels in score(args, converted, output, items):
        if labels.max() >= scores.shape[1]:
            raise ConvertError(
                f"{args.list}: the label {labels.max()}, but {output} has {scores.shape[1]} classes (from 0)"
            )
        found.append(ranks(scores, labels))
    rank = np.concatenate(found)
    result = {"acc1": float((rank < 1).mean()), "acc5": float((rank < 5).mean())}
    print(f"top-1 {result['acc1']:.4f}, top-5 {result['acc5']:.4f}")
    seconds = time.perf_counter() - began
    print(f"{number_of(len(items), 'image')}, {seconds:.1f} s")
    if args.output_dir:
        folder = Path(args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        of = {"weights": args.model, "data": args.list, "samples": len(items), "seconds": round(seconds, 3)}
        with replaced_file(folder / "result.json") as unfinished:
            unfinished.write_text(json.dumps({**of, **result}, indent=1) + "\n", "utf-8")
        print(f"written to {folder}: result.json")
    return 0


def score(
    args: argparse.Namespace, converted: Converted, output: str, items: list[tuple[Path, int]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Scores [N, classes] and labels [N] of each batch."""
    name, preprocess = images.from_flags(args, converted)
    predictor = Predictor(converted, not args.no_onednn, args.threads)
    fixed = converted.inputs[name][0]
    size = fixed or args.test_batch_size
    for start in range(0, len(items), size):
        chunk = items[start : start + size]
        pixels = np.stack([preprocess(images.read_image(path)) for path, _ in chunk])
        if fixed:
            pixels = np.concatenate([pixels, np.repeat(pixels[-1:], size - len(chunk), 0)])
        scores = predictor({name: pixels})[output].reshape(len(pixels), -1)[: len(chunk)]
        yield scores, np.array([label for _, label in chunk])
        if sys.stderr.isatty():
            print(f"\r{start + len(chunk)}/{len(items)}", end="", file=sys.stderr)


if __name__ == "__main__":
    run_script(main)
