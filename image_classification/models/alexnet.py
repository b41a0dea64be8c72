"""AlexNet in one tower, without local response normalisation; and as Caffe has it.

Krizhevsky, "One weird trick for parallelizing convolutional neural networks", 2014, https://arxiv.org/abs/1404.5997
(the network of Krizhevsky, Sutskever & Hinton, NIPS 2012, for one GPU). Caffe's AlexNet and CaffeNet are the network of 2012, two
groups and normalisation included; CaffeNet pools before it normalises.
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


TWO_TOWERS = [
    # filters, kernel size, stride, padding, groups, normalised and pooled afterwards
    (96, 11, 4, 0, 1, "both"),
    (256, 5, 1, 2, 2, "both"),
    (384, 3, 1, 1, 1, ""),
    (384, 3, 1, 1, 2, ""),
    (256, 3, 1, 1, 2, "pooled"),
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


def caffe_alexnet(image: Value, class_dim: int, training: bool, *, pool_first: bool) -> Value:
    """Caffe's AlexNet, or with `pool_first` CaffeNet: image [N, C, H, W] -> logits [N, class_dim]; `fc6_weights` as above."""
    x = image
    for number, (filters, size, stride, padding, groups, after) in enumerate(TWO_TOWERS, 1):
        x = layers.conv(
            x, filters, size, stride=stride, padding=padding, groups=groups, act="relu", bias=True, name=f"conv{number}"
        )
        if after == "both" and not pool_first:
            x = layers.response_norm(x, name=f"norm{number}")
        if after:
            x = layers.max_pool(x, 3, 2, ceil_mode=True, name=f"pool{number}")
        if after == "both" and pool_first:
            x = layers.response_norm(x, name=f"norm{number}")
    for name in ("fc6", "fc7"):
        x = layers.dropout(fc(x, 4096, act="relu", name=name), 0.5, training=training)
    return fc(x, class_dim, name="fc8")


def fc(x: Value, size: int, *, act: str | None = None, name: str) -> Value:
    """A fully connected layer, first values as AlexNet draws them: [N, ...] -> [N, size]."""
    fan_in = x.shape[1] if len(x.shape) == 2 else x.shape[1] * x.shape[2] * x.shape[3]
    init = layers.uniform(fan_in)
    return layers.fc(x, size, act=act, init=init, bias_init=init, name=name)
