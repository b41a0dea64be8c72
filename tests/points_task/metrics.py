"""Loss and accuracy over a whole part of the data."""

from fluid.data import evaluation_batches
from fluid.engine import Engine
from fluid.program import Program
from fluid.signals import leave_if_stopped
from points_task.reader import Points

import numpy as np


def measure(engine: Engine, evaluation: Program, source: Points, batch_size: int) -> dict[str, float]:
    """`loss` and `accuracy` over every point exactly once, whatever the size of a batch."""
    sums, shard = np.zeros(2), (engine.host_id, engine.num_hosts)
    with evaluation_batches(source, engine.shared_rows(batch_size), shard=shard) as batches:
        for batch in batches:
            leave_if_stopped(engine)
            outputs = engine.run(evaluation, batch.feed)
            sums += [float(np.asarray(outputs[name])[: batch.size].sum()) for name in ("losses", "hits")]
    loss, accuracy = engine.total(sums) / len(source)
    return {"loss": float(loss), "accuracy": float(accuracy)}
