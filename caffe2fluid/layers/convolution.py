"""Convolution, Deconvolution, InnerProduct, Im2col, Embed."""

from __future__ import annotations

import math

import numpy as np

from ..errors import number_of
from ..names import quoted
from ..prototxt import Message
from .node import Node, arguments, pair, register_layer


def spatial_sizes(node: Node, params: Message, axes: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """kernel, stride, pad and dilation for each spatial axis, from ``kernel_size`` or ``kernel_h`` and ``kernel_w``."""

    def sizes(repeated: str, prefix: str, default: int | None, least: int) -> list[int]:
        values = params.integers(repeated)
        if f"{prefix}_h" in params or f"{prefix}_w" in params:
            if axes != 2 or values:
                raise node.error(f"{prefix}_h and {prefix}_w are for two spatial axes and exclude {repeated}")
            values = [params.integer(f"{prefix}_h", default), params.integer(f"{prefix}_w", default)]
        if not values and default is None:
            raise node.error(f"has neither {repeated} nor {prefix}_h and {prefix}_w")
        if len(values) not in (0, 1, axes):
            raise node.error(
                f"{number_of(len(values), 'value')} of {repeated} for {number_of(axes, 'spatial axis', 'spatial axes')}"
            )
        values = values or [default]
        if min(values) < least or max(values) >= 1 << 31:
            raise node.error(f"{repeated} {values} out of range")
        return values * axes if len(values) == 1 else values

    return (
        sizes("kernel_size", "kernel", None, 1),
        sizes("stride", "stride", 1, 1),
        sizes("pad", "pad", 0, 0),
        sizes("dilation", "dilation", 1, 1),
    )


def _sizes_out(node: Node, sizes: list[int], kernel: list[int], stride: list[int], pad: list[int], dilation: list[int]):
    out = [
        (n + 2 * p - (d * (k - 1) + 1)) // s + 1
        for n, k, s, p, d in zip(sizes, kernel, stride, pad, dilation, strict=True)
    ]
    if min(out) < 1:
        raise node.error(f"a kernel of {kernel} (dilation {dilation}) does not fit into {sizes} with pad {pad}")
    return out


def _convolve(node: Node, transposed: bool, group: int | None = None) -> None:
    node.needs_bottoms(1)
    params = node.params("convolution_param")
    axes = len(node.shape) - 2
    if node.axis(params.integer("axis", 1)) != 1 or axes not in (1, 2, 3):
        raise node.unsupported(f"axis {params.integer('axis', 1)} of a blob of shape {node.shape}")
    kernel, stride, pad, dilation = spatial_sizes(node, params, axes)
    channels, filters = node.shape[1], node.positive(params, "num_output")
    group = params.integer("group", 1 if group is None else group)
    if group < 1 or channels % group or filters % group:
        raise node.error(f"{channels} channels and num_output {filters} do not divide into {group} groups")

    shape = [channels, filters // group] if transposed else [filters, channels // group]
    shape += kernel
    bias = params.flag("bias_term", True)
    options = {
        "stride": pair(stride) if max(stride) > 1 else None,
        "padding": pair(pad) if max(pad) else None,
        "dilation": pair(dilation) if max(dilation) > 1 else None,
        "groups": group if group > 1 else None,
    }
    kind = f"Conv{axes}DTranspose" if transposed else f"Conv{axes}D"
    function = f"F.conv{axes}d_transpose" if transposed else f"F.conv{axes}d"
    if node.shared_with(0) or (bias and node.shared_with(1)):
        weight = node.parameter("weights", 0, shape, layout="filters", filler="weight_filler")
        offset = node.parameter("biases", 1, [filters], filler="bias_filler") if bias else "None"
        call = f"{function}({{x}}, {arguments(weight, offset, **options)})"
    else:
        weight = node.weight("weights", 0, shape, filler="weight_filler")
        offset = node.weight("biases", 1, [filters], filler="bias_filler") if bias else None
        sublayer = node.sublayer(
            f"nn.{kind}({arguments(channels, filters, pair(kernel), **options)}, weight_attr={quoted(weight)}, "
            f"bias_attr={offset if offset is None else quoted(offset)})".replace("bias_attr=None", "bias_attr=False")
        )
        node.publish(0, f"{sublayer}.weight", shape, "filters")
        if bias:
            node.publish(1, f"{sublayer}.bias", [filters])
        call = f"{sublayer}({{x}})"

    for x, shape_in in zip(node.inputs, node.shapes, strict=True):  # every bottom is convolved with the same filters
        if len(shape_in) != axes + 2 or shape_in[1] != channels:
            raise node.error(f"bottoms of shapes {node.shapes} cannot share filters")
        if transposed:
            spans = zip(shape_in[2:], kernel, stride, pad, dilation, strict=True)
            sizes = [s * (n - 1) + d * (k - 1) + 1 - 2 * p for n, k, s, p, d in spans]
            if min(sizes) < 1:
                raise node.error(f"the output would have the size {sizes}")
            positions = math.prod(shape_in[2:])
        else:
            sizes = _sizes_out(node, shape_in[2:], kernel, stride, pad, dilation)
            positions = math.prod(sizes)
        node.multiply_adds += positions * math.prod(shape)
        node.output(call.format(x=x), [shape_in[0], filters, *sizes])


@register_layer("Convolution")
def convolution(node: Node) -> None:
    _convolve(node, transposed=False)


@register_layer("DepthwiseConvolution", "ConvolutionDepthwise", "DepthwiseConv", "ConvolutionDepthWise")
def depthwise_convolution(node: Node) -> None:
    """Forks that write depthwise convolutions as their own type; ``group`` may be absent."""
    node.needs_bottoms(1)
    _convolve(node, transposed=False, group=node.shape[1])


@register_layer("Deconvolution")
def deconvolution(node: Node) -> None:
    _convolve(node, transposed=True)


@register_layer("DeformableConvolution")
def deformable_convolution(node: Node) -> None:
    """Pairs of bottoms: values, and how far each tap is moved (Dai et al., https://arxiv.org/abs/1703.06211)."""
    node.needs_bottoms(2)
    node.needs_axes(4)
    params = node.params("deformable_convolution_param")
    kernel, stride, pad, dilation = spatial_sizes(node, params, 2)
    channels, filters = node.shape[1], node.positive(params, "num_output")
    group, moved = params.integer("group", 1), params.integer("deformable_group", 1)
    if node.axis(params.integer("axis", 1)) != 1 or len(node.inputs) % 2:
        raise node.error(f"bottoms of shapes {node.shapes} along axis {params.integer('axis', 1)}")
    if min(group, moved) < 1 or channels % group or filters % group or channels % moved:
        raise node.error(f"{channels} channels and num_output {filters} do not divide into {group} and {moved} groups")
    weight = node.parameter(
        "weights", 0, [filters, channels // group, *kernel], layout="filters", filler="weight_filler"
    )
    bias = params.flag("bias_term", True)
    offset = node.parameter("biases", 1, [filters], filler="bias_filler") if bias else "None"
    pairs = zip(node.inputs[::2], node.shapes[::2], node.inputs[1::2], node.shapes[1::2], strict=True)
    for x, shape, moves, shape_moves in pairs:
        sizes = _sizes_out(node, shape[2:], kernel, stride, pad, dilation)
        if shape[1] != channels or shape_moves != [shape[0], 2 * moved * math.prod(kernel), *sizes]:
            raise node.error(f"bottoms of shapes {node.shapes} for a kernel of {kernel} and {moved} groups of offsets")
        node.multiply_adds += math.prod(sizes) * filters * channels // group * math.prod(kernel)
        call = arguments(x, moves, weight, offset, stride, pad, dilation, group, moved)
        node.output(f"{node.helper('deformable_convolution')}({call})", [shape[0], filters, *sizes])


@register_layer("Correlation")
def correlation(node: Node) -> None:
    """FlowNet (Fischer et al., https://arxiv.org/abs/1504.06852)."""
    node.needs_bottoms(2, 2)
    node.needs_axes(4)
    params = node.params("correlation_param")
    if "kernel_size" not in params or "max_displacement" not in params:
        raise node.unsupported("without kernel_size and max_displacement: another fork's layer than FlowNet's")
    kernel, reach = params.integer("kernel_size"), params.integer("max_displacement")
    pad, stride, step = params.integer("pad", 0), params.integer("stride_1", 1), params.integer("stride_2", 1)
    difference = params.choice("correlation_type", ["MULTIPLY", "SUBTRACT"], "MULTIPLY") == "SUBTRACT"
    params.flag("do_abs", False)  # its code reads it, and then never asks
    if node.shapes[1] != node.shape or kernel % 2 == 0 or min(reach, pad) < 0 or min(kernel, stride, step) < 1:
        raise node.error(f"bottoms of shapes {node.shapes}, kernel_size {kernel}, max_displacement {reach}")
    sizes = [-(-(n + 2 * (pad - reach) - kernel + 1) // stride) for n in node.shape[2:]]
    if min(sizes) < 1:
        raise node.error(
            f"max_displacement {reach} and kernel_size {kernel} do not fit into {node.shape[2:]} with pad {pad}"
        )
    displacements = (2 * (reach // step) + 1) ** 2
    call = arguments(*node.inputs, kernel, reach, stride, step, pad, difference)
    node.multiply_adds = displacements * math.prod(sizes) * node.shape[1] * kernel**2
    node.output(f"{node.helper('correlation')}({call})", [node.shape[0], displacements, *sizes])


@register_layer("InnerProduct")
def inner_product(node: Node) -> None:
    params = node.params("inner_product_param")
    units, axis = node.positive(params, "num_output"), node.axis(params.integer("axis", 1))
    inputs = math.prod(node.shape[axis:])
    if inputs < 1:
        raise node.error(f"its bottom of shape {node.shape} is empty")
    x, outer = node.x, node.shape[:axis]
    if axis == 0:
        x = f"paddle.reshape({x}, [1, -1])"
    elif axis < len(node.shape) - 1:
        x = f"paddle.flatten({x}, {axis})"

    transpose, bias = params.flag("transpose", False), params.flag("bias_term", True)
    load = {
        "stored": [inputs, units] if transpose else [units, inputs],
        "transposed": not transpose,  # Paddle keeps [inputs, units]
        "filler": "weight_filler",
    }
    layout = "linear, transposed" if transpose else "linear"
    if node.shared_with(0) or (bias and node.shared_with(1)):
        weight = node.parameter("weights", 0, [inputs, units], layout=layout, **load)
        offset = node.parameter("biases", 1, [units], filler="bias_filler") if bias else "None"
        value = f"F.linear({x}, {weight}, {offset})"
    else:
        weight = node.weight("weights", 0, [inputs, units], **load)
        offset = quoted(node.weight("biases", 1, [units], filler="bias_filler")) if bias else "False"
        sublayer = node.sublayer(f"nn.Linear({inputs}, {units}, weight_attr={quoted(weight)}, bias_attr={offset})")
        node.publish(0, f"{sublayer}.weight", [inputs, units], layout)
        if bias:
            node.publish(1, f"{sublayer}.bias", [units])
        value = f"{sublayer}({x})"
    node.multiply_adds = inputs * units * math.prod(outer[1:])
    node.output(f"paddle.reshape({value}, [{units}])" if axis == 0 else value, [*outer, units])


@register_layer("MarginInnerProduct")
def margin_inner_product(node: Node) -> None:
    """SphereFace's (Liu et al., https://arxiv.org/abs/1704.08063) without the margin, which is for the labelled class in
    training: an InnerProduct whose rows have the length 1."""
    params = node.params("margin_inner_product_param")
    units, axis = node.positive(params, "num_output"), node.axis(params.integer("axis", 1))
    inputs = math.prod(node.shape[axis:])
    if axis == 0:
        raise node.error("axis 0; Caffe's has one row for each item of the batch")
    for name in ("type", "base", "gamma", "power", "iteration", "lambda_min"):
        params.values(name)
    weight = node.weight(
        "weights", 0, [inputs, units], lambda blob: (blob / np.linalg.norm(blob, axis=1, keepdims=True)).T,
        stored=[units, inputs], filler="weight_filler",
    )  # fmt: skip
    x = f"paddle.flatten({node.x}, {axis})" if axis < len(node.shape) - 1 else node.x
    node.multiply_adds = inputs * units
    sublayer = node.sublayer(f"nn.Linear({inputs}, {units}, weight_attr={quoted(weight)}, bias_attr=False)")
    node.output(f"{sublayer}({x})", [*node.shape[:axis], units])


@register_layer("Im2col")
def im2col(node: Node) -> None:
    params = node.params("convolution_param")
    node.needs_axes(4)
    kernel, stride, pad, dilation = spatial_sizes(node, params, 2)
    sizes = _sizes_out(node, node.shape[2:], kernel, stride, pad, dilation)
    columns = node.shape[1] * math.prod(kernel)
    unfold = arguments(node.x, pair(kernel), pair(stride), pair(pad), pair(dilation))
    node.output(f"paddle.reshape(F.unfold({unfold}), [0, 0, {sizes[0]}, {sizes[1]}])", [node.shape[0], columns, *sizes])


@register_layer("Embed")
def embed(node: Node) -> None:
    params = node.params("embed_param")
    words, units = node.positive(params, "input_dim"), node.positive(params, "num_output")
    table = node.parameter("weights", 0, [words, units], filler="weight_filler")
    value = f"F.embedding(paddle.cast({node.x}, 'int64'), {table})"
    if params.flag("bias_term", True):
        value += f" + {node.parameter('biases', 1, [units], filler='bias_filler')}"
    node.output(value, [*node.shape, units])
