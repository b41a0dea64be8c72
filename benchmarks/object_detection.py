"""MobileNet-SSD300 beside the same network in PyTorch on one GPU: training, inference with suppression, suppression alone.

    python benchmarks/object_detection.py capture graphs                        with Paddle: writes the Programs and their inputs
    python benchmarks/object_detection.py time graphs --json out.json           without: needs JAX, torch and torchvision
    python benchmarks/object_detection.py reader --images 512                   augmented training images a second of one core

Both sides have the weights that come along, so that as many boxes are found and suppressed as on real photographs, of which
the batches are crops. PyTorch gets what makes it fast: channels_last, autocast to bfloat16, fused SGD, torch.compile (with
CUDA graphs for a single image), a matching in one round where SSD's bipartite one takes several, and torchvision's NMS of all
classes of an image at once. `network` is without suppression, `nms` without the network; results of single images are waited
for, batches follow one another. Each side is a process: they compile a job at the same time and are timed one after the other.
"""

import argparse
import multiprocessing
import queue
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, measure, save, versions
from benchmarks.image_classification import write_photographs
from benchmarks.xla_step import print_kernels, random_state
from object_detection.boxes import PADDING

import numpy as np

ROOT = Path(__file__).resolve().parent.parent / "object_detection"
WEIGHTS = ROOT / "data" / "ssd_mobilenet_v1_voc.safetensors"
SIZE, CLASSES, MAX_BOXES = 300, 20, 100
JOBS = (("train", 64), ("detect", 1), ("detect", 64), ("network", 1), ("network", 64), ("nms", 1), ("nms", 64))
PROFILED = 5
"""Steps, with --profile."""
CROPS = 8


def capture(folder: Path) -> None:
    """Write the Programs and the priors."""
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.interface import Input
    from fluid.program import Value, build
    from fluid.schedule import Constant
    from object_detection.detector import VOC_CLASSES, Detector
    from object_detection.loss import ssd_loss
    from object_detection.network import image_input, inference_program, normalise, prediction_program
    from object_detection.nms import Nms, detect

    import paddle

    detector = Detector("ssd_mobilenet_v1", VOC_CLASSES)
    model = detector.network
    priors = model.prior_boxes

    def momentum() -> paddle.optimizer.Optimizer:
        return paddle.optimizer.Momentum(1e-3, 0.9, weight_decay=paddle.regularizer.L2Decay(5e-5))

    def training(image: Value, boxes: Value, labels: Value, training: bool) -> dict[str, Value]:
        offsets, logits = model.build(normalise(image), CLASSES, training)
        return ssd_loss(offsets, logits, priors, boxes, labels)

    def suppression(offsets: Value, logits: Value, training: bool) -> dict[str, Value]:
        return detect(offsets, logits, priors, Nms())

    truth = [Input("boxes", (None, MAX_BOXES, 4)), Input("labels", (None, MAX_BOXES), "int64")]
    raw = [Input("offsets", (None, len(priors), 4)), Input("logits", (None, len(priors), 1 + CLASSES))]
    programs = {
        "train": build(
            training,
            [image_input(detector), *truth],
            name="train",
            training=True,
            optimizer=momentum,
            schedule=Constant(1e-3),
        ),
        "detect": prediction_program(detector, Nms()),
        "network": inference_program(detector, Nms()),
        "nms": build(suppression, raw, name="nms"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        graphs.save_graph(folder / f"{name}.json", capture_program(program))
    np.save(folder / "priors.npy", priors)
    np.savez_compressed(folder / "batch.npz", **crops(CROPS))
    write_raw(folder)
    print(f"{folder}: {', '.join(programs)}")


def crops(rows: int) -> dict[str, np.ndarray]:
    """Crops of the photographs, and one to five random boxes on each."""
    import cv2

    rng = np.random.default_rng(0)
    photographs = [
        cv2.imread(str(path), cv2.IMREAD_COLOR_RGB) for path in sorted((ROOT / "data/photographs").glob("*.jpg"))
    ]
    images, boxes = np.zeros((rows, SIZE, SIZE, 3), np.uint8), np.zeros((rows, MAX_BOXES, 4), np.float32)
    labels = np.full((rows, MAX_BOXES), PADDING, np.int64)
    for row in range(rows):
        photograph = photographs[row % len(photographs)]
        side = int(min(photograph.shape[:2]) * rng.uniform(0.7, 1))
        top, left = (int(rng.integers(length - side + 1)) for length in photograph.shape[:2])
        images[row] = cv2.resize(photograph[top : top + side, left : left + side], (SIZE, SIZE))
        count = int(rng.integers(1, 6))
        corner = rng.uniform(0, 0.6, (count, 2))
        boxes[row, :count] = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (count, 2))], axis=1)
        labels[row, :count] = rng.integers(0, CLASSES, count)
    return {"image": images, "boxes": boxes, "labels": labels}


def repeated(file: Path, rows: int) -> dict[str, np.ndarray]:
    """The arrays of a file as a batch of so many rows."""
    with np.load(file) as arrays:
        return {name: np.resize(array, (rows, *array.shape[1:])) for name, array in arrays.items()}


def normalised(images: np.ndarray) -> np.ndarray:
    """[N, H, W, 3] uint8 RGB -> [N, 3, H, W] float32 BGR around 0, as `object_detection.detector` has it."""
    return np.ascontiguousarray((images[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) * 0.007843)


@dataclass
class Timed:
    """What is timed, on either side."""

    step: Callable[[], dict[str, Any]]
    """Starts a step."""
    wait: Callable[[dict[str, Any]], dict[str, np.ndarray]]
    """Waits for its results and gets them."""


def zoo(arguments: argparse.Namespace, job: str, batch: int) -> Timed:
    """The captured Program on the xla engine."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs
    from fluid.weights import compact

    import jax

    engine = create(arguments.device, arguments.precision)
    graph = graphs.load_graph(arguments.folder / f"{job}.json")
    engine.load(random_state(graph, np.random.default_rng(0)) | compact.read(WEIGHTS)[0])
    feed = feed_of(job, batch, arguments.folder)
    feed.update(engine.put(feed, graph))
    fetch = {"train": ["loss"], "network": ["loc", "conf"]}.get(job, ["detections", "detections_num"])
    return Timed(lambda: engine.run(graph, feed, 0, fetch), jax.device_get)


def feed_of(job: str, batch: int, folder: Path) -> dict[str, Any]:
    """What a Program is fed."""
    data = repeated(folder / "batch.npz", batch)
    if job == "train":
        return data
    if job == "detect":
        return {"image": data["image"]}
    if job == "network":
        return {"image": normalised(data["image"])}
    return repeated(folder / "raw.npz", batch)


def write_raw(folder: Path) -> None:
    """Write what the network makes of the crops."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs
    from fluid.weights import compact

    engine = create("auto", "fp32")
    engine.load(compact.read(WEIGHTS)[0])
    graph = graphs.load_graph(folder / "network.json")
    found = engine.run(graph, feed_of("network", CROPS, folder), 0, ["loc", "conf"])
    np.savez(folder / "raw.npz", offsets=np.asarray(found["loc"]), logits=np.asarray(found["conf"]))


def side(who: str, arguments: argparse.Namespace, meet: Any, turn: Any, rows: Any) -> None:
    """Compile each job and, when the other sides have compiled it too, put its row into the queue `rows`."""
    for job, batch in arguments.jobs:
        timed = zoo(arguments, job, batch) if who == "zoo" else pytorch(arguments, job, batch, how=who)
        began = time.perf_counter()
        first = timed.wait(timed.step())
        compiled = time.perf_counter() - began
        meet.wait()
        with turn:
            row = row_of(who, job, batch, timed, arguments.seconds)
            rows.put({**row, "first_step_s": compiled, **seen(first)})
            if arguments.profile and who == "zoo":
                print_kernels(lambda timed=timed: [timed.wait(timed.step()) for _ in range(PROFILED)], PROFILED, 12)
        meet.wait()


def row_of(who: str, job: str, batch: int, timed: Timed, seconds: float) -> dict[str, Any]:
    """Images a second, after the first step."""
    if batch == 1:
        result = measure(lambda: timed.wait(timed.step()), lambda outputs: outputs, batch, seconds)
    else:
        result = measure(timed.step, timed.wait, batch, seconds)
    return {"who": who, "job": job, "batch": batch, **result}


def seen(outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """How many boxes were found, or the loss, by which one sees that both sides do the same."""
    if "detections" in outputs:
        return {"found": int((outputs["detections"][..., 1] > 0.3).sum())}
    return {"loss": float(outputs["loss"])} if "loss" in outputs else {}


def shown(row: dict[str, Any], others: list[dict[str, Any]]) -> str:
    """A row for people, with its ratio to the zoo's."""
    ours = [
        other for other in others if (other["job"], other["batch"], other["who"]) == (row["job"], row["batch"], "zoo")
    ]
    ratio = f", zoo is {ours[0]['median'] / row['median']:.2f} x" if ours and row["who"] != "zoo" else ""
    extra = "".join(f", {name} {row[name]:.6g}" for name in ("found", "loss") if name in row)
    return (
        f"{row['job']} {row['batch']}: {row['who']:8} {row['median']:,.0f} images/s "
        f"({1000 * row['batch'] / row['median']:.2f} ms; {row['min']:,.0f} to {row['max']:,.0f}), first step "
        f"{row['first_step_s']:.1f} s{extra}{ratio}"
    )


def pytorch(arguments: argparse.Namespace, job: str, batch: int, *, how: str) -> Timed:
    """The same in PyTorch."""
    from benchmarks.torch_ssd import Ssd
    from fluid.weights import compact

    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.precision != "fp32"
    torch.compiler.reset()  # of two batches, the second's shape would be compiled as variable
    device = "cuda" if arguments.device == "gpu" else "cpu"
    priors = torch.from_numpy(np.load(arguments.folder / "priors.npy")).to(device)
    feed = {name: torch.from_numpy(array).to(device) for name, array in feed_of(job, batch, arguments.folder).items()}
    if job in ("train", "detect"):
        feed["image"] = torch.from_numpy(normalised(feed["image"].cpu().numpy())).to(device)
    if "image" in feed:
        feed["image"] = feed["image"].to(memory_format=torch.channels_last)

    def wait(outputs: dict[str, Any]) -> dict[str, np.ndarray]:
        return {name: value.detach().float().cpu().numpy() for name, value in outputs.items()}

    network = Ssd(compact.read(WEIGHTS)[0], CLASSES).to(device).to(memory_format=torch.channels_last)
    step = torch_step(network, job, batch, device, how, arguments.precision, priors, feed)
    return Timed(step, wait)


def torch_step(
    network: Any, job: str, batch: int, device: str, how: str, precision: str, priors: Any, feed: dict[str, Any]
) -> Callable[[], dict[str, Any]]:
    """One step of a job as a function."""
    from benchmarks import torch_ssd

    import torch

    network.train(job == "train")
    autocast = torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
    mode = "reduce-overhead" if batch == 1 and device == "cuda" else "default"

    def compiled(function: Any) -> Any:
        return torch.compile(function, mode=mode) if how == "compiled" else function

    if job == "train":
        optimizer = torch.optim.SGD(network.parameters(), 1e-3, 0.9, weight_decay=5e-5, fused=True)
        loss_of = compiled(
            lambda image, boxes, labels: torch_ssd.loss(*network(image), priors=priors, boxes=boxes, labels=labels)
        )

        def train() -> dict[str, Any]:
            with autocast:
                loss = loss_of(feed["image"], feed["boxes"], feed["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            return {"loss": loss}

        return train
    forward = compiled(network)

    def infer() -> dict[str, Any]:
        with torch.inference_mode(), autocast:
            raw = (feed["offsets"], feed["logits"]) if job == "nms" else forward(feed["image"])
        if job == "network":
            return {"loc": raw[0], "conf": raw[1]}
        with torch.inference_mode():
            return torch_ssd.detect(*raw, priors)

    return infer


def time_reader(images: int) -> dict[str, Any]:
    """Augmented training images a second of one process, from 500 x 375 JPEG files with three boxes each."""
    from object_detection import reader
    from object_detection.annotations import Collector

    import cv2

    rng = np.random.default_rng(0)
    # Each picture is decoded anew, as those of a large data set are.
    reader.KEPT_BYTES = 0
    with tempfile.TemporaryDirectory() as name:
        folder = write_photographs(Path(name), images, 375)
        collector = Collector([str(number) for number in range(CLASSES)])
        for number in range(images):
            corner = rng.uniform(0, 200, (3, 2))
            boxes = np.concatenate([corner, corner + rng.uniform(40, 150, (3, 2))], axis=1)
            rows = [{"label": int(rng.integers(CLASSES)), "name": "", "box": box.tolist()} for box in boxes]
            collector.picture(folder / "train" / f"{number}.jpg", "", (500, 375), rows)
        source = reader.DetectionSource(collector.data_set(folder), SIZE, augment=reader.Augment())
        cv2.setNumThreads(1)
        numbers = iter(range(10**9))

        def one() -> Any:
            number = next(numbers)
            return source.load(number % images, np.random.default_rng(number))

        result = measure(one, lambda sample: sample, 1, 2.0)
    print(f"reader: {result['median']:,.0f} images/s a core ({result['min']:,.0f} to {result['max']:,.0f})", flush=True)
    return {"who": "zoo", "job": "reader", "batch": 1, **result}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("capture", "time", "reader"))
    parser.add_argument("folder", type=Path, nargs="?", default=Path("graphs"))
    parser.add_argument("--jobs", type=job_of, nargs="+", default=list(JOBS), metavar="JOB:BATCH")
    parser.add_argument("--who", nargs="+", default=["zoo", "compiled"], choices=["zoo", "eager", "compiled"])
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--precision", default="bf16", choices=("bf16", "tf32", "fp32"))
    parser.add_argument("--images", type=int, default=512, help="of the reader")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one of the five rounds")
    parser.add_argument("--profile", action="store_true", help="list the kernels that take the zoo's time")
    add_json(parser)
    arguments = parser.parse_args()
    if arguments.command == "capture":
        capture(arguments.folder)
        return
    rows: list[dict[str, Any]] = []
    if arguments.command == "reader":
        rows.append(time_reader(arguments.images))
    else:
        for row in in_turn(arguments):
            rows.append(row)
            print(shown(row, rows), flush=True)
            write_json(arguments, rows)
    write_json(arguments, rows)


def job_of(text: str) -> tuple[str, int]:
    """A job and its batch, written JOB:BATCH. Raises ArgumentTypeError if there is no such job."""
    job, _, batch = text.partition(":")
    known = list(dict.fromkeys(name for name, _ in JOBS))
    if job not in known or not batch.isdecimal() or int(batch) < 1:
        raise argparse.ArgumentTypeError(f"'{text}': wanted JOB:BATCH, JOB one of {', '.join(known)}")
    return job, int(batch)


def in_turn(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of all sides as they come. Raises SystemExit if one of them fails."""
    context = multiprocessing.get_context("spawn")
    meet, turn, rows = context.Barrier(len(arguments.who)), context.Lock(), context.Queue()
    sides = [context.Process(target=side, args=(who, arguments, meet, turn, rows)) for who in arguments.who]
    for process in sides:
        process.start()
    while True:
        # Asked before the queue: what a process that has ended put there is found.
        codes = [process.exitcode for process in sides]
        try:
            yield rows.get(timeout=1)
        except queue.Empty:
            if any(codes):
                for process in sides:  # those that would wait for it
                    process.terminate()
                raise SystemExit("error: a side failed, see above") from None
            if None not in codes:
                return


def write_json(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """What is known so far."""
    packages = versions("jax", "jaxlib", "torch", "torchvision", "numpy")
    save(arguments.json, versions=packages, precision=arguments.precision, rows=rows)


if __name__ == "__main__":
    main()
