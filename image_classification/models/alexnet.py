"""AlexNet in one tower, without local response normalisation.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, https://arxiv.org/abs/1404.5997
(the network of Krizhevsky, Sutskever & Hinton, NIPS 2012, for one GPU).
"""

from image_classification.models import layers

from paddle.pir import Value

# filters, kernel size, stride, padding, max-pooled afterwards
CONVOLUTIONS = [
    (64, 11, 4, 2, True),
    (192, 5, 1, 2, True),
    (384, 3, 1, 1, False),
    (256, 3, 1, 1, False),
    (256, 3, 1, 1, True),
]


def alexnet(image: Value, class_dim: int, training: bool) -> Value:
    """AlexNet: image [N, C, H, W] -> logits [N, class_dim]. The shape of `fc6_weights` depends on H and W."""
    x = image
    for number, (filters, size, stride, padding, pooled) in enumerate(CONVOLUTIONS, 1):
        init = layers.uniform(x.shape[1] * size * size)
        x = layers.conv(
            x,
            filters,
            size,
            stride=stride,
            padding=padding,
            act="relu",
            bias=True,
            init=init,
            bias_init=init,
            name=f"conv{number}",
        )
        if pooled:
            x = layers.max_pool(x, 3, 2, name=f"pool{number}")
    for name in ("fc6", "fc7"):
        x = layers.dropout(x, 0.5, training=training)
        x = fc(x, 4096, act="relu", name=name)
    return fc(x, class_dim, name="fc8")


def fc(x: Value, size: int, *, act: str | None = None, name: str) -> Value:
    fan_in = x.shape[1] if len(x.shape) == 2 else x.shape[1] * x.shape[2] * x.shape[3]
    init = layers.uniform(fan_in)
    return layers.fc(x, size, act=act, init=init, bias_init=init, name=name)
