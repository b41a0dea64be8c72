"""ResNet-50 and Transformer-base on 1, 2, 4, ... GPUs of this host, beside PyTorch's DistributedDataParallel, into one file.

    ./zoo benchmark scaling --json benchmarks/results/scaling_h100_2026-11-27.json      with Paddle
    python benchmarks/scaling.py --graphs graphs --json FILE      without, Programs captured elsewhere by --only_capture

What takes torch.compile minutes is kept in its cache on disk for the runs that follow.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import ROOT, add_json, save


def capture(graphs: Path) -> None:
    """Write both training Programs, unless they are there."""
    if not (graphs / "ResNet50_train.json").exists():
        _run("benchmarks/xla_step.py", "capture", str(graphs), "--models", "ResNet50")
    if not (graphs / "base_train.json").exists():
        _run("benchmarks/neural_machine_translation.py", "capture", str(graphs), "--models", "base")


def measure(graphs: Path, peer: bool, file: Path) -> None:
    """Both benchmarks, one after the other; their rows together in `file`."""
    who = ["zoo", "compiled"] if peer else ["zoo"]
    jobs = {
        "image_classification": ["scale", "--graphs", str(graphs), "--peer" if peer else "--no-peer"],
        "neural_machine_translation": ["scale", str(graphs), "--who", *who],
    }
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, words in jobs.items():
            found = Path(folder) / f"{name}.json"
            _run(f"benchmarks/{name}.py", *words, "--json", str(found))
            rows += json.loads(found.read_text(encoding="utf-8"))["rows"]
            save(file, rows=rows)


def _run(*words: str) -> None:
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True)


def main() -> None:
    """Capture and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--graphs", type=Path, default=ROOT / "output" / "scaling", help="folder of the captured Programs"
    )
    parser.add_argument("--only_capture", action="store_true", help="write them, for a machine without Paddle")
    parser.add_argument("--peer", action=argparse.BooleanOptionalAction, default=True, help="measure PyTorch too")
    add_json(parser)
    arguments = parser.parse_args()
    if not arguments.only_capture and arguments.json is None:
        parser.error("--json says where the rows go; with --only_capture there are none")
    capture(arguments.graphs.resolve())
    if not arguments.only_capture:
        measure(arguments.graphs.resolve(), arguments.peer, arguments.json.resolve())


if __name__ == "__main__":
    main()
