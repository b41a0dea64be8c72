"""CRNN-CTC training beside the same network in PyTorch with cuDNN's recurrences, on one GPU.

    python benchmarks/ocr_recognition.py capture graphs                    with Paddle: writes the Programs
    python benchmarks/ocr_recognition.py time graphs --json out.json       without: needs JAX and torch
    python benchmarks/ocr_recognition.py cpu exported                      one word, exported: paddle.inference, ONNX Runtime

The network is that of 2018: eight convolutions with batch normalisation, two GRUs of 200 units, CTC, Momentum; batches of 128
words of 48 x 256 and 48 x 512 pixels, all as wide as the batch. PyTorch gets channels_last, autocast to bfloat16, a
bidirectional nn.GRU (cuDNN; its candidate is tanh, and the zoo's relu) and fused SGD. `crnn` is the zoo's deeper network alone.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.image_classification import machine
from benchmarks.neural_machine_translation import _version, measure

import numpy as np

HEIGHT, CHARACTERS, LENGTH = 48, 95, 12
WIDTHS, BATCH = (256, 512), 128
MODELS = ("crnn_ctc", "crnn")


def capture(folder: Path) -> None:
    """Write the training Programs and their initial values."""
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import initialise
    from fluid.schedule import Constant
    from ocr_recognition.alphabet import Alphabet
    from ocr_recognition.network import training_programs
    from ocr_recognition.recognizer import Recognizer

    import paddle

    folder.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        recognizer = Recognizer(model, Alphabet.ascii())
        momentum = lambda: paddle.optimizer.Momentum(1e-3, 0.9, weight_decay=4e-4)  # noqa: E731
        program = training_programs(recognizer, optimizer=momentum, schedule=Constant(1e-4))["train"]
        graphs.save_graph(folder / f"{model}.json", capture_program(program))
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


def time_zoo(folder: Path, model: str, width: int, device: str, precision: str, seconds: float) -> dict[str, Any]:
    """The captured Program on the xla engine."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs

    engine = create(device, precision)
    graph = graphs.load_graph(folder / f"{model}.json")
    engine.load(state_of(folder / f"{model}_state.json"))
    feed = dict(engine.put(batch_of(width), graph))
    result = measure(lambda: engine.run(graph, feed, 0, ["loss"])["loss"], np.asarray, BATCH, seconds)
    return {"who": f"zoo {model}", "width": width, **result}


def torch_step(width: int, device: str, precision: str, how: str) -> Callable[[], Any]:
    """An update of the same network in PyTorch as a function."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"

    class Crnn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            before = 1
            for group, channels in enumerate((16, 32, 64, 128)):
                for _ in range(2):
                    layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(True)]
                    before = channels
                if group < 3:
                    layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            self.columns = nn.Sequential(*layers)
            self.recurrence = nn.GRU(128 * HEIGHT // 8, 200, bidirectional=True, batch_first=True)
            self.out = nn.Linear(400, CHARACTERS + 1)

        def forward(self, pixel: Any) -> Any:
            x = self.columns((pixel.float() - 127.5).contiguous(memory_format=torch.channels_last))
            return self.out(self.recurrence(x.permute(0, 3, 1, 2).flatten(2))[0])

    network = Crnn().to(device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-4, 0.9, weight_decay=4e-4, fused=device == "cuda")
    feed = {name: torch.from_numpy(array).to(device) for name, array in batch_of(width).items()}
    frames = -(-feed["width"] // 8)
    forward = torch.compile(network) if how == "compiled" else network

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            logits = forward(feed["pixel"])
        sure = F.log_softmax(logits.float(), 2).transpose(0, 1)
        loss = F.ctc_loss(sure, feed["label"], frames, feed["label_length"], blank=CHARACTERS, reduction="sum") / BATCH
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def time_torch(width: int, device: str, precision: str, how: str, seconds: float) -> dict[str, Any]:
    """PyTorch as it is or compiled."""
    step = torch_step(width, device, precision, how)
    result = measure(step, lambda loss: loss.detach().cpu(), BATCH, seconds)
    return {"who": f"torch {how}", "width": width, **result}


def time_exported(folder: Path, seconds: float) -> list[dict[str, Any]]:
    """One word of 48 x 160 pixels on two cores: the shipped weights' network as export.py writes it."""
    from fluid.export import ONNX, ExportedModel
    from ocr_recognition import export

    import onnxruntime

    export.main(export.Flags(pretrained_model="simple", export_dir=folder, onnx=True))
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
    parser.add_argument(
        "--who", nargs="+", default=["zoo", "torch", "crnn"], choices=("zoo", "torch", "compiled", "crnn")
    )
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "capture":
        capture(arguments.folder)
        return
    if arguments.command == "cpu":
        for row in time_exported(arguments.folder, arguments.seconds):
            print(
                f"{row['who']:16} {1000 / row['median']:.2f} ms a word ({1000 / row['max']:.2f} to {1000 / row['min']:.2f})"
            )
        return
    torch_device = {"gpu": "cuda", "cpu": "cpu"}[arguments.device]
    common = (arguments.precision, arguments.seconds)
    rows = []
    for width in arguments.widths:
        for who in arguments.who:
            if who in ("zoo", "crnn"):
                model = "crnn_ctc" if who == "zoo" else who
                row = time_zoo(arguments.folder, model, width, arguments.device, *common)
            else:
                how = "eager" if who == "torch" else who
                row = time_torch(width, torch_device, arguments.precision, how, arguments.seconds)
            rows.append(row)
            ours = next((one["median"] for one in rows if one["width"] == width and one["who"] == "zoo crnn_ctc"), None)
            ratio = f", zoo is {ours / row['median']:.2f} x" if ours and who in ("torch", "compiled") else ""
            print(
                f"{HEIGHT} x {width}, {BATCH} words: {row['who']:14} {row['median']:,.0f} words/s "
                f"({row['min']:,.0f} to {row['max']:,.0f}), first step {row['first_step_s']:.1f} s{ratio}",
                flush=True,
            )
    if arguments.json is not None:
        versions = {name: _version(name) for name in ("jax", "torch", "numpy")}
        facts = {"machine": machine(), "versions": versions, "precision": arguments.precision, "batch": BATCH}
        arguments.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
