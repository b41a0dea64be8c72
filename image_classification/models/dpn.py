"""Dual path networks.

Chen, Li, Xiao, Jin, Yan & Feng, "Dual Path Networks", NIPS 2017, https://arxiv.org/abs/1707.01629, table 1. The last
pooling is over the whole plane, which at 224 x 224 pixels is the paper's 7x7 window.
"""

from dataclasses import dataclass

from fluid.program import name_layer
from image_classification.models import layers

import paddle
from paddle.pir import Value


@dataclass(frozen=True)
class Config:
    """What distinguishes the networks."""

    stem: tuple[int, int]
    """Filters and kernel size of the first convolution."""
    groups: int
    """Groups of every 3x3 convolution."""
    grouped_width: int
    """Filters of the 3x3 convolutions in the first stage; they double from stage to stage."""
    blocks: tuple[int, ...]
    """Blocks per stage."""
    residual_width: tuple[int, ...]
    """Channels of the residual path per stage."""
    increment: tuple[int, ...]
    """Channels that each block adds to the dense path, per stage."""


WIDE = (256, 512, 1024, 2048)
CONFIGS = {
    68: Config((10, 3), 32, 128, (3, 4, 12, 3), (64, 128, 256, 512), (16, 32, 32, 64)),
    92: Config((64, 7), 32, 96, (3, 4, 20, 3), WIDE, (16, 32, 24, 128)),
    98: Config((96, 7), 40, 160, (3, 6, 20, 3), WIDE, (16, 32, 32, 128)),
    107: Config((128, 7), 50, 200, (4, 8, 20, 3), WIDE, (20, 64, 64, 128)),
    131: Config((128, 7), 40, 160, (4, 8, 28, 3), WIDE, (16, 32, 32, 128)),
}


def dpn(image: Value, class_dim: int, training: bool, *, depth: int) -> Value:
    """DPN of 68 to 131 layers: image [N, C, H, W] -> logits [N, class_dim]."""
    config = CONFIGS[depth]
    filters, size = config.stem
    x = layers.conv_bn(image, filters, size, stride=2, training=training, name="conv1")
    x = layers.max_pool(x, 3, 2, 1, name="pool1")
    residual, dense = x, None
    number = 0
    for stage, blocks in enumerate(config.blocks):
        for index in range(blocks):
            number += 1
            residual, dense = dual_path_block(
                residual,
                dense,
                config.grouped_width * 2**stage,
                config.residual_width[stage],
                config.increment[stage],
                config.groups,
                stride=2 if index == 0 and stage > 0 else 1,
                project=index == 0,
                training=training,
                name=f"dpn{number}",
            )
    x = paddle.concat([residual, dense], axis=1)
    x = layers.batch_norm(x, act="relu", training=training, name="final_concat_bn")
    x = layers.global_avg_pool(x, name="pool5")
    return layers.fc(x, class_dim, init=paddle.nn.initializer.Uniform(-0.01, 0.01), name="fc")


def dual_path_block(
    residual: Value,
    dense: Value | None,
    grouped_width: int,
    residual_width: int,
    increment: int,
    groups: int,
    *,
    stride: int,
    project: bool,
    training: bool,
    name: str,
) -> tuple[Value, Value]:
    """Both paths [N, C, H, W] -> both paths [N, C', H/stride, W/stride]; figure 2(d) of the paper."""
    x = residual if dense is None else paddle.concat([residual, dense], axis=1)
    if project:
        match = bn_relu_conv(
            x, residual_width + 2 * increment, 1, stride=stride, training=training, name=f"{name}_match"
        )
        residual, dense = paddle.split(match, [residual_width, 2 * increment], axis=1)
    x = bn_relu_conv(x, grouped_width, 1, training=training, name=f"{name}_conv1")
    x = bn_relu_conv(x, grouped_width, 3, stride=stride, groups=groups, training=training, name=f"{name}_conv2")
    x = bn_relu_conv(x, residual_width + increment, 1, training=training, name=f"{name}_conv3")
    to_residual, to_dense = paddle.split(x, [residual_width, increment], axis=1)
    residual = name_layer(f"{name}_residual", residual + to_residual)
    dense = name_layer(f"{name}_dense", paddle.concat([dense, to_dense], axis=1))
    return residual, dense


def bn_relu_conv(
    x: Value, filters: int, size: int, *, stride: int = 1, groups: int = 1, training: bool, name: str
) -> Value:
    """Normalisation and activation before the convolution: [N, C, H, W] -> [N, filters, H / stride, W / stride]."""
    x = layers.batch_norm(x, act="relu", training=training, name=f"{name}_bn")
    return layers.conv(x, filters, size, stride=stride, groups=groups, name=name)
