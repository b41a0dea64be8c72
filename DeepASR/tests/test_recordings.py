"""Recordings that people name: in lists too, whatever their names are."""

import os
from pathlib import Path

from DeepASR.recordings import find
from fluid.errors import DataError

import pytest


def test_a_list_names_recordings_whatever_they_are_called(tmp_path: Path) -> None:
    name = os.path.join(os.fsencode(tmp_path), b"\xff.wav")
    with open(name, "wb"):
        pass
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf" + name + b"\r\n\r\n")
    assert find((f"@{tmp_path / 'list'}",)) == [os.fsdecode(name)]


@pytest.mark.parametrize("line", ["@{list}", "-"])
def test_a_list_names_no_other_list(tmp_path: Path, line: str) -> None:
    path = tmp_path / "list"
    path.write_text(line.format(list=path) + "\n")
    with pytest.raises(DataError, match="no other list"):
        find((f"@{path}",))


def test_a_list_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "list")
    with pytest.raises(DataError, match="a pipe, a socket or a device"):
        find((f"@{tmp_path / 'list'}",))
