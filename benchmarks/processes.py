"""Measurements in processes of their own: a fresh one each, or one for each GPU of a host, ours and PyTorch's."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks.figures import ROOT
from fluid.commands.launch import visible_gpus

_failed: list[str] = []


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
        _failed.append(f"{function}{arguments}")
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


def run(arguments: argparse.Namespace) -> None:
    """Run the command that was given. Raises SystemExit at its end if one of its processes failed."""
    arguments.run(arguments)
    if _failed:
        raise SystemExit(f"error: not measured, see above: {', '.join(_failed)}")


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
