"""VGG16 (Simonyan & Zisserman, arXiv:1409.1556) as SSD uses it (Liu et al., arXiv:1512.02325, section 3).

The fully connected layers are convolutions with dilation, the last pooling keeps the size, and extra layers follow.
Layers are called as in the authors' network, variables LAYER.w_0 and LAYER.b_0.
"""

from collections.abc import Collection, Iterator

from fluid.program import Value
from object_detection.models.layers import conv, l2_norm

import paddle.nn.functional as F

GROUPS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
"""Convolutions and filters of each group; behind it the image is halved, rounded up."""
# filters of the 1x1 and of the 3x3 convolution; stride and padding of the latter
EXTRAS_300 = ((256, 512, 2, 1), (128, 256, 2, 1), (128, 256, 1, 0), (128, 256, 1, 0))
EXTRAS_512 = ((256, 512, 2, 1), *[(128, 256, 2, 1)] * 3)
MAP_LAYERS_300 = ("conv4_3_norm", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2")
MAP_LAYERS_512 = (*MAP_LAYERS_300, "conv10_2")


def vgg16_300(image: Value, training: bool, width: float, wanted: Collection[str]) -> dict[str, Value]:
    """The maps of an image [N, 3, 300, 300] by the names of their layers, and of the network only what `wanted` ones need.

    Every layer has `width` times the filters. There is nothing that differs in training.
    """
    return dict(_wanted(_layers(image, EXTRAS_300, width, wanted), wanted))


def vgg16_512(image: Value, training: bool, width: float, wanted: Collection[str]) -> dict[str, Value]:
    """The same for images of 512 x 512, with one more map; its layer has a 4x4 kernel."""

    def layers() -> Iterator[tuple[str, Value]]:
        for name, x in _layers(image, EXTRAS_512, width, wanted):
            yield name, x
        x = conv(x, _filters(128, width), 1, name="conv10_1")
        yield "conv10_2", conv(x, _filters(256, width), 4, padding=1, name="conv10_2")

    return dict(_wanted(layers(), wanted))


def head_names(layer: str) -> tuple[str, str]:
    """Names of the convolutions that predict boxes and classes from a map."""
    return f"{layer}_mbox_loc", f"{layer}_mbox_conf"


def _filters(full: int, width: float) -> int:
    return max(8, int(full * width))


def _wanted(layers: Iterator[tuple[str, Value]], wanted: Collection[str]) -> Iterator[tuple[str, Value]]:
    """The wanted ones; what comes after the last of them is not built."""
    left = set(wanted)
    while left:
        name, x = next(layers)
        if name in left:
            left.remove(name)
            yield name, x


def _layers(
    x: Value, extras: tuple[tuple[int, int, int, int], ...], width: float, wanted: Collection[str]
) -> Iterator[tuple[str, Value]]:
    for group, (layers, filters) in enumerate(GROUPS, 1):
        for layer in range(1, layers + 1):
            x = conv(x, _filters(filters, width), 3, name=f"conv{group}_{layer}")
        if group == 4 and "conv4_3_norm" in wanted:
            yield "conv4_3_norm", l2_norm(x, name="conv4_3_norm")
        x = F.max_pool2d(x, 2, 2, ceil_mode=True) if group < 5 else F.max_pool2d(x, 3, 1, padding=1)
    x = conv(x, _filters(1024, width), 3, dilation=6, name="fc6")
    x = conv(x, _filters(1024, width), 1, name="fc7")
    yield "fc7", x
    for number, (narrow, wide, stride, padding) in enumerate(extras, 6):
        x = conv(x, _filters(narrow, width), 1, name=f"conv{number}_1")
        x = conv(x, _filters(wide, width), 3, stride=stride, padding=padding, name=f"conv{number}_2")
        yield f"conv{number}_2", x
