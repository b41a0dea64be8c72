"""Checkpoints appear whole or not at all, and damaged ones are refused with one clear message."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from fluid import checkpoint
from fluid.checkpoint import META_FILE, STATE_FILE, Meta
from fluid.errors import CheckpointError

import numpy as np
import pytest

STATE = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "scalar": np.float32(0.5) * np.ones((), np.float32),
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "count": np.array([3], np.int64),
}


def test_round_trip_keeps_shapes_types_and_facts(tmp_path):
    meta = Meta(
        "toy", 7, epoch=2, best=0.5, best_step=6, metrics={"acc": 0.5}, config={"lr": 0.1}, extra={"names": ["ä"]}
    )
    folder = checkpoint.save(tmp_path, STATE, meta)
    state, read = checkpoint.load(folder, task="toy")
    assert read == meta
    assert state.keys() == STATE.keys()
    for name, array in STATE.items():
        assert state[name].dtype == array.dtype and state[name].shape == array.shape
        np.testing.assert_array_equal(state[name], array)


def test_a_run_folder_stands_for_its_newest_checkpoint_by_number(tmp_path):
    for step in (900, 1000, 99999999, 100000000):
        checkpoint.save(tmp_path, STATE, Meta("toy", step), keep=9)
    assert checkpoint.load(tmp_path)[1].step == 100000000
    assert checkpoint.load(tmp_path / "checkpoints")[1].step == 100000000


def test_keeps_the_newest_and_the_best(tmp_path):
    for step in range(1, 8):
        checkpoint.save(tmp_path, STATE, Meta("toy", step), keep=2, best=step == 3)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "step_00000003",
        "step_00000006",
        "step_00000007",
    ]
    assert checkpoint.load(tmp_path / "best")[1].step == 3


def test_a_step_is_never_written_twice(tmp_path):
    checkpoint.save(tmp_path, STATE, Meta("toy", 1))
    with pytest.raises(CheckpointError, match="step_00000001 exists already"):
        checkpoint.save(tmp_path, {"w": np.zeros(2, np.float32)}, Meta("toy", 1))
    assert checkpoint.load(tmp_path)[0].keys() == STATE.keys()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


def test_what_a_checkpoint_says_can_be_completed(tmp_path):
    folder = checkpoint.save(tmp_path, STATE, Meta("toy", 1, due=["eval"]))
    before = (folder / STATE_FILE).stat()
    checkpoint.complete(folder, Meta("toy", 1, metrics={"acc": 0.5}, best=0.5, best_step=1), best=True)
    state, meta = checkpoint.load(tmp_path / "best")
    assert meta == Meta("toy", 1, metrics={"acc": 0.5}, best=0.5, best_step=1) and state.keys() == STATE.keys()
    after = (folder / STATE_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_run_folder_is_its_best_or_its_newest(tmp_path):
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, STATE, Meta("toy", step))
    assert checkpoint.find_best(tmp_path) == checkpoint.find_newest(tmp_path)
    checkpoint.complete(tmp_path / "checkpoints" / "step_00000002", Meta("toy", 2), best=True)
    assert checkpoint.find_best(tmp_path).name == "step_00000002"
    assert checkpoint.find_newest(tmp_path).name == "step_00000003"
    assert checkpoint.find_best(tmp_path / "checkpoints" / "step_00000001").name == "step_00000001"


def test_without_links_best_is_a_file(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    for step in (1, 2, 3):
        checkpoint.save(tmp_path, STATE, Meta("toy", step), keep=1, best=step == 1)
    assert not (tmp_path / "best").exists()
    assert checkpoint.find_best(tmp_path).name == "step_00000001"
    assert checkpoint.load(tmp_path / "best")[1].step == 1


def test_a_copy_in_which_links_were_followed_goes_on(tmp_path):
    checkpoint.save(tmp_path / "run", STATE, Meta("toy", 1), best=True)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert not (tmp_path / "copy" / "best").is_symlink()
    checkpoint.save(tmp_path / "copy", STATE, Meta("toy", 2), best=True)
    assert checkpoint.load(tmp_path / "copy" / "best")[1].step == 2


def test_going_back_sets_the_newer_ones_aside(tmp_path):
    for step in (10, 20, 30, 40):
        meta = Meta("toy", step, best=1.0, best_step=10 if step < 40 else 40)
        checkpoint.save(tmp_path, STATE, meta, keep=4, best=step in (10, 40))
    aside = checkpoint.set_aside_after(tmp_path, checkpoint.load(tmp_path / "checkpoints" / "step_00000020")[1])
    assert aside == tmp_path / "set_aside" / "after_step_00000020"
    assert sorted(path.name for path in (aside / "checkpoints").iterdir()) == ["step_00000030", "step_00000040"]
    assert checkpoint.find_best(aside).name == "step_00000040"
    assert checkpoint.find_best(tmp_path).name == "step_00000010"
    written = checkpoint.save(tmp_path, STATE, Meta("toy", 25), keep=1)
    assert checkpoint.find_newest(tmp_path) == written.resolve()
    again = checkpoint.set_aside_after(tmp_path, Meta("toy", 10, best=1.0, best_step=10))
    assert checkpoint.find_newest(tmp_path).name == "step_00000010" and again.exists()
    assert checkpoint.set_aside_after(tmp_path, Meta("toy", 10)) is None


def test_no_best_is_named_when_that_of_the_older_step_is_gone(tmp_path):
    for step in (20, 30):
        checkpoint.save(tmp_path, STATE, Meta("toy", step, best=1.0, best_step=30), best=step == 30)
    checkpoint.set_aside_after(tmp_path, Meta("toy", 20, best=0.5, best_step=10))
    assert not (tmp_path / "best").is_symlink() and not (tmp_path / "best.json").exists()
    assert checkpoint.find_best(tmp_path).name == "step_00000020"


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_leftovers_of_dead_processes_are_found_again_or_cleared(tmp_path):
    root, dead = tmp_path / "checkpoints", ended_process()
    checkpoint.save(tmp_path, STATE, Meta("toy", 1)).rename(root / f".replaced-{dead}")
    (root / f".partial-{dead}").mkdir()
    (root / f".partial-{dead}" / STATE_FILE).write_bytes(b"0" * 1000)
    alive = root / f".partial-{os.getppid()}"
    alive.mkdir()
    assert checkpoint.load(tmp_path)[1].step == 1
    checkpoint.save(tmp_path, STATE, Meta("toy", 2))
    assert sorted(path.name for path in root.iterdir()) == [alive.name, "step_00000001", "step_00000002"]
    assert checkpoint.load(root / "step_00000001")[1].step == 1


def test_file_modes_follow_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        folder = checkpoint.save(tmp_path, STATE, Meta("toy", 1), best=True)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (*folder.iterdir(), tmp_path / "best.json")}
    assert modes == {STATE_FILE: 0o640, META_FILE: 0o640, "best.json": 0o640}
    assert folder.stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "flipped",
        "empty",
        "gone",
        "no json",
        "null",
        "deep",
        "format",
        "fields",
        "a step of text",
        "a step below 0",
    ],
)
def test_damage_is_one_clear_error(tmp_path, damage):
    folder = checkpoint.save(tmp_path, STATE, Meta("toy", 1))
    arrays, meta = folder / STATE_FILE, folder / META_FILE
    data = bytearray(arrays.read_bytes())
    if damage == "truncated":
        arrays.write_bytes(data[:-5])
    elif damage == "flipped":
        data[-1] ^= 1
        arrays.write_bytes(data)
    elif damage == "empty":
        arrays.write_bytes(b"")
    elif damage == "gone":
        arrays.unlink()
    elif damage == "no json":
        meta.write_text("{")
    elif damage == "null":
        meta.write_text("null")
    elif damage == "deep":
        meta.write_text("[" * 100_000)
    elif damage.startswith("a step"):
        step = "one" if damage.endswith("text") else -1
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "step": step}))
    elif damage == "format":
        meta.write_text(json.dumps({**json.loads(meta.read_text()), "format": 99}))
    else:
        meta.write_text(json.dumps({"format": 1, "sha256": "", "surprise": 1}))
    with pytest.raises(CheckpointError, match=str(folder)):
        checkpoint.load(folder)


def test_another_task_is_refused(tmp_path):
    checkpoint.save(tmp_path, STATE, Meta("other", 1))
    with pytest.raises(CheckpointError, match="belongs to the task other"):
        checkpoint.load(tmp_path, task="toy")


def test_no_checkpoint_names_what_was_expected(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "nothing")


def test_a_full_disk_fails_loudly_and_harms_nothing(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, STATE, Meta("toy", 1))

    def full(state, path):
        Path(path).write_bytes(b"half a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoint.save(tmp_path, STATE, Meta("toy", 2))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]
    assert checkpoint.load(tmp_path)[1].step == 1


def test_a_file_size_limit_of_the_system_fails_loudly(tmp_path):
    script = f"""
        import resource, signal, sys
        import numpy as np
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from fluid import checkpoint
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            checkpoint.save({str(tmp_path)!r}, {{"w": np.zeros(1_000_000, np.float32)}}, checkpoint.Meta("toy", 1))
        except checkpoint.CheckpointError as error:
            print("refused", error)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("refused"), result
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_unwritable_folder_fails_loudly(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write the checkpoint"):
        checkpoint.save(tmp_path / "file", STATE, Meta("toy", 1))


@pytest.mark.parametrize("kills", [8, pytest.param(300, marks=pytest.mark.full)])
def test_kill_at_random_instants_leaves_a_loadable_newest(tmp_path, kills):
    script = f"""
        import sys
        import numpy as np
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from fluid import checkpoint
        step = int(sys.argv[1])
        print("ready", flush=True)
        while True:
            step += 1
            state = {{"w": np.full(300_000, step, np.float32)}}
            checkpoint.save({str(tmp_path)!r}, state, checkpoint.Meta("toy", step), best=step % 3 == 0)
    """
    rng = np.random.default_rng()
    last = 0
    for _ in range(kills):
        command = [sys.executable, "-c", textwrap.dedent(script), str(last)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        delay = float(rng.uniform(0.02, 0.25))
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if checkpoint.is_checkpoint(tmp_path):
            state, meta = checkpoint.load(tmp_path)
            assert meta.step >= last, f"killed after {delay} s"
            assert (state["w"] == meta.step).all()
            last = meta.step
    assert last > 0
