"""Tracing: the operations of a Program executed in order, with JAX's tracers instead of numbers.

* An environment maps value numbers to arrays; an operation looks up its operands, calls its rule, stores its results.
* An in-place operation (`momentum_`, `batch_norm_`, `assign_out_`) stores its result under the operand it replaces as
  well, so later readers see the new value, and what a state variable maps to in the end is the new state.
* A `*_grad` operation calls the pullback that `jax.vjp` returned when its forward operation was executed.
* An operation whose operands are all known numbers (shapes, axes, loop counters) is executed at once, so shapes can be
  computed in the Program although XLA wants them constant.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from fluid.engine.xla.gradients import SUFFIX, Gradients, operands_by_name
from fluid.engine.xla.graph import Block, Graph, Operation, Uses, in_place_pairs, present
from fluid.engine.xla.kernels import Kernels
from fluid.engine.xla.layout import (
    ChannelsLast,
    any_channels_last,
    channels_first,
    channels_first_shape,
    channels_last_array,
)
from fluid.engine.xla.precision import Policy
from fluid.engine.xla.rules import ALL, RULES, Call, Rule
from fluid.engine.xla.structure import STRUCTURE, is_known
from fluid.engine.xla.tuning import Tuning
from fluid.errors import EngineError

import jax
import jax.numpy as jnp
import numpy as np

_SPREADING = ("pd_op.matmul", "pd_op.einsum")
"""What Paddle declares one product for where it makes a free number of them."""

Handler = Callable[["Trace", Operation], Sequence[Any] | Iterable[Any]]
"""Executes an operation that has blocks, or works on what loops fill: it changes the trace itself."""


@dataclass
class Trace:
    """The state of one tracing: environment, pullbacks, random key."""

    graph: Graph
    gradients: Gradients
    handlers: Mapping[str, Handler]
    policy: Policy
    tuning: Tuning
    key: Any
    env: dict[int, Any] = field(default_factory=dict)
    fed: set[int] = field(default_factory=set)
    """Values that depend on the fed data: activations, as opposed to parameters and constants."""
    pullbacks: dict[int, "Pullback"] = field(default_factory=dict)
    inside: bool = False
    """Whether this traces the body of a loop or branch, whose pullbacks cannot leave it."""
    kernels: Kernels | None = None
    """None: everything by rules."""
    placed: set[int] = field(default_factory=set)
    """Writes to arrays of loops for which there is room, by operation: their places are known although not while tracing."""
    misdeclared: set[int] = field(default_factory=set)
    """Values of `_SPREADING` operations whose declared shapes are wrong, and what is made of them."""
    made: dict[Any, Any] = field(default_factory=dict)
    """What kernels made beside the results of the operation at hand, for those that follow; see who fills it."""

    @cached_property
    def uses(self) -> Uses:
        """Who makes and reads the values of the Graph."""
        return Uses(self.graph.block, self.graph.values.values())

    def child(self, values: Mapping[int, Any], key: Any) -> "Trace":
        """A trace for a body that sees this environment, with `values` instead, and changes none of it."""
        return Trace(
            self.graph,
            self.gradients,
            self.handlers,
            self.policy,
            self.tuning,
            key,
            {**self.env, **values},
            set(self.fed),
            {},
            True,
            placed=self.placed,
            misdeclared=self.misdeclared,
        )

    def block(self, block: Block) -> None:
        """Execute the operations of a block."""
        for operation in block.operations:
            self.operation(operation)

    def operation(self, operation: Operation) -> None:
        """Execute one operation."""
        if any(value in self.fed for value in operation.inputs):
            self.fed.update(present(operation.outputs))
        if any(value in self.misdeclared for value in operation.inputs):
            self.misdeclared.update(present(operation.outputs))
        results: Iterable[Any]
        if operation.name in STRUCTURE:
            results = STRUCTURE[operation.name](operation, *self.operands(operation))
        elif operation.name in self.handlers:
            results = self.handlers[operation.name](self, operation)
        elif operation.name in RULES:
            results = self.apply_rule(operation)
        else:
            results = self.apply_gradient(operation)
        self.store(operation, results)

    def operands(self, operation: Operation) -> list[Any]:
        """The present values of its operands, None for absent ones."""
        return [None if value is None else self.env[value] for value in operation.inputs]

    def store(self, operation: Operation, results: Iterable[Any]) -> None:
        """Bind the results, and the operands that they replace."""
        pairs = in_place_pairs(operation)
        replaced = {new: old for old, new in pairs}
        for value, result in zip(operation.outputs, results, strict=False):
            if value is not None:
                # Paddle declares some results of in-place operations float32 whatever they replace.
                self.env[value] = self._checked(operation, replaced.get(value, value), result)
        for old, new in pairs:
            self.env[old] = self.env[new]
            if new in self.fed:
                self.fed.add(old)

    def output(self, number: int) -> jax.Array:
        """A value as the caller sees it: in the Program's order of axes and of the declared type."""
        return jnp.asarray(channels_first(self.env[number]), self.graph.types[number].dtype)

    def apply_rule(self, operation: Operation) -> Sequence[Any]:
        """Its results by its rule; a gradient may follow."""
        entry, operands = RULES[operation.name], self.operands(operation)
        if not entry.random and all(is_known(value) for value in operands):
            with jax.ensure_compile_time_eval(), np.errstate(all="ignore"):
                known = _as_tuple(entry.function(self.call(operation), *operands))
                return jax.tree.map(np.asarray, list(known))
        wanted = self.gradients.wanted.get(operation.index)
        function = self.prepared(operation, entry, operands)
        if not wanted or self.inside:
            return function(*operands)
        results, pullback = _linearise(function, operands, wanted)
        self.pullbacks[operation.index] = pullback
        return results

    def apply_gradient(self, operation: Operation) -> Sequence[Any]:
        """What the pullback of its forward operation makes of the gradients that it gets."""
        forward = self.gradients.forward[operation.index]
        pullback = self.pullbacks.get(forward.index)
        if pullback is None:
            # The forward operation ran in the body of a loop or branch: repeat it here on the values it had there.
            popped = {self.gradients.pushed[value]: value for value in self.gradients.pushed if value in self.env}
            operands = [None if value is None else self.env[popped.get(value, value)] for value in forward.inputs]
            function = self.prepared(forward, RULES[forward.name], operands)
            _, pullback = _linearise(function, operands, self.gradients.wanted[forward.index])
        _, cotangents = operands_by_name(operation, forward)
        given = [cotangents.get(name) for name in forward.output_names]
        gradients = pullback([None if value is None else self.env[value] for value in given])
        names = [forward.input_names.index(name.removesuffix(SUFFIX)) for name in operation.output_names]
        return [gradients.get(position) for position in names]

    def prepared(self, operation: Operation, entry: Rule, operands: list[Any]) -> Callable[..., list[Any]]:
        """The rule as a function of operands in any layout and type, to be called or differentiated."""
        last = self._uses_channels_last(operation, entry, operands)
        key = jax.random.fold_in(self.key, operation.index) if entry.random else None
        call = self.call(operation, key=key, channels_last=last)
        names = operation.input_names
        activations = [value in self.fed for value in operation.inputs]

        def function(*values: Any) -> list[Any]:
            is_image = [last and (entry.images == ALL or name in entry.images) for name in names]
            arrays = [
                channels_last_array(value) if image else channels_first(value)
                for value, image in zip(values, is_image, strict=True)
            ]
            results = _as_tuple(entry.function(call, *self.policy.cast(entry.kind, arrays, activations)))
            return [_tagged(result) for result in results] if last else list(results)

        return function

    def call(self, operation: Operation, **options: Any) -> Call:
        return Call(
            operation,
            self.graph.types,
            self.tuning,
            self.policy,
            differentiated=operation.index in self.gradients.wanted,
            statistics_batch=self.graph.statistics_batch,
            **options,
        )

    def _uses_channels_last(self, operation: Operation, entry: Rule, operands: list[Any]) -> bool:
        if not entry.images or operation.attributes.get("data_format") == "NHWC":
            return False
        images = [
            value
            for name, value in zip(operation.input_names, operands, strict=True)
            if entry.images == ALL or name in entry.images
        ]
        if any(any_channels_last(value) for value in images):
            return all(leaf.ndim <= 4 for leaf in jax.tree.leaves(images))
        return entry.prefers_channels_last and images[0].ndim == 4

    def _checked(self, operation: Operation, value: int, result: Any) -> Any:
        """`result` with integers in the declared type; raises EngineError if a rule disagrees with Paddle's types."""
        declared = self.graph.types.get(value)
        if declared is None or result is None or not isinstance(result, (np.ndarray, jax.Array, ChannelsLast)):
            return result
        array = result.array if isinstance(result, ChannelsLast) else result
        wanted = jnp.dtype(declared.dtype)
        if not jnp.issubdtype(array.dtype, jnp.floating) and not jnp.issubdtype(wanted, jnp.floating):
            array = array.astype(wanted)
        shape = channels_first_shape(result) if isinstance(result, ChannelsLast) else array.shape
        fits = all(have == want or want < 0 for have, want in zip(shape, declared.shape, strict=False))
        if not fits and operation.name in _SPREADING and 1 in declared.shape:
            self.misdeclared.add(value)
        fits = len(shape) == len(declared.shape) and (fits or value in self.misdeclared)
        reduced = self.policy.reduced and {str(array.dtype), declared.dtype} == {"float32", "bfloat16"}
        if not fits or (array.dtype != wanted and not reduced):
            raise EngineError(
                f"{operation}: its rule returned {array.dtype} {list(shape)} where Paddle declares "
                f"{declared.dtype} {list(declared.shape)}"
            )
        return ChannelsLast(array) if isinstance(result, ChannelsLast) else array


@dataclass(frozen=True)
class Pullback:
    """Gradients of the results of one operation -> gradients of its operands, by operand position."""

    function: Callable[..., Any]
    results: list[Any]
    wanted: list[int]

    def __call__(self, cotangents: Sequence[Any]) -> dict[int, Any]:
        given = [_like(cotangent, result) for cotangent, result in zip(cotangents, self.results, strict=False)]
        given += [_like(None, result) for result in self.results[len(given) :]]
        return dict(zip(self.wanted, self.function(given), strict=True))


def _linearise(
    function: Callable[..., list[Any]], operands: list[Any], wanted: list[int]
) -> tuple[list[Any], Pullback]:
    def of_wanted(*chosen: Any) -> list[Any]:
        values = list(operands)
        for position, value in zip(wanted, chosen, strict=True):
            values[position] = value
        return function(*values)

    results, pullback = jax.vjp(of_wanted, *(jax.tree.map(jnp.asarray, operands[position]) for position in wanted))
    types = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), results)
    return results, Pullback(pullback, types, wanted)


def _like(cotangent: Any, result: Any) -> Any:
    """A cotangent in the layout and type of the result it belongs to; zeros for None."""
    if isinstance(result, list):
        parts = [None] * len(result) if cotangent is None else cotangent
        return [_like(part, item) for part, item in zip(parts, result, strict=True)]
    if isinstance(result, ChannelsLast):
        array = None if cotangent is None else channels_last_array(cotangent)
        return ChannelsLast(_like(array, result.array))
    if result is None:
        return None
    if not jnp.issubdtype(result.dtype, jnp.floating):
        return np.zeros(result.shape, jax.dtypes.float0)
    if cotangent is None:
        return jnp.zeros(result.shape, result.dtype)
    return channels_first(cotangent).astype(result.dtype).reshape(result.shape)


def _tagged(result: Any) -> Any:
    if isinstance(result, list):
        return [_tagged(item) for item in result]
    return ChannelsLast(result) if result is not None and result.ndim == 4 else result


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)
