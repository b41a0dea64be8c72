"""Every GPU row of the README's tables measured anew on this box: each benchmark on a GPU of its own, then those that take all GPUs.

    ./zoo benchmark all --results DIR                                          with Paddle
    python benchmarks/all.py --graphs graphs --only_capture                    with Paddle: the Programs, for a box without
    python benchmarks/all.py --graphs graphs --results DIR [--only NAME ...] [--minutes M]

A job writes DIR/NAME.json, as its benchmark does alone, and DIR/NAME.log; DIR/jobs.json says by which commands, when and in what
time. A job whose JSON is there is not run again, one that failed or was cut off is. A new figure comes into the README
when results/speed.json or results/scaling.json names its file (`benchmarks/table.py`). Jobs on GPUs beside each other share the
host's cores: where launches decide (batches of one), `--only` on a quiet host is more exact.
"""

import argparse
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT
from fluid import files
from fluid.commands.launch import visible_gpus


@dataclass(frozen=True)
class Job:
    """A benchmark: what writes its Programs into {graphs}, and what measures them into {json}."""

    name: str
    capture: str
    measure: str
    all_gpus: bool = False
    """Whether it takes all GPUs of the box, and not one."""


CLASSIFIERS = ("ResNet50", "MobileNetV1", "SE_ResNeXt50_32x4d", "VGG16")
TIMED = ("object_detection", "ocr_recognition", "DeepASR")
PLAN = (
    *(
        Job(
            f"Transformer_{size}",
            f"benchmarks/neural_machine_translation.py capture {{graphs}} --models {size}",
            f"benchmarks/neural_machine_translation.py time {{graphs}} --models {size} --who zoo compiled --json {{json}}",
        )
        for size in ("big", "base")
    ),
    *(
        Job(
            name,
            f"benchmarks/xla_step.py capture {{graphs}} --models {name}",
            f"benchmarks/image_classification.py gpu --graphs {{graphs}} --models {name} --json {{json}}",
        )
        for name in CLASSIFIERS
    ),
    *(
        Job(name, f"benchmarks/{name}.py capture {{graphs}}", f"benchmarks/{name}.py time {{graphs}} --json {{json}}")
        for name in TIMED
    ),
    Job("icnet", "benchmarks/icnet.py capture {graphs}", "benchmarks/icnet.py gpu {graphs} --json {json}"),
    Job(
        "DeepQNetwork",
        "benchmarks/DeepQNetwork.py capture --target {graphs}",
        "benchmarks/DeepQNetwork.py compare --graphs {graphs} --json {json}",
    ),
    Job(
        "scaling",
        "benchmarks/scaling.py --graphs {graphs} --only_capture",
        "benchmarks/scaling.py --graphs {graphs} --json {json}",
        all_gpus=True,
    ),
)
"""The longest first."""


@dataclass
class Outcome:
    """What became of a job."""

    name: str
    said: str
    """measured, there already, failed, or not begun."""
    command: str
    date: str = ""
    seconds: float = 0.0
    gpus: str = ""


def capture(jobs: Sequence[Job], graphs: Path) -> None:
    """Write the Programs that are not there, each folder whole or not at all.

    Raises SystemExit where Paddle is missing or a capture fails.
    """
    for job in jobs:
        target, partial = graphs / job.name, graphs / f"{job.name}.partial"
        if target.exists():
            continue
        if importlib.util.find_spec("paddle") is None:
            raise SystemExit(
                f"error: {target} is not there, and without Paddle it cannot be made; run benchmarks/all.py --graphs {graphs} "
                "--only_capture where Paddle is, and bring the folder here"
            )
        if partial.exists():  # a capture that was cut off; some refuse to write into what is there
            shutil.rmtree(partial)
        print(f"{job.name}: writing its Programs", flush=True)
        if subprocess.run(_command(job.capture, graphs=partial), cwd=ROOT).returncode:
            raise SystemExit(f"error: the Programs of {job.name} could not be written, see above")
        partial.rename(target)


def measure(
    jobs: Sequence[Job], gpus: Sequence[str], graphs: Path, results: Path, minutes: float | None = None
) -> Iterator[Outcome]:
    """Run the jobs, one a GPU at a time, and then those that take all GPUs; none begins after `minutes`."""
    until = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    free: SimpleQueue[str] = SimpleQueue()
    for gpu in gpus:
        free.put(gpu)

    def on_one(job: Job) -> Outcome:
        gpu = free.get()
        try:
            return run(job, [gpu], graphs, results, until)
        finally:
            free.put(gpu)

    pool = ThreadPoolExecutor(len(gpus))
    try:
        # As they end: what is not yet told is not recorded, should the run be cut off.
        for ended in as_completed([pool.submit(on_one, job) for job in jobs if not job.all_gpus]):
            yield ended.result()
    finally:
        pool.shutdown(cancel_futures=True)
    for job in jobs:
        if job.all_gpus:
            yield run(job, gpus, graphs, results, until)


def run(job: Job, gpus: Sequence[str], graphs: Path, results: Path, until: float) -> Outcome:
    """Run a job on these GPUs, unless its file is there or it is too late."""
    file, partial, log = (results / f"{job.name}{ending}" for ending in (".json", ".partial.json", ".log"))
    command = _command(job.measure, graphs=graphs / job.name, json=partial)
    outcome = Outcome(job.name, "there already", shlex.join(["python", *command[1:]]))
    if file.exists():
        return outcome
    if time.monotonic() >= until:
        outcome.said = "not begun"
        return outcome
    partial.unlink(missing_ok=True)  # what was cut off is no result of this run
    outcome.date, began = time.strftime("%Y-%m-%d %H:%M"), time.monotonic()
    outcome.gpus = ",".join(gpus)
    with open(log, "w", encoding="utf-8") as output:
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": outcome.gpus}
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT).returncode
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.said = "measured" if code == 0 and partial.exists() else "failed"
    if outcome.said == "measured":
        partial.rename(file)
    return outcome


def _command(words: str, **places: Path) -> list[str]:
    """The words of a command, with the places that it names."""
    return [sys.executable, *(word.format(**places) for word in shlex.split(words))]


def record(outcome: Outcome, file: Path) -> None:
    """Put a job that was run into the list of them, in the place of an earlier run."""
    known = []
    with suppress(FileNotFoundError):
        known = [job for job in json.loads(file.read_text(encoding="utf-8")) if job["name"] != outcome.name]
    with files.whole(file) as unfinished:
        unfinished.write_text(json.dumps([*known, asdict(outcome)], indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Capture and measure; 1 if a job failed or was not begun."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [job.name for job in PLAN]
    parser.add_argument("--graphs", type=Path, default=ROOT / "output" / "graphs", help="folder of captured Programs")
    parser.add_argument("--only_capture", action="store_true", help="write the Programs, for a machine without Paddle")
    parser.add_argument("--results", type=Path, metavar="DIR", help="folder for what is measured")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--minutes", type=float, help="no job begins later")
    arguments = parser.parse_args()
    jobs = [job for job in PLAN if job.name in arguments.only]
    graphs, gpus = arguments.graphs.resolve(), visible_gpus()
    if not arguments.only_capture:
        if arguments.results is None:
            parser.error("--results says where the figures go; with --only_capture there are none")
        if not gpus:
            raise SystemExit(
                "error: CUDA shows no GPU here; with --only_capture the Programs for another box are written"
            )
    graphs.mkdir(parents=True, exist_ok=True)
    capture(jobs, graphs)
    if arguments.only_capture:
        return 0
    results = arguments.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    complete = True
    for outcome in measure(jobs, gpus, graphs, results, arguments.minutes):
        if outcome.date:
            record(outcome, results / "jobs.json")
        where = f" in {outcome.seconds:.0f} s on GPU {outcome.gpus}" if outcome.date else ""
        print(f"{outcome.name}: {outcome.said}{where}; {results / outcome.name}.*", flush=True)
        complete &= outcome.said in ("measured", "there already")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
