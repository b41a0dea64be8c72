"""The PyTorch side of icnet.py: ICNet (Zhao et al., arXiv:1704.08545). Needs torch only."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class Layer(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inner: int, outer: int, kernel: int = 1, stride: int = 1, dilation: int = 1, relu: bool = True):
        super().__init__()
        padding = dilation * (kernel - 1) + 1 - stride if kernel > 1 else 0
        self.pad = (padding // 2, padding - padding // 2) if padding % 2 else None
        inside = 0 if self.pad else padding // 2
        self.conv = nn.Conv2d(inner, outer, kernel, stride, inside, dilation, bias=False)
        self.norm, self.relu = nn.BatchNorm2d(outer, momentum=0.05), relu

    def forward(self, x: Any) -> Any:
        if self.pad:
            x = F.pad(x, self.pad * 2)
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


class Bottleneck(nn.Module):
    """A residual block."""

    def __init__(self, inner: int, middle: int, stride: int = 1, dilation: int = 1, project: bool = False):
        super().__init__()
        self.short = Layer(inner, 4 * middle, 1, stride, relu=False) if project else nn.Identity()
        self.body = nn.Sequential(
            Layer(inner, middle, 1, stride),
            Layer(middle, middle, 3, 1, dilation),
            Layer(middle, 4 * middle, relu=False),
        )

    def forward(self, x: Any) -> Any:
        return F.relu(self.short(x) + self.body(x))


def resize(x: Any, size: tuple[int, int]) -> Any:
    """Corners on corners."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


class Icnet(nn.Module):
    """From uint8 images [N, H, W, 3] RGB to labels [N, H, W] uint8 or, with the true ones, to the loss; 255 counts as none."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Layer(3, 32, 3, 2),
            Layer(32, 32, 3),
            Layer(32, 64, 3),
            nn.MaxPool2d(3, 2, 1),
            Bottleneck(64, 32, project=True),
            Bottleneck(128, 32),
            Bottleneck(128, 32),
            Bottleneck(128, 64, 2, project=True),
        )
        blocks = [Bottleneck(256, 64) for _ in range(3)]
        blocks += [Bottleneck(512 if n else 256, 128, 1, 2, not n) for n in range(6)]
        blocks += [Bottleneck(1024 if n else 512, 256, 1, 4, not n) for n in range(3)]
        self.deep, self.last = nn.Sequential(*blocks), Layer(1024, 256)
        self.coarse = nn.ModuleList([Layer(256, 128, 3, 1, 2, False), Layer(128, 128, 3, 1, 2, False)])
        self.fine = nn.Sequential(
            Layer(3, 32, 3, 2), Layer(32, 32, 3, 2), Layer(32, 64, 3, 2), Layer(64, 128, relu=False)
        )
        self.middle = Layer(256, 128, relu=False)
        self.heads = nn.ModuleList([nn.Conv2d(channels, classes, 1) for channels in (256, 128, 128)])
        self.register_buffer("mean", torch.tensor([123.68, 116.779, 103.939]).flip(0).reshape(1, 3, 1, 1))

    def forward(self, image: Any, label: Any = None) -> Any:
        x = image.permute(0, 3, 1, 2).flip(1).float() - self.mean
        x = x.contiguous(memory_format=torch.channels_last)
        height, width = x.shape[2:]
        middle = self.stem(resize(x, (height // 2, width // 2)))
        deep = self.deep(resize(middle, (height // 32, width // 32)))
        total, (tall, wide) = deep, deep.shape[2:]
        for parts in (1, 2, 3, 4):
            window = (tall // parts, wide // parts)
            total = total + resize(F.avg_pool2d(deep, window, window), (tall, wide))
        fused = [self.last(total)]
        fused.append(F.relu(self.coarse[0](resize(fused[0], (height // 16, width // 16))) + self.middle(middle)))
        fused.append(F.relu(self.coarse[1](resize(fused[1], (height // 8, width // 8))) + self.fine(x)))
        if label is None:
            logits = resize(self.heads[2](fused[2]), (height // 4, width // 4))
            return resize(logits, (height, width)).argmax(1).to(torch.uint8)
        loss = 0.0
        for head, features, step, weight in zip(self.heads, fused, (16, 8, 4), (0.16, 0.4, 1.0)):
            near = label[:, ::step, ::step].long()
            logits = resize(head(features), (height // step, width // step)).float()
            loss = loss + weight * F.cross_entropy(logits, near, ignore_index=255)
        return loss
