"""The Programs of text recognition."""

from collections.abc import Collection
from typing import Any

from fluid.interface import Input, Window
from fluid.program import Program, Value, build, build_accumulating, name_layer
from fluid.schedule import Schedule
from fluid.search import NEVER, Beam, beam_search, for_each_hypothesis
from ocr_recognition.ctc import ctc_losses
from ocr_recognition.model import DEEP, Decoder, Memory, crnn, crnn_ctc, encode
from ocr_recognition.recognizer import END, SIGNS, START, Recognizer

import numpy as np
import paddle
import paddle.nn.functional as F


def inputs_of(recognizer: Recognizer) -> list[Input]:
    """What training and evaluation are fed: pictures as bytes, their widths, labels padded with anything."""
    return [
        Input("pixel", (None, 1, recognizer.preprocess.height, None), "uint8"),
        Input("width", (None,), "int64"),
        Input("label", (None, None), "int32"),
        Input("label_length", (None,), "int64"),
    ]


def training_programs(
    recognizer: Recognizer,
    *,
    optimizer: Any,
    schedule: Schedule,
    accumulate_batches: int = 1,
    ema_decay: float | Window | None = None,
    as_in_2018: bool = False,
) -> dict[str, Program]:
    """The training Program `train`, with accumulated gradients the pair of `train` and `apply`.

    Output `loss`: of CTC the mean over words, of attention over characters. With `as_in_2018` it is the sum over words,
    whose gradient is divided, of CTC, by the frames of each word (`norm_by_times`), and convolutions begin as they did then.
    """

    def network(pixel: Value, width: Value, label: Value, label_length: Value, training: bool) -> dict[str, Value]:
        x = normalise(pixel, width)
        if recognizer.is_ctc:
            logits, frames = _logits(recognizer, x, width, training, as_in_2018)
            losses = _ctc_losses(recognizer, logits, frames, label, label_length)
            return {"loss": _summed_by_times(losses, frames) if as_in_2018 else losses.mean()}
        decoder = Decoder(len(recognizer.alphabet))
        losses = _attention_losses(decoder, encode(x, width, training, as_in_2018=as_in_2018), label, label_length)
        if as_in_2018:
            return {"loss": losses.sum()}
        characters = paddle.cast(label_length + 1, "float32").sum()
        return {"loss": losses.sum() / characters, "loss_weight": characters}

    inputs = inputs_of(recognizer)
    common = {"name": "train", "optimizer": optimizer, "schedule": schedule, "ema_decay": ema_decay}
    if accumulate_batches == 1:
        return {"train": build(network, inputs, training=True, **common)}
    train, apply = build_accumulating(network, inputs, batches=accumulate_batches, **common)
    return {"train": train, "apply": apply}


def evaluation_program(recognizer: Recognizer, beam_size: int = 1, allowed: Collection[str] | None = None) -> Program:
    """Outputs `losses` [N] of known words, and what `reading_outputs` says of them."""

    def network(pixel: Value, width: Value, label: Value, label_length: Value, training: bool) -> dict[str, Value]:
        x = normalise(pixel, width)
        if recognizer.is_ctc:
            logits, frames = _logits(recognizer, x, width, training)
            losses = _ctc_losses(recognizer, logits, frames, label, label_length)
            return {"losses": losses, "logits": logits, "decoded": _merged(logits, frames, recognizer)}
        memory, decoder = encode(x, width, training), Decoder(len(recognizer.alphabet))
        losses = _attention_losses(decoder, memory, label, label_length)
        return {"losses": losses, **_searched(recognizer, decoder, memory, beam_size, allowed)}

    return build(network, inputs_of(recognizer), name="eval", independent_rows=not recognizer.is_ctc)


def inference_program(recognizer: Recognizer, beam_size: int = 1, allowed: Collection[str] | None = None) -> Program:
    """What is exported. Inputs `pixel` [N, 1, height, W] float32, grey values - 127.5, and `width` [N] int64.

    Outputs of CTC:         `logits` [N, T, classes] of each frame, and `decoded` [N, T], the classes of the characters read
                            greedily, padded with -1.
    Outputs of attention:   `decoded` [N, T], the best of `beam_size` hypotheses; `logits` [N, T, classes] of each of its
                            characters and the end sign; `places` [N, T], the middle of what was looked at, in frames;
                            `hypotheses` [N, beam_size, T] and their `scores` [N, beam_size], log-probabilities.

    Args:
        allowed: attention: the characters that may be read; by default all.
    """

    def network(pixel: Value, width: Value, training: bool) -> dict[str, Value]:
        x = pixel * inside_of(pixel, width)
        if recognizer.is_ctc:
            logits, frames = _logits(recognizer, x, width, training)
            return {"logits": logits, "decoded": _merged(logits, frames, recognizer)}
        decoder = Decoder(len(recognizer.alphabet))
        return _searched(recognizer, decoder, encode(x, width, training), beam_size, allowed)

    pixel, width = (Input("pixel", (None, 1, recognizer.preprocess.height, None)), Input("width", (None,), "int64"))
    return build(network, [pixel, width], name="infer", independent_rows=not recognizer.is_ctc)


def normalise(pixel: Value, width: Value) -> Value:
    """Grey values [N, 1, height, W] uint8 -> float32 around 0, and 0 beyond each word's width [N]."""
    x = paddle.cast(pixel, "float32") - 127.5
    return x * inside_of(x, width)


def inside_of(x: Value, width: Value) -> Value:
    """[N, 1, 1, W], 1 for the columns of each word of x [N, 1, height, W]."""
    columns = paddle.arange(_length(x, 3), dtype="int64")
    return paddle.cast(columns.unsqueeze(0) < width.unsqueeze(1), x.dtype).unsqueeze([1, 2])


def _logits(
    recognizer: Recognizer, x: Value, width: Value, training: bool, as_in_2018: bool = False
) -> tuple[Value, Value]:
    classes = len(recognizer.alphabet)
    if recognizer.model == "crnn_ctc":
        return crnn_ctc(x, width, classes, training, as_in_2018=as_in_2018)
    return crnn(x, width, classes, training, DEEP[recognizer.model])


def _ctc_losses(recognizer: Recognizer, logits: Value, frames: Value, label: Value, label_length: Value) -> Value:
    return ctc_losses(logits, label + recognizer.first_class, frames, label_length, blank=recognizer.blank)


def _summed_by_times(losses: Value, frames: Value) -> Value:
    """The sum of the losses [N], with the gradient of each divided by its frames [N]."""
    scaled = losses / paddle.cast(frames, losses.dtype)
    return (scaled + (losses - scaled).detach()).sum()


def _merged(logits: Value, frames: Value, recognizer: Recognizer) -> Value:
    """The most probable class of every frame, repeats merged, blanks dropped: [N, T] int64, padded with -1."""
    best = paddle.argmax(logits, axis=2)
    steps = paddle.arange(_length(logits, 1), dtype="int64")
    before = paddle.concat([paddle.full_like(best[:, :1], -1), best[:, :-1]], axis=1)
    begins = paddle.logical_and(best != before, best != recognizer.blank)
    begins = paddle.cast(paddle.logical_and(begins, steps.unsqueeze(0) < frames.unsqueeze(1)), "int64")
    place = paddle.cumsum(begins, axis=1) * begins - 1
    # Neither a sort nor a scatter, which not every runtime of exported models has for whole numbers.
    here = paddle.cast(place.unsqueeze(1) == steps.reshape([1, -1, 1]), "float32")
    return paddle.cast((here * paddle.cast(best + 1, "float32").unsqueeze(1)).sum(axis=2), "int64") - 1


def _attention_losses(decoder: Decoder, memory: Memory, label: Value, label_length: Value) -> Value:
    """Negative log-likelihood [N] of labels and the end sign after them."""
    own = paddle.cast(label, "int64") + SIGNS
    start = paddle.full_like(own[:, :1], START)
    steps = paddle.arange(_length(own, 1) + 1, dtype="int64").unsqueeze(0)
    length = label_length.unsqueeze(1)
    target = paddle.where(steps < length, paddle.concat([own, start], axis=1), paddle.full_like(steps, END))
    logits, _ = decoder.forced(memory, paddle.concat([start, own], axis=1))
    total, hot = paddle.logsumexp(logits, axis=2), F.one_hot(target, logits.shape[2])
    return ((total - (logits * hot).sum(axis=2)) * paddle.cast(steps <= length, "float32")).sum(axis=1)


def _searched(
    recognizer: Recognizer, decoder: Decoder, memory: Memory, beam_size: int, allowed: Collection[str] | None
) -> dict[str, Value]:
    """See `inference_program`."""
    classes, beam = len(recognizer.alphabet), Beam(beam_size, length_penalty="none")
    copies = Memory(*(for_each_hypothesis(part, beam_size) for part in memory))
    never = np.zeros(classes + SIGNS, np.float32)
    never[START] = NEVER
    if allowed is not None:
        never[SIGNS:] = [0.0 if character in allowed else NEVER for character in recognizer.alphabet.characters]

    unwanted = paddle.assign(never)

    def step(word: Value, place: Value, caches: Any) -> tuple[Value, list[Value]]:
        logits, state = decoder.step(copies, word.reshape([-1]), caches[0])
        return (logits + unwanted).reshape([-1, beam_size, classes + SIGNS]), [state]

    room = {"rows": paddle.shape(memory.encoded)[0], "length": recognizer.longest + 1, "bos": START, "eos": END}
    found = beam_search(step, [copies.start], beam, **room)
    best = found["ids"][:, 0]
    begun = paddle.concat([paddle.full_like(best[:, :1], START), best[:, :-1]], axis=1)
    logits, states = decoder.forced(memory, begun)
    weights = name_layer("attention", decoder.looked_at(memory, states))
    middles = paddle.arange(_length(weights, 2), dtype="float32") + 0.5
    return {
        "logits": logits,
        "decoded": paddle.where(best == END, paddle.full_like(best, -1), best),
        "places": (weights * middles).sum(axis=2),
        "hypotheses": found["ids"],
        "scores": found["scores"],
    }


def _length(value: Value, axis: int) -> int | Value:
    """Length of an axis: a number if it is known while the Program is built."""
    return value.shape[axis] if value.shape[axis] >= 0 else paddle.shape(value)[axis].astype("int64")
