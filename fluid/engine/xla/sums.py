"""Loops without what need not be in them: products that they add up, and what is the same in every step.

The gradient of a recurrent weight is the sum over time of products of two matrices of few rows. Added up in the loop, every step
reads and writes a matrix as large as the weight; so the loop hands out the two matrices, and one product over all steps and
rows makes the sum, as cuDNN does. What is made of values from outside alone, such as a weight in bfloat16, is made before the loop:
XLA left that inside, a tenth of an update of the recogniser of speech on an H100.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

Iteration = Callable[[Any, Any], tuple[Any, Any]]


class _Sum(NamedTuple):
    """A variable of the loop that starts as anything and grows by a product in each step."""

    place: int
    """Among the leaves of the carry."""
    product: JaxprEqn
    operands: tuple[Var, Var]
    """Of the product."""
    turned: tuple[JaxprEqn, ...]
    """Transpositions between the product and the sum."""
    dropped: tuple[JaxprEqn, ...]
    """What the loop need not compute any more."""


def scan(iteration: Iteration, carry: Any, items: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """`lax.scan`, with sums of products made after the loop and what never changes before it."""
    first = jax.tree.map(lambda leaf: leaf[0], items)
    traced, shapes = jax.make_jaxpr(iteration, return_shape=True)(carry, first)
    closed = _with_fixed_values(traced)
    leaves, tree = jax.tree.flatten(carry)
    count = len(leaves)
    sums = _sums(closed.jaxpr, count)
    places = {item.place for item in sums}
    kept = [place for place in range(count) if place not in places]
    producers = {value: equation for equation in closed.jaxpr.eqns for value in equation.outvars}
    given = dict(zip(closed.jaxpr.invars[count:], jax.tree.leaves(items), strict=True))
    operands = list(dict.fromkeys(operand for item in sums for operand in item.operands))
    prepared = {operand: _of_items(operand, producers, given) for operand in operands}
    handed = [operand for operand in operands if prepared[operand] is None]
    body = _without(closed, sums, kept, count, handed)

    def advance(state: list[Any], item: Any) -> tuple[list[Any], Any]:
        results = jaxpr_as_fun(body)(*state, *jax.tree.leaves(item))
        ends = len(kept), len(kept) + len(handed)
        return results[: ends[0]], (results[ends[0] : ends[1]], results[ends[1] :])

    final, (stacked, outputs) = lax.scan(advance, [leaves[place] for place in kept], items, reverse=reverse)
    stacks = {**prepared, **dict(zip(handed, stacked, strict=True))}
    after = dict(zip(kept, final, strict=True))
    for item in sums:
        after[item.place] = leaves[item.place] + _product(item, stacks, leaves[item.place].dtype)
    return (
        jax.tree.unflatten(tree, [after[place] for place in range(count)]),
        jax.tree.unflatten(jax.tree.structure(shapes[1]), outputs),
    )


def _with_fixed_values(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The iteration with what depends on values from outside alone among those; but not what is larger than all it is made of."""
    jaxpr = closed.jaxpr
    known = set(jaxpr.constvars)
    fixed, others = [], []
    for equation in jaxpr.eqns:
        operands = [value for value in equation.invars if isinstance(value, Var)]
        largest = max((value.aval.size for value in operands if hasattr(value.aval, "size")), default=0)
        small = all(getattr(value.aval, "size", largest + 1) <= largest for value in equation.outvars)
        if operands and known.issuperset(operands) and small and not equation.effects:
            known.update(equation.outvars)
            fixed.append(equation)
        else:
            others.append(equation)
    used = {value for equation in others for value in equation.invars if isinstance(value, Var)}
    used |= {value for value in jaxpr.outvars if isinstance(value, Var)}
    made = [value for equation in fixed for value in equation.outvars if value in used]
    names = jaxpr.debug_info.with_unknown_names()
    before = jaxpr.replace(constvars=[], invars=jaxpr.constvars, outvars=made, eqns=fixed, debug_info=names)
    values = jaxpr_as_fun(ClosedJaxpr(before, []))(*closed.consts)
    return ClosedJaxpr(jaxpr.replace(constvars=[*jaxpr.constvars, *made], eqns=others), [*closed.consts, *values])


def _sums(jaxpr: Jaxpr, count: int) -> list[_Sum]:
    """Those of the first `count` variables that only grow by products."""
    uses = Counter(value for equation in jaxpr.eqns for value in equation.invars if isinstance(value, Var))
    uses.update(value for value in jaxpr.outvars if isinstance(value, Var))
    producers = {value: equation for equation in jaxpr.eqns for value in equation.outvars}
    found = (_sum(place, jaxpr, uses, producers) for place in range(count))
    return [item for item in found if item is not None]


def _sum(place: int, jaxpr: Jaxpr, uses: Mapping[Var, int], producers: Mapping[Var, JaxprEqn]) -> _Sum | None:
    before, after = jaxpr.invars[place], jaxpr.outvars[place]
    addition = producers.get(after) if isinstance(after, Var) else None
    if addition is None or addition.primitive.name != "add" or before not in addition.invars:
        return None
    if uses[before] != 1 or uses[addition.outvars[0]] != 1:
        return None
    dropped, turned = [addition], list[JaxprEqn]()
    (term,) = [value for value in addition.invars if value is not before]
    while isinstance(term, Var) and uses[term] == 1 and term in producers:
        equation = producers[term]
        dropped.append(equation)
        if equation.primitive.name == "dot_general":
            one, other = equation.invars
            if isinstance(one, Literal) or isinstance(other, Literal) or {one, other} & set(jaxpr.constvars):
                return None
            if equation.params["dimension_numbers"][1] != ((), ()):
                return None
            return _Sum(place, equation, (one, other), tuple(reversed(turned)), tuple(dropped))
        if equation.primitive.name == "transpose":
            turned.append(equation)
        elif equation.primitive.name != "convert_element_type":
            return None
        term = equation.invars[0]
    return None


def _without(
    closed: ClosedJaxpr, sums: Sequence[_Sum], kept: Sequence[int], count: int, handed: Sequence[Var]
) -> ClosedJaxpr:
    """The iteration without the sums: variables -> variables, what is handed out, outputs."""
    jaxpr = closed.jaxpr
    dropped = {id(equation) for item in sums for equation in item.dropped}
    changed = jaxpr.replace(
        invars=[jaxpr.invars[place] for place in kept] + jaxpr.invars[count:],
        outvars=[jaxpr.outvars[place] for place in kept] + list(handed) + jaxpr.outvars[count:],
        eqns=[equation for equation in jaxpr.eqns if id(equation) not in dropped],
        debug_info=jaxpr.debug_info.with_unknown_names(),
    )
    return ClosedJaxpr(changed, closed.consts)


def _of_items(value: Var, producers: Mapping[Var, JaxprEqn], given: Mapping[Var, Any]) -> Any:
    """[steps, ...] of a value that an iteration only takes out of its item; None for others."""
    if value in given:
        return given[value]
    equation = producers.get(value)
    if equation is None or equation.primitive.name not in ("squeeze", "convert_element_type"):
        return None
    (operand,) = equation.invars
    stacked = None if isinstance(operand, Literal) else _of_items(operand, producers, given)
    if stacked is None:
        return None
    if equation.primitive.name == "squeeze":
        return lax.squeeze(stacked, [axis + 1 for axis in equation.params["dimensions"]])
    return stacked.astype(equation.params["new_dtype"])


def _product(item: _Sum, stacks: Mapping[Var, Any], dtype: Any) -> jax.Array:
    """The sum over all steps."""
    one, other = (stacks[operand] for operand in item.operands)
    of_one, of_other = ((0, *(axis + 1 for axis in side)) for side in item.product.params["dimension_numbers"][0])
    precision = item.product.params["precision"]
    total = lax.dot_general(
        one, other, ((of_one, of_other), ((), ())), precision=precision, preferred_element_type=dtype
    )
    for equation in item.turned:
        total = jnp.transpose(total, equation.params["permutation"])
    return total
