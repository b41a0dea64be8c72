"""The xla engine: runs Programs, or Graphs captured from them, through JAX and XLA.

The modules, in the order in which a Program passes through them:

* `capture.py`: from Paddle's Program to a Graph (`graph.py`), which is plain data, in memory or in a file.
* `lower.py`: from a Graph to one function of JAX arrays. `trace.py` runs its operations one by one by the rules of `rules/`;
  `gradients.py` finds the forward operation of a gradient, `structure.py` has the operations that compute nothing,
  `precision.py` chooses types, `layout.py` the order of axes, `tuning.py` among equal ways.
* `control.py`: loops and branches. `registers.py` hands arrays of a loop from step to step, `sums.py` and `later.py` take out
  of it what can be computed for all steps at once.
* What replaces several operations before they are traced: `first.py` (sorting as far as is needed), and where a GPU has
  kernels of our own (`kernels/`) `entropy.py`, `normalised.py`, `expanded.py`, `pooled.py`, `suppression.py`, `enlarged.py`.
* `compiled.py`: what is kept of a Program and run. `hoist.py` takes out what depends on the weights alone, `powers.py` keeps
  Adam's powers as one array.
* `engine.py`: the engine. `devices.py` and `distributed.py` say where arrays lie, `state.py` has the variables, `rows.py`
  the outputs of many runs.
"""

from fluid.engine.xla.devices import sees_gpu
from fluid.engine.xla.engine import XlaEngine, create

__all__ = ["XlaEngine", "create", "sees_gpu"]
