"""What `--engine auto` chooses by on a CPU: CPU seconds of both engines for every kind of Program of the zoo.

    python benchmarks/engines.py [--cases NAME ...] --json benchmarks/results/engines_cpu_DATE.json

Every measurement is a process of its own: the first run, with the start of the engine and, for XLA, compilation (`cold`,
into an empty cache; `warm`, with the code of an earlier process), then runs one by one. From `pays` runs on XLA has cost less
than Paddle's executor, compilation included. CPU seconds, because those of a laptop's few cores are what is spent.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.figures import add_json, save, versions

import numpy as np

Job = tuple[Any, dict[str, np.ndarray]]
"""A Program, and what it is fed."""

AT_LEAST = 2.0
"""Seconds of runs that are timed."""


def classifier(model: str, kind: str, batch: int) -> Job:
    """Training or evaluation of a batch of random images."""
    from fluid.program import build
    from fluid.schedule import Constant
    from image_classification.classifier import Classifier
    from image_classification.models import find_model
    from image_classification.network import evaluation_program, training_network
    from image_classification.reader import Preprocess

    import paddle

    chosen = find_model(model)
    described = Classifier(model, 10, Preprocess(chosen.image_shape, chosen.resize_short), chosen.mean, chosen.std)
    if kind == "train":
        network, inputs = training_network(described)
        momentum = lambda: paddle.optimizer.Momentum(0.1, 0.9)  # noqa: E731
        program = build(network, inputs, name=kind, training=True, optimizer=momentum, schedule=Constant(0.01))
    else:
        program = evaluation_program(described)
    channels, height, width = chosen.image_shape
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (batch, height, width, channels), np.uint8),
        "label": rng.integers(0, 10, batch),
    }
    return program, {name: feed[name] for name in program.inputs}


def translation(kind: str, sentences: int) -> Job:
    """The network of the translator that comes along, on sentences of 24 random words."""
    from fluid.schedule import Constant
    from neural_machine_translation import network
    from neural_machine_translation.decode import Search
    from neural_machine_translation.opening import open_translator
    from neural_machine_translation.options import ModelFlags
    from neural_machine_translation.translator import SHIPPED

    import paddle

    config = open_translator(ModelFlags(pretrained_model=SHIPPED)).facts.config
    if kind == "train":
        adam = lambda: paddle.optimizer.Adam(1.0, 0.9, 0.98, 1e-9)  # noqa: E731
        program, _ = network.training_programs(config, label_smoothing=0.1, optimizer=adam, schedule=Constant(1e-4))
    elif kind == "eval":
        program = network.evaluation_program(config)
    else:
        program = network.search_program(config, Search(max_out_len=24))
    words = np.random.default_rng(0).integers(3, min(config.src_vocab_size, config.trg_vocab_size), (sentences, 24))
    words[:, 0], words[:, -1] = 0, 1
    return program, dict.fromkeys(program.inputs, words)


def agent(batch: int) -> Job:
    """Nature's network: Q values of states."""
    from DeepQNetwork.agent import Agent
    from DeepQNetwork.network import act_program

    program = act_program(Agent("Pong", "nature", False, 6))
    rng = np.random.default_rng(0)
    shapes = {item.name: [batch if n is None else n for n in item.shape] for item in program.inputs.values()}
    return program, {name: rng.integers(0, 256, shape, np.uint8) for name, shape in shapes.items()}


def words(kind: str, batch: int) -> Job:
    """CRNN-CTC of 2018 on words of 48 x 128 pixels."""
    from fluid.interface import Input
    from fluid.program import build
    from fluid.schedule import Constant
    from ocr_recognition.model import crnn_ctc

    import paddle
    import paddle.nn.functional as F

    def network(pixel: Any, width: Any, label: Any, length: Any, training: bool) -> dict[str, Any]:
        logits, frames = crnn_ctc(pixel, width, 95, training)
        if not training:
            return {"logits": logits}
        losses = F.ctc_loss(logits.transpose([1, 0, 2]), label, frames, length, blank=95, reduction="none")
        return {"loss": losses.mean()}

    inputs = [
        Input("pixel", (None, 1, 48, 128)),
        Input("width", (None,), "int64"),
        Input("label", (None, 8), "int32"),
        Input("length", (None,), "int64"),
    ]
    momentum = (lambda: paddle.optimizer.Momentum(0.01, 0.9)) if kind == "train" else None
    schedule = Constant(1e-3)
    program = build(network, inputs, name=kind, training=kind == "train", optimizer=momentum, schedule=schedule)
    rng = np.random.default_rng(0)
    feed = {
        "pixel": rng.normal(size=(batch, 1, 48, 128)).astype(np.float32),
        "width": np.full(batch, 128),
        "label": rng.integers(0, 95, (batch, 8)).astype(np.int32),
        "length": np.full(batch, 8),
    }
    return program, feed


def detection(kind: str, batch: int) -> Job:
    """SSD on MobileNet-V1 at 300 x 300: training, or prediction with its suppression."""
    from fluid.program import build
    from fluid.schedule import Constant
    from object_detection.detector import Detector, classes_of
    from object_detection.network import prediction_program, training_network
    from object_detection.nms import Nms

    import paddle

    detector = Detector("ssd_mobilenet_v1", classes_of(20))
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (batch, 300, 300, 3), np.uint8),
        "boxes": np.tile(np.array([0.2, 0.3, 0.6, 0.8], np.float32), (batch, 8, 1)),
        "labels": rng.integers(0, 20, (batch, 8)),
    }
    if kind == "train":
        network, inputs = training_network(detector, max_boxes=8)
        momentum = lambda: paddle.optimizer.Momentum(0.1, 0.9)  # noqa: E731
        program = build(network, inputs, name=kind, training=True, optimizer=momentum, schedule=Constant(0.001))
    else:
        program = prediction_program(detector, Nms())
    return program, {name: feed[name] for name in program.inputs}


def speech(kind: str, batch: int) -> Job:
    """Three projected LSTM layers on 64 frames."""
    from DeepASR.model import Sizes
    from DeepASR.network import build_evaluation, build_training
    from fluid.schedule import Constant

    import paddle

    sizes = Sizes(frame_dim=40, stacked_num=3, hidden_dim=256, proj_dim=128, class_num=500)
    adam = lambda: paddle.optimizer.Adam(1.0)  # noqa: E731
    program = build_training(sizes, adam, Constant(1e-4)) if kind == "train" else build_evaluation(sizes)
    rng = np.random.default_rng(0)
    feed = {
        "feature": rng.normal(size=(batch, 64, 3, 11, sizes.frame_dim)).astype(np.float32),
        "length": np.full(batch, 64),
        "label": rng.integers(0, sizes.class_num, (batch, 64)),
    }
    return program, {name: feed[name] for name in program.inputs}


def segmentation(kind: str, batch: int) -> Job:
    """ICNet of width 0.5 on 19 classes: training on crops of 192 x 384, or labels of 256 x 512."""
    from fluid.program import build
    from fluid.schedule import Constant
    from icnet.network import inference_program, training_network
    from icnet.segmenter import Segmenter

    import paddle

    height, width = (192, 384) if kind == "train" else (256, 512)
    segmenter = Segmenter(width=0.5, size=(256, 512))
    if kind == "train":
        network, inputs = training_network(segmenter, (height, width))
        adam = lambda: paddle.optimizer.Adam(1.0)  # noqa: E731
        program = build(network, inputs, name=kind, training=True, optimizer=adam, schedule=Constant(0.002))
    else:
        program = inference_program(segmenter, (height, width), ["labels"])
    rng = np.random.default_rng(0)
    feed = {
        "image": rng.integers(0, 256, (batch, height, width, 3), np.uint8),
        "label": rng.integers(0, len(segmenter.classes), (batch, height, width)).astype(np.uint8),
    }
    return program, {name: feed[name] for name in program.inputs}


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "SmallNet train 64": (classifier, ("SmallNet", "train", 64)),
    "SmallNet eval 100": (classifier, ("SmallNet", "eval", 100)),
    "SmallNet eval 1": (classifier, ("SmallNet", "eval", 1)),
    "MobileNetV1 train 8": (classifier, ("MobileNetV1", "train", 8)),
    "MobileNetV1 eval 8": (classifier, ("MobileNetV1", "eval", 8)),
    "ResNet50 train 4": (classifier, ("ResNet50", "train", 4)),
    "ResNet50 eval 1": (classifier, ("ResNet50", "eval", 1)),
    "translation train 32": (translation, ("train", 32)),
    "translation eval 32": (translation, ("eval", 32)),
    "translation search 32": (translation, ("search", 32)),
    "translation search 1": (translation, ("search", 1)),
    "Nature act 1": (agent, (1,)),
    "CRNN-CTC train 16": (words, ("train", 16)),
    "CRNN-CTC eval 1": (words, ("eval", 1)),
    "LSTMP train 8": (speech, ("train", 8)),
    "LSTMP eval 1": (speech, ("eval", 1)),
    "SSD train 4": (detection, ("train", 4)),
    "SSD predict 1": (detection, ("predict", 1)),
    "ICNet train 4": (segmentation, ("train", 4)),
    "ICNet labels 1": (segmentation, ("labels", 1)),
}


def measure(case: str, name: str) -> dict[str, float]:
    """CPU seconds of the first run, the engine's start included, and of a run after it."""
    from fluid.program import initialise

    make, arguments = CASES[case]
    program, feed = make(*arguments)
    state = initialise(program, seed=0)
    began = time.process_time()
    from fluid import engine as engines

    engine, _ = engines.create(name, "cpu")
    engine.load(state)

    def run(step: int) -> None:
        for value in engine.run(program, feed, step).values():
            np.asarray(value)

    run(0)
    first, began, step = time.process_time() - began, time.process_time(), 0
    while step < 2 or time.process_time() - began < AT_LEAST:
        run(step := step + 1)
    spent = {"first": round(first, 4), "run": round((time.process_time() - began) / step, 5)}
    return {**spent, "recurrent": program.recurrent}


def in_a_process(case: str, name: str, cache: str) -> dict[str, float]:
    """`measure` in a new process with that cache of compiled code."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", case, name],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": cache},
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure every case, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=list(CASES))
    add_json(parser)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*arguments.one)))
        return
    rows = []
    print(
        f"{'':24}{'Paddle: first':>14}{'a run':>9}{'XLA: cold':>12}{'warm':>8}{'a run':>9}{'pays: cold':>13}{'warm':>7}"
    )
    for case in arguments.cases:
        with tempfile.TemporaryDirectory() as cache:
            ours = in_a_process(case, "paddle", cache)
            cold, warm = (in_a_process(case, "xla", cache) for _ in range(2))
        recurrent = [spent.pop("recurrent") for spent in (ours, cold, warm)][0]
        saved = ours["run"] - warm["run"]
        pays = [
            round(1 + max(0.0, (xla["first"] - ours["first"]) / saved)) if saved > 0 else None for xla in (cold, warm)
        ]
        row = {
            "case": case,
            "recurrent": recurrent,
            "paddle": ours,
            "cold": cold,
            "warm": warm,
            "pays_cold": pays[0],
            "pays_warm": pays[1],
        }
        rows.append(row)
        print(
            f"{case:24}{ours['first']:14.2f}{ours['run']:9.4f}{cold['first']:12.2f}{warm['first']:8.2f}{warm['run']:9.4f}"
            f"{pays[0] or 'never':>13}{pays[1] or 'never':>7}",
            flush=True,
        )
        save(arguments.json, versions=versions("paddlepaddle", "jax"), cpu_seconds=rows)


if __name__ == "__main__":
    main()
