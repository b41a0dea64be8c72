"""SE-ResNeXt: ResNeXt with squeeze-and-excitation.

Xie, Girshick, Dollar, Tu & He, "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
https://arxiv.org/abs/1611.05431; Hu, Shen & Sun, "Squeeze-and-Excitation Networks", CVPR 2018,
https://arxiv.org/abs/1709.01507. The network of 152 layers has 64 groups and begins with three 3x3 convolutions. Variant caffe is
the second paper's own, whose first pooling begins at the corner and keeps incomplete windows.
"""

from fluid.program import name_layer
from image_classification.models import layers

import paddle
from paddle.pir import Value

# blocks of the four stages
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
FILTERS = (128, 256, 512, 1024)
REDUCTION = 16


def se_resnext(image: Value, class_dim: int, training: bool, *, depth: int, variant: str = "") -> Value:
    """SE-ResNeXt of 50, 101 or 152 layers, `variant` "" or "caffe": image [N, C, H, W] -> logits [N, class_dim]."""
    if depth == 152:
        groups, first_stage = 64, 4
        x = layers.conv_bn(image, 64, 3, stride=2, training=training, name="conv1")
        x = layers.conv_bn(x, 64, 3, training=training, name="conv2")
        x = layers.conv_bn(x, 128, 3, training=training, name="conv3")
    else:
        groups, first_stage = 32, 2
        x = layers.conv_bn(image, 64, 7, stride=2, training=training, name="conv1")
    corner = variant == "caffe"
    x = layers.max_pool(x, 3, 2, 0 if corner else 1, ceil_mode=corner, name="pool1")
    for stage, (blocks, filters) in enumerate(zip(DEPTHS[depth], FILTERS), first_stage):
        for index in range(1, blocks + 1):
            x = block(
                x,
                filters,
                2 if index == 1 and stage > first_stage else 1,
                groups,
                project=index == 1,
                training=training,
                name=f"{stage}_{index}",
            )
    x = layers.global_avg_pool(x, name="pool5")
    x = layers.dropout(x, 0.5, training=training)
    return layers.fc(x, class_dim, init=layers.uniform(x.shape[1]), name="fc6")


def block(x: Value, filters: int, stride: int, groups: int, *, project: bool, training: bool, name: str) -> Value:
    """Grouped convolutions and gated channels beside the shortcut: [N, C, H, W] -> [N, 2 filters, H / stride, W / stride]."""
    y = layers.conv_bn(x, filters, 1, training=training, name=f"conv{name}_x1")
    y = layers.conv_bn(y, filters, 3, stride=stride, groups=groups, training=training, name=f"conv{name}_x2")
    y = layers.conv_bn(y, filters * 2, 1, act=None, training=training, name=f"conv{name}_x3")
    y = squeeze_excitation(y, f"fc{name}")
    if project:
        x = layers.conv_bn(x, filters * 2, 1, stride=stride, act=None, training=training, name=f"conv{name}_prj")
    return name_layer(f"conv{name}", layers.activation(x + y, "relu"))


def squeeze_excitation(x: Value, name: str) -> Value:
    """Multiply every channel of [N, C, H, W] by a gate in 0..1 computed from the means of all channels."""
    channels = x.shape[1]
    gate = layers.global_avg_pool(x, name=f"{name}_pool")
    gate = layers.fc(gate, channels // REDUCTION, act="relu", init=layers.uniform(channels), name=f"{name}_sqz")
    init = layers.uniform(channels // REDUCTION)
    gate = layers.fc(gate, channels, act="sigmoid", init=init, name=f"{name}_exc")
    return x * paddle.reshape(gate, [-1, channels, 1, 1])
