"""What a loop need not compute or keep step by step, since it can be made for all steps at once when the loop is over.

A loop that is trained keeps what its gradient needs of every step, and each of these values is one more small kernel in
each step, a write of its own. Most are made of few others by additions, products, tanh and the like: so the loop hands out
the few, and the rest follows after it, as arrays of all steps. Sums of a gradient over the rows of a batch are made there, too.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

SIMPLE = {
    *("add", "sub", "mul", "div", "neg", "sign", "abs", "max", "min", "square", "integer_pow", "add_any"),
    *("tanh", "logistic", "exp", "exp2", "log", "log1p", "sqrt", "rsqrt"),
    *("select_n", "lt", "le", "gt", "ge", "eq", "ne", "and", "or", "not", "convert_element_type"),
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "slice", "split", "concatenate", "stack", "pad"),
    *("dynamic_slice", "reshard", "reduce_sum"),
}  # fmt: skip
"""What costs little to make again."""
_FORMS = {"reshape", "squeeze", "expand_dims", "broadcast_in_dim", "pad", "convert_element_type", "transpose"}
"""What stands between a sum over rows and where it is added."""
_ADDITIONS = {"add", "add_any"}
LARGER = 4
"""What is kept instead of a value may be so many times as large."""


class Later(NamedTuple):
    """How values of every step are had after a loop."""

    kept: tuple[Var, ...]
    """What the loop hands out of every step."""
    equations: tuple[JaxprEqn, ...]
    """What makes the others of those and of items, in order."""


def plan(jaxpr: Jaxpr, wanted: Sequence[Var], items: Collection[Var], summed: Collection[Var] = ()) -> Later:
    """How the `wanted` values of an iteration are had for all steps.

    Args:
        jaxpr: of the iteration.
        items: those of its inputs that are there for all steps before the loop.
        summed: values among `wanted` that may be sums over rows (`sum_over_rows`).
    """
    sources = _sources(jaxpr, items)
    kept: dict[Var, None] = {}
    open_ends: set[Var] = set()
    for value in wanted:
        known = sources[value]
        if value in summed or all(size(source) <= LARGER * size(value) for source in known):
            kept.update(dict.fromkeys(known))
            open_ends.add(value)
        else:
            kept[value] = None
    equations = []
    for equation in reversed(jaxpr.eqns):
        if any(value in open_ends and value not in kept for value in equation.outvars):
            equations.append(equation)
            open_ends.update(value for value in equation.invars if isinstance(value, Var))
    return Later(tuple(kept), tuple(reversed(equations)))


def sum_over_rows(value: Var, jaxpr: Jaxpr, items: Collection[Var]) -> bool:
    """Whether a value of an iteration is a sum over rows of what can be made after the loop, or several of them added up.

    The latter is what a parameter gets of which every step reads several parts, such as the offsets and peepholes of an LSTM.
    """
    producers = {made: equation for equation in jaxpr.eqns for made in equation.outvars}
    known = _sources(jaxpr, items)

    def is_sum(value: Var | Literal) -> bool:
        equation = producers.get(value) if isinstance(value, Var) else None
        if equation is None:
            return False
        name, operand = equation.primitive.name, equation.invars[0]
        if name in _ADDITIONS:
            return all(map(is_sum, equation.invars))
        if name in _FORMS:
            return is_sum(operand)
        if name != "reduce_sum" or not isinstance(operand, Var):
            return False
        return all(size(source) <= LARGER * size(operand) for source in known[operand])

    return is_sum(value)


def size(value: Var) -> int:
    """Numbers that a value consists of."""
    return math.prod(shape(value))


def shape(value: Var) -> tuple[int, ...]:
    """Of a value; a random key is a number."""
    return getattr(value.aval, "shape", ())


def _sources(jaxpr: Jaxpr, items: Collection[Var]) -> dict[Var, tuple[Var, ...]]:
    """By value: what has to be kept of a step, beside items, to make it again; itself where that costs too much.

    In the order of the iteration: sets of variables come in the order of their addresses, and the same Program must be the
    same code in every process.
    """
    sources: dict[Var, tuple[Var, ...]] = dict.fromkeys([*jaxpr.constvars, *items], ())
    sources |= {value: (value,) for value in jaxpr.invars if value not in sources}
    for equation in jaxpr.eqns:
        known = [sources[value] for value in equation.invars if isinstance(value, Var)]
        again = tuple(dict.fromkeys(source for some in known for source in some))
        for value in equation.outvars:
            sources[value] = again if _simple(equation) else (value,)
    return sources


def _simple(equation: JaxprEqn) -> bool:
    if equation.primitive.name == "jit":
        return all(_simple(inner) for inner in equation.params["jaxpr"].jaxpr.eqns)
    return not equation.effects and equation.primitive.name in SIMPLE


def make(
    later: Later, closed: ClosedJaxpr, wanted: Sequence[Var], given: Mapping[Var, Any], steps: int
) -> list[jax.Array]:
    """The `wanted` values of all steps, [steps, ...].

    Args:
        later: `plan` of them.
        closed: the iteration with what it finds outside.
        given: items and what the loop handed out, of all steps.
    """
    inside = {value for equation in later.equations for value in equation.invars if isinstance(value, Var)}
    inside.update(wanted)
    names = [value for value in given if value in inside]
    body = closed.jaxpr.replace(
        invars=names,
        outvars=list(wanted),
        eqns=[_of_any_shape(equation) for equation in later.equations],
        debug_info=closed.jaxpr.debug_info.with_unknown_names(),
    )
    # The number of the step is there so that what is the same in all of them is repeated as well.
    every = jax.vmap(lambda step, *values: jaxpr_as_fun(ClosedJaxpr(body, closed.consts))(*values))
    return every(jnp.arange(steps), *(given[value] for value in names))


def numbers(closed: ClosedJaxpr, value: Var, items: Mapping[Var, Any]) -> np.ndarray | None:
    """A value of an iteration in every step, if it is made of items that are known while tracing."""
    known = {item: array for item, array in items.items() if isinstance(array, np.ndarray)}
    planned = plan(closed.jaxpr, [value], known)
    if planned.kept or not known:
        return None
    constants = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    used = {operand for equation in planned.equations for operand in equation.invars if isinstance(operand, Var)}
    if any(isinstance(constants.get(operand), jax.core.Tracer) for operand in used):
        return None
    with jax.ensure_compile_time_eval():
        return np.asarray(make(planned, closed, [value], known, len(next(iter(known.values()))))[0])


def _of_any_shape(equation: JaxprEqn) -> JaxprEqn:
    """A reshape without the sharding of its result, which has one axis more outside of the loop."""
    if equation.primitive.name == "reshape":
        return equation.replace(params={**equation.params, "sharding": None})
    return equation
