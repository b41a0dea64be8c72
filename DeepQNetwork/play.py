"""The name of eval.py in 2018; takes the same flags."""

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).resolve().with_name("eval.py")), run_name="__main__")
