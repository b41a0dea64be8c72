"""What depends on the weights alone, taken out of an evaluation step.

Every step converts every kernel to the type and the order of axes that its convolution wants, and turns batch
statistics into a factor and a shift. The results stay the same as long as the weights do: computed once and kept, they
spare a step on one image as many launches as the network has layers.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun


class Halves(NamedTuple):
    """`after(before(constant), *arguments)` is `function(constant, *arguments)`."""

    before: Callable[..., Any]
    after: Callable[..., Any]
    name: str
    """The text of the first half: equal for two functions that prepare the same values."""


def halve(function: Callable[..., Any], constant: Sequence[Any], *arguments: Any) -> Halves:
    """Split a function of (list of arrays, ...) into what needs only the list and the rest.

    The examples give shapes and types. A value that is larger than all it is made of, such as a vector spread over an
    image, is left to the second half: reading it would cost more than making it.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(list(constant), *arguments)
    jaxpr = closed.jaxpr
    given, rest = jaxpr.invars[: len(constant)], jaxpr.invars[len(constant) :]
    free, known = set(jaxpr.constvars), set(given)
    first, second = [], []
    for equation in jaxpr.eqns:
        operands = set(_variables(equation.invars))
        if not equation.effects and operands <= free:
            # Made of nothing but numbers in the Program: both halves may compute it.
            free.update(equation.outvars)
            first.append(equation)
            second.append(equation)
        elif not equation.effects and operands <= free | known and not _grows(equation):
            known.update(equation.outvars)
            first.append(equation)
        else:
            second.append(equation)
    second = _needed(second, jaxpr.outvars)
    used = {*_operands(second), *_variables(jaxpr.outvars)}
    kept = [value for value in [*given, *_results(first)] if value in known and value in used]
    before = _closed(closed, invars=given, outvars=kept, eqns=_needed(first, kept))
    after = _closed(closed, invars=kept + rest, eqns=second)
    tree = jax.tree.structure(shapes)

    def run_after(prepared: Sequence[Any], *others: Any) -> Any:
        return jax.tree.unflatten(tree, jaxpr_as_fun(after)(*prepared, *jax.tree.leaves(others)))

    return Halves(lambda values: jaxpr_as_fun(before)(*values), run_after, str(before))


def _closed(closed: ClosedJaxpr, **changes: Any) -> ClosedJaxpr:
    return ClosedJaxpr(closed.jaxpr.replace(**changes), closed.consts)


def _needed(equations: Sequence[JaxprEqn], wanted: Iterable[Any]) -> list[JaxprEqn]:
    """The equations that the wanted values depend on, and those with effects."""
    needed, kept = set(_variables(wanted)), []
    for equation in reversed(equations):
        if equation.effects or not needed.isdisjoint(equation.outvars):
            needed.update(_variables(equation.invars))
            kept.append(equation)
    return kept[::-1]


def _grows(equation: JaxprEqn) -> bool:
    largest = max((value.aval.size for value in _variables(equation.invars)), default=0)
    return any(value.aval.size > largest for value in equation.outvars)


def _operands(equations: Iterable[JaxprEqn]) -> list[Var]:
    return [value for equation in equations for value in _variables(equation.invars)]


def _results(equations: Iterable[JaxprEqn]) -> list[Var]:
    return [value for equation in equations for value in equation.outvars]


def _variables(values: Iterable[Any]) -> list[Var]:
    return [value for value in values if not isinstance(value, Literal)]
