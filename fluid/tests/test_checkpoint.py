"""Checkpoints appear whole or not at all, and damaged ones are refused with one clear message."""

import errno
import json
import os
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


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, STATE, Meta("toy", 1))
    checkpoint.save(tmp_path, {"w": np.zeros(2, np.float32)}, Meta("toy", 1, best=1.0))
    state, meta = checkpoint.load(tmp_path)
    assert list(state) == ["w"] and meta.best == 1.0
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step_00000001"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "gone", "no json", "format", "fields"])
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


def test_kill_at_random_instants_leaves_a_loadable_newest(tmp_path):
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
    for _ in range(8):
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
