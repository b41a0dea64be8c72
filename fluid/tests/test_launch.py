"""./zoo launch: several processes on one machine, their GPUs, their failures and their signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from fluid import checkpoint
from fluid.commands import launch
from fluid.errors import UserError

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOY = ROOT / "fluid" / "tests" / "toy.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def command(processes: int, script: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "fluid.commands.launch", str(processes), str(script), *flags]


def run(*words: str | int | Path, timeout: float = 120) -> subprocess.CompletedProcess:
    processes, script, *flags = words
    return subprocess.run(
        command(processes, script, *flags), env=ENVIRONMENT, capture_output=True, text=True, timeout=timeout
    )


def test_every_process_gets_its_share_of_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-6f2a,7")
    assert launch.share(launch.visible_gpus(), 4) == [["4"], ["5"], ["GPU-6f2a"], ["7"]]
    assert launch.share(launch.visible_gpus(), 2) == [["4", "5"], ["GPU-6f2a", "7"]]
    assert launch.share([], 2) == [[], []]
    for processes in (0, 3, 8):
        with pytest.raises(UserError, match="4 GPUs cannot be shared evenly"):
            launch.share(launch.visible_gpus(), processes)
    for processes in (0, 10**23):
        with pytest.raises(UserError, match=f"launch {processes}: on this machine, without GPUs, 1 to"):
            launch.share([], processes)


def test_gpus_are_counted_where_nothing_chooses_them(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.visible_gpus() == []
    listed = "GPU 0: NVIDIA H200 (UUID: GPU-1)\\nGPU 1: NVIDIA H200 (UUID: GPU-2)\\n"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listed}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert launch.visible_gpus() == ["0", "1"]


def test_the_port_is_kept_for_process_0():
    with launch._reserved_port() as port, socket.socket() as other, socket.socket() as first:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        first.bind(("127.0.0.1", port))
        first.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=10):
            first.accept()[0].close()


def test_two_processes_train_like_one(tmp_path):
    flags = ["--seed", "5", "--engine", "xla", "--device", "cpu", "--dropout", "0", "--eval_every", "100"]
    done = run(2, TOY, "--output_dir", str(tmp_path / "two"), *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("evaluation after step 20") == 1
    subprocess.run([sys.executable, str(TOY), "--output_dir", str(tmp_path / "one"), *flags], check=True, timeout=120)
    losses = []
    for folder in ("one", "two"):
        events = [json.loads(line) for line in (tmp_path / folder / "log.jsonl").read_text().splitlines()]
        losses.append([event["loss"] for event in events if event["kind"] == "eval"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_each_process_is_told_its_place(tmp_path):
    script = tmp_path / "places.py"
    script.write_text(
        "import os, sys, pathlib\n"
        "words = [os.environ.get('CUDA_VISIBLE_DEVICES', ''), *sys.argv[1:]]\n"
        "pathlib.Path(__file__).with_name(sys.argv[-1]).write_text(' '.join(words))\n"
    )
    environment = {**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": "2,3"}
    subprocess.run(command(2, script, "--lr", "1"), env=environment, check=True, timeout=60)
    first, second = ((tmp_path / number).read_text().split() for number in "01")
    assert first[:4] == ["2", "--lr", "1", "--coordinator"] and second[0] == "3"
    assert first[4] == second[4] and first[5:] == ["--num_hosts", "2", "--host_id", "0"]
    assert second[-1] == "1"


def test_a_wrong_flag_is_reported_once(tmp_path):
    done = run(2, TOY, "--output_dir", str(tmp_path / "x"), "--lerning_rate", "1")
    assert done.returncode == 2
    assert (done.stdout + done.stderr).count("Unrecognized options") == 2  # title and line of one box
    assert not (tmp_path / "x").exists()


def test_a_script_that_is_not_there_is_one_message(tmp_path):
    done = run(2, tmp_path, "--max_steps", "1")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == f"error: launch {tmp_path}: no such script; give the path of a train.py\n"


def test_flags_that_launch_sets_itself_are_refused(tmp_path):
    done = run(2, TOY, "--host_id=1")
    assert done.returncode == 1 and "error: launch is for one machine" in done.stderr


def test_the_failure_of_any_process_ends_all_and_is_shown(tmp_path):
    script = tmp_path / "fails.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(__file__).with_name(f'pid{sys.argv[-1]}').write_text(str(os.getpid()))\n"
        "if sys.argv[-1] == '1':\n"
        "    print('cannot read /data/7.jpg')\n"
        "    sys.exit(3)\n"
        "time.sleep(600)\n"
    )
    impatient = (
        "import sys; from fluid.commands import launch; launch.GRACE, launch.PATIENCE = 0.5, 1; sys.exit(launch.main())"
    )
    words = [sys.executable, "-c", impatient, "2", str(script)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=40)
    assert done.returncode == 3
    assert "--host_id 1 ended with exit code 3; its last lines:\ncannot read /data/7.jpg" in done.stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid0").read_text()), 0)


@pytest.mark.usefixtures("heeded")
def test_none_is_left_when_the_terminal_goes(tmp_path):
    script = tmp_path / "sleeps.py"
    script.write_text(
        "import os, pathlib, sys, time\n"
        "pathlib.Path(__file__).with_name(f'pid{sys.argv[-1]}').write_text(str(os.getpid()))\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(command(2, script), env=ENVIRONMENT)
    numbers = [tmp_path / "pid0", tmp_path / "pid1"]
    end = time.monotonic() + 30
    while not all(path.exists() and path.read_text() for path in numbers) and time.monotonic() < end:
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=30) == 128 + signal.SIGHUP
    for path in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.read_text()), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_all_after_a_checkpoint(tmp_path, number):
    output = tmp_path / "run"
    flags = [
        "--output_dir",
        str(output),
        "--engine",
        "xla",
        "--device",
        "cpu",
        "--total_steps",
        "100000",
        "--log_every",
        "5",
    ]
    process = subprocess.Popen(
        command(2, TOY, *flags), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    end = time.monotonic() + 300
    while not ((output / "log.jsonl").exists() and (output / "log.jsonl").read_text()):
        assert time.monotonic() < end and process.poll() is None, "no step was made"
        time.sleep(0.2)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + number, said
    assert said.count("stopped by a signal") == 1 and "failed" not in said
    _, meta = checkpoint.load(output)
    assert meta.step > 0


def test_a_signal_ends_a_process_that_has_joined_others_but_not_begun():
    program = (
        "import os, signal, socket, time\n"
        "from fluid.engine.xla import distributed\n"
        "with socket.socket() as free:\n"
        "    free.bind(('127.0.0.1', 0))\n"
        "    port = free.getsockname()[1]\n"
        "distributed.start(f'127.0.0.1:{port}', 1, 0)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(5)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGTERM, done.stderr
