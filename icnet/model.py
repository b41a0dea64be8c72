"""ICNet (Zhao et al., arXiv:1704.08545) as it was released for Fluid, by the names of its variables.

Three branches see the image at 1/4, 1/2 and its own size: the smallest goes through a deep dilated ResNet, the others
through few layers, and each result refines the one before it (cascade feature fusion).

    LAYER.w_0 [, LAYER.b_0]                         of a convolution; an offset only where logits come out
    LAYER_bn.w_0, LAYER_bn.b_0, _bn.w_1, _bn.w_2    scale, offset, mean, variance of the batch normalisation behind it
"""

from dataclasses import dataclass, field
from typing import Literal

from fluid.program import Value, dtype_name, only_runs_forward
from fluid.resize import gather_bilinear, resize_bilinear
from icnet.segmenter import BLOCKS, HEADS, Blocks, scaled

import paddle
import paddle.nn.functional as F

Rounding = Literal["ceil", "floor"]

MOMENTUM = 0.95
"""Share of the running statistics that a step keeps."""
EPSILON = 1e-5
RESIDUAL = 0.1
"""What the last factor of a residual block begins at, so that blocks add little at first. Goyal et al. (arXiv:1706.02677) begin
at 0, where the layers before it have no gradient yet; 750 updates on a CPU made 0.38 mean IoU that way, and 0.33 from 1."""
SMALLEST_SIDE = 128
"""Pixels; of less, a pooling window of the deepest branch would hold nothing."""


@dataclass
class ICNet:
    """The network. Its parameters are created where they are first needed, so that it can be applied several times.

    Args:
        classes: number of classes.
        training: whether batch normalisation takes statistics of the batch.
        width: factor of the number of channels of every layer; 1 is the released network.
        rounding: of 1/32 of the height and the width, where they are no multiples of 32.
        zoom: by how much an image is enlarged first, to sides that are the nearest multiples of 16.
        blocks: residual blocks of the groups conv2 to conv5; the first of conv3 is the last that two branches share.
        own_statistics: share of an image's own statistics in batch normalisation, where it takes none of the batch.
    """

    classes: int
    training: bool
    width: float = 1.0
    rounding: Rounding = "floor"
    zoom: float = 1.0
    blocks: Blocks = BLOCKS
    own_statistics: float = 0.0
    parameters: dict[str, Value] = field(default_factory=dict, repr=False)

    def __call__(self, image: Value) -> tuple[Value, Value, Value]:
        """Logits `sub4` [N, classes, H/16, W/16], `sub24` (at 1/8) and `sub124` (at 1/4), of an enlarged image of its size.

        `image` is [N, 3, H, W] float, blue, green and red minus their means; H and W are multiples of 16, at least 128.
        """
        height, width = (max(SMALLEST_SIDE, round(side * self.zoom / 16) * 16) for side in image.shape[2:])
        image = gather_bilinear(image, (height, width))
        half = gather_bilinear(image, (height // 2, width // 2))
        middle = self._stem(half)
        deep = self._deep(middle, (self._part(height), self._part(width)))
        shallow = self._convolve(middle, "conv3_1_sub2_proj", 128, relu=False)
        fused24 = self._fuse(_resized(deep, (height // 16, width // 16)), shallow, "conv_sub4")
        fine = image
        for name, channels in (("conv1_sub1", 32), ("conv2_sub1", 32), ("conv3_sub1", 64)):
            fine = self._convolve(fine, name, channels, 3, stride=2)
        fine = self._convolve(fine, "conv3_sub1_proj", 128, relu=False)
        fused124 = self._fuse(_resized(fused24, (height // 8, width // 8)), fine, "conv_sub2")
        # The paper enlarges features, then classifies each pixel. Both are linear and the weights of an enlarged pixel sum to
        # one, so classifying first gives the same, from a quarter of the pixels.
        first, second, third = (
            _resized(self._logits(features, name), (height // step, width // step))
            for features, name, step in zip((deep, fused24, fused124), HEADS, (16, 8, 4), strict=True)
        )
        return first, second, third

    def _part(self, length: int) -> int:
        """1/32 of a side."""
        return -(-length // 32) if self.rounding == "ceil" else length // 32

    def _stem(self, half: Value) -> Value:
        """What the first two branches share: from 1/2 of the image to features at 1/16."""
        x = self._convolve(half, "conv1_1_3_3_s2", 32, 3, stride=2)
        x = self._convolve(x, "conv1_2_3_3", 32, 3)
        x = self._convolve(x, "conv1_3_3_3", 64, 3)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        for number in range(1, self.blocks[0] + 1):
            x = self._bottleneck(x, f"conv2_{number}", 32, project=number == 1)
        return self._bottleneck(x, "conv3_1", 64, stride=2, project=True)

    def _deep(self, x: Value, size: tuple[int, int]) -> Value:
        """The first branch's own layers, at 1/32 of the image."""
        x = _resized(x, size)
        for number in range(2, self.blocks[1] + 1):
            x = self._bottleneck(x, f"conv3_{number}", 64)
        for number in range(1, self.blocks[2] + 1):
            x = self._bottleneck(x, f"conv4_{number}", 128, dilation=2, project=number == 1)
        for number in range(1, self.blocks[3] + 1):
            x = self._bottleneck(x, f"conv5_{number}", 256, dilation=4, project=number == 1)
        return self._convolve(_add_pyramid(x), "conv5_4_k1", 256)

    def _bottleneck(
        self, x: Value, name: str, channels: int, *, stride: int = 1, dilation: int = 1, project: bool = False
    ) -> Value:
        """A residual block (He et al., arXiv:1512.03385); the first 1x1 convolution carries the stride."""
        shortcut = self._convolve(x, f"{name}_1_1_proj", 4 * channels, stride=stride, relu=False) if project else x
        y = self._convolve(x, f"{name}_1_1_reduce", channels, stride=stride)
        y = self._convolve(y, f"{name}_3_3", channels, 3, dilation=dilation)
        y = self._convolve(y, f"{name}_1_1_increase", 4 * channels, relu=False, scale=RESIDUAL)
        return F.relu(shortcut + y)

    def _fuse(self, coarse: Value, fine: Value, name: str) -> Value:
        """Cascade feature fusion of two branches of one size."""
        return F.relu(self._convolve(coarse, name, 128, 3, dilation=2, relu=False) + fine)

    def _logits(self, x: Value, name: str) -> Value:
        weight = self._parameter(
            f"{name}.w_0", [self.classes, x.shape[1], 1, 1], paddle.nn.initializer.KaimingNormal(), x
        )
        offset = self._parameter(f"{name}.b_0", [self.classes], paddle.nn.initializer.Constant(0.0), x)
        return F.conv2d(x, weight, offset)

    def _convolve(
        self,
        x: Value,
        name: str,
        channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        relu: bool = True,
        scale: float = 1.0,
    ) -> Value:
        """Convolution, padded with zeros to the size at stride 1, and batch normalisation, whose factor begins at `scale`."""
        channels = scaled(channels, self.width)
        initializer = paddle.nn.initializer.KaimingNormal()
        weight = self._parameter(f"{name}.w_0", [channels, x.shape[1], kernel, kernel], initializer, x)
        # TensorFlow's SAME: with stride 2 at the bottom and the right alone.
        padding = dilation * (kernel - 1) + 1 - stride if kernel > 1 else 0
        sides = [padding // 2, padding - padding // 2] * 2
        y = self._normalise(F.conv2d(x, weight, None, stride, sides, dilation), f"{name}_bn", scale)
        return F.relu(y) if relu else y

    def _normalise(self, x: Value, name: str, scale: float) -> Value:
        zero, one = paddle.nn.initializer.Constant(0.0), paddle.nn.initializer.Constant(1.0)
        first = paddle.nn.initializer.Constant(scale)
        factor, offset = (
            self._parameter(f"{name}.{suffix}", [x.shape[1]], start, x)
            for suffix, start in (("w_0", first), ("b_0", zero))
        )
        mean, variance = (
            self._parameter(f"{name}.{suffix}", [x.shape[1]], start, x, trainable=False)
            for suffix, start in (("w_1", zero), ("w_2", one))
        )
        if self.own_statistics and not self.training:
            return self._normalise_by_its_own(x, mean, variance, factor, offset)
        return F.batch_norm(
            x, mean, variance, factor, offset, training=self.training, momentum=MOMENTUM, epsilon=EPSILON
        )

    def _normalise_by_its_own(self, x: Value, mean: Value, variance: Value, factor: Value, offset: Value) -> Value:
        """Batch normalisation by statistics part of which are the image's own, for images unlike those of training.

        Schneider et al. (arXiv:2006.16971), where the share is N / (N + n) of n images against those of training.
        """
        share, kept = self.own_statistics, 1 - self.own_statistics
        # By pooling and a product, which oneDNN does in its own layout; its means are slow, and squares are none of its operations.
        own_mean = F.adaptive_avg_pool2d(x, 1)
        difference = x - own_mean
        own_variance = F.adaptive_avg_pool2d(difference * difference, 1)
        minus_mean, variance, factor, offset = (
            paddle.reshape(v, [1, -1, 1, 1])
            for v in (paddle.scale(mean, -kept), paddle.scale(variance, kept, EPSILON), factor, offset)
        )
        # What all images share comes second: where it is first, oneDNN is wrong from two images on.
        scale = paddle.rsqrt(own_variance * share + variance) * factor
        return x * scale + ((own_mean * -share + minus_mean) * scale + offset)

    def _parameter(
        self,
        name: str,
        shape: list[int],
        initializer: paddle.nn.initializer.Initializer,
        like: Value,
        trainable: bool = True,
    ) -> Value:
        if name not in self.parameters:
            attributes = paddle.ParamAttr(name=name, initializer=initializer, trainable=trainable)
            self.parameters[name] = paddle.create_parameter(shape, dtype_name(like), attr=attributes)
        return self.parameters[name]


def _resized(x: Value, size: tuple[int, int]) -> Value:
    """`x` [N, C, h, w] in another size: by products where there is a gradient, which that of gathered pixels takes longer than.

    Else by gathering: right after a convolution oneDNN takes the factors of a product for others, and ONNX Runtime those of
    a product with a single column.
    """
    return gather_bilinear(x, size) if only_runs_forward() else resize_bilinear(x, size)


def _add_pyramid(x: Value) -> Value:
    """`x` [N, C, h, w] and its means over 1, 2 x 2, 3 x 3 and 4 x 4 windows, enlarged, summed (pyramid pooling)."""
    height, width = x.shape[2:]
    total = x
    for parts in (1, 2, 3, 4):
        window = [height // parts, width // parts]
        total = total + _resized(F.avg_pool2d(x, window, window), (height, width))
    return total
