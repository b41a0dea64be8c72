"""The Programs of semantic segmentation."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fluid.errors import UserError
from fluid.interface import Input
from fluid.optimizers import optimizer
from fluid.program import Program, Value, build, build_accumulating
from fluid.resize import gather_bilinear, resize_bilinear
from fluid.schedule import Schedule
from icnet.classes import IGNORE
from icnet.evaluation import PLAIN, Size, Views
from icnet.model import SMALLEST_SIDE, ICNet
from icnet.segmenter import BRANCHES, FINEST, MEAN, OUTPUTS, LabelGrid, Segmenter

import numpy as np
import paddle
import paddle.nn.functional as F

if TYPE_CHECKING:
    from icnet.train import Flags


def padded_side(length: int) -> int:
    """Length of a side as the network sees it: multiples of 16 from 128 on stay, others grow to a multiple of 32."""
    return length if length % 16 == 0 and length >= SMALLEST_SIDE else max(SMALLEST_SIDE, -(-length // 32) * 32)


def normalise(image: Value) -> Value:
    """[N, H, W, 3] uint8 RGB -> [N, 3, H, W] float32: blue, green, red, minus their means."""
    mean = paddle.assign(np.asarray(MEAN[::-1], np.float32))
    return paddle.transpose(paddle.flip(paddle.cast(image, "float32"), [3]) - mean, [0, 3, 1, 2])


def branches(net: ICNet, image: Value) -> tuple[Value, Value, Value]:
    """The three outputs of the network for `image` [N, 3, H, W], of any size: padded with the mean, which is zero."""
    height, width = image.shape[2:]
    below, beside = padded_side(height) - height, padded_side(width) - width
    return net(F.pad(image, [0, beside, 0, below]) if below or beside else image)


def full_logits(sub124: Value, size: Size) -> Value:
    """The finest output enlarged to the image's own size, [N, classes, H, W]."""
    height, width = size
    grown = gather_bilinear(sub124, (padded_side(height), padded_side(width)), dense_rows=True)
    return grown if (height, width) == tuple(grown.shape[2:]) else grown[:, :, :height, :width]


def scores(net: ICNet, image: Value, views: Views) -> Value:
    """What the largest of is the label: logits, or averaged probabilities; [N, classes, H, W] for [N, 3, H, W]."""
    size = tuple(image.shape[2:])
    if views == PLAIN:
        return full_logits(branches(net, image)[2], size)
    total = None
    for scale in views.scales:
        own = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
        part = image if own == size else resize_bilinear(image, own)
        probabilities = _probabilities(net, part, views.window)
        if views.flip:
            mirrored = _probabilities(net, paddle.flip(part, [3]), views.window)
            probabilities = probabilities + paddle.flip(mirrored, [3])
        probabilities = probabilities if own == size else resize_bilinear(probabilities, size)
        total = probabilities if total is None else total + probabilities
    return total


def _probabilities(net: ICNet, image: Value, window: Size | None) -> Value:
    height, width = image.shape[2:]
    if window is None or (window[0] >= height and window[1] >= width):
        return F.softmax(full_logits(branches(net, image)[2], (height, width)), axis=1)
    tall, wide = min(window[0], height), min(window[1], width)
    total = counts = None
    for top in window_starts(height, tall):
        for left in window_starts(width, wide):
            part = image[:, :, top : top + tall, left : left + wide]
            sides = [left, width - left - wide, top, height - top - tall]
            probabilities = F.softmax(full_logits(branches(net, part)[2], (tall, wide)), axis=1)
            placed, count = F.pad(probabilities, sides), F.pad(paddle.ones_like(probabilities[:, :1]), sides)
            total = placed if total is None else total + placed
            counts = count if counts is None else counts + count
    assert total is not None and counts is not None
    return total / counts


def window_starts(length: int, window: int) -> list[int]:
    """Where windows begin so that they cover a side, each overlapping the next by at least a third."""
    count = 1 + -(-(length - window) // max(1, window * 2 // 3))
    return [round(number * (length - window) / max(1, count - 1)) for number in range(count)]


def image_input(size: Size) -> Input:
    """Images as the reader emits them."""
    return Input("image", (None, *size, 3), "uint8")


def training_network(
    segmenter: Segmenter,
    size: Size,
    *,
    class_weights: Sequence[float] | None = None,
    hard_share: float | None = None,
    label_grid: LabelGrid = "corners",
    overlap: float = 0.0,
    every_pixel: bool = False,
) -> tuple[Callable[..., dict[str, Value]], list[Input]]:
    """The network of a training Program and its inputs.

    Inputs: `image` [N, H, W, 3] uint8, `label` [N, H, W] uint8. Outputs: `loss`, and what it is the weighted sum of,
    `loss_sub4`, `loss_sub24`, `loss_sub124`: cross entropies over labelled pixels, labels taken by nearest; and with `overlap`
    `loss_overlap`, see `overlap_loss`.

    Args:
        label_grid: where the labels of a smaller output are taken, see `label_places`.
        class_weights: factor of each class's pixels.
        hard_share: only the hardest pixels count, this share of them (Shrivastava et al., arXiv:1604.03540).
        overlap: weight of the loss of overlap of the finest output.
        every_pixel: enlarge the finest output to the size of the labels, instead of taking labels in its size.
    """

    def network(image: Value, label: Value, training: bool) -> dict[str, Value]:
        outputs = branches(_network(segmenter, training), normalise(image))
        label = paddle.cast(label, "int32")
        losses = {}
        for logits, name in zip(outputs, BRANCHES, strict=True):
            if every_pixel and name == FINEST:
                logits = resize_bilinear(logits, (padded_side(size[0]), padded_side(size[1])))
            near = label
            for axis in (1, 2):
                places = label_places(size[axis - 1], logits.shape[axis + 1], label_grid)
                near = paddle.gather(near, paddle.assign(np.asarray(places)), axis=axis)
            part = logits[:, :, : near.shape[1], : near.shape[2]]
            losses[f"loss_{name}"] = pixel_loss(part, near, class_weights, hard_share)
        weighted = [loss * weight for loss, (_, weight) in zip(losses.values(), BRANCHES.values(), strict=True)]
        total = weighted[0] + weighted[1] + weighted[2]
        if overlap:
            losses["loss_overlap"] = overlap_loss(part, near)
            total = total + losses["loss_overlap"] * overlap
        return {"loss": total, **losses}

    return network, [image_input(size), Input("label", (None, *size), "uint8")]


def label_places(length: int, count: int, grid: LabelGrid) -> list[int]:
    """The pixels of a side whose labels the `count` pixels of an output are compared with; fewer where the side is padded.

    `corners`: the nearest to the place that enlargement gives a pixel, which maps corners to corners. `steps`, as in 2018:
    every 4th (8th, 16th); towards the right and the bottom edge that is up to 3 (7, 15) pixels beside the place.
    """
    padded = padded_side(length)
    if grid == "steps":
        return [place for pixel in range(count) if (place := pixel * padded // count) < length]
    places = [(2 * pixel * (padded - 1) + count - 1) // (2 * (count - 1)) for pixel in range(count)]
    return [place for place in places if place < length]


def pixel_loss(
    logits: Value, label: Value, class_weights: Sequence[float] | None = None, hard_share: float | None = None
) -> Value:
    """Cross entropy averaged over the labelled pixels, 0 if there is none: logits [N, C, h, w], label [N, h, w] int32."""
    counted = paddle.cast(label != IGNORE, "float32")
    known = label * paddle.cast(counted, "int32")
    losses = F.cross_entropy(logits, known.unsqueeze(1), reduction="none", axis=1)[:, 0] * counted
    if class_weights is not None:
        table = paddle.assign(np.asarray(class_weights, np.float32))
        counted = counted * paddle.gather(table, known.reshape([-1])).reshape(known.shape)
        losses = losses * (counted.detach())
    if hard_share is not None:
        flat = losses.reshape([-1, losses.shape[1] * losses.shape[2]])
        ranked = paddle.topk(flat.detach(), max(1, round(flat.shape[1] * hard_share)), axis=1)[0]
        hard = paddle.cast(flat >= ranked[:, -1:], "float32").reshape(losses.shape)
        losses, counted = losses * hard, counted * hard
    total = paddle.sum(counted)
    return paddle.sum(losses) / paddle.maximum(total, paddle.full_like(total, 1e-6))


def overlap_loss(logits: Value, label: Value) -> Value:
    """1 - intersection over union, of probabilities, averaged over the classes that occur: logits [N, C, h, w], label [N, h, w] int32.

    Rahman and Wang, ISVC 2016: the intersection is the sum of a class's probabilities at its own pixels, the union that of
    the rest and of its pixels. Both are sums over the whole batch; pixels that are ignored count in neither.
    """
    count = logits.shape[1]
    counted = paddle.cast(label != IGNORE, "float32").unsqueeze(1)
    # A class too many for what is ignored, as one-hot rows have no place for it.
    own = F.one_hot(paddle.clip(label, max=count), count + 1)[..., :count].transpose([0, 3, 1, 2])
    likely = F.softmax(logits, axis=1) * counted
    axes = [0, 2, 3]
    both, area = paddle.sum(likely * own, axes), paddle.sum(own, axes)
    union = paddle.sum(likely, axes) + area - both
    there = paddle.cast(area > 0, "float32")
    lost = (1 - both / paddle.maximum(union, paddle.full_like(union, 1e-6))) * there
    return paddle.sum(lost) / paddle.clip(paddle.sum(there), min=1.0)


def training_programs(
    flags: "Flags", segmenter: Segmenter, size: Size, rate: Schedule, class_weights: Sequence[float] | None
) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`.

    Raises UserError if the statistics cannot be shared as asked for.
    """
    if flags.statistics_batch is not None and flags.batch_size % flags.statistics_batch:
        raise UserError(f"--statistics_batch {flags.statistics_batch} does not divide --batch_size {flags.batch_size}")
    network, inputs = training_network(
        segmenter,
        size,
        class_weights=class_weights,
        hard_share=flags.hard_share,
        label_grid=flags.label_grid,
        overlap=flags.overlap,
        every_pixel=flags.every_pixel,
    )
    common: dict[str, Any] = {
        "optimizer": lambda: optimizer(flags),
        "schedule": rate,
        "ema_decay": flags.averaging,
        "statistics_batch": flags.statistics_batch,
    }
    if flags.accumulate_batches == 1:
        return {"train": build(network, inputs, name="train", training=True, **common)}
    train, apply = build_accumulating(network, inputs, name="train", batches=flags.accumulate_batches, **common)
    return {"train": train, "apply": apply}


def evaluation_program(segmenter: Segmenter, size: Size, views: Views = PLAIN) -> Program:
    """Inputs `image` [N, H, W, 3] uint8, `label` [N, H, W] uint8, `mask` [N] bool, which rows count.

    Outputs: `confusion` [classes, classes] int64, pixels by label and by what was predicted, summed on the device; and
    `labels` [N, H, W] uint8.
    """
    count = len(segmenter.classes)

    def network(image: Value, label: Value, mask: Value, training: bool) -> dict[str, Value]:
        predicted = paddle.argmax(scores(_network(segmenter, training), normalise(image), views), axis=1)
        known = paddle.cast(label, "int64")
        counted = paddle.logical_and(known < count, mask.reshape([-1, 1, 1]))
        pair = paddle.where(counted, known * count + predicted, paddle.full_like(known, count * count))
        confusion = paddle.bincount(pair.reshape([-1]), minlength=count * count + 1)[: count * count]
        return {"confusion": confusion.reshape([count, count]), "labels": paddle.cast(predicted, "uint8")}

    inputs = [image_input(size), Input("label", (None, *size), "uint8"), Input("mask", (None,), "bool")]
    return build(network, inputs, name=f"eval {size[0]} x {size[1]}", batch_axes={"confusion": None})


def inference_program(
    segmenter: Segmenter,
    size: Size,
    outputs: Sequence[str] = OUTPUTS,
    *,
    normalised: bool = False,
) -> Program:
    """Input `image` [N, H, W, 3] uint8 RGB; or, `normalised`, [N, 3, H, W] float32 as in 2018.

    Outputs, as far as asked for: `sub4`, `sub24`, `sub124` (logits at 1/16, 1/8, 1/4), `logits` [N, classes, H, W],
    `labels` [N, H, W] uint8.
    """

    def network(image: Value, training: bool) -> dict[str, Value]:
        x = image if normalised else normalise(image)
        net = _network(segmenter, training, segmenter.own_statistics)
        found = dict(zip(BRANCHES, branches(net, x), strict=True))
        if {"logits", "labels"} & set(outputs):
            found["logits"] = full_logits(found["sub124"], size)
            found["labels"] = paddle.cast(paddle.argmax(found["logits"], axis=1), "uint8")
        return {name: found[name] for name in outputs}

    item = Input("image", (None, 3, *size)) if normalised else image_input(size)
    return build(network, [item], name=f"infer {size[0]} x {size[1]}", independent_rows=True, onednn=True)


def _network(segmenter: Segmenter, training: bool, own_statistics: float = 0.0) -> ICNet:
    """The network; of a picture's own statistics nothing, unless it is asked for."""
    width, rounding, zoom, blocks = segmenter.width, segmenter.rounding, segmenter.zoom, segmenter.blocks
    return ICNet(len(segmenter.classes), training, width, rounding, zoom, blocks, own_statistics)
