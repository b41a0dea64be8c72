"""locks/ has what pyproject.toml asks for; where this fails, run .ci/lock."""

import importlib.util
import re
import tomllib
from pathlib import Path

from fluid.tests import extras

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
UNLOCKED = {"gpu", "synth"}
"""Extras that CI does not install."""


def requirements() -> list[Requirement]:
    """Those of the project and of its extras."""
    extras = PROJECT["optional-dependencies"]
    words = [*PROJECT["dependencies"], *(word for name in extras.keys() - UNLOCKED for word in extras[name])]
    return [item for item in map(Requirement, words) if item.name != PROJECT["name"]]


@pytest.mark.parametrize("minor", ["3.11", "3.12", "3.13"])
def test_every_requirement_is_locked(minor: str) -> None:
    text = (ROOT / "locks" / f"{minor}.txt").read_text(encoding="utf-8")
    locked = {
        canonicalize_name(name): version for name, version in re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)
    }
    environment = {"python_version": minor, "python_full_version": f"{minor}.0"}
    for item in requirements():
        if item.marker is None or item.marker.evaluate(environment):
            assert item.specifier.contains(locked[canonicalize_name(item.name)]), item


def test_there_are_locks_for_every_python_of_the_project() -> None:
    minors = {path.stem for path in (ROOT / "locks").iterdir()}
    assert minors == {
        f"3.{number}"
        for number in range(30)
        if f"3.{number}.0" in Requirement(f"x{PROJECT['requires-python']}").specifier
    }
    for path in (ROOT / "locks").iterdir():
        assert "://" not in path.read_text(encoding="utf-8"), f"{path.name} names a host"


@pytest.mark.parametrize(("in_use", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)])
def test_a_locked_package_that_is_missing_is_no_reason_to_skip(
    monkeypatch: pytest.MonkeyPatch, in_use: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("ZOO_LOCKED", in_use)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(extras, "locked", lambda packages: packages == list(extras.ONNX))
    with pytest.raises(outcome, match="onnxruntime is not installed"):
        extras.need_onnx()
