"""Calls in a process of their own."""

import os
import struct

from fluid import isolated
from fluid.errors import DataError

import pytest


def half_an_answer(sender, function, arguments) -> None:
    """As of a process that is killed while it sends."""
    os.write(sender.fileno(), struct.pack("!i", 1000) + b"half")
    os._exit(9)


def refuse(word: str) -> None:
    raise DataError(word)


def test_answers_and_errors_come_back():
    assert isolated.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(DataError, match="a word"):
        isolated.call(refuse, "a word")
    with pytest.raises(RuntimeError, match="division"):
        isolated.call(divmod, 7, 0)


def test_a_process_that_ends_before_its_answer_does(monkeypatch):
    with pytest.raises(isolated.Crashed, match="3"):
        isolated.call(os._exit, 3)
    monkeypatch.setattr(isolated, "_send", half_an_answer)
    with pytest.raises(isolated.Crashed, match="9"):
        isolated.call(divmod, 7, 2)
