"""Layers that combine blobs of one shape, and Scale and Bias, which broadcast a small blob or parameter."""

from __future__ import annotations

import math

from ..errors import number_of
from ..names import literal
from .node import Node, register_layer


@register_layer("Eltwise")
def eltwise(node: Node) -> None:
    node.needs_bottoms(2)
    if any(shape != node.shape for shape in node.shapes):
        raise node.error(f"its bottoms have different shapes: {node.shapes}")
    params = node.params("eltwise_param")
    operation = params.choice("operation", ["PROD", "SUM", "MAX"], "SUM")
    coefficients = params.numbers("coeff")
    if coefficients and (operation != "SUM" or len(coefficients) != len(node.inputs)):
        raise node.error(
            f"{number_of(len(coefficients), 'coefficient')} for a {operation} of {number_of(len(node.inputs), 'bottom')}"
        )
    if operation == "SUM":
        terms = zip(node.inputs, coefficients or [1.0] * len(node.inputs), strict=True)
        value = " + ".join(x if factor == 1 else f"{x} * {literal(factor)}" for x, factor in terms)
    elif operation == "PROD":
        value = " * ".join(node.inputs)
    else:
        value = node.inputs[0]
        for x in node.inputs[1:]:
            value = f"paddle.maximum({value}, {x})"
    node.output(value, node.shape)


def _broadcast(node: Node, axis: int, num_axes: int) -> tuple[list[int], list[int]]:
    """The shape of the small operand and how many axes of length 1 must follow it."""
    axis = node.axis(axis)
    if len(node.inputs) > 1:
        small = node.shapes[1]
        if len(small) == 0:
            axis = len(node.shape)
    else:
        if num_axes < -1:
            raise node.error(f"num_axes {num_axes}")
        small = node.shape[axis:] if num_axes == -1 else node.shape[axis : axis + num_axes]
        if num_axes >= 0 and len(small) != num_axes:
            raise node.error(f"{number_of(num_axes, 'axis', 'axes')} from axis {axis} of a blob of shape {node.shape}")
    if node.shape[axis : axis + len(small)] != small:
        raise node.error(f"a blob of shape {small} does not lie along {node.shape} from axis {axis}")
    return small, [1] * (len(node.shape) - axis - len(small))


def _small_operand(node: Node, name: str, index: int, initial: float, shape: tuple[list, list], filler: str) -> str:
    small, ones = shape
    if len(node.inputs) > 1:
        return (
            f"paddle.unsqueeze({node.inputs[1]}, {list(range(len(small), len(small) + len(ones)))})"
            if ones
            else node.inputs[1]
        )
    return node.parameter(name, index, small + ones, initial, stored=small, filler=filler)


@register_layer("Scale")
def scale(node: Node) -> None:
    """x * scale [+ bias], the scale a parameter or the second bottom."""
    node.needs_bottoms(1, 2)
    params = node.params("scale_param")
    shape = _broadcast(node, params.integer("axis", 1), params.integer("num_axes", 1))
    value = f"{node.x} * {_small_operand(node, 'scale', 0, 1.0, shape, 'filler')}"
    if params.flag("bias_term", False):
        small, ones = shape
        index = 0 if len(node.inputs) > 1 else 1
        value += f" + {node.parameter('offset', index, small + ones, stored=small, filler='bias_filler')}"
    node.multiply_adds = math.prod(node.shape[1:])
    node.output(value, node.shape)


@register_layer("Bias")
def bias(node: Node) -> None:
    node.needs_bottoms(1, 2)
    params = node.params("bias_param")
    shape = _broadcast(node, params.integer("axis", 1), params.integer("num_axes", 1))
    node.output(f"{node.x} + {_small_operand(node, 'offset', 0, 0.0, shape, 'filler')}", node.shape)


@register_layer("Axpy")
def axpy(node: Node) -> None:
    """a * x + y with one a per image and channel (SENet's Caffe)."""
    node.needs_bottoms(3, 3)
    factor, x, y = node.shapes
    if factor[:2] != x[:2] or math.prod(factor[2:]) != 1 or x != y or len(x) != 4:
        raise node.error(f"bottoms of shapes {node.shapes}; wanted [N, C, 1, 1], [N, C, H, W] and [N, C, H, W]")
    a = node.inputs[0] if len(factor) == 4 else f"paddle.reshape({node.inputs[0]}, [0, 0, 1, 1])"
    node.output(f"{a} * {node.inputs[1]} + {node.inputs[2]}", x)
