"""What depends on the weights alone, taken out of an evaluation step.

Every step converts every kernel to the type and the order of axes that its convolution wants, and turns batch
statistics into a factor and a shift. The results stay the same as long as the weights do: computed once and kept, they
spare a step on one image as many launches as the network has layers.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

VIEWS = ("slice", "squeeze", "reshape", "broadcast_in_dim")


class Halves(NamedTuple):
    """`after(before(constant), *arguments)` is `function(constant, *arguments)`."""

    before: Callable[..., Any]
    after: Callable[..., Any]
    name: str
    """Of the first half, its text and constants: equal for two functions that prepare the same values."""


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
    first, views = _views_at_the_end(first, known)
    known.difference_update(_results(views))
    second = _needed(views + second, jaxpr.outvars)
    used = {*_operands(second), *_variables(jaxpr.outvars)}
    kept = [value for value in [*given, *_results(first)] if value in known and value in used]
    before = _closed(closed, invars=given, outvars=kept, eqns=_needed(first, kept))
    after = _closed(closed, invars=kept + rest, eqns=second)
    tree = jax.tree.structure(shapes)
    shapes_between: list[Any] = [value.aval for value in kept]

    def run_before(values: Sequence[Any]) -> list[jax.Array]:
        return _packed(jaxpr_as_fun(before)(*values))

    def run_after(prepared: Sequence[Any], *others: Any) -> Any:
        values = _unpacked(prepared, shapes_between)
        return jax.tree.unflatten(tree, jaxpr_as_fun(after)(*values, *jax.tree.leaves(others)))

    return Halves(run_before, run_after, f"{before}{_digest(before)}")


def _digest(closed: ClosedJaxpr) -> str:
    """Of the constants that it uses: they may follow from the shapes of what is fed, and its text does not show them."""
    used, digest = set(_operands(closed.jaxpr.eqns)), hashlib.sha256()
    for value, constant in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        if value in used:
            digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()


def _views_at_the_end(equations: Sequence[JaxprEqn], known: set[Var]) -> tuple[list[JaxprEqn], list[JaxprEqn]]:
    """Equations without the slices and reshapes that none of them needs, and those.

    The second half reads a part of a kept array as fast as a copy of it, and every array that it is given costs time.
    """
    kept: list[JaxprEqn] = []
    views: list[JaxprEqn] = []
    used: set[Var] = set()
    for equation in reversed(equations):
        outputs = set(equation.outvars)
        if equation.primitive.name in VIEWS and outputs <= known and used.isdisjoint(outputs):
            views.append(equation)
        else:
            kept.append(equation)
            used.update(_variables(equation.invars))
    return kept[::-1], views[::-1]


def _packed(arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """All vectors of a type as one, then the other arrays.

    A network has two vectors a layer, and each array that a step is given costs time.
    """
    vectors: dict[Any, list[jax.Array]] = {}
    for array in arrays:
        if array.ndim == 1:
            vectors.setdefault(array.dtype, []).append(array)
    return [*map(jnp.concatenate, vectors.values()), *(array for array in arrays if array.ndim != 1)]


def _unpacked(packed: Sequence[jax.Array], shapes: Sequence[jax.ShapeDtypeStruct]) -> list[jax.Array]:
    """What `_packed` was given, of these shapes and types."""
    types = list(dict.fromkeys(item.dtype for item in shapes if item.ndim == 1))
    vectors, others, starts = dict(zip(types, packed)), iter(packed[len(types) :]), dict.fromkeys(types, 0)
    arrays = []
    for item in shapes:
        if item.ndim != 1:
            arrays.append(next(others))
            continue
        start = starts[item.dtype]
        arrays.append(vectors[item.dtype][start : start + item.size])
        starts[item.dtype] += item.size
    return arrays


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
    largest = max(map(_size, _variables(equation.invars)), default=0)
    return any(_size(value) > largest for value in equation.outvars)


def _size(value: Var) -> int:
    return getattr(value.aval, "size", 0)


def _operands(equations: Iterable[JaxprEqn]) -> list[Var]:
    return [value for equation in equations for value in _variables(equation.invars)]


def _results(equations: Iterable[JaxprEqn]) -> list[Var]:
    return [value for equation in equations for value in equation.outvars]


def _variables(values: Iterable[Any]) -> list[Var]:
    return [value for value in values if not isinstance(value, Literal)]
