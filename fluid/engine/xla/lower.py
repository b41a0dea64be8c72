"""Graph -> one function of JAX arrays, `step(state, feed, ...) -> (new state, outputs)`.

`trace.py` executes the operations in order; `while`, `if` and their stacks are in `control.py`, types in `precision.py`,
the order of image axes in `layout.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fluid.engine.xla import control, enlarged, entropy, expanded, normalised, pooled, suppression
from fluid.engine.xla.first import only_first
from fluid.engine.xla.gradients import Gradients, match
from fluid.engine.xla.graph import Graph, walk, written_outside
from fluid.engine.xla.kernels import Kernels
from fluid.engine.xla.precision import Policy
from fluid.engine.xla.rules import RULES
from fluid.engine.xla.structure import STRUCTURE
from fluid.engine.xla.trace import Trace
from fluid.engine.xla.tuning import DEFAULT, Tuning
from fluid.errors import EngineError
from fluid.interface import LEARNING_RATE

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Step:
    """A lowered Program. `function(written, read, feed, rate, seed, step)` returns (new written state, outputs)."""

    function: Callable[..., tuple[dict[str, Any], dict[str, Any]]]
    written: list[str]
    """State that the Program changes."""
    read: list[str]
    """State that it only reads."""
    graph: Graph


def lower(
    graph: Graph,
    policy: Policy,
    fetch: Sequence[str] | None = None,
    tuning: Tuning = DEFAULT,
    kernels: Kernels | None = None,
) -> Step:
    """Lower a captured Program for the outputs and layers named in `fetch` (all outputs by default); rules alone without `kernels`.

    Raises EngineError listing every operation without a rule, with the lines of user code that created them.
    """
    graph = only_first(graph.pruned(graph.outputs if fetch is None else fetch))
    gradients = match(graph, RULES.__contains__)
    handlers = dict(control.HANDLERS)
    if kernels is not None:
        handlers |= enlarged.HANDLERS | entropy.HANDLERS | pooled.HANDLERS | suppression.HANDLERS
        handlers |= normalised.HANDLERS | expanded.HANDLERS
    check_rules(graph, gradients)
    changed: set[int] = set().union(*(written_outside(operation) for operation in graph.block.operations))
    present = {value for operation in graph.block.operations for value in operation.outputs}
    names = [name for name, number in graph.state.items() if name != LEARNING_RATE and number in present]
    written = [name for name in names if graph.state[name] in changed]
    read = [name for name in names if graph.state[name] not in changed]

    def function(
        old: Mapping[str, Any], constant: Mapping[str, Any], feed: Mapping[str, Any], rate: Any, seed: Any, step: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        key = jax.random.fold_in(jax.random.key(seed), step)
        trace = Trace(graph, gradients, handlers, policy, tuning, key, kernels=kernels)
        for name, value in {**old, **constant}.items():
            trace.env[graph.state[name]] = value
        if LEARNING_RATE in graph.state:
            number = graph.state[LEARNING_RATE]
            trace.env[number] = jnp.asarray(rate, graph.types[number].dtype).reshape(graph.types[number].shape)
        for name, number in graph.fed.items():
            trace.env[number] = feed[name]
            trace.fed.add(number)
        with jax.default_matmul_precision(policy.matmul):
            trace.block(graph.block)
        outputs = {name: trace.output(graph.values[name]) for name in graph.outputs}
        return {name: trace.output(graph.state[name]) for name in written}, outputs

    return Step(function, written, read, graph)


def check_rules(graph: Graph, gradients: Gradients) -> None:
    """Raise EngineError naming every operation that cannot be lowered."""
    missing: dict[str, set[str]] = {}
    for operation in walk(graph.block):
        forward = gradients.forward.get(operation.index)
        known = operation.name in RULES or operation.name in STRUCTURE or operation.name in control.HANDLERS
        if not known and (forward is None or forward.name not in RULES):
            missing.setdefault(operation.name, set()).add(operation.source or "created by Paddle itself")
    if missing:
        lines = [f"  {name}: {', '.join(sorted(places))}" for name, places in sorted(missing.items())]
        raise EngineError(
            f"the Program '{graph.name}' uses operations that the xla engine does not know; "
            "run it with --engine paddle, or write their rules in fluid/engine/xla/rules:\n" + "\n".join(lines)
        )
