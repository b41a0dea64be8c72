"""Files that are damaged or hostile, for every reader (tests/fuzzing.py): some hundreds of each here, all with --full."""

import gzip
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

from tests.fuzzing import ROOT, TARGETS

import pytest

SHORT = 150
"""Files of each kind in ./zoo test; those that are slow to make, or whose readers are, fewer."""
FEW = {"prototxt": 40, "labels": 60}
MEGABYTES = 1000
"""Of memory, whatever a file claims; 450 are the packages of some readers."""


_ENTITIES = "".join(
    f'<!ENTITY e{level} "{"&e" + str(level - 1) + ";" if level else "ha"}{"&e" + str(level - 1) + ";" if level else ""}">'
    for level in range(30)
)
BOMBS = {
    "entities that double thirty times": ("voc", f"<!DOCTYPE a [{_ENTITIES}]><annotation>&e29;</annotation>".encode()),
    "elements in elements": ("voc", b"<a>" * 200_000),
    "lists in lists": ("coco", b"[" * 200_000),
    "lists in lists of polygons": ("polygons", b'{"objects":' * 50_000),
    "a picture of 10^18 pixels": ("polygons", b'{"imgWidth": 1000000000, "imgHeight": 1000000000, "objects": []}'),
    "lists in lists of a checkpoint": ("checkpoint_json", b"[" * 200_000),
    "operations in operations": ("captured", b'{"block":' * 50_000),
    "blanks that were packed": ("kaldi_archive", gzip.compress(b" " * 2**24)),
    "zeros that were packed": (
        "kaldi_archive",
        gzip.compress(
            b"a \0BFM \4" + (2**14).to_bytes(4, "little") + b"\4" + (2**14).to_bytes(4, "little") + bytes(2**24)
        ),
    ),
    "a matrix of two thousand million empty rows": (
        "kaldi_archive",
        b"a \0BFM \4" + (2**31 - 1).to_bytes(4, "little") + b"\4" + bytes(4),
    ),
    "layers in layers": ("prototxt", b"layer { " * 50_000),
    "a line of ten million letters": ("words", b"a" * 10**7),
    "a word of ten million letters": ("dictionary", b"a" * 10**7),
    "a list of ten million letters": ("named_pictures", b"a" * 10**7),
}
"""Small files that ask for much: (reader, file)."""


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_is_refused_within_bounds(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, data = BOMBS[what]
    monkeypatch.chdir(tmp_path)
    target = TARGETS[name][0](tmp_path)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(target.errors) as refused:
        target.read(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 * 2**20 and time.process_time() - began < 60
    assert len(str(refused.value)) < 3000


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
