"""A small plain network for images of 28 to 32 pixels a side, quick to train on a CPU.

Three strided 3x3 convolutions with batch normalisation (Ioffe & Szegedy 2015) and global average pooling, as in the
"all convolutional net" of Springenberg, Dosovitskiy, Brox & Riedmiller, 2014, https://arxiv.org/abs/1412.6806.
"""

from image_classification.models import layers

from paddle.pir import Value


def small_net(image: Value, class_dim: int, training: bool) -> Value:
    """Image [N, C, H, W] -> logits [N, class_dim]."""
    x = layers.conv_bn(image, 32, 3, stride=2, training=training, name="conv1")
    x = layers.conv_bn(x, 64, 3, stride=2, training=training, name="conv2")
    x = layers.conv_bn(x, 128, 3, stride=2, training=training, name="conv3")
    x = layers.global_avg_pool(x, name="pool3")
    return layers.fc(x, class_dim, name="fc4")
