"""A run's folder and records: log lines, JSON lines, TensorBoard scalars, configuration, environment; and the way a
script ends.

    OUTPUT/config.json environment.json train.log log.jsonl tensorboard/ checkpoints/ best
"""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fluid import config as configuration
from fluid.errors import UserError

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(highlight=False, soft_wrap=True)


def script(main: Callable[[], Any]) -> None:
    """Run a script's `main`; an error that the user can mend is one message and exit code 1."""
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`infer.py | head`); Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


class Run:
    """The output folder of a training run, locked while the run lasts.

    A folder that holds another run is renamed aside (`output.1`, `output.2`, ...) unless `resume`. With
    `writes=False` (the other hosts of a distributed run) nothing is written. Raises UserError if the folder cannot be
    written or another process is training there.
    """

    def __init__(
        self, output_dir: Path, config: Any, *, task: str, resume_step: int | None = None, writes: bool = True
    ):
        self.output_dir, self.task, self.writes = Path(output_dir), task, writes
        self._lock = self._log = self._events = self._scalars = None
        if not writes:
            return
        try:
            if resume_step is None:
                _rename_aside(self.output_dir)
            self.output_dir.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.output_dir / ".lock", "w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.write_json("config.json", configuration.to_dict(config))
            self.write_json("environment.json", environment())
            if resume_step is not None:
                _forget_events_after(self.output_dir / "log.jsonl", resume_step)
            self._log = open(self.output_dir / "train.log", "a", encoding="utf-8")
            self._events = open(self.output_dir / "log.jsonl", "a", encoding="utf-8")
        except BlockingIOError:
            self.close()
            raise UserError(f"another process is training in {self.output_dir}; choose another --output_dir") from None
        except OSError as error:
            self.close()
            raise UserError(
                f"the output folder {self.output_dir} cannot be written ({error.strerror}); choose another --output_dir"
            ) from error
        from tensorboardX import SummaryWriter

        self._scalars = SummaryWriter(str(self.output_dir / "tensorboard"), flush_secs=30)

    @property
    def interactive(self) -> bool:
        """Whether a progress bar stands in for log lines."""
        return console.is_terminal

    def say(self, line: str, *, log: bool = True) -> None:
        """Print a line to the terminal and the log."""
        if self.writes:
            console.print(line, markup=False)
            if log:
                self.note(line)

    def note(self, line: str) -> None:
        """Write a line to the log alone."""
        if self._log:
            self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            self._log.flush()

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Append an event to log.jsonl, its numbers to TensorBoard."""
        if not self._events:
            return
        self._events.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **values}) + "\n")
        self._events.flush()
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._scalars.add_scalar(f"{kind}/{name}", value, step)

    def write_json(self, name: str, data: Any) -> None:
        """Write OUTPUT/name whole or not at all."""
        if self.writes:
            temporary = self.output_dir / f".{name}"
            temporary.write_text(json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
            temporary.replace(self.output_dir / name)

    def close(self) -> None:
        """Flush and close the records, and give the folder free."""
        for file in (self._log, self._events, self._scalars, self._lock):
            if file:
                file.close()

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


def events(output_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log.jsonl, in order."""
    path = Path(output_dir) / "log.jsonl"
    if not path.is_file():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [row for row in rows if row["kind"] == kind]


def environment() -> dict[str, Any]:
    """What a result depends on beside the configuration: versions, hardware, commit, command."""
    versions = {}
    for package in ("paddlepaddle", "jax", "jaxlib", "numpy", "grain", "opencv-python-headless", "pillow"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "versions": versions,
        "commit": _commit(),
    }


def resident_megabytes() -> float:
    """Memory this process holds now, in MB."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize() / 1e6
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


class StopRequest:
    """Set by the first SIGTERM or SIGINT; `exit_code` is 143 or 130."""

    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """The conventional 128 + signal number."""
        return 128 + (self.signal_number or 0)

    def __bool__(self) -> bool:
        return self.signal_number is not None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While active, the first SIGTERM or Ctrl-C only sets the request, the second ends the process at once."""
    request = StopRequest()

    def handle(number: int, frame: Any) -> None:
        if request:
            os._exit(128 + number)
        request.signal_number = number
        os.write(2, b"\nfinishing this step and saving; once more to stop at once\n")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def progress_bar(description: str, total: int, completed: int = 0) -> tuple[Progress, int]:
    """A bar with elapsed and remaining time and a free text `status`, shown only on a terminal."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TextColumn("{task.fields[status]}"),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )
    return progress, progress.add_task(description, total=total, completed=completed, status="")


def _rename_aside(output_dir: Path) -> None:
    if not any((output_dir / name).exists() for name in ("log.jsonl", "checkpoints")):
        return
    with open(output_dir / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    number = 1
    while (aside := output_dir.with_name(f"{output_dir.name}.{number}")).exists():
        number += 1
    output_dir.rename(aside)
    console.print(f"note: {output_dir} held an earlier run; it is now {aside}", markup=False)


def _forget_events_after(path: Path, step: int) -> None:
    """Drop what a killed process logged beyond the checkpoint that is being resumed."""
    if path.is_file():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        temporary = path.with_name(".log.jsonl")
        temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        temporary.replace(path)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
