"""ICNet beside the same network in PyTorch on one GPU: labels of 1024 x 2048 images, and training on crops of 720 x 720.

    python benchmarks/icnet.py capture graphs                       with Paddle: writes the Programs
    python benchmarks/icnet.py gpu graphs --json out.json           without: needs JAX and torch
    python benchmarks/icnet.py cpu exported --json out.json         an exported model beside its ONNX form, on a CPU

Images are uint8 and so are labels: normalisation, enlargement to full size and argmax are part of the work. Both classify
features before they enlarge them, by a factor of two, which is the same and less work. PyTorch gets what makes it fast:
channels_last, autocast to bfloat16, fused SGD, torch.compile, and CUDA graphs for a single image. Each
measurement is a process of its own. `from host` is the time from an array in the host's memory to its labels there.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, save
from benchmarks.processes import add_one, in_a_process, run
from benchmarks.xla_step import random_state

import numpy as np

SIZE, CROP, CLASSES = (1024, 2048), (720, 720), 19
JOBS = (("train", 16), ("infer", 8), ("infer", 1))
ROUNDS = 3


def capture(folder: Path) -> None:
    """Write the Programs."""
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import build
    from fluid.schedule import Constant
    from icnet.network import inference_program, training_network
    from icnet.segmenter import Segmenter

    import paddle

    def momentum() -> paddle.optimizer.Optimizer:
        return paddle.optimizer.Momentum(0.003, 0.9, weight_decay=paddle.regularizer.L2Decay(1e-4))

    network, inputs = training_network(Segmenter(), CROP)
    programs = {
        "train": build(network, inputs, name="train", training=True, optimizer=momentum, schedule=Constant(0.003)),
        "infer": inference_program(Segmenter(), SIZE, ["labels"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, program in programs.items():
        graphs.save_graph(folder / f"{name}.json", capture_program(program))


def feed_of(job: str, batch: int) -> dict[str, np.ndarray]:
    """A batch of noise."""
    rng = np.random.default_rng(0)
    size = CROP if job == "train" else SIZE
    feed = {"image": rng.integers(0, 256, (batch, *size, 3)).astype(np.uint8)}
    return feed | ({"label": rng.integers(0, CLASSES, (batch, *size)).astype(np.uint8)} if job == "train" else {})


def measure(step: Callable[[], Any], wait: Callable[[Any], Any], batch: int, steps: int, each: bool) -> list[float]:
    """Images per second of `steps` steps, several times; with `each` every step is waited for."""

    def run(count: int) -> float:
        began, result = time.perf_counter(), None
        for _ in range(count):
            # What the last step gave is dropped first, so that its memory can be used again.
            result = None
            result = step()
            if each:
                wait(result)
        wait(result)
        return time.perf_counter() - began

    run(max(3, steps // 3))
    return [steps * batch / run(steps) for _ in range(ROUNDS)]


def percentiles(call: Callable[[], np.ndarray], count: int = 300) -> dict[str, float]:
    """Milliseconds of single calls, after 20 others."""
    times = []
    for _ in range(count + 20):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return {f"p{share}": float(np.percentile(times[20:], share)) for share in (50, 99)}


def measure_zoo(job: str, batch: int, graph_folder: str) -> dict[str, Any]:
    """Our Program."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs

    import jax

    graph = graphs.load_graph(Path(graph_folder) / f"{job}.json")
    engine = create("gpu", "bf16")
    engine.load(random_state(graph, np.random.default_rng(0)))
    feed = feed_of(job, batch)
    put = engine.put(feed, graph)
    began = time.perf_counter()
    jax.block_until_ready(engine.run(graph, put, 0))
    first = time.perf_counter() - began
    steps = {"train": 30, "infer": 60 if batch > 1 else 300}[job]
    speeds = measure(lambda: engine.run(graph, put, 0), jax.block_until_ready, batch, steps, batch == 1)
    result: dict[str, Any] = {"images_per_second": speeds, "first_step_seconds": first, "version": jax.__version__}
    if batch == 1:
        result["from_host_ms"] = percentiles(lambda: np.asarray(engine.run(graph, feed, 0)["labels"]))
    return result


def measure_torch(job: str, batch: int, how: str) -> dict[str, Any]:
    """The same network in PyTorch."""
    from benchmarks.torch_icnet import Icnet

    import torch

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    network = Icnet(CLASSES).cuda().to(memory_format=torch.channels_last).train(job == "train")
    mode = "reduce-overhead" if (job, batch) == ("infer", 1) else "default"
    forward = torch.compile(network, mode=mode) if how == "compiled" else network
    arrays = {name: torch.from_numpy(array) for name, array in feed_of(job, batch).items()}
    feed = {name: array.cuda() for name, array in arrays.items()}
    optimizer = torch.optim.SGD(network.parameters(), lr=0.003, momentum=0.9, weight_decay=1e-4, fused=True)

    def train() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = forward(feed["image"], feed["label"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer(image: Any = None) -> Any:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            return forward(feed["image"] if image is None else image)

    began = time.perf_counter()
    step = train if job == "train" else infer
    step()
    torch.cuda.synchronize()
    first = time.perf_counter() - began
    steps = {"train": 30, "infer": 60 if batch > 1 else 300}[job]
    speeds = measure(step, lambda result: torch.cuda.synchronize(), batch, steps, batch == 1)
    result: dict[str, Any] = {"images_per_second": speeds, "first_step_seconds": first, "version": torch.__version__}
    if batch == 1:
        pinned = arrays["image"].pin_memory()
        result["from_host_ms"] = percentiles(lambda: infer(pinned.cuda(non_blocking=True)).cpu().numpy())
    return result


def gpu(graphs: Path, json_file: Path | None, jobs: list[str]) -> None:
    """All jobs, the two sides in turn."""
    rows: list[dict[str, Any]] = []
    for job, batch in JOBS:
        if f"{job}{batch}" not in jobs:
            continue
        sides = {
            "zoo": in_a_process(__file__, "measure_zoo", job, batch, str(graphs)),
            "torch compiled": in_a_process(__file__, "measure_torch", job, batch, "compiled"),
            "torch eager": in_a_process(__file__, "measure_torch", job, batch, "eager"),
        }
        rows.append({"job": job, "batch": batch, "precision": "bf16", "sides": sides})
        medians = {name: statistics.median(side["images_per_second"]) for name, side in sides.items() if side}
        shown = ", ".join(f"{name} {value:.0f}/s ({1000 * batch / value:.3f} ms)" for name, value in medians.items())
        hosts = {name: side["from_host_ms"] for name, side in sides.items() if side and "from_host_ms" in side}
        print(f"{job} batch {batch}: {shown}{f', from host {hosts}' if hosts else ''}", flush=True)
        save(json_file, rows=rows)


def cpu(folder: Path, json_file: Path | None) -> None:
    """An exported model run by Paddle, and its model.onnx by ONNX Runtime, on as many threads."""
    from fluid import CPU_THREADS
    from fluid.export import ONNX, ExportedModel

    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CPU_THREADS
    session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    model = ExportedModel(folder)
    image = np.random.default_rng(0).integers(0, 256, (1, *model.inputs["image"]["shape"][1:])).astype(np.uint8)
    sides = {
        "paddle.inference": lambda: model.run({"image": image}),
        "onnxruntime": lambda: session.run(None, {"image": image}),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(6):
        for name, call in sides.items():
            began = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    ratio = medians["onnxruntime"] / medians["paddle.inference"]
    print(f"{medians} seconds an image; onnxruntime takes {ratio:.2f} times as long")
    save(json_file, size=image.shape, seconds=seconds, ratio=ratio)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    functions: dict[str, Callable[[argparse.Namespace], None]] = {
        "capture": lambda arguments: capture(arguments.folder),
        "gpu": lambda arguments: gpu(arguments.folder, arguments.json, arguments.jobs),
        "cpu": lambda arguments: cpu(arguments.folder, arguments.json),
    }
    for name, function in functions.items():
        command = commands.add_parser(name)
        command.set_defaults(run=function)
        command.add_argument("folder", type=Path)
        if name == "gpu":
            jobs = [f"{job}{batch}" for job, batch in JOBS]
            command.add_argument("--jobs", nargs="+", default=jobs, choices=jobs)
        if name != "capture":
            add_json(command)
    add_one(commands, {"measure_zoo": measure_zoo, "measure_torch": measure_torch})
    run(parser.parse_args())


if __name__ == "__main__":
    main()
