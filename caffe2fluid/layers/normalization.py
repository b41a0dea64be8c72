"""Pooling, and layers that normalise: BatchNorm and its relatives, LRN, MVN, Normalize, Softmax."""

from __future__ import annotations

import math

import numpy as np

from ..errors import number_of
from ..names import quoted
from ..network import Layer
from ..prototxt import Message
from .node import Node, Parameter, arguments, pair, register_layer

# Pooling


def pool_sizes(sizes: list[int], kernel: list[int], stride: list[int], pad: list[int], ceil: bool) -> list[int]:
    """Caffe's output sizes: rounded up, and no window may start in the padding behind the image."""
    out = []
    for n, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        steps = n + 2 * p - k
        size = (-(-steps // s) if ceil else steps // s) + 1
        if any(pad) and (size - 1) * s >= n + p:
            size -= 1
        out.append(size)
    return out


def pool_expression(
    x: str, sizes: list[int], method: str, kernel: list[int], stride: list[int], pad: list[int], ceil: bool = True
) -> tuple[str, list[int]]:
    """Source of a pooling of [N, C, H, W] with Caffe's sizes and divisors, and the sizes [h, w] of its output.

    The source is right for any size of the image. Rounding up is rounding down with stride - 1 more behind the image, and
    no window starts in the padding behind it if that is at most kernel - 1 long.
    """
    out = pool_sizes(sizes, kernel, stride, pad, ceil)
    if ceil and not any(pad) and any(k < s for k, s in zip(kernel, stride, strict=True)):
        return _pool_with_gaps(x, sizes, method, kernel, stride), out
    name = "max" if method == "MAX" else "avg"
    if not any(pad):
        call = arguments(x, pair(kernel), pair(stride), ceil_mode=True if ceil and max(stride) > 1 else None)
        return f"F.{name}_pool2d({call})", out
    behind = [min(p + s - 1, k - 1) if ceil else p for k, s, p in zip(kernel, stride, pad, strict=True)]
    if method == "MAX":
        return f"F.max_pool2d({arguments(x, pair(kernel), pair(stride), _sides(pad, behind))})", out
    if behind == pad:
        return f"F.avg_pool2d({arguments(x, pair(kernel), pair(stride), pair(pad), exclusive=False)})", out
    # Caffe's divisor counts the padding but not what rounding up adds behind it.
    padded = f"F.pad({x}, {[pad[1], pad[1], pad[0], pad[0]]})"
    rest = _sides([0, 0], [last - p for last, p in zip(behind, pad, strict=True)])
    return f"F.avg_pool2d({arguments(padded, pair(kernel), pair(stride), rest)})", out


def _pool_with_gaps(x: str, sizes: list[int], method: str, kernel: list[int], stride: list[int]) -> str:
    """Source of a pooling without padding whose stride is longer than its kernel, for images of this size.

    A window may then start behind the image; Caffe writes what its loops leave: nothing, or 0 / 0.
    """
    out = pool_sizes(sizes, kernel, stride, [0, 0], True)
    inside = [min(o, (n - 1) // s + 1) for o, n, s in zip(out, sizes, stride, strict=True)]
    behind = [max((i - 1) * s + k - n, 0) for i, n, k, s in zip(inside, sizes, kernel, stride, strict=True)]
    name = "max" if method == "MAX" else "avg"
    value = f"F.{name}_pool2d({arguments(x, pair(kernel), pair(stride), _sides([0, 0], behind))})"
    if inside == out:
        return value
    rest = [o - i for o, i in zip(out, inside, strict=True)]
    if method == "MAX":
        return f"F.pad({value}, [0, {rest[1]}, 0, {rest[0]}], value=-3.4028234663852886e38)"
    # The divisor of such a window is 0 if it starts right at the end of the image, else negative: NaN or 0.
    at_end = [int(r and i * s == n) for r, i, s, n in zip(rest, inside, stride, sizes, strict=True)]
    after = [r - e for r, e in zip(rest, at_end, strict=True)]
    if any(after):
        value = f"F.pad({value}, [0, {after[1]}, 0, {after[0]}])"
    if any(at_end):  # a model file cannot hold the NaN itself
        end = f"[0, {at_end[1]}, 0, {at_end[0]}]"
        value = f"F.pad({value}, {end}) / F.pad(paddle.ones_like({value}), {end})"
    return value


def _sides(before: list[int], behind: list[int]) -> int | list[int]:
    """Padding for Paddle: one number, [height, width] or [top, bottom, left, right]."""
    return pair(before) if before == behind else [before[0], behind[0], before[1], behind[1]]


def _pooling_geometry(node: Node, params: Message) -> tuple[list[int], list[int], list[int]]:
    def sizes(name: str, prefix: str, default: int | None) -> list[int]:
        split = f"{prefix}_h" in params or f"{prefix}_w" in params
        if split:
            fallback = default if name == "kernel_size" else params.integer(name, default or 0)
            return [params.integer(f"{prefix}_h", fallback), params.integer(f"{prefix}_w", fallback)]
        return [params.integer(name, default)] * 2

    kernel, stride, pad = sizes("kernel_size", "kernel", None), sizes("stride", "stride", 1), sizes("pad", "pad", 0)
    if min(kernel) < 1 or min(stride) < 1 or min(pad) < 0 or max(*kernel, *stride, *pad) >= 1 << 31:
        raise node.error(f"kernel {kernel}, stride {stride}, pad {pad}")
    if any(p >= k for p, k in zip(pad, kernel, strict=True)):
        raise node.error(f"pad {pad} is not smaller than the kernel {kernel}")
    return kernel, stride, pad


@register_layer("Pooling")
def pooling(node: Node) -> None:
    params = node.params("pooling_param")
    node.needs_axes(4)
    method = params.choice("pool", ["MAX", "AVE", "STOCHASTIC"], "MAX")
    if method == "STOCHASTIC":
        raise node.unsupported("pool: STOCHASTIC (Caffe has it on GPUs only)")
    # One field number, two meanings: BVLC's enumeration round_mode and the forks' flag ceil_mode.
    rounding = params.choice("round_mode", ["CEIL", "FLOOR"], "CEIL")
    ceil = params.flag("ceil_mode", rounding == "CEIL")
    batch, channels, *sizes = node.shape
    masked = len(node.layer.tops) > 1
    if params.flag("global_pooling", False):
        kernel, stride, pad = sizes, [1, 1], [0, 0]
        if not masked:
            for name in ("kernel_size", "stride", "pad"):
                params.values(name)
            function = "max" if method == "MAX" else "avg"
            node.output(f"F.adaptive_{function}_pool2d({node.x}, 1)", [batch, channels, 1, 1])
            return
    else:
        kernel, stride, pad = _pooling_geometry(node, params)
    out = pool_sizes(sizes, kernel, stride, pad, ceil)
    if min(out) < 1:
        raise node.error(f"a kernel of {kernel} does not fit into {sizes} with pad {pad}")
    if not masked:
        value, out = pool_expression(node.x, sizes, method, kernel, stride, pad, ceil)
        node.output(value, [batch, channels, *out])
        return
    if method != "MAX":
        raise node.error("only MAX pooling has a second top, the positions of the maxima")
    pool = arguments(node.x, pair(kernel), pair(stride), pair(pad), return_mask=True, ceil_mode=ceil or None)
    cut = f"[:, :, :{out[0]}, :{out[1]}]" if ceil and any(pad) else ""
    for index in (0, 1):
        value = f"F.max_pool2d({pool})[{index}]{cut}"
        node.output(value if index == 0 else f"paddle.cast({value}, 'float32')", [batch, channels, *out])


@register_layer("SPP")
def spatial_pyramid_pooling(node: Node) -> None:
    """Pools into 1, 4, 16, ... bins and joins them (He et al., https://arxiv.org/abs/1406.4729)."""
    params = node.params("spp_param")
    node.needs_axes(4)
    levels = params.integer("pyramid_height")
    method = params.choice("pool", ["MAX", "AVE", "STOCHASTIC"], "MAX")
    if method == "STOCHASTIC":
        raise node.unsupported("pool: STOCHASTIC (Caffe has it on GPUs only)")
    if not 1 <= levels <= 12:
        raise node.error(f"pyramid_height {levels}")
    parts, bins_total = [], 0
    for level in range(levels):
        bins = 2**level
        kernel = [-(-n // bins) for n in node.shape[2:]]
        pad = [(k * bins - n + 1) // 2 for k, n in zip(kernel, node.shape[2:], strict=True)]
        if any(p >= k for p, k in zip(pad, kernel, strict=True)):
            raise node.error(f"{bins} x {bins} bins do not fit into a blob of shape {node.shape}")
        value, sizes = pool_expression(node.x, node.shape[2:], method, kernel, kernel, pad)
        if levels == 1:
            node.output(value, [*node.shape[:2], *sizes])
            return
        parts.append(f"paddle.flatten({value}, 1)")
        bins_total += math.prod(sizes)
    node.output(f"paddle.concat([{', '.join(parts)}], 1)", [node.shape[0], node.shape[1] * bins_total])


# Batch normalisation


def _batch_norm_class(node: Node) -> str:
    axes = len(node.shape)
    if axes not in (2, 3, 4, 5):
        raise node.unsupported(f"a blob of shape {node.shape}")
    return f"nn.BatchNorm{max(axes - 2, 1)}D"


def _fixed(node: Node, suffix: str, channels: int, value: float) -> str:
    """Source of the attribute of a constant parameter.

    Paddle could leave it out (weight_attr=False), but its oneDNN kernel then crashes the predictor in 3.3.
    """
    name = f"{node.id}_{suffix}"
    node.parameters[name] = Parameter([channels], lambda: np.full(channels, value, np.float32))
    return f"paddle.ParamAttr(name={quoted(name)}, trainable=False)"


def has_own_affine(layer: Layer, blobs: list[np.ndarray] | None) -> bool:
    """Whether a BatchNorm scales and shifts by itself.

    NVIDIA's Caffe (src/caffe/layers/batch_norm_layer.cpp): if scale_bias says so or one of its fillers is there; and a
    caffemodel with five blobs comes from such a layer, unless the prototxt says otherwise.
    """
    params = layer.params.message("batch_norm_param")
    filled = "scale_filler" in params or "bias_filler" in params
    return params.flag("scale_bias", params.flag("use_alpha_beta", filled or len(blobs or []) == 5))


@register_layer("BatchNorm", "BatchNormKyle")
def batch_norm(node: Node) -> None:
    """Normalisation with running statistics; a Scale layer that alone reads the result is folded in.

    Caffe stores sums and the factor to divide them by. NVIDIA's fork adds scale and bias as blobs 3 and 4.
    """
    params = node.params("batch_norm_param")
    channels = node.shape[1] if len(node.shape) > 1 else 1
    own_affine = has_own_affine(node.layer, node.blobs)
    if any(map(node.shared_with, range(3))):
        _share_statistics(node, own_affine)
        return
    if node.blobs and len(node.blobs) < 3:
        raise node.error(
            f"{number_of(len(node.blobs), 'blob')} in the caffemodel; mean, variance and their factor are 3"
        )
    node.uses_blobs(2)
    factor = float(node.blobs[2].reshape(-1)[0]) if node.blobs and node.blobs[2].size else 1.0
    if factor == 0:
        node.notes.append(f"{node.layer.name}: its statistics are of no samples (factor 0), so mean and variance are 0")

    def divided(blob: np.ndarray) -> np.ndarray:
        return blob * (0.0 if factor == 0 else 1.0 / factor)

    weight, offset = _fixed(node, "scale", channels, 1.0), _fixed(node, "offset", channels, 0.0)
    if node.scale is not None:
        affine = node.scale.params.message("scale_param")
        weight = quoted(node.weight("scale", 0, [channels], filler="filler", of_scale=True))
        if affine.flag("bias_term", False):
            offset = quoted(node.weight("offset", 1, [channels], filler="bias_filler", of_scale=True))
        node.multiply_adds = math.prod(node.shape[1:])
    elif own_affine:
        weight = quoted(node.weight("scale", 3, [channels], filler="scale_filler"))
        offset = quoted(node.weight("offset", 4, [channels], filler="bias_filler"))
    node.weight("mean", 0, [channels], divided)
    node.weight("variance", 1, [channels], divided)
    # At test time a stored flag `true` is the default; only `false` (batch statistics even then) says something.
    fixed = params.flag("use_global_stats", node.phase == "TEST")
    use_global_stats = fixed if fixed != (node.phase == "TEST") else None
    call = arguments(
        channels,
        momentum=params.number("moving_average_fraction", 0.999),
        epsilon=params.number("eps", 1e-5),
        weight_attr=weight,
        bias_attr=offset,
        use_global_stats=use_global_stats,
        name=quoted(node.id),
    )
    sublayer = node.sublayer(f"{_batch_norm_class(node)}({call})")
    for index in range(3):
        node.publish(index, sublayer, [])
    node.multiply_adds += math.prod(node.shape[1:])
    node.output(f"{sublayer}({node.x})", node.shape)


def _share_statistics(node: Node, own_affine: bool) -> None:
    """The sublayer of the layer whose statistics this one names as its own."""
    node.uses_blobs(*range(3))
    owners = {node.shared_with(index).expression for index in range(3) if node.shared_with(index)}
    if len(owners) != 1 or not all(node.shared_with(index) for index in range(3)) or own_affine:
        raise node.unsupported("shares a part of its statistics")
    node.output(f"{owners.pop()}({node.x})", node.shape)


@register_layer("BN", "CuDNNBatchNorm", "CuDNNBN")
def fork_batch_norm(node: Node) -> None:
    """``BN`` of two forks: PSPNet's and ICNet's (slope, bias, mean, variance) and SegNet's (scale, shift)."""
    params = node.params("bn_param")
    if any(map(node.shared_with, range(4))):
        raise node.unsupported("shares parameters")
    channels = node.shape[1] if len(node.shape) > 1 else 1
    frozen_affine = len(node.blobs) == 2 if node.blobs else "bn_mode" in params
    if frozen_affine:
        if params.choice("bn_mode", ["LEARN", "INFERENCE"], "INFERENCE") == "LEARN" and node.phase == "TRAIN":
            raise node.unsupported("bn_mode: LEARN; convert the net that SegNet's compute_bn_statistics.py wrote")
        ones = [1] * (len(node.shape) - 2)
        scale = node.parameter("scale", 0, [channels, *ones], 1.0, stored=[channels])
        offset = node.parameter("offset", 1, [channels, *ones], stored=[channels])
        node.output(f"{node.x} * {scale} + {offset}", node.shape)
        return
    if node.blobs and len(node.blobs) != 4:
        raise node.unsupported(
            f"{number_of(len(node.blobs), 'blob')}; known are 4 (PSPNet: slope, bias, mean, variance) and 2 (SegNet)"
        )
    weight = node.weight("scale", 0, [channels], filler="slope_filler")
    offset = node.weight("offset", 1, [channels], filler="bias_filler")
    node.weight("mean", 2, [channels])
    node.weight("variance", 3, [channels])
    frozen = params.flag("frozen", False) and node.phase == "TRAIN"
    call = arguments(
        channels,
        momentum=params.number("momentum", 0.9),
        epsilon=params.number("eps", 1e-5),
        weight_attr=quoted(weight),
        bias_attr=quoted(offset),
        use_global_stats=True if frozen else None,
        name=quoted(node.id),
    )
    node.multiply_adds = 2 * math.prod(node.shape[1:])
    node.output(f"{node.sublayer(f'{_batch_norm_class(node)}({call})')}({node.x})", node.shape)


# Others


@register_layer("LRN")
def local_response_normalization(node: Node) -> None:
    params = node.params("lrn_param")
    size, alpha = params.integer("local_size", 5), params.number("alpha", 1.0)
    beta, k = params.number("beta", 0.75), params.number("k", 1.0)
    if size < 1 or size % 2 == 0:
        raise node.error(f"local_size {size} is not odd")
    node.needs_axes(4)
    if params.choice("norm_region", ["ACROSS_CHANNELS", "WITHIN_CHANNEL"], "ACROSS_CHANNELS") == "ACROSS_CHANNELS":
        call = arguments(node.x, size, alpha=alpha, beta=beta, k=k)
        node.output(f"{node.helper('lrn_across_channels')}({call})", node.shape)
    else:
        call = arguments(node.x, size, alpha=alpha, beta=beta)
        node.output(f"{node.helper('lrn_within_channel')}({call})", node.shape)


@register_layer("MVN")
def mean_variance_normalization(node: Node) -> None:
    params = node.params("mvn_param")
    node.needs_axes(4)
    axes = [1, 2, 3] if params.flag("across_channels", False) else [2, 3]
    epsilon = params.number("eps", 1e-9)
    scaled = params.flag("normalize_variance", True)
    call = arguments(node.x, axes, epsilon if scaled else None)
    node.output(f"{node.helper('mean_variance_norm')}({call})", node.shape)


@register_layer("Normalize")
def l2_normalize(node: Node) -> None:
    """x / sqrt(sum(x^2) + eps) * scale, of SSD (Liu et al., https://arxiv.org/abs/1512.02325)."""
    params = node.params("norm_param")
    node.needs_axes(4)
    axes = [1, 2, 3] if params.flag("across_spatial", True) else [1]
    shared = params.flag("channel_shared", True)
    filler = params.message("scale_filler")
    initial = filler.number("value", 0.0) if filler.text("type", "constant") == "constant" else 1.0
    shape = [1 if shared else node.shape[1], 1, 1]
    scale = node.parameter("scale", 0, shape, initial, stored=shape[:1], filler="scale_filler")
    call = arguments(node.x, scale, axes, params.number("eps", 1e-10))
    node.output(f"{node.helper('l2_norm')}({call})", node.shape)


@register_layer("L2Normalization")
def l2_normalization(node: Node) -> None:
    """Each item of the batch divided by its length (metric learning's forks); ``l2n_param`` names an axis, or all values."""
    params = node.params("l2n_param")
    axes = list(range(1, len(node.shape)))
    if "l2n_param" in node.layer.params:
        if "norm_region" in params:
            raise node.unsupported("norm_region; write l2n_param { is_global: false axis: 1 } for ACROSS_CHANNELS")
        whole, axis = params.flag("is_global", True), node.axis(params.integer("axis", 0))
        axes = list(range(len(node.shape))) if whole else [axis]
        call = arguments(node.x, axes, abs(params.number("eps", 1e-10)))
        node.output(f"{node.helper('unit_length')}({call})", node.shape)
        return
    if math.prod(node.shape[2:]) != 1:
        node.notes.append(
            f"{node.layer.name}: each item is divided by the length of all its {math.prod(node.shape[1:])} values, as most "
            "forks do; for one that normalises each place over its channels, write l2n_param { is_global: false axis: 1 }"
        )
    node.output(f"{node.x} / paddle.sqrt(paddle.sum({node.x} * {node.x}, {axes}, keepdim=True))", node.shape)


@register_layer("Softmax")
def softmax(node: Node) -> None:
    axis = node.axis(node.params("softmax_param").integer("axis", 1))
    node.output(f"F.softmax({node.x}, axis={axis})", node.shape)
