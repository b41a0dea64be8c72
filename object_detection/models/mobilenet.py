"""MobileNet v1 (Howard et al., arXiv:1704.04861, table 1) with the extra layers of SSD behind it.

Every variable has the name that Fluid gave it by itself in 2018, and so do those of the released weights.
"""

from collections.abc import Callable, Collection, Iterator
from itertools import count

from fluid.program import Value
from object_detection.models.layers import conv_bn

BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)
"""Filters of each pointwise convolution, stride of the depthwise one before it."""
EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
"""Filters of a 1x1 convolution and of the 3x3 one with stride 2 behind it."""
MAP_LAYERS = ("conv2d_3", "conv2d_5", "conv2d_11", "conv2d_13", "conv2d_15", "conv2d_17", "conv2d_19", "conv2d_21")
"""The layers that may predict: a quarter of the image's side, an eighth, ..."""
FIRST_MAP_HALVINGS = 2
"""How often the image has been halved where the first of them is."""
HEADS = dict(zip(MAP_LAYERS, (34, 36, 22, 24, 26, 28, 30, 32), strict=True))
"""Number of the convolution that predicts boxes; that of the classes follows. The released network has 22 to 33."""


def mobilenet(image: Value, training: bool, width: float, wanted: Collection[str]) -> dict[str, Value]:
    """The maps of an image [N, 3, H, W] by the names of their layers, and of the network only what `wanted` ones need.

    Every layer has `width` times the filters.
    """
    block = _numbered_blocks(training)

    def filters(full: int) -> int:
        return max(8, int(full * width))

    def layers() -> Iterator[Value]:
        x = block(image, filters(32), 3, stride=2)
        yield x
        for full, stride in BLOCKS:
            x = block(block(x, x.shape[1], 3, stride=stride, depthwise=True), filters(full), 1)
            yield x
        for narrow, wide in EXTRAS:
            x = block(x, filters(narrow), 1)
            yield x
            x = block(x, filters(wide), 3, stride=2)
            yield x

    last = max(MAP_LAYERS.index(layer) for layer in wanted)
    maps = {}
    for number, x in enumerate(layers()):
        maps[f"conv2d_{number}"] = x
        if MAP_LAYERS[last] in maps:
            break
    return {layer: maps[layer] for layer in MAP_LAYERS[: last + 1]}


def head_names(layer: str) -> tuple[str, str]:
    """Names of the convolutions that predict boxes and classes from a map."""
    return f"conv2d_{HEADS[layer]}", f"conv2d_{HEADS[layer] + 1}"


def _numbered_blocks(training: bool) -> Callable[..., Value]:
    convolutions, depthwises, norms = count(), count(), count()

    def block(x: Value, filters: int, size: int, *, stride: int = 1, depthwise: bool = False) -> Value:
        name = f"depthwise_conv2d_{next(depthwises)}" if depthwise else f"conv2d_{next(convolutions)}"
        groups = x.shape[1] if depthwise else 1
        norm = f"batch_norm_{next(norms)}"
        return conv_bn(x, filters, size, name=name, norm=norm, stride=stride, groups=groups, training=training)

    return block
