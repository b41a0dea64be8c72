"""Measurements in processes of their own: a fresh one each, or one for each GPU of a host, ours and PyTorch's."""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fluid.commands.launch import visible_gpus

ROOT = Path(__file__).resolve().parent.parent


def in_a_process(
    script: str, function: str, *arguments: Any, gpus: int = 1, processes: int = 1, torch: bool = False
) -> dict | None:
    """Run one of a script's measurements in a fresh process, or several; None (and its error printed) if it fails.

    They share the first `gpus` GPUs. Several processes of PyTorch are started by torchrun, ours as `zoo launch` does.
    """
    command = [sys.executable, script, "one", function, json.dumps(arguments)]
    if processes > 1:
        starter = (
            ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
            if torch
            else ["fluid.commands.launch", str(processes)]
        )
        command[1:1] = ["-m", *starter]
    shown = {"CUDA_VISIBLE_DEVICES": ",".join(visible_gpus()[:gpus])} if visible_gpus() else {}
    python_path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    result = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | shown | {"PYTHONPATH": python_path}
    )
    if result.returncode:
        print(f"{function}{arguments} failed:\n{result.stderr[-1500:]}", file=sys.stderr, flush=True)
        return None
    return json.loads(result.stdout.splitlines()[-1])


def add_one(commands: Any, functions: Mapping[str, Callable[..., dict]]) -> None:
    """Add the command by which such a process is told its measurement."""
    one = commands.add_parser("one", help="a single measurement, for the processes that the other commands start")
    one.add_argument("function", choices=list(functions))
    one.add_argument("arguments", type=json.loads)
    one.add_argument("--coordinator", help="this and the next two: what fluid.commands.launch adds")
    one.add_argument("--num_hosts", type=int)
    one.add_argument("--host_id", type=int)
    one.set_defaults(run=lambda arguments: _one(functions[arguments.function], arguments))


def _one(function: Callable[..., dict], arguments: argparse.Namespace) -> None:
    if arguments.coordinator is not None:
        from fluid.engine.xla import distributed

        distributed.start(arguments.coordinator, arguments.num_hosts, arguments.host_id)
    result = function(*arguments.arguments)
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(json.dumps(result))


def join_torchrun() -> int:
    """The number of processes that torchrun started, 0 if it did not: each has one GPU to itself, that of its number, and
    waits for the others. Call it before anything else uses PyTorch.

    A process that sees its GPU alone calls it `cuda:0`, as all others do: so what torch.compile keeps on disk, which says
    the number of the GPU, is made once for all of them.
    """
    processes = int(os.environ.get("WORLD_SIZE", "0"))
    if processes:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible_gpus()[int(os.environ["LOCAL_RANK"])]
        import torch

        torch.cuda.set_device(0)
        torch.distributed.init_process_group("nccl")
    return processes


def powers_of_two(count: int) -> list[int]:
    """1, 2, 4, ... up to `count`."""
    return [2**power for power in range(count.bit_length())]


def add_row(rows: list[dict], row: dict, file: Path | None) -> None:
    """Print a row and bring the JSON file up to date, so that an interrupted run keeps what it has."""
    rows.append(row)
    print(json.dumps(row), flush=True)
    if file is not None:
        file.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        gpus = ""
    return {"gpus": gpus, "python": platform.python_version(), "date": time.strftime("%Y-%m-%d")}
