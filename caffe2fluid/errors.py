"""The errors that a user of the converter can cause."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable


class ConvertError(Exception):
    """What went wrong, where, and what to do about it, in one message."""


class UnsupportedError(ConvertError):
    """A layer type, or an option of one, that has no translation."""


def run_script(main: Callable[[], int | None]) -> None:
    """Runs ``main`` and leaves the process: 0 or what it returned, 1 with one line for an error, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # What it cannot show, it shows by numbers.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        sys.exit(main() or 0)
    except ConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        print(f"error: {error.filename or 'file'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError:
        print("error: memory ran out", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
