"""Inception-v4.

Szegedy, Ioffe, Vanhoucke & Alemi, "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
AAAI 2017, https://arxiv.org/abs/1602.07261, figures 3 to 9. The released weights are for 299 x 299 images.
"""

from fluid.program import name_layer
from image_classification.models import layers

import paddle
from paddle.pir import Value


def inception_v4(image: Value, class_dim: int, training: bool) -> Value:
    """Inception-v4: image [N, C, H, W] -> logits [N, class_dim]."""
    x = stem(image, training)
    for index in range(1, 5):
        x = inception_a(x, training, f"inception_a{index}")
    x = reduction_a(x, training)
    for index in range(1, 8):
        x = inception_b(x, training, f"inception_b{index}")
    x = reduction_b(x, training)
    for index in range(1, 4):
        x = inception_c(x, training, f"inception_c{index}")
    x = layers.global_avg_pool(x, name="global_pool")
    x = layers.dropout(x, 0.2, training=training)
    return layers.fc(x, class_dim, init=layers.uniform(1536), name="final_fc")


def stem(x: Value, training: bool) -> Value:
    """Figure 3. The names of the 7x1 and 1x7 convolutions are exchanged in the released weights."""
    conv_bn = bind(training, "")
    x = conv_bn(x, 32, 3, "conv1_3x3_s2", stride=2, padding=0)
    x = conv_bn(x, 32, 3, "conv2_3x3_s1", padding=0)
    x = conv_bn(x, 64, 3, "conv3_3x3_s1")

    pooled = layers.max_pool(x, 3, 2, name="inception_stem1_pool")
    strided = conv_bn(x, 96, 3, "inception_stem1_3x3_s2", stride=2, padding=0)
    x = name_layer("inception_stem1", paddle.concat([pooled, strided], axis=1))

    short = conv_bn(x, 64, 1, "inception_stem2_3x3_reduce")
    short = conv_bn(short, 96, 3, "inception_stem2_3x3", padding=0)
    long = conv_bn(x, 64, 1, "inception_stem2_1x7_reduce")
    long = conv_bn(long, 64, (7, 1), "inception_stem2_1x7")
    long = conv_bn(long, 64, (1, 7), "inception_stem2_7x1")
    long = conv_bn(long, 96, 3, "inception_stem2_3x3_2", padding=0)
    x = name_layer("inception_stem2", paddle.concat([short, long], axis=1))

    strided = conv_bn(x, 192, 3, "inception_stem3_3x3_s2", stride=2, padding=0)
    pooled = layers.max_pool(x, 3, 2, name="inception_stem3_pool")
    return name_layer("inception_stem3", paddle.concat([strided, pooled], axis=1))


def inception_a(x: Value, training: bool, name: str) -> Value:
    """Figure 4."""
    conv_bn = bind(training, name)
    pooled = layers.avg_pool(x, 3, 1, 1, name=f"{name}_pool")
    branch1 = conv_bn(pooled, 96, 1, "_1x1")
    branch2 = conv_bn(x, 96, 1, "_1x1_2")
    branch3 = conv_bn(x, 64, 1, "_3x3_reduce")
    branch3 = conv_bn(branch3, 96, 3, "_3x3")
    branch4 = conv_bn(x, 64, 1, "_3x3_2_reduce")
    branch4 = conv_bn(branch4, 96, 3, "_3x3_2")
    branch4 = conv_bn(branch4, 96, 3, "_3x3_3")
    return name_layer(name, paddle.concat([branch1, branch2, branch3, branch4], axis=1))


def reduction_a(x: Value, training: bool) -> Value:
    """Figure 7 with k, l, m, n = 192, 224, 256, 384."""
    conv_bn = bind(training, "reduction_a")
    branch1 = layers.max_pool(x, 3, 2, name="reduction_a_pool")
    branch2 = conv_bn(x, 384, 3, "_3x3", stride=2, padding=0)
    branch3 = conv_bn(x, 192, 1, "_3x3_2_reduce")
    branch3 = conv_bn(branch3, 224, 3, "_3x3_2")
    branch3 = conv_bn(branch3, 256, 3, "_3x3_3", stride=2, padding=0)
    return name_layer("reduction_a", paddle.concat([branch1, branch2, branch3], axis=1))


def inception_b(x: Value, training: bool, name: str) -> Value:
    """Figure 5."""
    conv_bn = bind(training, name)
    pooled = layers.avg_pool(x, 3, 1, 1, name=f"{name}_pool")
    branch1 = conv_bn(pooled, 128, 1, "_1x1")
    branch2 = conv_bn(x, 384, 1, "_1x1_2")
    branch3 = conv_bn(x, 192, 1, "_1x7_reduce")
    branch3 = conv_bn(branch3, 224, (1, 7), "_1x7")
    branch3 = conv_bn(branch3, 256, (7, 1), "_7x1")
    branch4 = conv_bn(x, 192, 1, "_7x1_2_reduce")
    branch4 = conv_bn(branch4, 192, (1, 7), "_1x7_2")
    branch4 = conv_bn(branch4, 224, (7, 1), "_7x1_2")
    branch4 = conv_bn(branch4, 224, (1, 7), "_1x7_3")
    branch4 = conv_bn(branch4, 256, (7, 1), "_7x1_3")
    return name_layer(name, paddle.concat([branch1, branch2, branch3, branch4], axis=1))


def reduction_b(x: Value, training: bool) -> Value:
    """Figure 8."""
    conv_bn = bind(training, "reduction_b")
    branch1 = layers.max_pool(x, 3, 2, name="reduction_b_pool")
    branch2 = conv_bn(x, 192, 1, "_3x3_reduce")
    branch2 = conv_bn(branch2, 192, 3, "_3x3", stride=2, padding=0)
    branch3 = conv_bn(x, 256, 1, "_1x7_reduce")
    branch3 = conv_bn(branch3, 256, (1, 7), "_1x7")
    branch3 = conv_bn(branch3, 320, (7, 1), "_7x1")
    branch3 = conv_bn(branch3, 320, 3, "_3x3_2", stride=2, padding=0)
    return name_layer("reduction_b", paddle.concat([branch1, branch2, branch3], axis=1))


def inception_c(x: Value, training: bool, name: str) -> Value:
    """Figure 6."""
    conv_bn = bind(training, name)
    pooled = layers.avg_pool(x, 3, 1, 1, name=f"{name}_pool")
    branch1 = conv_bn(pooled, 256, 1, "_1x1")
    branch2 = conv_bn(x, 256, 1, "_1x1_2")
    branch3 = conv_bn(x, 384, 1, "_1x1_3")
    branch3_wide = conv_bn(branch3, 256, (1, 3), "_1x3")
    branch3_high = conv_bn(branch3, 256, (3, 1), "_3x1")
    branch4 = conv_bn(x, 384, 1, "_1x1_4")
    branch4 = conv_bn(branch4, 448, (1, 3), "_1x3_2")
    branch4 = conv_bn(branch4, 512, (3, 1), "_3x1_2")
    branch4_wide = conv_bn(branch4, 256, (1, 3), "_1x3_3")
    branch4_high = conv_bn(branch4, 256, (3, 1), "_3x1_3")
    branches = [branch1, branch2, branch3_wide, branch3_high, branch4_wide, branch4_high]
    return name_layer(name, paddle.concat(branches, axis=1))


def bind(training: bool, prefix: str):
    """`layers.conv_bn` with the mode and the prefix of all names in a block filled in."""

    def conv_bn(x: Value, filters: int, size: int | tuple[int, int], name: str, **options) -> Value:
        return layers.conv_bn(x, filters, size, **options, training=training, name=f"{prefix}{name}")

    return conv_bn
