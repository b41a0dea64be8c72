"""The promises of the training loop: exact resume, signals, the guard against NaN, bounded tolerance for bad data."""

import itertools
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from fluid import checkpoint, trainer
from fluid.data import Batch
from fluid.engine import Engine
from fluid.errors import CheckpointError, DivergenceError
from fluid.run import events
from fluid.tests import toy
from fluid.tests.devices import with_devices
from fluid.tests.toy import ToyFlags

import numpy as np
import pytest

TOY = Path(toy.__file__)


def final_state(output_dir: Path) -> dict[str, np.ndarray]:
    state, _ = checkpoint.load(output_dir)
    return state


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].tobytes() == other[name].tobytes(), name


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run of 20 steps in one go, 8 steps an epoch."""
    output = tmp_path_factory.mktemp("straight") / "run"
    toy.main(ToyFlags(output_dir=output, seed=5, eval_every=100))
    return output


def test_resume_is_exact_on_the_xla_engine(tmp_path):
    flags = {"seed": 5, "eval_every": 100, "engine": "xla", "device": "cpu"}
    toy.main(ToyFlags(output_dir=tmp_path / "straight", **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "parts", max_steps=13, **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "parts", checkpoint=tmp_path / "parts", max_steps=20, **flags))
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "straight"))


@pytest.mark.parametrize("first, second", [("paddle", "xla"), ("xla", "paddle")])
def test_a_run_can_go_on_with_the_other_engine(tmp_path, first, second):
    flags = {"seed": 5, "eval_every": 100, "device": "cpu", "dropout": 0.0}
    toy.main(ToyFlags(output_dir=tmp_path / "straight", engine=first, **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "parts", engine=first, max_steps=13, **flags))
    toy.main(
        ToyFlags(output_dir=tmp_path / "parts", engine=second, checkpoint=tmp_path / "parts", max_steps=20, **flags)
    )
    one, other = final_state(tmp_path / "straight"), final_state(tmp_path / "parts")
    for name in one:
        np.testing.assert_allclose(other[name], one[name], atol=1e-4 * np.abs(one[name]).max() + 1e-7, err_msg=name)


def toy_command(output_dir: Path, *more: str) -> list[str]:
    words = [
        "--output_dir",
        str(output_dir),
        "--seed",
        "5",
        "--eval_every",
        "100",
        "--engine",
        "xla",
        "--device",
        "cpu",
    ]
    return [sys.executable, str(TOY), *words, "--dropout", "0", *more]


def test_a_run_goes_on_with_another_number_of_devices_and_of_hosts(tmp_path):
    """5 steps on eight devices, 6 in two processes of four each, the rest on one device: as if never interrupted."""
    toy.main(ToyFlags(output_dir=tmp_path / "one", seed=5, eval_every=100, engine="xla", device="cpu", dropout=0.0))
    output = tmp_path / "many"
    eight, four = with_devices(8), with_devices(4)
    subprocess.run(toy_command(output, "--max_steps", "5"), env=eight, check=True, timeout=120, capture_output=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = ["--coordinator", coordinator, "--num_hosts", "2", "--checkpoint", str(output), "--max_steps", "11"]
    processes = [
        subprocess.Popen(
            toy_command(output, *hosts, "--host_id", number),
            env=four,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in "01"
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "evaluation after step 11" in said[0] and "evaluation" not in said[1]
    last = toy_command(output, "--checkpoint", str(output), "--max_steps", "20")
    subprocess.run(last, check=True, timeout=120, capture_output=True)
    one, many = final_state(tmp_path / "one"), final_state(output)
    for name in one:
        np.testing.assert_allclose(many[name], one[name], atol=1e-4 * np.abs(one[name]).max() + 1e-7, err_msg=name)
    expected = {event["step"]: event["loss"] for event in events(tmp_path / "one", "eval")}
    assert events(output, "eval")[-1]["loss"] == pytest.approx(expected[20], rel=1e-4)


IN_PARTS = """
import sys
from pathlib import Path
from fluid.tests.toy import ToyFlags, main
output, coordinator, hosts, host = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
joining = {"coordinator": coordinator, "num_hosts": hosts, "host_id": host} if hosts > 1 else {}
flags = {"seed": 5, "eval_every": 100, "engine": "xla", "device": "cpu"}
main(ToyFlags(output_dir=output / "straight", **flags, **joining))
# The processes have joined.
main(ToyFlags(output_dir=output / "parts", max_steps=13, **flags))
main(ToyFlags(output_dir=output / "parts", checkpoint=output / "parts", max_steps=20, **flags))
"""
"""Three runs in one process, since it is the imports that take time."""


@pytest.mark.parametrize("hosts", [1, 2])
def test_resume_is_exact_on_eight_devices(tmp_path, hosts):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**with_devices(8 // hosts), "PYTHONPATH": str(TOY.parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", IN_PARTS, str(tmp_path), coordinator, str(hosts), str(host)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for host in range(hosts)
    ]
    said = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * hosts, said
    assert "8 x cpu" in said[0]
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "straight"))


@pytest.mark.parametrize("stop", [8, 13], ids=["at an epoch end", "inside an epoch"])
def test_resume_is_exact(tmp_path, straight, stop):
    toy.main(ToyFlags(output_dir=tmp_path, seed=5, eval_every=100, max_steps=stop))
    toy.main(ToyFlags(output_dir=tmp_path, seed=5, eval_every=100, checkpoint=tmp_path, max_steps=20, num_workers=2))
    assert_same_bits(final_state(tmp_path), final_state(straight))


def test_resume_in_a_new_process_is_exact(tmp_path, straight):
    command = [sys.executable, str(TOY), "--output_dir", str(tmp_path), "--seed", "5", "--eval_every", "100"]
    for more in (["--max_steps", "11"], ["--checkpoint", str(tmp_path), "--max_steps", "20"]):
        environment = {**os.environ, "PYTHONHASHSEED": str(len(more[1]))}
        subprocess.run(command + more, check=True, timeout=120, env=environment, capture_output=True)
    assert_same_bits(final_state(tmp_path), final_state(straight))


def test_resume_with_accumulated_gradients_is_exact(tmp_path):
    flags = {"seed": 5, "accumulate": 2, "total_steps": 9, "eval_every": 100}
    toy.main(ToyFlags(output_dir=tmp_path / "straight", **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "parts", max_steps=5, **flags))
    toy.main(ToyFlags(output_dir=tmp_path / "parts", checkpoint=tmp_path / "parts", max_steps=9, **flags))
    assert_same_bits(final_state(tmp_path / "parts"), final_state(tmp_path / "straight"))


def test_seeds_differ_and_repeat(tmp_path, straight):
    toy.main(ToyFlags(output_dir=tmp_path / "same", seed=5, eval_every=100))
    toy.main(ToyFlags(output_dir=tmp_path / "other", seed=6, eval_every=100))
    assert_same_bits(final_state(tmp_path / "same"), final_state(straight))
    assert final_state(tmp_path / "other")["fc1_w"].tobytes() != final_state(straight)["fc1_w"].tobytes()


def test_best_metric_and_early_stop_survive_a_resume(tmp_path):
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=10, eval_every=2))
    _, before = checkpoint.load(tmp_path)
    toy.main(ToyFlags(output_dir=tmp_path, checkpoint=tmp_path, max_steps=20, eval_every=2))
    _, after = checkpoint.load(tmp_path)
    losses = {event["step"]: event["loss"] for event in events(tmp_path, "eval")}
    assert list(losses) == list(range(2, 21, 2))
    assert before.best == min(loss for step, loss in losses.items() if step <= 10)
    assert after.best == min(losses.values()) == losses[after.best_step]
    assert checkpoint.load(tmp_path / "best")[1].step == after.best_step


@pytest.mark.parametrize("accumulate", [1, 2])
def test_nan_in_the_input_stops_the_run_and_names_the_sample(tmp_path, accumulate):
    output = tmp_path / "run"
    flags = {"output_dir": output, "accumulate": accumulate, "save_every": 1}
    toy.main(ToyFlags(**flags, max_steps=1))
    said = r"NaN or infinity came with the data of step \d+: input 'point' of points.txt:12\..*last good checkpoint is .*step_"
    with pytest.raises(DivergenceError, match=said):
        toy.main(ToyFlags(**flags, checkpoint=output, max_steps=20, poison="input"))
    state, meta = checkpoint.load(output)
    assert all(np.isfinite(array).all() for array in state.values())


@pytest.mark.parametrize(
    "name, step", [("fc1_w", 3), ("fc2_w_velocity_0", 3), ("bn1_mean", 20), ("bn1_variance", 20), ("fc1_w_ema", 20)]
)
def test_nan_that_the_loss_does_not_show_is_found(tmp_path, name, step):
    """A parameter is found in its step; statistics and averages, which training never reads, when they are to be saved."""
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=2))
    state, meta = checkpoint.load(tmp_path)
    meta.best = None
    state[name].reshape(-1)[0] = np.nan
    broken = checkpoint.save(tmp_path / "broken", state, meta)
    with pytest.raises(DivergenceError, match=f"diverged at step {step}: .*"):
        toy.main(ToyFlags(output_dir=tmp_path / "run", checkpoint=broken, max_steps=20, eval_every=100, save_every=100))
    assert not checkpoint.is_checkpoint(tmp_path / "run")
    losses = [event["loss"] for event in events(tmp_path / "run", "train")]
    assert np.isfinite(losses).all()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    toy.main(ToyFlags(output_dir=tmp_path, max_steps=1))
    with pytest.raises(CheckpointError, match="does not fit this model.*instead of"):
        toy.main(ToyFlags(output_dir=tmp_path, checkpoint=tmp_path, hidden=17))
    assert checkpoint.load(tmp_path)[1].step == 1


def test_resident_memory_stays_flat(tmp_path):
    toy.main(ToyFlags(output_dir=tmp_path, total_steps=600, log_every=20, eval_every=200))
    memory = {event["step"]: event["memory_mb"] for event in events(tmp_path, "train")}
    assert memory[600] - memory[100] < 20


def test_the_benchmark_counts_batches_of_any_size_and_of_all_hosts(monkeypatch):
    clock = 0.0

    class OneSecondAStep(Engine):
        name, device, num_hosts = "test", "none", 2
        load = state = None

        def run(self, program, feed, step=0, fetch=None):
            nonlocal clock
            clock += 1.0
            fed.append(len(feed["x"]))
            return {"loss": np.zeros(())}

    @contextmanager
    def open_batches(start):
        sizes = enumerate(itertools.cycle([4, 8]))
        yield (Batch({"x": np.zeros(size)}, size, epoch=0, index=index) for index, size in sizes)

    class Records:
        def record(self, kind, step, **values):
            pass

    ticks, fed = itertools.count(), []
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: clock + next(ticks) * 1e-6)
    result = trainer.benchmark(Records(), OneSecondAStep(), None, open_batches)
    assert result["batch_size"] == 8
    assert result["synthetic"] == pytest.approx(12, rel=1e-3)
    assert result["real"] == pytest.approx(12, rel=1e-3)
    # Every shape runs before the clock does, and then they come as the reader's do.
    assert fed[:10] == [8] * 5 + [4] * 5 and fed[10:40] == [8, 4] * 15
    # Four workers begin with six batches, which come at once.
    fed.clear()
    assert trainer.benchmark(Records(), OneSecondAStep(), None, open_batches, 4)["steps"] == 40
    assert fed[:12] == [4] * 6 + [8] * 6 or fed[:12] == [8] * 6 + [4] * 6
