"""Training of the acoustic model of 2018 beside the same sizes in PyTorch with cuDNN's projected LSTM, on one GPU.

    python benchmarks/DeepASR.py capture graph                    with Paddle: writes the Program
    python benchmarks/DeepASR.py time graph --json out.json       without: needs JAX and torch

The network is that of 2018: a convolution over 3 x 11 x 80, five layers of 1024 cells and 512 outputs with batch normalisation,
3,040 classes, Adam; batches of 64 and 128 pieces of 256 frames. PyTorch gets autocast to bfloat16, nn.LSTM(proj_size) on cuDNN (no
peepholes, no tanh on the projection, so less to compute) and fused Adam, and is timed as it is and by torch.compile. With --kernels K
the K kernels that a step of the zoo spends most time in are listed; --unroll N computes N frames in a turn of the loop.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, measure, save, versions
from benchmarks.xla_step import kernels
from DeepASR.sizes import WIDTH, Sizes

import numpy as np

BATCHES, FRAMES = (64, 128), 256


def capture(folder: Path, sizes: Sizes) -> None:
    """Write the training Program and what its state looks like."""
    from DeepASR.network import build_training
    from fluid.engine.xla import graph as graphs
    from fluid.engine.xla.capture import capture as capture_program
    from fluid.program import initialise
    from fluid.schedule import Constant

    import paddle

    program = build_training(sizes, lambda: paddle.optimizer.Adam(1e-4), Constant(1e-4))
    folder.mkdir(parents=True, exist_ok=True)
    graphs.save_graph(folder / "train.json", capture_program(program))
    shapes = {name: [list(array.shape), str(array.dtype)] for name, array in initialise(program, seed=0).items()}
    (folder / "state.json").write_text(json.dumps(shapes), encoding="utf-8")
    print(f"{folder}: {program.parameter_count:,} parameters")


def state_of(path: Path) -> dict[str, np.ndarray]:
    """Numbers of a sensible size for every variable: scales, variances and powers 1, offsets and moments 0."""
    rng, state = np.random.default_rng(0), {}
    for name, (shape, dtype) in json.loads(path.read_text(encoding="utf-8")).items():
        if "moment" in name or name.endswith((".b_0", ".w_1")) and "lstmp" not in name:
            state[name] = np.zeros(shape, dtype)
        elif len(shape) < 2 or "pow" in name:
            state[name] = np.ones(shape, dtype)
        else:
            state[name] = rng.normal(0, 0.02, shape).astype(dtype)
    return state


def batch_of(sizes: Sizes, rows: int, frames: int) -> dict[str, np.ndarray]:
    """Pieces of noise, all of them as long as the batch."""
    rng = np.random.default_rng(0)
    return {
        "feature": rng.normal(size=(rows, frames, 3, WIDTH, sizes.frame_dim)).astype(np.float32),
        "length": np.full(rows, frames),
        "label": rng.integers(0, sizes.class_num, (rows, frames)),
    }


def time_zoo(folder: Path, sizes: Sizes, rows: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """The captured Program on the xla engine."""
    from fluid.engine.xla import create
    from fluid.engine.xla import graph as graphs

    import jax

    engine = create(arguments.device, arguments.precision)
    if arguments.unroll:
        engine.tuning = replace(engine.tuning, steps_in_a_turn=arguments.unroll)
    graph = graphs.load_graph(folder / "train.json")
    engine.load(state_of(folder / "state.json"))
    feed = dict(engine.put(batch_of(sizes, rows, arguments.frames), graph))
    step = lambda: engine.run(graph, feed, 0, ["loss"])["loss"]  # noqa: E731
    measured = measure(step, np.asarray, rows * arguments.frames, arguments.seconds)
    memory = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    found = {}
    if arguments.kernels:
        found["kernels"] = kernels(lambda: np.asarray([step() for _ in range(3)][-1]), 3)[: arguments.kernels]
    return {"who": "zoo", "rows": rows, **measured, "peak_bytes": memory, **found}


def torch_step(sizes: Sizes, rows: int, arguments: argparse.Namespace, how: str) -> Callable[[], Any]:
    """An update of the same sizes in PyTorch as a function."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    device = {"gpu": "cuda", "cpu": "cpu"}[arguments.device]
    torch.compiler.reset()  # of two batches, the second's shape would be compiled as variable
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = arguments.precision != "fp32"

    class Acoustic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, sizes.filters, 3, padding=1)
            widths = [sizes.pooled, *[sizes.proj_dim] * (sizes.stacked_num - 1)]
            cells = {"hidden_size": sizes.hidden_dim, "proj_size": sizes.proj_dim, "batch_first": True}
            self.layers = nn.ModuleList(nn.LSTM(width, **cells) for width in widths)
            self.norms = nn.ModuleList(nn.BatchNorm1d(sizes.proj_dim) for _ in widths)
            self.out = nn.Linear(sizes.proj_dim, sizes.class_num)

        def forward(self, feature: Any) -> Any:
            x = F.max_pool2d(F.relu(self.convolution(feature.flatten(0, 1))), 3, 2)
            x = x.reshape(rows, -1, sizes.pooled)
            for layer, norm in zip(self.layers, self.norms):
                x = norm(layer(x)[0].transpose(1, 2)).transpose(1, 2)
            return self.out(x)

    network = Acoustic().to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=device == "cuda")
    feed = {name: torch.from_numpy(array).to(device) for name, array in batch_of(sizes, rows, arguments.frames).items()}
    forward = torch.compile(network) if how == "compiled" else network

    def step() -> Any:
        with torch.autocast(device, torch.bfloat16, enabled=arguments.precision == "bf16"):
            logits = forward(feed["feature"])
        loss = F.cross_entropy(logits.float().flatten(0, 1), feed["label"].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def main() -> None:
    """See the head of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("capture", "time"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="gpu", choices=("gpu", "cpu"))
    parser.add_argument("--precision", default="bf16", choices=("bf16", "tf32", "fp32"))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--sizes", type=int, nargs=6, default=list(vars(Sizes()).values()), help="as Sizes has them")
    parser.add_argument("--who", nargs="+", default=["zoo", "torch", "compiled"], choices=("zoo", "torch", "compiled"))
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one of the five rounds")
    parser.add_argument("--kernels", type=int, default=0, help="of the zoo: list so many that take the time")
    parser.add_argument(
        "--unroll", type=int, help="of the zoo: frames in a turn of the loop, instead of the engine's choice"
    )
    add_json(parser)
    arguments = parser.parse_args()
    sizes = Sizes(*arguments.sizes)
    if arguments.command == "capture":
        capture(arguments.folder, sizes)
        return
    time_all(arguments, sizes)


def time_all(arguments: argparse.Namespace, sizes: Sizes) -> None:
    """Print and write what every side makes of every batch."""
    facts = {
        "versions": versions("jax", "torch", "numpy"),
        "precision": arguments.precision,
        "frames": arguments.frames,
        "sizes": vars(sizes),
    }
    rows: list[dict[str, Any]] = []
    for size in arguments.batches:
        for who in arguments.who:
            if who == "zoo":
                row = time_zoo(arguments.folder, sizes, size, arguments)
            else:
                step = torch_step(sizes, size, arguments, who)
                frames = size * arguments.frames
                measured = measure(step, lambda loss: loss.detach().cpu(), frames, arguments.seconds)
                row = {"who": "torch eager" if who == "torch" else f"torch {who}", "rows": size, **measured}
            rows.append(row)
            ours = next((one["median"] for one in rows if one["rows"] == size and one["who"] == "zoo"), None)
            ratio = f", zoo is {ours / row['median']:.2f} x" if ours and who != "zoo" else ""
            if row.get("peak_bytes"):
                ratio += f", at most {row['peak_bytes'] / 2**30:.1f} GiB so far"
            print(
                f"{size} x {arguments.frames} frames: {row['who']:14} {row['median']:,.0f} frames/s "
                f"({row['min']:,.0f} to {row['max']:,.0f}), first step {row['first_step_s']:.1f} s{ratio}",
                flush=True,
            )
            save(arguments.json, **facts, rows=rows)


if __name__ == "__main__":
    main()
