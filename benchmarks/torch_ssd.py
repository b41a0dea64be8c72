"""The PyTorch side of object_detection.py: SSD (Liu et al., arXiv:1512.02325) on MobileNet. Needs torch and torchvision."""

from collections.abc import Mapping
from typing import Any

from object_detection.boxes import PADDING, VARIANCES

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import batched_nms

Weights = Mapping[str, np.ndarray]

BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
"""Filters and stride of each pair of convolutions."""
HEADS = (22, 24, 26, 28, 30, 32)
"""Numbers of the convolutions that give offsets; those that give logits come after each."""


class Block(nn.Sequential):
    """Convolution, of one filter a channel if it is called `depthwise_...`, batch normalisation, ReLU: with our weights."""

    def __init__(
        self, weights: Weights, before: int, filters: int, size: int, stride: int, name: str, norm: int
    ) -> None:
        groups = before if name.startswith("depthwise") else 1
        convolution = nn.Conv2d(before, filters, size, stride, (size - 1) // 2, groups=groups, bias=False)
        normalise = nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1)
        super().__init__(convolution, normalise, nn.ReLU(inplace=True))
        values = [weights[f"{name}.w_0"], *(weights[f"batch_norm_{norm}.{part}"] for part in ("w_0", "b_0"))]
        for parameter, value in zip(self.parameters(), values, strict=True):
            parameter.data = torch.from_numpy(value)
        normalise.running_mean = torch.from_numpy(weights[f"batch_norm_{norm}.w_1"])
        normalise.running_var = torch.from_numpy(weights[f"batch_norm_{norm}.w_2"])


class Ssd(nn.Module):
    """SSD300 with the weights of our detector: from images [N, 3, 300, 300] to offsets [N, P, 4] and logits [N, P, 1 + C]."""

    def __init__(self, weights: Weights, classes: int) -> None:
        super().__init__()
        stages: list[list[nn.Module]] = [[Block(weights, 3, 32, 3, 2, "conv2d_0", 0)]]
        before, norm = 32, 1
        for number, (filters, stride) in enumerate(BLOCKS):
            stages[-1] += [
                Block(weights, before, before, 3, stride, f"depthwise_conv2d_{number}", norm),
                Block(weights, before, filters, 1, 1, f"conv2d_{number + 1}", norm + 1),
            ]
            before, norm = filters, norm + 2
            if number == 10:
                stages.append([])
        for number, (narrow, wide) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128))):
            stages.append(
                [
                    Block(weights, before, narrow, 1, 1, f"conv2d_{14 + 2 * number}", norm),
                    Block(weights, narrow, wide, 3, 2, f"conv2d_{15 + 2 * number}", norm + 1),
                ]
            )
            before, norm = wide, norm + 2
        self.stages = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        self.heads = nn.ModuleList()
        for number in HEADS:
            for part, columns in ((number, 4), (number + 1, 1 + classes)):
                kernel = torch.from_numpy(weights[f"conv2d_{part}.w_0"])
                head = nn.Conv2d(kernel.shape[1], kernel.shape[0], 1)
                head.weight.data, head.bias.data = kernel, torch.from_numpy(weights[f"conv2d_{part}.b_0"])
                head.columns = columns
                self.heads.append(head)

    def forward(self, x: Any) -> tuple[Any, Any]:
        outputs: tuple[list[Any], list[Any]] = ([], [])
        for number, stage in enumerate(self.stages):
            x = stage(x)
            for output, head in zip(outputs, self.heads[2 * number : 2 * number + 2], strict=True):
                output.append(head(x).permute(0, 2, 3, 1).reshape(len(x), -1, head.columns))
        return torch.cat(outputs[0], 1), torch.cat(outputs[1], 1)


def loss(offsets: Any, logits: Any, priors: Any, boxes: Any, labels: Any) -> Any:
    """The loss of SSD; each box takes its best prior at once, without looking whether another one wants it too."""
    count, present = len(priors), labels != PADDING
    start = torch.maximum(boxes[:, :, None, :2], priors[None, None, :, :2])
    end = torch.minimum(boxes[:, :, None, 2:], priors[None, None, :, 2:])
    shared = (end - start).clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    union = areas[:, :, None] + (priors[:, 2:] - priors[:, :2]).prod(-1) - shared
    iou = torch.where(present[:, :, None], shared / union.clamp(min=1e-12), -1.0)
    best, box = iou.max(1)
    matched = torch.where(best >= 0.5, box, -1)
    # What does not exist takes a prior behind the last.
    own = torch.where(present, iou.argmax(2), count)
    numbers = torch.arange(boxes.shape[1], device=boxes.device).expand_as(own)
    matched = F.pad(matched, (0, 1), value=-1).scatter(1, own, numbers)[:, :count]
    positive, index = matched >= 0, matched.clamp(min=0)

    wanted = torch.where(positive, labels.gather(1, index) + 1, 0)
    target = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    size, prior_size = (target[..., 2:] - target[..., :2]).clamp(min=1e-6), priors[:, 2:] - priors[:, :2]
    shift = (target[..., 2:] + target[..., :2] - priors[:, 2:] - priors[:, :2]) / 2
    target = torch.cat([shift / prior_size, (size / prior_size).log()], -1) / torch.tensor(VARIANCES).to(priors)

    class_loss = F.cross_entropy(logits.float().transpose(1, 2), wanted, reduction="none")
    box_loss = F.smooth_l1_loss(offsets.float(), target, reduction="none").sum(-1)
    rivals = torch.where(positive, -1.0, class_loss.detach())
    rank = rivals.argsort(1, descending=True).argsort(1)
    counted = positive | (rank < 3 * positive.sum(1, keepdim=True))
    return ((box_loss * positive).sum() + (class_loss * counted).sum()) / positive.sum().clamp(min=1)


def detect(offsets: Any, logits: Any, priors: Any) -> dict[str, Any]:
    """Suppression image by image, all classes of one at once."""
    offsets = offsets.float() * torch.tensor(VARIANCES).to(priors)
    size = priors[:, 2:] - priors[:, :2]
    centre = (priors[:, 2:] + priors[:, :2]) / 2 + offsets[..., :2] * size
    half = offsets[..., 2:].exp() * size / 2
    boxes = torch.cat([centre - half, centre + half], -1)
    scores, order = logits.float().softmax(-1)[..., 1:].transpose(1, 2).topk(400, dim=2)
    detections = []
    for own_scores, own_order, own_boxes in zip(scores, order, boxes, strict=True):
        labels, rank = (own_scores > 0.01).nonzero(as_tuple=True)
        score, box = own_scores[labels, rank], own_boxes[own_order[labels, rank]]
        kept = batched_nms(box, score, labels, 0.45)[:200]
        detections.append(torch.cat([labels[kept, None].float(), score[kept, None], box[kept]], 1))
    return {"detections": torch.nn.utils.rnn.pad_sequence(detections, batch_first=True)}
