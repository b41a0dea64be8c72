"""What tests need beside the declared dependencies: a test is left out where it is missing, but not in silence by CI."""

import importlib.util
import os
import re
import sys
from pathlib import Path

import pytest

LOCKS = Path(__file__).resolve().parents[2] / "locks"
ONNX = ("paddle2onnx", "onnx", "onnxruntime")


def need_onnx() -> None:
    """Leave the test out where the extra onnx is not installed; fail if the versions of locks/ have it and are in use."""
    missing = [name for name in ONNX if importlib.util.find_spec(name) is None]
    if missing:
        said = f"{', '.join(missing)} is not installed: the extra onnx, which has no wheels for Python 3.13"
        if os.environ.get("ZOO_LOCKED") and locked(missing):
            pytest.fail(said)
        pytest.skip(said)


def locked(packages: list[str]) -> bool:
    """Whether the lock of this Python has one of the packages."""
    text = (LOCKS / f"{sys.version_info.major}.{sys.version_info.minor}.txt").read_text(encoding="utf-8")
    return any(re.search(rf"^{name}==", text, re.MULTILINE) for name in packages)
