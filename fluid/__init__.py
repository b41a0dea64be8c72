"""The shared runtime of the zoo: Programs, the engines that run them, the training loop, data and weights. It knows no task.

Importing `fluid` costs nothing: reader processes import `fluid.data` and must stay free of paddle and jax.
"""

import os
import sys
import warnings
from pathlib import Path
from types import TracebackType

__version__ = "0.2.0"

if sys.version_info < (3, 11):  # noqa: UP036 run from a checkout, nothing has looked at the version
    raise SystemExit(f"error: {sys.executable} is Python {sys.version.split()[0]}; 3.11, 3.12 or 3.13 is needed")

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""Those that this process may use: `taskset`, a batch system or a container may leave it few of the machine's."""
CPU_THREADS = int(os.environ.get("OMP_NUM_THREADS", 0)) or PROCESSORS
"""Threads of one computation on the CPU. Read here because Paddle sets OMP_NUM_THREADS to 1 when it is imported."""
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
"""Bytes of this machine's memory. Asked for more, the system would rather kill processes than refuse."""

for _stream in range(3):
    try:
        os.fstat(_stream)
    except OSError:
        # Closed by whoever started this (`>&-`, some daemons): a file opened next would have its number, and what libraries
        # print would end up in it.
        os.open(os.devnull, os.O_RDWR)
sys.stdin = sys.stdin or open(0, encoding="utf-8")
sys.stdout, sys.stderr = sys.stdout or open(1, "w", encoding="utf-8"), sys.stderr or open(2, "w", encoding="utf-8")

# Each thread of NumPy's OpenBLAS looks for work for 0.1 s of a processor before it sleeps; 2^4 cycles are the least.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
# Paddle's start-up messages and its remarks on its own code are not the user's concern.
os.environ.setdefault("GLOG_minloglevel", "2")
warnings.filterwarnings("ignore", message="No ccache found")
warnings.filterwarnings("ignore", message="When training, we now always track global mean and variance")
warnings.filterwarnings("ignore", message="Tensor do not have 'place' interface for pir graph mode")


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """One line where a traceback would only say that a package is missing: this Python is not the zoo's. None for Ctrl-C."""
    if issubclass(kind, KeyboardInterrupt):
        return
    root = Path(__file__).resolve().parent.parent
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or (root / name).exists():
        sys.__excepthook__(kind, error, trace)
        return
    print(
        f"error: {sys.executable} has no {name}. In {root}: ./zoo install makes an environment that has it; then run this "
        f"script with {root / '.venv/bin/python'}, or by ./zoo (./zoo --help says how)",
        file=sys.stderr,
    )


sys.excepthook = _explain
