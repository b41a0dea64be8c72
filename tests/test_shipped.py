"""The models that come along: each says what it is and is what it says, and all of them are small."""

import subprocess
from pathlib import Path

from fluid.weights import registry

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = [
    entry
    for path in sorted(ROOT.glob("*/weights.toml"))
    for entry in registry.load_registry(path.parent).values()
    if entry.file is not None
]


def size(path: Path) -> int:
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


@pytest.mark.parametrize("entry", SHIPPED, ids=lambda entry: entry.name)
def test_a_model_that_comes_along(entry):
    assert registry.content_digest(entry.file) == entry.sha256
    assert entry.licence and entry.source and entry.metric
    # How it was made, or where it was first published.
    assert entry.command or entry.listed


def test_all_models_that_come_along_are_small():
    assert len({entry.task for entry in SHIPPED}) >= 3
    assert sum(size(entry.file) for entry in SHIPPED) < 44e6


def test_the_checkout_is_small():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    assert sum(file.stat().st_size for file in files if file.is_file()) < 56e6
