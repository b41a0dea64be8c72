"""Files that are damaged or hostile, for every reader (tests/fuzzing.py): some hundreds of each here, all with --full."""

import json
import os
import subprocess
import sys

from tests.fuzzing import ROOT, TARGETS

import pytest

SHORT = 150
"""Files of each kind in ./zoo test; those that are slow to make, or whose readers are, fewer."""
FEW = {"prototxt": 40, "labels": 60}
MEGABYTES = 1000
"""Of memory, whatever a file claims; 450 are the packages of some readers."""


def attack(name: str, count: int) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.fuzzing", name, str(count)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert not found["strange"] and done.returncode == 0, found
    assert found["read"] and found["refused"], found
    assert found["megabytes"] < MEGABYTES, found


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_some_damaged_files(name: str) -> None:
    attack(name, FEW.get(name, SHORT))


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_all_damaged_files(name: str) -> None:
    attack(name, TARGETS[name][1])
