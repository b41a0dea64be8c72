"""Where the time of a training step goes: the operations that a trace of a few steps names, the longest first."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from fluid.engine import Engine
from fluid.errors import UserError

SHOWN = 25
AROUND = ("while", "conditional", "call")
"""Operations whose time is that of others inside them."""


def profile(engine: Engine, steps: Callable[[], int], folder: Path) -> str:
    """Run `steps`, which returns how many it ran, and write a trace of them to `folder`, for TensorBoard or Perfetto.

    Returns a table of kinds of operations: milliseconds a step, calls a step, share, and name, summed over processors or
    GPUs. Raises UserError for an engine whose operations nothing times.
    """
    if engine.name != "xla":
        raise UserError("--profile times what XLA compiled: use --engine xla")
    import jax

    with jax.profiler.trace(str(folder)):
        count = steps()
    nanoseconds, calls = times(folder, on_gpu=engine.device != "cpu")
    total = sum(nanoseconds.values())
    lines = [
        f"{total / count / 1e6:.2f} ms a step, {count} steps, all processors or GPUs together; the trace is in {folder}"
    ]
    for name, spent in nanoseconds.most_common(SHOWN):
        lines.append(f"{spent / count / 1e6:10.3f} ms {calls[name] / count:8.1f} x {spent / total:6.1%}  {name}")
    return "\n".join(lines)


def times(folder: Path, on_gpu: bool) -> tuple[Counter[str], Counter[str]]:
    """Nanoseconds and calls of each kind of operation (its name without numbers) in a trace of `jax.profiler`."""
    from jax.profiler import ProfileData

    nanoseconds: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for file in folder.glob("**/*.xplane.pb"):
        for plane in ProfileData.from_file(str(file)).planes:
            if ("/device:GPU" in plane.name) != on_gpu:
                continue
            for line in plane.lines:
                if on_gpu and not line.name.startswith("Stream"):
                    continue
                for event in line.events:
                    own = not event.name.startswith(AROUND)
                    if own and (on_gpu or any(name == "hlo_op" for name, _ in event.stats)):
                        kind = re.sub(r"[_.]*\d+", "", event.name)
                        nanoseconds[kind] += event.duration_ns
                        calls[kind] += 1
    return nanoseconds, calls
