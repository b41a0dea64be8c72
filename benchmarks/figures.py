"""What the benchmarks share: rates taken in rounds, and result files that say what was measured, how, where and when."""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid import files

ROOT = Path(__file__).resolve().parent.parent
STEPS = 50
"""Steps of a round where several processes wait for each other and so must agree on the number."""


def measure(
    step: Callable[[], Any],
    wait: Callable[[Any], Any],
    per_step: float,
    seconds: float,
    rounds: int = 5,
    processes: int = 1,
) -> dict[str, Any]:
    """Units a second (a step is `per_step` of them): median, min and max of `rounds` of about `seconds` each after warming up.

    Several processes take STEPS a round. `wait` returns when a step's result is there. `first_step_s` is in seconds.
    """
    began = time.perf_counter()
    wait(step())
    first = time.perf_counter() - began
    wait(step())
    began = time.perf_counter()
    wait(step())
    count = max(1, round(seconds / max(time.perf_counter() - began, 1e-4))) if processes == 1 else STEPS
    rates = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(count):
            # What is kept lies where the next results could go: XLA would have to change its CUDA graphs.
            result = None
            result = step()
        wait(result)
        rates.append(per_step * count / (time.perf_counter() - began))
    return {
        "median": statistics.median(rates), "min": min(rates), "max": max(rates), "steps": count * rounds, "first_step_s": first
    }  # fmt: skip


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json FILE`, refused before anything is measured where it could not be written."""
    parser.add_argument("--json", type=_writable, metavar="FILE", help="write the results there, too")


def _writable(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{name} is a folder")
    try:
        files.check_writable(path.parent)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{name}: cannot be written ({error.strerror})") from None
    return path


def save(file: Path | None, **content: Any) -> None:
    """Write a result file, whole or not at all: its content, the command and the machine. Nothing is done without a file."""
    if file is not None:
        command = shlex.join(["python", os.path.relpath(sys.argv[0], ROOT), *sys.argv[1:]])
        with files.whole(file) as unfinished:
            text = json.dumps({"command": command, "machine": machine(), **content}, indent=1) + "\n"
            unfinished.write_text(text, encoding="utf-8")


def add_row(rows: list[dict], row: dict, file: Path | None) -> None:
    """Print a row and bring the result file up to date, so that an interrupted run keeps what it has."""
    rows.append(row)
    print(json.dumps(row), flush=True)
    save(file, rows=rows)


@functools.cache
def machine() -> dict[str, Any]:
    """What is measured on, and the day."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    except OSError:
        gpus = ""
    return {
        "gpus": gpus,
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Name of the processor as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
