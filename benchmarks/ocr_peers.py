"""Words read by the zoo's recogniser beside PP-OCRv4 as the packages rapidocr-* have it: accuracy, size, CPU time.

    python benchmarks/ocr_peers.py rate                                     words made and read a second of CPU time
    python benchmarks/ocr_peers.py words made --number 500                  made words in fonts not trained on, as PNG files
    ./zoo export ocr_recognition --onnx --export_dir exported
    python benchmarks/ocr_peers.py read ocr_recognition/data/signs made --ours exported --json out.json

Reading needs onnxruntime, and the peers that are named: rapidocr-onnxruntime==1.4.4 and rapidocr-paddle==1.4.5 (Apache-2.0;
the latter runs the same network on Paddle). All read a word at a time with one thread. Time is that of the process, from the
decoded picture to the text. The peer knows 6,623 characters; it measures, and neither labels nor trains anything here.
"""

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, save, versions
from fluid.media import decode_image
from ocr_recognition.metrics import alphanumeric
from ocr_recognition.reader import open_words
from ocr_recognition.readings import edit_distance
from ocr_recognition.recognizer import Recognizer

import numpy as np

PEERS = ("rapidocr-onnxruntime", "rapidocr-paddle")
Read = Callable[[np.ndarray], str]
"""A picture [h, w, 3] uint8 RGB -> its text."""


def rate(arguments: argparse.Namespace) -> None:
    """How many words one core makes, its glyphs rendered, and how many of a set in memory it puts into batches."""
    from fluid.data import training_batches
    from ocr_recognition.generated import Recipe, make_set
    from ocr_recognition.reader import Labelling
    from ocr_recognition.word_set import SetSource

    for style in ("general", "simple"):
        maker = Recipe(style=style, columns_a_frame=4).maker()
        for part in range(2):
            began = time.process_time()
            for number in range(arguments.number):
                maker.make(np.random.default_rng((part, number)))
        print(f"{style} words made: {arguments.number / (time.process_time() - began):,.0f} a second of CPU time")
    recipe = Recipe(columns_a_frame=4)
    labelling = Labelling(recipe.alphabet, columns_a_frame=recipe.columns_a_frame)
    source = SetSource(make_set(recipe, arguments.number, seed=1), 128, height=recipe.height, labelling=labelling)
    batches, count, began = training_batches(source, 128, seed=1, plan=source.plan(1)), 0, time.process_time()
    for _ in range(200):
        count += next(batches).size
    print(f"words of a set batched: {count / (time.process_time() - began):,.0f} a second of CPU time")


def words(arguments: argparse.Namespace) -> None:
    """Write made words at their own sizes."""
    from ocr_recognition.generated import Recipe

    from PIL import Image

    folder = Path(arguments.folder)
    (folder / "test_images").mkdir(parents=True)
    maker, lines = Recipe(columns_a_frame=None, part="test").maker(), []
    for number in range(arguments.number):
        made = maker.make(np.random.default_rng((23, number)))
        Image.fromarray(made.picture).save(folder / "test_images" / f"{number:04d}.png")
        lines.append(f"{number:04d}.png\t{made.text}\n")
    (folder / "test.txt").write_text("".join(lines), encoding="utf-8")
    print(f"{folder}: {len(lines)} words")


def read(arguments: argparse.Namespace) -> None:
    """Read the folders' words with both, and print and write how well."""
    readers, sizes = {}, {}
    if arguments.ours:
        readers["zoo"], sizes["zoo"] = ours(Path(arguments.ours))
    for name in arguments.peers:
        readers[name], sizes[name] = rapidocr(name)
    rows = [
        {"reader": name, "words": str(folder), "MB": round(sizes[name] / 1e6, 2), **measured(one, Path(folder))}
        for folder in arguments.folders
        for name, one in readers.items()
    ]
    for row in rows:
        print(
            "  ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{value}" for name, value in row.items())
        )
    save(arguments.json, versions=versions("onnxruntime", "paddlepaddle", *PEERS, "numpy"), rows=rows)


def measured(one: Read, folder: Path) -> dict[str, Any]:
    """Over all words of a folder's test list."""
    found = open_words(folder, "test")
    wanted = [str(text) for text in found.texts]
    pictures = [decode_image(found.content(index)) for index in range(len(found))]
    one(pictures[0])
    began = time.process_time()
    texts = [one(picture) for picture in pictures]
    seconds = time.process_time() - began
    edits = sum(edit_distance(text, right) for text, right in zip(texts, wanted))
    wrong = [f"{right} as {text}" for text, right in zip(texts, wanted) if text != right]
    print(f"{folder}: {', '.join(wrong[:50])}", file=sys.stderr)
    return {
        "count": len(wanted),
        "exact": float(np.mean([text == right for text, right in zip(texts, wanted)])),
        "alphanumeric": float(
            np.mean([alphanumeric(text) == alphanumeric(right) for text, right in zip(texts, wanted)])
        ),
        "cer": edits / sum(map(len, wanted)),
        "cpu_ms_a_word": 1000 * seconds / len(wanted),
    }


def ours(folder: Path) -> tuple[Read, int]:
    """An exported recogniser, and its size in bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    model = folder / "model.onnx"
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    facts = json.loads((folder / "signature.json").read_text(encoding="utf-8"))["facts"]["recognizer"]
    recognizer = Recognizer.from_facts(facts)

    def one(picture: np.ndarray) -> str:
        row = recognizer.preprocess.picture(picture)
        pixel = (row.astype(np.float32) - 127.5)[None, None]
        (decoded,) = session.run(["decoded"], {"pixel": pixel, "width": np.array([row.shape[1]])})
        return recognizer.text_of([item for item in decoded[0].tolist() if item >= 0])

    return one, model.stat().st_size


def rapidocr(package: str) -> tuple[Read, int]:
    """A peer's recogniser, and its size in bytes."""
    module = importlib.import_module(package.replace("-", "_"))
    reader = module.RapidOCR(intra_op_num_threads=1, inter_op_num_threads=1, cpu_math_library_num_threads=1)
    models = Path(module.__file__).parent / "models"
    files = [file for file in models.glob("**/*") if file.is_file() and "_rec_" in str(file.relative_to(models))]

    def one(picture: np.ndarray) -> str:
        found, _ = reader(np.ascontiguousarray(picture[:, :, ::-1]), use_det=False, use_cls=False, use_rec=True)
        return str(found[0][0]) if found else ""

    return one, sum(file.stat().st_size for file in files)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    timing = commands.add_parser("rate", help="count words a second")
    timing.set_defaults(function=rate)
    timing.add_argument("--number", type=int, default=2500)
    making = commands.add_parser("words", help="write made words")
    making.set_defaults(function=words)
    making.add_argument("folder")
    making.add_argument("--number", type=int, default=500)
    reading = commands.add_parser("read", help="read the test lists of folders")
    reading.set_defaults(function=read)
    reading.add_argument("folders", nargs="+")
    reading.add_argument("--ours", metavar="DIR", help="exported model with model.onnx")
    reading.add_argument("--peers", nargs="*", default=list(PEERS[:1]), choices=PEERS, help="packages")
    add_json(reading)
    arguments = parser.parse_args()
    arguments.function(arguments)


if __name__ == "__main__":
    main()
