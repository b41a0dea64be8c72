"""GoogLeNet (Inception v1).

Szegedy et al., "Going Deeper with Convolutions", CVPR 2015, https://arxiv.org/abs/1409.4842, table 1.
The released network differs from the paper: convolutions have neither bias nor activation, the only nonlinearity is a
relu behind each inception block's concatenation, there is no local response normalisation, and poolings drop
incomplete windows, so that the last plane has 6x6 pixels (7x7 in the paper). Caffe's network is the paper's.
"""

from fluid.program import name_layer
from image_classification.models import layers

import paddle
from paddle.pir import Value

# filters of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(image: Value, class_dim: int, training: bool) -> tuple[Value, Value, Value]:
    """GoogLeNet: image [N, C, H, W] -> logits of the main, the first and the second auxiliary head, each [N, class_dim].

    The auxiliary heads count in the training loss with weight 0.3 each and are not needed in inference. The shapes of
    `fc_o1_weights` and `fc_o2_weights` depend on H and W.
    """
    x = conv(image, 64, 7, stride=2, name="conv1")
    x = layers.max_pool(x, 3, 2, name="pool1")
    x = conv(x, 64, 1, name="conv2_1x1")
    x = conv(x, 192, 3, name="conv2_3x3")
    x = layers.max_pool(x, 3, 2, name="pool2")
    x = inception(x, "3a")
    x = inception(x, "3b")
    x = layers.max_pool(x, 3, 2, name="pool3")
    x = inception_4a = inception(x, "4a")
    x = inception(x, "4b")
    x = inception(x, "4c")
    x = inception_4d = inception(x, "4d")
    x = inception(x, "4e")
    x = layers.max_pool(x, 3, 2, name="pool4")
    x = inception(x, "5a")
    x = inception(x, "5b")
    x = layers.global_avg_pool(x, name="pool5")
    x = layers.dropout(x, 0.4, training=training)
    logits = layers.fc(x, class_dim, name="out")
    return logits, auxiliary(inception_4a, class_dim, training, "1"), auxiliary(inception_4d, class_dim, training, "2")


def caffe_googlenet(image: Value, class_dim: int, training: bool) -> Value:
    """BVLC's GoogLeNet without its auxiliary heads: image [N, C, H, W] -> logits [N, class_dim]."""

    def conv(x: Value, filters: int, size: int, name: str, stride: int = 1) -> Value:
        return layers.conv(x, filters, size, stride=stride, act="relu", bias=True, name=name)

    def pool(x: Value, number: int) -> Value:
        return layers.max_pool(x, 3, 2, ceil_mode=True, name=f"pool{number}_3x3_s2")

    x = pool(conv(image, 64, 7, "conv1_7x7_s2", 2), 1)
    x = conv(layers.response_norm(x, name="pool1_norm1"), 64, 1, "conv2_3x3_reduce")
    x = pool(layers.response_norm(conv(x, 192, 3, "conv2_3x3"), name="conv2_norm2"), 2)
    for block, (f1, f3_reduce, f3, f5_reduce, f5, projection) in INCEPTION.items():
        name = f"inception_{block}"
        branches = [
            conv(x, f1, 1, f"{name}_1x1"),
            conv(conv(x, f3_reduce, 1, f"{name}_3x3_reduce"), f3, 3, f"{name}_3x3"),
            conv(conv(x, f5_reduce, 1, f"{name}_5x5_reduce"), f5, 5, f"{name}_5x5"),
            conv(layers.max_pool(x, 3, 1, 1, name=f"{name}_pool"), projection, 1, f"{name}_pool_proj"),
        ]
        x = name_layer(f"{name}_output", paddle.concat(branches, axis=1))
        x = pool(x, int(block[0])) if block in ("3b", "4e") else x
    x = layers.dropout(layers.global_avg_pool(x, name="pool5_7x7_s1"), 0.4, training=training)
    return layers.fc(x, class_dim, init=layers.uniform(x.shape[1]), name="loss3_classifier")


def inception(x: Value, name: str) -> Value:
    """Four branches side by side, their channels concatenated: [N, C, H, W] -> [N, C', H, W]."""
    f1, f3_reduce, f3, f5_reduce, f5, projection = INCEPTION[name]
    prefix = f"inception_ince{name}"
    branch1 = conv(x, f1, 1, name=f"{prefix}_1x1")
    branch3 = conv(x, f3_reduce, 1, name=f"{prefix}_3x3_reduce")
    branch3 = conv(branch3, f3, 3, name=f"{prefix}_3x3")
    branch5 = conv(x, f5_reduce, 1, name=f"{prefix}_5x5_reduce")
    branch5 = conv(branch5, f5, 5, name=f"{prefix}_5x5")
    pooled = layers.max_pool(x, 3, 1, 1, name=f"{prefix}_pool")
    pooled = layers.conv(pooled, projection, 1, name=f"{prefix}_3x3_proj")
    x = paddle.concat([branch1, branch3, branch5, pooled], axis=1)
    return name_layer(f"inception_{name}", layers.activation(x, "relu"))


def auxiliary(x: Value, class_dim: int, training: bool, number: str) -> Value:
    """A classifier beside the trunk, of use in training alone: [N, C, H, W] -> logits [N, class_dim]."""
    x = layers.avg_pool(x, 5, 3, name=f"pool_o{number}")
    x = conv(x, 128, 1, name=f"conv_o{number}")
    x = layers.fc(x, 1024, act="relu", name=f"fc_o{number}")
    x = layers.dropout(x, 0.7, training=training)
    return layers.fc(x, class_dim, name=f"out{number}")


def conv(x: Value, filters: int, size: int, *, stride: int = 1, name: str) -> Value:
    """A convolution, first values as GoogLeNet draws them: [N, C, H, W] -> [N, filters, H / stride, W / stride]."""
    init = layers.uniform(x.shape[1] * size * size, gain=3**0.5)
    return layers.conv(x, filters, size, stride=stride, init=init, name=name)
