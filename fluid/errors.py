"""Errors that a user can cause. Scripts print their message as it is (no traceback) and exit with code 1.

A message says what is wrong, where, and what to do about it.
"""

import re
from collections.abc import Sequence

_LONGEST_LINE = 1000
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class UserError(Exception):
    """Something the user gave cannot be used; the message is complete.

    What it quotes of a file may be of any length and hold commands to a terminal: long lines are shown by their ends,
    control characters by their numbers.
    """

    def __str__(self) -> str:
        text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", super().__str__())
        lines = text.split("\n") if len(text) > _LONGEST_LINE else [text]
        return "\n".join(line if len(line) <= _LONGEST_LINE else f"{line[:600]} ... {line[-300:]}" for line in lines)


class DataError(UserError):
    """A list, an image or another input file is missing, broken or of the wrong kind."""


class WeightsError(UserError):
    """A weights file or folder cannot be read, or does not fit the network."""


class CheckpointError(UserError):
    """A checkpoint cannot be written, is damaged, or belongs to another run."""


class RecordsError(UserError):
    """The records of a run cannot be written, or its output folder is no longer there."""


class EngineError(UserError):
    """The chosen engine or device cannot run this Program."""


class DivergenceError(UserError):
    """The loss or a parameter stopped being a finite number during training."""


def raise_unreadable(errors: Sequence[DataError], files: int) -> None:
    """Raise DataError for those of so many files that could not be read, if there are any."""
    if errors and files == 1:
        raise errors[0]
    if errors:
        raise DataError(f"{len(errors)} of {files} files cannot be read:\n" + "\n".join(map(str, errors)))
