"""Signals of a training run: the first one ends it in order, the second at once.

Python calls its handlers between two operations of the main thread, and so not while XLA compiles or the main thread
waits for a device. Here a thread reads the numbers of the signals from a pipe that the interpreter writes to at once.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from fluid.engine import Engine

ALWAYS = (signal.SIGTERM, signal.SIGINT)
UNLESS_IGNORED = (signal.SIGHUP, signal.SIGUSR1)
"""A closed terminal, unless under nohup, and what Slurm sends before the time is over."""


class Stopped(BaseException):
    """A loop was left because of a signal; like KeyboardInterrupt no error that `except Exception` would take for its own."""


class StopRequest:
    """Set by the first signal; `exit_code` is 128 and its number."""

    signal_number: int | None = None
    may_wait: bool = False
    """Whether there is something to save. Without it the first signal ends the process at once, as the second does."""

    @property
    def exit_code(self) -> int:
        """By convention; of a process that stops because another one was told to, that of SIGTERM."""
        return 128 + (self.signal_number or signal.SIGTERM)

    def __bool__(self) -> bool:
        return self.signal_number is not None


_request: StopRequest | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """While active, SIGTERM, Ctrl-C, SIGHUP and SIGUSR1 set the request or end the process, as `StopRequest` says.

    Outside the main thread Python can watch no signals, and the request is never set.
    """
    global _request
    if _request is not None:
        yield _request
        return
    if threading.current_thread() is not threading.main_thread():
        yield StopRequest()
        return
    watched = [number for number in UNLESS_IGNORED if signal.getsignal(number) is not signal.SIG_IGN]
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    _request = request = StopRequest()
    before = {number: signal.signal(number, _do_nothing) for number in (*ALWAYS, *watched)}
    wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=_watch, args=(reading, request, set(before)), daemon=True, name="signals")
    thread.start()
    try:
        yield request
    finally:
        _request = None
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        os.close(writing)
        thread.join()
        os.close(reading)


def leave_if_stopped(engine: Engine) -> None:
    """Raise Stopped if a signal has come in any process of a training run: for loops of an evaluation, between two batches.

    All processes call this together. Outside a training run, and before its first step, it does nothing.
    """
    if _request is not None and _request.may_wait and engine.agree(bool(_request)):
        raise Stopped


def _do_nothing(number: int, frame: object) -> None:
    """The thread does it; without a handler the interpreter would not write to the pipe."""


def _watch(reading: int, request: StopRequest, watched: set[int]) -> None:
    while data := os.read(reading, 1):
        number = data[0]
        if number not in watched:
            continue
        if request or not request.may_wait:
            _exit_at_once(number, "" if request else "\nstopped: there is nothing to save\n")
        request.signal_number = number
        os.write(2, b"\nfinishing this step and saving; once more to stop at once\n")


def _exit_at_once(number: int, message: str) -> None:
    os.write(2, message.encode())
    if os.isatty(1):
        os.write(1, b"\033[?25h")  # The progress bar had hidden the cursor.
    os._exit(128 + number)
