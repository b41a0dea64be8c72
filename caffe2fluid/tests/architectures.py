"""Prototxts of well-known classifiers, written from the tables of their papers.

``width`` scales the numbers of channels, so that tests need not compute with 138 million weights.
"""

from __future__ import annotations


class Prototxt:
    """Collects layers; each method returns the name of the blob it wrote."""

    def __init__(self, name: str, size: int, width: float):
        self.text = f'name: "{name}"\ninput: "data"\ninput_shape {{ dim: 1 dim: 3 dim: {size} dim: {size} }}\n'
        self.width = width

    def channels(self, count: int, group: int = 1) -> int:
        return max(group * 4, round(count * self.width / group / 4) * group * 4)

    def layer(self, name: str, kind: str, bottoms: str | list[str], body: str = "", top: str | None = None) -> str:
        bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
        reads = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
        self.text += f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{top or name}" {body} }}\n'
        return top or name

    def conv(self, name: str, x: str, filters: int, kernel: int, stride=1, pad=0, group=1, bias=True, relu=True) -> str:
        body = f"num_output: {self.channels(filters, group)} kernel_size: {kernel} stride: {stride} pad: {pad} group: {group}"
        body += "" if bias else " bias_term: false"
        x = self.layer(name, "Convolution", x, f"convolution_param {{ {body} }}")
        return self.layer(f"relu_{name}", "ReLU", x, top=x) if relu else x

    def pool(self, name: str, x: str, method: str, kernel: int, stride: int, pad: int = 0) -> str:
        return self.layer(
            name, "Pooling", x, f"pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad} }}"
        )

    def lrn(self, name: str, x: str, alpha: float = 1e-4) -> str:
        return self.layer(name, "LRN", x, f"lrn_param {{ local_size: 5 alpha: {alpha} beta: 0.75 }}")

    def fc(self, name: str, x: str, units: int, hidden: bool = True) -> str:
        units = self.channels(units) if hidden else units
        x = self.layer(name, "InnerProduct", x, f"inner_product_param {{ num_output: {units} }}")
        if hidden:
            x = self.layer(f"relu_{name}", "ReLU", x, top=x)
            x = self.layer(f"drop_{name}", "Dropout", x, "dropout_param { dropout_ratio: 0.5 }", top=x)
        return x

    def finish(self, x: str) -> str:
        self.layer("prob", "Softmax", x)
        return self.text


def alexnet(width: float = 1.0, caffenet: bool = False) -> str:
    """Krizhevsky, Sutskever, Hinton 2012 (two groups); CaffeNet has pooling before normalisation."""
    net = Prototxt("CaffeNet" if caffenet else "AlexNet", 227, width)
    x = net.conv("conv1", "data", 96, 11, stride=4)
    for stage, (filters, kernel, pad) in enumerate([(256, 5, 2), (384, 3, 1)], 1):
        if caffenet:
            x = net.lrn(f"norm{stage}", net.pool(f"pool{stage}", x, "MAX", 3, 2))
        else:
            x = net.pool(f"pool{stage}", net.lrn(f"norm{stage}", x), "MAX", 3, 2)
        x = net.conv(f"conv{stage + 1}", x, filters, kernel, pad=pad, group=2 if stage == 1 else 1)
    x = net.conv("conv4", x, 384, 3, pad=1, group=2)
    x = net.pool("pool5", net.conv("conv5", x, 256, 3, pad=1, group=2), "MAX", 3, 2)
    return net.finish(net.fc("fc8", net.fc("fc7", net.fc("fc6", x, 4096), 4096), 1000, hidden=False))


def vgg16(width: float = 1.0) -> str:
    """Simonyan, Zisserman, https://arxiv.org/abs/1409.1556, table 1, column D."""
    net = Prototxt("VGG16", 224, width)
    x = "data"
    for stage, (filters, convolutions) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)], 1):
        for index in range(1, convolutions + 1):
            x = net.conv(f"conv{stage}_{index}", x, filters, 3, pad=1)
        x = net.pool(f"pool{stage}", x, "MAX", 2, 2)
    return net.finish(net.fc("fc8", net.fc("fc7", net.fc("fc6", x, 4096), 4096), 1000, hidden=False))


INCEPTION = {  # 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def googlenet(width: float = 1.0) -> str:
    """Szegedy et al., https://arxiv.org/abs/1409.4842, table 1; layer names with slashes, as in Caffe's own."""
    net = Prototxt("GoogLeNet", 224, width)
    x = net.pool("pool1/3x3_s2", net.conv("conv1/7x7_s2", "data", 64, 7, stride=2, pad=3), "MAX", 3, 2)
    x = net.conv("conv2/3x3_reduce", net.lrn("pool1/norm1", x), 64, 1)
    x = net.lrn("conv2/norm2", net.conv("conv2/3x3", x, 192, 3, pad=1))
    x = net.pool("pool2/3x3_s2", x, "MAX", 3, 2)
    for name, (one, reduce3, three, reduce5, five, projection) in INCEPTION.items():
        prefix = f"inception_{name}"
        branches = [
            net.conv(f"{prefix}/1x1", x, one, 1),
            net.conv(f"{prefix}/3x3", net.conv(f"{prefix}/3x3_reduce", x, reduce3, 1), three, 3, pad=1),
            net.conv(f"{prefix}/5x5", net.conv(f"{prefix}/5x5_reduce", x, reduce5, 1), five, 5, pad=2),
            net.conv(f"{prefix}/pool_proj", net.pool(f"{prefix}/pool", x, "MAX", 3, 1, 1), projection, 1),
        ]
        x = net.layer(f"{prefix}/output", "Concat", branches)
        if name in ("3b", "4e"):
            x = net.pool(f"pool{name[0]}/3x3_s2", x, "MAX", 3, 2)
    x = net.pool("pool5/7x7_s1", x, "AVE", 7, 1)
    x = net.layer("pool5/drop", "Dropout", x, "dropout_param { dropout_ratio: 0.4 }", top=x)
    return net.finish(net.fc("loss3/classifier", x, 1000, hidden=False))


def resnet(depth: int = 50, width: float = 1.0) -> str:
    """He et al., https://arxiv.org/abs/1512.03385, table 1, with BatchNorm and Scale in place; layers are
    called as its authors called them."""
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}[depth]
    net = Prototxt(f"ResNet-{depth}", 224, width)

    def conv_bn(name: str, x: str, filters: int, kernel: int, stride=1, pad=0, relu=True) -> str:
        x = net.conv(name, x, filters, kernel, stride, pad, bias=False, relu=False)
        suffix = name.removeprefix("res") if name.startswith("res") else f"_{name}"
        net.layer(f"bn{suffix}", "BatchNorm", x, "batch_norm_param { use_global_stats: true }", top=x)
        net.layer(f"scale{suffix}", "Scale", x, "scale_param { bias_term: true }", top=x)
        return net.layer(f"relu_{name}", "ReLU", x, top=x) if relu else x

    x = net.pool("pool1", conv_bn("conv1", "data", 64, 7, 2, 3), "MAX", 3, 2)
    for stage, count in enumerate(blocks, 2):
        filters = 64 * 2 ** (stage - 2)
        for block in range(count):
            counted = depth > 50 and stage in (3, 4) and block
            name = f"res{stage}b{block}" if counted else f"res{stage}{chr(ord('a') + block)}"
            stride = 2 if block == 0 and stage > 2 else 1
            shortcut = conv_bn(f"{name}_branch1", x, filters * 4, 1, stride, relu=False) if block == 0 else x
            y = conv_bn(f"{name}_branch2a", x, filters, 1, stride)
            y = conv_bn(f"{name}_branch2b", y, filters, 3, pad=1)
            y = conv_bn(f"{name}_branch2c", y, filters * 4, 1, relu=False)
            x = net.layer(name, "Eltwise", [shortcut, y])
            x = net.layer(f"{name}_relu", "ReLU", x, top=x)
    return net.finish(net.fc("fc1000", net.pool("pool5", x, "AVE", 7, 1), 1000, hidden=False))
