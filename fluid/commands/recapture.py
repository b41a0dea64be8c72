"""./zoo recapture [TASK ...]: write the Programs that come along with the tasks, after a change of their networks."""

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from fluid import shipped
from fluid.run import script

ROOT = Path(__file__).resolve().parents[2]


def main(argv: Sequence[str] | None = None) -> None:
    """Write them, of all tasks by default, and say where they are; a wrong word exits with code 2."""
    known = [path.parent.name for path in sorted(ROOT.glob("*/shipped.py")) if (path.parent / "infer.py").is_file()]
    parser = argparse.ArgumentParser(prog="zoo recapture", description="Write the Programs that come along anew.")
    parser.add_argument("tasks", nargs="*", metavar="TASK", help=f"of these: {', '.join(known)}")
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.tasks) - set(known)):
        parser.error(f"no Programs come along with {', '.join(unknown)}; choose among {', '.join(known)}")
    for task in args.tasks or known:
        recipes = importlib.import_module(f"{task}.shipped").recipes()
        for file in shipped.write(ROOT / task, recipes):
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    script(main)
