"""PyTorch's side of `image_classification.py cpu`: ResNet-50 inference at batch 8, for an environment that has only torch."""

import json
import os
import statistics
import time

import torch
from torch import nn


def conv_bn(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut (He et al., arXiv:1512.03385)."""

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(inputs, width, 1),
            nn.ReLU(),
            conv_bn(width, width, 3, stride),
            nn.ReLU(),
            conv_bn(width, 4 * width, 1),
        )
        self.shortcut = nn.Identity() if inputs == 4 * width else conv_bn(inputs, 4 * width, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, inputs, H, W] -> [N, 4 * width, H', W']."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50, stride on the 3x3."""
    layers: list[nn.Module] = [conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for index in range(blocks):
            layers.append(Bottleneck(inputs, width, 2 if stage and not index else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


def main() -> None:
    """Print images per second, the better of the two memory formats."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    network = resnet50().eval()
    images = torch.randn(8, 3, 224, 224)
    best = 0.0
    with torch.inference_mode():
        for layout in (torch.contiguous_format, torch.channels_last):
            network, images = network.to(memory_format=layout), images.to(memory_format=layout)
            seconds = []
            for _ in range(9):
                start = time.perf_counter()
                network(images)
                seconds.append(time.perf_counter() - start)
            best = max(best, 8 / statistics.median(seconds[2:]))
    print(json.dumps({"images_per_second": best}))


if __name__ == "__main__":
    main()
