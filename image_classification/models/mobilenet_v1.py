"""MobileNet.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017,
https://arxiv.org/abs/1704.04861, table 1.
"""

from image_classification.models import layers

from paddle.nn.initializer import KaimingUniform
from paddle.pir import Value

# name, filters after the pointwise convolution, stride of the depthwise one
BLOCKS = [
    ("conv2_1", 64, 1),
    ("conv2_2", 128, 2),
    ("conv3_1", 128, 1),
    ("conv3_2", 256, 2),
    ("conv4_1", 256, 1),
    ("conv4_2", 512, 2),
    ("conv5_1", 512, 1),
    ("conv5_2", 512, 1),
    ("conv5_3", 512, 1),
    ("conv5_4", 512, 1),
    ("conv5_5", 512, 1),
    ("conv5_6", 1024, 2),
    ("conv6", 1024, 1),
]


def mobilenet_v1(image: Value, class_dim: int, training: bool, *, scale: float = 1.0) -> Value:
    """MobileNet with `scale` times the filters of the paper: image [N, C, H, W] -> logits [N, class_dim]."""
    # the default initialiser takes all channels for the fan-in, which is far too many for a depthwise convolution
    init = KaimingUniform()
    x = layers.conv_bn(image, int(32 * scale), 3, stride=2, init=init, training=training, name="conv1")
    for name, filters, stride in BLOCKS:
        channels = x.shape[1]
        x = layers.conv_bn(
            x, channels, 3, stride=stride, groups=channels, init=init, training=training, name=f"{name}_dw"
        )
        x = layers.conv_bn(x, int(filters * scale), 1, init=init, training=training, name=f"{name}_sep")
    x = layers.global_avg_pool(x, name="pool6")
    return layers.fc(x, class_dim, init=init, name="fc7")
