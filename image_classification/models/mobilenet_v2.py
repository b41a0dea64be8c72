"""MobileNetV2.

Sandler, Howard, Zhu, Zhmoginov & Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381, table 2. Different from the paper, the first bottleneck too has its 1x1 expansion
(with factor 1), except in the form of TensorFlow's weights.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fluid.program import name_layer
from image_classification.models import layers

from paddle.pir import Value

# name, expansion factor t, output channels c, repetitions n, stride s of the first
STAGES = [
    ("conv2", 1, 16, 1, 1),
    ("conv3", 6, 24, 2, 2),
    ("conv4", 6, 32, 3, 2),
    ("conv5", 6, 64, 4, 2),
    ("conv6", 6, 96, 3, 1),
    ("conv7", 6, 160, 3, 2),
    ("conv8", 6, 320, 1, 1),
]


@dataclass(frozen=True)
class Form:
    """In what the networks differ that weights of this architecture were trained for."""

    padding: str | None = None
    """SAME pads a stride of 2 at the end of even sides, as TensorFlow does; by default by one pixel all around."""
    epsilon: float = 1e-5
    """Of batch normalisation."""
    first_expansion: bool = True
    """Whether the first bottleneck has one."""


FLUID, TENSORFLOW = Form(), Form("SAME", 1e-3, first_expansion=False)


def mobilenet_v2(image: Value, class_dim: int, training: bool, *, scale: float = 1.0, form: Form = FLUID) -> Value:
    """MobileNetV2 with `scale` times the filters of the paper: image [N, C, H, W] -> logits [N, class_dim]."""
    conv_bn = partial(layers.conv_bn, epsilon=form.epsilon, training=training)
    x = conv_bn(image, int(32 * scale), 3, stride=2, padding=form.padding, act="relu6", name="conv1_1")
    for stage, expansion, filters, repetitions, stride in STAGES:
        for index in range(1, repetitions + 1):
            x = inverted_residual(
                x,
                int(filters * scale),
                stride if index == 1 else 1,
                expansion if form.first_expansion or expansion > 1 else None,
                residual=index > 1,
                padding=form.padding,
                conv_bn=conv_bn,
                name=f"{stage}_{index}",
            )
    x = conv_bn(x, int(1280 * max(scale, 1.0)), 1, act="relu6", name="conv9")
    x = layers.global_avg_pool(x, name="pool9")
    return layers.fc(x, class_dim, name="fc10")


def inverted_residual(
    x: Value,
    filters: int,
    stride: int,
    expansion: int | None,
    *,
    residual: bool,
    padding: str | None,
    conv_bn: Callable[..., Value],
    name: str,
) -> Value:
    """Widened, filtered channel by channel, narrowed again: [N, C, H, W] -> [N, filters, H / stride, W / stride]."""
    y, width = x, x.shape[1]
    if expansion is not None:
        width *= expansion
        y = conv_bn(y, width, 1, act="relu6", name=f"{name}_expand")
    y = conv_bn(y, width, 3, stride=stride, padding=padding, groups=width, act="relu6", name=f"{name}_dwise")
    y = conv_bn(y, filters, 1, act=None, name=f"{name}_linear")
    return name_layer(name, x + y if residual else y)
