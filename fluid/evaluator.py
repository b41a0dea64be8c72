"""What is measured in the course of training."""

from collections.abc import Callable
from typing import Any, Generic

from fluid.averages import MeasuredWeights
from fluid.data import BatchSource, Plan, Source
from fluid.interface import Interface
from fluid.metrics import AnyMetric, measure
from fluid.session import Session


class Evaluator(Generic[AnyMetric]):
    """Measures the weights in training, or their moving averages, over all of a source: for `fluid.keeper.Evaluation`.

    Args:
        session: the run.
        program: takes some or all fields of the samples.
        source: the samples.
        metric: makes a fresh one.
        batch_size: of the evaluation.
        plan: from the samples in a batch to a plan for `measure`.
    """

    def __init__(
        self,
        session: Session[Any],
        program: Interface,
        source: Source | BatchSource,
        metric: Callable[[], AnyMetric],
        *,
        batch_size: int,
        plan: Callable[[int], Plan] | None = None,
    ) -> None:
        self._weights = MeasuredWeights(session.engine, session.update, program.state_names, session.flags)
        self._program, self._source, self._metric, self._plan = program, source, metric, plan
        self._batch_size, self._num_workers = batch_size, session.flags.num_workers
        self.measured = metric()
        """What the last evaluation has counted."""

    def __call__(self) -> dict[str, float]:
        """The figures."""
        engine = self._weights.engine()
        rows = engine.shared_rows(self._batch_size)
        self.measured = measure(
            engine,
            self._program,
            self._source,
            self._metric(),
            batch_size=rows,
            num_workers=self._num_workers,
            plan=None if self._plan is None else self._plan(rows),
        )
        return self.measured.result()
