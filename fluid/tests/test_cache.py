"""Where the cache lies, and how large it may become."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from fluid import cache
from fluid.errors import UserError

import pytest


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"fluid-model-zoo-{os.getuid()}"


def test_it_lies_where_the_variables_say(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    assert cache.folder() == tmp_path / "fluid-model-zoo"
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "mine"))
    assert cache.folder() == tmp_path / "mine"


def test_without_a_place_of_its_own_it_lies_in_the_temporary_folder(temporary, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.folder() == temporary
    assert temporary.stat().st_mode & 0o777 == 0o700


def test_what_others_put_there_is_not_used(temporary, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    temporary.symlink_to("/proc")
    monkeypatch.setattr(os, "getuid", lambda: int(temporary.name.rpartition("-")[2]))
    monkeypatch.setattr(Path, "lstat", lambda path: os.stat_result((0, 0, 0, 0, os.getuid() + 1, 0, 0, 0, 0, 0)))
    with pytest.raises(UserError, match=f"name one by {cache.VARIABLE}"):
        cache.folder()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_user_without_a_home():
    """As containers run under any number, with no entry among the users."""
    # What is imported first, another user may not be able to read.
    code = "import os, platformdirs, tempfile, fluid.cache; os.setuid(54321); print(fluid.cache.folder())"
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        environment = {"PYTHONPATH": str(Path(cache.__file__).parents[1]), "TMPDIR": folder}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert (done.stdout.strip(), done.stderr) == (f"{folder}/fluid-model-zoo-54321", "")


def test_pruning_leaves_what_was_used_last(tmp_path):
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(bytes(100))
        os.utime(tmp_path / f"{number}", (1000 + number, 1000 + number))
    os.utime(tmp_path / "0", (2000, 1000))
    cache.prune(tmp_path, 250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "4"]
    cache.prune(tmp_path / "none", 250)
