"""The errors that a user of the converter can cause."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Sequence


class ConvertError(Exception):
    """What went wrong, where, and what to do about it, in one message."""


class UnsupportedError(ConvertError):
    """A layer type, or an option of one, that has no translation."""


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun: `1 layer`, `2 layers`, `1,000 layers`. ``plural`` is that of a noun that takes more than an s."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def check_is_file_itself(path: object, start: bytes) -> None:
    """Raises ConvertError where a file begins as what a failed download leaves in its place."""
    if start.startswith(b"version https://git-lfs"):
        raise ConvertError(f"{path}: a Git LFS pointer, not the file; fetch it with `git lfs pull`")
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ConvertError(f"{path}: a web page, not the file; download the file itself (the raw one)")


def raise_unreadable(errors: Sequence[ConvertError], files: int) -> None:
    """Raises ConvertError for those of so many files that could not be read, if there are any."""
    if errors and files == 1:
        raise errors[0]
    if errors:
        raise ConvertError(f"{len(errors)} of {files} files cannot be read:\n" + "\n".join(map(str, errors)))


def run_script(main: Callable[[], int | None]) -> None:
    """Runs ``main`` and leaves the process: 0 or what it returned, 1 with one line for an error, 130 for Ctrl-C."""
    code: int | str | None
    for stream in (sys.stdout, sys.stderr):
        # What it cannot show, it shows by numbers.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            code = main()
        except SystemExit as stop:
            code = stop.code
        sys.stdout.flush()
    except ConvertError as error:
        _end_output()
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        _end_output()
        sys.exit(1)
    except OSError as error:
        fails = not _end_output("" if error.filename else "\n")
        place = error.filename or ("standard output" if fails else "file")
        print(f"error: {place}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("error: memory ran out", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code)


def _end_output(last: str = "") -> bool:
    """Writes what is left of standard output; returns whether that could be done. If not it is dropped.

    Without a buffer nothing is left of what could not be written: ``last`` tells.
    """
    try:
        print(end=last, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True
