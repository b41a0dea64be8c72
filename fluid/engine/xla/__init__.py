"""The xla engine: runs Programs, or Graphs captured from them, through JAX and XLA.

Read in this order: `graph.py` (a Program as plain data), `capture.py` (from Paddle to that), `lower.py` and `trace.py` (from
that to one JAX function), `gradients.py`, `control.py`, `precision.py`, `layout.py`, then `rules/`, `tuning.py`, what our own
kernels take over on GPUs, `entropy.py`, `normalised.py`, `expanded.py`, `pooled.py`, `suppression.py` and `enlarged.py` with
`kernels/`, and what runs it: `devices.py`, `compiled.py`, `hoist.py`, `engine.py`.
"""

from fluid.engine.xla.devices import sees_gpu
from fluid.engine.xla.engine import XlaEngine, create

__all__ = ["XlaEngine", "create", "sees_gpu"]
