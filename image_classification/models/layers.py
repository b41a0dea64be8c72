"""The layers all networks of this folder are written with.

Parameters carry the names of the released weights: convolutions and fully connected layers `NAME_weights` and
`NAME_offset`, batch normalisation `NAME_scale`, `NAME_offset`, `NAME_mean` and `NAME_variance`. Every layer's output is
registered under the layer's name, so that it can be fetched as a feature.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from fluid.program import name_layer

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr
from paddle.nn.initializer import Initializer, Uniform
from paddle.pir import Value

# None takes Paddle's default, which is still Fluid's: N(0, sqrt(2 / fan_in)) for convolutions, Xavier for matrices.
Init = Initializer | None


def uniform(fan_in: int, gain: float = 1.0) -> Uniform:
    """Uniform initialiser on +-gain / sqrt(fan_in)."""
    bound = gain / math.sqrt(fan_in)
    return Uniform(-bound, bound)


def activation(x: Value, act: str | None) -> Value:
    """Apply `relu`, `relu6`, `sigmoid` or nothing (None)."""
    return x if act is None else getattr(F, act)(x)


def conv(
    x: Value,
    filters: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] | str | None = None,
    groups: int = 1,
    act: str | None = None,
    bias: bool = False,
    init: Init = None,
    bias_init: Init = None,
    name: str,
) -> Value:
    """Convolution [N, C, H, W] -> [N, filters, H', W']; the default padding keeps H and W at stride 1, SAME is TensorFlow's."""
    height, width = (size, size) if isinstance(size, int) else size
    layer = paddle.nn.Conv2D(
        x.shape[1],
        filters,
        (height, width),
        stride=stride,
        padding=((height - 1) // 2, (width - 1) // 2) if padding is None else padding,
        groups=groups,
        weight_attr=ParamAttr(name=f"{name}_weights", initializer=init),
        bias_attr=ParamAttr(name=f"{name}_offset", initializer=bias_init) if bias else False,
    )
    return name_layer(name, activation(layer(x), act))


_statistics_are_kept = False


@contextmanager
def kept_statistics() -> Iterator[None]:
    """Inside it batch normalisation takes the statistics that it has, in training too, and leaves them as they are."""
    global _statistics_are_kept
    _statistics_are_kept = True
    try:
        yield
    finally:
        _statistics_are_kept = False


def batch_norm(x: Value, *, act: str | None = None, training: bool, name: str, epsilon: float = 1e-5) -> Value:
    """Batch normalisation of [N, C, H, W] (Ioffe & Szegedy 2015), by default with Fluid's epsilon; momentum 0.9."""
    layer = paddle.nn.BatchNorm2D(
        x.shape[1],
        momentum=0.9,
        epsilon=epsilon,
        weight_attr=ParamAttr(name=f"{name}_scale"),
        bias_attr=ParamAttr(name=f"{name}_offset"),
        name=name,
    )
    layer.training = training and not _statistics_are_kept
    return name_layer(name, activation(layer(x), act))


def conv_bn(
    x: Value,
    filters: int,
    size: int | tuple[int, int],
    *,
    stride: int = 1,
    padding: int | tuple[int, int] | str | None = None,
    groups: int = 1,
    act: str | None = "relu",
    init: Init = None,
    training: bool,
    name: str,
    bn_name: str | None = None,
    epsilon: float = 1e-5,
) -> Value:
    """Convolution without bias, batch normalisation (named `NAME_bn` unless `bn_name` is given), activation."""
    x = conv(x, filters, size, stride=stride, padding=padding, groups=groups, init=init, name=name)
    return batch_norm(x, act=act, training=training, name=bn_name or f"{name}_bn", epsilon=epsilon)


def fc(
    x: Value,
    size: int,
    *,
    act: str | None = None,
    init: Init = None,
    bias_init: Init = None,
    name: str,
    weight_suffix: str = "_weights",
    bias_suffix: str = "_offset",
) -> Value:
    """Fully connected layer [N, ...] -> [N, size]; the input is flattened in [C, H, W] order, the matrix is [in, out]."""
    if len(x.shape) > 2:
        x = paddle.flatten(x, start_axis=1)
    layer = paddle.nn.Linear(
        x.shape[1],
        size,
        weight_attr=ParamAttr(name=f"{name}{weight_suffix}", initializer=init),
        bias_attr=ParamAttr(name=f"{name}{bias_suffix}", initializer=bias_init),
    )
    return name_layer(name, activation(layer(x), act))


def max_pool(x: Value, size: int, stride: int, padding: int = 0, *, ceil_mode: bool = False, name: str) -> Value:
    """Maximum over size x size windows of [N, C, H, W]; incomplete windows at the border are dropped unless `ceil_mode`."""
    return name_layer(name, F.max_pool2d(x, size, stride, padding, ceil_mode=ceil_mode))


def avg_pool(x: Value, size: int, stride: int, padding: int = 0, *, ceil_mode: bool = False, name: str) -> Value:
    """Mean over size x size windows of [N, C, H, W]; padding is not counted."""
    return name_layer(name, F.avg_pool2d(x, size, stride, padding, ceil_mode=ceil_mode, exclusive=True))


def global_avg_pool(x: Value, *, name: str) -> Value:
    """Mean over the whole plane: [N, C, H, W] -> [N, C]."""
    return name_layer(name, paddle.flatten(F.adaptive_avg_pool2d(x, 1), start_axis=1))


def response_norm(x: Value, *, name: str) -> Value:
    """Normalise [N, C, H, W] by five neighbouring channels, as Caffe has it: x / (1 + 1e-4 * mean of squares) ** 0.75.

    Krizhevsky, Sutskever & Hinton, NIPS 2012, section 3.3, whose alpha is a fifth of Caffe's.
    """
    channels, square = x.shape[1], x * x
    nothing = paddle.zeros_like(square[:, :2])
    padded = paddle.concat([nothing, square, nothing], axis=1)
    total = sum(padded[:, first : first + channels] for first in range(5))
    return name_layer(name, x * paddle.pow(total * (1e-4 / 5) + 1.0, -0.75))


def dropout(x: Value, rate: float, *, training: bool) -> Value:
    """Dropout as of 2018, which the released weights are trained for: x * mask in training, x * (1 - rate) in inference.

    Today's default instead scales by 1 / (1 - rate) in training and leaves inference alone.
    """
    return F.dropout(x, rate, training=training, mode="downscale_in_infer")
