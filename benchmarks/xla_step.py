"""Time one compiled training or inference step of captured Programs; no data pipeline, no Paddle needed for timing.

    python benchmarks/xla_step.py capture graphs --models ResNet50 MobileNetV1 SE_ResNeXt50_32x4d VGG16
    python benchmarks/xla_step.py time graphs/ResNet50_train.json --batch 256 --precision bf16 [--profile]

`capture` needs Paddle and writes a few hundred kilobytes per Program (no weights: `time` fills the state with random
numbers, as neither speed nor memory depend on them). `time` prints images/s and the time to the first step, and with
`--profile` the kernels that take the time.
"""

import argparse
import collections
import dataclasses
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, add_row
from fluid.engine.xla import graph as graphs

import numpy as np


def capture(folder: Path, models: list[str], class_dim: int) -> None:
    """Write the training and evaluation Program of each model."""
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import build
    from fluid.schedule import Constant
    from image_classification.classifier import Classifier
    from image_classification.models import find_model
    from image_classification.network import evaluation_program, training_network
    from image_classification.reader import Preprocess

    import paddle

    def momentum() -> paddle.optimizer.Optimizer:
        return paddle.optimizer.Momentum(0.1, 0.9, weight_decay=paddle.regularizer.L2Decay(1e-4))

    for name in models:
        model = find_model(name)
        preprocess = Preprocess(model.image_shape, model.resize_short)
        classifier = Classifier(name, class_dim, preprocess, model.mean, model.std)
        network, inputs = training_network(classifier)
        train = build(network, inputs, name=f"{name}_train", training=True, optimizer=momentum, schedule=Constant(0.1))
        evaluate = evaluation_program(classifier)
        evaluate.name = f"{name}_eval"
        for program in (train, evaluate):
            file = folder / f"{program.name}.json"
            graphs.save_graph(file, capture_program(program))
            print(f"{file}: {file.stat().st_size // 1024} KiB")


def random_state(graph: graphs.Graph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Numbers of a sensible size for every variable: He et al. (arXiv:1502.01852) for weights, 1 for scales, 0 otherwise."""
    ones = set()
    for operation in graph.block.operations:
        if operation.name == "pd_op.batch_norm_":
            ones.update(operation.inputs[2:4])
    state = {}
    for name, number in graph.state.items():
        item = graph.types[number]
        if number in ones:
            state[name] = np.ones(item.shape, item.dtype)
        elif len(item.shape) > 1 and "velocity" not in name:
            fan = np.prod(item.shape[1:]) if len(item.shape) == 4 else item.shape[0]
            state[name] = rng.normal(0, np.sqrt(2 / fan), item.shape).astype(item.dtype)
        else:
            state[name] = np.zeros(item.shape, item.dtype)
    state.pop("learning_rate_0", None)
    return state


def random_feed(graph: graphs.Graph, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A batch of random inputs; integers below 10."""
    feed = {}
    for name, item in graph.inputs.items():
        shape = [batch if length is None else length for length in item.shape]
        whole = item.dtype.startswith(("int", "uint"))
        feed[name] = (rng.integers(0, 10, shape) if whole else rng.normal(size=shape)).astype(item.dtype)
    return feed


def measure(
    file: Path,
    batch: int,
    precision: str,
    steps: int,
    rounds: int,
    device: str,
    profile: bool,
    tuning: list[str],
    statistics_batch: int | None = None,
) -> dict:
    """Images per second of `steps` steps, median and spread over `rounds`, and seconds from start to the first result."""
    started = time.perf_counter()
    from fluid.engine.xla import create

    import jax

    graph = graphs.load_graph(file)
    if statistics_batch is not None:
        graph = dataclasses.replace(graph, statistics_batch=statistics_batch)
    rng = np.random.default_rng(0)
    engine = create(device, precision)
    choices = {name: int(value) for name, value in (item.split("=") for item in tuning)}
    engine.tuning = dataclasses.replace(engine.tuning, **choices)
    engine.load(random_state(graph, rng))
    feed = random_feed(graph, batch, rng)

    def run(count: int, first: int) -> float:
        start = time.perf_counter()
        for step in range(first, first + count):
            result = engine.run(graph, feed, step)
        jax.block_until_ready(result)
        return time.perf_counter() - start

    run(1, 0)
    first_step = time.perf_counter() - started
    feed = engine.put(feed, graph)
    run(max(steps // 4, 2), 1)
    speeds = [steps * batch / run(steps, 100 + steps * index) for index in range(rounds)]
    report = {
        "program": graph.name,
        "device": engine.device,
        "jax": jax.__version__,
        "precision": precision,
        "batch": batch,
        "tuning": choices,
        "statistics_batch": graph.statistics_batch,
        "steps": steps,
        "images_per_second": round(statistics.median(speeds), 1),
        "spread": [round(min(speeds), 1), round(max(speeds), 1)],
        "milliseconds_per_step": round(1000 * batch / statistics.median(speeds), 2),
        "first_step_seconds": round(first_step, 1),
    }
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        report["peak_gib"] = round(stats["peak_bytes_in_use"] / 2**30, 2)
    if profile:
        print_kernels(lambda: run(5, 1000), 5)
    return report


def kernels(run: Callable[[], object], steps: int) -> list[dict[str, Any]]:
    """What a GPU does while `run` makes so many steps and waits for them: times and milliseconds a step of each kernel, the
    longest first."""
    import jax

    total: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        for file in Path(folder).rglob("*.xplane.pb"):
            for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
                for line in plane.lines if "/device:GPU" in plane.name else ():
                    if line.name.startswith("Stream"):
                        for event in line.events:
                            total[event.name].append(event.duration_ns / 1e6)
    rows = [{"kernel": name, "times": len(found) / steps, "ms": sum(found) / steps} for name, found in total.items()]
    return sorted(rows, key=lambda row: -row["ms"])


def print_kernels(run: Callable[[], object], steps: int, count: int = 40) -> None:
    """Print the `count` kernels that take the most time, and the sums of all by kind; milliseconds a step."""
    rows = kernels(run, steps)
    kinds: collections.Counter[str] = collections.Counter()
    for row in rows:
        kinds[re.sub(r"[_.]*\d+", "", row["kernel"])[:60]] += row["ms"]
    print(f"device time {sum(kinds.values()):.2f} ms per step; by kind:")
    for name, milliseconds in kinds.most_common(25):
        print(f"{milliseconds:9.3f} ms  {name}")
    print("by kernel:")
    for row in rows[:count]:
        print(f"{row['ms']:9.3f} ms  {row['times']:6.1f} x  {row['kernel'][:110]}")


def main() -> None:
    """Parse the command line and run one of the two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    capturing = commands.add_parser("capture", help="write captured Programs")
    capturing.add_argument("folder", type=Path)
    capturing.add_argument("--models", nargs="+", default=["ResNet50"])
    capturing.add_argument("--class_dim", type=int, default=1000)
    timing = commands.add_parser("time", help="time captured Programs")
    timing.add_argument("files", type=Path, nargs="+")
    timing.add_argument("--batch", type=int, default=256)
    timing.add_argument("--precision", nargs="+", default=["bf16"], choices=("bf16", "tf32", "fp32"))
    timing.add_argument("--steps", type=int, default=30)
    timing.add_argument("--rounds", type=int, default=3)
    timing.add_argument("--device", default="auto")
    timing.add_argument("--profile", action="store_true", help="list the kernels that take the time")
    timing.add_argument(
        "--tune",
        nargs="*",
        default=[],
        metavar="FIELD=VALUE",
        help="fields of fluid/engine/xla/tuning.py: numbers, 0 or 1 for no and yes",
    )
    timing.add_argument("--statistics_batch", type=int, help="images that share batch statistics; by default the batch")
    add_json(timing)
    arguments = parser.parse_args()
    if arguments.command == "capture":
        capture(arguments.folder, arguments.models, arguments.class_dim)
        return
    rows: list[dict] = []
    for file in arguments.files:
        for precision in arguments.precision:
            report = measure(
                file,
                arguments.batch,
                precision,
                arguments.steps,
                arguments.rounds,
                arguments.device,
                arguments.profile,
                arguments.tune,
                arguments.statistics_batch,
            )
            add_row(rows, report, arguments.json)


if __name__ == "__main__":
    main()
