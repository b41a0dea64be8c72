"""ResNet and its variants vc, vd and caffe.

He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, https://arxiv.org/abs/1512.03385,
with the stride of a bottleneck on its 3x3 convolution. The variants are C and D of He et al., "Bag of Tricks for Image
Classification with Convolutional Neural Networks", CVPR 2019, https://arxiv.org/abs/1812.01187: vc starts with three
3x3 convolutions, vd in addition halves the shortcut by average pooling. Variant caffe is the paper's own network as its authors
released it: a bottleneck has its stride on the first 1x1 convolution, and the first pooling begins at the corner and keeps
incomplete windows.
"""

from functools import partial

from fluid.program import name_layer
from image_classification.models import layers

from paddle.pir import Value

# blocks of the four stages (table 1 of the paper; 200 layers as in the second ResNet paper, arXiv 1603.05027)
DEPTHS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 12, 48, 3),
}
FILTERS = (64, 128, 256, 512)


def resnet(image: Value, class_dim: int, training: bool, *, depth: int, variant: str = "") -> Value:
    """ResNet of 18 to 200 layers, `variant` "", "vc", "vd" or "caffe": image [N, C, H, W] -> logits [N, class_dim].

    There are no basic blocks of variant caffe.
    """
    x = deep_stem(image, training) if variant in ("vc", "vd") else plain_stem(image, training)
    corner = variant == "caffe"
    x = layers.max_pool(x, 3, 2, 0 if corner else 1, ceil_mode=corner, name="pool1")
    block = partial(bottleneck_block, stride_first=corner) if depth >= 50 else basic_block
    for stage, (blocks, filters) in enumerate(zip(DEPTHS[depth], FILTERS), 2):
        for index in range(blocks):
            stride = 2 if index == 0 and stage > 2 else 1
            x = block(
                x,
                filters,
                stride,
                project=index == 0,
                pool_shortcut=variant == "vd" and stride == 2,
                training=training,
                name=block_name(depth, stage, index),
            )
    x = layers.global_avg_pool(x, name="pool5")
    init = layers.uniform(x.shape[1])
    return layers.fc(x, class_dim, init=init, name="fc_0", weight_suffix=".w_0", bias_suffix=".b_0")


def block_name(depth: int, stage: int, index: int) -> str:
    """res2a, res2b, ...; from 101 layers on the long stage 4 counts res4a, res4b1, res4b2, ... as the Caffe model does."""
    if depth >= 101 and stage == 4 and index > 0:
        return f"res4b{index}"
    return f"res{stage}{chr(ord('a') + index)}"


def plain_stem(image: Value, training: bool) -> Value:
    """One convolution of 7 x 7: [N, 3, H, W] -> [N, 64, H / 2, W / 2]."""
    return layers.conv_bn(image, 64, 7, stride=2, training=training, name="conv1", bn_name="bn_conv1")


def deep_stem(image: Value, training: bool) -> Value:
    """Three convolutions of 3 x 3 in its place (He et al., arXiv:1812.01187): [N, 3, H, W] -> [N, 64, H / 2, W / 2]."""
    x = layers.conv_bn(image, 32, 3, stride=2, training=training, name="conv1_1", bn_name="bnv1_1")
    x = layers.conv_bn(x, 32, 3, training=training, name="conv1_2", bn_name="bnv1_2")
    return layers.conv_bn(x, 64, 3, training=training, name="conv1_3", bn_name="bnv1_3")


def bottleneck_block(
    x: Value,
    filters: int,
    stride: int,
    *,
    project: bool,
    pool_shortcut: bool,
    stride_first: bool,
    training: bool,
    name: str,
) -> Value:
    """Three convolutions beside the shortcut: [N, C, H, W] -> [N, 4 filters, H / stride, W / stride]."""
    first, second = (stride, 1) if stride_first else (1, stride)
    y = conv_bn(x, filters, 1, stride=first, training=training, name=f"{name}_branch2a")
    y = conv_bn(y, filters, 3, stride=second, training=training, name=f"{name}_branch2b")
    y = conv_bn(y, filters * 4, 1, act=None, training=training, name=f"{name}_branch2c")
    if project:
        x = shortcut(x, filters * 4, stride, pool=pool_shortcut, training=training, name=name)
    return name_layer(name, layers.activation(x + y, "relu"))


def basic_block(
    x: Value, filters: int, stride: int, *, project: bool, pool_shortcut: bool, training: bool, name: str
) -> Value:
    """Two convolutions beside the shortcut: [N, C, H, W] -> [N, filters, H / stride, W / stride]."""
    y = conv_bn(x, filters, 3, stride=stride, training=training, name=f"{name}_branch2a")
    y = conv_bn(y, filters, 3, act=None, training=training, name=f"{name}_branch2b")
    if project:
        x = shortcut(x, filters, stride, pool=pool_shortcut, training=training, name=name)
    return name_layer(name, layers.activation(x + y, "relu"))


def shortcut(x: Value, filters: int, stride: int, *, pool: bool, training: bool, name: str) -> Value:
    """What is added to a block that changes the shape; with `pool` as ResNet-vd has it (arXiv:1812.01187)."""
    if pool:
        # ceil_mode gives an odd plane the size that the padded, strided 3x3 convolution beside it has
        x = layers.avg_pool(x, 2, 2, ceil_mode=True, name=f"{name}_branch1_pool")
        stride = 1
    return conv_bn(x, filters, 1, stride=stride, act=None, training=training, name=f"{name}_branch1")


def conv_bn(
    x: Value, filters: int, size: int, *, stride: int = 1, act: str | None = "relu", training: bool, name: str
) -> Value:
    """`res2a_branch1` is normalised by `bn2a_branch1`."""
    bn_name = "bn" + name.removeprefix("res")
    return layers.conv_bn(x, filters, size, stride=stride, act=act, training=training, name=name, bn_name=bn_name)
