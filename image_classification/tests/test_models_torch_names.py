"""Weights of PyTorch networks give identical logits here. Skipped where torch is not installed.

The PyTorch networks are written out below in their plainest form, with the module names of torchvision or timm.
"""

from fluid.errors import WeightsError
from image_classification.models.resnet import DEPTHS as RESNET_DEPTHS
from image_classification.models.se_resnext import DEPTHS as SE_RESNEXT_DEPTHS
from image_classification.models.torch_names import CONVERTERS, from_torch
from image_classification.models.vgg import DEPTHS as VGG_DEPTHS
from image_classification.tests.networks import build_classifier, relative_difference, run, shapes

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch, the reference of these tests, is no dependency")
nn = torch.nn


class Residual(nn.Module):
    """torchvision's BasicBlock and Bottleneck, and timm's with `se`."""

    def __init__(self, channels, width, out, stride, *, bottleneck, groups=1, average=False, se=False):
        super().__init__()
        sizes = [(channels, width, 1), (width, width, 3), (width, out, 1)]
        if not bottleneck:
            sizes = [(channels, width, 3), (width, out, 3)]
        strided = 1 if bottleneck else 0
        self.depth = len(sizes)
        for number, (inputs, outputs, size) in enumerate(sizes, 1):
            step, group = (stride if number == strided + 1 else 1), (groups if bottleneck and size == 3 else 1)
            conv = nn.Conv2d(inputs, outputs, size, step, (size - 1) // 2, groups=group, bias=False)
            setattr(self, f"conv{number}", conv)
            setattr(self, f"bn{number}", nn.BatchNorm2d(outputs))
        self.downsample = None
        if stride != 1 or channels != out:
            pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
            conv = nn.Conv2d(channels, out, 1, 1 if average else stride, bias=False)
            self.downsample = nn.Sequential(*([pool] if average else []), conv, nn.BatchNorm2d(out))
        self.se = SqueezeExcitation(out) if se else None

    def forward(self, x):
        y = x
        for number in range(1, self.depth + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            if number < self.depth:
                y = torch.relu(y)
        if self.se is not None:
            y = self.se(y)
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class SqueezeExcitation(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(x.mean((2, 3), keepdim=True)))))


class ResNet(nn.Module):
    """torchvision's resnetN; timm's resnetNd with `deep`; timm's seresnextN_32x4d with `se`."""

    def __init__(self, depths, *, bottleneck, deep=False, se=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        if deep:
            layers = []
            for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1)):
                layers += [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.conv1 = nn.Sequential(*layers, nn.Conv2d(32, 64, 3, 1, 1, bias=False))
        self.bn1 = nn.BatchNorm2d(64)
        channels = 64
        for stage, blocks in enumerate(depths, 1):
            planes = 64 * 2 ** (stage - 1)
            width, out = (planes * 2 if se else planes), (planes * 4 if bottleneck else planes)
            layer = []
            for index in range(blocks):
                stride = 2 if index == 0 and stage > 1 else 1
                options = {"bottleneck": bottleneck, "groups": 32 if se else 1, "average": deep, "se": se}
                layer.append(Residual(channels, width, out, stride, **options))
                channels = out
            setattr(self, f"layer{stage}", nn.Sequential(*layer))
        self.fc = nn.Linear(channels, 11)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class AlexNet(nn.Module):
    """torchvision's alexnet for 95 x 95 images."""

    def __init__(self):
        super().__init__()
        pool = nn.MaxPool2d(3, 2)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), pool),
            *(nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), pool),
            *(nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), pool),
        )
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 2 * 2, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 11)),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class VGG(nn.Module):
    """torchvision's vggN for 64 x 64 images; with `timm` its names there."""

    def __init__(self, depths, timm):
        super().__init__()
        layers, channels = [], 3
        for convolutions, filters in zip(depths, (64, 128, 256, 512, 512), strict=True):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, filters, 3, 1, 1), nn.ReLU()]
                channels = filters
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.timm = timm
        if timm:
            self.pre_logits = nn.ModuleDict({"fc1": nn.Conv2d(512, 4096, 2), "fc2": nn.Conv2d(4096, 4096, 1)})
            self.head = nn.ModuleDict({"fc": nn.Linear(4096, 11)})
        else:
            hidden = [nn.Linear(512 * 2 * 2, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()]
            self.classifier = nn.Sequential(*hidden, nn.Dropout(), nn.Linear(4096, 11))

    def forward(self, x):
        x = self.features(x)
        if not self.timm:
            return self.classifier(x.flatten(1))
        x = torch.relu(self.pre_logits["fc2"](torch.relu(self.pre_logits["fc1"](x))))
        return self.head["fc"](x.flatten(1))


MOBILENET_V2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def conv_bn_relu6(inputs, outputs, size=1, stride=1, groups=1):
    conv = nn.Conv2d(inputs, outputs, size, stride, (size - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """torchvision's, whose layers are numbered."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        width = inputs * expansion
        layers = [conv_bn_relu6(inputs, width)] if expansion > 1 else []
        layers += [conv_bn_relu6(width, width, 3, stride, width), nn.Conv2d(width, outputs, 1, bias=False)]
        self.conv = nn.Sequential(*layers, nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x):
        return x + self.conv(x) if self.residual else self.conv(x)


class TimmInvertedResidual(nn.Module):
    """timm's, whose layers have names; without expansion it is called DepthwiseSeparable."""

    def __init__(self, inputs, outputs, stride, expansion):
        super().__init__()
        width = inputs * expansion
        depthwise = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        linear = nn.Conv2d(width, outputs, 1, bias=False)
        if expansion > 1:
            self.conv_pw, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
            self.conv_dw, self.bn2 = depthwise, nn.BatchNorm2d(width)
            self.conv_pwl, self.bn3 = linear, nn.BatchNorm2d(outputs)
        else:
            self.conv_dw, self.bn1 = depthwise, nn.BatchNorm2d(width)
            self.conv_pw, self.bn2 = linear, nn.BatchNorm2d(outputs)
        self.expansion, self.residual = expansion, stride == 1 and inputs == outputs

    def forward(self, x):
        relu6 = nn.functional.relu6
        if self.expansion > 1:
            y = relu6(self.bn1(self.conv_pw(x)))
            y = self.bn3(self.conv_pwl(relu6(self.bn2(self.conv_dw(y)))))
        else:
            y = self.bn2(self.conv_pw(relu6(self.bn1(self.conv_dw(x)))))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """torchvision's mobilenet_v2."""

    def __init__(self):
        super().__init__()
        layers, channels = [conv_bn_relu6(3, 32, 3, 2)], 32
        for expansion, filters, repetitions, stride in MOBILENET_V2:
            for index in range(repetitions):
                layers.append(InvertedResidual(channels, filters, stride if index == 0 else 1, expansion))
                channels = filters
        self.features = nn.Sequential(*layers, conv_bn_relu6(320, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 11))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class TimmMobileNetV2(nn.Module):
    """timm's mobilenetv2_100."""

    def __init__(self):
        super().__init__()
        self.conv_stem, self.bn1 = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        stages, channels = [], 32
        for expansion, filters, repetitions, stride in MOBILENET_V2:
            blocks = []
            for index in range(repetitions):
                blocks.append(TimmInvertedResidual(channels, filters, stride if index == 0 else 1, expansion))
                channels = filters
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head, self.bn2 = nn.Conv2d(320, 1280, 1, bias=False), nn.BatchNorm2d(1280)
        self.classifier = nn.Linear(1280, 11)

    def forward(self, x):
        relu6 = nn.functional.relu6
        x = self.blocks(relu6(self.bn1(self.conv_stem(x))))
        return self.classifier(relu6(self.bn2(self.conv_head(x))).mean((2, 3)))


def network(name: str, variant: str) -> "nn.Module":
    """The PyTorch counterpart of our network."""
    if name == "AlexNet":
        return AlexNet()
    if name.startswith("VGG"):
        return VGG(VGG_DEPTHS[int(name[3:5])], variant == "timm")
    if name == "MobileNetV2":
        return TimmMobileNetV2() if variant == "timm" else MobileNetV2()
    if name.startswith("SE_ResNeXt"):
        depth = int(name.removeprefix("SE_ResNeXt").split("_")[0])
        return ResNet(SE_RESNEXT_DEPTHS[depth], bottleneck=True, se=True)
    depth = int(name.removeprefix("ResNet").split("_")[0])
    return ResNet(RESNET_DEPTHS[depth], bottleneck=depth >= 50, deep=name.endswith("_vd"))


def randomised(module: "nn.Module") -> "nn.Module":
    """Random batch statistics and affine parameters too, of sizes that keep the signal alive."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.0)
            nn.init.normal_(part.bias, 0.0, 0.1)
            nn.init.normal_(part.running_mean, 0.0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)
    return module.eval()


def arrays(module: "nn.Module") -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


IMAGE_SIZES = {"AlexNet": 95}
IN_EVERY_RUN = {"AlexNet", "VGG11_bias", "ResNet18", "ResNet50", "ResNet18_vd", "MobileNetV2", "SE_ResNeXt50_32x4d"}
CASES = [
    pytest.param(name, variant, marks=[] if name in IN_EVERY_RUN else pytest.mark.full, id=f"{name}-{variant}")
    for name in CONVERTERS
    for variant in (("torchvision", "timm") if name.startswith(("VGG", "MobileNet")) else ("either",))
]


@pytest.mark.parametrize("name, variant", CASES)
def test_logits_are_identical(name, variant):
    size = IMAGE_SIZES.get(name, 64)
    module = randomised(network(name, variant))
    image = np.random.RandomState(1).randn(2, 3, size, size).astype("float32")
    with torch.no_grad():
        expected = module(torch.from_numpy(image)).numpy()
    program = build_classifier(name, (3, size, size), class_dim=11)
    weights = from_torch(name, arrays(module))
    assert {key: list(array.shape) for key, array in weights.items()} == shapes(program)
    assert relative_difference(run(program, weights, image)["logits"], expected) < 2e-5


def test_missing_and_left_over_arrays_are_errors():
    state = arrays(ResNet((2, 2, 2, 2), bottleneck=False))
    with pytest.raises(WeightsError, match="ResNet18: 1 of the PyTorch arrays, such as extra.weight"):
        from_torch("ResNet18", {**state, "extra.weight": np.zeros(1)})
    del state["layer3.1.bn2.running_var"]
    with pytest.raises(WeightsError, match="ResNet18: the PyTorch weights have no layer3.1.bn2.running_var"):
        from_torch("ResNet18", state)


@pytest.mark.parametrize("name", ["GoogLeNet", "VGG16", "SE_ResNeXt152_32x4d", "ResNet200_vd"])
def test_networks_without_counterpart_are_named(name):
    with pytest.raises(WeightsError, match=f"cannot be converted for {name}"):
        from_torch(name, {})
