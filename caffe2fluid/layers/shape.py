"""Layers that move, select or reduce values."""

from __future__ import annotations

import math

import numpy as np

from ..errors import number_of
from ..names import literal
from .node import Node, arguments, register_layer, same, transposed_before


@register_layer("Concat")
def concat(node: Node) -> None:
    node.needs_bottoms(1)
    params = node.params("concat_param")
    axis = node.axis(params.integer("axis", params.integer("concat_dim", 1)))
    rest = [shape[:axis] + shape[axis + 1 :] for shape in node.shapes]
    if any(len(shape) != len(node.shape) for shape in node.shapes) or any(other != rest[0] for other in rest):
        raise node.error(f"bottoms of shapes {node.shapes} do not join along axis {axis}")
    out = list(node.shape)
    out[axis] = sum(shape[axis] for shape in node.shapes)
    joined = f"paddle.concat([{', '.join(node.inputs)}], {axis})"
    node.output(same(node.x) if len(node.inputs) == 1 else joined, out)


@register_layer("Slice")
def slice_(node: Node) -> None:
    params = node.params("slice_param")
    axis = node.axis(params.integer("axis", params.integer("slice_dim", 1)))
    points, size, tops = params.integers("slice_point"), node.shape[axis], len(node.layer.tops)
    if points:
        edges = [0, *points, size]
        parts = [end - start for start, end in zip(edges, edges[1:], strict=False)]
        if len(points) != tops - 1 or min(parts) < 1:
            raise node.error(f"slice points {points} for {tops} tops along an axis of {size}")
    else:
        if tops == 0 or size % tops:
            raise node.error(f"an axis of {size} does not divide into {tops} tops")
        parts = [size // tops] * tops
    start = 0
    for part in parts:
        shape = list(node.shape)
        shape[axis] = part
        value = f"{node.x}[{':, ' * axis}{start}:{start + part}]"
        node.output(value if part < size else same(node.x), shape)
        start += part


@register_layer("Split")
def split(node: Node) -> None:
    copy = node.x
    for _ in node.layer.tops:
        copy = same(copy)
        node.output(copy, node.shape)


@register_layer("Silence")
def silence(node: Node) -> None:
    """Reads blobs so that they are no outputs of the net; computes nothing."""


@register_layer("Flatten")
def flatten(node: Node) -> None:
    params = node.params("flatten_param")
    start, end = node.axis(params.integer("axis", 1)), node.axis(params.integer("end_axis", -1))
    if end < start:
        raise node.error(f"end_axis {end} lies before axis {start}")
    shape = [*node.shape[:start], math.prod(node.shape[start : end + 1]), *node.shape[end + 1 :]]
    stop = None if end == len(node.shape) - 1 else end
    node.output(same(node.x) if start == end else f"paddle.flatten({arguments(node.x, start, stop_axis=stop)})", shape)


@register_layer("Reshape")
def reshape(node: Node) -> None:
    """0 copies the dimension at the same place, -1 is inferred; axis and num_axes limit the part that changes."""
    params = node.params("reshape_param")
    count = len(node.shape)
    start, axes = params.integer("axis", 0), params.integer("num_axes", -1)
    start = start if start >= 0 else count + start + 1
    end = count if axes == -1 else start + axes
    if not 0 <= start <= end <= count:
        raise node.error(f"axis {params.integer('axis', 0)} and num_axes {axes} for a blob of shape {node.shape}")
    wanted = params.message("shape").integers("dim")
    if any(dim == 0 and start + index >= count for index, dim in enumerate(wanted)) or wanted.count(-1) > 1:
        raise node.error(f"shape {wanted} for a blob of shape {node.shape}")
    middle = [node.shape[start + index] if dim == 0 else dim for index, dim in enumerate(wanted)]
    shape = node.shape[:start] + middle + node.shape[end:]
    if -1 in shape:
        known, total = -math.prod(shape), math.prod(node.shape)
        if known == 0 or total % known:
            raise node.error(f"{node.shape} cannot be reshaped to {shape}")
        shape[shape.index(-1)] = total // known
    if math.prod(shape) != math.prod(node.shape) or min(shape, default=1) < 0:
        raise node.error(f"{node.shape} cannot be reshaped to {shape}")
    # What is copied is written so, and not as a number: then the code is right for other sizes, too.
    target = [0] * start + wanted + shape[start + len(wanted) :]
    if len(wanted) == end - start:
        target[start + len(wanted) :] = [0] * (count - end)
    elif -1 not in wanted and len(shape) > start + len(wanted):
        target[-1] = -1
    x = same(node.x) if transposed_before(node) else node.x
    node.output(f"paddle.reshape({x}, {target})", shape)


@register_layer("Permute")
def permute(node: Node) -> None:
    order = node.params("permute_param").integers("order")
    order += [axis for axis in range(len(node.shape)) if axis not in order]
    if sorted(order) != list(range(len(node.shape))):
        raise node.error(f"order {order} for a blob of shape {node.shape}")
    node.output(f"paddle.transpose({node.x}, {order})", [node.shape[axis] for axis in order])


@register_layer("Transpose")
def transpose(node: Node) -> None:
    """Axis i of the top is axis dim(i) of the bottom."""
    order = node.params("transpose_param").integers("dim")
    if sorted(order) != list(range(len(node.shape))):
        raise node.error(f"dim {order} for a blob of shape {node.shape}")
    node.output(f"paddle.transpose({node.x}, {order})", [node.shape[axis] for axis in order])


@register_layer("Reorg")
def reorg(node: Node) -> None:
    """Darknet's reordering of a plane's squares into channels, or with ``reverse`` back (YOLOv2).

    Its own: the channels are read as if they were divided already, so that this is no space_to_depth.
    """
    node.needs_axes(4)
    params = node.params("reorg_param")
    stride, back = params.integer("stride", 2), params.flag("reverse", False)
    batch, channels, height, width = node.shape
    squares = stride * stride
    if stride < 1 or channels % squares or (not back and (height % stride or width % stride)):
        raise node.error(f"stride {stride} does not divide a blob of shape {node.shape}")
    fewer = channels // squares
    if back:
        inner, order = [-1, stride, stride, fewer, height, width], [0, 3, 4, 1, 5, 2]
        shape = [fewer, height * stride, width * stride]
    else:
        inner, order = [-1, fewer, height, stride, width, stride], [0, 3, 5, 1, 2, 4]
        shape = [channels * squares, height // stride, width // stride]
    value = f"paddle.transpose(paddle.reshape({node.x}, {inner}), {order})"
    node.output(f"paddle.reshape({same(value)}, {[-1, *shape]})", [batch, *shape])


@register_layer("Crop")
def crop(node: Node) -> None:
    """Cuts the first bottom to the sizes of the second, from ``axis`` on."""
    node.needs_bottoms(2, 2)
    params = node.params("crop_param")
    axis, offsets = node.axis(params.integer("axis", 2)), params.integers("offset")
    x, like = node.shapes
    count = len(x) - axis
    if len(like) != len(x) or len(offsets) not in (0, 1, count):
        raise node.error(f"{number_of(len(offsets), 'offset')} from axis {axis} for bottoms of shapes {node.shapes}")
    offsets = offsets * count if len(offsets) == 1 else offsets or [0] * count
    ranges = list(zip(offsets, like[axis:], strict=True))
    if any(start < 0 or start + size > full for (start, size), full in zip(ranges, x[axis:], strict=True)):
        raise node.error(f"offsets {offsets} leave no {like[axis:]} of {x}")
    out = x[:axis] + like[axis:]
    while axis < 2 and offsets and offsets[0] == 0 and x[axis] == like[axis]:
        axis, offsets = axis + 1, offsets[1:]
    call = arguments(*node.inputs, axis, offsets)
    node.output(f"{node.helper('crop_like')}({call})" if offsets else same(node.x), out)


@register_layer("Tile")
def tile(node: Node) -> None:
    params = node.params("tile_param")
    axis, tiles = node.axis(params.integer("axis", 1)), params.integer("tiles")
    if tiles < 1:
        raise node.error(f"tiles {tiles}")
    shape, repeats = list(node.shape), [1] * len(node.shape)
    shape[axis], repeats[axis] = shape[axis] * tiles, tiles
    node.output(f"paddle.tile({node.x}, {repeats})", shape)


@register_layer("ArgMax")
def argmax(node: Node) -> None:
    """Indices (as floats) of the top_k largest values, or the values; of equal values the last counts first."""
    params = node.params("argmax_param")
    top_k, values = params.integer("top_k", 1), params.flag("out_max_val", False)
    function = node.helper("caffe_argmax")
    if "axis" in params:
        axis = node.axis(params.integer("axis"))
        if not 1 <= top_k <= node.shape[axis]:
            raise node.error(f"top_k {top_k} of {node.shape[axis]}")
        shape = list(node.shape)
        shape[axis] = top_k
        node.output(f"{function}({arguments(node.x, top_k, axis, node.shape[axis])})[{1 if values else 0}]", shape)
        return
    if not 1 <= top_k <= math.prod(node.shape[1:]):
        raise node.error(f"top_k {top_k} of {math.prod(node.shape[1:])}")
    ones = [1] * (max(len(node.shape), 3) - 3)
    x = f"paddle.flatten({node.x}, 1)" if len(node.shape) > 2 else node.x
    call = f"{function}({arguments(x, top_k, 1, math.prod(node.shape[1:]))})"
    value = f"paddle.stack({call}, 1)" if values else f"paddle.unsqueeze({call}[0], 1)"
    target = [2 if values else 1, top_k, *ones]
    node.output(f"paddle.reshape({value}, {[0, *target]})" if ones else value, [node.shape[0], *target])


@register_layer("Reduction")
def reduction(node: Node) -> None:
    params = node.params("reduction_param")
    operation = params.choice("operation", ["", "SUM", "ASUM", "SUMSQ", "MEAN"], "SUM")
    axis, factor = node.axis(params.integer("axis", 0)), params.number("coeff", 1.0)
    x = {"ASUM": f"paddle.abs({node.x})", "SUMSQ": f"paddle.square({node.x})"}.get(operation, node.x)
    axes = list(range(axis, len(node.shape)))
    value = f"paddle.sum({x}, {axes})"
    if operation == "MEAN":
        value += f" / paddle.sum(paddle.ones_like({x}), {axes})"
    node.output(value if factor == 1 else f"{value} * {literal(factor)}", node.shape[:axis])


@register_layer("Reverse")
def reverse(node: Node) -> None:
    axis = node.axis(node.params("reverse_param").integer("axis", 0))
    node.output(f"paddle.flip({node.x}, {axis})", node.shape)


@register_layer("Select")
def select(node: Node) -> None:
    """A range of one axis; a custom layer of the 2018 converter."""
    params = node.params("select_param")
    axis, points = node.axis(params.integer("axis", 1)), params.integers("slice_point")
    start, end = (points or [0])[0], (points[1:] or [node.shape[axis]])[0]
    if not 0 <= start < end <= node.shape[axis] or len(points) > 2:
        raise node.error(f"slice points {points} along an axis of {node.shape[axis]}")
    shape = list(node.shape)
    shape[axis] = end - start
    node.output(f"{node.x}[{':, ' * axis}{start}:{end}]", shape)


@register_layer("BatchReindex")
def batch_reindex(node: Node) -> None:
    node.needs_bottoms(2, 2)
    index = f"paddle.flatten(paddle.cast({node.inputs[1]}, 'int64'))"
    node.output(f"paddle.gather({node.x}, {index})", [math.prod(node.shapes[1]), *node.shape[1:]])


@register_layer("Filter")
def filter_(node: Node) -> None:
    """Keeps the items of the batch for which the last bottom is not 0."""
    node.needs_bottoms(2)
    kept = f"paddle.flatten(paddle.nonzero(paddle.flatten({node.inputs[-1]})))"
    for x, shape in zip(node.inputs[:-1], node.shapes[:-1], strict=True):
        node.output(f"paddle.gather({x}, {kept})", shape)


@register_layer("Parameter")
def parameter(node: Node) -> None:
    shape = node.params("parameter_param").message("shape").integers("dim")
    node.output(f"{node.parameter('data', 0, shape)} * 1.0", shape)


# Layers of forks


@register_layer("ShuffleChannel")
def shuffle_channel(node: Node) -> None:
    """ShuffleNet (Zhang et al., https://arxiv.org/abs/1707.01083)."""
    node.needs_axes(4)
    group = node.params("shuffle_channel_param").integer("group", 1)
    if group < 1 or node.shape[1] % group:
        raise node.error(f"{node.shape[1]} channels do not divide into {group} groups")
    node.output(f"F.channel_shuffle({node.x}, {group})", node.shape)


@register_layer("PixelShuffle")
def pixel_shuffle(node: Node) -> None:
    node.needs_axes(4)
    factor = node.params("pixelshuffle_param").integer("upscale_factor")
    batch, channels, height, width = node.shape
    if factor < 1 or channels % factor**2:
        raise node.error(f"{channels} channels and upscale_factor {factor}")
    node.output(f"F.pixel_shuffle({node.x}, {factor})", [batch, channels // factor**2, height * factor, width * factor])


@register_layer("Unsqueeze")
def unsqueeze(node: Node) -> None:
    axis = node.axis(node.params("unsqueeze_param").integer("dim"), len(node.shape) + 1)
    node.output(f"paddle.unsqueeze({node.x}, {axis})", [*node.shape[:axis], 1, *node.shape[axis:]])


@register_layer("Pad")
def pad(node: Node) -> None:
    node.needs_axes(4)
    params = node.params("pad_param")
    mode = params.choice("pad_type", ["CONSTANT", "REPLICATE", "REFLECT"], "CONSTANT")
    top, bottom, left, right = (params.integer(f"pad_{side}", 0) for side in "udlr")
    value = params.number("pad_value", 0.0)
    if min(top, bottom, left, right) < 0:
        raise node.unsupported("negative padding; write it as Crop")
    batch, channels, height, width = node.shape
    if mode == "REFLECT" and (max(top, bottom) >= height or max(left, right) >= width):
        raise node.error(f"reflects more than the {height} x {width} values of its bottom")
    kind = {"CONSTANT": None, "REPLICATE": '"replicate"', "REFLECT": '"reflect"'}[mode]
    call = arguments(node.x, [left, right, top, bottom], mode=kind, value=value or None)
    node.output(f"F.pad({call})", [batch, channels, height + top + bottom, width + left + right])


@register_layer("Interp")
def interp(node: Node) -> None:
    """Bilinear resizing with aligned corners (DeepLab, PSPNet, ICNet); a second bottom gives the size."""
    node.needs_bottoms(1, 2)
    node.needs_axes(4)
    params = node.params("interp_param")
    begin, end = params.integer("pad_beg", 0), params.integer("pad_end", 0)
    batch, channels, height, width = node.shape
    sizes = [height + begin + end, width + begin + end]
    if begin > 0 or end > 0 or min(sizes) < 1:
        raise node.error(f"pad_beg {begin} and pad_end {end}; Caffe takes 0 or less, and something must remain")
    zoom, shrink = params.integer("zoom_factor", 0), params.integer("shrink_factor", 0)
    if len(node.inputs) == 2:
        target = node.shapes[1][2:]
    elif zoom or shrink:
        if zoom < 0 or shrink < 0:
            raise node.error(f"zoom_factor {zoom}, shrink_factor {shrink}")
        target = [(n - 1) // shrink + 1 for n in sizes] if shrink else sizes
        target = [n + (n - 1) * (zoom - 1) for n in target] if zoom else target
    else:
        target = [params.integer("height", 0), params.integer("width", 0)]
    if len(target) != 2 or min(target) < 1:
        raise node.error("gives no size: wanted are height and width, zoom_factor, shrink_factor or a second bottom")
    inner = f"{-begin or ''}:{end or ''}"
    x = node.x if begin == end == 0 else f"{node.x}[:, :, {inner}, {inner}]"
    if len(node.inputs) == 2:
        size = f"{node.helper('spatial_size')}({node.inputs[1]})"
        value = f"{node.helper('resize_bilinear')}({x}, {size})"
    elif zoom or shrink:
        value = f"{node.helper('resize_by')}({x}, {shrink or 1}, {zoom or 1})" if max(zoom, shrink) > 1 else x
    else:
        value = f"{node.helper('resize_bilinear')}({x}, {target})" if target != sizes else x
    node.output(value if value != node.x else same(value), [batch, channels, *target])


@register_layer("Resize")
def resize(node: Node) -> None:
    """Forks have four layers of that name, told by their fields: bilinear from the corner on, to a size or by factors
    (DenseBox, happynear's Caffe), and two that take the nearest row and column, by a ratio or to a multiple."""
    node.needs_axes(4)
    node.needs_bottoms(1, 1)
    params = node.params("resize_param")
    batch, channels, *sizes = node.shape
    value, given = node.x, params.fields.keys()
    if "resize_ratio" in given and not given & {"height", "width", "is_pyramid_test"}:
        params.choice("type", ["NEAREST"], "NEAREST")
        ratio = params.number("resize_ratio")
        target = _scaled(sizes, [ratio, ratio])
        value = f"{node.helper('resize_nearest')}({value}, {literal(ratio)})"
    elif {"top_height", "top_width"} <= given:
        target = [params.integer("top_height"), params.integer("top_width")]
        for axis, (wanted, n) in enumerate(zip(target, sizes, strict=True), 2):
            if wanted % n:
                raise node.error(f"{wanted} is no multiple of {n}")
            value = f"paddle.repeat_interleave({value}, {wanted // n}, {axis})"
    elif params.flag("is_pyramid_test", False):
        scale = [params.number("out_height_scale"), params.number("out_width_scale")]
        target = _scaled(sizes, scale)
        value = f"{node.helper('resize_from_corner')}({value}, {node.helper('scaled_size')}({value}, {literal(scale)}))"
    elif {"height", "width"} <= given and not given & {"function_type", "type", "resize_ratio"}:
        target = [params.integer("height"), params.integer("width")]
        value = f"{node.helper('resize_from_corner')}({value}, {target})"
    else:
        raise node.unsupported(
            "its fields are those of no fork that is known: height and width, is_pyramid_test with out_height_scale and "
            "out_width_scale, resize_ratio, or top_height and top_width"
        )
    if min(target) < 1:
        raise node.error(f"the output would have the size {target}")
    node.output(value, [batch, channels, *target])


def _scaled(sizes: list[int], scale: list[float]) -> list[int]:
    """Whole parts of the products, as Caffe's single precision has them; 0 for a scale that is none."""
    factors = [factor if 0 < factor < 1 << 16 else 0.0 for factor in scale]
    return [int(np.float32(n) * np.float32(factor)) for n, factor in zip(sizes, factors, strict=True)]


@register_layer("Upsample")
def upsample(node: Node) -> None:
    """Two layers of that name: with a mask SegNet's unpooling, without one nearest neighbours (YOLO forks)."""
    node.needs_bottoms(1, 2)
    node.needs_axes(3, 4)
    params = node.params("upsample_param")
    scale = params.integer("scale", 2 if len(node.inputs) == 2 else 1)
    params.integer("dims_num", 4)
    batch, channels, *sizes = node.shape
    if not 1 <= scale < 1 << 16:
        raise node.error(f"scale {scale}")
    if len(node.inputs) == 1:
        value = node.x
        for axis in range(2, len(node.shape)):
            value = f"paddle.repeat_interleave({value}, {scale}, {axis})"
        node.output(value, [batch, channels, *(n * scale for n in sizes)])
        return
    node.needs_axes(4)
    size = [
        params.integer(f"upsample_{side}", n * params.integer(f"scale_{side}", scale))
        - int(params.flag(f"pad_out_{side}", False))
        for side, n in zip("hw", sizes, strict=True)
    ]
    _unpool(node, size)


@register_layer("MaxUnPool")
def max_unpool(node: Node) -> None:
    params = node.params("max_unpool_param")
    _unpool(node, [params.integer("dst_h"), params.integer("dst_w")])


def _unpool(node: Node, size: list[int]) -> None:
    node.needs_bottoms(2, 2)
    if node.shapes[1] != node.shape or min(size) < 1:
        raise node.error(f"bottoms of shapes {node.shapes} to the size {size}")
    node.output(f"{node.helper('unpool')}({arguments(*node.inputs, size)})", [*node.shape[:2], *size])
