"""What is measured depends on the samples alone: not on batches, devices, processes or engines."""

import json
import subprocess
import sys
from pathlib import Path

from fluid import engine as engines
from fluid.errors import DataError
from fluid.metrics import measure
from fluid.tests import measured
from fluid.tests.devices import with_devices

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(measured.__file__)


@pytest.fixture(scope="module")
def expected() -> dict:
    """The figures, computed from all samples at once."""
    samples = [measured.Scenes().load(index, None) for index in range(measured.SAMPLES)]
    confusion = np.zeros((measured.CLASSES, measured.CLASSES), int)
    for sample in samples:
        for truth, pixel in zip(sample["truth"], sample["pixels"], strict=True):
            confusion[truth, pixel] += 1
    ranking = [sample["wanted"] for sample in sorted(samples, key=lambda sample: -sample["score"])]
    places = [place for place, wanted in enumerate(ranking) if wanted]
    precision = np.mean([sum(ranking[: place + 1]) / (place + 1) for place in places])
    return {
        "samples": measured.SAMPLES,
        "mean": np.mean([2 * sample["score"] for sample in samples]),
        "average_precision": precision,
        "confusion": confusion.tolist(),
        "on_device": confusion.tolist(),
    }


def assert_equal(result: dict, expected: dict) -> None:
    for name in ("mean", "average_precision"):
        assert result[name] == pytest.approx(expected[name], rel=1e-12)
    for name in ("samples", "confusion", "on_device"):
        assert result[name] == expected[name]


@pytest.mark.parametrize("engine_name", ["paddle", "xla"])
@pytest.mark.parametrize("batch_size, num_workers", [(1, 0), (8, 0), (8, 2), (23, 0), (100, 0), (10**12, 0)])
def test_neither_batch_size_nor_workers_change_the_result(expected, engine_name, batch_size, num_workers):
    engine, _ = engines.create(engine_name, "cpu")
    common = {"batch_size": batch_size, "num_workers": num_workers, "mask": "real"}
    assert_equal(
        measure(engine, measured.program(), measured.Scenes(), measured.Everything(), **common).result(), expected
    )


def test_neither_does_the_order_of_a_plan(expected):
    engine, _ = engines.create("paddle", "cpu")
    odd_and_even = [np.arange(1, 23, 2), np.arange(0, 12, 2), np.arange(12, 23, 2)]
    found = measure(
        engine,
        measured.program(),
        measured.Scenes(),
        measured.Everything(),
        batch_size=12,
        mask="real",
        plan=lambda epoch: odd_and_even,
    )
    assert_equal(found.result(), expected)


@pytest.mark.parametrize("processes, devices, batch_size", [(1, 8, 12), (2, 4, 4), (2, 1, 7)])
def test_processes_and_devices_share_the_work(expected, tmp_path, processes, devices, batch_size):
    """Twenty-three samples leave shares that are not full, and some that are empty."""
    result = tmp_path / "result.json"
    start = [] if processes == 1 else ["-m", "fluid.commands.launch", str(processes)]
    done = subprocess.run(
        [sys.executable, *start, str(SCRIPT), str(result), str(batch_size)],
        env={**with_devices(devices), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["devices"] == processes * devices
    assert_equal(found, expected)


def test_only_what_is_asked_for_is_fetched():
    class Names:
        def __init__(self) -> None:
            self.seen: set[str] = set()

        def add(self, outputs, batch) -> None:
            self.seen.update(outputs)
            assert "wanted" in batch.feed

        def merge(self, engine) -> None:
            pass

        def result(self) -> dict[str, float]:
            return {}

    engine, _ = engines.create("paddle", "cpu")
    arguments = (engine, measured.program(), measured.Scenes(), Names())
    assert measure(*arguments, batch_size=8, mask="real", fetch=["doubled"]).seen == {"doubled"}


def test_a_sample_that_cannot_be_read_is_an_error():
    class Broken(measured.Scenes):
        def where(self, index: int) -> str:
            return f"list:{index + 1}"

        def load(self, index, rng):
            if index == 9:
                raise DataError("list:10: broken")
            return super().load(index, rng)

    engine, _ = engines.create("paddle", "cpu")
    with pytest.raises(DataError, match="list:10: broken"):
        measure(engine, measured.program(), Broken(), measured.Everything(), batch_size=8, mask="real")
