"""./zoo launch N TASK ...: train with N processes on this machine, each with its share of the GPUs.

One process drives several GPUs by itself; with one for each there is less idle time between their kernels (the README has
figures). The processes find each other as several machines do (`fluid.engine.xla.distributed`).
"""

import argparse
import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from fluid import PROCESSORS
from fluid.errors import UserError

GRACE = 3.0
"""Seconds in which processes that fail for one reason fail together, a wrong flag say; the first of them tells of it."""
PATIENCE = 10.0
"""Seconds for the others to end by themselves after a failure, and again after being asked to."""


def main(argv: Sequence[str] | None = None) -> int:
    """Read the command line and `run`; returns the exit code. Raises UserError if there is no such script, or no even share."""
    parser = argparse.ArgumentParser(prog="zoo launch", description=__doc__.splitlines()[0])
    parser.add_argument("processes", type=int, help="how many; one for each GPU is fastest")
    parser.add_argument("script", type=Path, help="a train.py")
    parser.add_argument(
        "flags", nargs=argparse.REMAINDER, help="flags of the script; --num_workers is for each process"
    )
    arguments = parser.parse_args(argv)
    if not arguments.script.is_file():
        raise UserError(f"launch {arguments.script}: no such script; give the path of a train.py")
    shares = share(visible_gpus(), arguments.processes)
    if any(flag.partition("=")[0] in ("--coordinator", "--num_hosts", "--host_id") for flag in arguments.flags):
        raise UserError("launch is for one machine; on several, start the script on each with --host_id")
    return run([sys.executable, str(arguments.script), *arguments.flags], shares)


def run(command: list[str], shares: list[list[str]]) -> int:
    """Run `command` once for each share of the GPUs, told its place by flags; returns the exit code.

    Signals are passed on to all processes. The output of process 0 is shown; that of another only if it fails, its last
    lines.
    """
    asked_to_stop: list[int] = []
    children: list[subprocess.Popen] = []

    def pass_on(number: int, _: object) -> None:
        asked_to_stop.append(number)
        _tell(children, number)

    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(name) is not signal.SIG_IGN:  # as nohup leaves it
            signal.signal(name, pass_on)
    with _reserved_port() as port, tempfile.TemporaryDirectory() as folder:
        logs = [Path(folder) / str(number) for number in range(len(shares))]
        for number, gpus in enumerate(shares):
            if asked_to_stop:
                break
            place = ["--coordinator", f"127.0.0.1:{port}", "--num_hosts", str(len(shares)), "--host_id", str(number)]
            children.append(_start([*command, *place], gpus, None if number == 0 else logs[number]))
        failed = _wait(children, asked_to_stop)
        if failed is None:
            return 0 if len(children) == len(shares) else 128 + asked_to_stop[0]
        code = _exit_code(children[failed])
        if failed and not asked_to_stop:
            said = logs[failed].read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
            head = f"error: the process with --host_id {failed} ended with exit code {code}; its last lines:"
            print("\n".join([head, *said]), file=sys.stderr)
        return code


def visible_gpus() -> list[str]:
    """Names of the GPUs that CUDA shows to programs started here."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    except OSError:
        return []
    return [str(number) for number in range(listed.count("GPU "))]


def share(gpus: Sequence[str], processes: int) -> list[list[str]]:
    """The GPUs of each process, in order; empty lists where there is none.

    Raises UserError if some would be left over, or without GPUs for more processes than there is work for.
    """
    most = max(PROCESSORS, 8)
    if not gpus and not 1 <= processes <= most:
        raise UserError(f"launch {processes}: on this machine, without GPUs, 1 to {most} processes")
    if processes < 1 or len(gpus) % processes:
        raise UserError(
            f"launch {processes}: {len(gpus)} GPUs cannot be shared evenly by so many processes; give a number that "
            "divides them, or choose GPUs with CUDA_VISIBLE_DEVICES"
        )
    each = len(gpus) // processes
    return [list(gpus[number * each : (number + 1) * each]) for number in range(processes)]


@contextlib.contextmanager
def _reserved_port() -> Iterator[int]:
    """A port that no other program gets: held here without listening, for process 0 to share (gRPC asks for that)."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def _start(command: list[str], gpus: list[str], log: Path | None) -> subprocess.Popen:
    """Its output goes to `log`, if there is one, else where ours goes."""
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {})
    # In a session of its own: Ctrl-C reaches it through us, once.
    start = functools.partial(subprocess.Popen, command, env=environment, start_new_session=True)
    if log is None:
        return start()
    with log.open("wb") as file:
        return start(stdout=file, stderr=subprocess.STDOUT)


def _wait(children: list[subprocess.Popen], asked_to_stop: list[int]) -> int | None:
    """Number of the process whose failure ended the run; None if all did well. None of them is left running."""
    while any(child.poll() is None for child in children):
        # Those that were asked to stop may take their time: process 0 writes a checkpoint.
        if any(child.poll() for child in children) and not asked_to_stop:
            break
        time.sleep(0.1)
    else:
        return next((number for number, child in enumerate(children) if child.returncode), None)
    _until_ended(children, GRACE)
    failed = next(number for number, child in enumerate(children) if child.poll())
    _until_ended(children, PATIENCE - GRACE)
    _tell(children, signal.SIGTERM)
    _until_ended(children, PATIENCE)
    _tell(children, signal.SIGKILL)
    for child in children:
        child.wait()
    return failed


def _until_ended(children: list[subprocess.Popen], seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(child.poll() is None for child in children):
        time.sleep(0.1)


def _tell(children: list[subprocess.Popen], number: int) -> None:
    for child in children:
        if child.poll() is None:
            child.send_signal(number)


def _exit_code(child: subprocess.Popen) -> int:
    """As a shell reports it: 128 and the signal's number where one ended the process."""
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    # Not fluid.run's way to end a script: a machine that only trains captured Programs may lack what that imports.
    try:
        sys.exit(main())
    except UserError as error:
        sys.exit(f"error: {error}")
