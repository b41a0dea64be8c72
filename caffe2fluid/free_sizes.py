"""Which sizes of the inputs the code of a net does not depend on: found by translating it for others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from .errors import ConvertError

if TYPE_CHECKING:
    from .translate import Translation

LARGE, SMALL = ((64, 32), (32, 64)), ((3, 1), (1, 2))
"""What is added to height and width. Small steps show what rounding does, but some nets take multiples of 32 alone; and a
classifier whose map rounding leaves as large as it was takes a few pixels more and no other size."""

Shapes = dict[str, list[int]]


class FixedSizeError(ConvertError):
    """The code for another size is another."""


def find_free_sizes(translation: Translation, again: Callable[[Shapes], Translation], required: bool) -> None:
    """Puts None into ``free_shapes`` for each size that the code fits whatever it is: the batch, height and width.

    ``again`` translates for other shapes of the inputs. Raises ConvertError that names the layer if ``required`` and
    the net takes images of one size only.
    """
    inputs = translation.network.inputs
    first = next(iter(inputs.values()))
    for grows in (lambda shape: True, lambda shape: shape[0] == first[0]):
        larger = {name: [shape[0] + 1, *shape[1:]] if grows(shape) else shape for name, shape in inputs.items()}
        with contextlib.suppress(ConvertError):
            _mark(translation, [_same_code(translation, again, larger)])
            break
    images = [shape[2:] for shape in inputs.values() if _is_image(shape)]
    reason: object = "no input of it is an image"
    for sizes in (images, images[:1]) if images else ():
        try:
            _mark(translation, _at_other_sizes(translation, again, sizes))
            return
        except ConvertError as error:
            reason = error
    if required:
        raise ConvertError(f"--any_size: the net takes images of one size only: {reason}")


def _is_image(shape: list[int]) -> bool:
    return len(shape) == 4 and min(shape[2:]) > 1


def _at_other_sizes(
    translation: Translation, again: Callable[[Shapes], Translation], sizes: list[list[int]]
) -> list[Translation]:
    """The translations for images grown by the large steps, and by the small ones that the net takes, all with the same code."""
    fitting = []
    for high, wide in (*LARGE, *SMALL):
        larger = {
            name: [*shape[:2], shape[2] + high, shape[3] + wide] if _is_image(shape) and shape[2:] in sizes else shape
            for name, shape in translation.network.inputs.items()
        }
        try:
            fitting.append(_same_code(translation, again, larger))
        except ConvertError as error:
            if isinstance(error, FixedSizeError) or (high, wide) in LARGE:
                raise
    return fitting


def _same_code(translation: Translation, again: Callable[[Shapes], Translation], inputs: Shapes) -> Translation:
    other = again(inputs)
    for ours, theirs in zip(translation.nodes, other.nodes, strict=True):
        if ours.init != theirs.init or ours.values != theirs.values:
            raise FixedSizeError(f"{ours.layer.where} ({ours.layer.type}) computes something else for each size")
    return other


def _mark(translation: Translation, others: Iterable[Translation]) -> None:
    for other in others:
        for name, shape in translation.free_shapes.items():
            sizes = zip(shape, translation.shapes[name], other.shapes[name], strict=True)
            translation.free_shapes[name] = [free if here == there else None for free, here, there in sizes]
