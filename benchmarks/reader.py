"""Speed of the image reader on one core, against a plain Pillow pipeline on the same photographs in the same run.

    python benchmarks/reader.py [--json benchmarks/results/reader.json]

The photographs of image_classification/data are resized to 500 x 375, the usual size in ImageNet, and saved as JPEG. What
is timed is everything from the file's bytes to a uint8 training crop of 224 x 224: random resized crop, flip. The
contestants take turns, round after round, in one thread; images per second of processor time are reported, which is what
one core does, with the spread of the rounds. Whole batches from worker processes are timed by the clock on the wall.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import save
from fluid.config import parse
from fluid.data import Source, training_batches
from fluid.media import decode_image
from image_classification.augment import Augment
from image_classification.reader import (
    EMBEDDED,
    ImageSource,
    Preprocess,
    evaluation_image,
    read_list,
    training_image,
)

import cv2
import numpy as np
import PIL
from PIL import Image

PHOTOGRAPH_SIZE = (500, 375)
CROP, BATCH = 224, 20
EVERYTHING = Augment(rotate=True, color_jitter=True, randaugment=2, random_erasing=0.25)


@dataclass
class Config:
    """Measure the image reader."""

    rounds: int = 7
    """Turns of each contestant."""
    images: int = 400
    """Images a turn."""
    quality: int = 90
    """JPEG quality of the photographs."""
    num_workers: int = 2
    """Reader processes of the last measurement, whole batches through shared memory."""
    json: Path | None = None
    """JSON file to write."""


def photographs(folder: Path, quality: int) -> list[bytes]:
    """Write the embedded photographs, resized, and a list of them; return the files' contents."""
    contents, lines = [], []
    for path in sorted((EMBEDDED / "photographs").glob("*.jpg")):
        with Image.open(path) as image:
            image.convert("RGB").resize(PHOTOGRAPH_SIZE, Image.Resampling.LANCZOS).save(
                folder / path.name, quality=quality
            )
        contents.append((folder / path.name).read_bytes())
        lines.append(f"{path.name} 0\n")
    (folder / "train_list.txt").write_text("".join(lines * (-(-BATCH // len(lines)))))
    return contents


def pillow_crop(data: bytes, rng: np.random.Generator, resample: Image.Resampling, normalised: bool) -> np.ndarray:
    """The pipeline as everyone writes it first: decode, crop, resize, flip, and as in 2018 to normalised float32."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    side = (width * height * rng.uniform(0.08, 1)) ** 0.5
    ratio = rng.uniform(3 / 4, 4 / 3) ** 0.5
    crop_width, crop_height = min(int(side * ratio), width), min(int(side / ratio), height)
    left, top = rng.integers(0, width - crop_width + 1), rng.integers(0, height - crop_height + 1)
    image = image.crop((left, top, left + crop_width, top + crop_height)).resize((CROP, CROP), resample)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    pixels = np.array(image)
    if not normalised:
        return pixels
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    return (pixels.transpose(2, 0, 1).astype(np.float32) / 255 - mean[:, None, None]) / std[:, None, None]


def contestants(contents: list[bytes]) -> dict[str, Callable[[int, np.random.Generator], object]]:
    """Name -> function of (number of the image, random numbers)."""
    preprocess = Preprocess((3, CROP, CROP))
    lanczos, bilinear = Image.Resampling.LANCZOS, Image.Resampling.BILINEAR
    return {
        "zoo: training crop, uint8": lambda i, rng: training_image(contents[i], preprocess, Augment(), rng),
        "zoo: with rotation and colour jitter": lambda i, rng: training_image(
            contents[i], preprocess, Augment(rotate=True, color_jitter=True), rng
        ),
        "zoo: with every augmentation": lambda i, rng: training_image(contents[i], preprocess, EVERYTHING, rng),
        "zoo: evaluation crop, uint8": lambda i, rng: evaluation_image(decode_image(contents[i]), preprocess),
        "Pillow: training crop, bilinear, uint8": lambda i, rng: pillow_crop(contents[i], rng, bilinear, False),
        "Pillow: training crop, Lanczos, float32 (as in 2018)": lambda i, rng: pillow_crop(
            contents[i], rng, lanczos, True
        ),
    }


def measure(config: Config) -> dict[str, list[float]]:
    """Images a second of every contestant in every round."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contents = photographs(folder, config.quality)
        functions = contestants(contents)
        source = ImageSource(read_list(folder / "train_list.txt", folder, 1), Preprocess((3, CROP, CROP)), EVERYTHING)
        rates: dict[str, list[float]] = {key: [] for key in functions}
        batches = f"zoo: batches of {BATCH} from {config.num_workers} workers, every augmentation"
        rates[batches] = []
        for turn in range(config.rounds + 1):
            for key, function in functions.items():
                rng = np.random.default_rng(turn)
                began = time.process_time()
                for number in range(config.images):
                    function(number % len(contents), rng)
                rates[key].append(config.images / (time.process_time() - began))
            rates[batches].append(batch_rate(source, config))
    return {key: values[1:] for key, values in rates.items()}  # the first round warms up


def batch_rate(source: Source, config: Config) -> float:
    """Images a second through `fluid.data`, once the workers are there."""
    with training_batches(source, BATCH, seed=0, num_workers=config.num_workers) as batches:
        for _ in range(2 * config.num_workers + 2):
            next(batches)
        began = time.perf_counter()
        for _ in range(2 * config.images // BATCH):
            next(batches)
        return 2 * config.images / (time.perf_counter() - began)


def main(config: Config) -> None:
    """Measure, print a table, write the JSON."""
    cv2.setNumThreads(1)
    rates = {
        key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for key, values in measure(config).items()
    }
    ours = rates["zoo: training crop, uint8"]["median"]
    ratios = {key: ours / rate["median"] for key, rate in rates.items() if key.startswith("Pillow")}
    for key, rate in rates.items():
        print(f"{key:55s}{rate['median']:7.0f} images/s   ({rate['min']:.0f}-{rate['max']:.0f})")
    for key, ratio in ratios.items():
        print(f"training crop against {key}: {ratio:.2f} x")
    save(
        config.json,
        versions={"opencv": cv2.__version__, "pillow": PIL.__version__, "numpy": np.__version__},
        settings={"size": PHOTOGRAPH_SIZE, "crop": CROP, "quality": config.quality, "images": config.images},
        images_per_second=rates,
        ratio_to_pillow=ratios,
    )


if __name__ == "__main__":
    main(parse(Config))
