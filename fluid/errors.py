"""Errors that a user can cause. Scripts print their message as it is (no traceback) and exit with code 1.

A message says what is wrong, where, and what to do about it.
"""


class UserError(Exception):
    """Something the user gave cannot be used; the message is complete."""


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
