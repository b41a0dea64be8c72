"""VGG without batch normalisation.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015,
https://arxiv.org/abs/1409.1556, table 1, columns A, B, D and E.
"""

from image_classification.models import layers

from paddle.nn.initializer import Constant, Normal
from paddle.pir import Value

# convolutions in each of the five blocks
DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FILTERS = (64, 128, 256, 512, 512)


def vgg(image: Value, class_dim: int, training: bool, *, depth: int, conv_bias: bool = False) -> Value:
    """VGG of 11 to 19 layers: image [N, C, H, W] -> logits [N, class_dim]. The shape of `fc6_weights` depends on H and W.

    The released weights have no biases in the convolutions; the paper's network and other libraries' weights do.
    """
    x = image
    for block, (convolutions, filters) in enumerate(zip(DEPTHS[depth], FILTERS), 1):
        for index in range(1, convolutions + 1):
            x = layers.conv(x, filters, 3, act="relu", bias=conv_bias, name=f"conv{block}_{index}")
        x = layers.max_pool(x, 2, 2, name=f"pool{block}")
    init = {"init": Normal(0.0, 0.005), "bias_init": Constant(0.1)}
    for name in ("fc6", "fc7"):
        x = layers.fc(x, 4096, act="relu", **init, name=name)
        x = layers.dropout(x, 0.5, training=training)
    return layers.fc(x, class_dim, **init, name="fc8")
