"""Layers that work value by value, on one bottom."""

from __future__ import annotations

import math

from ..names import literal, quoted
from .node import Node, register_layer, same


@register_layer("ReLU")
def relu(node: Node) -> None:
    slope = node.params("relu_param").number("negative_slope", 0.0)
    node.output(leaky(node.x, slope), node.shape)


def leaky(x: str, slope: float) -> str:
    """max(x, 0) + slope * min(x, 0).

    Not F.leaky_relu: Paddle 3.3's oneDNN pass that merges it with a convolution crashes the CPU predictor.
    """
    if slope == 0:
        return f"F.relu({x})"
    if 0 < slope <= 1:
        return f"paddle.maximum({x}, {x} * {literal(slope)})"
    return f"F.relu({x}) - F.relu(-{x}) * {literal(slope)}"


@register_layer("ReLU6")
def relu6(node: Node) -> None:
    params = node.params("relu6_param")
    slope, limit = params.number("negative_slope", 0.0), params.number("threshold", 6.0)
    if not limit >= 0:
        raise node.error(f"threshold {limit}")
    if slope == 0 and limit == 6:
        node.output(f"F.relu6({node.x})", node.shape)
    else:
        node.output(f"paddle.clip({leaky(node.x, slope)}, max={literal(limit)})", node.shape)


@register_layer("PReLU")
def prelu(node: Node) -> None:
    if len(node.shape) < 2:
        raise node.error(f"its bottom of shape {node.shape} has no channels")
    shared = node.params("prelu_param").flag("channel_shared", False)
    slopes = [1 if shared else node.shape[1]]
    if node.shared_with(0):
        node.output(f"F.prelu({node.x}, {node.parameter('slopes', 0, slopes)})", node.shape)
        return
    name = node.weight("slopes", 0, slopes, filler="filler")
    sublayer = node.sublayer(f"nn.PReLU({slopes[0]}, weight_attr={quoted(name)})")
    node.publish(0, f"{sublayer}.weight", slopes)
    node.output(f"{sublayer}({node.x})", node.shape)


@register_layer("ELU")
def elu(node: Node) -> None:
    alpha = node.params("elu_param").number("alpha", 1.0)
    node.output(f"F.elu({node.x}, {literal(alpha)})", node.shape)


@register_layer("SeLu", "SeLU", "SELU")
def selu(node: Node) -> None:
    """lambda * x, below 0 lambda * alpha * (exp(x) - 1) (Klambauer et al., https://arxiv.org/abs/1706.02515)."""
    params = node.params("selu_param")
    alpha, scale = params.number("alpha", 1.67326324), params.number("lambda", 1.050700987)
    node.output(f"F.elu({node.x}, {literal(alpha)}) * {literal(scale)}", node.shape)


@register_layer("Mish")
def mish(node: Node) -> None:
    """x * tanh(log(1 + exp(x))) (Misra, https://arxiv.org/abs/1908.08681)."""
    node.output(f"{node.x} * paddle.tanh(F.softplus({node.x}, beta=1, threshold=20))", node.shape)


@register_layer("BNLL")
def bnll(node: Node) -> None:
    """log(1 + exp(x)); above 50 float32 cannot tell it from x."""
    node.output(f"F.softplus({node.x}, beta=1, threshold=50)", node.shape)


@register_layer("Sigmoid")
def sigmoid(node: Node) -> None:
    node.output(f"F.sigmoid({node.x})", node.shape)


@register_layer("TanH")
def tanh(node: Node) -> None:
    node.output(f"paddle.tanh({node.x})", node.shape)


@register_layer("Swish")
def swish(node: Node) -> None:
    beta = node.params("swish_param").number("beta", 1.0)
    inner = node.x if beta == 1 else f"{node.x} * {literal(beta)}"
    node.output(f"{node.x} * F.sigmoid({inner})", node.shape)


@register_layer("HardSigmoid")
def hard_sigmoid(node: Node) -> None:
    params = node.params("hardsigmoid_param")
    alpha, beta = params.number("alpha", 0.2), params.number("beta", 0.5)
    node.output(f"paddle.clip({node.x} * {literal(alpha)} + {literal(beta)}, 0.0, 1.0)", node.shape)


@register_layer("HardSwish")
def hard_swish(node: Node) -> None:
    node.output(f"F.hardswish({node.x})", node.shape)


@register_layer("AbsVal")
def absolute(node: Node) -> None:
    node.output(f"paddle.abs({node.x})", node.shape)


def _affine(x: str, scale: float, shift: float) -> str:
    """Source of scale * x + shift, a term to be used as an argument."""
    if scale != 1:
        x = f"{x} * {literal(scale)}"
    return f"{x} + {literal(shift)}" if shift else x


@register_layer("Power")
def power(node: Node) -> None:
    """(shift + scale * x) ** power"""
    params = node.params("power_param")
    exponent, scale, shift = params.number("power", 1.0), params.number("scale", 1.0), params.number("shift", 0.0)
    if exponent * scale == 0:
        constant = 1.0 if exponent == 0 else _real_power(shift, exponent)
        node.output(f"paddle.full_like({node.x}, {literal(constant)})", node.shape)
    elif exponent == 1:
        changed = scale != 1 or shift != 0
        node.output(_affine(node.x, scale, shift) if changed else same(node.x), node.shape)
    else:
        node.output(f"paddle.pow({_affine(node.x, scale, shift)}, {literal(exponent)})", node.shape)


@register_layer("Exp")
def exponential(node: Node) -> None:
    """base ** (shift + scale * x); base -1 stands for e."""
    params = node.params("exp_param")
    base, scale, shift = params.number("base", -1.0), params.number("scale", 1.0), params.number("shift", 0.0)
    if base != -1 and base <= 0:
        raise node.error(f"base {base} is not positive")
    log_base = 1.0 if base == -1 else math.log(base)
    node.output(f"paddle.exp({_affine(node.x, scale * log_base, shift * log_base)})", node.shape)


@register_layer("Log")
def logarithm(node: Node) -> None:
    """log of shift + scale * x to the base; base -1 stands for e."""
    params = node.params("log_param")
    base, scale, shift = params.number("base", -1.0), params.number("scale", 1.0), params.number("shift", 0.0)
    if base != -1 and (base <= 0 or base == 1):
        raise node.error(f"base {base} has no logarithm")
    value = f"paddle.log({_affine(node.x, scale, shift)})"
    node.output(value if base == -1 else f"{value} * {literal(1 / math.log(base))}", node.shape)


@register_layer("Threshold")
def threshold(node: Node) -> None:
    limit = node.params("threshold_param").number("threshold", 0.0)
    node.output(f"paddle.cast({node.x} > {literal(limit)}, 'float32')", node.shape)


@register_layer("Dropout")
def dropout(node: Node) -> None:
    """Scales by 1 / (1 - ratio) in training, as Paddle's default does, and does nothing at test time."""
    ratio = node.params("dropout_param").number("dropout_ratio", 0.5)
    if not 0 <= ratio <= 1:
        raise node.error(f"dropout_ratio {ratio} is not between 0 and 1")
    node.output(f"{node.sublayer(f'nn.Dropout({literal(ratio)})')}({node.x})", node.shape)


@register_layer("SpatialDropout")
def spatial_dropout(node: Node) -> None:
    """Drops whole channels in training (ENet's Caffe), and does nothing at test time."""
    node.needs_axes(4)
    own = "spatial_dropout_param" in node.layer.params
    params = node.params("spatial_dropout_param" if own else "dropout_param")
    ratio = params.number("dropout_ratio", 0.5)
    if params.flag("sample_weights_test", False):
        raise node.unsupported("sample_weights_test: it drops at random at test time, too")
    if not 0 <= ratio < 1:
        raise node.error(f"dropout_ratio {ratio} is not between 0 and 1")
    node.output(f"{node.sublayer(f'nn.Dropout2D({literal(ratio)})')}({node.x})", node.shape)


def _real_power(base: float, exponent: float) -> float:
    """C's pow: infinity and NaN where Python raises or turns complex."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan
