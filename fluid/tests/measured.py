"""Metrics of three kinds over one set, in as many processes and devices as there are: sums, a ranking, a confusion matrix.

`python measured.py RESULT.json BATCH_SIZE [--coordinator ...]`, as `fluid.commands.launch` starts it.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fluid.data import Batch
from fluid.engine import Engine, Hosts, create
from fluid.interface import Input
from fluid.metrics import measure
from fluid.program import build

import numpy as np
import paddle

SAMPLES, CLASSES = 23, 4


class Scenes:
    """Samples of six pixels with their true classes, a score, and whether they are wanted."""

    def __len__(self) -> int:
        return SAMPLES

    def load(self, index: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        own = np.random.default_rng(index)
        return {
            "pixels": own.integers(0, CLASSES, 6),
            "truth": own.integers(0, CLASSES, 6),
            "score": np.float64(own.random()),
            "wanted": own.random() < 0.4,
        }


class Everything:
    """The mean score, the average precision of the scores, and the confusion matrix of the pixels."""

    def __init__(self) -> None:
        self.samples, self.total = 0, 0.0
        self.confusion = np.zeros((CLASSES, CLASSES), np.int64)
        self.on_device = np.zeros((CLASSES, CLASSES), np.int64)
        self.ranked: list[np.ndarray] = []

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        scores, wanted = outputs["doubled"][batch.mask], batch.feed["wanted"][batch.mask]
        self.samples += batch.size
        self.total += float(scores.sum())
        self.ranked.append(np.stack([scores, wanted], axis=1))
        pixels, truth = (batch.feed[name][batch.mask].reshape(-1) for name in ("pixels", "truth"))
        np.add.at(self.confusion, (truth, pixels), 1)
        self.on_device += outputs["confusion"].astype(np.int64)

    def merge(self, engine: Engine) -> None:
        self.samples = int(engine.total(np.array(self.samples)))
        self.total = float(engine.total(np.array(self.total)))
        self.confusion = engine.total(self.confusion)
        self.ranked = [engine.gather(np.concatenate(self.ranked))]

    def result(self) -> dict[str, Any]:
        ranking = self.ranked[0][np.argsort(-self.ranked[0][:, 0])][:, 1]
        precision = ranking.cumsum() / np.arange(1, len(ranking) + 1)
        return {
            "samples": self.samples,
            "mean": self.total / self.samples,
            "average_precision": float((precision * ranking).sum() / ranking.sum()),
            "confusion": self.confusion.tolist(),
            "on_device": self.on_device.tolist(),
        }


def network(
    pixels: paddle.pir.Value, truth: paddle.pir.Value, score: paddle.pir.Value, real: paddle.pir.Value, training: bool
) -> dict[str, paddle.pir.Value]:
    """Scores of samples, and a confusion matrix counted on the device, where the mask keeps the padding out."""
    pairs = paddle.nn.functional.one_hot(truth * CLASSES + pixels, CLASSES**2)
    counts = paddle.sum(pairs * paddle.cast(real, "float32").reshape([-1, 1, 1]), axis=[0, 1])
    return {"doubled": 2.0 * score, "confusion": counts.reshape([CLASSES, CLASSES])}


def program():
    """What `Scenes` are measured with."""
    inputs = [
        Input("pixels", (None, 6), "int64"),
        Input("truth", (None, 6), "int64"),
        Input("score", (None,), "float64"),
        Input("real", (None,), "bool"),
    ]
    return build(network, inputs, name="eval", batch_axes={"confusion": None})


def main() -> None:
    """Measure, and let the first process write the result."""
    result, batch_size, words = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    hosts = Hosts(words[1], int(words[3]), int(words[5])) if words else Hosts()
    engine, _ = create("xla", "cpu", hosts=hosts)
    measured = measure(engine, program(), Scenes(), Everything(), batch_size=batch_size, mask="real")
    if engine.host_id == 0:
        result.write_text(json.dumps({"devices": engine.num_devices, **measured.result()}))


if __name__ == "__main__":
    main()
