"""What several processes tell each other."""

import subprocess
import sys
from pathlib import Path

from fluid import engine as engines
from fluid.engine.xla import distributed
from fluid.tests.devices import with_devices

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

PROCESS = """
import sys
from pathlib import Path

from fluid.engine import Hosts, create
from fluid.errors import EngineError

import numpy as np

coordinator, number, number_of_hosts = sys.argv[2], int(sys.argv[6]), int(sys.argv[4])
engine, _ = create("xla", "cpu", hosts=Hosts(coordinator, number_of_hosts, number))
arrays = {
    "boxes": np.arange(8.0).reshape(2, 4) + 100 * number if number else np.zeros((0, 4)),
    "counts": np.full(number + 1, 2**53 + number),
    "marks": np.array([number == 1]),
    "words": np.array(["one", "two"][: 1 + number]),
    "nothing": np.zeros((0, 3), np.float32),
    "thin": np.zeros((number, 0), np.int8),
    "late": np.full((2, 2), 7, np.int32) if number else np.zeros(0),
}
gathered = {name: engine.gather(array) for name, array in arrays.items()}
gathered["counts"] += 1
for rows in (np.zeros((1, 2 + number)), np.zeros(1, ["f4", "f8"][number]), np.array([None])):
    try:
        engine.gather(rows)
    except EngineError as error:
        print(error, flush=True)
np.savez(Path(__file__).with_name(f"{number}.npz"), **gathered)
"""


def test_gather_brings_the_rows_of_all_processes(tmp_path):
    script = tmp_path / "gather.py"
    script.write_text(PROCESS)
    done = subprocess.run(
        [sys.executable, "-m", "fluid.commands.launch", "2", str(script)],
        env={**with_devices(4), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as gathered:
            np.testing.assert_array_equal(gathered["boxes"], np.arange(8.0).reshape(2, 4) + 100)
            assert gathered["counts"].tolist() == [2**53 + 1, 2**53 + 2, 2**53 + 2]
            assert gathered["marks"].tolist() == [False, True]
            assert gathered["words"].tolist() == ["one", "one", "two"]
            assert gathered["nothing"].shape == (0, 3) and gathered["nothing"].dtype == np.float32
            assert gathered["thin"].shape == (1, 0)
            assert gathered["late"].tolist() == [[7, 7], [7, 7]] and gathered["late"].dtype == np.int32
    assert done.stdout.splitlines()[-3:] == [
        "the rows of the processes do not make one array: they are <f8 [1, 2], <f8 [1, 3]",
        "the rows of the processes do not make one array: they are <f4 [1], <f8 [1]",
        "the rows of the processes do not make one array: they are |O [1], |O [1]",
    ]


def test_gather_of_one_process_returns_its_rows():
    rows = np.arange(6).reshape(3, 2)
    for name in ("paddle", "xla"):
        engine, _ = engines.create(name, "cpu")
        assert engine.gather(rows) is rows


@pytest.mark.parametrize("name", ["auto", "xla"])
@pytest.mark.parametrize("told", ["by flags", "by the cluster"])
def test_processes_join_before_jax_is_asked_for_its_devices(name: str, told: str, monkeypatch) -> None:
    """Afterwards JAX lets none of them join; and several never run Paddle's executor."""
    asked: list[str] = []
    monkeypatch.setattr(distributed, "start", lambda *hosts: asked.append(f"join {hosts}"))
    monkeypatch.setattr(sys.modules["fluid.engine.create"], "jax_sees_gpu", lambda: asked.append("devices") or False)
    hosts, said = engines.Hosts("here:1", 2, 0), "join ('here:1', 2, 0)"
    if told == "by the cluster":
        hosts, said = engines.Hosts(), "join (None, None, None)"
        monkeypatch.setenv("SLURM_NTASKS", "2")
    assert engines.create(name, hosts=hosts)[0].name == "xla"
    assert asked == [said, *(["devices"] if name == "auto" else [])]
