"""The Programs of the task: training, evaluation, inference, and inference piece by piece.

All of them take `feature` [N, T, 3, 11, frame_dim] and `length` [N]. The labels of training and evaluation are `label` [N, T];
frames whose label is below 0 (`transforms.delay_labels`) and those beyond an utterance's end do not count.
"""

from collections.abc import Callable
from functools import partial

from DeepASR.model import before, stacked_lstmp
from DeepASR.sizes import WIDTH, Sizes
from DeepASR.transforms import DELTAS
from fluid.interface import Input, Window
from fluid.program import Program, Value, build, build_accumulating
from fluid.schedule import Schedule

import paddle
import paddle.nn.functional as F


def build_training(
    sizes: Sizes,
    optimizer: Callable[[], paddle.optimizer.Optimizer],
    schedule: Schedule,
    ema_decay: float | Window | None = None,
    label_smoothing: float = 0.0,
) -> Program:
    """Outputs `loss`, the mean cross-entropy of the frames that count, their share of right answers `accuracy`, and the
    weights of both, the number of these frames."""
    network = partial(_training_network, sizes, label_smoothing)
    return build(
        network,
        [*_inputs(sizes), _label()],
        name="train",
        training=True,
        optimizer=optimizer,
        schedule=schedule,
        ema_decay=ema_decay,
    )


def build_accumulating_training(
    sizes: Sizes,
    optimizer: Callable[[], paddle.optimizer.Optimizer],
    schedule: Schedule,
    ema_decay: float | Window | None = None,
    label_smoothing: float = 0.0,
    *,
    batches: int,
) -> tuple[Program, Program]:
    """The same with the gradients of several batches for one update: the pair (accumulate, apply)."""
    network = partial(_training_network, sizes, label_smoothing)
    return build_accumulating(
        network,
        [*_inputs(sizes), _label()],
        name="train",
        optimizer=optimizer,
        schedule=schedule,
        batches=batches,
        ema_decay=ema_decay,
    )


def build_evaluation(sizes: Sizes) -> Program:
    """Outputs by utterance, [N]: `losses` and `correct`, sums over the frames that count, and `counted`, their number."""
    return build(partial(_evaluation_network, sizes), [*_inputs(sizes), _label()], name="eval")


def build_inference(sizes: Sizes) -> Program:
    """Output `posterior` [N, T, class_num], 0 beyond an utterance's end; times are late by `transforms.DELAY` frames."""
    return build(partial(_inference_network, sizes), _inputs(sizes), name="infer", independent_rows=True)


def build_stream(sizes: Sizes) -> Program:
    """The same for a piece of each utterance, with the states of all layers handed on (`Engine.stream`).

    Further inputs are `output_K` [N, proj_dim] and `memory_K` [N, hidden_dim] of each layer K, at first `silence`; outputs
    `next_output_K` and `next_memory_K`.
    """
    states = [
        Input(f"{kind}_{layer}", (None, size))
        for layer in range(sizes.stacked_num)
        for kind, size in (("output", sizes.proj_dim), ("memory", sizes.hidden_dim))
    ]
    carry = {f"next_{item.name}": item.name for item in states}
    network = partial(_stream_network, sizes)
    return build(network, [*_inputs(sizes), *states], name="stream", carry=carry, independent_rows=True)


def _inputs(sizes: Sizes) -> list[Input]:
    shape = (None, None, DELTAS, WIDTH, sizes.frame_dim)
    return [Input("feature", shape), Input("length", (None,), "int64")]


def _label() -> Input:
    return Input("label", (None, None), "int64")


def _training_network(
    sizes: Sizes, label_smoothing: float, feature: Value, length: Value, label: Value, training: bool
) -> dict[str, Value]:
    losses, correct, counts = _measured(sizes, feature, length, label, training, label_smoothing)
    frames = counts.sum()
    # A batch may have no frame that counts.
    divisor = paddle.maximum(frames, paddle.ones_like(frames))
    loss, accuracy = losses.sum() / divisor, correct.sum() / divisor
    return {"loss": loss, "loss_weight": frames, "accuracy": accuracy, "accuracy_weight": frames}


def _evaluation_network(sizes: Sizes, feature: Value, length: Value, label: Value, training: bool) -> dict[str, Value]:
    named = zip(("losses", "correct", "counted"), _measured(sizes, feature, length, label, training))
    return {name: value.sum(axis=1) for name, value in named}


def _measured(
    sizes: Sizes, feature: Value, length: Value, label: Value, training: bool, label_smoothing: float = 0.0
) -> tuple[Value, Value, Value]:
    """Of each frame [N, T]: cross-entropy, whether the answer is right, whether it counts; 0 where it does not."""
    logits, _ = stacked_lstmp(feature, length, sizes, training)
    counts = before(length, logits) * paddle.cast(label >= 0, logits.dtype)
    known = paddle.maximum(label, paddle.zeros_like(label))
    losses = F.cross_entropy(logits, known.unsqueeze(2), reduction="none").squeeze(2)
    if label_smoothing:
        # That share of the target lies evenly on all classes.
        even = paddle.logsumexp(logits, axis=2) - logits.mean(axis=2)
        losses = (1 - label_smoothing) * losses + label_smoothing * even
    correct = paddle.cast(paddle.argmax(logits, axis=2) == known, logits.dtype)
    return losses * counts, correct * counts, counts


def _inference_network(sizes: Sizes, feature: Value, length: Value, training: bool) -> dict[str, Value]:
    logits, _ = stacked_lstmp(feature, length, sizes, training)
    return {"posterior": _posterior(logits, length)}


def _stream_network(sizes: Sizes, feature: Value, length: Value, training: bool, **states: Value) -> dict[str, Value]:
    initial = [(states[f"output_{layer}"], states[f"memory_{layer}"]) for layer in range(sizes.stacked_num)]
    logits, after = stacked_lstmp(feature, length, sizes, training, initial)
    outputs = {"posterior": _posterior(logits, length)}
    for layer, (output, memory) in enumerate(after):
        outputs |= {f"next_output_{layer}": output, f"next_memory_{layer}": memory}
    return outputs


def _posterior(logits: Value, length: Value) -> Value:
    return F.softmax(logits, axis=2) * before(length, logits).unsqueeze(2)
