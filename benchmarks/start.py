"""How soon infer.py answers: CPU seconds from the start of the process to its end, for one input of each task.

    python benchmarks/start.py [--tasks TASK ...] [--engines auto paddle xla] [--root CHECKOUT] --json FILE

Each case runs first with an empty cache (`cold`: what XLA runs is compiled), then three times more (`warm`, the median). All
of the process is counted, to where results are written and Python has ended; CPU seconds, user and system, of the process
and its children, because other work on the machine does not change them. `--root` measures another checkout.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT, add_json, save, versions

WARM = 3

INPUTS = {
    "image_classification": ["image_classification/data/photographs/cat.jpg"],
    "object_detection": ["object_detection/data/photographs/chelsea.jpg"],
    "ocr_recognition": ["ocr_recognition/data/signs/scenetext01_0.jpg"],
    "DeepASR": ["DeepASR/data/examples/digits/*.flac"],
    "icnet": ["object_detection/data/photographs/astronaut.jpg"],
    "neural_machine_translation": ["Where is the train station?"],
    "DeepQNetwork": ["--max_seconds", "1"],
}
"""What each is given; paths are of the checkout, and of a pattern the first file."""


def cpu_seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    """Of a process and those that it waited for. Raises RuntimeError with its words if it fails."""
    with (folder / "said").open("w+b") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(command)}:\n{said.read().decode(errors='replace')}")
    return usage.ru_utime + usage.ru_stime


def measure(root: Path, task: str, engine: str) -> dict[str, Any]:
    """A case, cold and warm."""
    words = [str(min(root.glob(word))) if "/" in word else word for word in INPUTS[task]]
    command = [sys.executable, str(root / task / "infer.py"), *words, "--device", "cpu", "--engine", engine]
    with tempfile.TemporaryDirectory() as folder:
        places = {"FLUID_ZOO_CACHE": f"{folder}/cache", "XDG_CACHE_HOME": f"{folder}/cache"}
        environment = {**os.environ, **places, "PYTHONPATH": str(root)}
        cold, *warm = (cpu_seconds(command, Path(folder), environment) for _ in range(1 + WARM))
    return {"task": task, "engine": engine, "cold": round(cold, 2), "warm": round(statistics.median(warm), 2)}


def main() -> None:
    """Measure every case, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=INPUTS, default=list(INPUTS))
    parser.add_argument("--engines", nargs="+", choices=("auto", "paddle", "xla"), default=["auto"])
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose scripts are started")
    add_json(parser)
    args = parser.parse_args()
    rows = []
    print(f"{'task':28} {'engine':8} {'cold':>6} {'warm':>6}   CPU seconds")
    for task in args.tasks:
        for engine in args.engines:
            row = measure(args.root.resolve(), task, engine)
            rows.append(row)
            print(f"{task:28} {engine:8} {row['cold']:6.2f} {row['warm']:6.2f}", flush=True)
            save(args.json, versions=versions("paddlepaddle", "jax"), runs=rows)


if __name__ == "__main__":
    main()
