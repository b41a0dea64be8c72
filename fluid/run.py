"""A run's folder and records: log lines, JSON lines, TensorBoard scalars, configuration, environment; and the way a
script ends.

    OUTPUT/config.json environment.json train.log log.jsonl tensorboard/ checkpoints/ best.json set_aside/
"""

import contextlib
import errno
import fcntl
import gc
import importlib.metadata
import io
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from fluid import __version__, checkpoint, files
from fluid import config as configuration
from fluid.checkpoint import Meta, Resumed
from fluid.errors import RecordsError, UserError
from fluid.text import number_of

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

if TYPE_CHECKING:
    from fluid.scalars import Scalars

OUTPUT = Path("output")
"""Where a run lies that is not told otherwise, and is looked for."""

WITHOUT_PADDLE = (
    "Paddle, which builds the Programs, is not installed here. Programs from files run without it: write them with "
    "`./zoo capture TASK ... --programs DIR` where it is installed, and give --programs DIR here"
)

GARBAGE = 20_000
"""New objects after which Python looks for cycles among them. By its own 700 a script spends .3 of its first 2.4 CPU seconds
so: what imports and a traced Program make is kept, and is looked through again and again.
"""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Of a disk, or of what one may have of it."""

console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
"""Prints what it is given as it is: names, texts and paths may have brackets and colons, which rich would take for styles."""


def script(main: Callable[[], Any]) -> None:
    """Run a script's `main`; an error that the user can mend is one message and exit code 1, Ctrl-C exit code 130."""
    gc.set_threshold(GARBAGE)
    interrupted: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        signal.default_int_handler(number, frame)

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, interrupt)
    for stream in (sys.stdout, sys.stderr):
        # What it cannot show, Chinese where all is ASCII or a name of no encoding, it shows by numbers.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stop: SystemExit | None = None
    try:
        try:
            main()
        except SystemExit as asked:
            stop = asked
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has gone (`infer.py | head`).
        _end_output()
        sys.exit(1)
    except BaseException as error:
        # C++ on the way turns a KeyboardInterrupt into errors of its own.
        if interrupted or isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if not isinstance(error, OSError) or error.filename is not None or error.errno not in FULL:
            _end_output()
        elif not _end_output("\n"):
            error.filename = "standard output"
        if (message := _message(error)) is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)
    if stop is not None:
        raise stop


def _end_output(last: str = "") -> bool:
    """Write what is left of standard output; returns whether that could be done.

    If not it is dropped, since Python would complain once more at exit. Without a buffer nothing is left of what could not
    be written: `last` tells.
    """
    try:
        print(end=last, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def _message(error: BaseException) -> str | None:
    """What to say of an error that the user or the machine is the cause of; None of others."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "paddle":
        return WITHOUT_PADDLE
    if isinstance(error, MemoryError):
        return "memory ran out; give smaller batches, or fewer at a time"
    if isinstance(error, OSError):
        hint = {errno.EMFILE: "; raise `ulimit -n`", errno.ENOSPC: "; free some space"}.get(error.errno or 0, "")
        place = "" if error.filename is None else f"{error.filename}: "
        return str(UserError(f"{place}{error.strerror or error}{hint}"))
    return None


class Run:
    """The output folder of a training run, locked while the run lasts.

    A fresh run renames another one that it finds there aside (`output.1`, `output.2`, ...). A resumed one goes on in the
    folder of its own run if `output_dir` is None; what lies there beyond its step is set aside in a sub-folder, and a
    folder that holds another run is refused.

    Args:
        output_dir: by default `./output`, or the folder of the resumed run.
        config: dataclass of the flags, recorded.
        task: name of the task.
        resumed: what is being continued.
        writes: False for the processes of a distributed run that neither print nor write.
        records: False writes nothing and claims no folder.

    Raises UserError if the folder cannot be written, holds another run, or another process is training there.
    """

    def __init__(
        self,
        output_dir: Path | None,
        config: Any,
        *,
        task: str,
        resumed: Resumed | None = None,
        writes: bool = True,
        records: bool = True,
    ):
        self.output_dir = folder_of(output_dir, resumed)
        self.task, self.writes, self.records = task, writes, writes and records
        self.scalar_names: Mapping[str, str] = {}
        """TensorBoard's names of values that are not to be `KIND/NAME` there."""
        self.set_aside: Path | None = None
        """Where a resumed run found steps beyond its own and put them."""
        self.listeners: list[Callable[[str, int, Mapping[str, Any]], None]] = []
        """Called with the kind, the step and the values of every event, recorded or not."""
        self._lock: IO[str] | None = None
        self._log: IO[str] | None = None
        self._events: IO[str] | None = None
        self._scalars: Scalars | None = None
        if self.records:
            try:
                self._open(config, resumed)
            except BlockingIOError:
                self.close()
                raise UserError(
                    f"another process is training in {self.output_dir}; choose another --output_dir"
                ) from None
            except OSError as error:
                self.close()
                raise UserError(_unwritable(self.output_dir, error)) from error

    def _open(self, config: Any, resumed: Resumed | None) -> None:
        self._lock = _lock(self.output_dir)
        if resumed is not None:
            self._go_on(resumed)
        elif holds_run(self.output_dir):
            aside = files.free_name(self.output_dir)
            # The lock goes with the folder, so nobody trains in it meanwhile.
            self.output_dir.rename(aside)
            self._lock.close()
            self._lock = _lock(self.output_dir)
            console.print(f"note: {self.output_dir} held an earlier run; it is now {aside}")
        self.write_json("config.json", configuration.to_dict(config))
        self.write_json("environment.json", environment())
        # Names of files that are not UTF-8 come with surrogates.
        self._log = open(self.output_dir / "train.log", "a", encoding="utf-8", errors="backslashreplace")
        self._events = open(self.output_dir / "log.jsonl", "a", encoding="utf-8")
        from fluid.scalars import Scalars

        self._scalars = Scalars(self.output_dir / "tensorboard", None if resumed is None else resumed.meta.step + 1)
        if resumed is None:
            self._scalars.add_hyperparameters(configuration.to_dict(config))

    def _go_on(self, resumed: Resumed) -> None:
        own = checkpoint.run_folder(resumed.folder)
        if own is not None and own == self.output_dir.resolve():
            self.set_aside = checkpoint.set_aside_after(self.output_dir, resumed.meta)
            _split_events(self.output_dir / "log.jsonl", resumed.meta, self.set_aside)
            return
        try:
            refuse_other_run(self.output_dir, resumed)
        except UserError:
            self.close()
            raise
        if own is not None:
            checkpoint.copy_best(own, self.output_dir, resumed.meta)

    def say(self, line: str, *, log: bool = True) -> None:
        """Print a line to the terminal and the log."""
        if self.writes:
            console.print(line)
            if log:
                self.note(line)

    def say_resumed(self, resumed: Resumed) -> None:
        """Say what is being continued, and what became of steps beyond it."""
        self.say(f"continuing after step {resumed.meta.step} of {resumed.folder}")
        if self.set_aside is not None:
            self.say(f"the steps beyond it are now in {self.set_aside}")

    def say_left(self, pictures: Iterable[Path], *, skipped_samples: int = 0, note: str = "") -> None:
        """Say what the run leaves, how many samples could not be read, and what else there is to say of its best checkpoint."""
        if skipped_samples:
            self.say(
                f"{number_of(skipped_samples, 'unreadable sample')} replaced; the log names what this process read"
            )
        evaluated = (self.output_dir / checkpoint.BEST_FILE).exists()
        what = (
            f"the best one{note} at {self.output_dir / checkpoint.BEST_LINK}" if evaluated else "none of them evaluated"
        )
        self.say(f"checkpoints, {what}; pictures: {', '.join(map(str, pictures))}")

    def say_everywhere(self, line: str) -> None:
        """Print a line that only this process of a distributed run knows of."""
        if self.writes:
            self.say(line)
        else:
            print(line, flush=True)

    def progress(self, line: str) -> None:
        """Write a line to the log, and print it where no progress bar shows the same."""
        self.note(line)
        if not console.is_terminal:
            self.say(line, log=False)

    def note(self, line: str) -> None:
        """Write a line to the log alone. Raises RecordsError as `record`."""
        if self._log:
            with self._writing():
                self._log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
                self._log.flush()

    def record(self, kind: str, step: int, **values: Any) -> None:
        """Append an event to log.jsonl, its numbers to TensorBoard.

        Raises RecordsError if that cannot be written, or if the output folder is no longer where it was.
        """
        for listener in self.listeners:
            listener(kind, step, values)
        if not self._events or not self._scalars:
            return
        if self._is_gone():
            raise RecordsError(self.gone)
        event = {"kind": kind, "step": step, "time": round(time.time(), 3), **values}
        with self._writing():
            self._events.write(json.dumps(event) + "\n")
            self._events.flush()
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    own = f"{kind}/{name}"
                    self._scalars.add(self.scalar_names.get(own, own), value, step)

    def write_json(self, name: str, data: Any) -> None:
        """Write OUTPUT/name whole or not at all."""
        if self.records:
            temporary = self.output_dir / f".{name}"
            text = json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n"
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            temporary.replace(self.output_dir / name)

    def claim_anew(self) -> bool:
        """Claim the output folder once more if it was moved or deleted; returns whether that was so.

        Raises RecordsError if another run has taken its place, or nothing can be written there.
        """
        if not self._is_gone():
            return False
        if _is_same(self._lock, self.output_dir / ".lock"):
            return True
        try:
            lock = _lock(self.output_dir)
        except BlockingIOError:
            raise RecordsError(f"{self.gone}, and another run is training in its place") from None
        except OSError as error:
            raise RecordsError(f"{self.gone}, and its place cannot be written ({error.strerror})") from error
        if holds_run(self.output_dir):
            lock.close()
            raise RecordsError(f"{self.gone}, and another run lies in its place")
        if self._lock is not None:
            self._lock.close()
        self._lock = lock
        return True

    @property
    def gone(self) -> str:
        """What to say when records or checkpoints find no folder any more."""
        return f"the output folder {self.output_dir} was moved or deleted, or its log.jsonl, while the run went on"

    def _is_gone(self) -> bool:
        return self._events is not None and not _is_same(self._events, self.output_dir / "log.jsonl")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RecordsError(
                f"the records of the run in {self.output_dir} cannot be written ({error.strerror or error}). Mend that, free "
                f"some space say, and go on with --checkpoint {self.output_dir}"
            ) from error

    def close(self) -> None:
        """Flush and close the records, and release the folder. Raises RecordsError if something is left unwritten."""
        # The last is closed first: the folder is free when all is written.
        held = [file for file in (self._lock, self._log, self._events, self._scalars) if file]
        self._log = self._events = self._scalars = self._lock = None
        with self._writing(), contextlib.ExitStack() as stack:
            for file in held:
                stack.callback(file.close)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        # What ends the run says more than what a full disk adds to it.
        with contextlib.suppress(*[] if error is None else [RecordsError]):
            self.close()


def events(output_dir: Path, kind: str) -> list[dict[str, Any]]:
    """The events of one kind in a run's log.jsonl, in order."""
    path = Path(output_dir) / "log.jsonl"
    if not path.is_file():
        return []
    return [row for row in _read_events(path) if row["kind"] == kind]


def environment() -> dict[str, Any]:
    """What a result depends on beside the configuration: versions, hardware, commit, command."""
    versions = {"fluid-model-zoo": __version__}
    for package in ("paddlepaddle", "jax", "jaxlib", "numpy", "opencv-python-headless", "pillow"):
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


def progress_bar(total: int, completed: int = 0) -> tuple[Progress, TaskID]:
    """A bar with the step, the remaining time and as much of a free text `status` as fits; shown only on a terminal."""
    progress = Progress(
        BarColumn(bar_width=16),
        TextColumn("{task.completed}/{task.total} eta"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[status]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,
        disable=not console.is_terminal,
        refresh_per_second=4,
    )
    return progress, progress.add_task("", total=total, completed=completed, status="")


def show_summary(title: str, values: Mapping[str, str]) -> None:
    """Print what a run came to, a line each."""
    table = Table(title=title, show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    show(table)


def show(table: Table) -> None:
    """Print a table, folded to the width of the terminal."""
    console.print(table, soft_wrap=False)


def folder_of(output_dir: Path | None, resumed: Resumed | None) -> Path:
    """Where a run writes: in the named folder, in that of the run it continues, or in `./output`."""
    own = None if resumed is None else checkpoint.run_folder(resumed.folder)
    return Path(output_dir) if output_dir is not None else own or OUTPUT


def check_folder(output_dir: Path | None, resumed: Resumed | None) -> None:
    """Raise UserError if `Run` could not write its folder or would refuse it, before anything is built or compiled."""
    folder = folder_of(output_dir, resumed)
    try:
        files.check_writable(folder)
    except OSError as error:
        raise UserError(_unwritable(folder, error)) from error
    if resumed is not None and checkpoint.run_folder(resumed.folder) != folder.resolve():
        refuse_other_run(folder, resumed)


def refuse_other_run(folder: Path, resumed: Resumed) -> None:
    """Raise UserError if a folder other than that of the resumed run holds a run."""
    if holds_run(folder):
        own = checkpoint.run_folder(resumed.folder)
        raise UserError(
            f"{folder} holds another run than --checkpoint {resumed.folder}; choose another --output_dir"
            + (f", or leave it out to go on in {own}" if own else "")
        )


def _unwritable(folder: Path, error: OSError) -> str:
    return f"the output folder {folder} cannot be written ({error.strerror}); choose another --output_dir"


def holds_run(folder: Path) -> bool:
    """Whether a training run has been writing there."""
    return any((folder / name).exists() for name in ("log.jsonl", "checkpoints"))


def _lock(folder: Path) -> IO[str]:
    """Lock a folder, made if it is not there; raises BlockingIOError if another process has it."""
    while True:
        # Another process may rename the folder aside at any moment until it is locked.
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = open(folder / ".lock", "w")
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_same(lock, folder / ".lock"):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _is_same(file: IO[str] | None, path: Path) -> bool:
    """Whether an open file is still the one at `path`."""
    try:
        return file is not None and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _read_events(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log.jsonl: a process that is killed may leave half of one."""
    rows = []
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int) and "kind" in row:
                rows.append(row)
    return rows


def _split_events(path: Path, meta: Meta, aside: Path | None) -> None:
    """Keep the events up to the step that is being resumed; the others go to `aside`, or are made again.

    Evaluations that this step still owes are made again as well.
    """
    if not path.is_file():
        return
    rows = _read_events(path)
    kept = [
        row for row in rows if row["step"] < meta.step or (row["step"] == meta.step and row["kind"] not in meta.due)
    ]
    if aside is not None:
        _write_events(aside / path.name, [row for row in rows if row["step"] > meta.step])
    _write_events(path, kept)


def _write_events(path: Path, rows: list[dict[str, Any]]) -> None:
    temporary = path.with_name(f".{path.name}")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
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
