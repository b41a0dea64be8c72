"""Training and reading of words beside the same networks in PyTorch with cuDNN's recurrences, on one GPU.

    python benchmarks/ocr_recognition.py capture graphs                    with Paddle: writes the Programs
    python benchmarks/ocr_recognition.py time graphs --json out.json       without: needs JAX and torch
    python benchmarks/ocr_recognition.py cpu exported                      one word, exported: paddle.inference, ONNX Runtime

The networks are those of 2018: eight convolutions with batch normalisation, two GRUs of 200 units, then CTC, or a decoder with
attention over 12 characters; Momentum; batches of 128 words of 48 x 256 and 48 x 512 pixels, all as wide as the batch. PyTorch
gets channels_last, autocast to bfloat16, a bidirectional nn.GRU (cuDNN; its candidate is tanh, and the zoo's relu), an
nn.GRUCell as decoder and fused SGD, and is timed as it is and by torch.compile. `crnn` is the zoo's deeper network alone; `read` is
inference with greedy decoding.
"""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, measure, save, versions

import numpy as np

HEIGHT, CHARACTERS, LENGTH = 48, 95, 12
WIDTHS, BATCH = (256, 512), 128
MODELS = ("crnn_ctc", "crnn", "attention")
RUNS = ("crnn_ctc train", "attention train", "crnn_ctc read", "crnn train", "crnn read")
"""What is timed; PyTorch knows the first three."""


def capture(folder: Path) -> None:
    """Write the training Programs and their initial values."""
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import initialise
    from fluid.schedule import Constant
    from ocr_recognition.alphabet import Alphabet
    from ocr_recognition.network import inference_program, training_programs
    from ocr_recognition.recognizer import Recognizer

    import paddle

    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        recognizer = Recognizer(model, Alphabet.ascii())
        momentum = lambda: paddle.optimizer.Momentum(1e-3, 0.9, weight_decay=4e-4)  # noqa: E731
        program = training_programs(recognizer, optimizer=momentum, schedule=Constant(1e-4))["train"]
        graphs.save_graph(folder / f"{model}_train.json", capture_program(program))
        if recognizer.is_ctc:
            graphs.save_graph(folder / f"{model}_read.json", capture_program(inference_program(recognizer)))
        shapes = {name: [list(array.shape), str(array.dtype)] for name, array in initialise(program, seed=0).items()}
        (folder / f"{model}_state.json").write_text(json.dumps(shapes), encoding="utf-8")
    print(f"{folder}: {', '.join(MODELS)}")


def state_of(path: Path) -> dict[str, np.ndarray]:
    """Numbers of a sensible size for every variable: scales and variances 1, offsets and moments 0."""
    rng, state = np.random.default_rng(0), {}
    for name, (shape, dtype) in json.loads(path.read_text(encoding="utf-8")).items():
        norm = ("norm" in name and ".w_" in name and "w_1" not in name) and "velocity" not in name
        weight = len(shape) > 1 and "velocity" not in name
        fan = int(np.prod(shape[1:])) if len(shape) == 4 else (shape or [1])[0]
        random = rng.normal(0, np.sqrt(1 / fan), shape) if weight else np.full(shape, float(norm))
        state[name] = random.astype(dtype)
    return state


def batch_of(width: int, rows: int = BATCH) -> dict[str, np.ndarray]:
    """Words of noise, as wide as the batch."""
    rng = np.random.default_rng(0)
    return {
        "pixel": rng.integers(0, 256, (rows, 1, HEIGHT, width)).astype(np.uint8),
        "width": np.full(rows, width),
        "label": rng.integers(0, CHARACTERS, (rows, LENGTH)).astype(np.int32),
        "label_length": np.full(rows, LENGTH),
    }


def zoo_step(folder: Path, width: int, device: str, precision: str, run: str) -> Callable[[], Any]:
    """A captured Program on the xla engine as a function, compiled."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs

    model, what = run.split()
    engine = create(device, precision)
    graph = graphs.load_graph(folder / f"{model}_{what}.json")
    engine.load(state_of(folder / f"{model}_state.json"))
    feed = batch_of(width)
    if what == "read":
        feed = {"pixel": feed["pixel"].astype(np.float32) - np.float32(127.5), "width": feed["width"]}
    on_device = dict(engine.put(feed, graph))
    output = "loss" if what == "train" else "decoded"
    step = lambda: engine.run(graph, on_device, 0, [output])[output]  # noqa: E731
    np.asarray(step())
    return step


def torch_step(run: str, width: int, device: str, precision: str, how: str) -> Callable[[], Any]:
    """An update of the same network in PyTorch, or reading with it, as a function."""
    from benchmarks.torch_crnn import Attention, Crnn

    import torch
    import torch.nn.functional as F

    torch.compiler.reset()  # of two widths, the second would be compiled as variable
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    attention, reads = run.startswith("attention"), run.endswith("read")
    network = (Attention if attention else Crnn)(HEIGHT, CHARACTERS)
    network = network.to(device).to(memory_format=torch.channels_last).train(not reads)
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, 0.9, weight_decay=4e-4, fused=device == "cuda")
    feed = {name: torch.from_numpy(array).to(device) for name, array in batch_of(width).items()}
    pixel, label = feed["pixel"], feed["label"].long()
    # Lengths on the GPU would be waited for in every update.
    frames, lengths = -(-feed["width"].cpu() // 8), feed["label_length"].cpu()
    sign = torch.full_like(label[:, :1], CHARACTERS)
    words, targets = torch.cat([sign, label], 1), torch.cat([label, sign + 1], 1)
    forward = torch.compile(network) if how == "compiled" else network

    def outputs() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            return (forward(pixel, words) if attention else forward(pixel)).float()

    def read() -> Any:
        with torch.inference_mode():
            best = outputs().argmax(2)
            begins = torch.nn.functional.pad(best[:, 1:] != best[:, :-1], (1, 0), value=True)
            return torch.where(begins & (best != CHARACTERS), best, -1)

    def update() -> Any:
        logits = outputs()
        if attention:
            loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        else:
            sure = F.log_softmax(logits, 2).transpose(0, 1)
            loss = F.ctc_loss(sure, label, frames, lengths, blank=CHARACTERS, reduction="sum") / BATCH
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return read if reads else update


def time_exported(folder: Path, weights: str, seconds: float) -> list[dict[str, Any]]:
    """One word, 160 columns wide, on two cores: a shipped recogniser as export.py writes it."""
    from fluid.export import ONNX, ExportedModel
    from ocr_recognition import export

    import onnxruntime

    export.main(export.Flags(pretrained_model=weights, export_dir=folder, onnx=True))
    model = ExportedModel(folder)
    height = model.inputs["pixel"]["shape"][2]
    pixel = np.random.default_rng(0).uniform(-127.5, 127.5, (1, 1, height, 160)).astype(np.float32)
    feed = {"pixel": pixel, "width": np.array([160])}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(folder / ONNX), options, providers=["CPUExecutionProvider"])
    runs = {"paddle.inference": lambda: model.run(feed), "onnxruntime": lambda: session.run(None, feed)}
    return [
        {"who": who, "width": 160, **measure(run, lambda outputs: outputs, 1, seconds)} for who, run in runs.items()
    ]


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("capture", "time", "cpu"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--precision", default="bf16", choices=("bf16", "tf32", "fp32"))
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS))
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=RUNS)
    parser.add_argument("--who", nargs="+", default=["zoo", "torch", "compiled"], choices=("zoo", "torch", "compiled"))
    parser.add_argument("--weights", default="english", help="cpu: which that come along")
    parser.add_argument("--seconds", type=float, default=1.0)
    add_json(parser)
    arguments = parser.parse_args()
    if arguments.command == "capture":
        capture(arguments.folder)
        return
    if arguments.command == "cpu":
        for row in time_exported(arguments.folder, arguments.weights, arguments.seconds):
            print(
                f"{row['who']:16} {1000 / row['median']:.2f} ms a word ({1000 / row['max']:.2f} to {1000 / row['min']:.2f})"
            )
        return
    time_all(arguments)


def time_all(arguments: argparse.Namespace) -> None:
    """Print and write what every network makes; the zoo's Programs of a width are compiled side by side first."""
    facts = {"versions": versions("jax", "torch", "numpy"), "precision": arguments.precision, "batch": BATCH}
    rows: list[dict[str, Any]] = []
    zoo: dict[str, Callable[[], Any]] = {}
    for width, run in itertools.product(arguments.widths, arguments.runs):
        if "zoo" in arguments.who and run == arguments.runs[0]:
            began = time.perf_counter()
            step_of = partial(zoo_step, arguments.folder, width, arguments.device, arguments.precision)
            with ThreadPoolExecutor() as pool:
                zoo = dict(zip(arguments.runs, pool.map(step_of, arguments.runs)))
            print(f"{len(zoo)} Programs compiled in {time.perf_counter() - began:.0f} s", flush=True)
        ours = None
        for who in arguments.who:
            if who == "zoo":
                row = measure(zoo[run], np.asarray, BATCH, arguments.seconds)
                del row["first_step_s"]  # compiled already
                ours = row["median"]
            elif run.startswith("crnn "):
                continue
            else:
                device = {"gpu": "cuda", "cpu": "cpu"}[arguments.device]
                step = torch_step(run, width, device, arguments.precision, who)
                row = measure(step, lambda result: result.cpu(), BATCH, arguments.seconds)
            ratio = f", the zoo makes {ours / row['median']:.2f} x" if ours and who != "zoo" else ""
            rows.append({"run": run, "who": who, "width": width, **row})
            print(
                f"{HEIGHT} x {width}, {BATCH} words: {run:15} {who:8} {row['median']:,.0f} words/s "
                f"({row['min']:,.0f} to {row['max']:,.0f}){ratio}",
                flush=True,
            )
            save(arguments.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
