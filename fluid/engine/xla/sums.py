"""Loops without what need not be in them: products that they add up, and what is the same in every step.

The gradient of a recurrent weight is the sum over time of products of two matrices of few rows. Added up in the loop, every step
reads and writes a matrix as large as the weight; so the loop hands out the two matrices, and one product over all steps and
rows makes the sum, as cuDNN does. What is made of values from outside alone, such as a weight in bfloat16, is made before the loop:
XLA left that inside, a tenth of an update of the recogniser of speech on an H100.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from fluid.engine.xla import later
from fluid.engine.xla.tuning import DEFAULT, Tuning

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun

Iteration = Callable[[Any, Any], tuple[Any, Any]]


class _Product(NamedTuple):
    """A variable of the loop that starts as anything and grows by a product in each step."""

    place: int
    """Among the leaves of the carry."""
    product: JaxprEqn
    operands: tuple[Var, Var]
    """Of the product."""
    turned: tuple[JaxprEqn, ...]
    """Transpositions between the product and the sum."""


def scan(
    iteration: Iteration, carry: Any, items: Any, *, reverse: bool = False, tuning: Tuning = DEFAULT
) -> tuple[Any, Any]:
    """`lax.scan` with sums of products and what else can wait made after the loop, and what never changes before it.

    `tuning` says how many steps make a turn, and whether products take operands of the sum's type.
    """
    first = jax.tree.map(lambda leaf: leaf[0], items)
    traced, shapes = jax.make_jaxpr(iteration, return_shape=True)(carry, first)
    closed = _with_fixed_values(traced)
    jaxpr = closed.jaxpr
    leaves, tree = jax.tree.flatten(carry)
    count = len(leaves)
    given = dict(zip(jaxpr.invars[count:], jax.tree.leaves(items), strict=True))
    products = _products(jaxpr, count)
    rows = _rows(closed, count, given)
    terms = _terms(jaxpr, count, given)
    late = {item.place for item in products} | rows.keys() | terms.keys()
    kept = [place for place in range(count) if place not in late]

    summed = {term for found in terms.values() for term in found}
    outputs = [value for value in jaxpr.outvars[count:] if isinstance(value, Var)]
    operands = [operand for item in products for operand in item.operands]
    wanted = list(dict.fromkeys([*operands, *summed, *rows.values(), *outputs]))
    planned = later.plan(jaxpr, wanted, given, summed)
    body = ClosedJaxpr(
        jaxpr.replace(
            invars=[jaxpr.invars[place] for place in kept] + jaxpr.invars[count:],
            outvars=[jaxpr.outvars[place] for place in kept] + list(planned.kept),
            eqns=_needed(jaxpr, [*(jaxpr.outvars[place] for place in kept), *planned.kept]),
            debug_info=jaxpr.debug_info.with_unknown_names(),
        ),
        closed.consts,
    )

    def advance(state: list[Any], item: Any) -> tuple[list[Any], Any]:
        results = jaxpr_as_fun(body)(*state, *jax.tree.leaves(item))
        return results[: len(kept)], results[len(kept) :]

    start = [leaves[place] for place in kept]
    final, stacked = lax.scan(advance, start, items, reverse=reverse, unroll=tuning.steps_in_a_turn)
    steps = len(jax.tree.leaves(items)[0])
    of_steps = {**given, **dict(zip(planned.kept, stacked, strict=True))}
    known = dict(zip(wanted, later.make(planned, closed, wanted, of_steps, steps), strict=True))
    after = dict(zip(kept, final, strict=True))
    for item in products:
        after[item.place] = leaves[item.place] + _product(item, known, leaves[item.place].dtype, tuning.widened_sums)
    for place, row in rows.items():
        after[place] = leaves[place] + known[row].reshape(leaves[place].shape)
    for place, found in terms.items():
        after[place] = sum((known[term].sum(axis=0) for term in found), leaves[place])
    results: list[Any] = []
    for value in jaxpr.outvars[count:]:
        if isinstance(value, Literal):
            results.append(jnp.full(steps, value.val))
        else:
            numbers = later.numbers(closed, value, given) if later.size(value) == 1 else None
            results.append(known[value] if numbers is None else numbers)
    return (
        jax.tree.unflatten(tree, [after[place] for place in range(count)]),
        jax.tree.unflatten(jax.tree.structure(shapes[1]), results),
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


def _products(jaxpr: Jaxpr, count: int) -> list[_Product]:
    """Those of the first `count` variables that only grow by products."""
    uses = _uses(jaxpr)
    producers = {value: equation for equation in jaxpr.eqns for value in equation.outvars}
    found = (_product_of(place, jaxpr, uses, producers) for place in range(count))
    return [item for item in found if item is not None]


def _product_of(
    place: int, jaxpr: Jaxpr, uses: Mapping[Var, int], producers: Mapping[Var, JaxprEqn]
) -> _Product | None:
    before, after = jaxpr.invars[place], jaxpr.outvars[place]
    addition = producers.get(after) if isinstance(after, Var) else None
    if addition is None or addition.primitive.name != "add" or before not in addition.invars:
        return None
    if uses[before] != 1 or uses[addition.outvars[0]] != 1:
        return None
    turned = list[JaxprEqn]()
    (term,) = [value for value in addition.invars if value is not before]
    while isinstance(term, Var) and uses[term] == 1 and term in producers:
        equation = producers[term]
        if equation.primitive.name == "dot_general":
            one, other = equation.invars
            if isinstance(one, Literal) or isinstance(other, Literal) or {one, other} & set(jaxpr.constvars):
                return None
            if equation.params["dimension_numbers"][1] != ((), ()):
                return None
            return _Product(place, equation, (one, other), tuple(reversed(turned)))
        if equation.primitive.name == "transpose":
            turned.append(equation)
        elif equation.primitive.name != "convert_element_type":
            return None
        term = equation.invars[0]
    return None


def _rows(closed: ClosedJaxpr, count: int, items: Mapping[Var, Any]) -> dict[int, Var]:
    """By variable among the first `count`: the row that each step adds to it, step number K to row number K.

    That is how the gradient of what a loop reads step by step comes together.
    """
    jaxpr = closed.jaxpr
    producers = {value: equation for equation in jaxpr.eqns for value in equation.outvars}
    found = {}
    for place, added in _all_added(jaxpr, count).items():
        written = producers.get(added[0])
        if len(added) > 1 or written is None or written.primitive.name != "dynamic_update_slice":
            continue
        empty, row, start, *others = written.invars
        filled = producers.get(empty) if isinstance(empty, Var) else None
        is_empty = filled is not None and filled.primitive.name == "broadcast_in_dim" and _is_zero(filled.invars[0])
        rows = later.shape(jaxpr.invars[place])
        if is_empty and all(map(_is_zero, others)) and isinstance(row, Var) and later.shape(row) == (1, *rows[1:]):
            steps = later.numbers(closed, start, items) if isinstance(start, Var) else None
            if steps is not None and np.array_equal(steps, np.arange(rows[0])):
                found[place] = row
    return found


def _is_zero(value: Var | Literal) -> bool:
    return isinstance(value, Literal) and np.ndim(value.val) == 0 and value.val == 0


def _terms(jaxpr: Jaxpr, count: int, items: Collection[Var]) -> dict[int, list[Var]]:
    """By variable among the first `count`: what each step adds to it, sums over rows all of them."""
    return {
        place: added
        for place, added in _all_added(jaxpr, count).items()
        if all(later.sum_over_rows(term, jaxpr, items) for term in added)
    }


def _all_added(jaxpr: Jaxpr, count: int) -> dict[int, list[Var]]:
    """What each step adds to those of the first `count` variables that are used for nothing else."""
    uses = _uses(jaxpr)
    producers = {value: equation for equation in jaxpr.eqns for value in equation.outvars}
    found = {}
    for place, (before, after) in enumerate(zip(jaxpr.invars[:count], jaxpr.outvars[:count], strict=True)):
        added = _added(after, before, uses, producers) if uses[before] == 1 else None
        if added:
            found[place] = added
    return found


def _added(
    value: Var | Literal, start: Var, uses: Mapping[Var, int], producers: Mapping[Var, JaxprEqn]
) -> list[Var] | None:
    """What is added to `start` to make `value`; None if it is made in another way."""
    if value is start:
        return []
    equation = producers.get(value) if isinstance(value, Var) and uses[value] == 1 else None
    if equation is None or equation.primitive.name != "add":
        return None
    one, other = equation.invars
    for sum_so_far, term in ((one, other), (other, one)):
        added = _added(sum_so_far, start, uses, producers)
        if added is not None:
            return [*added, term] if isinstance(term, Var) else None
    return None


def _uses(jaxpr: Jaxpr) -> Counter[Var]:
    uses = Counter(value for equation in jaxpr.eqns for value in equation.invars if isinstance(value, Var))
    uses.update(value for value in jaxpr.outvars if isinstance(value, Var))
    return uses


def _needed(jaxpr: Jaxpr, wanted: Sequence[Any]) -> list[JaxprEqn]:
    """The equations that these values take."""
    needed = {value for value in wanted if isinstance(value, Var)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        if equation.effects or any(value in needed for value in equation.outvars):
            equations.append(equation)
            needed.update(value for value in equation.invars if isinstance(value, Var))
    return equations[::-1]


def _product(item: _Product, stacks: Mapping[Var, Any], dtype: Any, widened: bool) -> jax.Array:
    """The sum over all steps."""
    one, other = (stacks[operand].astype(dtype) if widened else stacks[operand] for operand in item.operands)
    of_one, of_other = ((0, *(axis + 1 for axis in side)) for side in item.product.params["dimension_numbers"][0])
    precision = item.product.params["precision"]
    total = lax.dot_general(
        one, other, ((of_one, of_other), ((), ())), precision=precision, preferred_element_type=dtype
    )
    for equation in item.turned:
        total = jnp.transpose(total, equation.params["permutation"])
    return total
