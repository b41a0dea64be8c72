"""The Programs of image classification."""

from collections.abc import Callable

from fluid.interface import Input
from fluid.program import Program, Value, build, trainable_values
from image_classification.classifier import Classifier
from image_classification.finetuning import Tuning
from image_classification.mixing import SHARE
from image_classification.models import find_model

import numpy as np
import paddle
import paddle.nn.functional as F


def normalise(image: Value, classifier: Classifier) -> Value:
    """[N, H, W, 3] uint8 -> [N, 3, H, W] float32, (x / 255 - mean) / std by channel, as `reader.normalise`."""
    mean = paddle.assign(np.asarray(classifier.mean, np.float32))
    std = paddle.assign(np.asarray(classifier.std, np.float32))
    return paddle.transpose((paddle.cast(image, "float32") / 255.0 - mean) / std, [0, 3, 1, 2])


def heads(classifier: Classifier, image: Value, training: bool) -> tuple[Value, ...]:
    """Logits [N, class_dim] of the main head and of the auxiliary ones: image [N, 3, H, W] float32, normalised."""
    logits = find_model(classifier.model).build(image, classifier.class_dim, training)
    return logits if isinstance(logits, tuple) else (logits,)


def training_network(
    classifier: Classifier,
    *,
    label_smoothing: float = 0.0,
    mixing: tuple[int, int] | None = None,
    weights: np.ndarray | None = None,
    tuning: Tuning = Tuning(),  # noqa: B008
) -> tuple[Callable[..., dict[str, Value]], list[Input]]:
    """The network of a training Program and its inputs.

    Inputs: `image` [N, H, W, 3] uint8, `label` [N] int64 and, with `mixing`, `own_share` of that shape, float32: the share
    of each pixel that is the image's own. Outputs: `loss`, `acc1` and, of more than five classes, `acc5`, means over the batch;
    the accuracies speak of an image's own label. Auxiliary heads add their losses with the weights of the model's paper.

    Args:
        classifier: what is trained.
        label_smoothing: share of the target that is spread over all classes.
        mixing: [H, W], or [1, 1] for the same share everywhere; see `mixing.py`.
        weights: what each class counts in the loss, [class_dim].
        tuning: what is trained, and how fast.
    """

    def network(image: Value, label: Value, training: bool, own_share: Value | None = None) -> dict[str, Value]:
        x = normalise(image, classifier)
        target, counts = label, None
        if mixing or label_smoothing:
            target = F.one_hot(label, classifier.class_dim)
            if label_smoothing:
                target = F.label_smooth(target, epsilon=label_smoothing)
        if weights is not None:
            counts = paddle.gather(paddle.assign(weights), label)
        if mixing:
            x = own_share * x + (1.0 - own_share) * paddle.flip(x, [0])
            share = paddle.mean(own_share)
            target, counts = mixture(target, counts, share)
        with tuning.statistics():
            logits = heads(classifier, x, training)
        # Paddle lists what was created last first.
        tuning.set_up(trainable_values()[::-1], logits)
        soft = target is not label
        losses = [mean_loss(head, target, counts, soft) for head in logits]
        loss = losses[0]
        for weight, auxiliary in zip(find_model(classifier.model).aux_weights, losses[1:]):
            loss = loss + weight * auxiliary
        ranks = label_ranks(logits[0], label)
        # Among five classes each is one of the five best.
        shown = (1, 5) if classifier.class_dim > 5 else (1,)
        return {"loss": loss, **{f"acc{k}": paddle.mean(paddle.cast(ranks < k, "float32")) for k in shown}}

    inputs = [image_input(classifier), Input("label", (None,), "int64")]
    return network, inputs + ([Input(SHARE, mixing, batch=None)] if mixing else [])


def mixture(target: Value, counts: Value | None, share: Value) -> tuple[Value, Value | None]:
    """Targets [N, C] mixed with those of the batch's reverse, and what each row counts [N]; `share` is a row's own.

    A row's target sums to 1, which the gradient of the cross-entropy in Paddle takes for granted, also where classes count
    differently.
    """
    if counts is None:
        return share * target + (1.0 - share) * paddle.flip(target, [0]), None
    own = share * counts
    total = own + (1.0 - share) * paddle.flip(counts, [0])
    part = (own / paddle.clip(total, min=1e-12)).unsqueeze(1)
    return part * target + (1.0 - part) * paddle.flip(target, [0]), total


def mean_loss(logits: Value, target: Value, counts: Value | None, soft: bool) -> Value:
    """Mean cross-entropy of logits [N, C] against labels [N], or targets [N, C] if `soft`, rows counting as `counts` [N] say."""
    if counts is None:
        return F.cross_entropy(logits, target, soft_label=soft)
    losses = F.cross_entropy(logits, target, soft_label=soft, reduction="none").reshape([-1])
    return paddle.mean(losses * counts)


def evaluation_program(classifier: Classifier) -> Program:
    """Input `image` [N, H, W, 3] uint8, output `logits` [N, class_dim]; every layer of the network can be fetched."""

    def network(image: Value, training: bool) -> dict[str, Value]:
        return {"logits": heads(classifier, normalise(image, classifier), training)[0]}

    return build(network, [image_input(classifier)], name="eval")


def inference_program(classifier: Classifier) -> Program:
    """What is exported: input `image` [N, 3, H, W] float32, normalised already; output `logits` [N, class_dim]."""

    def network(image: Value, training: bool) -> dict[str, Value]:
        return {"logits": heads(classifier, image, training)[0]}

    return build(network, [Input("image", (None, *classifier.preprocess.image_shape))], name="infer")


def image_input(classifier: Classifier) -> Input:
    """The images as the reader emits them."""
    channels, height, width = classifier.preprocess.image_shape
    return Input("image", (None, height, width, channels), "uint8")


def label_ranks(logits: Value, label: Value) -> Value:
    """How many of the logits [N, C] come before that of the label [N]: larger ones, and equal ones of earlier classes.

    They are counted because a sort would gather the whole batch on every GPU.
    """
    label = label.unsqueeze(1)
    own = paddle.take_along_axis(logits, label, axis=1)
    earlier = paddle.logical_and(logits == own, paddle.arange(logits.shape[1]) < label)
    # Not `logits > own`: a label whose logit is NaN comes last.
    return paddle.sum(paddle.cast(paddle.logical_or(paddle.logical_not(logits <= own), earlier), "int32"), axis=1)
