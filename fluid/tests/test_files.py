"""Files that are opened only if they are files, and what processes that were killed leave behind."""

import os
import subprocess
import sys
import tempfile

from fluid import files
from fluid.errors import DataError, UserError

import pytest


@pytest.fixture
def dead() -> int:
    """The number of a process that is no more."""
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_pipes_folders_and_devices_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"1")
    assert files.read_plain(tmp_path / "file") == b"1"
    for path, reason in [
        (tmp_path / "pipe", "a pipe"),
        (tmp_path, "directory"),
        ("/dev/zero", "device"),
        ("a\0b", "null"),
    ]:
        with pytest.raises(OSError, match=reason):
            files.open_plain(path)


def test_partial_names_of_killed_processes_are_cleared(tmp_path, dead):
    (tmp_path / f".net.partial-{dead}").mkdir()
    (tmp_path / f".net.partial-{dead}" / "w").touch()
    # In a container this process may have the number of the one that was killed.
    (tmp_path / f".net.partial-{os.getpid()}").mkdir()
    (tmp_path / f".net.partial-{os.getpid()}" / "w").touch()
    kept = [f".net.partial-{os.getppid()}", f".net.other.partial-{dead}", ".net.partial-x", "net"]
    for name in kept:
        (tmp_path / name).touch()
    assert files.partial(tmp_path / "net") == tmp_path / f".net.partial-{os.getpid()}"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert files.partial(tmp_path / "none" / "net").name == f".net.partial-{os.getpid()}"


def test_partial_names_with_a_suffix_are_cleared_too(tmp_path, dead):
    for process in (dead, os.getppid()):
        (tmp_path / f".film.mp4.partial-{process}.mp4").touch()
    assert files.partial(tmp_path / "film.mp4", ".mp4").name == f".film.mp4.partial-{os.getpid()}.mp4"
    assert [path.name for path in tmp_path.iterdir()] == [f".film.mp4.partial-{os.getppid()}.mp4"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_written_appears_whole_or_not_at_all(tmp_path, kind):
    path = tmp_path / "new" / "net"

    def write(words: str) -> None:
        with files.whole(path, DataError) as unfinished:
            assert not path.exists() or kind == "file"
            if kind == "folder":
                unfinished.mkdir()
            (unfinished / "w" if kind == "folder" else unfinished).write_text(words)
            if not words:
                raise KeyError

    with pytest.raises(KeyError):
        write("")
    assert list(path.parent.iterdir()) == []
    write("all")
    assert (path / "w" if kind == "folder" else path).read_text() == "all" and len(list(path.parent.iterdir())) == 1
    with pytest.raises(DataError, match="net: cannot be written \\("), files.whole(path, DataError):
        raise OSError(28, "No space left on device")
    with pytest.raises(UserError, match="net.*x.y: cannot be written"), files.whole(path / "w" / "x" / "y"):
        pass


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "link").symlink_to(pipe)
    for name in ("pipe", "link"):
        with pytest.raises(DataError, match=f"{name}: is a pipe"), files.whole(tmp_path / name, DataError):
            pytest.fail("nothing is to be written")
    assert pipe.is_fifo() and sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]


def test_output_that_nobody_reads_is_no_fault_of_the_file(tmp_path):
    with pytest.raises(BrokenPipeError), files.whole(tmp_path / "net"):
        raise BrokenPipeError


def test_scratch_folders_of_killed_processes_are_cleared(tmp_path, monkeypatch, dead):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"fluid-weights-{dead}-abc").mkdir()
    (tmp_path / f"fluid-weights-{os.getppid()}-abc").mkdir()
    with files.scratch("weights") as folder:
        (folder / "w").touch()
        assert folder.parent == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == [f"fluid-weights-{os.getppid()}-abc"]
