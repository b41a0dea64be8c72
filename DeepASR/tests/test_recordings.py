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


def test_folders_hold_recordings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.makedirs("calls/folder.wav")
    for name in ("calls/b.FLAC", "calls/folder.wav/a.wav", "calls/._b.FLAC", "calls/notes.txt"):
        Path(name).touch()
    assert find(("calls", "-", "calls/*.FLAC")) == ["calls/b.FLAC", "calls/folder.wav/a.wav", "-", "calls/b.FLAC"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\r\n\n", "list: names no recording"),
        (b"RIFF\0\0WAVE", "list: is no list of names, one a line, but another file; give its name instead"),
        (b"\nnowhere.wav", "list:2: nowhere.wav: no such file, and nothing matches it as a pattern"),
    ],
)
def test_a_list_that_names_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("list").write_bytes(content)
    with pytest.raises(DataError) as error:
        find(("@list",))
    assert str(error.value) == told
