"""MobileNetV2.

Sandler, Howard, Zhu, Zhmoginov & Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
https://arxiv.org/abs/1801.04381, table 2. Different from the paper, the first bottleneck too has its 1x1 expansion
(with factor 1).
"""

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


def mobilenet_v2(image: Value, class_dim: int, training: bool, *, scale: float = 1.0) -> Value:
    """MobileNetV2 with `scale` times the filters of the paper: image [N, C, H, W] -> logits [N, class_dim]."""
    x = layers.conv_bn(image, int(32 * scale), 3, stride=2, act="relu6", training=training, name="conv1_1")
    for stage, expansion, filters, repetitions, stride in STAGES:
        for index in range(1, repetitions + 1):
            x = inverted_residual(
                x,
                int(filters * scale),
                stride if index == 1 else 1,
                expansion,
                residual=index > 1,
                training=training,
                name=f"{stage}_{index}",
            )
    x = layers.conv_bn(x, int(1280 * max(scale, 1.0)), 1, act="relu6", training=training, name="conv9")
    x = layers.global_avg_pool(x, name="pool9")
    return layers.fc(x, class_dim, name="fc10")


def inverted_residual(
    x: Value, filters: int, stride: int, expansion: int, *, residual: bool, training: bool, name: str
) -> Value:
    width = x.shape[1] * expansion
    y = layers.conv_bn(x, width, 1, act="relu6", training=training, name=f"{name}_expand")
    y = layers.conv_bn(y, width, 3, stride=stride, groups=width, act="relu6", training=training, name=f"{name}_dwise")
    y = layers.conv_bn(y, filters, 1, act=None, training=training, name=f"{name}_linear")
    return name_layer(name, x + y if residual else y)
