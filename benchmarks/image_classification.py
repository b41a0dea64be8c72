"""The zoo's classifiers beside PyTorch's, in turn on one machine; prints a table and writes JSON.

    python benchmarks/xla_step.py capture graphs --models ResNet50 MobileNetV1 SE_ResNeXt50_32x4d VGG16   (where Paddle is)
    python benchmarks/image_classification.py gpu --graphs graphs --json benchmarks/results/FILE.json     (torch, timm, jax)
    python benchmarks/image_classification.py scale --graphs graphs     1, 2, 4, ... GPUs of one host, beside PyTorch's DDP
    python benchmarks/image_classification.py files --graphs graphs     the whole way from JPEG files, on the GPU
    python benchmarks/image_classification.py cpu --json FILE.json      exported ResNet50 beside the plain executor

On the GPU every measurement is a process of its own, the zoo's and PyTorch's one after the other. PyTorch gets what makes
it fast: channels_last, autocast to bfloat16, fused SGD, cuDNN autotuning, torch.compile; batches of one in inference are
compiled with CUDA graphs (`reduce-overhead`). The zoo's step includes the normalisation of its uint8 images. On several GPUs
PyTorch has a process each (DistributedDataParallel), with SyncBatchNorm where batch statistics are those of the whole batch.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT, add_json, add_row, save
from benchmarks.processes import add_one, in_a_process, join_torchrun, powers_of_two, run
from fluid.commands.launch import visible_gpus

# Ours -> the same network in timm.
PEERS = {
    "ResNet50": "resnet50",
    "MobileNetV1": "mobilenetv1_100",
    "SE_ResNeXt50_32x4d": "seresnext50_32x4d",
    "VGG16": "vgg16",
}
TRAIN = [(model, 256, "bf16", ("eager", "compiled")) for model in PEERS] + [("ResNet50", 256, "tf32", ("compiled",))]
INFER = [(model, batch) for batch in (1, 256) for model in PEERS]


def measure_torch(
    model: str,
    batch: int,
    precision: str,
    how: str,
    training: bool,
    steps: int,
    rounds: int,
    synchronised: bool = False,
) -> dict:
    """Images per second of a timm model: median and spread over `rounds` of `steps` steps.

    Where torchrun started one process a GPU, `batch` is that of one of them and the images of all are counted.
    """
    processes = join_torchrun()
    import timm
    import torch

    began = time.perf_counter()
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    network = timm.create_model(PEERS[model], num_classes=1000).cuda().to(memory_format=torch.channels_last)
    network.train(training)
    if synchronised:
        network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(network)
    step = torch_step(network, batch, precision, how, training, distributed=processes > 0)

    def run(count: int) -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        return time.perf_counter() - start

    run(1)
    first = time.perf_counter() - began
    run(max(steps // 2, 5))
    speeds = [max(processes, 1) * steps * batch / run(steps) for _ in range(rounds)]
    if processes:
        torch.distributed.destroy_process_group()
    return {"images_per_second": speeds, "first_step_seconds": round(first, 1), "version": torch.__version__}


def torch_step(
    network: Any, batch: int, precision: str, how: str, training: bool, *, distributed: bool
) -> Callable[[], None]:
    """A step of training, or of inference, on random images."""
    import torch

    images = torch.randn(batch, 3, 224, 224, device="cuda").to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,), device="cuda")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, fused=True)
    loss_function = torch.nn.CrossEntropyLoss()
    if distributed:
        network = torch.nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    mode = "reduce-overhead" if not training and batch == 1 else "default"
    forward = torch.compile(network, mode=mode) if how == "compiled" else network

    def train_step() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_function(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer_step() -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            forward(images)

    return train_step if training else infer_step


def measure_zoo(
    file: Path, batch: int, precision: str, steps: int, rounds: int, statistics_batch: int | None = None
) -> dict:
    """Images per second of a captured Program, likewise; `batch` is that of all processes together."""
    from benchmarks.xla_step import random_feed, random_state
    from fluid.engine.xla import create, distributed
    from fluid.engine.xla import graph as graphs

    import jax
    import numpy as np

    began = time.perf_counter()
    graph = dataclasses.replace(graphs.load_graph(file), statistics_batch=statistics_batch)
    rng = np.random.default_rng(0)
    engine = create("gpu", precision)
    engine.load(random_state(graph, rng))
    feed = random_feed(graph, batch // distributed.num_hosts(), rng)

    def run(count: int) -> float:
        start = time.perf_counter()
        for step in range(count):
            # Like torch's CUDA graphs, ours run fastest if their results go where the last ones were.
            outputs = None
            outputs = engine.run(graph, feed, step)
        jax.block_until_ready(outputs)
        return time.perf_counter() - start

    run(1)
    first = time.perf_counter() - began
    feed = engine.put(feed, graph)
    run(max(steps // 2, 5))
    speeds = [steps * batch / run(steps) for _ in range(rounds)]
    return {"images_per_second": speeds, "first_step_seconds": round(first, 1), "version": f"jax {jax.__version__}"}


def gpu(arguments: argparse.Namespace) -> None:
    """Training and inference, the zoo and PyTorch in turn."""
    rows: list[dict] = []
    for model, batch, precision, ways in TRAIN:
        if model not in arguments.models or not {"train", precision} & set(arguments.jobs):
            continue
        file = str(arguments.graphs / f"{model}_train.json")
        ours = in_a_process(__file__, "measure_zoo", file, batch, precision, 30, 3)
        peers = {
            how: in_a_process(__file__, "measure_torch", model, batch, precision, how, True, 20, 3) for how in ways
        }
        add_row(rows, compare("train", model, batch, precision, ours, peers), arguments.json)
    for model, batch in INFER:
        if model not in arguments.models or "infer" not in arguments.jobs:
            continue
        file = str(arguments.graphs / f"{model}_eval.json")
        steps = 300 if batch == 1 else 50
        ours = in_a_process(__file__, "measure_zoo", file, batch, "bf16", steps, 3)
        peers = {"compiled": in_a_process(__file__, "measure_torch", model, batch, "bf16", "compiled", False, steps, 3)}
        add_row(rows, compare("infer", model, batch, "bf16", ours, peers), arguments.json)


def scale(arguments: argparse.Namespace) -> None:
    """ResNet-50 training on 1, 2, 4, ... GPUs: statistics of the whole batch and of every GPU's images, in one process and
    in one for each GPU."""
    rows: list[dict] = []
    alone: dict[str, float] = {}
    file, each = str(arguments.graphs / "ResNet50_train.json"), arguments.batch
    for gpus in powers_of_two(len(visible_gpus())):
        for group in sorted({each * gpus, each}, reverse=True):
            whole = group == each * gpus
            zoo = ("measure_zoo", file, each * gpus, "bf16", 30, 3, None if whole else group)
            torch = ("measure_torch", "ResNet50", each, "bf16", "compiled", True, 20, 3, group > each)
            peers = {}
            if arguments.peer:
                peers["compiled"] = in_a_process(__file__, *torch, gpus=gpus, processes=gpus, torch=True)
            for processes in sorted({1, gpus}):
                ours = in_a_process(__file__, *zoo, gpus=gpus, processes=processes)
                row = compare("train", "ResNet50", each * gpus, "bf16", ours, peers)
                row |= {"gpus": gpus, "processes": processes, "statistics_batch": group}
                for side in {"zoo", "torch compiled"} & row.keys():
                    speed = row[side]["images_per_second"]
                    row[side]["efficiency"] = round(speed / gpus / alone.setdefault(side, speed), 3)
                add_row(rows, row, arguments.json)


def compare(job: str, model: str, batch: int, precision: str, ours: Any, peers: dict) -> dict:
    """A row of the table: medians and spreads of what was measured, and the ratio of ours to torch.compile."""
    row: dict[str, Any] = {"job": job, "model": model, "batch": batch, "precision": precision}
    for name, result in (("zoo", ours), *((f"torch {how}", result) for how, result in peers.items())):
        if result is not None:
            speeds = result["images_per_second"]
            row[name] = {
                "images_per_second": round(statistics.median(speeds), 1),
                "spread": [round(min(speeds), 1), round(max(speeds), 1)],
                "first_step_seconds": result["first_step_seconds"],
                "version": result["version"],
            }
    if ours is not None and peers.get("compiled") is not None:
        row["ratio"] = round(row["zoo"]["images_per_second"] / row["torch compiled"]["images_per_second"], 3)
    return row


def cpu(arguments: argparse.Namespace) -> None:
    """ResNet50 at batch 8: Paddle's executor, the exported model, and PyTorch where --torch_python names one."""
    import tempfile

    from fluid import engine as engines
    from fluid.export import ExportedModel, export
    from fluid.program import initialise
    from image_classification.classifier import Classifier
    from image_classification.models import find_model
    from image_classification.network import inference_program
    from image_classification.reader import Preprocess

    import numpy as np

    model = find_model("ResNet50")
    classifier = Classifier("ResNet50", 1000, Preprocess(), model.mean, model.std)
    program = inference_program(classifier)
    state = initialise(program, seed=0)
    engine, _ = engines.create("paddle", "cpu")
    engine.load(state)
    feed = {"image": np.random.default_rng(0).normal(size=(8, 3, 224, 224)).astype(np.float32)}
    speeds = {"executor": rate(lambda: engine.run(program, feed), 8)}
    with tempfile.TemporaryDirectory() as folder:
        exported = ExportedModel(export(program, state, Path(folder) / "model", facts={}))
        speeds["exported"] = rate(lambda: exported.run(feed), 8)
    ratios = {"exported / executor": round(speeds["exported"] / speeds["executor"], 2)}
    if arguments.torch_python is not None:
        command = [arguments.torch_python, str(ROOT / "benchmarks" / "torch_cpu.py")]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        speeds["torch"] = json.loads(result.stdout)["images_per_second"]
        ratios["exported / torch"] = round(speeds["exported"] / speeds["torch"], 2)
    print(json.dumps(ratios))
    save(arguments.json, ratios=ratios)


def files(arguments: argparse.Namespace) -> None:
    """ResNet-50 training from 500 x 375 JPEG files: the step alone, the reader alone, and both together."""
    import tempfile

    from benchmarks.reader import EVERYTHING
    from benchmarks.xla_step import random_state
    from fluid.data import training_batches
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs
    from fluid.trainer import benchmark
    from image_classification.augment import Augment
    from image_classification.reader import ImageSource, Preprocess, open_images

    import numpy as np

    graph = graphs.load_graph(arguments.graphs / "ResNet50_train.json")
    engine = create(arguments.device, "bf16" if arguments.device == "gpu" else "fp32")
    engine.load(random_state(graph, np.random.default_rng(0)))
    rows: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        data = {short: write_photographs(Path(folder) / str(short), arguments.images, short) for short in (375, 256)}
        for short, augment in ((375, Augment()), (375, EVERYTHING), (256, Augment()), (256, EVERYTHING)):
            source = ImageSource(open_images(data[short], "train", 1000), Preprocess(), augment)

            def open_batches(start: int, source: ImageSource = source) -> Any:
                return training_batches(source, arguments.batch, seed=0, start=start, num_workers=arguments.workers)

            result = benchmark(NoRecords(), engine, graph, open_batches, steps=arguments.steps)
            what = {"short_side": short, "every_augmentation": augment is EVERYTHING, "workers": arguments.workers}
            row = what | {name: round(value, 3) for name, value in result.items()}
            add_row(rows, row, arguments.json)


class NoRecords:
    """Stands in for a run's records."""

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Nothing."""


def write_photographs(folder: Path, count: int, short: int) -> Path:
    """A data set of JPEG files made of the photographs that come along, 4 : 3, with the given short side."""
    from image_classification.reader import EMBEDDED

    from PIL import Image

    (folder / "train").mkdir(parents=True)
    contents = []
    for path in sorted((EMBEDDED / "photographs").glob("*.jpg")):
        with Image.open(path) as image:
            image.convert("RGB").resize((short * 4 // 3, short)).save(folder / "one.jpg", quality=90)
        contents.append((folder / "one.jpg").read_bytes())
    for index in range(count):
        (folder / "train" / f"{index}.jpg").write_bytes(contents[index % len(contents)])
    lines = [f"train/{index}.jpg {index % 1000}\n" for index in range(count)]
    (folder / "train_list.txt").write_text("".join(lines))
    return folder


def rate(function: Callable[[], Any], batch: int, rounds: int = 7) -> float:
    """Images per second: the median of several calls, after two to warm up."""
    seconds = []
    for index in range(rounds + 2):
        start = time.perf_counter()
        function()
        if index > 1:
            seconds.append(time.perf_counter() - start)
    return batch / statistics.median(seconds)


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    on_gpu = commands.add_parser("gpu")
    on_gpu.add_argument("--graphs", type=Path, required=True, help="folder written by xla_step.py capture")
    on_gpu.add_argument("--jobs", nargs="+", default=["train", "infer"], choices=("train", "infer", "bf16", "tf32"))
    on_gpu.add_argument("--models", nargs="+", default=list(PEERS), choices=list(PEERS))
    on_gpus = commands.add_parser("scale")
    on_gpus.add_argument("--graphs", type=Path, required=True, help="folder written by xla_step.py capture")
    on_gpus.add_argument("--batch", type=int, default=256, help="images a GPU")
    on_gpus.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="measure PyTorch too")
    on_cpu = commands.add_parser("cpu")
    on_cpu.add_argument("--torch_python", help="interpreter of an environment with torch (pip install torch==2.13.0)")
    from_files = commands.add_parser("files")
    from_files.add_argument("--graphs", type=Path, required=True, help="folder written by xla_step.py capture")
    from_files.add_argument("--workers", type=int, default=15)
    from_files.add_argument("--images", type=int, default=8192)
    from_files.add_argument("--batch", type=int, default=256)
    from_files.add_argument("--steps", type=int, default=60)
    from_files.add_argument("--device", default="gpu")
    for command, function in ((on_gpu, gpu), (on_gpus, scale), (on_cpu, cpu), (from_files, files)):
        add_json(command)
        command.set_defaults(run=function)
    add_one(commands, {"measure_zoo": measure_zoo, "measure_torch": measure_torch})
    run(parser.parse_args())


if __name__ == "__main__":
    main()
