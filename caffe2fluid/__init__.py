"""Converts Caffe networks to Paddle: readable code, weights, an inference model and a report. See README.md."""

import sys
from pathlib import Path


def _explain(kind, error, trace):
    """One line where a traceback would only say that a package is missing."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in ("", "caffe2fluid"):
        sys.__excepthook__(kind, error, trace)
        return
    advice = f"{sys.executable} -m pip install paddlepaddle pillow"
    if (Path(__file__).resolve().parents[1] / "zoo").is_file():
        advice += ", or run this script by ./zoo (./zoo --help)"
    print(f"error: {sys.executable} has no {name}: {advice}", file=sys.stderr)


sys.excepthook = _explain
