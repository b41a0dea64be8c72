"""The layers that the networks of this folder are written with."""

from fluid.program import Value, name_layer

import paddle
import paddle.nn.functional as F
from paddle import ParamAttr
from paddle.nn.initializer import KaimingNormal, XavierUniform


def conv(
    x: Value,
    filters: int,
    size: int,
    *,
    name: str,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    relu: bool = True,
) -> Value:
    """Convolution with bias, variables `NAME.w_0` and `NAME.b_0`; the default padding keeps the size at stride 1."""
    layer = paddle.nn.Conv2D(
        x.shape[1],
        filters,
        size,
        stride=stride,
        padding=dilation * (size - 1) // 2 if padding is None else padding,
        dilation=dilation,
        weight_attr=ParamAttr(name=f"{name}.w_0", initializer=XavierUniform()),
        bias_attr=ParamAttr(name=f"{name}.b_0"),
    )
    x = layer(x)
    return name_layer(name, F.relu(x) if relu else x)


def conv_bn(
    x: Value, filters: int, size: int, *, name: str, norm: str, stride: int = 1, groups: int = 1, training: bool
) -> Value:
    """Convolution, batch normalisation and relu, by the names that Fluid gave the variables of such layers.

    `NAME.w_0` is the kernel; of the normalisation `NORM.w_0` is the scale, `.b_0` the offset, `.w_1` the mean and `.w_2`
    the variance (Ioffe & Szegedy, arXiv:1502.03167; epsilon 1e-5, momentum .9).
    """
    # Its fan-in is that of one group, where Paddle's default takes all channels.
    kernel = ParamAttr(name=f"{name}.w_0", initializer=KaimingNormal(fan_in=x.shape[1] // groups * size * size))
    convolution = paddle.nn.Conv2D(
        x.shape[1], filters, size, stride, (size - 1) // 2, groups=groups, weight_attr=kernel, bias_attr=False
    )
    normalise = paddle.nn.BatchNorm(
        filters,
        momentum=0.9,
        epsilon=1e-5,
        param_attr=ParamAttr(name=f"{norm}.w_0"),
        bias_attr=ParamAttr(name=f"{norm}.b_0"),
        moving_mean_name=f"{norm}.w_1",
        moving_variance_name=f"{norm}.w_2",
    )
    normalise.training = training
    return name_layer(name, F.relu(normalise(convolution(x))))


def l2_norm(x: Value, *, name: str, scale: float = 20.0) -> Value:
    """Every place of [N, C, H, W] at length 1 over its channels, times a factor a channel that is trained, `NAME.w_0`.

    Liu, Rabinovich & Berg, "ParseNet", arXiv:1506.04579, section 3.3; SSD starts it at 20.
    """
    factor = ParamAttr(name=f"{name}.w_0", initializer=paddle.nn.initializer.Constant(scale))
    factors = paddle.create_parameter([x.shape[1]], "float32", attr=factor)
    full = paddle.cast(x, "float32")
    length = paddle.sqrt(paddle.sum(full * full, axis=1, keepdim=True) + 1e-10)
    return name_layer(name, full / length * factors.reshape([1, -1, 1, 1]))
