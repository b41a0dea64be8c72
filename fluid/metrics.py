"""Measuring a network over a whole set: what a task counts, and the one loop that shows it every sample exactly once."""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from fluid.data import Batch, BatchSource, Plan, Source, evaluation_batches
from fluid.engine import Engine
from fluid.interface import Interface
from fluid.signals import leave_if_stopped

import numpy as np


class Metric(Protocol):
    """Counts what a network answers, so that the result depends on nothing but the samples.

    Whatever the size of the batches and the number of devices and processes: sums are added up in int64 or float64, and
    what cannot be summed (rankings) is kept by sample and gathered.
    """

    def add(self, outputs: Mapping[str, np.ndarray], batch: Batch) -> None:
        """Count a batch: `outputs` of the Program by name, and the batch it was fed.

        Both have the rows of this process's share, of which `batch.mask` marks the real samples; a last share may have
        none. What the samples hold beside the inputs of the Program, labels say, is in `batch.feed` too. An output that
        is not made of samples (`Output.batch` is None) was computed over the shares of all processes, padding included
        unless the Program is fed the mask: every process is shown the same, and `merge` leaves it alone.
        """
        ...

    def merge(self, engine: Engine) -> None:
        """Unite what all processes counted (`Engine.total`, `Engine.gather`); all of them call this together."""
        ...

    def result(self) -> dict[str, float]:
        """The figures, by the names they have in logs."""
        ...


AnyMetric = TypeVar("AnyMetric", bound=Metric)


def measure(
    engine: Engine,
    program: Interface,
    source: Source | BatchSource,
    metric: AnyMetric,
    *,
    batch_size: int,
    num_workers: int = 0,
    plan: Plan | None = None,
    fetch: Sequence[str] | None = None,
    mask: str | None = None,
) -> AnyMetric:
    """Show `metric` what `program` answers to every sample of `source`, exactly once each; returns it, merged.

    Args:
        engine: holds the weights. In a distributed run all processes call this together.
        program: takes some or all fields of the samples.
        source: the samples.
        metric: a fresh one.
        batch_size: samples in a batch; devices that share one make it larger. Decides the speed alone.
        num_workers: processes that read.
        plan: groups the samples of similar size, in batches of at most `batch_size`.
        fetch: outputs and layers that the metric needs; all outputs by default.
        mask: input of `program` that takes `Batch.mask`, where it counts on the device.

    Raises:
        DataError: a sample cannot be read; none is ever skipped.
    """
    shard = (engine.host_id, engine.num_hosts)
    # More rows than there are samples would be padding.
    rows = engine.shared_rows(min(batch_size, max(len(source), 1)))
    with evaluation_batches(source, rows, num_workers=num_workers, shard=shard, plan=plan, mask=mask) as batches:
        for batch in batches:
            leave_if_stopped(engine)
            feed = {name: array for name, array in batch.feed.items() if name in program.inputs}
            outputs = engine.run(program, feed, fetch=fetch)
            metric.add({name: np.asarray(array) for name, array in outputs.items()}, batch)
    metric.merge(engine)
    return metric
